"""A release that plain Helm has made, with credentials on its command line, is taken over."""

import base64
import shutil
import subprocess
from urllib.parse import quote

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod, Secret

from sandbox.engine import PROJECT
from tests.engine.conftest import Project

OLD_PASSWORD = "p&ssw<rd-of-old"
OLD = {
    "mernServer.mongodbUri": f"mongodb://app:{quote(OLD_PASSWORD)}@mongo.example/mern",
    "pythonScript.mongodbUri": f"mongodb://app:{quote(OLD_PASSWORD)}@mongo.example/mern",
    "pythonScript.awsAccessKeyId": "OLDKEYID0123",
    "pythonScript.awsSecretAccessKey": "old/secret+access+key",
    "legacy.password": "legacy-pass-word",
}
HIDDEN = {
    form for text in OLD.values() for form in (text, base64.b64encode(text.encode()).decode(), quote(text))
}
HIDDEN |= {OLD_PASSWORD, quote(OLD_PASSWORD)}

LEGACY = """apiVersion: v1
kind: ConfigMap
metadata: {name: legacy}
data: {password: {{ .Values.legacy.password }}}
"""
KEPT = """apiVersion: v1
kind: ConfigMap
metadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}
"""


@pytest.fixture
def old_way(project: Project, helm: str) -> Project:
    chart = project.folder / "old/chart"
    shutil.copytree(PROJECT / "chart", chart)
    (chart / "values.schema.json").unlink()
    (chart / "templates/legacy.yaml").write_text(LEGACY)
    deploy_the_old_way(project, helm)
    return project


def deploy_the_old_way(project: Project, helm: str) -> None:
    """`helm upgrade --install … --set …` of an older chart."""
    chart = project.folder / "old/chart"
    command = [helm, "upgrade", "--install", "mern", str(chart), "--create-namespace"]
    command += ["--namespace", project.namespace, "--wait", "--set", "mernClient.replicas=3"]
    for key, value in (OLD | {"mernServer.image.tag": "0.9"}).items():
        command += ["--set-string", f"{key}={value}"]
    command += ["--set", "ingress.zeroDowntime.enabled=false"]
    subprocess.run(command, env=project.cluster.env, check=True, capture_output=True)


def pods(project: Project, part: str) -> set[str]:
    return {p.metadata.uid for p in project.list(Pod) if p.metadata.name.startswith(f"mern-{part}-")}


def hidden_in(text: str) -> list[str]:
    return [secret for secret in HIDDEN if secret in text]


def test_without_being_asked_nothing_is_taken_over(old_way: Project) -> None:
    seen = old_way.preview()

    assert not seen.ok
    assert "release mern in namespace" in seen.output
    assert "Take it over by" in seen.output
    assert f"pulumi config set --path 'mern:release.adopt' true --stack {old_way.stack}" in seen.output
    assert hidden_in(seen.output + seen.events) == []


def test_a_release_of_plain_helm_is_compared_taken_over_and_upgraded(old_way: Project, helm: str) -> None:
    project = old_way
    (project.folder / "old/chart/templates/kept.yaml").write_text(KEPT)
    deploy_the_old_way(project, helm)
    project.configure(release={"adopt": True}, values={"mernClient": {"replicas": 3}}, imageTag=None)
    client, deployment = pods(project, "client"), project.get(Deployment, "mern-client").metadata.uid

    seen = project.preview(diff=True)

    assert seen.ok, seen.output
    for text in (
        "takes over revision 2 of ",
        "deleted: ConfigMap legacy",
        "left behind, by its own annotation: ConfigMap kept",
        "changed: Secret mern-server: data.MONGODB_URI",
        "values given there and not by this stack: legacy.password",
    ):
        assert text in seen.output, seen.output

    done = project.up(diff=True)

    assert done.ok, done.output
    assert pods(project, "client") == client
    assert project.get(Deployment, "mern-client").metadata.uid == deployment
    assert project.get(Deployment, "mern-server").spec.template.spec.containers[0].image == "mern-server:0.9"
    assert {item.metadata.name for item in project.list(ConfigMap)} >= {"kept"}
    assert "legacy" not in {item.metadata.name for item in project.list(ConfigMap)}
    assert "kubernetes:core/v1:Namespace" in project.registered()
    again = project.up()
    assert again.changes == set()
    project.configure(release={"adopt": None})
    assert project.up().changes == set()
    for text in (seen.output, seen.events, done.output, done.events, again.output, project.raw_state()):
        assert hidden_in(text) == []


def test_the_revision_that_was_taken_over_can_be_gone_back_to(old_way: Project, helm: str) -> None:
    project = old_way
    project.configure(release={"adopt": True})
    assert project.up().ok
    command = [helm, "rollback", "mern", "1", "--namespace", project.namespace, "--wait"]
    went = subprocess.run(command, env=project.cluster.env, check=False, capture_output=True, text=True)
    assert went.returncode == 0, went.stderr

    data = project.get(Secret, "mern-server").data
    assert base64.b64decode(data["MONGODB_URI"]).decode() == OLD["mernServer.mongodbUri"]


def test_a_take_over_that_fails_leaves_the_old_release_serving_and_goes_on_later(old_way: Project) -> None:
    project = old_way
    before = pods(project, "server")
    project.configure(
        release={"adopt": True, "timeout": 5}, values={"mernServer": {"nodeSelector": {"no": "node"}}}
    )

    failed = project.up()

    assert not failed.ok
    assert pods(project, "server") >= before
    assert hidden_in(failed.output + failed.events + project.raw_state()) == []
    project.configure(release={"timeout": 30}, values={"mernServer": {"nodeSelector": None}})
    done = project.up()
    assert done.ok, done.output
    assert project.up().changes == set()


def lose_the_state(project: Project) -> None:
    stack = project.open()
    state = stack.export_stack()
    state.deployment["resources"] = []
    stack.import_stack(state)


def test_a_stack_whose_state_was_lost_takes_its_own_release_over(project: Project) -> None:
    assert project.up().ok
    before = pods(project, "client") | pods(project, "server")
    lose_the_state(project)
    refused = project.preview()
    assert not refused.ok
    assert f"pulumi config set --path 'mern:release.adopt' true --stack {project.stack}" in refused.output
    project.configure(release={"adopt": True})

    seen = project.preview()
    first = project.up()
    second = project.up()

    assert "and the one after takes it over" in seen.output
    assert not first.ok
    assert "its revision 2 holds the objects of revision 1, without its values" in first.output
    assert second.ok, second.output
    assert "takes over revision 2" in second.output
    assert pods(project, "client") | pods(project, "server") == before
    assert "kubernetes:core/v1:Namespace" in project.registered()
    assert project.up().changes == set()
    shown = "".join(run.output + run.events for run in (refused, seen, first, second)) + project.raw_state()
    for secret in project.secrets.values():
        assert secret not in shown
        assert base64.b64encode(secret.encode()).decode() not in shown


def test_a_release_whose_newest_revision_failed_is_taken_over_too(old_way: Project, helm: str) -> None:
    project = old_way
    before, deployment = pods(project, "client"), project.get(Deployment, "mern-client").metadata.uid
    chart = str(project.folder / "old/chart")
    command = [helm, "upgrade", "mern", chart, "--namespace", project.namespace, "--reuse-values"]
    command += ["--wait", "--timeout", "2s", "--set", "mernClient.resources.limits.cpu=999"]
    command += ["--set", "mernClient.resources.requests.cpu=999"]
    assert subprocess.run(command, env=project.cluster.env, check=False, capture_output=True).returncode
    project.configure(release={"adopt": True})

    first = project.up()
    second = project.up()

    assert "its revision 3 holds the objects of revision 1" in first.output, first.output
    assert second.ok, second.output
    assert project.get(Deployment, "mern-client").metadata.uid == deployment
    assert pods(project, "client") & before
    assert hidden_in(first.output + second.output + second.events + project.raw_state()) == []
    assert project.up().changes == set()
