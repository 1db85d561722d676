"""How the real engine edits a stack file: what changes, what stays, and what it is not given."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.release.values import ABSENT
from operations import stack_file
from operations.stack import open_stack
from operations.stack_file import StackFileError
from tests.unit.conftest import pulumi

STACK = """\
# Ours.
config:
  mern:cluster: {kubeconfig: nowhere, context: none} # by hand
  mern:imageTag: "2.0" # by CI
  mern:values:
    # the client
    mernClient:
      replicas: 3 # of three zones
      resources: {requests: {cpu: 1}}
    ingress:
      hosts:
        - shop.example.com
      # no more
  mern:release:
    timeout: 60
# the end
"""


def edited(text: str, config: dict[str, Any]) -> str:
    path = Path("Pulumi.shop.yaml")
    path.write_bytes(text.encode())
    stack_file.edit(open_stack("shop"), stack_file.read("shop"), config)
    return path.read_bytes().decode()


def read_by_the_engine() -> Any:
    config = json.loads(pulumi("config", "--json", "--stack", "shop"))
    return {key: item.get("objectValue", item["value"]) for key, item in config.items()}


def test_only_what_differs_is_written(project: Path) -> None:
    values = {"mernClient": {"replicas": 2, "resources": {"requests": {"cpu": 1}}, "env": {"A": "1"}}}
    values["ingress"] = {"hosts": ["a", "b"]}
    written = edited(STACK, {"mern:imageTag": ABSENT, "mern:values": values})
    assert (
        [line for line in written.splitlines() if line.strip()]
        == """\
# Ours.
config:
  mern:cluster: {kubeconfig: nowhere, context: none} # by hand
  mern:values:
    # the client
    mernClient:
      replicas: 2 # of three zones
      resources: {requests: {cpu: 1}}
      env:
        A: "1"
    ingress:
      hosts:
        - a
        # no more
        - b
  mern:release:
    timeout: 60
# the end""".splitlines()
    )


def test_quotes_stay(project: Path) -> None:
    written = edited(STACK, {"mern:imageTag": "1.0"})
    assert '  mern:imageTag: "1.0" # by CI\n' in written


TYPES: dict[str, Any] = {
    "numbers": [0, 7, -1, 1.5, 10**15],
    "booleans": [True, False],
    "text that looks like something else": [
        *("1", "1.10", "08", "010", "0x1F", "1e3", "1_000", "1:30", "true", "no", "y", "null", "~", "", " "),
        *("2024-01-01", "{}", "[1]", "- a", "# no", "a: b", "*a", "&a", "!a", "@a", "%a", "secure"),
    ],
    "empty": {"mapping": {}, "list": [], "null": None},
    "keys": {"a.b/c": 1, "a[0]": 2, 'a"b': 3, "8": 4, "true": 5, "a b": 6, "~": 7, "": 8},
    "lines": ["a\nb\n", "a\nb", "a\n\n", "a\tb", "a\r\nb", "é😀\u2028\x00"],
    "deep": [{"a": [{"b": [[1]]}]}],
}
BEFORE = ["{}", "{it: 1}", "{it: 'text'}", "{it: {a: 1, list: x}}", "{it: ['1', \"true\", {a: 1}]}", "3"]


@pytest.mark.parametrize("before", BEFORE)
def test_every_value_keeps_its_type(project: Path, before: str) -> None:
    values = {"it": TYPES}
    written = edited(f"config:\n  mern:values: {before}\n", {"mern:values": values})
    expected = json.dumps(values, sort_keys=True)
    assert json.dumps(yaml.safe_load(written)["config"]["mern:values"], sort_keys=True) == expected
    assert json.dumps(read_by_the_engine()["mern:values"], sort_keys=True) == expected


@pytest.mark.parametrize("quoted", ['"1"', "'1'", "|\n      1\n"])
@pytest.mark.parametrize("new", [1, 1.5, True, None])
def test_what_was_in_quotes_may_become_no_text(project: Path, quoted: str, new: Any) -> None:
    text = f"config:\n  mern:values:\n    it: {quoted} # was\n    # more\n    more: 1 # stays\n"
    written = edited(text, {"mern:values": {"it": new, "more": 1}})
    assert yaml.safe_load(written)["config"]["mern:values"] == {"it": new, "more": 1}
    assert read_by_the_engine()["mern:values"] == {"it": new, "more": 1}
    assert "# more\n    more: 1 # stays\n" in written


LEAVES = st.one_of(
    st.integers(0, 9), st.booleans(), st.none(), st.text(max_size=4), st.sampled_from(["a\nb\n", "\na"])
)
NAMES = st.sampled_from(["a", "b", "c.d", "e"])
VALUES = st.recursive(
    st.one_of(LEAVES, st.lists(LEAVES, max_size=2)), lambda below: st.dictionaries(NAMES, below, max_size=3)
)
MAPS = st.dictionaries(NAMES, VALUES, max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MAPS, MAPS, st.booleans())
def test_any_values_are_written_over_any_others_or_refused(
    project: Path, old: Any, new: Any, flow: bool
) -> None:
    config = {"mern:values": old, "mern:release": {"timeout": 5}}
    text = yaml.safe_dump({"config": config}, sort_keys=False, default_flow_style=None if flow else False)
    try:
        edited(text, {"mern:values": new, "mern:imageTag": "1"})
    except StackFileError:
        assert Path("Pulumi.shop.yaml").read_text() == text
        return
    assert read_by_the_engine() == {
        "mern:values": new,
        "mern:release": {"timeout": 5},
        "mern:imageTag": "1",
    }


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"env": {"secure": "text"}}, "a key `secure` alone, as in mern:values.env: Pulumi takes its value"),
        ({"a": [{"b": {"secure": "text"}}]}, "as in mern:values.a[0].b"),
        (
            {"a": {"b.c": "\ntext"}},
            'cannot write to Pulumi.shop.yaml what should stand at mern:values.a["b.c"]',
        ),
        ({"a": 2**70 + 1}, "what should stand at mern:values.a"),
        ({"a": float("nan")}, "cannot write to Pulumi.shop.yaml: "),
        ({"a": ["\ntext"]}, "cannot write to Pulumi.shop.yaml: "),
        ({"<<": 1}, "cannot write to Pulumi.shop.yaml: "),
        ({"a": "x" * 200_000}, "cannot write to Pulumi.shop.yaml: Argument list too long"),
    ],
)
def test_what_the_engine_cannot_write_is_refused(project: Path, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(StackFileError) as caught:
        edited(STACK, {"mern:imageTag": ABSENT, "mern:values": values})
    assert reason in str(caught.value)
    assert Path("Pulumi.shop.yaml").read_text() == STACK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "encryptionsalt: v1:abc\n",
        "config:\n",
        "config: {}\n",
        "config: {a:b: c}\n",
        "config:\n    a:b: c # with a comment\n\n# end\nencryptionsalt: v1:abc\n",
        "config:\r\n  a:b: c\r\n",
        "config:\n  a:b: |\n    two\n    lines\n",
        "config:\n  a:b:\n  - c\n",
        "config:\n  mern:values: {} # none\n  a:b: c\n",
        "config:\n  mern:values:\n    ingress:\n      hosts: [b]\n\n  # about c\n  a:b: c\n",
        "config:\n  a:b: 'é😀' # é\n  mern:values:\n    x: '☃'\n  c:d: e\n",
        "config:\n  a:b: &a {x: 1}\n  mern:values: *a\n",
    ],
)
def test_the_rest_of_the_file_stays(project: Path, text: str) -> None:
    values = {"ingress": {"hosts": ["a.example.com"], "enabled": True}}
    written = edited(text, {"mern:values": values})
    before, after = yaml.safe_load(text) or {}, yaml.safe_load(written)
    assert after == {**before, "config": {**(before.get("config") or {}), "mern:values": values}}
    assert [comment for comment in re.findall("#[^\r\n]*", text) if comment not in written] == []
    assert edited(written, {"mern:values": values}) == written


def test_a_file_that_is_none_is_named(project: Path) -> None:
    for text, reason in (
        ("- a", "is not a stack file"),
        ("config: [1]", "is not"),
        ("a: [", "mend it first"),
    ):
        Path("Pulumi.shop.yaml").write_text(text)
        with pytest.raises(StackFileError, match=reason):
            stack_file.read("shop")
    with pytest.raises(StackFileError, match=r"did you mean Pulumi\.shop\.yaml\?"):
        stack_file.read("acme/mern/shopp")
