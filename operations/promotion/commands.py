"""The command `promote`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from operations.ci.commands import add_summary


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "promote",
        help="deploy to a stack the very images that run healthily in another",
        description="Read which images run in SOURCE and are healthy, by their digests, show what they "
        "change in TARGET, and deploy them there by an ordinary `up`. Without TARGET: only name them.",
    )
    parser.add_argument("source", metavar="SOURCE", help="the stack that proves the images")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the stack to deploy them to")
    parser.add_argument("--yes", action="store_true", help="deploy after the preview without asking")
    parser.add_argument(
        "--chart-as-it-is",
        action="store_true",
        help="also where SOURCE was deployed from other files of the chart than those here",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=os.environ.get("GITHUB_OUTPUT") or None,
        metavar="FILE",
        help="without TARGET: append the images as `images=…`; by default what GITHUB_OUTPUT names",
    )
    add_summary(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, open_stack: Callable[[str], Any]) -> int:
    from operations.promotion import promotion

    return promotion.run(args, open_stack)
