"""The door to what is done around a deployment, in CI and by hand: `python -m operations COMMAND`.

Exit codes: 0 all is well, 1 it is not (the output says why), 2 wrong arguments, 3 the stack has drifted.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from operations.ci import commands as ci
from operations.environments import commands as environments
from operations.migration import commands as migration
from operations.promotion import commands as promotion
from operations.rollback import commands as rollback


def main(arguments: list[str] | None = None, open_stack: Callable[[str], Any] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: of the command line.
        open_stack: opens the stack of a name; tests give the sandbox's.
    """
    description = "What is done around a deployment, in CI and by hand."
    parser = argparse.ArgumentParser(prog="python -m operations", description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    for purpose in (ci, environments, promotion, rollback, migration):
        purpose.add(commands)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args, open_stack or _open_stack))
    except FileNotFoundError as error:
        if error.filename != "pulumi":
            raise
        print("error: there is no `pulumi` on PATH: https://www.pulumi.com/docs/install", file=sys.stderr)
        return 1


def _open_stack(name: str) -> Any:
    from operations.stack import open_stack

    return open_stack(name)


if __name__ == "__main__":
    sys.exit(main())
