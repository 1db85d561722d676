"""The stand-in for the Kubernetes provider answers as the real one did when it was recorded.

`tests/recordings/*.json` are runs of the engine with the real provider: each call with its answer.
They follow one another on one cluster, so run the whole file, not one scenario.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from lightkube import Client, KubeConfig
from lightkube.models.core_v1 import ResourceQuotaSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, ResourceQuota, Secret
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, status_pb2

from sandbox import kubernetes_provider
from sandbox.kubernetes_provider import SECRET, SIGNATURE, UNKNOWN

PROJECT = Path(__file__).parents[2]
RECORDINGS = PROJECT / "tests/recordings"
SCENARIOS = sorted(path.stem for path in RECORDINGS.glob("*.json"))
REQUESTS = {"DiffConfig": "DiffRequest", "CheckConfig": "CheckRequest"}
RELEASE = "kubernetes:helm.sh/v3:Release"
# The recorded rollouts that never become ready wait for 8 seconds, which proves no more than 5.
RECORDED_TIMEOUT, TIMEOUT = 8, 5


# -- where the two differ --------------------------------------------------------------------------

DIFFERENCES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "both implement no Handshake; the sentence that says so differs, the engine reads none": (
        lambda call: call["method"] == "Handshake"
    ),
    "the real one still called itself 4.32.0 when the first scenarios were recorded": (
        lambda call: (call["response"] or {}).get("version") == "4.32.0"
    ),
    "the program leaves Secrets and ServiceAccounts to its chart": (
        lambda call: call["request"].get("type", "").endswith(("v1:Secret", "v1:ServiceAccount"))
    ),
    "the engine hung up before the real one could answer": (
        lambda call: "the client connection is closing" in str(call["errors"])
    ),
}


def without_chance(value: Any, at: str = "") -> Any:
    """The value less what differs between any two runs, and less the order of Go's maps."""
    if isinstance(value, dict):
        chance = {"creationTimestamp", "resourceVersion", "uid", "time"}
        return {key: "*" if key in chance else without_chance(it, key) for key, it in value.items()}
    if isinstance(value, list):
        parts = [without_chance(part) for part in value]
        return sorted(parts) if at == "diffs" else parts
    if isinstance(value, str):
        return re.sub(r"^(web|pulumi-kubernetes)-[0-9a-f]{8}$", r"\1-*", value)
    return value


# -- the cluster, and what others do to it ---------------------------------------------------------


class World:
    """The cluster, and the folder of the program."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.client = Client(KubeConfig.from_file(cluster.kubeconfig))
        self.template = folder / "chart/templates/web.yaml"
        self.original = self.template.read_text()
        self.partial_failure: Any = None

    def helm(self, *arguments: str) -> None:
        env = {**self.cluster.env, "KUBECONFIG": str(self.cluster.kubeconfig)}
        command = ["helm", *arguments, "--namespace", "shop"]
        subprocess.run(command, env=env, cwd=self.folder, check=True, capture_output=True)

    def namespaces(self) -> set[str]:
        return {str(it.metadata and it.metadata.name) for it in self.client.list(Namespace)}

    def new_pods(self, *, allowed: bool) -> None:
        """A rollout that is allowed no pod never becomes ready."""
        if allowed:
            self.client.delete(ResourceQuota, "no-pods", namespace="shop")
            return
        metadata = ObjectMeta(name="no-pods", namespace="shop")
        spec = ResourceQuotaSpec(hard={"pods": "0"})
        self.client.create(ResourceQuota(metadata=metadata, spec=spec))

    def killed_upgrade(self) -> None:
        """Leave of the release `mern` what an upgrade leaves that is killed half-way."""
        self.helm("upgrade", "mern", "./chart", "--reuse-values")
        labels = {"owner": "helm", "name": "mern", "status": "deployed"}
        [newest] = self.client.list(Secret, namespace="shop", labels=dict(labels))
        stored = (newest.data or {})["release"]
        record = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(stored))))
        record["info"]["status"] = "pending-upgrade"
        packed = base64.b64encode(gzip.compress(json.dumps(record).encode()))
        data = {"release": base64.b64encode(packed).decode()}
        patch = {"metadata": {"labels": {"status": "pending-upgrade"}}, "data": data}
        name = str(newest.metadata and newest.metadata.name)
        self.client.patch(Secret, name, patch, namespace="shop")

    def edit(self, old: str, new: str) -> None:
        self.template.write_text(self.original.replace(old, new))

    def last_line(self, line: str) -> None:
        lines = self.original.splitlines()
        self.template.write_text("\n".join([*lines[:20], line, ""]))


Step = Callable[[World], None]


def helm(*arguments: str) -> Step:
    return lambda world: world.helm(*arguments)


def edit(old: str, new: str) -> Step:
    return lambda world: world.edit(old, new)


def last_line(line: str) -> Step:
    return lambda world: world.last_line(line)


NO_PODS, PODS = partial(World.new_pods, allowed=False), partial(World.new_pods, allowed=True)
UPGRADE_WEB = ("upgrade", "web-b0dc2ec4", "./chart", "--set")
INSTALL_MERN = helm("install", "mern", "./chart", "--set", "password=hunter2", "--create-namespace")
# What happened between the recorded runs, or stood in the numbers that are left out.
BEFORE: dict[str, list[Step]] = {
    "07-template-edited": [
        helm(*UPGRADE_WEB, "password=rotated,replicas=2"),
        edit("port: 80,", "port: 81,"),
    ],
    "08-values-break-schema": [edit("", "")],
    "09-upgrade-cannot-become-ready": [NO_PODS],
    "11-refresh-after-outside-upgrade": [
        PODS,
        helm(*UPGRADE_WEB, "password=rotated,replicas=2"),
        helm(*UPGRADE_WEB, "password=rotated,replicas=3"),
    ],
    "13-refresh-after-outside-uninstall": [helm("uninstall", "web-b0dc2ec4")],
    "17-create-name-taken": [INSTALL_MERN],
    "19-create-cannot-become-ready": [helm("uninstall", "mern"), NO_PODS],
    "21-destroy": [PODS, INSTALL_MERN],
    "28-adopt-existing": [INSTALL_MERN],
    "31-up-while-pending-upgrade": [World.killed_upgrade],
    "37-render-unknown-function": [last_line("{{ nosuch }}")],
    "38-render-fails": [last_line('  {{ fail "replicas must be even" }}')],
    "41-render-cluster-unreachable": [edit("", "")],
    "42-template-change-cannot-become-ready": [edit("8080", "8081"), NO_PODS],
    "43-refresh-after-failed-template-change": [PODS],
    "46-error-hook-mends-and-retries": [
        helm("upgrade", "mern", "./chart", "--reuse-values"),
        World.killed_upgrade,
    ],
}
# What an error hook of the program did before the engine called again.
AFTER_ERROR: dict[str, list[Step]] = {
    "46-error-hook-mends-and-retries": [helm("rollback", "mern")],
}
# The runs that begin with a cluster that has no such namespace.
FRESH = ("01-preview-create", "22-objects-explicit-provider", "28-adopt-existing")


@pytest.fixture(scope="module")
def world(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("program")
    shutil.copytree(RECORDINGS / "fixture-chart", folder / "chart")
    world = World(cluster, folder)
    yield world
    if "shop" in world.namespaces():
        world.client.delete(Namespace, "shop")


# -- the plugin, as the engine talks to it ---------------------------------------------------------


class Plugin:
    """The stand-in, served."""

    def __init__(self) -> None:
        self.provider = kubernetes_provider.KubernetesProvider()
        self.server, port = kubernetes_provider.serve(self.provider)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)

    def message(self, method: str, request: dict[str, Any]) -> Any:
        name = REQUESTS.get(method, f"{method}Request")
        return ParseDict(request, getattr(provider_pb2, name, empty_pb2.Empty)())

    def call(self, method: str, request: dict[str, Any]) -> Any:
        return MessageToDict(getattr(self.stub, method)(self.message(method, request)))

    def configure(self, **given: str) -> None:
        variables = {f"kubernetes:config:{key}": value for key, value in given.items()}
        self.call("Configure", {"variables": variables})

    def close(self) -> None:
        self.channel.close()
        self.server.stop(None)


@pytest.fixture
def bare_plugin() -> Iterator[Plugin]:
    """The stand-in where no cluster is needed."""
    plugin = Plugin()
    yield plugin
    plugin.close()


@pytest.fixture
def plugins(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Plugin]]:
    """Starts stand-ins in the folder of the program, as the engine does for each provider."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("PATH", world.cluster.env["PATH"])
    monkeypatch.setenv("KUBECONFIG", str(world.cluster.kubeconfig))
    started: list[Plugin] = []

    def start() -> Plugin:
        started.append(Plugin())
        return started[-1]

    yield start
    for plugin in started:
        plugin.close()


def recording(scenario: str, world: World) -> list[dict[str, Any]]:
    """The calls of a scenario, with the kube config of this cluster and the shorter timeout."""
    text = (RECORDINGS / f"{scenario}.json").read_text()
    text = text.replace(f'"timeout": {RECORDED_TIMEOUT},', f'"timeout": {TIMEOUT},')
    calls: list[dict[str, Any]] = json.loads(text)["calls"]
    for call in calls:
        variables = call["request"].get("variables", {})
        if given := variables.get("kubernetes:config:kubeconfig"):
            here = yaml.safe_load(world.cluster.kubeconfig.read_text())
            if '"https://127.0.0.1:1"' in given:
                here["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
            variables["kubernetes:config:kubeconfig"] = json.dumps(here)
    return calls


def in_words_of_the_engine(error: Any) -> str:
    code = error.code().name.title().replace("_", "")
    return f"rpc error: code = {code} desc = {error.details()}"


def details(error: Any) -> Any:
    """What a partial failure hands over: the id, the state, and the reasons."""
    [packed] = [it for key, it in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(packed)
    failed = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(failed)
    return failed


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_stand_in_answers_as_the_real_provider(
    scenario: str, world: World, plugins: Callable[[], Plugin]
) -> None:
    if scenario in FRESH and "shop" in world.namespaces():
        plugin = plugins()
        namespace = {"type": "kubernetes:core/v1:Namespace", "id": "shop"}
        plugin.call("Delete", namespace)
    for step in BEFORE.get(scenario, []):
        step(world)
    plugin = plugins()
    for call in recording(scenario, world):
        method = call["method"]
        if any(holds(call) for holds in DIFFERENCES.values()):
            continue
        try:
            answer, errors = plugin.call(method, call["request"]), None
        except grpc.RpcError as error:
            answer, errors = None, [in_words_of_the_engine(error)]
            if "failed to initialize completely" in errors[0]:
                world.partial_failure = details(error)
            for step in AFTER_ERROR.get(scenario, []):
                step(world)
        assert errors == call["errors"], method
        assert without_chance(answer) == without_chance(call["response"]), method
        if method == "Cancel":  # the engine starts another one for another provider
            plugin = plugins()


def test_a_rolled_back_upgrade_hands_the_engine_the_state_that_the_real_one_did(
    world: World,
) -> None:
    calls = recording("43-refresh-after-failed-template-change", world)
    [read] = [call["request"] for call in calls if call["method"] == "Read"]
    failed = world.partial_failure
    assert failed.id == "shop/mern"
    assert MessageToDict(failed.properties) == read["properties"]


# -- beyond the recordings -------------------------------------------------------------------------


def release(**values: Any) -> dict[str, Any]:
    return {"chart": "./chart", "name": "mern", "namespace": "shop", "values": values}


def test_what_is_secret_in_the_inputs_is_secret_in_the_answer_and_a_list_as_a_whole(
    plugins: Callable[[], Plugin],
) -> None:
    hidden = {SIGNATURE: SECRET, "value": "hunter2"}
    news = release(list=["open", hidden], map={"a": "open", "b": hidden})
    request = {"type": RELEASE, "urn": "urn:pulumi:s::p::t::web", "news": news}
    values = plugins().call("Check", request)["inputs"]["values"]
    assert values["list"] == {SIGNATURE: SECRET, "value": ["open", "hunter2"]}
    assert values["map"] == {"a": "open", "b": hidden}


def test_a_chart_is_not_looked_at_before_every_input_is_known(
    plugins: Callable[[], Plugin],
) -> None:
    news = release(bucket=UNKNOWN) | {"chart": "./missing"}
    request = {"type": RELEASE, "urn": "urn:pulumi:s::p::t::web", "news": news}
    answer = plugins().call("Check", request)
    assert "failures" not in answer
    assert answer["inputs"]["values"] == {"bucket": UNKNOWN}


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ({"a": {"b": 1}}, {"a": {}}, {"values.a.b": {"kind": "DELETE", "inputDiff": True}}),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, {"values.a[1]": {"kind": "UPDATE"}, "values.a[2]": {}}),
        (
            {"a": [{"b": 1, "c": 2}]},
            {"a": [{"b": 1}]},
            {"values.a[0].c": {"kind": "DELETE", "inputDiff": True}},
        ),
        ({"a.b/c": 1}, {"a.b/c": True}, {'values["a.b/c"]': {"kind": "UPDATE"}}),
        ({"a": 1}, {"a": UNKNOWN}, {"values.a": {"kind": "UPDATE"}}),
    ],
)
def test_a_diff_names_the_paths_that_changed(
    bare_plugin: Plugin, old: dict[str, Any], new: dict[str, Any], kinds: dict[str, Any]
) -> None:
    state = {**release(**old), "__inputs": {SIGNATURE: SECRET, "value": release(**old)}}
    request = {"type": RELEASE, "olds": state, "news": release(**new)}
    assert bare_plugin.call("Diff", request)["detailedDiff"] == kinds


def provider_inputs(port: int, **more: str) -> dict[str, str]:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "current-context": "c",
    }
    return {"kubeconfig": json.dumps(config), **more}


@pytest.mark.parametrize(
    ("old", "new", "replaces"),
    [
        (provider_inputs(1), provider_inputs(2), ["kubeconfig"]),
        (provider_inputs(1, clusterIdentifier="a"), provider_inputs(2, clusterIdentifier="a"), []),
        (
            provider_inputs(1, clusterIdentifier="a"),
            provider_inputs(1, clusterIdentifier="b"),
            ["clusterIdentifier"],
        ),
        (provider_inputs(1), provider_inputs(1, clusterIdentifier="b"), []),
        (provider_inputs(1), {"kubeconfig": UNKNOWN}, ["kubeconfig"]),
    ],
)
def test_another_cluster_replaces_the_provider_unless_its_identifier_stays(
    bare_plugin: Plugin, old: dict[str, str], new: dict[str, str], replaces: list[str]
) -> None:
    answer = bare_plugin.call("DiffConfig", {"olds": old, "news": new})
    assert answer["changes"] == "DIFF_SOME"
    assert answer.get("replaces", []) == replaces


def test_rendering_shows_hooks_and_crds_but_no_tests_and_reads_yaml_as_kubernetes_does(
    plugins: Callable[[], Plugin], tmp_path: Path
) -> None:
    (tmp_path / "c/templates").mkdir(parents=True)
    (tmp_path / "c/crds").mkdir()
    (tmp_path / "c/Chart.yaml").write_text("{apiVersion: v2, name: c, version: 1.0.0}")
    kind = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: "
    hook = "\n  annotations: {helm.sh/hook: "
    text = "data: {time: 12:30, day: 2026-01-02, mode: 0644, eight: 08, exp: 1e3, off: off}"
    (tmp_path / "c/templates/all.yaml").write_text(
        f"{kind}plain\n{text}\n---\n{kind}hook{hook}pre-install}}\n---\n{kind}test{hook}test}}\n"
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: wide}\n"
    )
    (tmp_path / "c/crds/crd.yaml").write_text(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata: {name: things.example.org}\n"
    )
    options = {"chart": "c", "path": str(tmp_path), "release_name": "r", "namespace": "n"}
    args = {"jsonOpts": json.dumps(options)}
    found = plugins().call("Invoke", {"tok": "kubernetes:helm:template", "args": args})
    by_name = {it["metadata"]["name"]: it for it in found["return"]["result"]}
    assert list(by_name) == ["things.example.org", "wide", "plain", "hook"]
    namespaces = {name: it["metadata"].get("namespace") for name, it in by_name.items()}
    assert namespaces == {"things.example.org": None, "wide": None, "plain": "n", "hook": "n"}
    assert by_name["plain"]["data"] == {
        "time": "12:30",
        "day": "2026-01-02",
        "mode": 0o644,
        "eight": 8,
        "exp": 1000,
        "false": False,
    }


def test_a_patch_labels_an_existing_namespace_and_takes_its_labels_back(
    world: World, plugins: Callable[[], Plugin]
) -> None:
    def labels() -> dict[str, str]:
        metadata = world.client.get(Namespace, "default").metadata
        return (metadata and metadata.labels) or {}

    def inputs(label: str) -> dict[str, Any]:
        metadata = {"name": "default", "labels": {"gate": label}}
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}

    type_, plugin = "kubernetes:core/v1:NamespacePatch", plugins()
    before = labels()
    made = plugin.call("Create", {"type": type_, "properties": inputs("a")})
    assert (made["id"], labels()) == ("default", before | {"gate": "a"})
    with pytest.raises(grpc.RpcError, match="conflict"):
        plugin.call("Create", {"type": type_, "properties": inputs("other")})
    request = {"type": type_, "id": "default", "olds": made["properties"], "news": inputs("b")}
    updated = plugin.call("Update", request)
    assert labels() == before | {"gate": "b"}
    properties = updated["properties"]
    plugin.call("Delete", {"type": type_, "id": "default", "properties": properties})
    assert labels() == before


def test_a_namespace_that_exists_is_not_taken_over(plugins: Callable[[], Plugin]) -> None:
    metadata = {"name": "default", "labels": {"gate": "a"}}
    inputs = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    request = {"type": "kubernetes:core/v1:Namespace", "properties": inputs}
    plugin = plugins()
    assert plugin.call("Create", request | {"preview": True}) == {"properties": inputs}
    with pytest.raises(grpc.RpcError, match='namespaces "default" already exists'):
        plugin.call("Create", request)


# -- processes -------------------------------------------------------------------------------------

FAKE_HELM = """\
#!{python}
import json, os, signal, sys
from pathlib import Path

def interrupted(*_):
    sys.stderr.write("WARNING: noise\\nError: UPGRADE FAILED: context canceled\\n")
    sys.exit(1)

signal.signal(signal.SIGINT, interrupted)
config = Path(os.environ["KUBECONFIG"])
seen = {{"arguments": sys.argv[1:], "values": json.load(sys.stdin)}}
seen |= {{"config": str(config), "mode": config.stat().st_mode & 0o777}}
Path("seen.part").write_text(json.dumps(seen))
os.rename("seen.part", "seen")
fifo = open({fifo!r}, "w")
print("started", file=fifo, flush=True)
if not os.path.exists("at-once"):
    signal.pause()
"""


@pytest.fixture
def fake_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a helm that notes what it is given, says so, and then waits."""
    fifo, program = tmp_path / "fifo", tmp_path / "bin/helm"
    program.parent.mkdir()
    os.mkfifo(fifo)
    program.write_text(FAKE_HELM.format(python=sys.executable, fifo=str(fifo)))
    program.chmod(0o755)
    (tmp_path / "chart").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render_request() -> dict[str, Any]:
    values = {"password": "hunter2"}
    options = {"chart": "chart", "path": ".", "release_name": "mern", "values": values}
    return {"tok": "kubernetes:helm:template", "args": {"jsonOpts": json.dumps(options)}}


def test_values_reach_helm_by_standard_input_alone_and_the_kube_config_is_for_its_owner(
    fake_helm: Path, bare_plugin: Plugin
) -> None:
    bare_plugin.configure(**provider_inputs(1))
    request = bare_plugin.message("Invoke", render_request())
    (fake_helm / "at-once").touch()
    answer = bare_plugin.stub.Invoke.future(request)
    assert (fake_helm / "fifo").read_text() == "started\n"
    answer.result()
    seen = json.loads((fake_helm / "seen").read_text())
    assert seen["values"] == {"password": "hunter2"}
    assert "hunter2" not in str(seen["arguments"])
    assert seen["mode"] == 0o600
    assert not Path(seen["config"]).exists()


def test_a_cancelled_upgrade_ends_in_order(
    fake_helm: Path, bare_plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = kubernetes_provider.Cluster
    monkeypatch.setattr(cluster, "unreachable", "")
    monkeypatch.setattr(cluster, "records", lambda *_: {})
    bare_plugin.configure(**provider_inputs(1))
    olds, news = release(password="hunter2"), release(password="rotated")
    request = bare_plugin.message("Update", {"type": RELEASE, "olds": olds, "news": news})
    answer = bare_plugin.stub.Update.future(request)
    with (fake_helm / "fifo").open() as helm_says:
        assert helm_says.readline() == "started\n"
        bare_plugin.call("Cancel", {})
        assert helm_says.read() == ""  # it has ended
    assert in_words_of_the_engine(answer.exception()) == (
        "rpc error: code = Cancelled desc = context canceled"
    )


ENGINE = """\
import subprocess, sys
plugin = subprocess.Popen(
    [sys.executable, "-m", "sandbox.kubernetes_provider", ""],
    stdout=subprocess.PIPE,
    stderr=sys.stdout,
    text=True,
)
print(plugin.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""


def test_an_engine_that_is_killed_takes_the_plugin_and_its_helm_with_it(fake_helm: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(fake_helm)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ENGINE]
    engine = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)
    assert engine.stdout is not None
    port = engine.stdout.readline().strip()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        variables = {f"kubernetes:config:{k}": it for k, it in provider_inputs(1).items()}
        stub.Configure(provider_pb2.ConfigureRequest(variables=variables))
        answer = stub.Invoke.future(ParseDict(render_request(), provider_pb2.InvokeRequest()))
        with (fake_helm / "fifo").open() as helm_says:
            assert helm_says.readline() == "started\n"
            config = Path(json.loads((fake_helm / "seen").read_text())["config"])
            assert config.exists()
            channel.close()  # a killed engine hangs up too
            engine.kill()
            engine.wait()
            # Each holds its pipe open for as long as it lives.
            assert helm_says.read() == ""
            assert engine.stdout.read() == ""
        assert answer.code() == grpc.StatusCode.CANCELLED
    assert not config.exists()
