"""Deployments that wait, fail or are killed, on the real engine: what a user reads, and that it mends."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod, ResourceQuota

from tests.engine.conftest import Project
from tests.engine.faults import (
    CRASHED,
    FITTING,
    NOWHERE,
    RUNNING,
    TOO_BIG,
    killed_up,
    kubelet,
    status,
    unlock,
    until,
    waiting,
)


def make_namespace(project: Project, **labels: str) -> None:
    meta = {"name": project.namespace, "labels": labels}
    project.cluster.client.create(Namespace.from_dict({"metadata": meta}))
    project.configure(namespace={"mode": "existing"})


def helm(project: Project, *arguments: str) -> int:
    command = ["helm", *arguments, "--namespace", project.namespace]
    return subprocess.run(command, env=project.cluster.env, check=False, capture_output=True).returncode


def progress(output: str) -> list[str]:
    """What the engine showed while Helm was at work, without the row it stands in."""
    return re.findall(r"(?:waiting for|not ready in time).*", output)


# -- progress and failure reports -----------------------------------------------------------------


def test_a_failed_first_installation_names_every_cause_and_leaves_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE_REPORT_FILE", str(tmp_path / "report"))
    make_namespace(project)
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
        run = project.up()
    assert not run.ok
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
        "Next: mend the cause and run `pulumi up` again; there is nothing to clean up.",
    ):
        assert text in run.output
    report = (tmp_path / "report").read_text()
    assert report.startswith(f"release mern in namespace {project.namespace} was not deployed")
    assert all(line.strip() in run.output for line in report.splitlines())
    assert uri not in run.output + report
    assert progress(run.output)[-1] == "not ready in time: Helm removes what it installed" or (
        "waiting for mern-client 0/3 ready" in progress(run.output)[-1]  # that was quick
    )
    assert project.list(Deployment) == []
    assert status(project) == ""

    project.configure(values=None)
    project.configure(values={"ingress": {"zeroDowntime": {"enabled": False}}})
    project.configure(release={"timeout": 30})
    run = project.up()
    assert run.ok, run.output


def test_a_failed_upgrade_shows_what_it_waits_for_and_says_what_serves(project: Project) -> None:
    assert project.up().ok
    memory = {"requests.memory": "1100Mi"}  # 2 x 128 + 2 x 256 are used, and 128 are needed for a client
    quota = ResourceQuota.from_dict({"metadata": {"name": "memory"}, "spec": {"hard": memory}})
    project.cluster.client.create(quota, namespace=project.namespace)
    project.configure(
        release={"timeout": 5},
        values={
            "mernClient": {"replicas": 3, **TOO_BIG},
            "mernServer": {"resources": {"requests": {"memory": "512Mi"}}},
        },
    )
    run = project.up()
    assert not run.ok
    shown = progress(run.output)
    assert any("mern-client 0/3 ready, 1 pod cannot be scheduled" in line for line in shown)
    assert any("mern-server 0/2 ready, pods are refused" in line for line in shown)
    assert all(one != other for one, other in pairwise(shown)), shown
    for text in (
        "Deployment mern-client: 0 of 3 ready",
        "1 pod cannot be scheduled: 0/2 nodes are available: 2 Insufficient cpu.",
        "[pod mern-client-",
        "Deployment mern-server: 0 of 2 ready",
        "pods are refused: pods",
        "exceeded quota: memory, requested: requests.memory=512Mi",
        "Now serving: revision 3 (Rollback to 1) of ",
        "mern-client 2/2 ready, mern-server 2/2 ready.",
        "Next: mend the cause and run `pulumi up` again",
    ):
        assert text in run.output
    assert "Traceback" not in run.output

    project.cluster.client.delete(ResourceQuota, "memory", namespace=project.namespace)
    project.configure(release={"timeout": 30}, values={"mernClient": FITTING})
    run = project.up()
    assert run.ok, run.output
    assert "exceeded quota" not in run.output
    assert project.up().changes == set()


def test_a_run_after_the_deployment_that_fails_is_explained(project: Project) -> None:
    project.configure(
        release={"timeout": 8},
        values={"pythonScript": {"runAfterDeployment": True, "backoffLimit": 0, **NOWHERE}},
    )
    ended = {"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
    with kubelet(project, python_script_once=[(ended, "", "")]):
        run = project.up()
    assert not run.ok
    assert "waiting for mern-python-script-once 0/1 ready" in run.output
    assert "Job mern-python-script-once: 0 of 1 ready" in run.output
    assert "ended with exit code 3; Error" in run.output
    assert "Now serving: nothing" in run.output


# -- runs that were killed ------------------------------------------------------------------------


def test_a_first_installation_that_was_killed_is_mended_and_goes_on(project: Project) -> None:
    project.configure(values={"mernServer": TOO_BIG})
    killed_up(project, "1 pending-install")
    refused = project.up()
    assert not refused.ok
    assert "revision 1 of release mern has been pending-install" in refused.output
    assert status(project) == "1 pending-install"
    unlock(project, 1)
    project.configure(values={"mernServer": FITTING})
    run = project.up()
    assert run.ok, run.output
    assert status(project) == "2 deployed"
    # The engine warns of the create that it saw no end of, until it is told to forget it.
    assert "1 pending operations" in run.output
    assert "`pulumi refresh --clear-pending-creates`" in run.output
    project.open().refresh(clear_pending_creates=True)
    again = project.up()
    assert again.ok, again.output
    assert again.changes == set()
    assert "pending" not in again.output


# -- what others did ------------------------------------------------------------------------------


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
    before = status(project)
    assert before == "2 failed"
    for run in (project.preview(), project.up()):
        assert not run.ok
        assert f"release mern in namespace {project.namespace} exists already: revision 1" in run.output
        assert f"helm uninstall mern -n {project.namespace}" in run.output
        assert "Traceback" not in run.output
        assert "somebody.invalid" not in run.output
    assert status(project) == before
    assert project.destroy().ok


def test_a_release_that_was_uninstalled_by_hand_is_missed_and_installed_after_a_refresh(
    project: Project,
) -> None:
    assert project.up().ok
    assert helm(project, "uninstall", "mern") == 0
    for run in (project.preview(), project.up()):
        assert not run.ok
        assert "is gone: it was uninstalled outside this stack. `pulumi refresh` takes note" in run.output
        assert "Traceback" not in run.output
    assert project.refresh().ok
    run = project.up()
    assert run.ok, run.output
    assert project.get(Deployment, "mern-server").status.availableReplicas == 2
    assert project.up().changes == set()


def test_a_namespace_that_is_being_deleted_is_refused_with_what_holds_it(project: Project) -> None:
    make_namespace(project)
    client = project.cluster.client
    meta = {"name": "held", "finalizers": ["example.org/hold"]}
    client.create(ConfigMap.from_dict({"metadata": meta}), namespace=project.namespace)
    client.delete(Namespace, project.namespace)
    try:
        until(lambda: "remaining" in str(client.get(Namespace, project.namespace).status))
        run = project.preview()
        assert not run.ok
        assert f"namespace {project.namespace} is being deleted since" in run.output
        assert "example.org/hold in 1 resource instances" in run.output
        assert "Traceback" not in run.output
    finally:
        client.patch(ConfigMap, "held", {"metadata": {"finalizers": None}}, namespace=project.namespace)


# -- an autoscaler takes over ---------------------------------------------------------------------

AUTOSCALED = {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}} | FITTING


def pods_of_server(project: Project) -> set[str]:
    pods = project.list(Pod)
    return {p.metadata.uid for p in pods if p.metadata.name.startswith("mern-server-")}


def test_an_autoscaler_switched_on_takes_over_the_pods_that_run(project: Project) -> None:
    project.configure(values={"mernServer": {"replicas": 3} | FITTING})
    assert project.up().ok
    before = pods_of_server(project)
    project.configure(values={"mernServer": AUTOSCALED})

    seen = project.preview()
    done = project.up()

    said = "Deployment mern-server no longer says how many pods it has: the number that runs is kept"
    assert said in seen.output
    assert ("create", "HorizontalPodAutoscaler mern-server") in seen.object_changes
    assert done.ok, done.output
    assert len(before) == 3
    assert pods_of_server(project) == before
    assert project.get(Deployment, "mern-server").spec.replicas == 3
    again = project.up()
    assert again.changes == set()
    assert said not in again.output


def test_a_failure_to_hand_over_to_an_autoscaler_leaves_all_pods_serving(project: Project) -> None:
    project.configure(values={"mernServer": {"replicas": 3} | FITTING})
    assert project.up().ok
    before = pods_of_server(project)
    project.configure(values={"mernServer": AUTOSCALED | NOWHERE}, release={"timeout": 5})

    assert not project.up().ok

    assert pods_of_server(project) == before
    assert status(project) == "3 deployed"
    project.configure(values={"mernServer": {"autoscaling": {"enabled": False}, "nodeSelector": None}})
    done = project.up()
    assert done.ok, done.output
    assert project.get(Deployment, "mern-server").spec.replicas == 3
