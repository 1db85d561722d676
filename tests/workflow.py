"""Runs a step of a workflow as GitHub would: its `run:` in a shell, its variables from expressions."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.engine import PROJECT

WORKFLOWS = PROJECT / ".github/workflows"


def load(name: str) -> dict[str, Any]:
    """A workflow by its name; YAML takes its key `on` for true."""
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yaml").read_text())
    loaded["on"] = loaded.pop(True, None)
    return loaded


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A machine of GitHub's."""

    folder: Path
    """Of the files that the runner itself makes."""
    workspace: Path
    """The checkout, in which steps are run."""
    env: Mapping[str, str]
    """What the runner itself sets."""
    expressions: Mapping[str, str]
    """What stands in place of `${{ … }}`; one that is not here fails the test."""
    printed: list[str] = field(default_factory=list, init=False)
    """All that its steps have printed."""

    @property
    def summary(self) -> str:
        file = self.folder / "summary.md"
        return file.read_text() if file.exists() else ""

    @property
    def temp(self) -> Path:
        return self.folder / "temp"

    def run(self, workflow: str, job: str, step: str) -> subprocess.CompletedProcess[str]:
        """Run the step of that name."""
        whole = load(workflow)
        described = whole["jobs"][job]
        found = next(item for item in described["steps"] if item.get("name") == step)
        assert "${{" not in found["run"]  # nobody's text gets into a shell
        env = {**whole.get("env", {}), **described.get("env", {}), **found.get("env", {})}
        self.temp.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", found["run"]],
            cwd=self.workspace,
            env={
                **os.environ,
                "CI": "true",
                "GITHUB_ACTIONS": "true",
                "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
                "RUNNER_TEMP": str(self.temp),
                **self.env,
                **{key: self._filled(str(value)) for key, value in env.items()},
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed.extend((done.stdout, done.stderr))
        return done

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: self.expressions[found[1]], text)
