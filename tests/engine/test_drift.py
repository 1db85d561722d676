"""Objects changed by hand in the cluster: found field by field, and put back on request."""

import re
from typing import Any

from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret, Service
from lightkube.resources.policy_v1 import PodDisruptionBudget

from sandbox.engine import MADE_UP_SECRETS
from tests.engine.conftest import Project

URI = MADE_UP_SECRETS["mern:mongodbUri"]


def by_hand(project: Project, kind: Any, name: str, change: dict[str, Any]) -> None:
    """As `kubectl edit` does."""
    client = project.cluster.client
    client.patch(kind, name, change, namespace=project.namespace, field_manager="kubectl-edit")


def drift(output: str) -> list[str]:
    """Each once: the engine shows them as they come, and again at the end."""
    return sorted(set(re.findall(r"drift: (.*)", output)))


def container(**changes: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "server", **changes}]}}}}


def env(project: Project) -> set[str]:
    pod = project.get(Deployment, "mern-server").spec.template.spec
    return {each.name for each in pod.containers[0].env or []}


def test_what_was_changed_by_hand_is_named_field_by_field_and_put_back_on_request(project: Project) -> None:
    assert project.up().ok
    assert drift(project.preview().output) == []
    before = env(project)
    by_hand(project, Deployment, "mern-server", {"spec": {"replicas": 3}})
    by_hand(project, Deployment, "mern-server", container(env=[{"name": "DEBUG", "value": URI}]))
    by_hand(project, Service, "mern-client", {"metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}})
    by_hand(project, Secret, "mern-server", {"stringData": {"MONGODB_URI": "mongodb://by-hand"}})
    project.cluster.client.delete(PodDisruptionBudget, "mern-client", namespace=project.namespace)

    seen = project.preview()

    found = "\n".join(drift(seen.output))
    who = r" \(by kubectl-edit, \d{4}-\d\d-\d\d \d\d:\d\d UTC\)"
    assert re.search(r"^Deployment mern-server: spec.replicas is 3, not 2" + who, found, re.M), found
    where = r"spec\.template\.spec\.containers\[server\]\.env"
    assert re.search(rf"^Deployment mern-server: {where}.* is .*DEBUG.*\[value\].*, not ", found, re.M), found
    assert re.search(
        r"^Service mern-client: metadata.labels.app.kubernetes.io/part-of is x, not ", found, re.M
    )
    assert re.search(
        r"^Secret mern-server: data.MONGODB_URI is \[secret\], not \[secret\]" + who, found, re.M
    )
    assert "PodDisruptionBudget mern-client is missing: it was deleted by hand" in found
    assert URI not in seen.output
    assert "mongodb://by-hand" not in seen.output
    assert seen.changes == set()

    project.configure(release={"drift": "restore"})
    assert "description" in project.preview(diff=True).output
    done = project.up()

    assert done.ok, done.output
    assert project.get(Deployment, "mern-server").spec.replicas == 2
    assert env(project) == before
    assert project.get(PodDisruptionBudget, "mern-client")
    assert "mongodb://by-hand" not in str(project.get(Secret, "mern-server").data)
    again = project.up()
    assert again.changes == set()
    assert drift(again.output) == []


def test_what_others_own_is_no_drift(project: Project) -> None:
    fitting = {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}} | fitting
    project.configure(values={"mernServer": scaled}, release={"leave": ["Deployment/mern-client:spec.repl*"]})
    assert project.up().ok
    by_hand(project, Deployment, "mern-server", {"spec": {"replicas": 4}})
    by_hand(project, Deployment, "mern-client", {"spec": {"replicas": 3, "minReadySeconds": 1}})
    by_hand(project, Deployment, "mern-client", {"metadata": {"annotations": {"team": "web"}}})

    assert drift(project.preview().output) == []

    by_hand(project, Deployment, "mern-client", {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 2}}}})
    project.configure(release={"drift": "restore"})
    done = project.up()
    assert done.ok, done.output
    assert len(drift(done.output)) == 1
    strategy = project.get(Deployment, "mern-client").spec.strategy
    assert strategy.rollingUpdate.maxSurge == "25%"


def test_drift_is_not_looked_for_where_the_stack_does_not_want_it(project: Project) -> None:
    project.configure(release={"drift": "ignore"})
    assert project.up().ok
    by_hand(project, Deployment, "mern-client", {"spec": {"replicas": 3}})
    assert drift(project.preview().output) == []
