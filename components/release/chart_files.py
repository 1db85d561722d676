"""The files of a chart, folder or `.tgz`, that Helm loads, with all that keeps Helm from loading or storing
them."""

import fnmatch
import gzip
import io
import os
import re
import shlex
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from . import helm_yaml
from .errors import ChartError

LARGEST_FILE = 5 * 1024 * 1024
"""Bytes of a file that Helm loads."""
LARGEST_ARCHIVE = 100 * 1024 * 1024
"""Bytes of the files in a packed chart that Helm unpacks."""
IGNORE = ".helmignore"
PACKED = re.compile(r"(charts/[^/]+/)*charts/[^/._][^/]*\.tgz")
"""Paths of packed sub-charts."""

Files = Mapping[str, bytes]
"""Contents by path in the chart, without the mark of UTF-8 that Helm takes off."""


def load(chart: str) -> Files:
    """Return the files of the chart in a folder, or in a `.tgz`.

    Raises:
        ChartError: Helm could not load or deploy it; all reasons together.
    """
    folder, faults, files = Path(chart), list[str](), dict[str, bytes]()
    if folder.is_file():
        return _load_packed(chart, folder.read_bytes())
    for path, file in _walk(folder, _ignore_rules(folder, faults), faults):
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode(errors="surrogateescape").decode(errors="replace")
            faults.append(f"{shown}: its name is not UTF-8. Rename it")
            continue
        size = file.stat().st_size
        if size > LARGEST_FILE:
            faults.append(
                f"{path}: has {size / 1024**2:.1f} MiB; Helm loads no file of more than 5 MiB. "
                f"{leave_out(chart, path)}"
            )
            continue
        try:
            files[path] = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            faults.append(f"{path}: cannot be read: {error.strerror}. {leave_out(chart, path)}")
    if not faults:
        faults = [*_faults_of_dependencies(chart, files)]
    if faults:
        raise ChartError("\n  ".join([f"Helm cannot deploy chart {chart}:", *sorted(faults)]))
    return files


def _load_packed(chart: str, content: bytes) -> Files:
    files = unpacked(content)
    if files is None:
        raise ChartError(f"chart {chart}: is no packed chart that Helm can unpack, a .tgz")
    faults = [
        f"{path}: has {len(content) / 1024**2:.1f} MiB; Helm loads no file of more than 5 MiB"
        for path, content in files.items()
        if len(content) > LARGEST_FILE
    ]
    if faults := sorted(faults or _faults_of_dependencies(chart, files)):
        raise ChartError("\n  ".join([f"Helm cannot deploy chart {chart}:", *faults]))
    return files


def leave_out(chart: str, path: str) -> str:
    """Return how a user has Helm leave out the file at `path` of a chart."""
    if Path(chart).is_file():
        return f"It is packed: leave {path} out by {IGNORE} in its folder, and pack it anew"
    rule = shlex.quote("/" + re.sub(r"([*?\[\\])", r"\\\1", path))
    return f"To leave it out:\n    printf '\\n%s\\n' {rule} >> {shlex.quote(f'{chart}/{IGNORE}')}"


def not_utf8(files: Files) -> list[str]:
    """Return the paths of templates and values that are no text in UTF-8."""
    wrong = []
    for path, content in files.items():
        try:
            content.decode()
        except UnicodeDecodeError:
            if path.startswith(("templates/", "values.")):
                wrong.append(path)
    return sorted(wrong)


def metadata(files: Files) -> dict[str, Any]:
    """Return what Chart.yaml says, empty where it is no mapping or cannot be read."""
    try:
        content = helm_yaml.load(files.get("Chart.yaml", b""))
    except (yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@lru_cache
def unpacked(content: bytes) -> Files | None:
    """Return the files in a packed chart, None where Helm could not unpack it."""
    files, size = dict[str, bytes](), 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                size += member.size
                if size > LARGEST_ARCHIVE:
                    return None
                if file := archive.extractfile(member):
                    path = member.name.replace("\\", "/").partition("/")[2]
                    if ".." in path.split("/") or path.startswith("/"):
                        return None
                    files[path] = file.read().removeprefix(b"\xef\xbb\xbf")
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OSError, KeyError):
        return None
    return files


def _faults_of_dependencies(chart: str, files: Files) -> Iterator[str]:
    """Yield what the provider refuses in a deployment, and not when it renders."""
    about = metadata(files)
    if about.get("type") == "library":
        yield "Chart.yaml: its type is library, and Helm deploys only those of type application"
    wanted = about.get("dependencies") or []
    names = {item["name"] for item in wanted if isinstance(item, dict) and "name" in item}
    missing = sorted(map(str, names - set(_names_of_subcharts(files))))
    if missing and Path(chart).is_file():
        yield f"Chart.yaml: depends on {', '.join(missing)}, and was packed without"
    elif missing:
        command = "build" if "Chart.lock" in files else "update"
        yield (
            f"Chart.yaml: depends on {', '.join(missing)}, not there in the folder charts. To fetch it:\n"
            f"    helm dependency {command} {shlex.quote(chart)}"
        )


def _names_of_subcharts(files: Files) -> Iterator[Any]:
    for path, content in files.items():
        if PACKED.fullmatch(path) and path.count("/") == 1:
            yield metadata(unpacked(content) or {}).get("name")
        elif re.fullmatch(r"charts/[^/._][^/]*/Chart.yaml", path):
            yield metadata({"Chart.yaml": content}).get("name")


def _walk(folder: Path, rules: Iterable[str], faults: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files that Helm reads: path in the chart, and where it is. Helm follows links."""
    todo: list[tuple[Path, str, tuple[object, ...]]] = [(folder, "", ())]
    while todo:
        at, prefix, around = todo.pop()
        try:
            inside = (*around, _identity(at.stat()))
            entries = sorted(at.iterdir())
        except OSError as error:
            faults.append(f"{prefix.rstrip('/') or '.'}: cannot be read: {error.strerror}")
            continue
        for entry in entries:
            path, remove = prefix + entry.name, f"To remove it:\n    rm -- {shlex.quote(str(entry))}"
            try:
                status = entry.stat()
            except OSError as error:
                # Also where a rule names it: Helm follows a link first.
                fact = "a link to nothing" if entry.is_symlink() else f"cannot be read: {error.strerror}"
                faults.append(f"{path}: {fact}. {remove}")
                continue
            if _ignored(path, stat.S_ISDIR(status.st_mode), rules):
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, entry
            elif not stat.S_ISDIR(status.st_mode):
                faults.append(f"{path}: neither a file nor a folder. {remove}")
            elif _identity(status) in inside:
                faults.append(f"{path}: a link to a folder that it stands in. {remove}")
            else:
                todo.append((entry, f"{path}/", inside))


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return what is the same for a folder by whatever links it is reached."""
    return status.st_dev, status.st_ino


def _ignore_rules(folder: Path, faults: list[str]) -> list[str]:
    rules = ["templates/.?*"]  # Helm's own default
    try:
        text = (folder / IGNORE).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        return rules
    except OSError as error:
        faults.append(f"{IGNORE}: cannot be read: {error.strerror}")
        return rules
    for number, line in enumerate(text.splitlines(), 1):
        rule = line.strip()
        if "**" in rule and not rule.startswith("#"):
            faults.append(f"{IGNORE} line {number}: Helm knows no `**`. Write a line for each folder")
        elif re.search(r"(?<!\\)\[[^\]]*$", rule) and not rule.startswith("#"):
            faults.append(f"{IGNORE} line {number}: there is no `]` for a `[`. Write `\\[` for one in a name")
        elif rule and not rule.startswith("#"):
            rules.append(rule)
    return rules


def _ignored(path: str, is_dir: bool, rules: Iterable[str]) -> bool:
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
    pattern = re.sub(r"\\(.)", lambda escaped: re.sub(r"[*?\[]", r"[\g<0>]", escaped[1]), rule)
    wanted = pattern.removeprefix("/").replace("[^", "[!").split("/")
    same = len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))
    return same != negate
