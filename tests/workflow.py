"""Runs a step of a workflow as GitHub would: its `run:` in a shell, its variables from expressions."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.engine import PROJECT

WORKFLOWS = PROJECT / ".github/workflows"
ACTIONS = PROJECT / ".github/actions"
LOCAL_ACTION = "./.github/actions/"
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")

Step = dict[str, Any]


def load(name: str) -> dict[str, Any]:
    """Return a workflow by its name; YAML takes its key `on` for true."""
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yaml").read_text())
    loaded["on"] = loaded.pop(True, None)
    return loaded


def load_action(name: str) -> dict[str, Any]:
    """Return one of the project's own actions by the name of its folder."""
    loaded: dict[str, Any] = yaml.safe_load((ACTIONS / name / "action.yaml").read_text())
    return loaded


def steps(job: Mapping[str, Any]) -> Iterator[Step]:
    """Yield the steps of a job, with those of the project's own actions in place of these."""
    for step in job["steps"]:
        action = step.get("uses", "")
        if action.startswith(LOCAL_ACTION):
            yield from _steps_of_action(action.removeprefix(LOCAL_ACTION), step.get("with", {}))
        else:
            yield step


def _steps_of_action(name: str, given: Mapping[str, str]) -> Iterator[Step]:
    """Yield the steps of an action, its inputs filled in, which are all that it sees of the workflow."""
    action = load_action(name)
    inputs = {key: str(given.get(key, about.get("default", ""))) for key, about in action["inputs"].items()}
    expressions = {f"inputs.{key}": text for key, text in inputs.items()}
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")  # nobody's text gets into a shell
        filled = {
            part: {key: _filled(text, expressions) for key, text in step[part].items()}
            for part in ("with", "env")
            if part in step
        }
        yield {**step, **filled}


def _filled(text: str, expressions: Mapping[str, str]) -> str:
    return EXPRESSION.sub(lambda match: expressions[match[1]], text)


def bare_python(folder: Path) -> Path:
    """Make `folder`, with a `python` that has no packages, as where they could not be installed."""
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


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
    ran: set[str] = field(default_factory=set, init=False)
    """The names of the steps that it has run."""

    @property
    def summary(self) -> str:
        file = self.folder / "summary.md"
        return file.read_text() if file.exists() else ""

    @property
    def temp(self) -> Path:
        return self.folder / "temp"

    def run(self, workflow: str, job: str, step: str) -> subprocess.CompletedProcess[str]:
        """Run the step of that name, which may be one of an action."""
        whole = load(workflow)
        described = whole["jobs"][job]
        (chosen,) = (item for item in steps(described) if item.get("name") == step)
        assert "${{" not in chosen["run"]  # nobody's text gets into a shell
        env = {**whole.get("env", {}), **described.get("env", {}), **chosen.get("env", {})}
        self.temp.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", chosen["run"]],
            cwd=self.workspace,
            env={
                **os.environ,
                "CI": "true",
                "GITHUB_ACTIONS": "true",
                "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
                "RUNNER_TEMP": str(self.temp),
                **self.env,
                **{key: _filled(str(value), self.expressions) for key, value in env.items()},
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed.extend((done.stdout, done.stderr))
        self.ran.add(step)
        return done
