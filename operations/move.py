"""`move`: the values files of the old Helm chart become the config of a stack.

It writes `mern:values` and `mern:imageTag`, and nothing else of the stack file changes. Credentials are
not copied: for each there is the command that asks for it.
"""

import argparse
import difflib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi
import yaml

from components.chart_values import fill
from operations.old_values import CHART, SCHEMAS, Dumper, Moved, OldValuesError, read, translate
from settings import KEYS, SECRET_KEYS, Settings

VALUES, IMAGE_TAG = "mern:values", "mern:imageTag"


class MoveError(Exception):
    """Why nothing was written, and what to do."""


def run(args: argparse.Namespace) -> int:
    """Move the files; 1 where something stands against it."""
    try:
        move(args.files or [], args.stack.rsplit("/", 1)[-1], write=args.write, replace=args.replace)
    except (MoveError, OldValuesError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def move(files: list[Path], stack: str, *, write: bool, replace: bool) -> None:
    """Print what becomes of the old values, and write it to Pulumi.`stack`.yaml of this folder.

    Raises:
        MoveError: the stack file is missing or has such values already, or the chart refuses the new.
        OldValuesError: a values file cannot be read.
    """
    if not files:
        raise MoveError("which values file? python -m operations move values-staging.yaml --stack staging")
    target = Path(f"Pulumi.{stack}.yaml")
    text = read_stack_file(target)
    config = (yaml.safe_load(text) or {}).get("config") or {}
    remarks: list[str] = []
    moved = translate(read(files, remarks), remarks)
    new = {key: value for key, value in ((VALUES, moved.values), (IMAGE_TAG, moved.image_tag)) if value}
    _print_report(moved, new, stack)
    if moved.conflicts:
        raise MoveError(
            "nothing is written while these contradict each other:\n  " + "\n  ".join(moved.conflicts)
        )
    checked = _check_by_helm(moved)
    missing = _missing({**config, **new}, moved, stack)
    if missing:
        print(f"\nStill to do, as `pulumi preview` would say:\n{missing}")
    present = {key: config[key] for key in new if config.get(key) not in (None, {}, new[key])}
    if present and not replace:
        lost = "\n  ".join(_leaves(present))
        raise MoveError(
            f"{target} has values already; nothing is written. --replace puts the new in place of:\n  {lost}"
        )
    written = with_config(text, new)
    if written == text:
        print(f"\n{target} says so already.")
    elif write:
        with target.open("w", encoding="utf-8", newline="") as file:
            file.write(written)
        print(f"\n{target} is written. {checked} Next: pulumi preview --stack {stack}")
    else:
        print(f"\nNothing is written. {checked} Next: the same command with --write")


def read_stack_file(target: Path) -> str:
    try:
        with target.open(encoding="utf-8", newline="") as file:  # keeps the line endings
            text = file.read()
        content = yaml.safe_load(text)
    except FileNotFoundError:
        known = [path.name for path in sorted(Path().glob("Pulumi.*.yaml"))]
        near = difflib.get_close_matches(target.name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'no stack files'}"
        raise MoveError(f"there is no {target} in this folder; {hint}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise MoveError(f"{target} cannot be read as YAML: mend it first") from None
    if not isinstance(content, dict | None) or not isinstance((content or {}).get("config", {}), dict | None):
        raise MoveError(f"{target} is not a stack file: it should have a mapping `config`")
    return text


# ---- the stack file's text


def with_config(text: str, new: Mapping[str, Any]) -> str:
    """The stack file `text` with these keys of `config` set, and no other character changed.

    Raises:
        MoveError: its form does not allow that.
    """
    for key, value in new.items():
        written = _with_key(text, key, value)
        expected = yaml.safe_load(text) or {}
        expected["config"] = {**(expected.get("config") or {}), key: value}
        try:
            fits = yaml.safe_load(written) == expected
        except yaml.YAMLError:
            fits = False
        if not fits:
            raise MoveError(
                f"the stack file has a form that cannot be edited safely: put {key} into it by hand"
            )
        text = written
    return text


def _with_key(text: str, key: str, value: Any) -> str:
    line_end = "\r\n" if "\r\n" in text else "\n"

    def block(indent: int) -> str:
        lines = yaml.dump({key: value}, Dumper=Dumper, sort_keys=False, width=10_000)
        return line_end.join(" " * indent + line if line else "" for line in lines.splitlines()).lstrip(" ")

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    config = next((below for name, below in entries if name.value == "config"), None)
    if not isinstance(config, yaml.MappingNode) or not config.value:
        if config is not None:
            return ""
        gap = "" if not text or text.endswith("\n") else line_end
        return f"{text}{gap}config:{line_end}  {block(2)}{line_end}"
    if config.flow_style:
        return ""
    for name, below in config.value:
        if name.value == key:
            return text[: name.start_mark.index] + block(name.start_mark.column) + text[end_of(below) :]
    first, last = config.value[0][0], config.value[-1][1]
    end = end_of(last)
    indent = first.start_mark.column
    added = f"{' ' * indent}{block(indent)}"
    if text[:end].endswith("\n"):  # after text in lines of its own
        return f"{text[:end]}{added}{line_end}{text[end:]}"
    end += len(text[end:].split("\n", 1)[0].rstrip("\r"))  # a comment in the same line
    return f"{text[:end]}{line_end}{added}{text[end:]}"


def end_of(node: yaml.Node) -> int:
    """Where the text of a node ends, without the blank lines and comments after it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return end_of(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


# ---- checks


def _check_by_helm(moved: Moved) -> str:
    """Have the chart render with the new values; a sentence on what was checked."""
    helm = shutil.which("helm") or shutil.which("helm", path=str(CHART.parent / ".sandbox/bin"))
    if helm is None:
        return "The chart has not seen the values yet: there is no helm here."
    values = fill(
        moved.values, image_tag=moved.image_tag, credentials={"mongodbUri": "mongodb://placeholder"}
    )
    done = subprocess.run(
        [helm, "template", "mern", str(CHART), "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("Error: ")
        raise MoveError(f"nothing is written, because the chart refuses these values:\n{said}")
    return "The chart accepts the values."


def _missing(config: Mapping[str, Any], moved: Moved, stack: str) -> str:
    """What the stack's config still lacks, once the credentials named are given."""
    own = {k.removeprefix("mern:"): v for k, v in config.items() if k.startswith("mern:")}
    given = {key.partition(".")[0] for key in moved.credentials.values() if key}
    encrypted = {key for key, value in own.items() if '{"secure":' in json.dumps(value, default=str)} | given
    texts = {key: v if isinstance(v, str) else json.dumps(v, default=str) for key, v in own.items()}
    for key in SECRET_KEYS & encrypted:
        texts[key] = '{"PLACEHOLDER": "-"}' if key == "serverSecrets" else "-"
    try:
        Settings.parse(texts, encrypted, stack)
    except pulumi.RunError as error:
        return str(error)
    return ""


# ---- what the user reads


def _print_report(moved: Moved, new: Mapping[str, Any], stack: str) -> None:
    text = yaml.dump(dict(new), Dumper=Dumper, sort_keys=False, width=10_000) if new else "nothing"
    _section(f"Pulumi.{stack}.yaml", text.splitlines())
    _section("Renamed", [f"{old} → {name}" for old, name in moved.renamed.items()])
    _section("Please look at", moved.remarks)
    commands: dict[str | None, list[str]] = {}
    for old, key in moved.credentials.items():
        commands.setdefault(key, []).append(old)
    lines = []
    for key, paths in commands.items():
        lines.append(", ".join(paths))
        if key is None:
            lines.append(
                "    has no place here: keep it in a Secret, and name that by extraEnv or existingSecret"
            )
        else:
            path = f"--path 'mern:{key}'" if "." in key else f"mern:{key}"
            lines.append(f"    pulumi config set --secret {path} --stack {stack}")
    _section("Credentials: not copied; each command asks for the value", lines)
    _section(
        "Not moved: this chart knows no such value",
        [f"{old}{_nearest(name)}" for old, name in moved.unknown.items()],
    )


def _section(title: str, lines: list[str]) -> None:
    if lines:
        print(f"\n{title}:")
        for line in lines:
            print(f"  {line}")


def _nearest(path: str) -> str:
    known = [".".join(keys) for keys in SCHEMAS] + [f"mern:{key}" for key in KEYS]
    near = difflib.get_close_matches(path, known, n=1)
    return f" (nearest: {near[0]})" if near else ""


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of what a mapping holds, without the values."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else key)
    else:
        yield path
