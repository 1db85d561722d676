"""Deployments that wait, fail or are killed, on the real engine: what a user reads, and that it mends."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod

from components.release import ReleaseError, plan
from components.release.hooks import REPORT_VARIABLE
from tests.conftest import TestCluster
from tests.engine.conftest import Project
from tests.engine.faults import (
    CRASHED,
    FITTING,
    NOWHERE,
    RUNNING,
    TOO_BIG,
    api_of,
    killed_up,
    kubelet,
    noise,
    progress,
    status,
    unlock,
    until,
    waiting,
)
from tests.remedies import commands_in


def make_namespace(project: Project) -> None:
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    project.configure(namespace={"mode": "existing"})


def helm(project: Project, *arguments: str) -> int:
    command = ["helm", *arguments, "--namespace", project.namespace]
    return subprocess.run(command, env=project.cluster.env, check=False, capture_output=True).returncode


def test_a_first_installation_that_fails_leaves_nothing_and_one_that_is_killed_is_mended(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPORT_VARIABLE, str(tmp_path / "report"))
    make_namespace(project)
    values = yaml.safe_load(project.config_file.read_text())["config"]["mern:values"]
    project.configure(
        release={"timeout": 5},
        values={"mernClient": {"replicas": 3, **NOWHERE}, "mernServer": {"replicas": 3, **NOWHERE}},
    )
    uri = project.secrets["mern:mongodbUri"]
    with kubelet(
        project,
        client=[
            (waiting("ImagePullBackOff", "Back-off"), "Failed", "Failed to pull image: 2: not found"),
            (waiting("CreateContainerConfigError", "container has runAsNonRoot and image is root"), "", ""),
            (CRASHED, "BackOff", "Back-off restarting failed container"),
        ],
        server=[
            (RUNNING, "Unhealthy", f"Startup probe failed: cannot reach {uri}"),
            (RUNNING, "", ""),
            (waiting("ContainerCreating", ""), "FailedMount", 'secret "tls" not found'),
        ],
    ):
        failed = project.up()
    assert not failed.ok
    for text in (
        "Deployment mern-client: 0 of 3 ready",
        "1 pod cannot pull the image: ImagePullBackOff example.com/it:2; Failed: Failed to pull image: 2: no",
        "1 pod cannot start the container: CreateContainerConfigError of client; container has runAsNonRoot",
        "the image runs as root",
        "1 pod crashing: container client ended with exit code 137, restarted 3 times; OOMKilled",
        "Deployment mern-server: 0 of 3 ready",
        "1 pod failing the probe: Unhealthy: Startup probe failed: cannot reach [secret]",
        "1 pod not ready yet",
        '1 pod starting: FailedMount: secret "tls" not found',
        "Now serving: nothing; Helm has removed what this first installation had made.",
        f"Next: mend the cause and run `pulumi up --stack {project.stack}` again; there is nothing to",
    ):
        assert text in failed.output, failed.output
    report = (tmp_path / "report").read_text()
    assert report.startswith(f"release mern in namespace {project.namespace} was not deployed")
    assert all(line.strip() in failed.output for line in report.splitlines())
    assert noise(failed.output + report) == []
    assert uri not in failed.output + report
    assert progress(failed.output)[-1] == "not ready in time: Helm removes what it installed" or (
        "waiting for mern-client 0/3 ready" in progress(failed.output)[-1]  # that was quick
    )
    assert project.list(Deployment) == [], "what Helm has removed"
    assert status(project) == "", "what Helm has recorded"

    project.configure(values=None)
    project.configure(values=values, release={"timeout": 30})
    project.configure(values={"mernServer": TOO_BIG})
    killed_up(project, "1 pending-install")
    unlock(project, 1)
    project.configure(values={"mernServer": FITTING})
    mended = project.up()
    assert mended.ok, mended.output
    assert status(project) == "2 deployed"
    # The engine warns of the create that it saw no end of, until it is told to forget it.
    assert "1 pending operations" in mended.output
    [command] = {it for it in commands_in(mended.output) if it.startswith("pulumi refresh ")}
    project.paste(command)
    assert "pending_operations" not in json.loads(project.raw_state())["checkpoint"]["latest"]
    again = project.preview()
    assert again.changes == set(), again.output
    assert "pending" not in again.output


def test_a_release_of_somebody_else_under_that_name_is_left_alone(project: Project) -> None:
    make_namespace(project)
    values = project.folder / "values.yaml"
    uri = "mongodb://somebody.invalid/else"
    values.write_text(
        yaml.safe_dump({"mernServer": {"mongodbUri": uri}, "pythonScript": {"mongodbUri": uri}})
    )
    given = ("mern", str(project.folder / "chart"), "--values", str(values))
    assert helm(project, "install", *given) == 0
    # Over a failed revision Helm itself would install.
    more = ("--set", "mernServer.nodeSelector.no=node", "--wait", "--timeout", "1s")
    assert helm(project, "upgrade", *given, *more) != 0
    assert status(project) == "2 failed"
    run = project.up()
    assert not run.ok
    assert f"release mern in namespace {project.namespace} exists already: revision 1" in run.output
    _, uninstall = commands_in(run.output)
    assert uninstall == f"helm uninstall mern -n {project.namespace}"
    assert noise(run.output) == []
    assert "somebody.invalid" not in run.output
    assert status(project) == "2 failed"
    assert "kubernetes:helm.sh/v3:Release" not in project.registered(), "a destroy would delete it"

    project.paste(uninstall)
    again = project.up()
    assert again.ok, again.output


def test_a_namespace_that_is_being_deleted_is_refused_with_what_holds_it(cluster: TestCluster) -> None:
    name, client, api = "being-deleted", cluster.client, api_of(cluster)
    client.create(Namespace.from_dict({"metadata": {"name": name}}))
    meta = {"name": "held", "finalizers": ["example.org/hold"]}
    client.create(ConfigMap.from_dict({"metadata": meta}), namespace=name)
    client.delete(Namespace, name)
    try:
        until(lambda: "remaining" in str(client.get(Namespace, name).status))
        with pytest.raises(ReleaseError, match=f"namespace {name} is being deleted since") as refused:
            plan._require_living_namespace(name, lambda: api.find(f"/api/v1/namespaces/{name}"))
        assert "example.org/hold in 1 resource instances" in str(refused.value)
    finally:
        client.patch(ConfigMap, "held", {"metadata": {"finalizers": None}}, namespace=name)


AUTOSCALED = {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}} | FITTING


def pods_of_server(project: Project) -> set[str]:
    pods = project.list(Pod)
    return {p.metadata.uid for p in pods if p.metadata.name.startswith("mern-server-")}


def test_an_autoscaler_takes_over_the_pods_that_run_also_after_a_deployment_that_failed(
    project: Project,
) -> None:
    project.configure(values={"mernServer": {"replicas": 3} | FITTING})
    assert project.up().ok
    before = pods_of_server(project)
    assert len(before) == 3

    project.configure(values={"mernServer": AUTOSCALED | NOWHERE}, release={"timeout": 4})
    seen = project.preview()
    said = "Deployment mern-server no longer says how many pods it has: the number that runs is kept"
    assert said in seen.output
    assert ("create", "HorizontalPodAutoscaler mern-server") in seen.object_changes

    failed = project.up()
    assert not failed.ok
    assert pods_of_server(project) == before, "after a failure all pods serve"
    assert status(project) == "3 deployed"

    project.configure(values={"mernServer": {"nodeSelector": None}}, release={"timeout": 30})
    done = project.up()
    assert done.ok, done.output
    assert pods_of_server(project) == before, "the number that runs is kept"
    assert project.get(Deployment, "mern-server").spec.replicas == 3

    again = project.preview()
    assert again.changes == set(), again.output
    assert said not in again.output
