"""mern-client and mern-server: two parts from one set of templates."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Chart

PARTS = {"client": "mernClient", "server": "mernServer"}
each_part = pytest.mark.parametrize(("name", "key"), PARTS.items(), ids=PARTS.keys())


def test_a_plain_release_holds_exactly_the_promised_objects(chart: Chart) -> None:
    assert chart.render().names() == {
        "ServiceAccount/mern-client",
        "Deployment/mern-client",
        "Service/mern-client",
        "PodDisruptionBudget/mern-client",
        "Pod/mern-client-test",
        "ServiceAccount/mern-server",
        "Deployment/mern-server",
        "Service/mern-server",
        "PodDisruptionBudget/mern-server",
        "Pod/mern-server-test",
        "Secret/mern-server",
        "ServiceAccount/mern-python-script",
        "CronJob/mern-python-script",
        "Secret/mern-python-script",
        "Ingress/mern",
    }


@each_part
def test_image_replicas_resources_and_ports_are_those_of_the_values(
    chart: Chart, name: str, key: str
) -> None:
    resources = {
        "requests": {"cpu": "250m", "memory": "64Mi"},
        "limits": {"cpu": 2, "memory": "1Gi"},
    }
    image = {
        "repository": f"registry.example:5000/shop/{name}",
        "tag": "7f3a",
        "pullPolicy": "Always",
    }
    rendered = chart.render(
        {
            key: {
                "image": image,
                "replicas": 5,
                "resources": resources,
                "containerPort": 8080,
                "service": {"port": 8000},
                "env": {"NODE_ENV": "production"},
            }
        }
    )

    deployment = rendered.one("Deployment", f"mern-{name}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = rendered.one("Service", f"mern-{name}")["spec"]["ports"]
    assert deployment["spec"]["replicas"] == 5
    assert container["image"] == f"registry.example:5000/shop/{name}:7f3a"
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"] == resources
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert container["env"] == [{"name": "NODE_ENV", "value": "production"}]
    assert (port["port"], port["targetPort"]) == (8000, "http")


@each_part
def test_zero_replicas_are_zero_and_not_the_default(chart: Chart, name: str, key: str) -> None:
    rendered = chart.render({key: {"replicas": 0}})
    assert rendered.one("Deployment", f"mern-{name}")["spec"]["replicas"] == 0


@each_part
def test_an_image_without_a_tag_takes_the_charts_app_version(chart: Chart, name: str, key: str) -> None:
    pod = chart.render().pod("Deployment", f"mern-{name}")
    assert pod["spec"]["containers"][0]["image"] == f"mern-{name}:1.0.0"


@each_part
def test_every_probe_asks_for_the_health_path(chart: Chart, name: str, key: str) -> None:
    (container,) = chart.render().pod("Deployment", f"mern-{name}")["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


@each_part
def test_without_autoscaling_there_is_no_autoscaler(chart: Chart, name: str, key: str) -> None:
    assert chart.render().kind("HorizontalPodAutoscaler") == []


@each_part
def test_the_autoscaler_owns_the_number_of_pods_when_it_is_on(chart: Chart, name: str, key: str) -> None:
    autoscaling = {
        "enabled": True,
        "minReplicas": 3,
        "maxReplicas": 9,
        "targetCPUUtilizationPercentage": 55,
    }
    rendered = chart.render({key: {"replicas": 4, "autoscaling": autoscaling}})

    assert "replicas" not in rendered.one("Deployment", f"mern-{name}")["spec"]
    (autoscaler,) = rendered.kind("HorizontalPodAutoscaler")
    assert autoscaler["apiVersion"] == "autoscaling/v2"
    assert autoscaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": f"mern-{name}",
    }
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (3, 9)
    assert autoscaler["spec"]["metrics"] == [
        {
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 55},
            },
        }
    ]


def test_client_and_server_differ_only_by_their_names_and_secrets(chart: Chart) -> None:
    same = {
        "image": {"repository": "mern"},
        "containerPort": 8080,
        "resources": {"requests": {"cpu": 1, "memory": 1}, "limits": {"cpu": 1, "memory": 1}},
    }
    rendered = chart.render({"mernClient": same, "mernServer": same})
    client = rendered.one("Deployment", "mern-client")
    server = rendered.one("Deployment", "mern-server")

    del server["spec"]["template"]["metadata"]["annotations"]
    del server["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert str(client) == str(server).replace("server", "client")


def test_no_container_may_gain_privileges_by_default(chart: Chart) -> None:
    pods = chart.render().pods()
    assert len(pods) == 5
    for pod in pods:
        assert pod["spec"]["securityContext"] == {
            "seccompProfile": {"type": "RuntimeDefault"},
            "runAsNonRoot": True,
            "runAsUser": 1000,
        }
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_one_value_lets_images_that_need_root_run(chart: Chart) -> None:
    for pod in chart.render({"podSecurity": "baseline"}).pods():
        assert pod["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False}


def test_the_user_id_can_be_left_to_the_image(chart: Chart) -> None:
    rendered = chart.render({"mernClient": {"runAsUser": None}, "mernServer": {"runAsUser": 101}})
    client = rendered.pod("Deployment", "mern-client")["spec"]["securityContext"]
    server = rendered.pod("Deployment", "mern-server")["spec"]["securityContext"]
    assert "runAsUser" not in client
    assert client["runAsNonRoot"] is True
    assert server["runAsUser"] == 101


def test_every_part_has_its_own_account_without_a_token(chart: Chart) -> None:
    rendered = chart.render()
    for kind, name in (
        ("Deployment", "mern-client"),
        ("Deployment", "mern-server"),
        ("CronJob", "mern-python-script"),
    ):
        pod = rendered.pod(kind, name)
        assert pod["spec"]["serviceAccountName"] == name
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert rendered.one("ServiceAccount", name)["automountServiceAccountToken"] is False


def test_an_account_carries_the_annotations_it_is_given(chart: Chart) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/mern-server"}
    rendered = chart.render({"mernServer": {"serviceAccount": {"annotations": role}}})
    assert rendered.one("ServiceAccount", "mern-server")["metadata"]["annotations"] == role
    assert "annotations" not in rendered.one("ServiceAccount", "mern-client")["metadata"]
