"""Whatever goes wrong: the old version serves, the user reads why, and the next `up` works.

The faults follow one another in one deployment: what one leaves is what the next one finds.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace, Node

from components.release.hooks import REPORT_VARIABLE
from components.release.record import newest
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import Project, Run, new_project
from tests.engine.faults import (
    ANEW,
    DOC,
    INTRODUCTION,
    NOTHING,
    ROLLBACK,
    WRITE,
    Fault,
    api,
    below_the_refusal,
    line_of,
    noise,
    progress,
    ready,
    until,
)

ROWS = {
    "mernServer": ("update", "Deployment mern-server"),
    "pythonScript": ("update", "CronJob mern-python-script"),
}
"""What a new version of a part changes."""

lines: dict[str, str] = {}


class Shop:
    """The deployment that the faults have in common."""

    def __init__(self, cluster: TestCluster, stack_file: Path) -> None:
        self.cluster, self.stack_file = cluster, stack_file
        self.project: Project | None = None
        self.version = 0
        self.waiting: set[str] = set()
        """The parts of which a new version is not deployed yet."""
        self.mended: set[str] = set()
        """What an `up` has gone on from."""

    def serving(self) -> Project:
        """The project with its first version deployed; anew after a test that failed."""
        if self.project is None:
            self.version += 1
            self.project = new_project(f"faults-{self.version}", self.cluster, self.stack_file)
            one = {"replicas": 1, "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}
            self.project.configure(values={"mernClient": one, "mernServer": one})
            run = self.project.up()
            assert run.ok, run.output
            self.waiting.clear()
        return self.project

    def next_version(self, part: str) -> str:
        """Set the tag of a new version of `part`; what its image then ends in."""
        assert self.project
        self.version += 1
        self.waiting.add(part)
        self.project.configure(values={part: {"image": {"tag": f"1.0.{self.version}"}}})
        return f":1.0.{self.version}"


@pytest.fixture(scope="session")  # tests are dealt out anew at the end of a run
def shop(cluster: TestCluster, stack_file: Path) -> Iterator[Shop]:
    shop = Shop(cluster, stack_file)
    yield shop
    for namespace in cluster.client.list(Namespace):
        if namespace.metadata.name.startswith("faults-"):
            cluster.client.delete(Namespace, namespace.metadata.name)


def image(project: Project, part: str) -> str:
    if part == "pythonScript":
        template = project.get(CronJob, "mern-python-script").spec.jobTemplate.spec.template
    else:
        template = project.get(Deployment, "mern-server").spec.template
    return str(template.spec.containers[0].image)


def left(project: Project) -> dict[str, Any]:
    """What the next run goes on from: Helm's newest revision, Pulumi's state, and its locks."""
    # What encryption changes each time, and where the program stood.
    state = json.loads(re.sub(r'("(?:ciphertext|sourcePosition)":\s*)"[^"]*"', r'\1""', project.raw_state()))
    latest = state["checkpoint"]["latest"]
    return {
        "record": newest(api(project), "mern", project.namespace),
        "resources": {item["urn"]: item for item in latest["resources"]},
        "pending": latest.get("pending_operations"),
        "locks": [*(FOLDER / "state/.pulumi/locks").rglob(f"{project.stack}/*.json")],
    }


def assert_nothing_is_left(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, what in after.items():
        assert what == before[key], key


def assert_helm_has_rolled_back(before: dict[str, Any], after: dict[str, Any], run: Run, again: str) -> None:
    shown = progress(run.output)
    if "did not become ready" in run.output:
        assert any(re.match(r"waiting for .*0/1 ready", line) for line in shown), run.output
    assert all(one != other for one, other in pairwise(shown)), shown
    old, new = before["record"], after["record"]
    assert new.status == "deployed"
    assert new.description == f"Rollback to {old.revision}"
    assert new.objects() == old.objects()
    serving = (
        rf"Now serving: revision {new.revision} \({new.description}\) of .*: mern-client \d/1 ready, mern-"
    )
    assert re.search(serving, run.output), run.output
    assert f"Next: mend the cause and run `{again}` again; there is nothing to clean up." in run.output
    assert not after["pending"]
    assert after["locks"] == []


def assert_no_noise(run: Run, report: Path, project: Project) -> None:
    """Nothing but our own words and the engine's, on the screen and in the report."""
    written = report.read_text() if report.exists() else ""
    assert noise(run.output + written) == []
    assert all(line.strip() in run.output for line in written.splitlines())
    assert not any(secret in run.output + written for secret in project.secrets.values())


@pytest.mark.parametrize("fault", Fault.all, ids=lambda fault: re.sub(r"\W+", "-", fault.name))
def test_the_old_version_serves_the_cause_is_named_and_the_next_up_works(
    fault: Fault, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPORT_VARIABLE, str(tmp_path / "report"))
    project = shop.serving()
    pods, before = ready(project), left(project)
    assert len(pods) == 2
    tag = shop.next_version(fault.part)
    shop.project = None
    project.configure(release={"timeout": fault.timeout})

    with fault.produce(project) as up:
        run = (up or project.up)()

    assert run.ok != fault.fails, run.output
    said = {row: [line_with(pattern, run) for pattern in row.says] for row in fault.rows}
    refused = any("exceeded quota" in pattern for row in fault.rows for pattern in row.says)
    assert ("exceeded quota" in run.output) == refused, "what is of an earlier deployment"
    assert_no_noise(run, tmp_path / "report", project)
    if fault.old_serves:
        nodes = {node.metadata.name for node in project.cluster.client.list(Node)}
        assert {pod for pod, node in pods.items() if node in nodes} <= set(ready(project))
    if fault.leaves == NOTHING:
        assert_nothing_is_left(before, left(project))
        assert "Diagnostics:" not in run.output or below_the_refusal(run.output) == []
    elif fault.leaves == ROLLBACK:
        assert_helm_has_rolled_back(before, left(project), run, f"pulumi up --stack {project.stack}")
        assert (tmp_path / "report").exists()

    if fault.leaves not in shop.mended:  # else it is known that the next `up` works
        if fault.fails:
            project.configure(release={"timeout": 30})
            run = project.up()
            assert run.ok, run.output
        assert not run.operations or run.object_changes == {ROWS[part] for part in shop.waiting}, run.output
        assert image(project, fault.part).endswith(tag)
        until(lambda: len(ready(project)) == 2)  # Helm does not wait for the end of the old ones
        project.configure(release={"unlockRevision": None})
        shop.waiting.clear()
        shop.mended.add(fault.leaves)
    lines.update({row.name: line_of(row, texts, project) for row, texts in said.items()})
    shop.project = project


def test_after_the_faults_nothing_is_left_to_do(shop: Shop) -> None:
    project = shop.serving()
    project.configure(release={"timeout": 30})
    for command in ("preview", "up"):
        project.paste(f"pulumi {command} --stack {project.stack}")
    preview = project.preview()
    assert preview.changes == set(), preview.output


def line_with(pattern: str, run: Run) -> str:
    """The shortest line of the output with `pattern`."""
    found = [line for line in run.output.splitlines() if re.search(pattern, line)]
    assert found, f"{pattern}\n{run.output}"
    return min(found, key=len)


def test_the_table_names_these_faults_and_what_was_read() -> None:
    rows = [row for fault in Fault.all for row in fault.rows]
    if os.environ.get(WRITE):
        known = {name_in(line): line for line in DOC.read_text().splitlines(keepends=True)} | lines
        DOC.write_text(INTRODUCTION + "".join(known.get(row.name, "") for row in rows))
    text = DOC.read_text()
    assert text.startswith(INTRODUCTION)
    listed = text.removeprefix(INTRODUCTION).splitlines(keepends=True)
    anew = f"make it anew: {ANEW}"
    assert [name_in(line) for line in listed] == [row.name for row in rows], anew
    for line in lines.values():
        assert line in listed, anew


def name_in(line: str) -> str:
    return line.split(" | ", maxsplit=1)[0].removeprefix("| ").removesuffix(" *(played)*")
