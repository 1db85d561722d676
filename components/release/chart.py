"""A chart in the project, folder or `.tgz`: the digest of its files, and its rendering by the Helm that will
deploy it."""

import base64
import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import yaml

from . import chart_files, helm_yaml
from .errors import ChartError
from .kubernetes_provider import keeps_nulls
from .manifest import flattened, without_nulls
from .secrets import Secrets, opened
from .values import dotted, leaves, map_leaves, whole

CRD_FILE = re.compile(r"(charts/[^/]+/)*crds/.+\.(ya?ml|json)")

UPGRADE_NAMES = re.compile(rb"\b(?:IsUpgrade|IsInstall|lookup)\b")
FIRST_TEMPLATE = f"templates/{'z/' * 40}z.yaml"
"""Path of a template that Helm renders before all others: the deepest is the first."""
TELL_UPGRADE = b'{{ $_ := set .Release "IsUpgrade" true }}{{ $_ = set .Release "IsInstall" false }}'


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart in the project, folder or `.tgz`, as Helm would load it."""

    path: str
    files: chart_files.Files = field(repr=False)

    @cached_property
    def description(self) -> str:
        """Name, version and the digest of the files, as in `web 0.1.0 (files 3f2a…)`.

        The digest takes what Helm would load: names in a stable order and contents, `.helmignore`
        respected. The folder's path, file times, the line endings of a checkout and the packing of sub-charts
        do not matter.
        """
        about = chart_files.metadata(self.files)
        return f"{about['name']} {about['version']} (files {_digest(self.files)[:16]})"

    @cached_property
    def crds(self) -> list[dict[str, Any]]:
        """The CRDs in the folders crds/ of the chart and of its sub-charts, packed ones too.

        Raises:
            ChartError: a file is no YAML.
        """
        found: list[Any] = []
        for path, content in _crd_files(self.files):
            try:
                found += helm_yaml.load_all(content)
            except (yaml.YAMLError, ValueError):
                raise ChartError(f"chart {self.path}: {path} cannot be read") from None
        return [item for item in flattened(found) if item.get("kind") == "CustomResourceDefinition"]

    @property
    def tells_upgrades(self) -> bool:
        """Whether it can be rendered as an upgrade, and is another then: a template asks if it is one, and
        none calls `lookup`. Where nothing is found, these refuse upgrades that they would allow."""
        names = {name for text in self.templates for name in UPGRADE_NAMES.findall(text)}
        return bool(names & {b"IsUpgrade", b"IsInstall"}) and b"lookup" not in names

    @cached_property
    def templates(self) -> list[bytes]:
        """Contents of the templates, those of sub-charts too."""
        return [*_templates(self.files)]

    @cached_property
    def compressed_size(self) -> float:
        """About how many bytes of Helm's record the files are."""
        return compressed_size(b"".join(map(base64.b64encode, self.files.values())))

    def public_texts(self, values: Mapping[str, Any]) -> list[str]:
        """Return what anybody may see of the chart before it is rendered: its files, and those of its values
        that are no `SecretStr`."""
        texts = [f"{path}\n{content.decode(errors='replace')}" for path, content in self.files.items()]
        return texts + [f"{dotted(path)} {leaf}" for path, leaf in leaves(values, lists=True)]


def load(path: str) -> Chart:
    """Return the chart in a folder, or in a `.tgz`.

    Raises:
        ChartError: there is no chart that Helm could deploy; all reasons together.
    """
    if not Path(path).is_file() and not (Path(path) / "Chart.yaml").is_file():
        raise ChartError(f"chart {path}: there is no file Chart.yaml")
    chart = Chart(path=path, files=chart_files.load(path))
    about = chart_files.metadata(chart.files)
    if not about.get("name") or not about.get("version"):
        raise ChartError(f"chart {path}: Chart.yaml gives no name and version")
    return chart


def compressed_size(text: bytes) -> float:
    """Return about how many bytes of Helm's record `text` is, in a fraction of the time that it takes to
    know."""
    return len(zlib.compress(text, 1)) * 4 / 3


def _templates(files: chart_files.Files) -> Iterator[bytes]:
    for path, content in files.items():
        if chart_files.PACKED.fullmatch(path):
            yield from _templates(chart_files.unpacked(content) or {})
        elif "templates/" in path:
            yield content


def _digest(files: chart_files.Files) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        content = _essence(path, files[path])
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _essence(path: str, content: bytes) -> bytes:
    """Return a file without what differs each time that it is checked out, or that a sub-chart is packed."""
    packed = chart_files.unpacked(content) if chart_files.PACKED.fullmatch(path) else None
    if packed is not None:
        return _digest(packed).encode()
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


def render(
    chart: Chart,
    name: str,
    namespace: str,
    values: Mapping[str, Any],
    provider: pulumi.ProviderResource,
    *,
    is_upgrade: bool = False,
) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of the chart, hooks among them, test hooks and the CRDs of crds/ not.

    Rendered by the function `kubernetes:helm:template` of the Kubernetes provider, which works
    without a cluster too.

    Args:
        chart: the chart.
        name, namespace: of the release.
        values: of the release.
        provider: that deploys it.
        is_upgrade: what `.Release.IsUpgrade` says.

    Raises:
        ChartError: with Helm's own words, every secret of `values` masked.
    """
    secrets = Secrets.of_values(values, public="\n".join([name, namespace, *chart.public_texts(values)]))
    try:
        with _masked_debug_log(secrets), _folder(chart, is_upgrade) as folder:
            options = {
                "chart": folder.name,
                "path": str(folder.parent),
                "release_name": name,
                "namespace": namespace,
                "values": opened(values) if keeps_nulls() else without_nulls(opened(values)),
                "skip_crd_rendering": True,
            }
            answer = pulumi.runtime.invoke(
                "kubernetes:helm:template",
                {"jsonOpts": json.dumps(options)},
                pulumi.InvokeOptions(provider=provider),
            )
    except Exception as error:  # the SDK raises a bare Exception for every failed call
        text = str(error).split("failed to create chart from template: ")[-1]
        text = text.split("failed to generate YAML for specified Helm chart: ")[-1]
        text = text.split("failed to load chart from temp directory: ")[-1]
        if "UTF-8" in text and (paths := chart_files.not_utf8(chart.files)):
            text += f"\nSave as UTF-8, or leave out by {chart_files.IGNORE}: {', '.join(paths)}"
        where = f"chart {chart.path} of release {namespace}/{name} cannot be rendered:\n"
        raise ChartError(where + secrets.mask(text.strip())) from None
    return flattened(map_leaves((answer.value or {}).get("result", []), whole))


@contextmanager
def _folder(chart: Chart, is_upgrade: bool) -> Iterator[PurePosixPath]:
    """Give the chart's folder; for an upgrade, which the provider's function does not know, a copy with a
    template that tells all others of it: they share one `.Release`."""
    if not is_upgrade:
        yield PurePosixPath(chart.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = {**chart.files, FIRST_TEMPLATE: TELL_UPGRADE, chart_files.IGNORE: b""}
        for path, content in files.items():
            file = Path(folder, "chart", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield PurePosixPath(folder, "chart")


def _crd_files(files: chart_files.Files) -> Iterator[tuple[str, bytes]]:
    for path, content in sorted(files.items()):
        if CRD_FILE.fullmatch(path):
            yield path, content
        elif chart_files.PACKED.fullmatch(path):
            for inner, text in _crd_files(chart_files.unpacked(content) or {}):
                yield f"{path}: {inner}", text


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
