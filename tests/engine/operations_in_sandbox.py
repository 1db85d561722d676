"""`python -m operations`, with the tests' engine in place of the one that PULUMI_BACKEND_URL names.

A workflow's step is run with this in place of `.venv/bin/python`; OPERATIONS_IN_SANDBOX says for which
project.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation as auto

from operations.__main__ import main
from sandbox.engine import Engine
from tests.conftest import FOLDER

VARIABLE = "OPERATIONS_IN_SANDBOX"


class _Engine(Engine):
    """As one on S3: what a killed run has left stays."""

    def _break_stale_lock(self, stack: auto.Stack) -> None:
        pass


def _open(name: str) -> Any:
    given = json.loads(os.environ[VARIABLE])
    assert name == given["stack"]
    engine = _Engine(folder=FOLDER, tools=FOLDER / "bin", project=Path(given["project"]))

    def program() -> None:
        engine._run()
        for text in given["warnings"]:
            pulumi.log.warn(text)

    return replace(engine).stack(name, given["secrets"], program)


if __name__ == "__main__":
    assert sys.argv[1:3] == ["-m", "operations"]
    sys.exit(main(sys.argv[3:], _open))
