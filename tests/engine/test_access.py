"""Each command under the role that access/kubernetes.yaml gives it, on a real API server."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace, Secret, Service
from lightkube.resources.rbac_authorization_v1 import RoleBinding

from components.load_balancer_controller import CRDS, controllers
from components.release import crds
from components.release.kubernetes_api import Api, ApiError
from sandbox.engine import PROJECT
from tests.engine.conftest import Project, Run
from tests.engine.faults import FITTING, TOO_BIG, progress, status, until
from tests.engine.test_drift import by_hand

# Every kind that the chart has.
ALL_KINDS = {
    "mernClient": {"autoscaling": {"enabled": True, "minReplicas": 2}, "networkPolicy": {"enabled": True}},
    "mernServer": {"networkPolicy": {"enabled": True}},
    "pythonScript": {"networkPolicy": {"enabled": True}, "runAfterDeployment": True},
}
GATE = "elbv2.k8s.aws/pod-readiness-gate-inject"
ALARMS = (
    "forbidden",
    "not permitted",
    "not checked",
    "not compared",
    "could not be",
    "cannot be read",
    "Traceback",
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """The users of one project: ServiceAccounts, which Kubernetes puts into a group by their namespace."""

    project: Project
    admin: Api

    def config(self, who: str) -> dict[str, Any]:
        space = f"{self.project.namespace}-{who}"
        path = f"/api/v1/namespaces/{space}/serviceaccounts"
        token = self.admin.create(f"{path}/somebody/token", {"spec": {}})["status"]["token"]
        config: dict[str, Any] = yaml.safe_load(self.project.cluster.kubeconfig.read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        return config

    def api(self, who: str) -> Api:
        return Api(self.config(who))

    def become(self, who: str) -> None:
        """What follows is done by `who`."""
        file = self.project.folder / f"kubeconfig-{who}"
        file.write_text(yaml.safe_dump(self.config(who)))
        self.project.configure(cluster={"kubeconfig": str(file)})


@pytest.fixture
def access(project: Project) -> Iterator[Access]:
    """The manifest applied by an admin, and a user in each of its groups; `stranger` is in none."""
    namespace = project.namespace
    admin = Api(yaml.safe_load(project.cluster.kubeconfig.read_text()))
    # As the manifest itself says; the groups are those of ServiceAccounts, which any API server knows.
    replaced = subprocess.run(
        ["sed", "-e", f"s/mern-staging/{namespace}/", "-e", f"s/mern:/system:serviceaccounts:{namespace}-/"],
        input=(PROJECT / "access/kubernetes.yaml").read_text(),
        capture_output=True,
        check=True,
        text=True,
    )
    for item in yaml.safe_load_all(replaced.stdout):
        path = f"{admin.collection(item, '')}/{item['metadata']['name']}"
        admin.apply(path, item, fieldManager="admin")
    for who in ("deploy", "preview", "stranger"):
        space = f"{namespace}-{who}"
        admin.create("/api/v1/namespaces", {"metadata": {"name": space}})
        admin.create(f"/api/v1/namespaces/{space}/serviceaccounts", {"metadata": {"name": "somebody"}})
    project.configure(namespace={"mode": "existing"}, values=ALL_KINDS)
    access = Access(project=project, admin=admin)
    space = f"/api/v1/namespaces/{namespace}"
    preview = access.api("preview")
    until(lambda: refused(preview.merge_patch, space, {}))  # the policies are not in force at once
    yield access
    for who in ("deploy", "preview", "stranger"):
        project.cluster.client.delete(Namespace, f"{namespace}-{who}")


def refused(call: Callable[..., Any], *args: Any, **query: str) -> str:
    """The API server's words when it may not be done; empty where it may."""
    try:
        call(*args, **query)
    except ApiError as error:
        assert error.code == 403, error
        return str(error)
    return ""


def assert_quiet(run: Run) -> None:
    """Nothing was held back for want of a permission."""
    held_back = [line for line in run.output.splitlines() if any(alarm in line for alarm in ALARMS)]
    assert not held_back


def test_the_role_of_each_command(access: Access) -> None:
    project, path = access.project, f"/api/v1/namespaces/{access.project.namespace}"
    access.admin.merge_patch(path, {"metadata": {"labels": {"team": "platform"}}})
    access.become("deploy")
    run = project.up()
    assert run.ok, run.output
    assert_quiet(run)
    labels = access.admin.get(path)["metadata"]["labels"]
    assert (labels[GATE], labels["team"]) == ("enabled", "platform")

    access.become("preview")
    read = subprocess.run(
        [".venv/bin/python", "-m", "operations", "promote", project.stack],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no digest of that is reported" in read.stderr  # of what it has read
    assert not [alarm for alarm in ALARMS if alarm in read.stdout + read.stderr]
    by_hand(project, Service, "mern-client", {"metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}})
    project.configure(values={"mernServer": {"replicas": 3, **TOO_BIG}}, release={"timeout": 5})
    preview = project.preview("--refresh")
    assert preview.ok, preview.output
    assert preview.object_changes == {("update", "Deployment mern-server")}
    assert "Service mern-client: metadata.labels.app.kubernetes.io/part-of is x, not" in preview.output
    assert_quiet(preview)
    assert status(project) == "1 deployed"

    access.become("deploy")
    run = project.up()
    assert not run.ok
    assert any("mern-server 0/3 ready, 1 pod cannot be scheduled" in text for text in progress(run.output))
    for text in (
        "Deployment mern-server: 0 of 3 ready",
        "1 pod cannot be scheduled: 0/2 nodes are available: 2 Insufficient cpu",
        "Now serving: revision 3 (Rollback to 1)",
        "mern-server 2/2 ready",
    ):
        assert text in run.output
    assert_quiet(run)
    project.configure(values={"mernServer": FITTING}, release={"timeout": 30})
    run = project.up()
    assert run.ok, run.output
    assert_quiet(run)
    assert project.get(Deployment, "mern-server").status.availableReplicas == 3

    run = project.destroy()
    assert run.ok, run.output
    assert project.state() == []
    assert project.list(Deployment) == []
    left = access.admin.get(path)
    assert left["status"]["phase"] == "Active"
    assert GATE not in left["metadata"]["labels"]
    assert left["metadata"]["labels"]["team"] == "platform"


def test_without_a_role_each_thing_is_one_line(access: Access) -> None:
    project = access.project
    access.become("stranger")
    preview = project.preview()
    assert preview.ok, preview.output
    for text in (
        "what Helm has stored was not checked: secrets is forbidden",
        "objects: not permitted to ask (user system:serviceaccount:",
    ):
        assert text in preview.output
    assert "Traceback" not in preview.output
    run = project.up()
    assert not run.ok
    assert 'namespaces "kube-system" is forbidden' in run.output
    assert "Traceback" not in run.output
    assert project.list(Secret) == []


def test_what_the_groups_may_not_do(access: Access) -> None:
    space = f"/api/v1/namespaces/{access.project.namespace}"
    secret = {"metadata": {"name": "probe"}}
    preview, deploy = access.api("preview"), access.api("deploy")
    assert preview.create(f"{space}/secrets", secret, dryRun="All")["metadata"]["name"] == "probe"
    job = {"spec": {"containers": [{"name": "it", "image": "it"}], "restartPolicy": "Never"}}
    spec = {"schedule": "@daily", "timeZone": "Nowhere", "jobTemplate": {"spec": {"template": job}}}
    cron_jobs = space.replace("/api/v1", "/apis/batch/v1") + "/cronjobs"
    with pytest.raises(ApiError, match="unknown time zone Nowhere"):  # it hears what is wrong
        preview.create(cron_jobs, {**secret, "spec": spec}, dryRun="All")
    assert "may only try" in refused(preview.create, f"{space}/secrets", secret)
    assert "may only try" in refused(preview.merge_patch, space, {"metadata": {"labels": {"a": "b"}}})
    assert refused(preview.get, f"{space}/pods/any/log")
    # Even tried, it would be a token.
    assert refused(preview.create, f"{space}/serviceaccounts/default/token", {}, dryRun="All")
    # Also where somebody else grants the group more.
    access.project.cluster.client.create(RoleBinding.from_dict(admins(access, "preview")))
    until(lambda: "may only try" in refused(preview.create, f"{space}/configmaps", secret))
    question = {"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets"}}}
    assert "status" in preview.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", question)
    with pytest.raises(ApiError, match="not found"):  # the log of a container that crashed
        deploy.get(f"{space}/pods/any/log")
    assert refused(deploy.create, f"{space}/pods/any/exec", {}, command="id")
    assert refused(deploy.create, f"{space}/configmaps", secret)
    for api in (preview, deploy):
        # What is looked at before a deployment.
        assert not refused(controllers, api)
        with pytest.raises(ApiError, match="not found"):
            api.get("/apis/networking.k8s.io/v1/ingressclasses/alb")
        with pytest.raises(ApiError, match="not found"):
            api.get(crds.path_of(CRDS[0]))
        # What is nobody's business.
        for path in ("/api/v1/nodes", "/api/v1/secrets", "/api/v1/namespaces/kube-system/secrets"):
            assert refused(api.get, path)
        assert refused(api.create, "/api/v1/namespaces", {"metadata": {"name": "mine"}})
        assert refused(api.get, "/api/v1/namespaces/default")


def test_a_deployment_may_label_its_namespace_for_the_readiness_gate_alone(access: Access) -> None:
    path = f"/api/v1/namespaces/{access.project.namespace}"
    enforced = "pod-security.kubernetes.io/enforce"
    access.admin.merge_patch(path, {"metadata": {"labels": {enforced: "restricted"}}})
    deploy = access.api("deploy")

    def label(name: str, value: str | None) -> str:
        return refused(deploy.merge_patch, path, {"metadata": {"labels": {name: value}}})

    until(lambda: "but that of the readiness gate" in label("team", "mine"))
    for value in ("privileged", None):
        assert "but that of the readiness gate" in label(enforced, value)
    assert not label(GATE, "enabled")
    assert not label(GATE, None)
    assert access.admin.get(path)["metadata"]["labels"][enforced] == "restricted"


def admins(access: Access, who: str) -> dict[str, Any]:
    """A binding by which a group may do everything in the namespace."""
    group = "rbac.authorization.k8s.io"
    subject = f"system:serviceaccounts:{access.project.namespace}-{who}"
    return {
        "metadata": {"name": "more", "namespace": access.project.namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": subject}],
    }
