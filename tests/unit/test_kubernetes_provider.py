"""The stand-in for the Kubernetes provider answers as the real one did when it was recorded.

`tests/recordings/*.json` are runs of the engine with the real provider: each call with its answer.
They follow one another, on one cluster: run the whole file, not one scenario.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.core_v1 import ResourceQuotaSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, ResourceQuota, Secret
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from sandbox import kubernetes_provider

RECORDINGS = Path(__file__).parents[1] / "recordings"
SCENARIOS = sorted(path.stem for path in RECORDINGS.glob("*.json"))
REQUESTS = {
    "Handshake": provider_pb2.ProviderHandshakeRequest,
    "GetPluginInfo": empty_pb2.Empty,
    "Cancel": empty_pb2.Empty,
    "CheckConfig": provider_pb2.CheckRequest,
    "DiffConfig": provider_pb2.DiffRequest,
    **{
        name: getattr(provider_pb2, f"{name}Request")
        for name in ("Configure", "Check", "Diff", "Create", "Read", "Update", "Delete", "Invoke")
    },
}
# The recorded rollouts that never become ready wait 8 seconds, which proves no more than 5 do.
RECORDED_TIMEOUT, TIMEOUT = 8, 5


def not_compared(call: dict[str, Any]) -> str:
    """Why the stand-in need not answer this call as recorded; empty if it has to."""
    if call["method"] == "GetPluginInfo":
        return "the real one called itself 4.32.0 when 01 to 33 were recorded"
    if call["request"].get("type") in (
        "kubernetes:core/v1:Secret",
        "kubernetes:core/v1:ServiceAccount",
    ):
        return "the program leaves these objects to its chart"
    if "the client connection is closing" in str(call["errors"]):
        return "the engine hung up before the real one could answer"
    return ""


def without_chance(value: Any, at: str = "") -> Any:
    """The value less what differs between any two runs, and less the order of maps in Go."""
    if isinstance(value, dict):
        chance = {"creationTimestamp", "resourceVersion", "uid", "time"}
        found = {key: without_chance(part, key) for key, part in value.items()}
        return {key: "*" if key in chance else part for key, part in found.items()}
    if isinstance(value, list):
        parts = [without_chance(part) for part in value]
        return sorted(parts) if at in ("diffs", "replaces") else parts
    if isinstance(value, str):
        return re.sub(r"^(web|pulumi-kubernetes)-[0-9a-f]{8}$", r"\1-*", value)
    return value


class World:
    """The cluster, the folder of the program, and what others do to the cluster."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.kubeconfig = cluster.kubeconfig.read_text()
        self.client = Client(KubeConfig.from_file(cluster.kubeconfig))
        self.template = folder / "chart" / "templates" / "web.yaml"
        self.original = self.template.read_text()

    def helm(self, *arguments: str) -> None:
        env = {**self.cluster.env, "KUBECONFIG": str(self.cluster.kubeconfig)}
        command = ["helm", *arguments, "--namespace", "shop"]
        subprocess.run(command, env=env, cwd=self.folder, check=True, capture_output=True)

    def no_namespace(self) -> None:
        try:
            self.client.delete(Namespace, "shop")
            self.client.wait(Namespace, "shop", for_conditions=["Never"])
        except ApiError as error:
            assert error.status.code == 404
        except Exception as error:
            assert "deleted" in str(error)

    def no_new_pods(self) -> None:
        quota = ResourceQuota(
            metadata=ObjectMeta(name="none", namespace="shop"),
            spec=ResourceQuotaSpec(hard={"pods": "0"}),
        )
        self.client.create(quota)

    def pods_again(self) -> None:
        self.client.delete(ResourceQuota, "none", namespace="shop")

    def killed_upgrade(self) -> None:
        """Leave what an upgrade killed half-way leaves."""
        self.helm("upgrade", "mern", "./chart", "--reuse-values")
        found = self.client.list(Secret, namespace="shop", labels={"owner": "helm", "name": "mern"})
        newest = max(found, key=lambda it: int((it.metadata.labels or {})["version"]))
        stored = base64.b64decode(base64.b64decode((newest.data or {})["release"]))
        record = json.loads(gzip.decompress(stored))
        record["info"]["status"] = "pending-upgrade"
        packed = base64.b64encode(gzip.compress(json.dumps(record).encode()))
        patch = {
            "metadata": {"labels": {"status": "pending-upgrade"}},
            "data": {"release": base64.b64encode(packed).decode()},
        }
        self.client.patch(Secret, newest.metadata.name, patch, namespace="shop")

    def edit_template(self, old: str = "", new: str = "") -> None:
        self.template.write_text(self.original.replace(old, new))

    def append_to_template(self, line: str) -> None:
        self.template.write_text(self.original.rstrip("\n") + "\n")
        lines = self.template.read_text().splitlines()
        lines[20] = line
        self.template.write_text("\n".join(lines) + "\n")


def prepare_adoption(world: World) -> None:
    world.helm("uninstall", "mern", "--ignore-not-found")
    world.no_namespace()
    world.helm("install", "mern", "./chart", "--create-namespace", "--set", "password=hunter2")


BEFORE: dict[str, Callable[[World], None]] = {
    "01-preview-create": World.no_namespace,
    "07-template-edited": lambda it: (
        it.helm("upgrade", "web-b0dc2ec4", "./chart", "--set", "password=rotated,replicas=2"),
        it.edit_template("port: 80,", "port: 81,"),
    )[-1],
    "09-upgrade-cannot-become-ready": World.no_new_pods,
    "11-refresh-after-outside-upgrade": lambda it: (
        it.pods_again(),
        it.helm("upgrade", "web-b0dc2ec4", "./chart", "--set", "password=rotated,replicas=2"),
        it.helm("upgrade", "web-b0dc2ec4", "./chart", "--set", "password=rotated,replicas=3"),
    )[-1],
    "13-refresh-after-outside-uninstall": lambda it: it.helm("uninstall", "web-b0dc2ec4"),
    "17-create-name-taken": lambda it: it.helm("install", "mern", "./chart"),
    "19-create-cannot-become-ready": lambda it: (
        it.helm("uninstall", "mern"),
        it.no_new_pods(),
    )[-1],
    "21-destroy": lambda it: (it.pods_again(), it.helm("install", "mern", "./chart"))[-1],
    "22-objects-explicit-provider": World.no_namespace,
    "28-adopt-existing": prepare_adoption,
    "31-up-while-pending-upgrade": World.killed_upgrade,
    "37-render-unknown-function": lambda it: it.append_to_template("{{ nosuch }}"),
    "38-render-fails": lambda it: it.append_to_template('  {{ fail "replicas must be even" }}'),
    "42-template-change-cannot-become-ready": lambda it: (
        it.edit_template("8080", "8081"),
        it.no_new_pods(),
    )[-1],
    "43-refresh-after-failed-template-change": World.pods_again,
    "46-error-hook-mends-and-retries": lambda it: (
        it.helm("upgrade", "mern", "./chart", "--reuse-values"),
        it.killed_upgrade(),
    )[-1],
}
# What an error hook of the program does between two calls.
BETWEEN: dict[str, Callable[[World], None]] = {
    "46-error-hook-mends-and-retries": lambda it: it.helm("rollback", "mern"),
}


@pytest.fixture(scope="module")
def world(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("program")
    shutil.copytree(RECORDINGS / "fixture-chart", folder / "chart")
    world = World(cluster, folder)
    yield world
    world.no_namespace()


class Plugin:
    """The stand-in as the engine talks to it."""

    def __init__(self) -> None:
        self.server, port = kubernetes_provider.serve(kubernetes_provider.KubernetesProvider())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)

    def call(self, method: str, request: dict[str, Any]) -> tuple[Any, grpc.RpcError | None]:
        try:
            message = ParseDict(request, REQUESTS[method]())
            return MessageToDict(getattr(self.stub, method)(message)), None
        except grpc.RpcError as error:
            return None, error

    def close(self) -> None:
        self.channel.close()
        self.server.stop(None)


@pytest.fixture
def plugin(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("PATH", world.cluster.env["PATH"])
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    plugin = Plugin()
    yield plugin
    plugin.close()


def recording(scenario: str, world: World) -> list[dict[str, Any]]:
    """The calls of a scenario, with the kube config of this cluster and the shorter timeout."""
    calls = json.loads((RECORDINGS / f"{scenario}.json").read_text())["calls"]
    here = yaml.safe_load(world.kubeconfig)
    for call in calls:
        variables = call["request"].get("variables", {})
        if given := variables.get("kubernetes:config:kubeconfig"):
            content = json.loads(json.dumps(here))
            if "127.0.0.1:1" in given:
                content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
            variables["kubernetes:config:kubeconfig"] = json.dumps(content)
    text = json.dumps(calls)
    return json.loads(text.replace(f'"timeout": {RECORDED_TIMEOUT},', f'"timeout": {TIMEOUT},'))


def told(error: grpc.RpcError) -> list[str]:
    """An error in the words of the recordings, which are those of the engine."""
    code = error.code().name.title().replace("_", "")
    return [f"rpc error: code = {code} desc = {error.details()}"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_stand_in_answers_as_the_real_provider(
    scenario: str, world: World, plugin: Plugin
) -> None:
    if scenario < "42":
        world.edit_template()
    if before := BEFORE.get(scenario):
        before(world)
    ended = False
    for call in recording(scenario, world):
        if not_compared(call):
            continue
        if ended:  # the engine starts a plugin for each provider
            plugin.close()
            plugin.__init__()  # type: ignore[misc]
            ended = False
        answer, error = plugin.call(call["method"], call["request"])
        if error is not None:
            assert told(error) == call["errors"]
            if call["method"] == "Update" and (between := BETWEEN.get(scenario)):
                between(world)
        else:
            assert without_chance(answer) == without_chance(call["response"]), call["method"]
        ended = call["method"] == "Cancel"
