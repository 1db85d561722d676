"""The command `move`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "move",
        help="take over the values files of a Helm chart",
        description="Translate values files of the old Helm chart into the config of a stack. "
        "Prints what it would write; --write writes it.",
    )
    more = {"dest": "files", "type": Path, "metavar": "FILE"}
    parser.add_argument(nargs="*", action="extend", help="values files; the later win, as in Helm", **more)
    parser.add_argument("-f", "--values", action="append", help="the same, as Helm has it", **more)
    parser.add_argument("--stack", required=True, help="the stack whose file gets the values")
    parser.add_argument("--write", action="store_true", help="write the stack file")
    parser.add_argument(
        "--replace", action="store_true", help="instead of the mern:values and mern:imageTag that it has"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, open_stack: Callable[[str], Any]) -> int:
    from operations.migration import move

    return move.run(args, open_stack)
