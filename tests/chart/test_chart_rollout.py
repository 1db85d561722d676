"""How pods start, are replaced and go: probes, and rollouts that lose no request."""

from __future__ import annotations

from typing import Any

import pytest

from components.release.values import merged
from tests.chart.rendering import Chart, Object, Rendered

ALB = "alb.ingress.kubernetes.io"
NO_BALANCER = {"ingress": {"enabled": False}}
NOT_ZERO = {"ingress": {"zeroDowntime": {"enabled": False}}}


def deployment(rendered: Rendered) -> Object:
    return rendered.one("Deployment", "mern-server")


def server(chart: Chart, values: dict[str, Any], beside: dict[str, Any] | None = None) -> Rendered:
    return chart.render(merged({"mernServer": values}, beside or {}))


def sleep_and_grace(rendered: Rendered) -> tuple[int, int]:
    pod = deployment(rendered)["spec"]["template"]["spec"]
    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    return sleep, pod["terminationGracePeriodSeconds"]


def test_every_probe_is_tunable_and_may_ask_for_a_path_of_its_own(chart: Chart) -> None:
    def tuned(path: str, number: int) -> dict[str, Any]:
        return {
            "path": path,
            "periodSeconds": number,
            "timeoutSeconds": number + 1,
            "failureThreshold": number + 2,
        }

    probes = {"startup": tuned("/up", 10), "readiness": tuned("/ready", 20)}
    probes["liveness"] = tuned("", 30)
    (container,) = deployment(server(chart, {"probes": probes}))["spec"]["template"]["spec"]["containers"]
    for name, path, number in (("startup", "/up", 10), ("readiness", "/ready", 20)):
        assert container[f"{name}Probe"] == {
            "httpGet": {"path": path, "port": "http"},
            "periodSeconds": number,
            "timeoutSeconds": number + 1,
            "failureThreshold": number + 2,
        }
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["livenessProbe"]["periodSeconds"] == 30


def test_a_slow_start_is_no_reason_to_restart(chart: Chart) -> None:
    (container,) = deployment(chart.render())["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def test_a_pod_outlasts_the_load_balancer_and_then_its_own_shutdown(chart: Chart) -> None:
    zero = {"ingress": {"zeroDowntime": {"propagationSeconds": 40, "drainSeconds": 25}}}
    rendered = server(chart, {"termination": {"shutdownSeconds": 15}}, zero)
    assert sleep_and_grace(rendered) == (65, 80)
    annotations = rendered.one("Ingress", "mern")["metadata"]["annotations"]
    assert annotations[f"{ALB}/target-group-attributes"] == "deregistration_delay.timeout_seconds=25"


def test_by_default_the_sleep_covers_what_load_balancers_were_seen_to_need(chart: Chart) -> None:
    sleep, grace = sleep_and_grace(chart.render())
    assert sleep >= 60 + 30
    assert grace >= sleep + 30


def test_a_new_pod_comes_before_an_old_one_goes(chart: Chart) -> None:
    rendered = chart.render()
    rolling = deployment(rendered)["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": "25%"}
    budget = rendered.one("PodDisruptionBudget", "mern-server")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment(rendered)["spec"]["selector"]


def test_without_a_load_balancer_only_the_clusters_own_delay_is_covered(chart: Chart) -> None:
    assert sleep_and_grace(chart.render(NO_BALANCER)) == (5, 35)
    assert sleep_and_grace(chart.render(NOT_ZERO)) == (5, 35)


def test_the_sleep_can_be_turned_off_where_nothing_needs_it(chart: Chart) -> None:
    rendered = server(chart, {"termination": {"preStopSleepSeconds": 0}}, NOT_ZERO)
    assert "lifecycle" not in deployment(rendered)["spec"]["template"]["spec"]["containers"][0]


def test_longer_than_needed_is_no_contradiction(chart: Chart) -> None:
    hand = {"preStopSleepSeconds": 120, "gracePeriodSeconds": 300}
    assert sleep_and_grace(server(chart, {"termination": hand})) == (120, 300)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        # start 2 s x 30 + 5 s, then twice 15 s of health checks: 95 s for each batch
        ({"replicas": 1}, 95),
        ({"replicas": 8}, 4 * 95),
        ({"replicas": 9}, 3 * 95),
        ({"replicas": 5, "rollingUpdate": {"maxSurge": 5}}, 95),
        ({"replicas": 5, "rollingUpdate": {"maxSurge": "100%"}}, 95),
        ({"replicas": 0}, 0),
        ({"autoscaling": {"enabled": True, "maxReplicas": 10}}, 4 * 95),
        ({"replicas": 1, "service": {"healthCheck": {"intervalSeconds": 60}}}, 65 + 120),
        ({"replicas": 1, "probes": {"startup": {"failureThreshold": 60}}}, 125 + 30),
    ],
)
def test_a_deployment_says_how_long_its_rollout_may_take(
    chart: Chart, values: dict[str, Any], seconds: int
) -> None:
    annotations = deployment(server(chart, values))["metadata"]["annotations"]
    assert annotations == {"mern/least-rollout-seconds": str(seconds)}


def test_without_zero_downtime_no_time_is_asked_for(chart: Chart) -> None:
    assert "annotations" not in deployment(server(chart, {}, NOT_ZERO))["metadata"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"termination": {"preStopSleepSeconds": 60}}, "preStopSleepSeconds (60) is below the 90"),
        ({"termination": {"gracePeriodSeconds": 90}}, "gracePeriodSeconds (90) is below 120"),
        ({"rollingUpdate": {"maxUnavailable": 1}}, "maxUnavailable has to be 0"),
        ({"rollingUpdate": {"maxUnavailable": "25%"}}, "maxUnavailable has to be 0"),
        ({"rollingUpdate": {"maxSurge": 0}}, "maxSurge has to be at least 1"),
        ({"rollingUpdate": {"maxSurge": "0%"}}, "maxSurge has to be at least 1"),
        ({"podDisruptionBudget": {"enabled": False}}, "podDisruptionBudget has to be enabled"),
        ({"podDisruptionBudget": {"maxUnavailable": 2}}, "has to be enabled with maxUnavailable 1"),
    ],
)
def test_a_number_that_breaks_zero_downtime_is_refused(
    chart: Chart, values: dict[str, Any], sentence: str
) -> None:
    assert sentence in chart.refusal({"mernServer": values})


@pytest.mark.parametrize(
    ("ingress", "sentence"),
    [
        ({"targetType": "instance"}, "ingress.zeroDowntime needs ingress.targetType ip"),
        (
            {"targetGroupAttributes": {"deregistration_delay.timeout_seconds": "300"}},
            "sets deregistration_delay.timeout_seconds to 300",
        ),
        ({"zeroDowntime": {"propagationSeconds": 29}}, "/ingress/zeroDowntime/propagationSeconds"),
    ],
)
def test_a_load_balancer_that_breaks_zero_downtime_is_refused(
    chart: Chart, ingress: dict[str, Any], sentence: str
) -> None:
    assert sentence in chart.refusal({"ingress": ingress})


@pytest.mark.parametrize(
    "values",
    [
        {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        {"podDisruptionBudget": {"enabled": False}},
        {"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 1}},
        {"podDisruptionBudget": {"maxUnavailable": "50%"}},
    ],
)
def test_without_zero_downtime_these_are_free(chart: Chart, values: dict[str, Any]) -> None:
    assert server(chart, values, NOT_ZERO).objects


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable forbids every eviction"),
        ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "forbids every eviction"),
        (
            {"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 2}},
            "minAvailable (2) forbids every eviction at 2 pods",
        ),
        (
            {"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": "51%"}},
            "minAvailable (51%) forbids every eviction at 2 pods",
        ),
        (
            {
                "autoscaling": {"enabled": True, "minReplicas": 3},
                "replicas": 9,
                "podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 3},
            },
            "forbids every eviction at 3 pods",
        ),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "takes one of maxUnavailable and"),
        ({"podDisruptionBudget": {"maxUnavailable": None}}, "takes one of maxUnavailable and"),
        (
            {"rollingUpdate": {"maxUnavailable": "0%", "maxSurge": "0%"}},
            "maxSurge has to be at least 1",
        ),
        (
            {"termination": {"preStopSleepSeconds": 20, "gracePeriodSeconds": 20}},
            "gracePeriodSeconds (20) is below 50",
        ),
    ],
)
def test_what_could_never_work_is_refused_in_any_case(
    chart: Chart, values: dict[str, Any], sentence: str
) -> None:
    assert sentence in chart.refusal(merged({"mernServer": values}, NOT_ZERO))


def test_a_budget_by_the_fewest_pods_left(chart: Chart) -> None:
    budget = {"maxUnavailable": None, "minAvailable": "50%"}
    rendered = server(chart, {"podDisruptionBudget": budget, "replicas": 4}, NOT_ZERO)
    spec = rendered.one("PodDisruptionBudget", "mern-server")["spec"]
    assert spec["minAvailable"] == "50%"
    assert "maxUnavailable" not in spec
