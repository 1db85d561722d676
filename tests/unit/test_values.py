"""Values at paths."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.release.values import (
    ABSENT,
    by_index,
    by_name,
    differences,
    dotted,
    get,
    leaves,
    merge_patch,
    pulumi_path,
    put,
    remove,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def applied(target: Any, patch: Any) -> Any:
    """RFC 7386, as its text has it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = applied(merged.get(key), value)
    return merged


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


@given(MAPPINGS, MAPPINGS)
def test_a_merge_patch_leads_from_the_old_to_the_new(old: Any, new: Any) -> None:
    old, new = without_nulls(old), without_nulls(new)
    assert applied(old, merge_patch(old, new)) == new


def _never(_old: Any, _new: Any) -> None:
    """Compare lists as one value."""


@given(MAPPINGS, MAPPINGS)
def test_what_does_not_differ_is_equal(old: Any, new: Any) -> None:
    for pair in (by_index, by_name, _never):
        changes = list(differences(old, new, pair=pair))
        assert (old == new) == (not changes)
        assert all(get(old, path) == before or pair is by_name for path, before, _ in changes)


@given(MAPPINGS)
def test_leaves_are_found_at_their_paths(values: Any) -> None:
    for path, leaf in leaves(values, lists=True):
        assert get(values, path) == leaf


def test_what_is_put_is_there_and_what_is_removed_leaves_nothing() -> None:
    values: dict[str, Any] = {"a": {"b": 1}}
    assert put(values, ("x", "y", "z"), None)
    assert get(values, ("x", "y", "z")) is None
    remove(values, ("x", "y", "z"))
    assert values == {"a": {"b": 1}}
    assert get(values, ("x", "y")) is ABSENT
    assert not put(values, ("a", "b", "c"), 2)
    assert values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("path", "person", "pulumi"),
    [
        (("mernServer", "image", "tag"), "mernServer.image.tag", "mernServer.image.tag"),
        (("hosts", 0), "hosts[0]", "hosts[0]"),
        (("annotations", "a.b/c"), "annotations.a.b/c", 'annotations["a.b/c"]'),
        (("1", 'q"'), '1.q"', '["1"]["q\\""]'),
        ((0,), "[0]", "[0]"),
    ],
)
def test_a_path_as_a_person_and_as_pulumi_reads_it(path: Any, person: str, pulumi: str) -> None:
    assert dotted(path) == person
    assert pulumi_path(path) == pulumi


def test_an_item_put_first_moves_no_other_where_all_have_names() -> None:
    old, new = [{"name": "a", "v": 1}], [{"name": "b"}, {"name": "a", "v": 2}]
    assert [(dotted(path), new) for path, _, new in differences(old, new, pair=by_name)] == [
        ("[a].v", 2),
        ("[b]", {"name": "b"}),
    ]
