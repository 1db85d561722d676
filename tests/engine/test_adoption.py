"""A release that plain Helm has made, with credentials on its command line, is taken over."""

import base64
import json
import shutil
import subprocess
from urllib.parse import quote

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod, Secret

from sandbox.engine import PROJECT
from tests.engine.conftest import ENGINE, Project
from tests.engine.faults import until
from tests.engine.test_owners import shown

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
def project(project: Project) -> Project:
    """With an older chart beside the project's own."""
    chart = project.folder / "old/chart"
    shutil.copytree(PROJECT / "chart", chart)
    (chart / "values.schema.json").unlink()
    (chart / "templates/legacy.yaml").write_text(LEGACY)
    return project


def deploy_the_old_way(project: Project, helm: str) -> None:
    """`helm upgrade --install … --set …` of the older chart."""
    chart = project.folder / "old/chart"
    command = [helm, "upgrade", "--install", "mern", str(chart), "--create-namespace"]
    command += ["--namespace", project.namespace, "--wait", "--set", "mernClient.replicas=3"]
    for key, value in (OLD | {"mernServer.image.tag": "0.9"}).items():
        command += ["--set-string", f"{key}={value}"]
    command += ["--set", "ingress.zeroDowntime.enabled=false"]
    subprocess.run(command, env=project.cluster.env, check=True, capture_output=True)


def pods(project: Project, part: str) -> set[str]:
    return {
        pod.metadata.uid
        for pod in project.list(Pod)
        if pod.metadata.name.startswith(f"mern-{part}-") and not pod.metadata.deletionTimestamp
    }


def hidden_in(text: str) -> list[str]:
    return [secret for secret in HIDDEN if secret in text]


def test_a_release_is_taken_over_from_plain_helm_and_once_more_after_the_state_was_lost(
    project: Project, helm: str
) -> None:
    (project.folder / "old/chart/templates/kept.yaml").write_text(KEPT)
    deploy_the_old_way(project, helm)
    refuse_without_being_asked(project)
    show_what_a_take_over_changes(project)
    leave_the_release_alone_unless_it_is_deployed(project)
    take_over_and_upgrade(project)
    lose_the_state(project)
    take_over_what_was_its_own(project)
    go_back_to_the_revision_that_was_taken_over(project, helm)


def refuse_without_being_asked(project: Project) -> None:
    run = project.up()
    assert not run.ok
    shown("foreign release", project, run)
    assert "Take it over, with its namespace, by" in run.output
    assert "kubernetes:core/v1:Namespace" not in project.registered(), "a destroy would delete it"
    adopt = f"pulumi config set --path 'mern:release.adopt' true --stack {project.stack}"
    assert adopt in run.output
    project.paste(adopt)
    assert hidden_in(run.output + run.events) == []


def show_what_a_take_over_changes(project: Project) -> None:
    project.configure(values={"mernClient": {"replicas": 3}}, imageTag=None)
    run = project.preview("--diff")
    assert run.ok, run.output
    for text in (
        "takes over revision 1 of ",
        "deleted: ConfigMap legacy",
        "left behind, by its own annotation: ConfigMap kept",
        "changed: Secret mern-server: data.MONGODB_URI",
        "values given there and not by this stack: legacy.password",
    ):
        assert text in run.output, run.output
    assert hidden_in(run.output + run.events) == []


def leave_the_release_alone_unless_it_is_deployed(project: Project) -> None:
    """What runs the program without deploying writes nothing to Helm's record."""
    before = records(project)
    for run in (
        project.destroy("--run-program"),
        project.refresh("--run-program"),
        project.preview("--refresh"),
    ):
        assert run.ok, run.output
        assert records(project) == before
        assert hidden_in(run.output + run.events + project.raw_state()) == []


def records(project: Project) -> list[tuple[str, str]]:
    """Name and version of each Secret in which Helm keeps a revision."""
    return [
        (item.metadata.name, item.metadata.resourceVersion)
        for item in project.list(Secret)
        if item.type == "helm.sh/release.v1"
    ]


def take_over_and_upgrade(project: Project) -> None:
    client, deployment = pods(project, "client"), project.get(Deployment, "mern-client").metadata.uid
    run = project.up("--diff")
    assert run.ok, run.output
    assert pods(project, "client") == client
    assert project.get(Deployment, "mern-client").metadata.uid == deployment
    assert project.get(Deployment, "mern-server").spec.template.spec.containers[0].image == "mern-server:0.9"
    assert "kubernetes:core/v1:Namespace" in project.registered()
    names = {item.metadata.name for item in project.list(ConfigMap)}
    assert "kept" in names
    assert "legacy" not in names
    again = project.preview()
    assert (again.ok, again.changes) == (True, set()), again.output
    for text in (run.output, run.events, again.output, project.raw_state()):
        assert hidden_in(text) == []


def lose_the_state(project: Project) -> None:
    state = json.loads(ENGINE.pulumi("stack", "export", "--stack", project.stack, cwd=project.folder))
    state["deployment"]["resources"] = []
    given = json.dumps(state)
    ENGINE.pulumi("stack", "import", "--stack", project.stack, cwd=project.folder, given=given)


def take_over_what_was_its_own(project: Project) -> None:
    """In one step: that Helm has it and the state has not is known before anything is registered."""
    until(lambda: (len(pods(project, "client")), len(pods(project, "server"))) == (3, 2))
    before = pods(project, "client") | pods(project, "server")
    seen = project.preview()
    assert "takes over revision 3" in seen.output
    assert f"namespace {project.namespace} becomes this stack's" in seen.output

    done = project.up()
    assert done.ok, done.output
    assert "takes over revision 3" in done.output
    assert pods(project, "client") | pods(project, "server") == before
    assert "kubernetes:core/v1:Namespace" in project.registered()
    project.configure(release={"adopt": False})
    again = project.preview()
    assert (again.ok, again.changes) == (True, set()), again.output
    shown = "".join(run.output + run.events for run in (seen, done, again)) + project.raw_state()
    assert hidden_in(shown) == []
    for secret in project.secrets.values():
        assert secret not in shown
        assert base64.b64encode(secret.encode()).decode() not in shown


def go_back_to_the_revision_that_was_taken_over(project: Project, helm: str) -> None:
    command = [helm, "rollback", "mern", "1", "--namespace", project.namespace]
    went = subprocess.run(command, env=project.cluster.env, check=False, capture_output=True, text=True)
    assert went.returncode == 0, went.stderr
    data = project.get(Secret, "mern-server").data
    assert base64.b64decode(data["MONGODB_URI"]).decode() == OLD["mernServer.mongodbUri"]


def test_over_a_failed_revision_and_with_a_failure_of_its_own_a_take_over_goes_on_and_the_old_pods_serve(
    project: Project, helm: str
) -> None:
    deploy_the_old_way(project, helm)
    client, server = pods(project, "client"), pods(project, "server")
    deployment = project.get(Deployment, "mern-client").metadata.uid
    command = [helm, "upgrade", "mern", str(project.folder / "old/chart"), "--namespace", project.namespace]
    command += ["--reuse-values", "--wait", "--timeout", "1s", "--set", "mernServer.nodeSelector.no=node"]
    assert subprocess.run(command, env=project.cluster.env, check=False, capture_output=True).returncode
    nowhere = {"nodeSelector": {"no": "node"}}
    project.configure(release={"adopt": True, "timeout": 5}, values={"mernServer": nowhere})

    failed = project.up()
    assert not failed.ok
    assert "takes over revision 1" in failed.output, failed.output
    assert pods(project, "server") >= server, "the old pods no longer serve"
    project.configure(release={"timeout": 30}, values={"mernServer": {"nodeSelector": None}})
    done = project.up()
    assert done.ok, done.output
    assert project.get(Deployment, "mern-client").metadata.uid == deployment
    assert pods(project, "client") & client
    again = project.preview()
    assert (again.ok, again.changes) == (True, set()), again.output
    shown = "".join(run.output + run.events for run in (failed, done, again))
    assert hidden_in(shown + project.raw_state()) == []
