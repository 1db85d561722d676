"""What an `up` hears of the load balancer controller, whose answer Helm does not wait for."""

from datetime import datetime
from typing import Any

import pytest

from components import mern_application
from components.mern_application import _wait_for_controller
from components.release import Api, ReleaseArgs, ReleasePlan, record
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


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision that was begun at ten."""
    newest = type("Newest", (), {"created": datetime.fromisoformat("2026-01-01T10:00:00+00:00")})
    monkeypatch.setattr(record, "newest", lambda *_: newest)


def wait(api: FakeApi) -> tuple[str, int]:
    """What is told in the end, and how often the Ingress was looked at again."""
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        api.events += api.later[:1]
        del api.later[:1]

    args = ReleaseArgs(chart="./chart", name="mern", namespace="shop")
    plan = ReleasePlan(args=args, api=api, description="", objects=[], secrets=Secrets())  # type: ignore[arg-type]
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


def test_an_ingress_that_this_deployment_has_not_changed_is_not_waited_for() -> None:
    assert wait(FakeApi("09:00:00")) == ("", 0)
    api = FakeApi("09:00:00")
    api.events = [event("FailedDeployModel", "AccessDenied")]
    text, looks = wait(api)
    assert "(FailedDeployModel, " in text
    assert looks == 0


def test_a_controller_that_says_nothing_is_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mern_application, "CONTROLLER_SECONDS", 0)

    assert wait(FakeApi("10:00:01")) == ("", 0)
