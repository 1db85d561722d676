"""What the API server is asked to find drift, and what is known without."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from components.release import drift
from components.release.findings import texts_of
from components.release.kubernetes_api import Api, ApiError
from components.release.secrets import Secrets

DEPLOYED = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
Made = dict[str, Any]


class Server:
    """An API server that keeps objects by name, and the requests that it got."""

    def __init__(self, *live: Made) -> None:
        self.live = {item["metadata"]["name"]: item for item in live}
        self.requests: list[str] = []
        self.may_list = True

    def collection(self, item: Mapping[str, Any], namespace: str) -> str:
        return f"/{namespace}/{item['kind'].lower()}s"

    path = Api.path

    def find(self, path: str) -> Made | None:
        self.requests.append(f"get {path}")
        return self.live.get(path.rpartition("/")[2])

    def items(self, path: str, labelSelector: str) -> list[Made]:  # noqa: N803
        self.requests.append(f"list {path} {labelSelector}")
        if not self.may_list:
            raise ApiError(403, {"message": "cannot list"})
        wanted = {tuple(pair.split("=")) for pair in labelSelector.split(",")}
        found = [item for item in self.live.values() if wanted <= set(item["metadata"]["labels"].items())]
        return [{key: value for key, value in item.items() if key != "kind"} for item in found]

    def merge_patch(self, path: str, patch: Made, **_: str) -> Made:
        self.requests.append(f"patch {path}")
        live = self.live[path.rpartition("/")[2]]
        return {**live, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}


def service(name: str = "web") -> Made:
    meta = {"name": name, "labels": {"app": "web", "item": name}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}]}}


def stored(item: Made, *writers: Made, **port: Any) -> Made:
    """As the API server keeps it, with its defaults and Helm's label."""
    entries = [{"manager": "helm", "time": "2026-01-01T11:59:59Z"}, *writers]
    labels = {**item["metadata"]["labels"], "app.kubernetes.io/managed-by": "Helm"}
    meta = {**item["metadata"], "labels": labels, "managedFields": entries}
    return {**item, "metadata": meta, "spec": {"ports": [{"port": 80, "protocol": "TCP", **port}]}}


def found(server: Any, item: Made, deployed: datetime | None = DEPLOYED) -> list[str]:
    return texts_of(drift.find(server, [item], "shop", Secrets(), deployed=deployed))


def test_an_object_that_helm_alone_has_written_is_not_asked_about() -> None:
    server = Server(stored(service(), {"subresource": "status", "time": "2026-01-01T13:00:00Z"}))
    assert found(server, service()) == []
    assert server.requests == ["get /shop/services/web"]


@pytest.mark.parametrize(
    "writer",
    [
        {"manager": "kubectl-edit", "time": "2026-01-01T12:30:00Z"},
        {"manager": "kubectl-edit", "time": "2026-01-01T11:59:59Z"},  # while Helm waited
        {"manager": "kubectl", "subresource": "scale"},
    ],
)
def test_one_that_another_has_written_is(writer: Made) -> None:
    server = Server(stored(service(), writer, nodePort=30000))
    [text] = found(server, service())
    assert text.startswith("Service web: spec.ports[0].nodePort is 30000, not nothing")
    assert server.requests[-1] == "patch /shop/services/web"


def test_one_that_was_made_anew_by_hand_is_asked_about_and_where_it_is_not_known_when_helm_was_done() -> None:
    anew = stored(service(), nodePort=30000)
    anew["metadata"]["managedFields"] = [{"manager": "helm", "time": "2026-01-01T12:00:01Z"}]
    assert found(Server(anew), service())
    assert found(Server(stored(service(), nodePort=30000)), service(), deployed=None)


def test_many_of_a_kind_are_one_request_and_those_that_it_does_not_have_are_asked_for_one_by_one() -> None:
    items = [service(f"web-{number}") for number in range(drift.MANY)]
    live = [stored(item) for item in items]
    live[0]["metadata"]["labels"] = {}
    server: Any = Server(*live[:-1])
    read = drift.read(server, items, "shop")
    assert server.requests == [
        "list /shop/services app=web,app.kubernetes.io/managed-by=Helm",
        "get /shop/services/web-0",
        f"get /shop/services/web-{drift.MANY - 1}",
    ]
    assert list(read.values()).count(None) == 1
    server.requests.clear()
    server.may_list = False
    assert drift.read(server, items, "shop") == read
    assert len(server.requests) == 1 + drift.MANY
