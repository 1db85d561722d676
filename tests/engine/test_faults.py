"""Whatever goes wrong: the old version serves, the user reads why, and the next `up` works.

The faults follow one another in one deployment: what one leaves is what the next one finds.
"""

import os
import re
from collections.abc import Iterator

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace, Node, Pod

from tests.conftest import TestCluster
from tests.engine.conftest import Project, new_project
from tests.engine.faults import DOC, INTRODUCTION, WRITE, Fault, row, until

rows: dict[str, str] = {}


class Shop:
    """The deployment that the faults have in common."""

    def __init__(self, cluster: TestCluster) -> None:
        self.cluster = cluster
        self.project: Project | None = None
        self.version = 0

    def serving(self) -> Project:
        """The project with its first version deployed; anew after a test that failed."""
        if self.project is None:
            self.version += 1
            self.project = new_project(f"faults-{self.version}", self.cluster)
            one = {"replicas": 1, "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}
            self.project.configure(values={"mernClient": one, "mernServer": one})
            self.next_version(self.project, "mernServer")
            run = self.project.up()
            assert run.ok, run.output
        return self.project

    def next_version(self, project: Project, part: str) -> str:
        """Set the tag of a new version of `part`; what its image then ends in."""
        self.version += 1
        project.configure(values={part: {"image": {"tag": f"1.0.{self.version}"}}})
        return f":1.0.{self.version}"


@pytest.fixture(scope="module")
def shop(cluster: TestCluster, provider: str) -> Iterator[Shop]:
    shop = Shop(cluster)
    yield shop
    for namespace in cluster.client.list(Namespace):
        if namespace.metadata.name.startswith("faults-"):
            cluster.client.delete(Namespace, namespace.metadata.name)


def ready(project: Project) -> dict[str, str]:
    """The pods that serve: id to node."""
    return {
        pod.metadata.uid: pod.spec.nodeName
        for pod in project.list(Pod)
        if any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])
    }


def image(project: Project, part: str) -> str:
    if part == "pythonScript":
        template = project.get(CronJob, "mern-python-script").spec.jobTemplate.spec.template
    else:
        template = project.get(Deployment, "mern-server").spec.template
    return str(template.spec.containers[0].image)


@pytest.mark.parametrize("fault", Fault.all, ids=lambda fault: re.sub(r"\W+", "-", fault.name))
def test_the_old_version_serves_the_cause_is_named_and_the_next_up_works(fault: Fault, shop: Shop) -> None:
    project = shop.serving()
    shop.project = None
    before = ready(project)
    assert len(before) == 2
    tag = shop.next_version(project, fault.part)
    project.configure(release={"timeout": fault.timeout})

    with fault.produce(project) as up:
        run = (up or project.up)()

    assert run.ok != fault.fails, run.output
    said = []
    for pattern in fault.says:
        lines = [line for line in run.output.splitlines() if re.search(pattern, line)]
        assert lines, f"{pattern}\n{run.output}"
        said.append(min(lines, key=len))
    assert not re.search(r"Traceback|goroutine|panic:|File \"", run.output), run.output
    assert not any(secret in run.output for secret in project.secrets.values())
    if fault.old_serves:
        nodes = {node.metadata.name for node in project.cluster.client.list(Node)}
        assert {pod for pod, node in before.items() if node in nodes} <= set(ready(project))

    if fault.fails:
        project.configure(release={"timeout": 30})
        run = project.up()
        assert run.ok, run.output
    assert image(project, fault.part).endswith(tag)
    until(lambda: len(ready(project)) == 2)  # Helm does not wait for the end of the old ones
    project.configure(release={"unlockRevision": None})
    again = project.preview()
    assert again.changes == set(), again.output
    rows[fault.name] = row(fault, said, project)
    shop.project = project


def test_the_table_names_these_faults_and_what_was_read() -> None:
    if os.environ.get(WRITE):
        known = {name_in(line): line for line in DOC.read_text().splitlines(keepends=True)} | rows
        DOC.write_text(INTRODUCTION + "".join(known.get(fault.name, "") for fault in Fault.all))
    text = DOC.read_text()
    assert text.startswith(INTRODUCTION)
    listed = text.removeprefix(INTRODUCTION).splitlines(keepends=True)
    anew = "make it anew: python -m tests.engine.faults"
    assert [name_in(line) for line in listed] == [fault.name for fault in Fault.all], anew
    for line in rows.values():
        assert line in listed, anew


def name_in(line: str) -> str:
    return line.split(" | ", maxsplit=1)[0].removeprefix("| ").removesuffix(" *(played)*")
