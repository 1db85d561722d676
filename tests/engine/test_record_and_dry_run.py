"""What Helm has stored and what the API server says decide what a preview shows, and what is deployed.

What the engine has no part in is looked at in the plan alone: made in this process from the same arguments,
with the program helm in the provider's place.
"""

import base64
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
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
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod, ResourceQuota, Service, ServiceAccount
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding
from pydantic import SecretStr

from components.release import (
    Api,
    ChartError,
    ReleaseArgs,
    ReleasePlan,
    StackState,
    chart,
    comparison,
    dry_run,
    helm_yaml,
    plan_release,
    record,
    record_size,
)
from components.release import kubernetes_api as api
from components.release.secrets import opened
from components.release.values import map_leaves
from tests.engine.conftest import Project, Run
from tests.engine.faults import until
from tests.engine.test_drift import by_hand
from tests.remedies import is_here

OTHER = Path(__file__).parents[1] / "charts/other"
PASSWORD = "made-up-password"
UNREGISTERED = {"pulumi:providers:pulumi", "pulumi:pulumi:Stack", "pulumi:providers:kubernetes"}
NOT_CHECKED = "not checked by the API server: "

CRDS = create_global_resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
WIDGETS = "widgets.example.org"

PROGRAM = """
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml
from pydantic import SecretStr

from components.release import Api, ChartRelease, ReleaseArgs, plan_release, quiet_exit

with quiet_exit():
    given = json.loads(Path("given.json").read_text())
    kubeconfig = Path(given["kubeconfig"]).read_text()
    provider = kubernetes.Provider("cluster", kubeconfig=pulumi.Output.secret(kubeconfig))
    values = {**given["values"], "password": SecretStr(given["password"])}
    names = {"chart": "./chart", "name": "web", "namespace": given["namespace"]}
    args = ReleaseArgs(**names, values=values, **given["options"])
    plan = plan_release(args, provider, Api(yaml.safe_load(kubeconfig)))
    ChartRelease("web", plan, pulumi.ResourceOptions(provider=provider))
"""


@dataclass(kw_only=True)
class Small:
    """A program with one release, `web`, of the chart in tests/charts/other."""

    project: Project
    helm: str
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the release."""
    deployed: str = ""
    """The description that the stack's state has."""
    kubeconfig: Path

    def run(self, command: str, *options: str) -> Run:
        """Run a command of Pulumi."""
        given = {
            "kubeconfig": str(self.kubeconfig),
            "password": PASSWORD,
            "namespace": self.project.namespace,
            "values": self.values,
            "options": {"timeout": 20, **self.options},
        }
        (self.project.folder / "given.json").write_text(json.dumps(given))
        return self.project.run(command, *options)

    def up(self, *options: str) -> Run:
        run = self.run("up", *options)
        assert run.ok, run.output
        return run

    def api(self) -> Api:
        return Api(yaml.safe_load(self.kubeconfig.read_text()))

    def plan(self) -> ReleasePlan:
        """Make the plan of a preview."""
        values = {**self.values, "password": SecretStr(PASSWORD)}
        args = ReleaseArgs(
            chart="./chart", name="web", namespace=self.project.namespace, values=values, **self.options
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chart, "render", self._render)
            patch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
            provider: Any = None
            urn = "urn:pulumi:test::mern::helm:index:ChartRelease$kubernetes:helm.sh/v3:Release::web"
            # What is to be adopted is not in the state yet.
            stored = {"name": args.name, "namespace": args.namespace, "description": self.deployed}
            known = {} if args.adopt else {urn: stored}
            state = StackState(known)
            return plan_release(args, provider, self.api(), state)

    def _render(
        self, of: chart.Chart, name: str, namespace: str, values: Any, provider: Any, *, is_upgrade: bool
    ) -> list[Any]:
        options = ["--is-upgrade"] if is_upgrade else []
        manifest = self.run_helm("template", name, of.path, *options, values=opened(values))
        return helm_yaml.load_all(manifest)

    def refusals(self) -> list[str]:
        """The refusals of a preview, none where it is accepted."""
        try:
            self.plan()
        except ChartError as error:
            assert str(error).startswith("the API server refuses ")
            return listed(str(error))
        return []

    def deploy(self) -> None:
        """Deploy with plain Helm what this stack would: afterwards there is nothing to do."""
        values = {**self.values, "password": PASSWORD}
        command = ("upgrade", "--install", "web", "./chart")
        self.run_helm(*command, "--description", self.plan().description, values=values)

    def run_helm(self, *args: str, values: Any = None) -> str:
        """As somebody does it who knows nothing of Pulumi."""
        given = () if values is None else ("-f", "-")
        done = subprocess.run(
            [self.helm, *args, *given, "--namespace", self.project.namespace],
            cwd=self.project.folder,
            env=self.project.cluster.env,
            input=None if values is None else json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def changed(self, planned: ReleasePlan) -> list[str]:
        """The objects that a deployment of `planned` changes."""
        there = record.newest(self.api(), "web", self.project.namespace)
        assert there
        return comparison.compare(None, there.objects(), planned.objects, there.namespace).differing

    def assert_nothing_is_left_to_do(self) -> None:
        there, planned = record.newest(self.api(), "web", self.project.namespace), self.plan()
        assert there
        assert (planned.description, planned.notes, planned.drifts) == (there.description, [], [])
        assert self.changed(planned) == []

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
    project.program(PROGRAM)
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    return Small(project=project, helm=helm, kubeconfig=project.cluster.kubeconfig)


def widgets() -> dict[str, Any]:
    """The definition of a kind that takes everything."""
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS},
        "spec": {"group": "example.org", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def listed(text: str) -> list[str]:
    """The refusals in the text of one error."""
    return [line.strip() for line in text.splitlines()[1:]]


def refused(run: Run) -> list[str]:
    """The refusals in what the user saw, of a run that registered nothing."""
    assert not run.ok, run.output
    assert {urn.split("::")[2] for urn in run.operations} <= UNREGISTERED
    assert "Traceback" not in run.output
    assert PASSWORD not in run.output
    _, _, shown = run.output.partition("    error: the API server refuses ")
    return listed(shown.partition("\n\n")[0])


def notes(run: Run, start: str) -> list[str]:
    """The lines in what the user saw that begin with `start`."""
    lines = [line.strip() for line in run.output.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(start)))


def test_what_helm_has_stored_decides_and_not_what_pulumi_remembers(small: Small) -> None:
    project = small.project
    small.up()

    # Somebody upgrades.
    others = {"password": PASSWORD, "replicas": 2, "settings": {"greeting": "bye"}}
    small.run_helm("upgrade", "web", "./chart", values=others)
    preview = small.run("preview")
    assert preview.changes == {("update", "Release web")}
    [note] = notes(preview, "revision ")
    assert note.startswith("revision 2, made outside this stack on 20")
    assert note.endswith(
        "is deployed (Upgrade complete) and will be replaced. "
        "What differs from this stack's: ConfigMap web, Deployment web"
    )
    small.up()
    assert project.get(ConfigMap, "web").data == {"greeting": "hello"}
    assert small.deployment().replicas == 1
    small.assert_nothing_is_left_to_do()

    # Somebody rolls back.
    small.run_helm("rollback", "web", "2")
    assert small.deployment().replicas == 2
    [note] = small.plan().notes
    assert note.startswith("revision 4, made outside this stack or after a failed deployment on 20")
    assert note.endswith(
        "is deployed (Rollback to 2) and will be replaced. "
        "What differs from this stack's: ConfigMap web, Deployment web"
    )

    # An edited template cannot be deployed: what ran before serves, and a preview still says what is missing.
    small.options["timeout"] = 4
    project.edit("templates/web.yaml", "{{ .Values.cpu }}", '"1000"')
    failed = small.run("up")
    assert not failed.ok
    assert "Insufficient cpu" in failed.output
    assert project.get(Deployment, "web").status.availableReplicas == 2
    preview = small.run("preview")
    assert preview.object_changes == {("update", "Deployment web")}, preview.output

    # Pulumi takes Helm's record of that for what it wants.
    project.edit("templates/web.yaml", '"1000"', '"20m"')
    small.options["timeout"] = 20
    small.values["replicas"] = 3
    run = small.up("--refresh")
    assert ("update", "Release web") in run.changes
    assert run.object_changes == {("update", "Deployment web"), ("update", "ConfigMap web-hook")}
    assert notes(run, "revision 6, made outside this stack or after a failed deployment on 20")
    assert small.deployment().template.spec.containers[0].resources.requests == {"cpu": "20m"}
    assert small.deployment().replicas == 3
    assert project.get(ConfigMap, "web").data == {"greeting": "hello"}
    again = small.up()
    assert again.changes == set(), again.output


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
    small.deploy()
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
    stored = "what Helm has stored was not checked: secrets is forbidden"
    compared = "not compared with the cluster: "
    permitted = "not permitted to ask (user system:serviceaccount:"
    for rules, first, last in (
        (no_secrets, stored, "4 of 5 objects: what Helm has stored of it could not be read"),
        (one_secret, compared, f"1 of 5 objects: {permitted}"),
        ([], stored, f"5 of 5 objects: {permitted}"),
    ):
        with ExitStack() as resources:
            small.kubeconfig = may_do(small, rules, resources)
            *others, note = small.plan().notes
        if first == compared:  # what is patched and the hook, which is created, are two reasons
            assert others.pop().startswith(f"{NOT_CHECKED}1 of 5 objects: {permitted}")
        assert all(each.startswith(first) for each in others), others
        assert others == others[:1] or first == compared
        assert note.startswith(NOT_CHECKED + last)


def test_all_refusals_of_the_api_server_come_together_and_before_anything_is_registered(
    small: Small,
) -> None:
    namespace = small.project.namespace
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
        until(lambda: len(small.refusals()) == 4)
        texts = refused(small.run("up"))
        assert texts == small.refusals()
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
    until(lambda: not small.refusals())
    small.deploy()
    small.assert_nothing_is_left_to_do()

    small.values = {"tier": "back", "servicePort": 99999}
    delete = f"kubectl delete deployment web -n {namespace} --cascade=orphan"
    assert small.refusals() == [
        "Deployment web: spec.selector: is immutable. Keep the selector, or delete the object first and "
        f"leave its pods running: `{delete}`",
        "Service web: spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
    ]
    small.options["dry_run"] = False
    assert not small.plan().notes

    del small.values["servicePort"], small.options["dry_run"]
    if is_here(delete):
        pods = {pod.metadata.uid for pod in small.project.list(Pod)}
        small.project.paste(delete)
        small.deploy()
        assert pods <= {pod.metadata.uid for pod in small.project.list(Pod)}


UPGRADES: dict[str, Any] = {
    "env": "valueFrom",
    "probe": "tcp",
    "strategy": "Recreate",
    "containerPort": 8080,
    "servicePort": 8080,
}


def test_upgrades_that_helm_can_do_are_accepted_and_done(small: Small) -> None:
    small.deploy()
    for key, value in UPGRADES.items():
        small.values = {key: value}
        plan = small.plan()
        assert plan.notes == []
        assert small.changed(plan) == ["Service web" if key == "servicePort" else "Deployment web"]
    small.values = dict(UPGRADES)
    small.deploy()
    small.assert_nothing_is_left_to_do()
    spec = small.deployment()
    container = spec.template.spec.containers[0]
    assert container.env[0].valueFrom.secretKeyRef.key == "password"
    assert container.env[0].value is None
    assert container.readinessProbe.tcpSocket.port == "http"
    assert container.readinessProbe.httpGet is None
    assert (spec.strategy.type, spec.strategy.rollingUpdate) == ("Recreate", None)
    assert [port.containerPort for port in container.ports] == [8080]
    assert [port.port for port in small.project.get(Service, "web").spec.ports] == [8080]


def test_a_cluster_that_does_not_answer_is_one_line_of_a_preview(small: Small) -> None:
    config = yaml.safe_load(small.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    small.kubeconfig = small.project.folder / "kubeconfig"
    small.kubeconfig.write_text(yaml.safe_dump(config))
    preview = small.run("preview")
    assert preview.ok, preview.output
    assert len(notes(preview, "nothing was checked in the cluster: ")) == 1
    assert not notes(preview, NOT_CHECKED)

    # What the stack has deployed last is no change because nobody can look at it.
    files = chart.load(str(small.project.folder / "chart")).description
    for deployed, expected in (
        (f"{files}, installed 2026-11-28T12:00:00Z", f"{files}, installed 2026-11-28T12:00:00Z"),
        ("web 2.0.0 (files 0123456789abcdef), replaces revision 7", files),
        ("of somebody else", files),
    ):
        small.deployed = deployed
        assert small.plan().description == expected


def test_before_its_namespace_is_there_a_preview_says_so_in_one_line(small: Small) -> None:
    small.project.namespace = "not-there"
    assert small.plan().notes == [f"{NOT_CHECKED}5 of 5 objects: its namespace is not there yet"]


def test_a_webhook_that_does_not_answer_is_one_line_and_no_refusal(small: Small) -> None:
    namespace = small.project.namespace
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
        until(lambda: bool(small.plan().notes))
        [note] = small.plan().notes
    assert note.startswith(f"{NOT_CHECKED}3 of 5 objects: Internal error occurred: failed calling webhook")


def test_an_object_of_nobody_is_refused_and_one_given_to_helm_is_taken_over_with_the_kinds_of_the_chart(
    small: Small,
) -> None:
    project, namespace = small.project, small.project.namespace
    client = project.cluster.client
    labels = {"app": "web", "tier": "front"}
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "old.invalid/web:0.9"}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    mine = {"metadata": {"name": "web", "namespace": namespace}, "spec": spec}
    client.create(Deployment.from_dict(mine))
    small.values["strategy"] = "Recreate"
    [text] = small.refusals()
    assert text.startswith(
        "Deployment web: exists already and does not belong to this release: delete it, or"
    )
    given = {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": namespace}
    client.patch(Deployment, "web", {"metadata": {"annotations": given}}, namespace=namespace)
    assert len(small.refusals()) == 1
    label = {"app.kubernetes.io/managed-by": "Helm"}
    client.patch(Deployment, "web", {"metadata": {"labels": label}}, namespace=namespace)
    assert small.plan().notes == []

    # A kind that the chart itself brings.
    crd = widgets()
    small.write("crds/widgets.yaml", crd)
    widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "web"}, "size": 1}
    file = small.write("templates/widget.yaml", widget)
    assert small.plan().notes == [f"{NOT_CHECKED}1 of 6 objects: its kind comes with this very chart"]
    try:
        small.up()
        assert small.deployment().template.spec.containers[0].image == "registry.invalid/web:1.0.0"
        assert small.deployment().strategy.type == "Recreate"
        kind = create_namespaced_resource("example.org", "v1", "Widget", "widgets")
        assert project.get(kind, "web")["size"] == 1
        small.assert_nothing_is_left_to_do()
        file.write_text(file.read_text().replace("size: 1", "size: 2"))
        plan = small.plan()
        assert plan.notes == []
        assert small.changed(plan) == ["Widget web"]
        small.up()
        change_a_crd(small, crd)
    finally:
        client.delete(CRDS, WIDGETS)


CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}


def pods(image: str) -> dict[str, Any]:
    """A template of pods that end."""
    spec = {"restartPolicy": "Never", "containers": [{"name": "web", "image": image}]}
    return {"metadata": {"labels": {"app": "fixed"}}, "spec": spec}


def fixed(image: str, storage: str, address: str) -> list[dict[str, Any]]:
    """Objects with fields that nobody may change."""
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": pods(image)}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec}
    several: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "spec": {
            "serviceName": "fixed",
            "replicas": 0,
            "selector": {"matchLabels": {"app": "fixed"}},
            "template": {**pods(image), "spec": {**pods(image)["spec"], "restartPolicy": "Always"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": spec}],
        },
    }
    ports = [{"port": 80}]
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": address, "ports": ports}}
    return [{**item, "metadata": {"name": "fixed"}} for item in (job, claim, several, service)]


def test_what_helm_cannot_deploy_is_refused(small: Small) -> None:
    """Each was tried with Helm itself, which stops before its work or in the midst of it."""
    namespace, api = small.project.namespace, small.api()
    others = {"meta.helm.sh/release-name": "other", "meta.helm.sh/release-namespace": "elsewhere"}
    foreign = {**CONFIG_MAP, "metadata": {"name": "foreign", "annotations": others}}
    hook = {"helm.sh/hook": "post-install", "helm.sh/hook-delete-policy": "hook-failed"}
    left = {**CONFIG_MAP, "metadata": {"name": "left", "annotations": hook}}
    twice = {**CONFIG_MAP, "metadata": {"name": "twice"}}
    nameless = {**CONFIG_MAP, "metadata": {"generateName": "made-"}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    defined = {**widgets(), "metadata": {"name": "things.example.org"}}
    defined["spec"] = {**defined["spec"], "names": names}
    widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "a"}}
    for item in (foreign, left):
        api.create(f"/api/v1/namespaces/{namespace}/configmaps", item)
    api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", defined)
    more = small.write(
        "templates/more.yaml", foreign, left, twice, twice, nameless, widgets(), widget, defined
    )
    try:
        texts = small.refusals()
    finally:
        small.project.cluster.client.delete(CRDS, "things.example.org")
    expected = (
        "ConfigMap foreign: exists already and belongs to release other in namespace elsewhere: delete it",
        "ConfigMap left: exists already, and Helm cannot run it again: its annotation",
        "ConfigMap made-: has no metadata.name",
        "ConfigMap twice: stands in the chart more than once",
        "CustomResourceDefinition things.example.org: exists already and does not belong to this release",
        "Widget a: its kind is defined in the chart's templates, and Helm has to know it before",
    )
    assert len(texts) == len(expected), texts
    for text, start in zip(texts, expected, strict=True):
        assert text.startswith(start)

    # What nobody may change, with what to do about it.
    more.unlink()
    small.write("templates/fixed.yaml", *fixed("web:1", "1Gi", "10.0.0.76"))
    small.deploy()
    small.write("templates/fixed.yaml", *fixed("web:2", "2Gi", "10.0.0.77"))
    texts = small.refusals()
    keep = "Keep it, or delete the object first"
    delete = f"fixed -n {namespace}"
    assert [text.partition(": is immutable. ")[::2] for text in texts] == [
        ("Job fixed: spec.template", f"{keep}: `kubectl delete job {delete}`"),
        (
            "PersistentVolumeClaim fixed: spec",
            "Keep it: who deletes the claim deletes what is stored, as a rule",
        ),
        ("Service fixed: spec.clusterIPs[0]", f"{keep}: `kubectl delete service {delete}`"),
        (
            "StatefulSet fixed: spec.volumeClaimTemplates",
            f"{keep} and leave its pods running: `kubectl delete statefulset {delete} --cascade=orphan`",
        ),
    ]


NUMBERS = """
0 00 0. .0 . 1 01 08 0_8 1. 1.0 1.50 .5 5. .5_0 1_000 _1 1__0 0x 0x1F 0X1f 0x_1 0xFFFFFFFFFFFFFFFFF 0b11
0B1 0b12 0b 0o17 0O7 0o8 0755 0778 010 1e3 1E+2 1e-2 1.e3 1e 1e+ .e5 .5e3 e3 1e999 1e-999 1e21 1.5e300
1.2.3 1:30 22:30 12:30:45 190:20:30 1:60 9223372036854775807 9223372036854775808 18446744073709551615
18446744073709551616 123456789012345678901234567890 9007199254740993
3.14159265358979323846264338327950288 0.1 1000000 1234567.5 2001-12-14 2001-1-1
2001-12-14t21:59:43.10-05:00 2001-12-14T21:59:43Z 2001-13-45 20011214 1,000 1/2 1% 5m 1Gi 0.5 1_0.5
"""
WORDS = """
~ null Null NULL nULL nil y Y yes Yes YES yEs n N no No NO nO on On ON oN off Off OFF true True TRUE tRUE
t false False FALSE f = << <<x inf nan Infinity .in .n . .. a:b a#b a:1 http://a.b/?c=d&e é 日本 \\n \\x41
a'b a"b <a> x,y -- --- x- -x
"""
STYLES = """
empty:
quoted: ["", '', "~", '22:30', "1", "\\t\\x41\\u00e9\\U0001F600", 'it''s', "a
  b

  c", "<<"]
tags: [!!str 1, !!str , !!int "3", !!float 1, !!bool yes, !!null "", !!binary aGk=, !other x, ! 5]
time: !!timestamp 2001-01-01
sets: !!set {a, b}
pairs: !!omap [a: 1]
literal: |
  a
    b\t

  22:30
stripped: |-
  a
kept: |+
  a

indented: |2
    a
folded: >
  a
  b

  c
   d
plain: a
  b

  c
tab:\ta\tb # no part of it
list:
- a
- - b
  - c: d
    e: f
-
anchors: &a {x: 1, 2: b}
again: &a [&b y, *b]
alias: [*a, *b]
base: &base {x: 1, y: {z: 1}}
other: &other {x: 2, w: 3}
merged: {<<: *base, x: 3}
merged_last: {x: 3, <<: *base}
merged_both: {<<: [*base, *other], v: 1}
quoted_merge: {"<<": 1}
nested: {a: [{b: [1, 2, {}]}, []], "c": "d"}
"""


def scalars() -> str:
    """Scalars without quotes in every place that one can have, and every style that has others."""
    numbers = [sign + number for sign in ("", "-", "+") for number in NUMBERS.split()]
    words = [word for word in WORDS.split() if word not in ("---", "--", "-x", "<<")]
    plain = [word for word in dict.fromkeys([*numbers, *words]) if word not in ("-.", "...")]
    # A key may be no null, and no integer of more than 63 bits; of two that are the same, chance takes one.
    keys = [
        word for word in plain if word.lower() not in ("~", "null") and word[-5:] not in ("51615", "75808")
    ]
    keys = [*{next(iter(helm_yaml.load(f"{word}: 1"))).lstrip("-0"): word for word in keys}.values()]
    lines = ["list_of_all:", *(f"- {word}" for word in plain), "keys:"]
    lines += [f"  {word}: {place}" for place, word in enumerate(keys)]
    lines += ["flow: [" + ", ".join(word for word in plain if not {*word} & {*",[]{}?"}) + "]"]
    lines += [f"long: {'a' * 5000} {'b' * 5000}", f"long_number: {'1' * 400}"]
    return "\n".join(lines) + STYLES


def comparable(value: Any) -> str:
    """With one type of number, as JSON has it."""

    def leaf(item: Any) -> Any:
        return float(item) if isinstance(item, int) and not isinstance(item, bool) else item

    return json.dumps(map_leaves(value, leaf), indent=1, sort_keys=True)


def test_helms_record_is_read_as_helm_reads_it(small: Small) -> None:
    small.write("crds/widgets.yaml", widgets())
    text = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: web}\n"
    template = small.project.folder / "chart/templates/scalars.yaml"
    template.write_text("\ufeff" + text + scalars())
    (template.parent / "crlf.yaml").write_bytes(
        b"apiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: crlf}\r\n"
        b"data:\r\n  t: 22:30\r\n  e : a\r\n  text: |\r\n    a\r\n    b\r\n  on: 'off'\r\n  12_0: '5'\r\n"
    )
    (template.parents[1] / "data.bin").write_bytes(random.Random(1).randbytes(550_000))  # nearly too much
    api = small.api()
    small.up()
    try:
        newest = record.newest(api, "web", small.project.namespace)
        assert newest
        for item in newest.objects():
            if item["kind"] in ("Widget", "ConfigMap") and item["metadata"]["name"] != "web-hook":
                live = api.get(api.path(item, small.project.namespace))
                ours = {key: live[key] for key in item if key != "metadata"}
                wanted = {key: value for key, value in item.items() if key != "metadata"}
                assert comparable(wanted) == comparable(ours)
        small.assert_nothing_is_left_to_do()
        preview = small.run("preview")
        assert preview.changes == set(), preview.output
        secret = api.get(record._path("web", small.project.namespace, newest.revision))
        stored = len(base64.b64decode(secret["data"]["release"]))
        estimate = record_size.estimate(chart.load("./chart"), small.plan().objects, newest.values)
        assert abs(estimate / stored - 1) < 0.02
    finally:
        small.project.cluster.client.delete(CRDS, WIDGETS)


def change_a_crd(small: Small, crd: dict[str, Any]) -> None:
    """Helm never changes one of the folder crds/: the plan says so, and applies it where that is wanted."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.org"

    def columns() -> Any:
        return small.api().get(path)["spec"]["versions"][0].get("additionalPrinterColumns")

    crd["spec"]["versions"][0]["additionalPrinterColumns"] = [
        {"name": "Size", "type": "integer", "jsonPath": ".size"}
    ]
    small.write("crds/widgets.yaml", crd)
    for _ in range(2):
        [note] = small.plan().notes
        assert note.startswith(
            "CustomResourceDefinition widgets.example.org differs from the one in the cluster."
        )
        run = small.up()
        assert "CustomResourceDefinition" not in str(run.object_changes)
        assert columns() is None

    small.options["crds"] = "apply"
    [note] = small.plan().notes
    assert note.endswith(
        "widgets.example.org differs from the one in the cluster: applied before the release"
    )
    small.up()
    assert columns()
    small.assert_nothing_is_left_to_do()
    by_hand_without = [{**version, "additionalPrinterColumns": []} for version in crd["spec"]["versions"]]
    small.api().merge_patch(path, {"spec": {"versions": by_hand_without}})
    assert "differs from the one" in str(small.plan().notes)
    small.up()
    small.assert_nothing_is_left_to_do()
    broken = {**crd, "spec": {**crd["spec"], "scope": "Nowhere"}}
    small.write("crds/widgets.yaml", broken)
    with pytest.raises(
        ChartError, match=r"refuses CRDs of chart \./chart:\n  .*widgets.example.org: .*scope"
    ):
        small.plan()
    small.write("crds/widgets.yaml", crd)


OTHER_WORDS = {
    "cpu: {{ .Values.cpu }}": "cpu: 0.01, memory: 1024Mi",
    "containerPort: {{ .Values.containerPort }}": "containerPort: 80, protocol: TCP",
    "  annotations:\ndata:": "  annotations: {}\ndata:",
    "  selector: {app: {{ .Release.Name }}}\n": "  selector: {app: web}\n  type: ClusterIP\n",
    "targetPort: http": "targetPort: http\n      protocol: TCP",
    "stringData:\n  password: {{ .Values.password | quote }}": (
        "data:\n  password: {{ .Values.password | b64enc }}"
    ),
    "strategy: {type: {{ .Values.strategy }}}": "revisionHistoryLimit: 10\n  strategy: null",
    "image: {{ .Values.image }}": "image: {{ .Values.image }}\n          command: null",
    "httpGet: {path: /, port: http}": (
        "httpGet: {path: /, port: http, scheme: HTTP}\n            periodSeconds: 10"
    ),
}
"""Texts of the chart, and others that mean the same."""


def test_the_same_value_in_other_words_is_no_difference(small: Small) -> None:
    project = small.project
    project.edit("templates/web.yaml", "cpu: {{ .Values.cpu }}", "cpu: {{ .Values.cpu }}, memory: 1Gi")
    others = ("upgrade", "--install", "web", "./chart")
    small.run_helm(*others, values={"password": PASSWORD})
    project.edit("templates/web.yaml", ", memory: 1Gi", "")
    for old, new in OTHER_WORDS.items():
        project.edit("templates/web.yaml", old, new)
    [note] = small.plan().notes
    assert note.endswith(" Its objects are those of this stack"), note
    small.options["adopt"] = True
    _, same, *others_ = small.plan().notes
    assert same == "  same: ConfigMap web, Deployment web, Secret web, Service web"
    assert others_ == []

    project.edit("templates/web.yaml", "containerPort: 80, protocol: TCP", "containerPort: 80, protocol: UDP")
    assert "  changed: Deployment web: spec.template.spec.containers" in small.plan().notes
    small.options["adopt"] = False
    [note] = small.plan().notes
    assert note.endswith(" What differs from this stack's: Deployment web"), note
    # Without its opinion, whatever is written otherwise counts.
    small.options["dry_run"] = False
    [note] = small.plan().notes
    assert note.endswith("this stack's: ConfigMap web, Deployment web, Secret web, Service web"), note


def test_drift_is_not_looked_for_where_the_stack_does_not_want_it(small: Small) -> None:
    small.deploy()
    by_hand(small.project, Deployment, "web", {"spec": {"replicas": 3}})
    assert [drift.item["kind"] for drift in small.plan().drifts] == ["Deployment"]
    small.options["drift"] = "ignore"
    assert small.plan().drifts == []


class Answers(Api):
    """An API server that gives one answer to every dry run."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.error = api.ApiError(code, {"reason": reason, "message": message})

    def collection(self, item: Any, namespace: str) -> str:
        return "/api/v1/namespaces/shop/configmaps"

    def create(self, path: str, item: Any, **query: str) -> Any:
        raise self.error

    def find(self, path: str, **query: str) -> Any:
        return {}


@pytest.mark.parametrize(
    ("code", "reason", "message", "is_refusal"),
    [
        (400, "BadRequest", 'admission webhook "a.example" does not support dry run', False),
        (500, "InternalError", 'Internal error occurred: failed calling webhook "a": EOF', False),
        (503, "ServiceUnavailable", "the server is currently unable to handle the request", False),
        (429, "TooManyRequests", "", False),
        (403, "Forbidden", f'admission webhook "a.example" denied the request: {PASSWORD}', True),
        (403, "Forbidden", 'configmaps "a" is forbidden: exceeded quota: few', True),
        (422, "Invalid", 'ConfigMap "a" is invalid', True),
    ],
)
def test_an_answer_that_says_nothing_of_the_object_is_no_refusal(
    code: int, reason: str, message: str, is_refusal: bool
) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    [finding] = dry_run.ask(Answers(code, reason, message), [item], [], "web", "shop")
    assert bool(finding.texts) == is_refusal
    assert bool(finding.unchecked) != is_refusal
