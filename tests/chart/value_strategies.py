"""Values that the chart's schema allows, made up from the schema itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.chart.rendering import CHART

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
# The API server reads what is applied as YAML, which knows no control characters.
VISIBLE = st.characters(exclude_categories=["C"])


def resolved(schema: Any) -> dict[str, Any]:
    """A part of the schema with its references followed."""
    found: dict[str, Any] = schema
    if "allOf" in found:
        (found,) = found["allOf"]
    while "$ref" in found:
        found = SCHEMA["definitions"][found["$ref"].removeprefix("#/definitions/")]
    return found


def leaves(schema: Any = SCHEMA, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is set as a whole, by its path."""
    found = resolved(schema)
    if path and "properties" not in found:
        return {path: found}
    return {
        below: leaf
        for name, inner in found["properties"].items()
        for below, leaf in leaves(inner, (*path, name)).items()
    }


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    described = {name: conforming(below) for name, below in schema.get("properties", {}).items()}
    required = schema.get("required", [])
    must = {name: described[name] for name in required}
    may = {name: below for name, below in described.items() if name not in required}
    if "maxProperties" in schema:  # "one of": the required ones, and exactly one more
        return st.sampled_from(sorted(may)).flatmap(
            lambda name: st.fixed_dictionaries({**must, name: may[name]})
        )
    least = schema.get("minProperties", 0)
    return st.fixed_dictionaries(must, optional=may).filter(lambda made: len(made) >= least)


def conforming(schema: Any) -> st.SearchStrategy[Any]:
    """Whatever this part of the schema allows."""
    found = resolved(schema)
    if "enum" in found:
        return st.sampled_from(found["enum"])
    if "patternProperties" in found:
        ((name, below),) = found["patternProperties"].items()
        return st.dictionaries(_matching(name), conforming(below), max_size=3)
    kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
    low, high = found.get("minimum"), found.get("maximum")
    text = st.text(VISIBLE, min_size=found.get("minLength", 0), max_size=30)
    if "pattern" in found:
        text = _matching(found["pattern"]).filter(lambda made: len(made) <= found.get("maxLength", 300))
    made: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "object": lambda: _objects(found),
        "array": lambda: st.lists(
            conforming(found["items"]), min_size=found.get("minItems", 0), max_size=3
        ).filter(lambda items: not found.get("uniqueItems") or len(set(items)) == len(items)),
        "string": lambda: text,
        "boolean": st.booleans,
        "null": st.none,
        "integer": lambda: st.integers(low, high),
        "number": lambda: st.floats(low, 1e6, allow_nan=False) | st.integers(low, 1000),
    }
    return st.one_of([made[kind]() for kind in kinds])


def _matching(pattern: str) -> st.SearchStrategy[str]:
    """Python's `$` also matches before a line break at the end, the schema's does not."""
    assert pattern.endswith("$"), pattern
    return st.from_regex(pattern[:-1] + r"\Z", alphabet=VISIBLE)


def placed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A value at its path among the values."""
    for name in reversed(path):
        value = {name: value}
    whole: dict[str, Any] = value
    return whole
