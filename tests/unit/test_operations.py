"""The command line of all operations."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from operations.__main__ import main
from sandbox.engine import PROJECT

COMMANDS = (
    "preview",
    "up",
    "check-health",
    "drift",
    "comment",
    "issue",
    "environment",
    "move",
    "promote",
    "rollback",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"python -m operations {command} " in capsys.readouterr().out


def test_the_migration_can_be_deleted(tmp_path: Path) -> None:
    without = shutil.ignore_patterns("migration", "__pycache__")
    shutil.copytree(PROJECT / "operations", tmp_path / "operations", ignore=without)
    door = tmp_path / "operations/__main__.py"
    text = door.read_text().replace("from operations.migration import commands as migration\n", "")
    door.write_text(text.replace(", migration)", ")"))
    for name in ("components", "settings"):
        (tmp_path / name).symlink_to(PROJECT / name)
    program = (
        "import importlib, pkgutil, operations\n"
        "for module in pkgutil.walk_packages(operations.__path__, 'operations.'):\n"
        "    importlib.import_module(module.name)\n"
        "operations.__main__.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "rollback" in done.stdout
    assert "move" not in done.stdout
