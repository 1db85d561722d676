"""A local chart: the digest of its files, and its rendering by the Helm that will deploy it."""

import fnmatch
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import yaml

from components.release.errors import ChartError
from components.release.manifest import flattened
from components.release.secrets import Secrets, opened
from components.release.values import dotted, leaves, map_leaves, whole

CRD_FILE = re.compile(r"(charts/[^/]+/)*crds/.+\.(ya?ml|json)")
PACKED = re.compile(r"(charts/[^/]+/)*charts/[^/]+\.tgz")


def describe(chart: str) -> str:
    """Return the chart's name, version and the digest of its files, as in `web 0.1.0 (files 3f2a…)`.

    The digest takes what Helm would load: names in a stable order and contents, `.helmignore`
    respected. The folder's path, file times and the line endings of a checkout do not matter.

    Raises:
        ChartError: `chart` is not the folder of a chart.
    """
    folder = Path(chart)
    try:
        meta = yaml.safe_load((folder / "Chart.yaml").read_bytes())
        name, version = meta["name"], meta["version"]
    except OSError as error:
        raise ChartError(f"chart {chart}: cannot read Chart.yaml: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError):
        raise ChartError(f"chart {chart}: Chart.yaml gives no name and version") from None
    digest = hashlib.sha256()
    for path, file in sorted(_files(folder)):
        content = file.read_bytes()
        if b"\0" not in content:
            content = content.replace(b"\r\n", b"\n")
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return f"{name} {version} (files {digest.hexdigest()[:16]})"


def public_texts(chart: str, values: Mapping[str, Any]) -> list[str]:
    """Return what anybody may see of a chart before it is rendered: its files, and those of its values that
    are no `SecretStr`."""
    texts = [f"{path}\n{file.read_text('utf-8', 'replace')}" for path, file in _files(Path(chart))]
    return texts + [f"{dotted(path)} {leaf}" for path, leaf in leaves(values, lists=True)]


def render(
    chart: str,
    name: str,
    namespace: str,
    values: Mapping[str, Any],
    provider: pulumi.ProviderResource,
) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of the chart, hooks among them, test hooks and the CRDs of crds/ not.

    Rendered by the function `kubernetes:helm:template` of the Kubernetes provider, which works
    without a cluster too.

    Raises:
        ChartError: with Helm's own words, every secret of `values` masked.
    """
    folder = PurePosixPath(chart)
    options = {
        "chart": folder.name,
        "path": str(folder.parent),
        "release_name": name,
        "namespace": namespace,
        "values": opened(values),
        "skip_crd_rendering": True,
    }
    secrets = Secrets.of_values(values, public="\n".join([name, namespace, *public_texts(chart, values)]))
    try:
        with _masked_debug_log(secrets):
            answer = pulumi.runtime.invoke(
                "kubernetes:helm:template",
                {"jsonOpts": json.dumps(options)},
                pulumi.InvokeOptions(provider=provider),
            )
    except Exception as error:  # the SDK raises a bare Exception for every failed call
        text = str(error).split("failed to create chart from template: ")[-1]
        text = text.split("failed to generate YAML for specified Helm chart: ")[-1]
        where = f"chart {chart} of release {namespace}/{name} cannot be rendered:\n"
        raise ChartError(where + secrets.mask(text.strip())) from None
    return flattened(map_leaves((answer.value or {}).get("result", []), whole))


def crds(chart: str) -> list[dict[str, Any]]:
    """Return the CRDs in the folders crds/ of the chart and of its sub-charts, packed ones too.

    Raises:
        ChartError: a file is no YAML, or a packed chart cannot be read.
    """
    found = []
    for path, file in sorted(_files(Path(chart))):
        try:
            if CRD_FILE.fullmatch(path):
                found += list(yaml.safe_load_all(file.read_bytes()))
            elif PACKED.fullmatch(path):
                with tarfile.open(file) as packed:
                    for member in packed.getmembers():
                        inner = member.name.partition("/")[2]
                        if CRD_FILE.fullmatch(inner) and (content := packed.extractfile(member)):
                            found += list(yaml.safe_load_all(content.read()))
        except (yaml.YAMLError, tarfile.TarError, OSError):
            raise ChartError(f"chart {chart}: {path} cannot be read") from None
    return [item for item in flattened(found) if item.get("kind") == "CustomResourceDefinition"]


@contextmanager
def _masked_debug_log(secrets: Secrets) -> Iterator[None]:
    """Mask what the SDK logs of a failed call for `--debug`, and in every event log."""
    log = pulumi.log.debug

    def masked(message: str, *args: Any, **options: Any) -> None:
        log(secrets.mask(message), *args, **options)

    pulumi.log.debug = masked
    try:
        yield
    finally:
        pulumi.log.debug = log


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that Helm loads: path in the chart, and where it is."""
    ignore = folder / ".helmignore"
    rules = ["templates/.?*"]  # Helm's own default
    if ignore.is_file():
        lines = ignore.read_text(encoding="utf-8-sig").splitlines()
        rules += [rule for line in lines if (rule := line.strip()) and not rule.startswith("#")]

    def walk(at: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        for entry in at.iterdir():
            path = prefix + entry.name
            if entry.is_dir():
                if not _ignored(path, True, rules):
                    yield from walk(entry, f"{path}/")
            elif not _ignored(path, False, rules):
                yield path, entry

    yield from walk(folder, "")


def _ignored(path: str, is_dir: bool, rules: list[str]) -> bool:
    """Apply Helm's rules for `.helmignore` (helm/pkg/ignore), which are not Git's: no `**`; a pattern with a
    slash is held against the whole path, one without against the last name; `!` ignores all that
    does *not* match."""
    return any(_matches(path, is_dir, rule) for rule in rules)


def _matches(path: str, is_dir: bool, rule: str) -> bool:
    negate, rule = rule.startswith("!"), rule.removeprefix("!")
    if rule.endswith("/") and not is_dir:
        return negate
    rule = rule.removesuffix("/")
    parts = path.split("/") if "/" in rule else [path.rsplit("/", 1)[-1]]
    wanted = rule.removeprefix("/").replace("[^", "[!").split("/")
    same = len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))
    return same != negate
