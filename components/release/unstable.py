"""Fields that a chart renders anew each time: certificates that it makes itself, random texts, the time.

They are what differs between two renderings of the same. What Helm has deployed has other texts there, and so
will what it deploys next: nothing is to be compared there.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from .manifest import Key, Object, by_key, key_of
from .values import ABSENT, Path, by_index, differences, get, map_paths

IN_ROWS = "[new in each rendering]"
"""In place of such a field where an object is shown."""

_CLOCK = r"now|ago"
_RANDOM = r"gen[A-Z]\w*|rand[A-Z]\w*|uuidv4|bcrypt|htpasswd|encryptAES"
"""Functions of Helm's templates, by the names that they have there."""

Fields = Mapping[Key, frozenset[Path]]
"""Such fields, by object."""


def find(
    templates: Collection[bytes],
    rendered: Sequence[Object],
    namespace: str,
    render: Callable[[], Iterable[Object]],
    is_recorded: Callable[[], bool] = lambda: False,
) -> Fields:
    """Return the fields of `rendered` that another rendering has differently.

    Args:
        templates: of the chart. Few charts have to be rendered again.
        rendered: its objects.
        namespace: of the release.
        render: does so once more.
        is_recorded: says whether Helm has recorded just these, which it then rendered at another time.
    """
    if not _call(templates, f"{_CLOCK}|{_RANDOM}") or is_recorded():
        return {}
    if _call(templates, _CLOCK):
        time.sleep(1.01 - time.time() % 1)  # in the same second, the time is the same twice
    first, second = by_key(rendered, namespace), by_key(render(), namespace)
    found = {
        key: frozenset(
            path[:-1] if ABSENT in (old, new) else path
            for path, old, new in differences(item, second[key], pair=by_index)
        )
        for key, item in first.items()
        if key in second
    }
    return {key: paths for key, paths in found.items() if paths}


def as_recorded(
    rendered: Iterable[Object], recorded: Iterable[Object], namespace: str, fields: Fields
) -> list[dict[str, Any]]:
    """Return `rendered` with what Helm has recorded in place of `fields`, where it has."""
    olds = by_key(recorded, namespace)

    def settled(item: Object) -> dict[str, Any]:
        key = key_of(item, namespace)

        def old(path: Path, new: Any) -> Any:
            was = get(olds.get(key, {}), path)
            return new if was is ABSENT else was

        return dict(map_paths(item, fields.get(key, ()), old))

    return [settled(item) for item in rendered]


def as_shown(rendered: Iterable[Object], namespace: str, fields: Fields) -> list[dict[str, Any]]:
    """Return `rendered` with a text that stays the same in place of `fields`."""
    return [map_paths(item, fields.get(key_of(item, namespace), ()), lambda *_: IN_ROWS) for item in rendered]


def _call(templates: Iterable[bytes], functions: str) -> bool:
    """Return whether one of `templates` calls one of `functions`."""
    call = re.compile(rf"\{{\{{[^}}]*\b({functions})\b".encode())
    return any(call.search(text) for text in templates)
