"""`move`: make the values files of the old Helm chart the config of a stack.

It sets `mern:values` and `mern:imageTag`, and nothing else of the stack's config changes. Credentials are
not copied: for each there is the command that asks for it.
"""

import argparse
import difflib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi import automation as auto

from components.chart_values import fill
from components.release.values import leaves
from operations import stack_file
from operations.migration.old_values import CHART, SCHEMAS, Moved, OldValuesError, read, translate
from operations.stack import stderr_of
from operations.stack_file import IMAGE_TAG, VALUES, StackFile, StackFileError, config_path, is_same
from settings import KEYS, SECRET_KEYS, Settings


class MoveError(Exception):
    """A reason why nothing is written, with what to do; for the user."""


def run(args: argparse.Namespace, open_stack: Callable[[str], auto.Stack]) -> int:
    """Move the files; return 1 where it was not done."""
    try:
        move(args.files or [], args.stack, open_stack, write=args.write, replace=args.replace)
    except (MoveError, OldValuesError, StackFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def move(
    files: list[Path], stack: str, open_stack: Callable[[str], auto.Stack], *, write: bool, replace: bool
) -> None:
    """Print what becomes of the old values, and have it written to the stack file in this folder.

    Args:
        files: values files, in Helm's order.
        stack: whose file gets the values.
        open_stack: opens the stack of a name; used only where something is written.
        write: write, instead of only saying what would be.
        replace: also where the stack has other values already.

    Raises:
        MoveError: the stack has such values already, cannot be opened, or the chart refuses the new.
        StackFileError: the stack file cannot be read, or not be edited.
        OldValuesError: a values file cannot be read.
    """
    if not files:
        raise MoveError(
            "which values file? As in\n"
            f"    .venv/bin/python -m operations move values-{stack}.yaml --stack {stack}"
        )
    file = stack_file.read(stack)
    remarks: list[str] = []
    moved = translate(read(files, remarks), remarks)
    new = {key: value for key, value in ((VALUES, moved.values), (IMAGE_TAG, moved.image_tag)) if value}
    _print_report(moved, new, file, stack)
    if moved.conflicts:
        raise MoveError(
            "nothing is written while these contradict each other:\n  " + "\n  ".join(moved.conflicts)
        )
    checked = _check_by_helm(moved)
    missing = _missing({**file.config, **new}, moved, stack.rsplit("/", 1)[-1])
    if missing:
        print(f"\nStill to do, as a preview would say:\n{missing}")
    present = {key: file.config[key] for key in new if file.config.get(key) not in (None, {}, new[key])}
    if present and not replace:
        lost = "\n  ".join(config_path(path) for path, _ in leaves(present))
        raise MoveError(
            f"{file.path} has values already; nothing is written. --replace puts the new in place of:"
            f"\n  {lost}"
        )
    if all(is_same(file.config.get(key), value) for key, value in new.items()):
        print(f"\n{file.path} says so already.")
    elif write:
        stack_file.edit(_opened(stack, open_stack), file, new)
        print(f"\n{file.path} is written. {checked} Next:\n    pulumi preview --stack {stack}")
    else:
        print(f"\nNothing is written. {checked} Next: the same command with --write")


def _opened(stack: str, open_stack: Callable[[str], auto.Stack]) -> auto.Stack:
    try:
        return open_stack(stack)
    except auto.errors.CommandError as error:
        raise MoveError(f"nothing is written: stack {stack} cannot be opened: {stderr_of(error)}") from None


# ---- checks


def _check_by_helm(moved: Moved) -> str:
    """Render the chart with the new values; return a sentence on what was checked."""
    helm = shutil.which("helm") or shutil.which("helm", path=str(CHART.parent / ".sandbox/bin"))
    if helm is None:
        return "The chart has not checked the values: there is no helm here."
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
        refusal = done.stderr.strip().removeprefix("Error: ")
        raise MoveError(f"nothing is written, because the chart refuses these values:\n{refusal}")
    return "The chart accepts the values."


def _missing(config: Mapping[str, Any], moved: Moved, stack: str) -> str:
    """Return the faults that the stack's config still has once the credentials named are given."""
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


def _print_report(moved: Moved, new: Mapping[str, Any], file: StackFile, stack: str) -> None:
    text = yaml.safe_dump(dict(new), sort_keys=False, width=10_000) if new else "nothing"
    _section(str(file.path), text.splitlines())
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
