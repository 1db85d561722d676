"""Whatever a user writes into the config: settings, or a message of the known form; nothing secret in it."""

import contextlib
import json
import re
from typing import Any

import pulumi
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.cluster import connect
from components.release import StackState
from components.release.values import ABSENT, get
from settings import KEYS, SECRET_KEYS, ClusterSettings, Settings
from tests import remedies
from tests.bad_input import HIDDEN, RIGHT, path_in, settings_cases

TITLE = re.compile(r"[1-9]\d* faults? in the config of stack staging \(Pulumi\.staging\.yaml\):")
FAULT = re.compile(r"  mern:.* \S+.*")
MEND = re.compile(r"      pulumi config (rm|set( --secret)?) .*mern:.* --stack staging")
NO_MEND = "      edit the stack file: no command can name this key"

CONFIG: dict[str, Any] = {
    **{key.removeprefix("mern:"): yaml.safe_load(value) for key, value in RIGHT.items()},
    "serverSecrets": {"JWT_SECRET": HIDDEN},
    "imageTag": "1.0.0",
    "values": {"mernServer": {"replicas": 2, "env": {"A": "b"}}, "ingress": {"hosts": ["a.example.com"]}},
    "loadBalancerController": {"mode": "install", "identity": "irsa", "chartRepository": "https://a.example"},
    "release": {"timeout": 60, "showObjects": True, "dryRun": True, "unlockRevision": 3},
    **dict.fromkeys(("mongodbUri", "awsAccessKeyId", "awsSecretAccessKey"), HIDDEN),
}
"""Every key of a right config, with HIDDEN in all that is secret."""
PATHS = [
    *((key,) for key in CONFIG),
    *((key, name) for key, value in CONFIG.items() if isinstance(value, dict) for name in value),
    *(("values", "mernServer", name) for name in ("env", "mongodbUri", "secrets", "existingSecret")),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = TEXT | st.sampled_from([*KEYS, "name", "mode", "timeout", "mernServer", "secrets", "secure"])
SCALARS = st.sampled_from([HIDDEN, "", "no", "1e3", "2024-11-24 00:00:00 +0000 UTC", "a b", "x" * 300]) | (
    TEXT | st.integers() | st.floats() | st.booleans() | st.none()
)
ANYTHING = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=6,
)


def check(texts: dict[str, str], encrypted: set[str], written_tag: str | None = None) -> str:
    """The message, held to its form; empty where the config is taken."""
    try:
        Settings.parse(texts, encrypted, "staging", written_tag)
    except pulumi.RunError as error:
        title, *lines = str(error).split("\n")
        assert TITLE.fullmatch(title)
        assert len(lines) >= 2
        assert [line for line in lines[::2] if not FAULT.fullmatch(line)] == []
        mends = [line for line in lines[1::2] if line != NO_MEND]
        assert [line for line in mends if not MEND.fullmatch(line)] == []
        removed: set[str] = set()
        assert [line for line in mends if not is_taken(line, texts, removed)] == []
        assert HIDDEN not in str(error)
        return str(error)
    return ""


def is_taken(command: str, texts: dict[str, str], removed: set[str]) -> bool:
    """Return whether Pulumi does what the command says, and does not refuse it or remove nothing.

    Args:
        command: as printed.
        texts: the config.
        removed: its keys that commands before this one have removed; one more where this does.
    """
    top, *keys = path_in(command)
    key = str(top)
    if key in removed or key not in texts:
        return key in removed or " set " in command
    if not keys and " rm " in command:
        removed.add(key)
    if not keys or keys == ["PATH", "OF", "THE", "SECRET"]:
        return True
    value: Any = texts[key]
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(value)
    if not isinstance(value, dict | list):
        return " set " in command and isinstance(keys[0], str)
    *parents, last = keys
    parent = get(value, tuple(parents))
    there = get(value, tuple(keys)) is not ABSENT
    return there or (" set " in command and isinstance(parent, dict) and isinstance(last, str))


def as_text(config: dict[str, Any]) -> dict[str, str]:
    """As the engine hands it over."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def test_the_right_config_is_taken() -> None:
    assert check(as_text(CONFIG), SECRET_KEYS) == ""


@settings(max_examples=500, deadline=None)
@given(path=st.sampled_from(PATHS), value=ANYTHING, encrypted=st.sets(st.sampled_from([*KEYS])))
def test_one_wrong_value_ends_in_settings_or_in_a_message(path: Any, value: Any, encrypted: set[str]) -> None:
    config = json.loads(json.dumps(CONFIG))
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    check(as_text(config), SECRET_KEYS ^ encrypted)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(NAMES, TEXT | ANYTHING, max_size=6), st.sets(NAMES, max_size=4), TEXT | st.none())
def test_any_config_ends_in_settings_or_in_a_message(
    config: dict[str, Any], encrypted: set[str], written_tag: str | None
) -> None:
    check(as_text(config), encrypted, written_tag)


@pytest.mark.parametrize("depth", [99, 101, 400, *range(960, 1000, 3), 100_000])
@pytest.mark.parametrize("key", ["values", "release", "serverSecrets", "zzz"])
def test_a_value_that_has_no_bottom_is_refused(key: str, depth: int) -> None:
    texts = as_text(CONFIG) | {key: '{"a":' * depth + "1" + "}" * depth}

    message = check(texts, SECRET_KEYS)

    assert bool(message) == (key != "values" or depth > 100)


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=40) | ANYTHING.map(lambda value: yaml.safe_dump(value).encode()))
def test_any_kube_config_that_is_none_is_refused(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "kubeconfig"
    file.write_bytes(text)
    with pytest.raises(pulumi.RunError, match=r"mern:cluster\.kubeconfig: .* is not a kube config"):
        connect(ClusterSettings(kubeconfig=str(file), context="laptop"), None, StackState())


def test_every_case_of_the_table_is_told_apart() -> None:
    said = [case.message for case in settings_cases()]

    assert all(said)
    assert HIDDEN not in str(said)


def test_a_command_in_a_message_stands_by_itself_and_names_its_stack() -> None:
    for place, text in remedies.messages():
        assert not remedies.HIDDEN.search(remedies.COMMAND.sub("", text)), place
        for command in remedies.commands_in(text):
            # Of settings these are the first words: every command that comes of them is looked at above.
            of_a_stack = command.startswith("pulumi ") and not command.startswith(
                ("pulumi stack init ", "pulumi state move ")
            )
            assert " --stack " in command or not of_a_stack or place.startswith("settings/"), place
