"""The autoscaler beyond its CPU default."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import Chart, Object


def autoscaler(chart: Chart, autoscaling: dict[str, Any]) -> Object:
    values = {"mernServer": {"autoscaling": {"enabled": True, **autoscaling}}}
    found: Object = chart.render(values).one("HorizontalPodAutoscaler", "mern-server")["spec"]
    return found


def targets(spec: Object) -> dict[str, int]:
    return {
        metric["resource"]["name"]: metric["resource"]["target"]["averageUtilization"]
        for metric in spec["metrics"]
    }


def test_memory_is_looked_at_beside_cpu_or_instead(chart: Chart) -> None:
    both = autoscaler(chart, {"targetMemoryUtilizationPercentage": 80})
    assert targets(both) == {"cpu": 70, "memory": 80}
    only = {"targetCPUUtilizationPercentage": None, "targetMemoryUtilizationPercentage": 80}
    assert targets(autoscaler(chart, only)) == {"memory": 80}


def test_the_speed_of_scaling_is_passed_on(chart: Chart) -> None:
    behavior = {
        "scaleDown": {
            "stabilizationWindowSeconds": 600,
            "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        }
    }
    assert autoscaler(chart, {"behavior": behavior})["behavior"] == behavior
    assert "behavior" not in autoscaler(chart, {})


@pytest.mark.parametrize("resource", ["cpu", "memory"])
def test_a_percentage_of_no_request_is_refused(chart: Chart, resource: str) -> None:
    refusal = chart.refusal(
        {
            "mernServer": {
                "autoscaling": {"enabled": True, "targetMemoryUtilizationPercentage": 80},
                "resources": {"requests": {resource: None}, "limits": {resource: None}},
            }
        }
    )
    assert f"mernServer.autoscaling aims at a percentage of the {resource} request" in refusal


def test_a_limit_alone_is_a_request_too(chart: Chart) -> None:
    values = {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}
    assert chart.render({"mernServer": values}).kind("HorizontalPodAutoscaler")


def test_an_autoscaler_with_nothing_to_go_by_is_refused(chart: Chart) -> None:
    nothing = {"enabled": True, "targetCPUUtilizationPercentage": None}
    assert "has nothing to go by" in chart.refusal({"mernServer": {"autoscaling": nothing}})


def test_bounds_that_are_not_used_are_no_contradiction(chart: Chart) -> None:
    assert chart.render({"mernServer": {"autoscaling": {"minReplicas": 9, "maxReplicas": 1}}})


@pytest.mark.parametrize(
    "behavior",
    [
        {"scaleup": {}},
        {"scaleUp": {"policies": [{"type": "Nodes", "value": 1, "periodSeconds": 60}]}},
        {"scaleUp": {"policies": [{"type": "Pods", "value": 1}]}},
        {"scaleDown": {"stabilizationWindowSeconds": 3601}},
    ],
)
def test_a_broken_behavior_is_refused(chart: Chart, behavior: dict[str, Any]) -> None:
    refusal = chart.refusal({"mernClient": {"autoscaling": {"behavior": behavior}}})
    assert "/mernClient/autoscaling/behavior" in refusal
