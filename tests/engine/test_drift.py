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
    fitting = {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5}} | fitting
    project.configure(
        values={"mernClient": scaled}, release={"leave": ["Service/mern-server:metadata.labels.*"]}
    )
    assert project.up().ok
    before = env(project)
    change_what_others_may(project)
    change_what_only_the_chart_may(project)

    seen = project.preview()

    found = drift(seen.output)
    label = r"app\.kubernetes\.io/part-of"
    variables = r"spec\.template\.spec\.containers\[server\]\.env"
    who = r" \(by kubectl-edit, \d{4}-\d\d-\d\d \d\d:\d\d UTC\)"
    expected = [
        rf"Deployment mern-client: spec\.strategy\.rollingUpdate\.maxSurge is 2, not 25%{who}",
        r"Deployment mern-server: spec\.replicas is 3, not 2 \(by kubectl(, .* UTC)?\)",
        rf"Deployment mern-server: {variables}.* is .*DEBUG.*\[value\].*, not .*",
        r"PodDisruptionBudget mern-client is missing: it was deleted by hand",
        r"Secret mern-server: data\.MONGODB_URI is \[secret\], not \[secret\]" + who,
        rf"Service mern-client: metadata\.labels\.{label} is x, not .*",
    ]
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert URI not in seen.output
    assert "mongodb://by-hand" not in seen.output
    assert (seen.ok, seen.changes) == (True, set()), seen.output

    project.configure(release={"drift": "restore"})
    done = project.up("--diff")

    assert done.ok, done.output
    assert "description" in done.output
    assert drift(done.output) == found
    assert project.get(Deployment, "mern-client").spec.strategy.rollingUpdate.maxSurge == "25%"
    assert project.get(Deployment, "mern-server").spec.replicas == 2
    assert env(project) == before
    assert project.get(PodDisruptionBudget, "mern-client")
    assert "mongodb://by-hand" not in str(project.get(Secret, "mern-server").data)
    again = project.up()
    assert (again.ok, again.changes) == (True, set()), again.output
    assert drift(again.output) == []


def change_what_others_may(project: Project) -> None:
    """What an autoscaler owns, what the chart does not set, and what the stack leaves to others."""
    by_hand(project, Deployment, "mern-client", {"spec": {"replicas": 4, "minReadySeconds": 1}})
    by_hand(project, Deployment, "mern-client", {"metadata": {"annotations": {"team": "web"}}})
    by_hand(project, Service, "mern-server", {"metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}})


def change_what_only_the_chart_may(project: Project) -> None:
    by_hand(project, Deployment, "mern-client", {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 2}}}})
    scale = {"spec": {"replicas": 3}}  # as `kubectl scale` does
    client = project.cluster.client
    client.patch(Deployment.Scale, "mern-server", scale, namespace=project.namespace, field_manager="kubectl")
    by_hand(project, Deployment, "mern-server", container(env=[{"name": "DEBUG", "value": URI}]))
    by_hand(project, Service, "mern-client", {"metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}})
    by_hand(project, Secret, "mern-server", {"stringData": {"MONGODB_URI": "mongodb://by-hand"}})
    project.cluster.client.delete(PodDisruptionBudget, "mern-client", namespace=project.namespace)
