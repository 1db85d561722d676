"""The size of the Secret in which Helm would store a release, known before anything is deployed."""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from . import chart_files, helm_yaml
from .chart import Chart, compressed_size
from .errors import ChartError
from .manifest import Object, label_of
from .secrets import opened

LIMIT = 1024 * 1024
"""Bytes that a Secret holds."""
NEARLY = 0.8
"""Part of `LIMIT` from which on a user is told: the comments that Helm stores with objects are not known."""
LARGE = LIMIT / 50
"""Bytes in the Secret from which on a part is named."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of what Helm stores."""

    name: str
    text: str
    can_be_left_out: bool = False

    @property
    def size(self) -> int:
        """Bytes in the Secret, without what it has in common with other parts."""
        return _size(self.text)


def require_room(
    chart: Chart, release: str, objects: Sequence[Object], values: Mapping[str, Any]
) -> list[str]:
    """Return a note where Helm has hardly room to store a release.

    Args:
        chart: the chart.
        release: its namespace and name.
        objects: as rendered.
        values: of the release.

    Raises:
        ChartError: Helm cannot store it.
    """
    roughly = chart.compressed_size + compressed_size(json.dumps([opened(values), objects]).encode())
    if 2 * roughly < NEARLY * LIMIT:
        return []
    parts = [*_parts(chart.files, objects, values)]
    size = _size_of(parts)
    if size < NEARLY * LIMIT:
        return []
    largest = sorted((part for part in parts if part.size > LARGE), key=lambda part: -part.size)[:5]
    facts = (
        f"about {size // 1024} KiB of the 1024 KiB that a Secret holds: the chart's files, the values and "
        "the objects, compressed. The largest:\n"
        + "\n".join(f"  {part.name}: {part.size // 1024} KiB" for part in largest)
    )
    if file := next((part.name for part in largest if part.can_be_left_out), ""):
        facts += f"\nHelm stores {file} for templates to read. {chart_files.leave_out(chart.path, file)}"
    if size < LIMIT:
        return [f"Helm's record of release {release} takes {facts}"]
    raise ChartError(
        f"Helm cannot store release {release} of chart {chart.path}: its record would take {facts}"
    )


def estimate(chart: Chart, objects: Sequence[Object], values: Mapping[str, Any]) -> int:
    """Return about how many bytes Helm's record of a release has."""
    return _size_of(_parts(chart.files, objects, values))


def _size_of(parts: Iterable[_Part]) -> int:
    return _size("".join(part.text for part in parts))


def _parts(files: chart_files.Files, objects: Sequence[Object], values: Mapping[str, Any]) -> Iterator[_Part]:
    for path, content in files.items():
        if path == "values.yaml":  # without its comments
            yield _Part(name=path, text=_as_json(content))
        elif not path.startswith("charts/") and path not in ("Chart.yaml", "Chart.lock"):
            is_needed = path.startswith(("templates/", "crds/")) or path == "values.schema.json"
            encoded = base64.b64encode(content).decode()
            yield _Part(name=path, text=encoded, can_be_left_out=not is_needed)
    yield _Part(name="the values of the release", text=json.dumps(opened(values)))
    for item in objects:
        yield _Part(name=label_of(item), text=yaml.dump(item, Dumper=_Dumper))


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _as_json(content: bytes) -> str:
    try:
        return json.dumps(helm_yaml.load(content))
    except (yaml.YAMLError, ValueError):
        return ""  # Helm cannot read it either, and says so when it renders


def _size(text: str) -> int:
    """Return how many bytes a Secret has with `text` in it: compressed, and in base64."""
    return len(gzip.compress(text.encode(errors="replace"))) * 4 // 3
