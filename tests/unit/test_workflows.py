"""The workflows, as far as they can be checked without GitHub."""

import subprocess
from pathlib import Path

import pytest

from sandbox.engine import PROJECT


@pytest.mark.parametrize(
    "workflow", sorted((PROJECT / ".github/workflows").glob("*.yaml")), ids=lambda p: p.stem
)
def test_actionlint_finds_nothing_in_the_workflows(checks: Path, workflow: Path) -> None:
    done = subprocess.run(
        [str(checks / "actionlint"), str(workflow)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
