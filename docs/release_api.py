"""Make docs/release-api.md from the docstrings of the release component: `python -m docs.release_api`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe
from griffe import DocstringSectionKind as Kind

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/release-api.md"
COMMAND = "python -m docs.release_api"
LONGEST = 100
"""Characters of a signature that stands on one line."""

TOP = f"""\
# The API of the release component

Made from the docstrings in `components/release/` by `{COMMAND}`; a test holds it to them.
[docs/release.md](release.md) says what the component does, and has a whole program."""


def page() -> str:
    """Return the content of the page."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser="google")
    package: Any = loader.load("components.release")
    loader.resolve_aliases()
    parts = [TOP, *_texts(package)]
    for name in package.exports:
        item = package[name]
        if item.is_module:  # that has the name of the function in it
            item = item[name]
        parts += [f"## {name}", *(_class(item) if item.is_class else _function(item, name))]
    return "\n\n".join(parts) + "\n"


def _class(item: Any) -> Iterator[str]:
    yield from _texts(item)
    public = [member for name, member in item.members.items() if not name.startswith("_")]
    if item.bases:
        yield f"Derived from {', '.join(f'`{base}`' for base in item.bases)}."
    if "__init__" in item.members and "dataclass" not in item.labels and not item.name.endswith("Error"):
        yield from _function(item.members["__init__"], item.name)
    if attributes := [member for member in public if member.is_attribute]:
        # The program makes these, and reads the others.
        defaults = {it.name: it.default for it in item.parameters} if item.name.endswith("Args") else None
        yield "\n".join(_table(attributes, defaults))
    for member in public:
        if member.is_function:
            yield f"### {item.name}.{member.name}"
            yield from _function(member, member.name)


def _table(attributes: Iterable[Any], defaults: dict[str, Any] | None) -> Iterator[str]:
    """Yield the rows of a table of attributes.

    Args:
        attributes: of a class.
        defaults: of those that a program may leave out; None: it gives none of them.
    """
    heads = ["", "type", "meaning"] if defaults is None else ["", "type", "default", "meaning"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for item in attributes:
        cells = [f"`{item.name}`", f"`{_cell(item.annotation)}`"]
        if defaults is not None:
            cells.append(f"`{_cell(defaults[item.name])}`" if defaults[item.name] else "")
        cells.append(_cell(item.docstring.value if item.docstring else ""))
        yield f"| {' | '.join(cells)} |"


def _function(item: Any, name: str) -> Iterator[str]:
    returns = f" -> {item.returns}" if item.returns and item.name != "__init__" else ""
    given = [_parameter(it) for it in item.parameters if it.name not in ("self", "cls")]
    line = f"{name}({', '.join(given)}){returns}"
    if len(line) > LONGEST:
        line = "\n".join([f"{name}(", *(f"    {parameter}," for parameter in given), f"){returns}"])
    yield f"```python\n{line}\n```"
    yield from _texts(item)


def _parameter(item: Any) -> str:
    stars = {"variadic positional": "*", "variadic keyword": "**"}.get(item.kind.value, "")
    default = f" = {item.default}" if item.default and not stars else ""
    return f"{stars}{item.name}: {item.annotation}{default}"


def _texts(item: Any) -> Iterator[str]:
    """Yield the parts of a docstring."""
    for section in item.docstring.parsed if item.docstring else ():
        match section.kind:
            case Kind.text:
                yield section.value
            case Kind.parameters:
                yield "\n".join(f"- `{it.name}`: {_line(it.description)}" for it in section.value)
            case Kind.raises:
                yield "\n".join(
                    f"- raises `{it.annotation}`: {_line(it.description)}" for it in section.value
                )
            case kind:
                raise ValueError(f"{item.path} has {kind}, for which there is no form yet")


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: Any) -> str:
    return _line(str(text)).replace("|", "\\|")


def main() -> None:
    """Write the page."""
    FILE.write_text(page(), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)} is written.")


if __name__ == "__main__":
    main()
