"""The package of the release component: what `make package` builds, built here in this process."""

import ast
import re
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import BytesParser
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from hatchling.build import build_sdist, build_wheel
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sandbox.engine import PROJECT

FOLDER, SOURCE = PROJECT / "package", PROJECT / "components/release"
FOREIGN = re.compile(rb"(?i)mern|\b(?:from|import) (?:components|settings|operations|sandbox|tests)\b")
"""What belongs to the rest of this project."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        return folder / build_wheel(str(folder))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        [name] = [name for name in file.namelist() if name.endswith("/METADATA")]
        return BytesParser().parsebytes(file.read(name))


def test_the_wheel_has_the_component_and_nothing_of_this_project_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    packed = {name.partition("/")[2] for name in contents if name.startswith("pulumi_chart_release/")}
    assert packed == {path.name for path in SOURCE.iterdir() if path.is_file()}
    others = {name.partition("/")[2]: text for name, text in contents.items() if ".dist-info/" in name}
    assert others["licenses/LICENSE"] == (PROJECT / "LICENSE").read_bytes()
    assert len(packed) + len(others) == len(contents)
    assert {name: FOREIGN.findall(text) for name, text in contents.items() if FOREIGN.search(text)} == {}


def test_what_is_built_of_the_source_distribution_is_the_same_to_the_byte(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it has the real files, whatever lies behind a link here, and no clock."""
    monkeypatch.chdir(FOLDER)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as file:
        file.extractall(tmp_path, filter="data")
    [unpacked] = [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.chdir(unpacked)
    assert (tmp_path / build_wheel(str(tmp_path))).read_bytes() == wheel.read_bytes()


def test_what_it_imports_is_declared_and_what_this_project_pins_is_in_each_range(metadata: Message) -> None:
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    ranges = {canonicalize_name(item.name): item.specifier for item in requirements}
    distributions = packages_distributions()
    undeclared = {
        module
        for path in SOURCE.glob("*.py")
        for module in imported_by(path) - sys.stdlib_module_names - {"grpc"}  # pulumi's own transport
        if ranges.keys().isdisjoint(map(canonicalize_name, distributions[module]))
    }
    assert undeclared == set()
    assert [name for name, allowed in ranges.items() if version(name) not in allowed] == []
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == project["license"]


def imported_by(path: Path) -> set[str]:
    """Return the modules that a file imports by their full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_its_page_shows_the_program_that_is_documented(metadata: Message) -> None:
    def program(text: str) -> str:
        block = re.search(r"```python\n(.+?)```", text, re.DOTALL)
        assert block
        return block[1]

    page = str(metadata.get_payload())
    assert program(page) == program((PROJECT / "docs/release.md").read_text())
