"""What is drift, and what some controller writes by design."""

import copy
from typing import Any
from unittest.mock import Mock

import pytest

from components.release import Api, drift
from components.release.secrets import Secrets

WEBHOOKS: Any = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "web"},
    "webhooks": [
        {"name": "a.example.org", "clientConfig": {"service": {"name": "web"}}, "sideEffects": "None"}
    ],
}
ROLE: Any = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "all"},
    "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"of": "web"}}]},
    "rules": [],
}


def drifts(recorded: Any, live: Any) -> list[Any]:
    """The findings where a merge patch gives what is recorded, as the API server does for these lists."""
    server = Mock(spec=Api)
    server.find.return_value = live
    server.merge_patch.return_value = recorded
    return drift.find(server, [recorded], "shop", Secrets())


def with_authority(by_hand: bool = False) -> Any:
    live = copy.deepcopy(WEBHOOKS)
    live["webhooks"][0]["clientConfig"]["caBundle"] = "Q0E="
    if by_hand:
        live["webhooks"][0]["sideEffects"] = "Some"
    return live


def test_an_authority_that_a_controller_puts_into_a_webhook_is_no_drift_and_stays() -> None:
    assert drifts(WEBHOOKS, with_authority()) == []
    [finding] = drifts(WEBHOOKS, with_authority(by_hand=True))
    [text] = finding.texts
    assert text.startswith("ValidatingWebhookConfiguration web: webhooks[a.example.org].sideEffects is Some")
    [put_back] = finding.patch["webhooks"]
    assert put_back == with_authority()["webhooks"][0]


def test_an_authority_that_the_chart_sets_is_drift_when_it_is_another() -> None:
    recorded = with_authority()
    live = copy.deepcopy(recorded)
    live["webhooks"][0]["clientConfig"]["caBundle"] = "T1RIRVI="
    assert len(drifts(recorded, live)) == 1


@pytest.mark.parametrize("is_aggregated", [True, False])
def test_the_rules_of_an_aggregated_role_are_a_controllers(is_aggregated: bool) -> None:
    recorded = ROLE if is_aggregated else {key: ROLE[key] for key in ROLE if key != "aggregationRule"}
    live = {**recorded, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    assert bool(drifts(recorded, live)) is not is_aggregated


def test_of_an_object_that_the_chart_has_twice_the_last_counts() -> None:
    first, last = ({**ROLE, "rules": [], "metadata": {"name": "all", "labels": {"at": at}}} for at in "12")
    server = Mock(spec=Api)
    server.find.return_value = last
    assert drift.find(server, [first, last], "shop", Secrets()) == []
