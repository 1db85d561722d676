"""The file of a stack, `Pulumi.STACK.yaml`: read as it is, and edited by the engine alone.

The engine changes what differs and leaves comments, order, quotes and flow style of the rest.
"""

import copy
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation as auto

from components.release import helm_yaml
from components.release.values import ABSENT, differences, get, leaves, map_leaves, pulumi_path, remove, whole
from components.release.values import Path as ValuePath
from operations.stack import stderr_of

VALUES, IMAGE_TAG = "mern:values", "mern:imageTag"


class StackFileError(Exception):
    """A stack file that cannot be read, or not be edited; for the user."""


class _Reader(helm_yaml.Reader):
    """A reader of YAML as the engine reads a stack file: as Helm reads, but `yes` and `on` are texts."""

    def scalar(self, event: Any) -> Any:
        value = super().scalar(event)
        is_text = isinstance(value, bool) and event.value.lower() not in ("true", "false")
        return event.value if is_text else value


def _parsed(content: bytes) -> Any:
    return next((value for value, _, _ in _Reader(content).documents()), None)


@dataclass(frozen=True, kw_only=True)
class StackFile:
    """A stack file as it was when it was read."""

    path: Path
    content: bytes
    config: Mapping[str, Any]
    """Its `config`; what is encrypted stays so."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What stands beside `config`, as the key that encrypts secrets."""

    def restore(self) -> None:
        """Write the file as it was, to the byte."""
        self.path.write_bytes(self.content)


def read(stack: str) -> StackFile:
    """Read the file of `stack`, which may have its organization and project before it, in this folder.

    Raises:
        StackFileError: it is not there, or is no stack file.
    """
    path = Path(f"Pulumi.{stack.rsplit('/', 1)[-1]}.yaml")
    try:
        content = path.read_bytes()
        parsed = _parsed(content)
    except FileNotFoundError:
        known = [file.name for file in sorted(Path().glob("Pulumi.*.yaml"))]
        near = difflib.get_close_matches(path.name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'no stack files'}"
        raise StackFileError(f"there is no {path} in this folder; {hint}") from None
    except (OSError, ValueError, yaml.YAMLError):
        raise StackFileError(f"{path} cannot be read as YAML: mend it first") from None
    config = parsed.get("config") if isinstance(parsed, dict) else None
    if not isinstance(parsed, dict | None) or not isinstance(config, dict | None):
        raise StackFileError(f"{path} is not a stack file: it should have a mapping `config`")
    beside = {key: value for key, value in (parsed or {}).items() if key != "config"}
    return StackFile(path=path, content=content, config=config or {}, beside=beside)


def edit(stack: auto.Stack, file: StackFile, config: Mapping[str, Any]) -> None:
    """Have the engine set keys of the stack's config, in one command, and remove those that are ABSENT, in
    another. Not for secrets: values stand in the process's arguments.

    Args:
        stack: that `file` belongs to.
        file: as it is now.
        config: texts, and mappings as a whole: only so every value keeps its type.

    Raises:
        StackFileError: the engine cannot write it; the file is as it was.
    """
    _require_no_secret(file, config)
    try:
        _write(stack, file, config)
        if wrong := _wrong_paths(file, config):
            # The engine gives a number the quotes of the text before it: that has to go first.
            _write(stack, file, {key: _without(wrong, key, value) for key, value in config.items()})
            _write(stack, file, config)
            wrong = _wrong_paths(file, config)
        if wrong:
            paths = ", ".join(config_path(path) for path in wrong[:5])
            raise StackFileError(f"Pulumi cannot write to {file.path} what should stand at {paths}")
    except BaseException as error:
        file.restore()
        if isinstance(error, auto.errors.CommandError):
            raise StackFileError(f"Pulumi cannot write to {file.path}: {stderr_of(error)}") from None
        if isinstance(error, OSError):
            raise StackFileError(f"Pulumi cannot write to {file.path}: {error.strerror}") from None
        raise


def _write(stack: auto.Stack, file: StackFile, config: Mapping[str, Any]) -> None:
    given = {
        key: {"value": value, "secret": False}
        if isinstance(value, str)
        else {"value": json.dumps(value), "objectValue": {}, "secret": False}
        for key, value in config.items()
        if value is not ABSENT
    }
    removed = [key for key, value in config.items() if value is ABSENT and key in file.config]
    if given:
        stack.set_all_config_json(json.dumps(given))
    if removed:
        stack.remove_all_config(removed)


def _wrong_paths(file: StackFile, config: Mapping[str, Any]) -> list[ValuePath]:
    """Return the paths at which the file is not what `config` says."""
    try:
        now = (_parsed(file.path.read_bytes()) or {}).get("config") or {}
    except (yaml.YAMLError, ValueError):
        now = {}
    wrong: list[ValuePath] = []
    for key, value in config.items():
        if not is_same(now.get(key, ABSENT), value):
            changes = differences(value, now.get(key, ABSENT), (key,))
            wrong += [path for path, left, right in changes if not is_same(left, right)] or [(key,)]
    return wrong


def _without(paths: list[ValuePath], key: str, value: Any) -> Any:
    """Return the value of `key` with what stands at `paths` removed."""
    if (key,) in paths or not isinstance(value, Mapping):
        return ABSENT if (key,) in paths else value
    rest = copy.deepcopy(dict(value))
    for first, *below in paths:
        if first == key:
            remove(rest, tuple(below))
    return rest


def config_path(path: ValuePath) -> str:
    """Return a path whose first key is that of the config as `pulumi config --path` takes it."""
    key, *inner = path
    below = pulumi_path(tuple(inner))
    return f"{key}{'' if below.startswith('[') or not inner else '.'}{below}"


def is_same(left: Any, right: Any) -> bool:
    """Return whether two values are the same to the engine, which has one type of number."""
    return _canonical(left) == _canonical(right)


def _canonical(value: Any) -> str | None:
    return None if value is ABSENT else json.dumps(map_leaves(value, whole), sort_keys=True, default=str)


def _require_no_secret(file: StackFile, config: Mapping[str, Any]) -> None:
    """Refuse a mapping with nothing but a text at `secure`, which the engine takes for an encrypted value."""
    for path, leaf in leaves(config, lists=True):
        parent = path[:-1]
        if parent and path[-1] == "secure" and isinstance(leaf, str) and len(get(config, parent)) == 1:
            raise StackFileError(
                f"{file.path} cannot have a key `secure` alone, as in {config_path(parent)}: Pulumi takes "
                "its value for an encrypted one"
            )
