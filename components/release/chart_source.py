"""Charts that are not in the project: pulled from a Helm repository or an OCI registry.

The Kubernetes provider could pull them too, but not as one: its rendering (`helm:template`) has no
credentials for registries, a Release pulls again in each step, and a tag may move meanwhile. So the program
pulls, once, and both get the same file. It lies in a folder of the project that Git ignores, and its name
has its digest: the path, an input of the Release, is the same on each machine, and other content is another
path. A refresh or destroy without the program needs no chart.
"""

import hashlib
import re
import shlex
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx

from .errors import ChartError

FOLDER = Path(".charts")
"""What is pulled, relative to the program. It may be deleted at any time."""
OCI = "oci://"
VERSION = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
"""One version, and not a range of them."""
ADDRESS = re.compile(r"(https?|oci)://[!-.0-~]+(/[!-~]*)?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def pull(chart: str, repository: str = "", version: str = "", digest: str = "") -> tuple[str, str]:
    """Have the chart in the project.

    Args:
        chart: a folder or a `.tgz`, relative to the program; or `oci://…`; or a name in `repository`.
        repository: address of a Helm repository, or the part of an `oci://` address before the name.
        version: of a chart that is not in the project.
        digest: of the packed chart, or of its manifest in a registry. Nothing else is taken then, and what
            was pulled before is taken without asking for it.

    Returns:
        The path of the chart, relative to the program, and a note on what was pulled; empty where nothing
        was, or what `digest` names.

    Raises:
        ChartError: it cannot be had, or is not the one that `digest` names.
    """
    address = f"{repository.rstrip('/')}/{chart}" if repository.startswith(OCI) else chart
    place = address if address.startswith(OCI) else repository
    if not place:
        _require_local(chart, version, digest)
        return chart, ""
    from .chart_servers import in_registry, in_repository  # which few programs need

    name = address.rpartition("/")[2]
    subject = f"chart {name} {version}".rstrip() + f" of {place}"
    _require_pinned(subject, place, name, version, digest)
    if digest and _has(_path(name, version, digest), digest):
        return _path(name, version, digest).as_posix(), ""
    if address.startswith(OCI):
        archive = in_registry(address, version, subject)
    else:
        archive = in_repository(repository, name, version, subject)
    if digest and archive.digest and digest not in (archive.digest, archive.manifest):
        raise _other_content(subject, archive.digest, digest)
    wanted = archive.digest or digest
    if wanted and _has(_path(name, version, wanted), wanted):
        return _path(name, version, wanted).as_posix(), ""
    content = archive.download()
    actual = digest_of(content)
    if wanted and actual != wanted:
        raise _other_content(subject, actual, wanted)
    path = _path(name, version, actual)
    _write(path, content)
    note = f"{subject} was pulled: {actual}. Its provenance (who made it) is not checked"
    return path.as_posix(), "" if digest else note


def _require_local(chart: str, version: str, digest: str) -> None:
    if re.match(r"\w+://", chart):
        raise ChartError(
            f"chart {chart}: Helm repositories are given apart from the chart's name, as in "
            f'chart="web", repository="https://charts.example.com", version="1.2.3"'
        )
    if version:
        raise ChartError(
            f"chart {chart} is in the project, where its own Chart.yaml says its version. Leave out version"
        )
    if digest and not _has(Path(chart), digest):
        raise ChartError(f"chart {chart}: there is no packed chart with the digest {digest}")


def _require_pinned(subject: str, place: str, name: str, version: str, digest: str) -> None:
    if not ADDRESS.fullmatch(place):
        raise ChartError(
            f"chart {name}: its repository is no address, as in https://charts.example.com or oci://ghcr.io/org"
        )
    url = httpx.URL(place)
    if url.userinfo:
        from .chart_servers import login_command

        bare = url.copy_with(username=None, password=None)
        raise ChartError(
            f"chart {name} of {bare}: credentials in an address can be read by everybody. Take them out, "
            f"and give them to Helm\n{login_command(bare)}"
        )
    if "@" in name or ":" in name:
        raise ChartError(f'{subject}: give the tag as version="1.2.3", and a digest as digest="sha256:…"')
    if not VERSION.fullmatch(version):
        fact = f"{version} can be several versions" if version else "no version is pinned"
        raise ChartError(f'{subject}: {fact}: each run could deploy another chart. Set version="1.2.3"')
    if digest and not DIGEST.fullmatch(digest):
        raise ChartError(f"{subject}: {digest} is no digest: these are sha256: and 64 digits from 0 to f")


def digest_of(content: bytes) -> str:
    """Return the digest of a file as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _path(name: str, version: str, digest: str) -> Path:
    return FOLDER / f"{name}-{version}-{digest.removeprefix('sha256:')[:12]}.tgz"


def _has(path: Path, digest: str) -> bool:
    with suppress(OSError):
        return digest_of(path.read_bytes()) == digest
    return False


def _other_content(subject: str, actual: str, wanted: str) -> ChartError:
    return ChartError(
        f"{subject}: its digest is {actual}, not {wanted}: somebody has replaced it, there or on the way. "
        "Nothing was changed"
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file at once: other runs in this folder may be reading it."""
    try:
        path.parent.mkdir(exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    except OSError as error:
        raise ChartError(
            f"{path} cannot be written: {error.strerror}. Charts that are not in the project are pulled into "
            f"{shlex.quote(str(path.parent.absolute()))}"
        ) from None
