"""A cluster is recognised by what it is, and not by its address: what another kube config changes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace

from sandbox.control_plane import ControlPlane
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import ENGINE, Project
from tests.engine.faults import noise

Config = dict[str, Any]


@pytest.fixture(scope="module")
def another(tools: Path) -> Iterator[TestCluster]:
    """A second cluster."""
    control_plane = ControlPlane(folder=FOLDER / "another", tools=tools)
    control_plane.start()
    try:
        cluster = TestCluster(control_plane=control_plane)
        yield cluster
        cluster.client.close()
    finally:
        control_plane.remove()


def use(project: Project, cluster: TestCluster, change: Callable[[Config], None] = lambda _: None) -> None:
    """Have the stack file name a changed copy of the kube config of `cluster`."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    change(config)
    file = project.folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    project.configure(cluster={"kubeconfig": str(file), "context": config["current-context"]})


def at(server: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        old = config["clusters"][0]["cluster"]["server"]
        config["clusters"][0]["cluster"]["server"] = server.format(port=old.rpartition(":")[2])

    return change


def under_another_name(config: Config) -> None:
    config["contexts"][0]["name"] = config["current-context"] = "renamed"


def with_one_more_certificate(config: Config) -> None:
    cluster = config["clusters"][0]["cluster"]
    if path := cluster.pop("certificate-authority", None):
        bundle = FOLDER / "bundle.crt"
        bundle.write_text(2 * Path(path).read_text())
        cluster["certificate-authority"] = str(bundle)


def uid(project: Project) -> str:
    return str(project.get(Deployment, "mern-server").metadata.uid)


def as_it_was_deployed_before_identities_were_known(project: Project) -> None:
    """Put the state into the form that this program left it in before."""
    state = json.loads(ENGINE.pulumi("stack", "export", "--stack", project.stack, cwd=project.folder))
    for item in state["deployment"]["resources"]:
        if item["type"] == "pulumi:pulumi:Stack":
            del item["outputs"]["cluster"]
        if item["type"] == "pulumi:providers:kubernetes":
            item.pop("ignoreChanges", None)
            for part in (item["inputs"], item["outputs"]):
                part["clusterIdentifier"] = "kwok-mern@https://127.0.0.1:1"
    given = json.dumps(state)
    ENGINE.pulumi("stack", "import", "--stack", project.stack, cwd=project.folder, given=given)


def test_a_new_address_name_or_certificate_of_the_same_cluster_changes_nothing_that_runs(
    project: Project, another: TestCluster
) -> None:
    assert project.up().ok
    before, cluster = uid(project), project.cluster
    as_it_was_deployed_before_identities_were_known(project)
    again = project.preview()
    assert {op for op, _ in again.changes} <= {"update"}, again.output
    assert again.object_changes == set()
    assert project.up().ok
    assert uid(project) == before

    for change in (at("https://localhost:{port}"), under_another_name, with_one_more_certificate):
        use(project, cluster, change)
        seen = project.preview()
        assert seen.changes <= {("update", "kubernetes cluster")}, seen.output
        done = project.up()
        assert done.ok, done.output
        assert done.changes <= {("update", "kubernetes cluster")}, done.output
        assert uid(project) == before

    state = exported(project)
    use(project, cluster, at("https://127.0.0.1:1"))
    seen = project.preview()
    assert seen.ok, seen.output
    assert seen.object_changes == set()
    refused = project.up()
    assert not refused.ok
    assert "whether this is the cluster that the stack is deployed to could not be checked" in refused.output
    assert "Nothing was changed" in refused.output
    assert noise(refused.output) == []
    assert exported(project) == state

    use(project, another)
    own, other = project.outputs()["cluster"], kube_system(another)
    for run in (project.preview(), project.up()):
        assert not run.ok
        assert own["id"] in run.output
        assert other in run.output
        assert f"pulumi config set --path 'mern:cluster.movesFrom' {own['id']}" in run.output
        assert noise(run.output) == []
    assert exported(project) == state
    use(project, cluster)
    assert project.up().ok
    assert uid(project) == before


def kube_system(cluster: TestCluster) -> str:
    return str(cluster.client.get(Namespace, "kube-system").metadata.uid)


def names(cluster: TestCluster, project: Project) -> set[str]:
    return {item.metadata.name for item in cluster.client.list(Deployment, namespace=project.namespace)}


def test_a_stack_moves_to_another_cluster_goes_back_half_way_and_on(
    project: Project, another: TestCluster
) -> None:
    assert project.up().ok
    before, old = uid(project), project.cluster
    use(project, another)
    project.configure(cluster={"movesFrom": kube_system(old)})

    project.configure(values={"mernServer": {"nodeSelector": {"no": "node"}}}, release={"timeout": 4})
    failed = project.up()
    assert not failed.ok, failed.output
    assert uid(project) == before, "the old cluster serves"
    assert names(another, project) == set(), "Helm has removed what it made"

    use(project, old)
    project.configure(values={"mernServer": {"nodeSelector": None}}, release={"timeout": 30})
    back = project.up()
    assert back.ok, back.output
    assert uid(project) == before, "nothing that runs was touched"

    use(project, another)
    moved = project.up()
    assert moved.ok, moved.output
    assert "mern-server" in names(another, project)
    assert names(old, project) == set()
    again = project.preview()
    assert again.changes == set(), again.output
    assert project.outputs()["cluster"]["id"] == kube_system(another)
    project.configure(cluster={"movesFrom": None})
    assert project.preview().changes == set()

    [gone] = [item["urn"] for item in project.state() if item["type"] == "pulumi:providers:kubernetes"]
    another.control_plane.stop()  # and back from a cluster that is no more
    project.configure(cluster={"movesFrom": project.outputs()["cluster"]["id"]})
    use(project, old)
    served = project.up()
    assert not served.ok, "what ran there cannot be deleted"
    assert "mern-server" in names(old, project)
    forget = ("state", "delete", "--yes", "--target-dependents", "--stack", project.stack)
    ENGINE.pulumi(*forget, gone, cwd=project.folder)
    forgotten = project.up()
    assert forgotten.ok, forgotten.output
    assert project.preview().changes == set()


def exported(project: Project) -> dict[str, Any]:
    """The resources as the engine exports them, but for the times at which it wrote them."""
    command = ("stack", "export", "--show-secrets", "--stack", project.stack)
    resources = json.loads(ENGINE.pulumi(*command, cwd=project.folder))["deployment"]["resources"]
    return {item["urn"]: {key: item[key] for key in item if key != "modified"} for item in resources}
