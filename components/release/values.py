"""Values at paths: what stands where in nested mappings and lists, and in what two of them differ."""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""Keys of mappings, indexes of lists, and names of list items (`ItemName`), from the outermost inwards."""

Change = tuple[Path, Any, Any]
"""Where two values differ, and both; ABSENT where one has nothing there."""

ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""In place of a value that is not there: None is a value."""


class ItemName(str):
    """The item of a list whose `name` this is, as part of a path."""

    __slots__ = ()


def get(values: Any, path: Path) -> Any:
    """Return the value at `path`, ABSENT where there is none."""
    for key in path:
        there = range(len(values)) if isinstance(values, list) else values
        if not isinstance(values, list | Mapping) or key not in there:
            return ABSENT
        values = values[key]  # type: ignore[index]
    return values


def put(values: dict[str, Any], path: Path, value: Any) -> bool:
    """Set the value at `path`, making the mappings on the way.

    Returns:
        False, with nothing set, where something that is no mapping stands in the way.
    """
    *parents, last = path
    for key in parents:
        inner = values.setdefault(str(key), {})
        if not isinstance(inner, dict):
            return False
        values = inner
    values[str(last)] = value
    return True


def remove(values: dict[str, Any], path: Path) -> None:
    """Take out the value at `path`, and the mappings that become empty by that."""
    key, *below = path
    inner = values.get(str(key))
    if not below:
        values.pop(str(key), None)
    elif isinstance(inner, dict) and inner:
        remove(inner, tuple(below))
        if not inner:
            del values[str(key)]


def leaves(value: Any, path: Path = (), *, lists: bool = False) -> Iterator[tuple[Path, Any]]:
    """Yield each value that holds no others, with its path; empty mappings are such values.

    Args:
        value: what to go through.
        path: of `value` itself.
        lists: go into lists too; without it a list is one value.
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)), lists=lists)
    elif isinstance(value, list) and value and lists:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index), lists=lists)
    else:
        yield path, value


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return `value` with `change` applied to all that is neither mapping nor list."""
    match value:
        case Mapping():
            return {key: map_leaves(item, change) for key, item in value.items()}
        case list() | tuple():
            return [map_leaves(item, change) for item in value]
    return change(value)


def map_paths(value: Any, paths: Container[Path], change: Callable[[Path, Any], Any], at: Path = ()) -> Any:
    """Return `value` with `change(path, value)` in place of what stands at each of `paths`; list items have
    their index in a path."""
    if at in paths:
        return change(at, value)
    match value:
        case Mapping():
            return {key: map_paths(inner, paths, change, (*at, key)) for key, inner in value.items()}
        case list():
            return [map_paths(inner, paths, change, (*at, index)) for index, inner in enumerate(value)]
    return value


def whole(leaf: Any) -> Any:
    """Return `leaf` as an integer where it is a whole number: the engine's wire has one type of number."""
    return int(leaf) if isinstance(leaf, float) and leaf.is_integer() else leaf


Items = Mapping[Any, Any]
"""The items of a list by what they are compared by."""


def differences(
    old: Any,
    new: Any,
    path: Path = (),
    *,
    pair: Callable[[list[Any], list[Any]], tuple[Items, Items] | None] = lambda _old, _new: None,
) -> Iterator[Change]:
    """Yield each value that differs.

    Args:
        old, new: what to compare; mappings are compared key by key.
        path: of both.
        pair: how two lists are compared: their items by index (`by_index`) or name (`by_name`), or, where
            that gives None, each list as one value.
    """
    if isinstance(old, list) and isinstance(new, list) and (paired := pair(old, new)):
        old, new = paired
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), (*path, key), pair=pair)
    elif old is ABSENT or new is ABSENT or old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, old, new


def by_index(old: list[Any], new: list[Any]) -> tuple[Items, Items] | None:
    """Pair the items at the same place, unless one that was put first would change all others."""
    if len(old) == len(new) or old[: len(new)] == new[: len(old)]:
        return dict(enumerate(old)), dict(enumerate(new))
    return None


def by_name(old: list[Any], new: list[Any]) -> tuple[Items, Items]:
    """Pair the items of the same `name` where all have one, else those at the same place."""
    return keyed(old), keyed(new)


def keyed(items: list[Any]) -> dict[str | int, Any]:
    """Return a list as a mapping: by the names of its items where all have one, else by index."""
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return {ItemName(name): item for name, item in zip(names, items, strict=True)}
    return dict(enumerate(items))


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) from `old` to `new`: removed keys are null, lists whole."""
    patch: dict[str, Any] = {}
    for path, _, value in differences(old, new):
        put(patch, path, None if value is ABSENT else value)
    return patch


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, as Helm merges values: mappings key by key, all else whole."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)  # noqa: PLW2901
        result[key] = value
    return result


def dotted(path: Path) -> str:
    """Return `path` for a person, as in `spec.containers[web].image`."""
    text = "".join(f"[{key}]" if isinstance(key, int | ItemName) else f".{key}" for key in path)
    return text.removeprefix(".")


def pulumi_path(path: Path) -> str:
    """Return `path` as `pulumi config --path` takes it, as in `ingress.annotations["a.b/c"]`.

    Pulumi knows no escape but that of a quote: a key that ends in a backslash has no path.
    """
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", key):
            text += f".{key}"
        else:
            quoted = key.replace('"', '\\"')
            text += f'["{quoted}"]'
    return text.removeprefix(".")
