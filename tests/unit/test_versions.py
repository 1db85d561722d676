"""One list of versions: go.mod and requirements.txt. Whatever else names one is held to it."""

import json
import re
import tomllib

from components import load_balancer_controller
from sandbox import tools
from sandbox.engine import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def test_the_workflows_install_the_command_line_that_the_tests_run() -> None:
    pins = {
        found
        for file in (PROJECT / ".github").rglob("*.y*ml")
        for found in re.findall(r"pulumi-version: *(\S+)", file.read_text())
    }
    assert pins == {tools.PULUMI.version}


def test_where_the_bot_looks_for_a_version_it_finds_the_pinned_one() -> None:
    """A sentence that it no longer knew would go on naming the old one."""
    dependencies = dict(each.split("==") for each in PYPROJECT["project"]["dependencies"] if "==" in each)
    pinned = {
        "github.com/pulumi/pulumi/pkg/v3": tools.PULUMI.version,
        "pulumi-kubernetes": dependencies["pulumi-kubernetes"],
        "aws-load-balancer-controller": load_balancer_controller.VERSION,
    }
    config = json.loads((PROJECT / ".github/renovate.json").read_text())
    for manager in config["customManagers"]:
        patterns = [text.replace("(?<", "(?P<") for text in manager["matchStrings"]]
        for name in manager["managerFilePatterns"]:
            text = (PROJECT / re.sub(r"^/\^|\\|\$/$", "", name)).read_text()
            found = [version for pattern in patterns for version in re.findall(pattern, text)]
            assert found == [pinned[manager["depNameTemplate"]]], name


def test_the_bot_finds_the_command_that_pins_the_packages() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (PROJECT / name).read_text()
        assert re.match(rf"(#.*\n)+#    pip-compile .*--output-file={name} .*pyproject\.toml\n", text)


def test_the_devcontainer_has_what_the_sandbox_is_built_with() -> None:
    container = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
    python = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert re.fullmatch(
        rf"\S+/python:\d+\.\d+\.\d+-{re.escape(python)}-\w+(@sha256:\w+)?", container["image"]
    )
    [feature] = [about for name, about in container["features"].items() if "/features/go:" in name]
    needed = [
        re.findall(r"^go (\S+)$", file.read_text(), re.MULTILINE)[0]
        for file in tools.MODULES.glob("*/go.mod")
    ]
    assert _numbers(feature["version"]) >= max(map(_numbers, needed))


def test_the_changelog_has_the_version_of_the_project_and_its_package() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", line) for line in headings[1:]]
    assert all(versions), headings
    numbers = [_numbers(version[1]) for version in versions if version]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == _numbers(PYPROJECT["project"]["version"])
    package = tomllib.loads((PROJECT / "package/pyproject.toml").read_text())
    assert package["project"]["version"] == PYPROJECT["project"]["version"]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
