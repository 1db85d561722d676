"""What Helm has stored and what the API server says decide what a preview shows, and what is deployed."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.resources.admissionregistration_v1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
)
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, ResourceQuota, Secret, Service, ServiceAccount
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding
from pydantic import SecretStr

from components.cluster import connect
from components.release import Api, ChartRelease, ReleaseArgs, api, dry_run, plan_release
from settings import ClusterSettings
from tests.engine.conftest import Project, Run

OTHER = Path(__file__).parents[1] / "charts/other"
PASSWORD = "made-up-password"

UNREGISTERED = {"pulumi:pulumi:Stack", "pulumi:providers:kubernetes"}


@dataclass(kw_only=True)
class Small:
    """A program with one release, `web`, of the chart in tests/charts/other."""

    project: Project
    helm: str
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the release."""
    kubeconfig: Path

    def program(self) -> None:
        config = {"kubeconfig": str(self.kubeconfig), "context": "kwok-mern"}
        cluster = connect(ClusterSettings.model_validate(config), None)
        args = ReleaseArgs(
            chart="./chart",
            name="web",
            namespace=self.project.namespace,
            values={"password": SecretStr(PASSWORD), **self.values},
            **{"timeout": 20, **self.options},
        )
        plan = plan_release(args, cluster.provider, cluster.api)
        ChartRelease("web", plan, pulumi.ResourceOptions(provider=cluster.provider))

    def up(self) -> Run:
        """Deploy, and see that this changes something and leaves nothing to do."""
        run = self.project.up()
        assert run.ok, run.output
        assert run.changes
        again = self.project.up()
        assert again.changes == set(), again.output
        return run

    def run_helm(self, *args: str, values: Any = None) -> None:
        """As somebody does it who knows nothing of Pulumi."""
        command = [self.helm, *args, "--namespace", self.project.namespace]
        env = self.project.cluster.env
        given = json.dumps(values)
        done = subprocess.run(command, env=env, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def write(self, file: str, *items: Any) -> Path:
        """Put a file with objects into the chart."""
        path = self.project.folder / "chart" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump_all(items))
        return path

    def deployment(self) -> Any:
        return self.project.get(Deployment, "web").spec

    @contextmanager
    def having(self, kind: Any, spec: dict[str, Any]) -> Iterator[Any]:
        """With an object of the cluster, for a while."""
        client = self.project.cluster.client
        made = client.create(kind.from_dict(spec))
        try:
            yield made
        finally:
            client.delete(kind, made.metadata.name, namespace=made.metadata.namespace)


@pytest.fixture
def small(project: Project, helm: str, monkeypatch: pytest.MonkeyPatch) -> Small:
    """Deployed nowhere yet; its namespace is there."""
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(OTHER, project.folder / "chart")
    monkeypatch.chdir(project.folder)
    small = Small(project=project, helm=helm, kubeconfig=project.cluster.kubeconfig)
    project.program = small.program
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    return small


def refused(run: Run) -> list[str]:
    """The refusals in what the user saw, of a run that registered nothing."""
    assert not run.ok, run.output
    assert {urn.split("::")[2] for urn in run.operations} <= UNREGISTERED
    assert "Traceback" not in run.output
    assert PASSWORD not in run.output
    _, _, listed = run.output.partition("    error: the API server refuses ")
    return [line.strip() for line in listed.partition("    error: ")[0].splitlines()[1:] if line.strip()]


def notes(run: Run, start: str) -> list[str]:
    """The lines in what the user saw that begin with `start`."""
    lines = [line.strip() for line in run.output.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(start)))


def test_what_helm_has_stored_decides_and_not_what_pulumi_remembers(small: Small) -> None:
    project = small.project
    small.up()
    small.values["replicas"] = 2
    assert project.preview().object_changes == {
        ("update", "Deployment web"),
        ("update", "ConfigMap web-hook"),
    }
    small.up()

    # Somebody upgrades.
    mine = {"password": PASSWORD, **small.values}
    small.run_helm(
        *("upgrade", "web", str(project.folder / "chart"), "-f", "-"),
        values={**mine, "settings": {"greeting": "bye"}},
    )
    preview = project.preview()
    assert preview.changes == {("update", "Release web")}
    [note] = notes(preview, "revision ")
    assert note.startswith("revision 3, made outside this stack on 20")
    assert note.endswith(
        "is deployed (Upgrade complete) and will be replaced. What differs from this stack's: ConfigMap web"
    )
    small.up()
    assert project.get(ConfigMap, "web").data == {"greeting": "hello"}

    # Somebody rolls back.
    small.run_helm("rollback", "web", "1")
    assert small.deployment().replicas == 1
    preview = project.preview()
    assert preview.changes == {("update", "Release web")}
    [note] = notes(preview, "revision 5, made outside this stack or after a failed deployment on 20")
    assert note.endswith(
        "is deployed (Rollback to 1) and will be replaced. What differs from this stack's: Deployment web"
    )
    small.up()
    assert small.deployment().replicas == 2

    # An edited template cannot be deployed, Helm rolls back, and Pulumi takes Helm's record for what
    # it wants.
    small.options["timeout"] = 4
    project.edit("templates/web.yaml", "{{ .Values.cpu }}", '"1000"')
    failed = project.up()
    assert not failed.ok
    assert "Insufficient cpu" in failed.output
    assert project.refresh().ok
    preview = project.preview()
    assert ("update", "Release web") in preview.changes
    assert notes(preview, "revision 8, made outside this stack or after a failed deployment on 20")
    project.edit("templates/web.yaml", '"1000"', '"20m"')
    small.options["timeout"] = 20
    small.up()
    container = small.deployment().template.spec.containers[0]
    assert container.resources.requests == {"cpu": "20m"}


def may_do(small: Small, rules: list[dict[str, Any]], resources: ExitStack) -> Path:
    """A kube config of somebody who may do what `rules` say."""
    namespace = small.project.namespace
    account = {"metadata": {"name": "somebody", "namespace": namespace}}
    resources.enter_context(small.having(ServiceAccount, account))
    name = {"metadata": {"name": f"somebody-{namespace}"}}
    resources.enter_context(small.having(ClusterRole, {**name, "rules": rules}))
    subject = {"kind": "ServiceAccount", "name": "somebody", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name["metadata"]["name"]}
    binding = {**name, "subjects": [subject], "roleRef": role}
    resources.enter_context(small.having(ClusterRoleBinding, binding))
    config = yaml.safe_load(small.project.cluster.kubeconfig.read_text())
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/somebody/token"
    token = Api(config).create(path, {"spec": {}})["status"]["token"]
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    file = small.project.folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def test_what_somebody_may_not_read_or_ask_is_a_line_and_no_refusal(small: Small) -> None:
    small.up()
    # Without Helm's record, this would look as if two strategies were wanted at once.
    small.values["strategy"] = "Recreate"
    everything = {"apiGroups": ["*"], "verbs": ["*"]}
    no_secrets = [
        {**everything, "resources": ["configmaps", "services", "deployments", "namespaces"]},
        # Enough to try a new one, and to see that there is one.
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["web"], "verbs": ["get"]},
    ]
    one_secret = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]
    start = "not checked by the API server: "
    stored = "what Helm has stored was not checked: secrets is forbidden"
    permitted = "not permitted to ask (user system:serviceaccount:"
    for rules, has_record, unchecked in (
        (no_secrets, False, "4 of 5 objects: what Helm has stored of it could not be read"),
        (one_secret, True, f"1 of 5 objects: {permitted}"),
        ([], False, f"4 of 5 objects: {permitted}"),
    ):
        with ExitStack() as resources:
            small.kubeconfig = may_do(small, rules, resources)
            preview = small.project.preview()
        assert preview.ok, preview.output
        assert len(notes(preview, stored)) == (0 if has_record else 1)
        [note] = notes(preview, start)
        assert note.startswith(start + unchecked)
        assert preview.object_changes == {("update", "Deployment web")}


def test_all_refusals_of_the_api_server_come_together_and_before_anything_is_registered(
    small: Small,
) -> None:
    project, namespace = small.project, small.project.namespace
    policy = {
        "metadata": {"name": namespace},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["configmaps"],
                    }
                ]
            },
            "validations": [{"expression": "!('greeting' in object.data)", "message": "we do not greet"}],
        },
    }
    binding = {
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
            },
        },
    }
    quota = {"metadata": {"name": "few", "namespace": namespace}, "spec": {"hard": {"count/services": "0"}}}
    gadget = {"apiVersion": "nosuch.example/v1", "kind": "Gadget", "metadata": {"name": "web"}}
    with ExitStack() as resources:
        resources.enter_context(small.having(ValidatingAdmissionPolicy, policy))
        resources.enter_context(small.having(ValidatingAdmissionPolicyBinding, binding))
        resources.enter_context(small.having(ResourceQuota, quota))
        unknown = small.write("templates/gadget.yaml", gadget)
        small.values["strategy"] = "Sometimes"
        until(lambda: len(refused(project.preview())) == 4)
        for run in (project.preview(), project.up()):
            texts = refused(run)
            assert [text.partition(": ")[0] for text in texts] == [
                "ConfigMap web",
                "Deployment web",
                "Gadget web",
                "Service web",
            ]
            assert texts[0].startswith("ConfigMap web: ValidatingAdmissionPolicy")
            assert texts[0].endswith("denied request: we do not greet")
            assert "spec.strategy" in texts[1]
            assert "the API server knows no Gadget in nosuch.example/v1" in texts[2]
            assert "exceeded quota: few, requested: count/services=1, used: count/services=0" in texts[3]
    unknown.unlink()
    small.values.clear()
    small.up()

    small.values = {"tier": "back", "servicePort": 99999}
    texts = refused(project.preview())
    assert texts == [
        "Deployment web: spec.selector: is immutable. Keep the selector, or delete the object first and "
        f"leave its pods running: kubectl delete deployment web -n {namespace} --cascade=orphan",
        "Service web: spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
    ]
    small.options["dry_run"] = False
    assert project.preview().ok


def until(condition: Callable[[], bool], times: int = 5) -> None:
    """Until what was just created is in force."""
    assert any(condition() for _ in range(times))


UPGRADES: dict[str, Any] = {
    "env": "valueFrom",
    "probe": "tcp",
    "strategy": "Recreate",
    "containerPort": 8080,
    "servicePort": 8080,
}


def test_upgrades_that_helm_can_do_are_accepted_and_done(small: Small) -> None:
    project = small.project
    small.up()
    for key, value in UPGRADES.items():
        small.values = {key: value}
        preview = project.preview()
        assert preview.ok, preview.output
        assert not notes(preview, "not checked")
        kind = "Service" if key == "servicePort" else "Deployment"
        assert preview.object_changes == {("update", f"{kind} web")}
    small.values = dict(UPGRADES)
    small.up()
    spec = small.deployment()
    container = spec.template.spec.containers[0]
    assert container.env[0].valueFrom.secretKeyRef.key == "password"
    assert container.env[0].value is None
    assert container.readinessProbe.tcpSocket.port == "http"
    assert container.readinessProbe.httpGet is None
    assert (spec.strategy.type, spec.strategy.rollingUpdate) == ("Recreate", None)
    assert [port.containerPort for port in container.ports] == [8080]
    assert [port.port for port in project.get(Service, "web").spec.ports] == [8080]


def test_what_cannot_be_checked_is_one_line_and_no_refusal(small: Small) -> None:
    project, namespace = small.project, small.project.namespace
    start = "not checked by the API server: "

    config = yaml.safe_load(small.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    small.kubeconfig = project.folder / "kubeconfig"
    small.kubeconfig.write_text(yaml.safe_dump(config))
    preview = project.preview()
    assert preview.ok, preview.output
    assert notes(preview, "nothing was checked in the cluster: ") and not notes(preview, start)
    small.kubeconfig = project.cluster.kubeconfig

    webhook = {
        "name": "dead.example.org",
        "clientConfig": {"service": {"name": "dead", "namespace": namespace}},
        "rules": [
            {
                "apiGroups": ["", "apps"],
                "apiVersions": ["v1"],
                "operations": ["*"],
                "resources": ["configmaps", "deployments"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    dead = {"metadata": {"name": namespace}, "webhooks": [webhook]}
    with small.having(ValidatingWebhookConfiguration, dead):
        until(lambda: bool(notes(project.preview(), start)))
        preview = project.preview()
        assert preview.ok, preview.output
        [note] = notes(preview, start)
        assert note.startswith(f"{start}2 of 5 objects: Internal error occurred: failed calling webhook")

    # A kind that the chart itself brings.
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {"group": "example.org", "names": names, "scope": "Namespaced", "versions": [version]},
    }
    small.write("crds/widgets.yaml", crd)
    widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "web"}, "size": 1}
    file = small.write("templates/widget.yaml", widget)
    preview = project.preview()
    assert preview.ok, preview.output
    assert notes(preview, start) == [f"{start}1 of 7 objects: its kind comes with this very chart"]
    client = project.cluster.client
    try:
        small.up()
        kind = create_namespaced_resource("example.org", "v1", "Widget", "widgets")
        assert project.get(kind, "web")["size"] == 1
        file.write_text(file.read_text().replace("size: 1", "size: 2"))
        preview = project.preview()
        assert preview.object_changes == {("update", "Widget web")}
        assert not notes(preview, start)
    finally:
        crds = "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
        client.delete(create_global_resource(*crds), "widgets.example.org")


def test_before_its_namespace_is_there_a_preview_says_so_in_one_line(project: Project) -> None:
    preview = project.preview()
    assert preview.ok, preview.output
    [note] = notes(preview, "not checked by the API server: ")
    count = len(preview.object_changes)
    assert note.endswith(f"{count} of {count} objects: its namespace is not there yet")


def test_an_object_of_nobody_is_refused_and_one_given_to_helm_is_taken_over(small: Small) -> None:
    project, namespace = small.project, small.project.namespace
    client = project.cluster.client
    labels = {"app": "web", "tier": "front"}
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "old.invalid/web"}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    mine = {"metadata": {"name": "web", "namespace": namespace}, "spec": spec}
    client.create(Deployment.from_dict(mine))
    small.values["strategy"] = "Recreate"
    [text] = refused(project.preview())
    assert text.startswith(
        "Deployment web: exists already and does not belong to this release: delete it, or"
    )

    given = {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": namespace}
    client.patch(Deployment, "web", {"metadata": {"annotations": given}}, namespace=namespace)
    assert len(refused(project.preview())) == 1
    label = {"app.kubernetes.io/managed-by": "Helm"}
    client.patch(Deployment, "web", {"metadata": {"labels": label}}, namespace=namespace)
    preview = project.preview()
    assert preview.ok, preview.output
    assert not notes(preview, "not checked")
    small.up()
    assert small.deployment().template.spec.containers[0].image == "registry.invalid/web:1.0.0"
    assert small.deployment().strategy.type == "Recreate"


def test_a_new_version_of_the_chart_shows_no_object_and_a_rotated_secret_just_what_restarts(
    project: Project,
) -> None:
    first = project.up()
    assert first.ok, first.output
    project.edit("Chart.yaml", "version: 0.1.0", "version: 0.2.0")
    project.edit("Chart.yaml", 'appVersion: "1.0.0"', 'appVersion: "2.0.0"')
    preview = project.preview()
    assert preview.object_changes == set()
    assert ("update", "Release mern") in preview.changes
    project.set_secret("mern:awsSecretAccessKey", "rotated-access-key")
    preview = project.preview(diff=True)
    assert preview.object_changes == {("update", "Secret mern-python-script")}
    project.set_secret("mern:mongodbUri", "mongodb://rotated.invalid/mern")
    preview = project.preview(diff=True)
    assert preview.object_changes == {
        ("update", "Secret mern-python-script"),
        ("update", "Secret mern-server"),
        ("update", "Deployment mern-server"),
    }
    assert "rotated" not in preview.output
    run = project.up()
    assert run.object_changes == preview.object_changes
    assert project.up().changes == set()
    held = project.get(Secret, "mern-python-script").data
    assert base64.b64decode(held["AWS_SECRET_ACCESS_KEY"]) == b"rotated-access-key"


class Answers(Api):
    """An API server that gives one answer to every dry run."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.error = api.ApiError(code, {"reason": reason, "message": message})

    def collection(self, item: Any, namespace: str) -> str:
        return "/api/v1/namespaces/shop/configmaps"

    def create(self, path: str, item: Any, **query: str) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("code", "reason", "message", "is_refusal"),
    [
        (400, "BadRequest", 'admission webhook "a.example" does not support dry run', False),
        (500, "InternalError", 'Internal error occurred: failed calling webhook "a": EOF', False),
        (503, "ServiceUnavailable", "the server is currently unable to handle the request", False),
        (429, "TooManyRequests", "", False),
        (401, "Unauthorized", "Unauthorized", False),
        (403, "Forbidden", f'admission webhook "a.example" denied the request: {PASSWORD}', True),
        (403, "Forbidden", 'configmaps "a" is forbidden: exceeded quota: few', True),
        (422, "Invalid", 'ConfigMap "a" is invalid', True),
    ],
)
def test_an_answer_that_says_nothing_of_the_object_is_no_refusal(
    code: int, reason: str, message: str, is_refusal: bool
) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    opinion = dry_run.ask(Answers(code, reason, message), [item], [], "web", "shop", [PASSWORD])
    assert (len(opinion.refusals), len(opinion.unchecked)) == ((1, 0) if is_refusal else (0, 1))
    assert PASSWORD not in str(opinion)
