"""What an `up` hears of the load balancer controller, whose answer Helm does not wait for."""

from types import SimpleNamespace
from typing import Any

import pytest

from components import mern_application
from components.mern_application import _wait_for_controller
from components.release import Api, ReleaseArgs, ReleasePlan
from components.release.secrets import Secrets
from tests.unit.test_operations_health import event

INGRESS = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/mern"
EVENTS = "/api/v1/namespaces/shop/events"
REFUSED = event("FailedBuildModel", "Failed build model due to conflicting scheme: map[internal:{}]")
ACCEPTED = event("SuccessfullyReconciled", "Successfully reconciled")


class FakeApi:
    """The Ingress, as it was changed at a time, and what the controller has said after each look."""

    def __init__(self, changed: str, *said: dict[str, Any]) -> None:
        entry = {"time": f"2026-01-01T{changed}Z", "fieldsV1": {"f:spec": {}}}
        self.ingress = {
            "metadata": {"name": "mern", "namespace": "shop", "uid": "1", "managedFields": [entry]}
        }
        self.later = list(said)
        self.events: list[dict[str, Any]] = []

    def get(self, path: str, **_: str) -> Any:
        return {EVENTS: {"items": self.events}, INGRESS: self.ingress}[path]

    find, items = Api.find, Api.items


def rendered(annotations: dict[str, str]) -> dict[str, Any]:
    return {"kind": "Ingress", "metadata": {"name": "mern", "annotations": annotations}, "spec": {}}


def wait(api: FakeApi, before: dict[str, str] | None = None) -> tuple[str, int]:
    """What is told in the end, and how often the Ingress was looked at again; `before` are its annotations in
    the revision before."""
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        api.events += api.later[:1]
        del api.later[:1]

    args = ReleaseArgs(chart="./chart", name="mern", namespace="shop")
    here: Any = {"api": api, "objects": [rendered({})]}
    if before is not None:
        here["newest"] = SimpleNamespace(status="deployed", objects=lambda: [rendered(before)])
    plan = ReleasePlan(args=args, description="", secrets=Secrets(), **here)
    return _wait_for_controller(plan, sleep), len(looks)


def test_a_model_that_the_controller_refuses_is_told_at_once() -> None:
    text, looks = wait(FakeApi("10:00:01", REFUSED))

    assert text.startswith(
        "the load balancer controller refuses Ingress mern (FailedBuildModel, 2026-01-01 10:00:05 UTC): "
        "Failed build model due to conflicting scheme: map[internal:{}]\n"
    )
    assert text.endswith("\n    kubectl describe ingress mern -n shop")
    assert looks == 1


def test_it_is_accepted_in_the_end() -> None:
    conflict = event("FailedUpdateStatus", "the object has been modified")

    assert wait(FakeApi("10:00:01", conflict, ACCEPTED)) == ("", 2)
    assert wait(FakeApi("10:00:01", conflict, ACCEPTED), before={"a": "b"}) == ("", 2)


def test_an_ingress_that_this_deployment_has_not_changed_is_not_waited_for() -> None:
    assert wait(FakeApi("09:00:00"), before={}) == ("", 0)
    api = FakeApi("09:00:00")
    api.events = [event("FailedDeployModel", "AccessDenied")]
    text, looks = wait(api, before={})
    assert "(FailedDeployModel, " in text
    assert looks == 0


def test_what_the_controller_has_said_of_another_model_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mern_application, "CONTROLLER_SECONDS", 0.001)
    api = FakeApi("10:00:09")
    api.events = [ACCEPTED, REFUSED]

    text, _ = wait(api, before={"a": "b"})

    assert text.startswith("the load balancer controller has not said yet whether it accepts Ingress mern as")
    assert text.endswith("\n    kubectl describe ingress mern -n shop")
