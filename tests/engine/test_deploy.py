"""From a stack's config to objects in a real API server, through the real command line and provider."""

import base64
import json
import shutil
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
import yaml
from lightkube import ApiError
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret, Service
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy

from components import mern_application
from components.chart_values import existing_secret_checksum
from components.release import Api, record
from sandbox.engine import PROJECT
from tests.chart.rendering import Chart
from tests.conftest import TestCluster
from tests.engine.conftest import Change, Project, Run

BEYOND_THE_BASIC_PLANE = "😀 👩‍👩‍👧 🇪🇺 𝄞 𠜎 \U0010fffd"


def versions(project: Project) -> dict[str, Any]:
    """What changes when someone writes to an object that Helm deployed."""
    kinds = (Deployment, Service, Secret, CronJob, Ingress, NetworkPolicy)
    return {
        f"{item.kind or kind.__name__} {item.metadata.name}": item.metadata.generation
        or item.metadata.resourceVersion
        for kind in kinds
        for item in project.list(kind)
        if not item.metadata.name.startswith("sh.helm.")
    }


# -- one stack and its life -------------------------------------------------------------------------


def test_a_stack_is_deployed_and_each_later_run_shows_and_changes_just_what_differs(
    project: Project,
) -> None:
    deploy_what_the_config_says(project)
    find_no_change_at_another_path(project)
    show_an_edited_chart_without_objects(project)
    changes = show_what_differs_and_change_nothing(project)
    deploy_what_differs_and_touch_nothing_else(project, changes)
    take_the_objects_out_of_the_view(project)


def deploy_what_the_config_says(project: Project) -> None:
    project.secrets["mern:serverSecrets"] = f'{{"SESSION_KEY": "first-canary {BEYOND_THE_BASIC_PLANE}"}}'
    project.configure(
        imageTag="2.3.4",
        values={
            "mernClient": {"replicas": 3, "networkPolicy": {"enabled": True}},
            "mernServer": {"replicas": 1, "env": {"EMOJI": BEYOND_THE_BASIC_PLANE}},
            "pythonScript": {"schedule": "*/5 * * * *"},
        },
    )
    run = project.up()
    assert run.ok, run.output
    client, server = project.get(Deployment, "mern-client"), project.get(Deployment, "mern-server")
    assert client.status.availableReplicas == 3
    assert server.status.availableReplicas == 1
    assert client.spec.template.spec.containers[0].image.endswith(":2.3.4")
    assert project.get(CronJob, "mern-python-script").spec.schedule == "*/5 * * * *"
    held = project.get(Secret, "mern-server").data
    assert base64.b64decode(held["MONGODB_URI"]).decode() == project.secrets["mern:mongodbUri"]
    ingress = project.get(Ingress, "mern")
    assert ingress.metadata.annotations["alb.ingress.kubernetes.io/healthcheck-path"] == "/health"
    backends = {p.backend.service.name for r in ingress.spec.rules for p in r.http.paths}
    assert backends == {"mern-client", "mern-server"}
    [container] = server.spec.template.spec.containers
    assert {item.name: item.value for item in container.env}["EMOJI"] == BEYOND_THE_BASIC_PLANE
    assert base64.b64decode(held["SESSION_KEY"]).decode() == f"first-canary {BEYOND_THE_BASIC_PLANE}"


def find_no_change_at_another_path(project: Project) -> None:
    """Neither the place nor the line endings of a checkout make a difference."""
    moved = project.folder.with_name(f"{project.folder.name}-moved")
    shutil.rmtree(moved, ignore_errors=True)
    project.folder.rename(moved)
    for file in (moved / "chart").rglob("*.tpl"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    project.folder = moved
    run = project.preview("--diff")
    assert (run.ok, run.changes) == (True, set()), run.output


def show_an_edited_chart_without_objects(project: Project) -> None:
    """A template with other text, another version, and no image tag: what is deployed stays the same."""
    versioned = (project.folder / "chart/Chart.yaml").read_text()
    project.edit("Chart.yaml", "version: 0.1.0", "version: 0.2.0")
    project.edit("Chart.yaml", 'appVersion: "1.0.0"', 'appVersion: "2.0.0"')
    project.edit("templates/ingress.yaml", "kind: Ingress\n", "kind: Ingress\n# edited\n")
    project.configure(imageTag=None)
    run = project.preview()
    assert (run.ok, run.object_changes) == (True, set()), run.output
    assert ("update", "Release mern") in run.changes
    assert "images stay as in revision 1" in run.output
    assert "mernClient 2.3.4" in run.output
    (project.folder / "chart/Chart.yaml").write_text(versioned)  # else each object gets another label


def show_what_differs_and_change_nothing(project: Project) -> set[Change]:
    before = versions(project)
    project.set_secret("mern:serverSecrets", '{"SESSION_KEY": "second-canary"}')
    project.set_secret("mern:awsSecretAccessKey", "canary-access-key")
    project.configure(
        values={
            "mernClient": {"replicas": 2, "networkPolicy": {"enabled": False}},
            "mernServer": {"replicas": 2},
        }
    )
    run = project.preview("--diff")
    assert run.ok, run.output
    assert run.object_changes == {
        ("update", "Deployment mern-client"),
        ("update", "Deployment mern-server"),
        ("update", "Secret mern-server"),
        ("update", "Secret mern-python-script"),
        ("delete", "NetworkPolicy mern-client"),
    }, run.output
    assert_masked(project, run)
    assert versions(project) == before
    return run.object_changes


def assert_masked(project: Project, run: Run) -> None:
    encoded = base64.b64encode(b"second-canary").decode()
    for seen in (run.output, run.events, project.raw_state()):
        assert "canary" not in seen
        assert encoded not in seen


def deploy_what_differs_and_touch_nothing_else(project: Project, changes: set[Change]) -> None:
    before = versions(project)
    replica_sets = {item.metadata.name for item in project.list(ReplicaSet)}
    run = project.up()
    assert run.ok, run.output
    assert run.object_changes == changes
    assert_masked(project, run)
    after = versions(project)
    touched = {name for name in before if after.get(name) != before[name]}
    assert touched == {name for _, name in changes}
    held = project.get(Secret, "mern-server").data["SESSION_KEY"]
    assert base64.b64decode(held) == b"second-canary"
    held = project.get(Secret, "mern-python-script").data["AWS_SECRET_ACCESS_KEY"]
    assert base64.b64decode(held) == b"canary-access-key"
    new = {item.metadata.name for item in project.list(ReplicaSet)} - replica_sets
    assert [name.rsplit("-", 1)[0] for name in new] == ["mern-server"], "other pods restart too"
    for name in ("mern-client", "mern-server"):
        assert project.get(Deployment, name).status.availableReplicas == 2
    with pytest.raises(ApiError, match="not found"):
        project.get(NetworkPolicy, "mern-client")


def take_the_objects_out_of_the_view(project: Project) -> None:
    """Rows go, and nothing else: neither Helm nor the cluster is touched."""
    before = versions(project)
    project.configure(release={"showObjects": False})
    run = project.up()
    assert run.ok, run.output
    assert run.changes == {("delete", name) for _, name in run.object_changes}, run.output
    assert not [item for item in project.state() if item["type"].startswith("helm:apps")]
    assert versions(project) == before


# -- refused before anything is registered ------------------------------------------------------------


def test_a_wrong_config_wrong_values_and_a_broken_chart_end_in_one_message_before_anything_is_registered(
    project: Project,
) -> None:
    right = project.config_file.read_text()
    providers = {"pulumi:pulumi:Stack", "pulumi:providers:kubernetes"}

    def refused(run: Run, *words: str) -> set[str]:
        """The types of what was registered."""
        assert not run.ok
        for word in words:
            assert word in run.output
        assert "Traceback" not in run.output
        for secret in project.secrets.values():
            assert secret not in run.output
        # Not the engine's own provider, by which the program reads what the stack holds.
        return {urn.split("::")[2] for urn in run.operations} - {"pulumi:providers:pulumi"}

    project.configure(
        awsAccessKeyId=None,
        naemspace={"name": "x"},
        release={"timeout": "soon"},
        namespace={"name": "Not_A_Name"},
    )
    registered = refused(
        project.preview(),
        "mern:naemspace is not a key of this project; did you mean mern:namespace?",
        "mern:release.timeout should be a whole number",
        "mern:namespace.name is not a name of at most 63",
        f"pulumi config set --secret mern:awsAccessKeyId --stack {project.stack}",
    )
    assert registered == {"pulumi:pulumi:Stack"}

    project.config_file.write_text(right)
    project.configure(
        values={
            "mernClient": {"replicas": "many"},
            "mernServer": {"servce": {}},
            "ingress": {"scheme": "somewhere"},
        }
    )
    registered = refused(project.preview(), "/mernClient/replicas", "servce", "/ingress/scheme")
    assert registered == providers

    project.config_file.write_text(right)
    project.edit("templates/mern-client.yaml", "{{", "{{ nosuchfunction }}{{")
    refused(project.up(), "templates/mern-client.yaml", "nosuchfunction")
    assert project.registered() - {"pulumi:providers:pulumi"} == providers


def test_a_wait_that_is_too_short_for_a_rollout_without_downtime_is_refused(helm: str) -> None:
    objects = Chart(helm).render().objects

    def check(timeout: int) -> None:
        plan: Any = SimpleNamespace(objects=objects, args=SimpleNamespace(timeout=timeout))
        mern_application._require_sufficient_timeout(plan)

    with pytest.raises(pulumi.RunError, match="mern-client 190 s, mern-server 190 s"):
        check(189)
    check(190)


# -- another program ----------------------------------------------------------------------------------

TWO_RELEASES = """
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from components.release import Api, ChartRelease, ReleaseArgs, plan_release

kubeconfig = Path({kubeconfig!r}).read_text()
provider = kubernetes.Provider("cluster", kubeconfig=pulumi.Output.secret(kubeconfig))
values = json.loads(Path("values.json").read_text())
for name in ("one", "two"):
    args = ReleaseArgs(chart="./chart", name=name, namespace={namespace!r}, values=values[name])
    plan = plan_release(args, provider, Api(yaml.safe_load(kubeconfig)))
    ChartRelease(name, plan, pulumi.ResourceOptions(provider=provider, protect=True))
"""
EXTRA = """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-extra"}
"""
LARGE = {
    "greeting": BEYOND_THE_BASIC_PLANE,
    "large": "".join(f"{number} {BEYOND_THE_BASIC_PLANE}\n" for number in range(4000)),
}
"""About 200 kB; in a stack's config, where Pulumi takes no more than 128 kB, it would have no place."""


def test_two_protected_releases_in_one_program_are_told_apart_and_large_values_get_through(
    project: Project,
) -> None:
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "tests/charts/other", project.folder / "chart")
    extra = project.folder / "chart/templates/extra.yaml"
    extra.write_text(EXTRA)
    values: Any = {"one": {"settings": LARGE}, "two": {}}
    (project.folder / "values.json").write_text(json.dumps(values))
    kubeconfig = str(project.cluster.kubeconfig)
    project.program(TWO_RELEASES.format(kubeconfig=kubeconfig, namespace=project.namespace))
    run = project.up()
    assert run.ok, run.output
    assert {item.metadata.name for item in project.list(Deployment)} == {"one", "two"}
    assert {"one-extra", "two-extra"} <= {item.metadata.name for item in project.list(ConfigMap)}
    assert_no_character_is_lost(project)
    run = project.preview("--diff")
    assert (run.ok, run.changes) == (True, set()), run.output

    extra.unlink()
    run = project.up()
    assert run.ok, run.output
    assert run.object_changes == {("delete", "ConfigMap one-extra"), ("delete", "ConfigMap two-extra")}
    left = {item.metadata.name for item in project.list(ConfigMap)}
    assert {"one", "two"} <= left
    assert not {"one-extra", "two-extra"} & left


def assert_no_character_is_lost(project: Project) -> None:
    """In the cluster, in Helm's record and in Pulumi's state."""
    stored = record.newest(
        Api(yaml.safe_load(project.cluster.kubeconfig.read_text())), "one", project.namespace
    )
    assert stored
    [manifest] = [
        item for item in stored.objects() if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "one")
    ]
    state = {item["urn"].rpartition("$")[2]: item["inputs"] for item in project.state() if "inputs" in item}
    for where, data in {
        "the cluster": project.get(ConfigMap, "one").data,
        "the values in Helm's record": stored.values["settings"],
        "the objects in Helm's record": manifest["data"],
        "the values in Pulumi's state": state["kubernetes:helm.sh/v3:Release::one"]["values"]["settings"],
        "the object in Pulumi's state": state[f"helm:core/v1:ConfigMap::one/{project.namespace}/one"]["data"],
    }.items():
        assert data == LARGE, where


# -- credentials in a Secret of somebody else -----------------------------------------------------------


def test_pods_take_their_credentials_from_a_secret_of_somebody_else_and_restart_with_its_data(
    project: Project,
) -> None:
    client = project.cluster.client
    client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    meta = {"name": "vault", "namespace": project.namespace}
    client.create(Secret.from_dict({"metadata": meta, "stringData": {"MONGODB_URI": "mongodb://a"}}))
    vault = {"existingSecret": "vault"}
    project.configure(namespace={"mode": "existing"}, values={"mernServer": vault, "pythonScript": vault})
    project.secrets.clear()
    run = project.up()
    assert run.ok, run.output
    container = project.get(Deployment, "mern-server").spec.template.spec.containers[0]
    taken = {source.secretRef.name for source in container.envFrom or [] if source.secretRef}
    taken |= {
        e.valueFrom.secretKeyRef.name for e in container.env or [] if e.valueFrom and e.valueFrom.secretKeyRef
    }
    assert taken == {"vault"}
    names = {item.metadata.name for item in project.list(Secret)}
    assert {name for name in names if not name.startswith("sh.helm.")} == {"vault"}

    before = {item.metadata.name for item in project.list(ReplicaSet)}
    client.patch(Secret, "vault", {"stringData": {"MONGODB_URI": "mongodb://b"}}, namespace=project.namespace)
    project.edit("Chart.yaml", "version: 0.1.0", "version: 0.2.0")  # which shows no object, and restarts none
    run = project.up()
    assert run.ok, run.output
    assert run.object_changes == {("update", "Deployment mern-server")}
    new = {item.metadata.name for item in project.list(ReplicaSet)} - before
    assert [name.rsplit("-", 1)[0] for name in new] == ["mern-server"]
    assert "mongodb://b" not in run.output + run.events + project.raw_state()


def test_the_checksum_of_somebody_elses_secret_is_that_of_its_data(
    cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace, said = "vaults", list[str]()
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    client = cluster.client
    client.create(Namespace.from_dict({"metadata": {"name": namespace}}))

    def checksum() -> str:
        values: dict[str, Any] = {"mernServer": {"existingSecret": "vault"}}
        return existing_secret_checksum(values, namespace, api, "mern")

    assert checksum() == ""
    [warning] = said
    assert "Secret vault, which mern:values mernServer.existingSecret names, could not be read" in warning
    assert warning.endswith("pods wait until it is there")
    meta = {"name": "vault", "namespace": namespace}
    client.create(Secret.from_dict({"metadata": meta, "stringData": {"MONGODB_URI": "mongodb://a"}}))
    first = checksum()
    client.patch(Secret, "vault", {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
    assert checksum() == first != ""
    client.patch(Secret, "vault", {"stringData": {"MONGODB_URI": "mongodb://b"}}, namespace=namespace)
    assert checksum() not in (first, "")
    client.delete(Namespace, namespace)
