"""What every part's pods can be given: images, places, variables, volumes, network."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import Chart, Object, Rendered

DIGEST = "sha256:" + "0123456789abcdef" * 4
PODS = {
    "mernClient": ("Deployment", "mern-client"),
    "mernServer": ("Deployment", "mern-server"),
    "pythonScript": ("CronJob", "mern-python-script"),
}
each_part = pytest.mark.parametrize("key", PODS)


def pod(rendered: Rendered, key: str) -> Object:
    found: Object = rendered.pod(*PODS[key])["spec"]
    return found


@each_part
def test_an_image_by_digest_takes_no_tag(chart: Chart, key: str) -> None:
    image = {"repository": "registry.example/part", "digest": DIGEST, "pullSecrets": ["one", "two"]}
    rendered = chart.render({key: {"image": image}})
    assert pod(rendered, key)["containers"][0]["image"] == f"registry.example/part@{DIGEST}"
    assert pod(rendered, key)["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    labels = rendered.one(*PODS[key])["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == "sha256-0123456789ab"


@each_part
def test_a_tag_beside_a_digest_is_refused(chart: Chart, key: str) -> None:
    refusal = chart.refusal({key: {"image": {"tag": "v1", "digest": DIGEST}}})
    assert f"{key}.image has a tag and a digest" in refusal


@each_part
def test_pods_go_where_they_are_sent(chart: Chart, key: str) -> None:
    placed = {
        "priorityClassName": "important",
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    }
    spec = pod(chart.render({key: placed}), key)
    assert placed.items() <= spec.items()
    assert not placed.keys() & pod(chart.render(), key).keys()


def test_pods_of_one_revision_keep_apart(chart: Chart) -> None:
    rendered = chart.render({"mernServer": {"topologySpread": {"zone": "DoNotSchedule"}}})
    selector = rendered.one("Deployment", "mern-server")["spec"]["selector"]
    spread = {
        constraint.pop("topologyKey"): constraint
        for constraint in pod(rendered, "mernServer")["topologySpreadConstraints"]
    }
    common = {"maxSkew": 1, "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"]}
    assert spread == {
        "topology.kubernetes.io/zone": {**common, "whenUnsatisfiable": "DoNotSchedule"},
        "kubernetes.io/hostname": {**common, "whenUnsatisfiable": "ScheduleAnyway"},
    }


def test_pods_need_not_keep_apart(chart: Chart) -> None:
    nowhere = {"topologySpread": {"zone": "", "host": ""}}
    spec = pod(chart.render({"mernClient": nowhere}), "mernClient")
    assert "topologySpreadConstraints" not in spec


@each_part
def test_variables_and_volumes_are_added_as_in_a_pod(chart: Chart, key: str) -> None:
    added: dict[str, Any] = {
        "env": {"ONE": "1"},
        "extraEnv": [
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "LEVEL", "value": "debug"},
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "readOnlyRootFilesystem": True,
    }
    spec = pod(chart.render({key: added}), key)
    (container,) = spec["containers"]
    assert container["env"] == [{"name": "ONE", "value": "1"}, *added["extraEnv"]]
    assert spec["volumes"] == added["volumes"]
    assert container["volumeMounts"] == added["volumeMounts"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"extraEnv": [{"name": "JWT_SECRET", "value": "x"}]},
            "mernServer.extraEnv sets JWT_SECRET, which mernServer.secrets is for",
        ),
        (
            {"env": {"A": "1"}, "extraEnv": [{"name": "A", "value": "2"}]},
            "mernServer.extraEnv sets A, which mernServer.env is for or sets already",
        ),
        (
            {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
            "mernServer.volumeMounts mounts tmp, which is not in mernServer.volumes",
        ),
        (
            {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "secret": {}}]},
            "mernServer.volumes has two named a",
        ),
        ({"tolerations": [{"effect": "NoSchedule"}]}, "mernServer.tolerations[0] has no key"),
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "mernServer.tolerations[0] has a value, and operator Exists",
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 5}]},
            "mernServer.tolerations[0] has tolerationSeconds, which goes with effect NoExecute",
        ),
        (
            {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "900M"}}},
            "mernServer.resources.requests.memory (1Gi) is above the limit (900M)",
        ),
        (
            {"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}}},
            "mernServer.resources.requests.cpu (1500m) is above the limit (1)",
        ),
    ],
)
def test_a_pod_that_could_not_start_is_refused(chart: Chart, values: dict[str, Any], sentence: str) -> None:
    assert sentence in chart.refusal({"mernServer": values})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volumes", [{"name": "docker", "hostPath": {"path": "/var/run"}}]),
        ("volumes", [{"name": "nothing"}]),
        ("volumes", [{"name": "both", "emptyDir": {}, "secret": {}}]),
        ("volumeMounts", [{"name": "tmp", "mountPath": "tmp"}]),
        ("extraEnv", [{"name": "A"}]),
        ("extraEnv", [{"name": "A", "value": "1", "valueFrom": {}}]),
        ("extraEnv", [{"name": "A", "valueFrom": {"secretkeyref": {}}}]),
        ("nodeSelector", {"a": 1}),
        ("tolerations", [{"key": "a", "operator": "Equals"}]),
        ("image", {"digest": "sha256:1234"}),
        ("image", {"pullSecrets": [{"name": "registry"}]}),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_before(chart: Chart, field: str, value: Any) -> None:
    assert f"/pythonScript/{field}" in chart.refusal({"pythonScript": {field: value}})


def test_networks_are_open_by_default(chart: Chart) -> None:
    assert chart.render().kind("NetworkPolicy") == []


def test_a_closed_server_lets_in_its_port_and_lets_out_what_is_named(chart: Chart) -> None:
    database = {
        "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        "ports": [{"protocol": "TCP", "port": 27017}],
    }
    policy = {"enabled": True, "restrictEgress": True, "egress": [database]}
    rendered = chart.render({"mernServer": {"networkPolicy": policy}})
    (found,) = rendered.kind("NetworkPolicy")
    selector = rendered.one("Deployment", "mern-server")["spec"]["selector"]
    assert found["spec"]["podSelector"] == selector
    assert found["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert found["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": "http"}]}]
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert found["spec"]["egress"] == [dns, database]


def test_where_callers_are_named_the_releases_own_test_is_one_of_them(chart: Chart) -> None:
    balancer = {"ipBlock": {"cidr": "10.0.0.0/20"}}
    policy = {"enabled": True, "from": [balancer]}
    rendered = chart.render({"mernClient": {"networkPolicy": policy}})
    spec = rendered.one("NetworkPolicy", "mern-client")["spec"]
    first, test = spec["ingress"][0]["from"]
    labels = rendered.one("Pod", "mern-client-test")["metadata"]["labels"]
    assert first == balancer
    assert test["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec["policyTypes"] == ["Ingress"]


def test_a_closed_script_lets_nobody_in(chart: Chart) -> None:
    rendered = chart.render({"pythonScript": {"networkPolicy": {"enabled": True}}})
    spec = rendered.one("NetworkPolicy", "mern-python-script")["spec"]
    assert spec["ingress"] == []
    labels = rendered.pod("CronJob", "mern-python-script")["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_rules_that_would_have_no_effect_are_refused(chart: Chart) -> None:
    policy = {"enabled": True, "egress": [{"ports": [{"port": 443}]}]}
    refusal = chart.refusal({"pythonScript": {"networkPolicy": policy}})
    assert "everything is allowed while pythonScript.networkPolicy.restrictEgress is off" in refusal


@pytest.mark.parametrize("part", ["client", "server"])
def test_helm_test_asks_each_service_for_its_health(chart: Chart, part: str) -> None:
    key = f"mern{part.title()}"
    rendered = chart.render({key: {"service": {"port": 8080}, "probes": {"path": "/alive"}}})
    test = rendered.one("Pod", f"mern-{part}-test")
    (container,) = test["spec"]["containers"]
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["command"][-1] == f"http://mern-{part}:8080/alive"
    assert container["image"] == "python-script:1.0.0"
    assert "envFrom" not in container
    for service in rendered.kind("Service"):
        assert not service["spec"]["selector"].items() <= test["metadata"]["labels"].items()
