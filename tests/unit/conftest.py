"""What holds for every unit test, and a backend of Pulumi for those that edit stack files."""

import subprocess
from pathlib import Path

import pytest

from sandbox.engine import PROJECT, Engine
from sandbox.tools import PULUMI, prepare
from tests.conftest import FOLDER

STACKS = ("shop", "staging")


@pytest.fixture(autouse=True)
def _outputs_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Output in an f-string fails; otherwise it would end up in a name as `<Output at 0x…>`."""
    monkeypatch.setenv("PULUMI_ERROR_OUTPUT_STRING", "true")


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that lead `pulumi` to a backend with the stacks `shop` and `staging`."""
    engine = Engine(folder=tmp_path_factory.mktemp("pulumi"))
    prepare(FOLDER / "bin", [PULUMI])
    engine.tools.symlink_to(FOLDER / "bin")
    (engine.folder / "state").mkdir()
    engine.passphrase.write_text("made up")
    (engine.folder / "Pulumi.yaml").write_bytes((PROJECT / "Pulumi.yaml").read_bytes())
    for name in STACKS:
        engine.pulumi("stack", "init", name, cwd=engine.folder)
    return engine.environment()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: dict[str, str]) -> Path:
    """An empty folder of the project, as the working folder of the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("operations.stack.PROJECT", tmp_path)
    for name, value in backend.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "Pulumi.yaml").write_bytes((PROJECT / "Pulumi.yaml").read_bytes())
    return tmp_path


def pulumi(*arguments: str) -> str:
    """Run the command line as a user does; return what it prints."""
    return subprocess.run(["pulumi", *arguments], check=True, capture_output=True, text=True).stdout
