"""What all tests share: the programs, and a control plane of their own."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT
from sandbox.tools import CHECKS, ETCD, HELM, KUBERNETES, KWOK, locked, prepare
from tests import remedies

# A machine with other work is no fault of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Each worker of pytest-xdist has a control plane and an engine of its own.
FOLDER = PROJECT / f".sandbox/test{os.environ.get('PYTEST_XDIST_WORKER', '')}"


LONGEST = (
    "test_faults.py",
    "test_owners.py",
    "test_staging_and_production.py",
    "test_nothing_secret_in_the_open.py",
    "test_record_and_dry_run.py",
    "test_workflows.py",
    "test_sandbox.py",
)


@dataclass(kw_only=True)
class TestCluster:
    """A running control plane."""

    __test__ = False
    control_plane: ControlPlane

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @cached_property
    def client(self) -> Any:
        return self.control_plane.client()

    @property
    def env(self) -> dict[str, str]:
        """Variables for programs: the tools first on PATH, and this cluster."""
        path = f"{self.control_plane.tools}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Pulumi's engine or a control plane: `make test-fast` leaves it out. A worker takes a
    module at a time; the longest go first, so that none is waited for in the end."""
    for item in items:
        if _on_engine(item) or {"cluster", "clone", "backend"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.engine)
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, int]:
    longest = _on_engine(item) and item.path.name in LONGEST
    return not _on_engine(item), LONGEST.index(item.path.name) if longest else len(LONGEST)


def _on_engine(item: pytest.Item) -> bool:
    return item.path.parent.name == "engine"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the commands that a worker of pytest-xdist has run."""
    remedies.ran.update(getattr(node, "workeroutput", {}).get("ran", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a message prints a command that no test has run; told only when all tests have."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["ran"] = sorted(remedies.ran)
        return
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if chosen or config.option.markexpr or config.option.keyword or session.exitstatus:
        return
    if missing := list(remedies.not_run()):
        print("\nNo test has run these commands, which messages print:", *missing, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tools() -> Path:
    """Folder of the programs: helm and the control plane's."""
    folder = FOLDER / "bin"
    prepare(folder, [ETCD, KUBERNETES, KWOK, HELM])
    return folder


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm program; who needs no control plane does not wait until one is built."""
    prepare(FOLDER / "bin", [HELM])
    return str(FOLDER / "bin/helm")


@pytest.fixture(scope="session")
def checks() -> Path:
    """Folder of actionlint, helm-docs and kube-score."""
    folder = FOLDER / "checks"
    prepare(folder, [CHECKS])
    return folder


@contextlib.contextmanager
def empty_control_plane() -> Iterator[ControlPlane]:
    """A control plane with nothing in it, removed afterwards; one at a time in a clone."""
    control_plane = ControlPlane(folder=FOLDER, tools=FOLDER / "bin")
    with locked(FOLDER / "lock", "another test run is at work in this clone"):
        control_plane.remove()
        for left_over in ("state", "projects", "pulumi-home"):
            shutil.rmtree(FOLDER / left_over, ignore_errors=True)
        control_plane.start()
        try:
            yield control_plane
        finally:
            control_plane.remove()


@pytest.fixture(scope="session")
def cluster(tools: Path) -> Iterator[TestCluster]:
    """An empty control plane, started for this run and removed after it."""
    with empty_control_plane() as control_plane:
        cluster = TestCluster(control_plane=control_plane)
        yield cluster
        cluster.client.close()
