"""values.yaml and values.schema.json: complete, closed and in agreement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, Chart
from tests.chart.value_strategies import SCHEMA, resolved

DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def properties(schema: Any, path: str = "") -> Iterator[str]:
    for name, below in resolved(schema).get("properties", {}).items():
        yield f"{path}.{name}".lstrip(".")
        yield from properties(below, f"{path}.{name}")


def keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, below in values.items():
        yield f"{path}.{name}".lstrip(".")
        if isinstance(below, dict):
            yield from keys(below, f"{path}.{name}")


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything in the schema that describes an object, with the name it has there."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield name, schema
        for key, below in schema.items():
            yield from objects(below, name if key == "items" else key)


# What is Kubernetes' own, several levels deep, and checked by its API server.
KUBERNETES_OWN = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
    *("ipBlock", "namespaceSelector", "podSelector", "ports"),
}


# Optional by nature: nothing is a sensible default for them.
WITHOUT_DEFAULT = re.compile(
    r"global|.*\.ephemeral-storage|.*\.autoscaling\.behavior\..*|.*\.service\.healthCheck\..*"
)


def test_every_value_in_the_schema_has_a_default_and_the_other_way_round() -> None:
    described = {path for path in properties(SCHEMA) if not WITHOUT_DEFAULT.fullmatch(path)}
    assert described == set(keys(DEFAULTS))


def test_every_object_of_the_schema_is_closed() -> None:
    opened = {name for name, found in objects(SCHEMA) if found.get("additionalProperties", True)}
    assert opened == {"global"} | KUBERNETES_OWN


def test_every_default_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    unexplained = []
    for number, line in enumerate(lines):
        is_value = re.match(r"\s*[A-Za-z-]+:\s+\S", line) or line.rstrip().endswith("Paths:")
        if is_value and not lines[number - 1].lstrip().startswith("#"):
            unexplained.append(line.strip())
    assert unexplained == []


def test_the_readme_lists_every_value_with_its_default() -> None:
    readme = (CHART / "README.md").read_text()
    for line in readme.splitlines():
        if found := re.match(r"\| (\w+\.?[\w.]*) \| (\w+) \| `(.*?)` \|", line):
            value: Any = DEFAULTS
            for name in found[1].split("."):
                value = value[name]
            assert (None if found[3] == "nil" else json.loads(found[3])) == value, line
    groups = {path.rpartition(".")[0] for path in keys(DEFAULTS)}
    for path in set(keys(DEFAULTS)) - groups:
        assert f"| {path} |" in readme, path


def test_a_misspelt_value_is_refused_by_name(chart: Chart) -> None:
    refusal = chart.refusal({"mernServer": {"replica": 3}})
    assert "mernServer" in refusal
    assert "'replica'" in refusal


def test_all_faults_are_reported_together(chart: Chart) -> None:
    refusal = chart.refusal(
        {
            "mernCleint": {},
            "podSecurity": "none",
            "mernClient": {"replicas": "3", "image": {"tag": "a b"}},
            "mernServer": {"containerPort": 70000},
            "ingress": {"enabled": "yes"},
        }
    )
    for expected in (
        "'mernCleint'",
        "/podSecurity",
        "/mernClient/replicas",
        "/mernClient/image/tag",
        "/mernServer/containerPort",
        "/ingress/enabled",
    ):
        assert expected in refusal


def test_contradictions_are_reported_together(chart: Chart) -> None:
    wrong = {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}
    refusal = chart.refusal(
        {"mernClient": wrong, "mernServer": wrong, "pythonScript": {"awsAccessKeyId": ""}}
    )
    assert "mernClient.autoscaling.minReplicas (5) is above maxReplicas (2)" in refusal
    assert "mernServer.autoscaling.minReplicas (5) is above maxReplicas (2)" in refusal
    assert "belong together" in refusal


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mernClient.image.repository", ""),
        ("mernClient.image.repository", "registry.example/client:v1"),
        ("mernClient.image.tag", 1.5),
        ("mernServer.image.pullPolicy", "always"),
        ("mernClient.replicas", -1),
        ("mernClient.replicas", None),
        ("mernServer.resources.limits.memory", "256MB"),
        ("mernServer.resources.limits.gpu", 1),
        ("mernServer.resources.requests.cpu", -1),
        ("mernServer.autoscaling.minReplicas", 0),
        ("mernServer.autoscaling.enabled", "true"),
        ("mernServer.autoscaling.targetCPUUtilizationPercentage", 0),
        ("mernServer.service.port", 0),
        ("mernServer.probes.path", "health"),
        ("mernServer.env", {"NODE-ENV": "x"}),
        ("mernServer.env", {"PORT": 5000}),
        ("mernServer.env", ["A=b"]),
        ("mernServer.runAsUser", 0),
        ("mernServer.serviceAccount.annotations", {"a b": "c"}),
        ("pythonScript.awsRegion", "Frankfurt"),
        ("pythonScript", None),
    ],
)
def test_a_wrong_value_is_refused(chart: Chart, path: str, value: Any) -> None:
    values: Any = value
    for name in reversed(path.split(".")):
        values = {name: values}
    refusal = chart.refusal(values)
    assert path.split(".", maxsplit=1)[0] in refusal


@pytest.mark.parametrize("quantity", [1, 0.5, "250m", "1.5Gi", "128974848"])
def test_a_quantity_is_anything_kubernetes_takes(chart: Chart, quantity: Any) -> None:
    rendered = chart.render(
        {"mernClient": {"resources": {"requests": {"memory": 0}, "limits": {"memory": quantity}}}}
    )
    (container,) = rendered.pod("Deployment", "mern-client")["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == quantity


def test_globals_that_helm_hands_to_every_chart_are_no_fault(chart: Chart) -> None:
    assert chart.render({"global": {"anything": 1}}).objects
