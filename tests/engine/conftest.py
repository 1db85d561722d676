"""A project of its own for each test, deployed by the real command line to the tests' control plane."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.resources.core_v1 import Namespace
from pulumi.automation.events import EngineEvent

from components.release.values import merged
from sandbox.engine import MADE_UP_SECRETS, PROJECT, Engine
from tests import remedies
from tests.conftest import FOLDER, TestCluster

ENGINE = Engine(folder=FOLDER)
PROGRAM = ("__main__.py", "settings", "components", "operations")
"""What a project of a test shares with this one; what a user edits is copied."""

Change = tuple[str, str]
"""Operation and object, as in `("update", "Deployment mern-client")`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a user saw of one command of Pulumi, and what the engine said it did."""

    ok: bool
    output: str
    operations: dict[str, str]
    """URN to operation, of everything the engine planned."""
    events: str = ""
    """All that the engine reported, as it stands in its event log."""
    reported: list[EngineEvent] = field(default_factory=list)
    """The same, as it came."""

    @property
    def changes(self) -> set[Change]:
        """What is not the same as before: Kubernetes objects by kind and name, others by type. Of a run that
        failed this would prove nothing."""
        assert self.ok, self.output
        return {(op, _label(urn)) for urn, op in self.operations.items() if op != "same"}

    @property
    def object_changes(self) -> set[Change]:
        """The part of `changes` that is about Kubernetes objects of the chart."""
        shown = {urn for urn in self.operations if "kubernetes:helm.sh/v3:Release$helm:" in urn}
        return {change for urn in shown for change in self.only(urn).changes}

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        """In order: "start" or "end", operation, and object, as in `("start", "update", "Release mern")`."""
        found = []
        for event in self.reported:
            for when, each in (("start", event.resource_pre_event), ("end", event.res_outputs_event)):
                if each:
                    found.append((when, each.metadata.op.value, _label(each.metadata.urn)))
        return found

    def step(self, when: str, operation: str, what: str) -> int:
        """Place in the order of steps."""
        return self.steps.index((when, operation, what))

    def only(self, urn: str) -> "Run":
        return replace(self, operations={urn: self.operations[urn]})


def _label(urn: str) -> str:
    _, types, name = urn.rsplit("::", 2)
    kind = types.rsplit("$", 1)[-1]
    return f"{kind.rsplit(':', 1)[-1]} {name.rsplit('/', 1)[-1]}"


@dataclass(kw_only=True)
class Project:
    """A copy of what a user edits, the chart and one stack file, beside this project's program."""

    folder: Path
    stack: str
    namespace: str
    cluster: TestCluster
    secrets: dict[str, str] = field(default_factory=lambda: dict(MADE_UP_SECRETS))
    """What the first command encrypts into the stack file."""
    env: dict[str, str] = field(default_factory=dict)
    """More variables for each command."""
    _made: bool = False

    @property
    def config_file(self) -> Path:
        return self.folder / f"Pulumi.{self.stack}.yaml"

    def configure(self, **changes: Any) -> None:
        """Set keys of `mern:*` in the stack file; a mapping is merged, None removes the key."""
        text = yaml.safe_load(self.config_file.read_text())
        for key, value in changes.items():
            full = f"mern:{key}"
            if value is None:
                text["config"].pop(full, None)
            else:
                old = text["config"].get(full)
                both = isinstance(old, dict) and isinstance(value, dict)
                text["config"][full] = merged(old, value) if both else value
        self.config_file.write_text(yaml.safe_dump(text))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file of the chart."""
        path = self.folder / "chart" / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    def program(self, text: str) -> None:
        """Have another program than this project's."""
        file = self.folder / "__main__.py"
        file.unlink(missing_ok=True)
        file.write_text(text)

    def patch(self, text: str) -> None:
        """Run `text` before this project's program, in its process."""
        self.program(f"{text}\n\n{(PROJECT / '__main__.py').read_text()}")

    def make(self) -> None:
        """Have the stack in the backend, and its secrets in its file."""
        if self._made:
            return
        self._made = True
        ENGINE.pulumi("stack", "init", self.stack, cwd=self.folder)
        for key in MADE_UP_SECRETS.keys() - self.secrets.keys():
            config = yaml.safe_load(self.config_file.read_text())
            config.get("config", {}).pop(key, None)
            self.config_file.write_text(yaml.safe_dump(config))
        for key, value in self.secrets.items():
            if MADE_UP_SECRETS.get(key) != value:
                self.set_secret(key, value)

    def set_secret(self, key: str, value: str) -> None:
        """As `pulumi config set --secret` does."""
        self.secrets[key] = value
        ENGINE.pulumi("config", "set", "--secret", key, "--stack", self.stack, cwd=self.folder, given=value)

    def environment(self) -> dict[str, str]:
        """The variables of each command."""
        debug = {"PULUMI_DEBUG_COMMANDS": "true"}  # for --event-log, as the Automation API has it
        # The provider leaves a copy of the kube config in the temporary folder, in each run.
        temporary = {"TMPDIR": str(self.folder)}
        return {**temporary, **os.environ, **ENGINE.environment(), **debug, **self.env}

    def command(self, command: str, *options: str) -> list[str]:
        """A command of Pulumi, as one types it."""
        self.make()
        given = [str(ENGINE.tools / "pulumi"), command, "--stack", self.stack, "--non-interactive", *options]
        return given if command == "preview" else [*given, "--yes", "--skip-preview"]

    def up(self, *options: str) -> Run:
        return self.run("up", *options)

    def preview(self, *options: str) -> Run:
        return self.run("preview", *options)

    def refresh(self, *options: str) -> Run:
        return self.run("refresh", *options)

    def destroy(self, *options: str) -> Run:
        return self.run("destroy", *options)

    def paste(self, command: str, given: str = "", **placeholders: str) -> str:
        """Have the user's shell run a command that was printed, with every question answered by yes; return
        what it shows."""
        path = f"{ENGINE.tools}{os.pathsep}{self.cluster.env['PATH']}"
        variables = {"PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig)}
        yes = {"PULUMI_SKIP_CONFIRMATIONS": "true"}
        env = self.environment() | variables | yes
        return remedies.run(command, folder=self.folder, env=env, given=given, **placeholders)

    def run(self, command: str, *options: str) -> Run:
        """Run a command of Pulumi in a process of its own, as a user does."""
        log = self.folder / "events.log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [*self.command(command, "--color", "never", "--event-log", str(log)), *options],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        events = log.read_text() if log.exists() else ""
        reported = [EngineEvent.from_json(json.loads(line)) for line in events.splitlines()]
        steps = [event.resource_pre_event.metadata for event in reported if event.resource_pre_event]
        return Run(
            ok=done.returncode == 0,
            output=done.stdout,
            operations={step.urn: step.op.value for step in steps},
            events=events,
            reported=reported,
        )

    def state(self) -> list[dict[str, Any]]:
        """The resources that the engine remembers."""
        return list(json.loads(self.raw_state())["checkpoint"]["latest"].get("resources") or [])

    def outputs(self) -> dict[str, Any]:
        """The outputs of the stack."""
        stack = next(item for item in self.state() if item["type"] == "pulumi:pulumi:Stack")
        return dict(stack["outputs"])

    def registered(self) -> set[str]:
        """The types of the resources that the engine remembers."""
        return {item["type"] for item in self.state()}

    def raw_state(self) -> str:
        """The state as it lies on disk."""
        file = FOLDER / f"state/.pulumi/stacks/mern/{self.stack}.json"
        return file.read_text()

    def get(self, kind: Any, name: str) -> Any:
        """An object of the application's namespace."""
        return self.cluster.client.get(kind, name, namespace=self.namespace)

    def list(self, kind: Any) -> list[Any]:
        return list(self.cluster.client.list(kind, namespace=self.namespace))


@pytest.fixture(scope="session")
def provider(cluster: TestCluster) -> str:
    """Which Kubernetes provider the engine uses."""
    return ENGINE.prepare()


@pytest.fixture(scope="session")
def stack_file(provider: str) -> Path:
    """The local stack's file as `make up` makes it, with its credentials encrypted."""
    folder = FOLDER / "projects/made-by-make-up"
    folder.mkdir(parents=True)
    shutil.copy(PROJECT / "Pulumi.yaml", folder)
    ENGINE.make_local_stack("local", folder)
    return folder / "Pulumi.local.yaml"


def new_project(slug: str, cluster: TestCluster, stack_file: Path) -> Project:
    """The project as it is committed, for a stack and a namespace of that name."""
    folder = FOLDER / "projects" / slug
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "chart", folder / "chart")
    share_program(folder)
    shutil.copy(stack_file, folder / f"Pulumi.{slug}.yaml")
    project = Project(folder=folder, stack=slug, namespace=slug, cluster=cluster)
    project.configure(
        cluster={"kubeconfig": str(cluster.kubeconfig)},
        namespace={"name": slug},
        release={"timeout": 30},
    )
    return project


def share_program(folder: Path) -> None:
    """Put this project's program and its virtual environment into `folder`."""
    shutil.copy(PROJECT / "Pulumi.yaml", folder)
    for name in PROGRAM:
        (folder / name).symlink_to(PROJECT / name)
    (folder / ".venv").symlink_to(sys.prefix)


@pytest.fixture
def project(request: pytest.FixtureRequest, cluster: TestCluster, stack_file: Path) -> Iterator[Project]:
    """A project in a namespace of its own, deployed nowhere yet."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    project = new_project(slug, cluster, stack_file)
    yield project
    # Free the nodes: what a test leaves would count for the next.
    try:
        cluster.client.delete(Namespace, slug)
    except Exception as error:
        assert "not found" in str(error)
