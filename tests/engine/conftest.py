"""A project of its own for each test, deployed by the real engine to the tests' control plane."""

import gc
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.resources.core_v1 import Namespace
from pulumi import automation as auto

from sandbox.engine import MADE_UP_SECRETS, PROJECT, Engine, choose_provider, resources
from tests.conftest import FOLDER, LOST_ENGINE, TestCluster

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
    reported: list[auto.events.EngineEvent] = field(default_factory=list)
    """The same, as it came."""

    @property
    def changes(self) -> set[Change]:
        """What is not the same as before: Kubernetes objects by kind and name, others by type."""
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
    """A copy of what a user edits: the chart and one stack file."""

    folder: Path
    stack: str
    namespace: str
    cluster: TestCluster
    program: Callable[[], None] | None = None
    secrets: dict[str, str] = field(default_factory=lambda: dict(MADE_UP_SECRETS))

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
                text["config"][full] = _merged(old, value) if both else value
        self.config_file.write_text(yaml.safe_dump(text))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file of the chart."""
        path = self.folder / "chart" / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    @property
    def _engine(self) -> Engine:
        return Engine(folder=FOLDER, tools=FOLDER / "bin", project=self.folder)

    def open(self) -> auto.Stack:
        return self._engine.stack(self.stack, self.secrets, self.program)

    def set_secret(self, key: str, value: str) -> None:
        """As `pulumi config set --secret` does."""
        self.secrets[key] = value
        self._engine.set_secret(self.stack, key, value)

    def up(self, **options: Any) -> Run:
        return self._run("up", **options)

    def preview(self, **options: Any) -> Run:
        return self._run("preview", **options)

    def refresh(self) -> Run:
        return self._run("refresh")

    def destroy(self, **options: Any) -> Run:
        return self._run("destroy", **options)

    def _run(self, command: str, **options: Any) -> Run:
        run = self._run_once(command, **options)
        if not (run.ok or run.operations) and LOST_ENGINE in run.output:
            warnings.warn(f"{command} is run again: the SDK did not find the engine", stacklevel=2)
            run = self._run_once(command, **options)
        return run

    def _run_once(self, command: str, **options: Any) -> Run:
        lines: list[str] = []
        operations: dict[str, str] = {}
        reported: list[auto.events.EngineEvent] = []

        def on_event(event: auto.events.EngineEvent) -> None:
            reported.append(event)
            if event.resource_pre_event:
                meta = event.resource_pre_event.metadata
                operations[meta.urn] = meta.op.value

        stack = self.open()
        # What the SDK reads after each run, by three more commands, and no test looks at.
        stack.outputs, stack.info = dict, lambda *_: True
        try:
            getattr(stack, command)(
                on_output=lines.append,
                on_error=lines.append,
                on_event=on_event,
                color="never",
                **options,
            )
        except auto.errors.CommandError:
            ok = False
        else:
            ok = True
        # The coroutines of a program that failed are thrown away here, not in the midst of a test.
        gc.collect()
        return Run(
            ok=ok,
            output="\n".join(lines),
            operations=operations,
            events="\n".join(json.dumps(event, default=vars) for event in reported),
            reported=reported,
        )

    def state(self) -> list[dict[str, Any]]:
        """The resources that the engine remembers."""
        return list(resources(self.open()))

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


def _merged(old: Any, new: Any) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = _merged(inner, value) if both else value
    return result


@pytest.fixture(scope="session")
def provider(cluster: TestCluster) -> str:
    """Which Kubernetes provider the engine uses: the real one, or the stand-in."""
    return choose_provider(FOLDER)


def new_project(slug: str, cluster: TestCluster) -> Project:
    """The project as it is committed, for a stack and a namespace of that name."""
    folder = FOLDER / "projects" / slug
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "chart", folder / "chart")
    shutil.copy(PROJECT / "Pulumi.yaml", folder)
    shutil.copy(PROJECT / "Pulumi.local.yaml", folder / f"Pulumi.{slug}.yaml")
    project = Project(folder=folder, stack=slug, namespace=slug, cluster=cluster)
    project.configure(
        cluster={"kubeconfig": str(cluster.kubeconfig)},
        namespace={"name": slug},
        release={"timeout": 30},
    )
    return project


@pytest.fixture
def project(request: pytest.FixtureRequest, cluster: TestCluster, provider: str) -> Iterator[Project]:
    """A project in a namespace of its own, deployed nowhere yet."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    project = new_project(slug, cluster)
    yield project
    # Free the nodes: what a test leaves would count for the next.
    try:
        cluster.client.delete(Namespace, slug)
    except Exception as error:
        assert "not found" in str(error)
