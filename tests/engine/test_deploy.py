"""From a stack's config to objects in a real API server, through the real engine and the real Helm."""

import base64
import shutil
from typing import Any

import pulumi
import pytest
from lightkube import ApiError
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace, Secret, Service
from lightkube.resources.networking_v1 import Ingress
from pydantic import SecretStr

from components.cluster import connect
from components.release import ChartRelease, ReleaseArgs, plan_release
from settings import ClusterSettings
from tests.conftest import FOLDER
from tests.engine.conftest import Project


def versions(project: Project) -> dict[str, Any]:
    """What changes when someone writes to an object that Helm deployed."""
    kinds = (Deployment, Service, Secret, CronJob, Ingress)
    return {
        f"{item.kind or kind.__name__} {item.metadata.name}": item.metadata.generation
        or item.metadata.resourceVersion
        for kind in kinds
        for item in project.list(kind)
        if not item.metadata.name.startswith("sh.helm.")
    }


def test_up_deploys_what_the_config_says_and_a_second_up_changes_nothing(project: Project) -> None:
    project.configure(
        imageTag="2.3.4",
        values={
            "mernClient": {"replicas": 3},
            "mernServer": {"replicas": 1},
            "pythonScript": {"schedule": "*/5 * * * *"},
        },
    )
    first = project.up()
    assert first.ok, first.output
    client, server = project.get(Deployment, "mern-client"), project.get(Deployment, "mern-server")
    assert client.status.availableReplicas == 3
    assert server.status.availableReplicas == 1
    assert client.spec.template.spec.containers[0].image.endswith(":2.3.4")
    script = project.get(CronJob, "mern-python-script")
    assert script.spec.schedule == "*/5 * * * *"
    held = project.get(Secret, "mern-server").data
    assert base64.b64decode(held["MONGODB_URI"]).decode() == project.secrets["mern:mongodbUri"]
    ingress = project.get(Ingress, "mern")
    assert ingress.metadata.annotations["alb.ingress.kubernetes.io/healthcheck-path"] == "/health"
    backends = {p.backend.service.name for r in ingress.spec.rules for p in r.http.paths}
    assert backends == {"mern-client", "mern-server"}

    before = versions(project)
    second = project.up()
    assert second.ok, second.output
    assert second.changes == set()
    assert versions(project) == before


def test_a_changed_value_is_shown_as_just_the_objects_that_change(project: Project) -> None:
    assert project.up().ok
    before = versions(project)
    project.configure(values={"mernServer": {"replicas": 3}})
    preview = project.preview()
    assert preview.object_changes == {("update", "Deployment mern-server")}
    assert versions(project) == before
    assert project.up().object_changes == preview.object_changes
    after = versions(project)
    assert {name for name in after if after[name] != before[name]} == {"Deployment mern-server"}
    assert project.get(Deployment, "mern-server").status.availableReplicas == 3


def test_an_edited_template_is_a_change_and_is_deployed(project: Project) -> None:
    assert project.up().ok
    project.edit("templates/ingress.yaml", "kind: Ingress\n", "kind: Ingress\n# edited\n")
    preview = project.preview()
    assert ("update", "Release mern") in preview.changes
    assert preview.object_changes == set()
    assert project.up().ok
    stored = [s for s in project.list(Secret) if s.metadata.name.startswith("sh.helm.release")]
    assert len(stored) == 2
    assert project.up().changes == set()


def test_the_same_chart_at_another_path_is_no_change(project: Project) -> None:
    assert project.up().ok
    moved = project.folder.with_name(f"{project.folder.name}-moved")
    shutil.rmtree(moved, ignore_errors=True)
    project.folder.rename(moved)
    for file in (moved / "chart").rglob("*.tpl"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    project.folder = moved
    assert project.preview().changes == set()


def test_a_chart_that_cannot_be_rendered_stops_before_anything_is_registered(
    project: Project,
) -> None:
    project.edit("templates/mern-client.yaml", "{{", "{{ nosuchfunction }}{{")
    run = project.up()
    assert not run.ok
    assert "templates/mern-client.yaml" in run.output
    assert "nosuchfunction" in run.output
    assert "Traceback" not in run.output
    assert project.registered() == {"pulumi:pulumi:Stack", "pulumi:providers:kubernetes"}


def test_a_preview_names_all_faults_of_the_values_at_once(project: Project) -> None:
    project.configure(
        values={
            "mernClient": {"replicas": "many"},
            "mernServer": {"servce": {}},
            "ingress": {"scheme": "somewhere"},
        }
    )
    run = project.preview()
    assert not run.ok
    for word in ("/mernClient/replicas", "servce", "/ingress/scheme"):
        assert word in run.output
    assert "Traceback" not in run.output
    for secret in project.secrets.values():
        assert secret not in run.output
    assert {urn.split("::")[2] for urn in run.operations} == {
        "pulumi:pulumi:Stack",
        "pulumi:providers:kubernetes",
    }


def test_wrong_config_ends_in_one_message_that_lists_all_of_it(project: Project) -> None:
    project.secrets.pop("mern:awsAccessKeyId")
    project.configure(naemspace={"name": "x"}, release={"timeout": "soon"}, namespace={"name": "Not_A_Name"})
    run = project.preview()
    assert not run.ok
    assert "mern:naemspace is not a key of this project; did you mean mern:namespace?" in run.output
    assert "mern:release.timeout should be a whole number" in run.output
    assert "mern:namespace.name is not a name of at most 63" in run.output
    assert f"pulumi config set --secret mern:awsAccessKeyId --stack {project.stack}" in run.output
    assert "Traceback" not in run.output
    assert {urn.split("::")[2] for urn in run.operations} == {"pulumi:pulumi:Stack"}


def test_a_changed_secret_is_masked_and_restarts_just_the_pods_that_use_it(
    project: Project,
) -> None:
    project.secrets["mern:serverSecrets"] = '{"SESSION_KEY": "first-canary"}'
    assert project.up().ok
    before = {item.metadata.name for item in project.list(ReplicaSet)}
    project.set_secret("mern:serverSecrets", '{"SESSION_KEY": "second-canary"}')
    preview = project.preview(diff=True)
    assert ("update", "Secret mern-server") in preview.object_changes
    assert ("update", "Deployment mern-server") in preview.object_changes
    assert "Deployment mern-client" not in str(preview.object_changes)
    run = project.up()
    assert run.ok, run.output
    assert base64.b64decode(project.get(Secret, "mern-server").data["SESSION_KEY"]) == (b"second-canary")
    new = {item.metadata.name for item in project.list(ReplicaSet)} - before
    assert [name.rsplit("-", 1)[0] for name in new] == ["mern-server"]
    encoded = base64.b64encode(b"second-canary").decode()
    for seen in (preview.output, run.output, project.raw_state()):
        assert "canary" not in seen
        assert encoded not in seen


def test_after_a_failed_up_the_old_version_serves_and_the_preview_says_what_is_missing(
    project: Project,
) -> None:
    assert project.up().ok
    project.configure(
        release={"timeout": 4},
        values={"mernServer": {"resources": {"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}}},
    )
    preview = project.preview()
    assert preview.object_changes == {("update", "Deployment mern-server")}
    assert not project.up().ok
    assert project.get(Deployment, "mern-server").status.availableReplicas == 2
    assert project.preview().object_changes == preview.object_changes
    project.configure(
        values={"mernServer": {"resources": {"requests": {"cpu": "1"}}}}, release={"timeout": 30}
    )
    assert project.up().ok
    assert project.up().changes == set()


def test_an_object_that_leaves_the_chart_is_shown_as_deleted_and_is_gone(project: Project) -> None:
    project.configure(values={"mernClient": {"autoscaling": {"enabled": True}}})
    assert project.up().ok
    assert project.get(HorizontalPodAutoscaler, "mern-client").spec.minReplicas >= 1
    project.configure(values={"mernClient": {"autoscaling": {"enabled": False}}})
    preview = project.preview()
    assert ("delete", "HorizontalPodAutoscaler mern-client") in preview.object_changes
    assert project.up().ok
    with pytest.raises(ApiError, match="not found"):
        project.get(HorizontalPodAutoscaler, "mern-client")


def releases(project: Project, hpa: bool, **opts: Any) -> None:
    """A program of somebody else: two releases of one chart, side by side."""
    context = "kwok-mern"
    config = ClusterSettings.model_validate({"kubeconfig": str(FOLDER / "kubeconfig"), "context": context})
    cluster = connect(config, None)
    for name in ("one", "two"):
        values = {
            "mernClient": {"autoscaling": {"enabled": hpa}},
            "mernServer": {"mongodbUri": SecretStr("mongodb://one.invalid")},
            "pythonScript": {"mongodbUri": SecretStr("mongodb://two.invalid")},
        }
        args = ReleaseArgs(chart="./chart", name=name, namespace=project.namespace, values=values)
        plan = plan_release(args, cluster.provider, cluster.api)
        ChartRelease(name, plan, pulumi.ResourceOptions(provider=cluster.provider, **opts))


def test_two_protected_releases_in_one_program_are_told_apart(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = project.cluster.client
    client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    monkeypatch.chdir(project.folder)
    project.program = lambda: releases(project, hpa=True, protect=True)
    run = project.up()
    assert run.ok, run.output
    assert {item.metadata.name for item in project.list(Deployment)} == {
        f"{release}-{part}" for release in ("one", "two") for part in ("client", "server")
    }
    project.program = lambda: releases(project, hpa=False, protect=True)
    run = project.up()
    assert run.ok, run.output
    assert {c for c in run.object_changes if c[0] == "delete"} == {
        ("delete", f"HorizontalPodAutoscaler {release}-client") for release in ("one", "two")
    }
    assert project.list(HorizontalPodAutoscaler) == []


def test_objects_are_not_shown_when_that_is_switched_off(project: Project) -> None:
    project.configure(release={"showObjects": False})
    assert project.up().ok
    assert not [item for item in project.state() if item["type"].startswith("helm:apps")]
    assert project.get(Deployment, "mern-client").status.availableReplicas == 2


def test_without_an_image_tag_what_runs_stays(project: Project) -> None:
    project.configure(imageTag="7.7.7")
    assert project.up().ok
    project.configure(imageTag=None)
    run = project.preview()
    assert run.object_changes == set()
    assert "images stay as in revision 1" in run.output
    assert "mernClient 7.7.7" in run.output


def test_an_existing_namespace_only_gets_labels_and_survives_destroy(project: Project) -> None:
    client = project.cluster.client
    labels = {"team": "platform"}
    client.create(Namespace.from_dict({"metadata": {"name": project.namespace, "labels": labels}}))
    project.configure(namespace={"mode": "existing"})
    run = project.up()
    assert run.ok, run.output
    label = "elbv2.k8s.aws/pod-readiness-gate-inject"
    found = client.get(Namespace, project.namespace).metadata.labels
    assert found[label] == "enabled"
    assert found["team"] == "platform"
    assert project.destroy().ok
    left = client.get(Namespace, project.namespace)
    assert left.status.phase == "Active"
    assert label not in left.metadata.labels
    assert left.metadata.labels["team"] == "platform"


def test_destroy_leaves_nothing(project: Project) -> None:
    assert project.up().ok
    run = project.destroy()
    assert run.ok, run.output
    assert project.state() == []
    assert project.list(Deployment) == []
    namespaces = [item.metadata.name for item in project.cluster.client.list(Namespace)]
    assert project.namespace not in namespaces


def test_pods_can_take_their_credentials_from_a_secret_of_somebody_else(project: Project) -> None:
    project.configure(
        values={"mernServer": {"existingSecret": "vault"}, "pythonScript": {"existingSecret": "vault"}}
    )
    project.secrets.clear()
    run = project.up()
    assert run.ok, run.output
    container = project.get(Deployment, "mern-server").spec.template.spec.containers[0]
    taken = {source.secretRef.name for source in container.envFrom or [] if source.secretRef}
    taken |= {
        e.valueFrom.secretKeyRef.name for e in container.env or [] if e.valueFrom and e.valueFrom.secretKeyRef
    }
    assert taken == {"vault"}
    assert not [s for s in project.list(Secret) if not s.metadata.name.startswith("sh.helm.")]


def test_the_server_restarts_when_the_secret_of_somebody_else_has_other_data(project: Project) -> None:
    def template() -> Any:
        return project.get(Deployment, "mern-server").spec.template.to_dict()

    client = project.cluster.client
    meta = {"name": "vault", "namespace": project.namespace}
    client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    project.configure(namespace={"mode": "existing"}, values={"mernServer": {"existingSecret": "vault"}})
    first = project.up()
    assert first.ok, first.output
    assert (
        "Secret vault, which mern:values mernServer.existingSecret names, could not be read" in first.output
    )
    client.create(Secret.from_dict({"metadata": meta, "stringData": {"MONGODB_URI": "mongodb://a"}}))
    assert project.up().ok
    before = template()

    client.patch(Secret, "vault", {"metadata": {"labels": {"a": "b"}}}, namespace=project.namespace)
    assert project.up().changes == set()
    client.patch(Secret, "vault", {"stringData": {"MONGODB_URI": "mongodb://b"}}, namespace=project.namespace)
    seen = project.preview()
    done = project.up()

    assert seen.object_changes == {("update", "Deployment mern-server")}
    assert done.ok, done.output
    assert template() != before
    assert "mongodb://b" not in done.output + project.raw_state()


def test_a_wait_that_is_too_short_for_a_rollout_without_downtime_is_refused(project: Project) -> None:
    project.configure(values={"ingress": {"zeroDowntime": {"enabled": True}}})
    run = project.preview()
    assert not run.ok
    assert "mern:release.timeout is 30 s" in run.output
    assert "mern-client 190 s, mern-server 190 s" in run.output
    assert "pulumi config set --path 'mern:release.timeout' 190" in run.output
    project.configure(release={"timeout": 190})
    assert project.preview().ok
