"""docs/preview-access.yaml: previews may try everything and change nothing."""

import time
from collections.abc import Iterator

import pytest
import yaml

from components.release.api import Api, ApiError
from components.release.dry_run import DRY_RUN
from sandbox.engine import PROJECT
from tests.conftest import TestCluster

NAMESPACE = "preview-access"


@pytest.fixture
def reader(cluster: TestCluster) -> Iterator[Api]:
    """The API server, for somebody of the group mern-reader."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    admin = Api(config)
    admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    made = list(yaml.safe_load_all((PROJECT / "docs/preview-access.yaml").read_text()))
    paths = [admin.collection(item, "") for item in made]
    for path, item in zip(paths, made, strict=True):
        admin.create(path, item)
    as_reader = Api(config)
    as_reader._http.headers |= {"Impersonate-User": "preview", "Impersonate-Group": "mern-reader"}
    yield as_reader
    for path, item in zip(paths, made, strict=True):
        admin._http.request("DELETE", f"{path}/{item['metadata']['name']}")
    admin._http.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


def test_a_preview_reads_and_tries_but_cannot_write(cluster: TestCluster, reader: Api) -> None:
    maps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    admin = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    admin.create(maps, config_map("there"))
    assert reader.get(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"] == []

    def tried(number: int) -> str:
        """Why a write is refused; empty where it was not."""
        try:
            reader.create(maps, config_map(f"new-{number}"))
        except ApiError as error:
            return error.message
        return ""

    # The API server takes a moment to heed a new policy.
    give_up, number = time.monotonic() + 20, 0
    while not tried(number) and time.monotonic() < give_up:
        number += 1
        time.sleep(0.2)
    assert "previews and the drift check change nothing" in tried(number)
    with pytest.raises(ApiError, match="change nothing"):
        reader.merge_patch(f"{maps}/there", {"data": {"a": "c"}})
    assert reader.create(maps, config_map("tried"), **DRY_RUN)["data"] == {"a": "b"}
    assert reader.merge_patch(f"{maps}/there", {"data": {"a": "c"}}, **DRY_RUN)["data"] == {"a": "c"}
    assert reader.get(f"{maps}/there")["data"] == {"a": "b"}
    with pytest.raises(ApiError, match="cannot delete"):
        reader._send("DELETE", f"{maps}/there", {}, {})
    with pytest.raises(ApiError, match="cannot create resource"):
        reader.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token", {}, **DRY_RUN)
    admin.create(maps, config_map("others-are-free"))
