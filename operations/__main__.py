"""What is done around a deployment: `python -m operations COMMAND`."""

import argparse
import sys

from operations import move


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m operations", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    move.add_command(subparsers)
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
