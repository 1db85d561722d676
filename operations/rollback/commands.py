"""The command `rollback`."""

import argparse
from collections.abc import Callable
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "rollback",
        help="take a stack back to an earlier revision of its release",
        description="Take the config of a stack back to what it was at a revision of its release, show the "
        "preview, and deploy it. Without REVISION: list those that Helm keeps.",
    )
    parser.add_argument("revision", type=int, nargs="?", metavar="REVISION", help="as Helm counts them")
    parser.add_argument("--stack", required=True, help="the stack to take back")
    parser.add_argument("--yes", action="store_true", help="deploy after the preview without asking")
    parser.add_argument(
        "--chart-as-it-is",
        action="store_true",
        help="only the values go back, where the chart's files were others",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, open_stack: Callable[[str], Any]) -> int:
    from operations.rollback import rollback

    return rollback.run(args, open_stack)
