"""Imports keep to the rooms: the table in CONTRIBUTING.md says what each room imports of the project."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sandbox.engine import PROJECT

TABLE = {
    room: re.findall("`(.+?)`", imports)
    for room, imports in re.findall(
        r"^\| `(.+?)` \| .* \| (.+?) \|$", (PROJECT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
}
"""Room to what it imports: rooms, or single modules of one."""
TESTS = "tests"
"""The room that may import all others, and is imported by none."""


def imported_by(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, at its top or within functions."""
    package = file.relative_to(PROJECT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def innermost(path: str, places: list[str]) -> str | None:
    """Return the longest of `places` that is `path` or holds it, None where there is none."""
    holding = [place for place in places if f"{path}/".startswith(f"{place.removesuffix('.py')}/")]
    return max(holding, key=len, default=None)


@pytest.fixture(scope="module")
def used() -> dict[str, dict[str, set[str]]]:
    """Room to what it imports, as the table calls it, to the files that do."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for room in TABLE.keys() - {TESTS}:
        for file in [PROJECT / room] if room.endswith(".py") else (PROJECT / room).rglob("*.py"):
            name = str(file.relative_to(PROJECT))
            if innermost(name.removesuffix(".py"), [*TABLE]) == room:
                for module in imported_by(file):
                    place = innermost(module.replace(".", "/"), [*TABLE, *TABLE[room]])
                    if place and place != room:
                        found[room][place].add(f"{name}: {module}")
    return found


def test_a_room_imports_what_the_table_says_and_nothing_else(used: dict[str, dict[str, set[str]]]) -> None:
    forbidden = {
        import_
        for room, places in used.items()
        for place, imports in places.items()
        for import_ in imports
        if place not in TABLE[room]
    }
    assert forbidden == set()
    unused = {(room, place) for room in TABLE for place in TABLE[room] if place not in used[room]}
    assert unused == set(), "take it out of the table in CONTRIBUTING.md"


def test_no_rooms_import_each_other() -> None:
    rooms = {room: {innermost(place, [*TABLE]) for place in TABLE[room]} for room in TABLE}
    TopologicalSorter(rooms).prepare()  # raises CycleError, with the rooms of the cycle


def test_the_table_has_every_room() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert set(pyproject["tool"]["mypy"]["files"]) <= TABLE.keys()
