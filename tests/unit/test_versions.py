"""One list of versions: go.mod and requirements.txt. Whatever else names one is held to it."""

import re

from sandbox import tools
from sandbox.engine import PROJECT


def test_the_workflows_install_the_command_line_that_the_tests_run() -> None:
    pins = {
        found
        for file in (PROJECT / ".github").rglob("*.y*ml")
        for found in re.findall(r"pulumi-version: *(\S+)", file.read_text())
    }
    assert pins == {tools.PULUMI.version}


def test_the_readme_names_the_command_line_that_the_tests_run() -> None:
    assert f"{tools.PULUMI.version} or newer" in (PROJECT / "README.md").read_text()
