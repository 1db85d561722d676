"""The sandbox's stand-in for `pulumi-resource-kubernetes`, Pulumi's Kubernetes provider plugin.

The real plugin is a download from its maker, which a closed network does not reach. This program
answers the engine in its place, for what this project deploys: `helm.sh/v3:Release` (through the
helm program), `core/v1:Namespace` and `NamespacePatch`, and the function
`kubernetes:helm:template`.
`tests/unit/test_kubernetes_provider.py` replays recorded calls of the real plugin against it, and
says where the two differ.

Requests and answers are handled as plain dicts in the engine's wire form, in which a secret is
`{SIGNATURE: SECRET, "value": …}` and a value that is not known yet is the string `UNKNOWN`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict

if (
    getattr(sys.modules["__main__"].__spec__, "name", "").endswith("_provider")
    and (found := importlib.util.find_spec("pulumi"))
    and found.origin
):
    # In a provider only the messages of the SDK are needed. Importing the whole of it doubles the
    # time to start, and the engine starts a provider in each run.
    sdk = Path(found.origin).parent
    for name, folder in {"pulumi": sdk, "pulumi.runtime": sdk / "runtime"}.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]

from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, status_pb2
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto.provider_pb2_grpc import (
    ResourceProviderServicer,
    add_ResourceProviderServicer_to_server,
)

VERSION = "4.34.2"
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of one, not one itself
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Wire = dict[str, Any]
MISSING = object()


class CallError(Exception):
    """An answer that is an error. With a state, the object `id` exists but is not as it should be.

    `status` is that of the API server's answer, if the error is one.
    """

    def __init__(self, text: str, status: int = 0, id: str = "", state: Wire | None = None) -> None:
        super().__init__(text)
        self.text, self.status, self.id, self.state = text, status, id, state

    def abort(self, context: Any) -> None:
        """End the call with the code and the details that the real provider gives."""
        code = grpc.StatusCode.UNKNOWN
        if self.state is not None:
            detail = messages.ErrorResourceInitFailed(
                id=self.id, properties=to_struct(self.state), reasons=[self.text]
            )
            status = status_pb2.Status(code=code.value[0], message=self.text)
            status.details.add().Pack(detail)
            metadata = (("grpc-status-details-bin", status.SerializeToString()),)
            context.set_trailing_metadata(metadata)
        elif self.text.endswith("context deadline exceeded"):
            code = grpc.StatusCode.DEADLINE_EXCEEDED
        elif self.text.endswith("context canceled"):
            code = grpc.StatusCode.CANCELLED
        context.abort(code, self.text)


# -- wire form -----------------------------------------------------------------------------------


def to_wire(struct: struct_pb2.Struct) -> Wire:
    """A message of the engine as a dict; its whole numbers, which are floats, as ints."""

    def number(text: str) -> float:
        return int(float(text)) if float(text).is_integer() else float(text)

    return dict(json.loads(json.dumps(MessageToDict(struct)), parse_float=number))


def to_struct(wire: Wire) -> struct_pb2.Struct:
    """The reverse of `to_wire`."""
    return ParseDict(wire, struct_pb2.Struct())


def is_secret(value: Any) -> bool:
    """Whether the value itself is marked as a secret."""
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def secret(value: Any) -> Wire:
    """The value, marked as a secret."""
    return value if is_secret(value) else {SIGNATURE: SECRET, "value": value}


def plain(value: Any) -> Any:
    """The value without its marks of secrecy."""
    if is_secret(value):
        return plain(value.get("value"))
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def contains(value: Any, wanted: Callable[[Any], bool]) -> bool:
    """Whether the value, or anything inside it, is what is wanted."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return wanted(value) or any(contains(part, wanted) for part in inner)


def mark_secrets(outputs: Wire, inputs: Wire) -> Wire:
    """Make secret in `outputs` what is secret in `inputs`: leaf by leaf, but lists as a whole."""
    if outputs.get("kind") == "Secret":  # also in a chart's values: so does the real one
        for key in outputs.keys() & {"data", "stringData"}:
            outputs[key] = secret(outputs[key])
        return outputs
    for key in inputs.keys() & outputs.keys():
        given, out = inputs[key], outputs[key]
        if is_secret(given) or not isinstance(given, dict) or not isinstance(out, dict):
            outputs[key] = secret(out) if contains(given, is_secret) else out
        else:
            mark_secrets(out, given)
    return outputs


def merged(base: Wire, over: Wire) -> Wire:
    """Two maps of values as Helm merges them: maps deeply, all else replaced. Nothing is shared."""
    out: Wire = json.loads(json.dumps(base))
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else json.loads(json.dumps(value))
    return out


def pruned(live: Any, shape: Any) -> Any:
    """Of a live object what the shape has too."""
    if not (isinstance(live, dict) and isinstance(shape, dict)):
        return live
    return {key: pruned(live[key], part) for key, part in shape.items() if key in live}


# -- differences ---------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    """Equality of JSON, in which True is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge_patch(old_inputs: Any, inputs: Wire, state: Wire) -> Wire:
    """The patch that brings the state to the inputs; what only the old inputs had is removed."""
    old_inputs = old_inputs if isinstance(old_inputs, dict) else {}
    patch: Wire = dict.fromkeys(old_inputs.keys() - inputs.keys())
    for key, value in inputs.items():
        current = state.get(key, MISSING)
        if isinstance(value, dict) and isinstance(current, dict):
            if inner := merge_patch(old_inputs.get(key), value, current):
                patch[key] = inner
        elif current is MISSING or not same(value, current):
            patch[key] = value
    return patch


def detailed_diff(patch: Any, old: Any, new: Any, old_inputs: Any) -> Wire:
    """The patch as the engine shows it: property path → kind of change."""
    found: Wire = {}

    def visit(path: str, value: Any, sides: list[Any], in_list: bool) -> None:
        old, new, given = sides
        if new is MISSING and (value is not None or given is MISSING):
            return
        if isinstance(value, dict) and isinstance(old, dict):
            # A patch replaces a list as a whole, so inside of one it does not name removed keys.
            for key in [*value, *(old.keys() - value.keys() if in_list else ())]:
                step = f'["{key}"]' if re.search(r'[."\[\]]', key) else f".{key}"
                at = [it.get(key, MISSING) if isinstance(it, dict) else MISSING for it in sides]
                visit((path + step).lstrip("."), value.get(key), at, in_list)
        elif isinstance(value, list) and isinstance(old, list):
            for i in range(max(len(value), len(old))):
                items = [it[i : i + 1] if isinstance(it, list) else [] for it in (value, *sides)]
                none = (None, MISSING, None, None)
                at = [it[0] if it else other for it, other in zip(items, none, strict=True)]
                visit(f"{path}[{i}]", at[0], at[1:], True)
        elif value is None:
            found[path] = messages.PropertyDiff.DELETE
        elif old is MISSING:
            found[path] = messages.PropertyDiff.ADD
        elif not same(value, old):
            found[path] = messages.PropertyDiff.UPDATE

    visit("", patch, [old, new, old_inputs], False)
    return found


def changes(found: Any) -> Any:
    """Whether something changed, in the engine's words."""
    return messages.DiffResponse.DIFF_SOME if found else messages.DiffResponse.DIFF_NONE


def diff_answer(kinds: Wire, replacing: set[str], **given: Any) -> messages.DiffResponse:
    """The answer to a Diff; a change of what is `replacing` replaces the resource."""
    details = {
        path: messages.PropertyDiff(
            kind=kind + (path in replacing),  # each kind is followed by that of its replacement
            inputDiff=kind == messages.PropertyDiff.DELETE,
        )
        for path, kind in kinds.items()
    }
    more: Wire = {"hasDetailedDiff": bool(details), "changes": changes(details)} | given
    return messages.DiffResponse(replaces=sorted(replacing & details.keys()), detailedDiff=details, **more)


# -- the cluster ---------------------------------------------------------------------------------


class Cluster:
    """The API server that a provider was configured for, and the kube config that leads to it."""

    def __init__(self, kubeconfig: str = "", context: str = "", namespace: str = "") -> None:
        self._contents, self._context, self._namespace = kubeconfig, context, namespace
        path = Path(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser()
        # A path or the contents; no path is that long.
        self._path = path if not kubeconfig or (len(kubeconfig) < 1024 and path.exists()) else None

    @functools.cached_property
    def config(self) -> Wire:
        """The kube config; empty if there is none or it is none."""
        try:
            found = yaml.safe_load(self._path.read_text() if self._path else self._contents)
        except (OSError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def entry(self, kind: str, name: str | None) -> Wire:
        """The named cluster or context of the kube config; empty if there is none."""
        entries = {it["name"]: it.get(kind) for it in self.config.get(f"{kind}s") or ()}
        return entries.get(name) or {}

    @property
    def context(self) -> Wire:
        """The context in force."""
        return self.entry("context", self._context or self.config.get("current-context"))

    @property
    def namespace(self) -> str:
        """Where goes what names no namespace."""
        return self._namespace or self.context.get("namespace") or "default"

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """Variables under which helm reaches this cluster, whatever those of the user say."""
        foreign = re.compile("HELM_(KUBE|DRIVER|NAMESPACE|DEBUG|MAX_HISTORY)")
        env = {key: value for key, value in os.environ.items() if not foreign.match(key)}
        env |= {"HELM_KUBECONTEXT": self._context} if self._context else {}
        if self._path is not None:
            yield env | {"KUBECONFIG": str(self._path)}
            return
        with tempfile.NamedTemporaryFile("w", prefix="kubeconfig") as file:  # for its owner only
            file.write(self._contents)
            file.flush()
            yield env | {"KUBECONFIG": file.name}

    @functools.cached_property
    def _client(self) -> Any:
        # Slow to import, and not needed for a preview.
        from lightkube import KubeConfig
        from lightkube.config.client_adapter import Client, ConnectionParams

        config = KubeConfig.from_dict(self.config, fname=self._path).get(self._context or None)
        if config is None:
            raise ValueError("invalid configuration: no configuration has been provided")
        return Client(config, ConnectionParams(trust_env=False))

    @functools.cached_property
    def unreachable(self) -> str:
        """Why the cluster cannot be reached; empty if it can. In the words of Go's libraries."""
        try:
            url = self._client.base_url
        except Exception as error:  # whatever is wrong with the kube config is the answer
            return f"unable to load Kubernetes client configuration from kubeconfig file: {error}"
        try:
            self.call("GET", "")
            return ""
        except CallError as error:
            reason = error.text
            if error.status == 401:
                reason = "the server has asked for the client to provide credentials"
        except Exception as error:  # from the network, TLS or a credentials program
            reason = str(error)
            if "refused" in reason:
                reason = f"dial tcp {url.host}:{url.port or 443}: connect: connection refused"
            reason = f'Get "{str(url).rstrip("/")}/openapi/v2?timeout=32s": {reason}'
        return f"unable to load schema information from the API server: {reason}"

    def require(self, sentence: str) -> None:
        """Refuse, if there is no cluster, with the sentence, which may show the reason."""
        if self.unreachable:
            raise CallError(sentence.format(self.unreachable))

    def call(self, method: str, path: str, body: Any = None, kind: str = "", **query: str) -> Wire:
        """One request to the API server."""
        headers = {"Content-Type": f"application/{kind or 'json'}"}
        content = None if body is None else json.dumps(body)
        answer = self._client.request(
            method, f"/api/v1/{path}", content=content, headers=headers, params=query
        )
        if answer.is_error:
            raise CallError(answer.json().get("message", answer.text), status=answer.status_code)
        return dict(answer.json())

    def records(self, namespace: str, name: str) -> dict[int, Callable[[], Wire]]:
        """Helm's records of a release: revision → how to read it."""

        def read(data: Wire) -> Wire:
            packed = base64.b64decode(base64.b64decode(data["release"]))
            return dict(json.loads(gzip.decompress(packed)))

        selector = f"owner=helm,name={name}"
        found = self.call("GET", f"namespaces/{namespace}/secrets", labelSelector=selector)["items"]
        revisions = {int(it["metadata"]["labels"]["version"]): it["data"] for it in found}
        return {key: functools.partial(read, data) for key, data in revisions.items()}


# -- helm ----------------------------------------------------------------------------------------


class Helm:
    """Runs the helm program, and can stop what runs."""

    def __init__(self) -> None:
        self._running: dict[subprocess.Popen[str], str] = {}
        self._cancelled = self._killed = False

    def run(self, cluster: Cluster, verb: str, *arguments: str, values: Wire | None = None) -> str:
        """Helm's output; its error as a CallError, in the words of the library that it is made of.

        Values go by standard input, so that none is among the arguments or in a file.
        """
        with cluster.environment() as env:
            pipe = subprocess.PIPE
            command = ["helm", verb, *arguments]
            try:
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)
            except FileNotFoundError:
                raise CallError("the stand-in needs the program helm on PATH") from None
            self._running[process] = verb
            if self._cancelled:
                self.cancel()
            if self._killed:
                self.kill()
            out, error = process.communicate("" if values is None else json.dumps(values))
            del self._running[process]
        if process.returncode == 0:
            return out
        if process.returncode == -signal.SIGINT:
            raise CallError("context canceled")
        start = re.search(
            r"^Error: ((INSTALLATION|UPGRADE) FAILED: )?"
            r"(An error occurred while checking for chart dependencies.*?dependencies: )?",
            error,
            re.M,
        )
        text = error[start.end() if start else 0 :].removesuffix("\n")
        raise CallError(text.removesuffix("\n\nUse --debug flag to render out invalid YAML"))

    def cancel(self) -> None:
        """Have what runs, and what starts later, end in order, with its release marked failed."""
        self._cancelled = True
        for process, verb in list(self._running.items()):
            if verb in ("install", "upgrade"):
                process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End at once what runs: the real provider's helm is a part of the plugin."""
        self._killed = True
        for process in list(self._running):
            process.kill()


class Loader(yaml.CSafeLoader):
    """YAML as Helm and Kubernetes read it: no dates, and no numbers of base 60."""


Loader.yaml_implicit_resolvers = {
    first: [it for it in resolvers if not re.search("timestamp|int|float", it[0])]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for kind, numbers in {
    "int": r"[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)",
    "float": r"[-+]?((\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
}.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^({numbers})$"), None)


def documents(text: str) -> list[Wire]:
    """The documents of a YAML text as JSON has them, where each key is text; less empty ones."""
    found: list[Wire] = json.loads(json.dumps([it for it in yaml.load_all(text, Loader) if it]))
    return found


def objects(manifest: str) -> list[Wire]:
    """The Kubernetes objects of a manifest."""
    return [it for it in documents(manifest) if it.get("kind") and it.get("apiVersion")]


def chart_arguments(release: Wire) -> list[str]:
    """A release's chart for helm's command line, and where it comes from."""
    options, chart = release.get("repositoryOpts", {}), release["chart"].strip()
    if set(filter(options.get, options)) - {"repo"}:
        raise CallError("the stand-in knows no repositoryOpts but repo")
    repository = options.get("repo", "")
    if repository and "://" not in repository and "/" not in chart:
        chart = f"{repository}/{chart}"
    remote = [f"--repo={repository}"] if "://" in repository and "://" not in chart else []
    return [chart, *remote, *([f"--version={release['version']}"] if release.get("version") else [])]


# The real provider knows scope from a list too; what is on neither list is taken for namespaced.
CLUSTER_KINDS = (
    "APIService CertificateSigningRequest ClusterRole ClusterRoleBinding CSIDriver CSINode"
    " CustomResourceDefinition FlowSchema IngressClass MutatingWebhookConfiguration Namespace Node"
    " PersistentVolume PodSecurityPolicy PriorityClass PriorityLevelConfiguration RuntimeClass"
    " StorageClass ValidatingWebhookConfiguration VolumeAttachment"
)


def render(helm: Helm, cluster: Cluster, options: Wire) -> list[Wire]:
    """The function `kubernetes:helm:template`: a chart's objects, CRDs and hooks among them."""
    if options.get("path"):
        chart = Path(options["path"], options["chart"].rpartition("/")[2])
        if not chart.exists():
            missing = f"stat {chart}: no such file or directory"
            raise CallError(f"failed to load chart from temp directory: {missing}")
        source = [str(chart.absolute())]
    else:
        source = chart_arguments(options | {"repositoryOpts": options.get("fetch_opts") or {}})
        try:
            helm.run(cluster, "show", "chart", *source)
        except CallError as error:
            raise CallError(f"failed to pull chart: {error.text}") from None
    namespace, values = options.get("namespace", ""), options.get("values") or {}
    flags = ["--include-crds", "--skip-tests", "--values", "-"]
    flags += ["--namespace", namespace or "default"]
    name = options.get("release_name", "")
    try:
        text = helm.run(cluster, "template", name, *source, *flags, values=values)
    except CallError as error:
        unloadable = ("Chart.yaml file is missing", "validation: ", "cannot load ", "stat ")
        if error.text.startswith(unloadable):
            raise CallError(f"failed to load chart from temp directory: {error.text}") from None
        raise CallError(f"failed to create chart from template: {error.text}") from None
    found = objects(text)
    for it in found:
        if namespace and it["kind"] not in CLUSTER_KINDS.split():
            metadata = it["metadata"] = it.get("metadata") or {}
            metadata["namespace"] = metadata.get("namespace") or namespace
    return found


# -- kubernetes:helm.sh/v3:Release ---------------------------------------------------------------

# Which input acts on which operation is the real provider's choice, odd as some of it is.
ALWAYS = "atomic dependencyUpdate description devel keyring postrender renderSubchartNotes verify"
ACTS_ON = {
    "install": "createNamespace disableOpenapiValidation disableWebhooks replace skipCrds",
    "upgrade": "cleanupOnFail disableCRDHooks forceUpdate recreatePods resetValues reuseValues",
}
FLAGS = {"disableCRDHooks": "no-hooks", "disableWebhooks": "no-hooks"}
FLAGS |= {"forceUpdate": "force", "postrender": "post-renderer"}
DEFAULT_TIMEOUT = 300

SWITCHES = f"{ALWAYS} {ACTS_ON['install']} {ACTS_ON['upgrade']}"
SWITCHES += " allowNullValues lint skipAwait waitForJobs"
RELEASE: Wire = {"timeout": 0, "values": {}} | dict.fromkeys(SWITCHES.split(), False)
RELEASE |= {"chart": "", "description": "", "keyring": "", "name": "", "namespace": ""}
RELEASE |= {"postrender": "", "version": ""}
OPTIONAL = {"maxHistory", "repositoryOpts", "resourceNames", "status"}
REPOSITORY = {"repo": "", "caFile": "", "certFile": "", "keyFile": "", "username": ""}
REPOSITORY |= {"password": ""}


def decoded(properties: Wire) -> Wire:
    """A release with every input at its value or default, less what the real one does not know."""
    given = {key: value for key, value in plain(properties).items() if value is not None}
    if given.get("valueYamlFiles") or given.get("lint"):
        raise CallError("the stand-in knows neither valueYamlFiles nor lint")
    if "repositoryOpts" in given:
        given["repositoryOpts"] = REPOSITORY | given["repositoryOpts"]
    known = RELEASE.keys() | OPTIONAL
    return RELEASE | {key: value for key, value in given.items() if key in known}


def helm_arguments(verb: str, release: Wire, namespace: str) -> list[str]:
    """What to tell helm to install or upgrade a release."""
    command = [release["name"], *chart_arguments(release), "--namespace", namespace]
    command += ["--values", "-", f"--timeout={release['timeout'] or DEFAULT_TIMEOUT}s"]
    if not release["skipAwait"]:
        command += ["--wait", *(["--wait-for-jobs"] if release["waitForJobs"] else [])]
    if verb == "upgrade":  # unset, the program would keep 10, and the library keeps all
        command += [f"--history-max={release.get('maxHistory', 0)}"]
    for key in filter(release.get, f"{ALWAYS} {ACTS_ON[verb]}".split()):
        flag = FLAGS.get(key) or re.sub("[A-Z]", lambda it: f"-{it[0].lower()}", key)
        command.append(f"--{flag}" if release[key] is True else f"--{flag}={release[key]}")
    return command


def checkpoint(release: Wire, inputs: Wire) -> Wire:
    """The state of a release that the engine keeps."""
    return mark_secrets(merged(release, {}), inputs) | {"__inputs": secret(inputs)}


def with_record(release: Wire, record: Wire) -> Wire:
    """The release with what Helm has recorded of it."""
    chart = record["chart"]["metadata"]
    names: dict[str, set[str]] = {}
    for it in objects(record["manifest"]):
        group = it["apiVersion"].rpartition("/")[0]
        key = f"{it['kind']}{group and '.' + group}/{it['apiVersion']}"
        full_name = [it["metadata"].get("namespace"), it["metadata"]["name"]]
        names.setdefault(key, set()).add("/".join(filter(None, full_name)))
    status = {"name": record["name"], "namespace": record["namespace"], "chart": chart["name"]}
    status |= {"revision": record["version"], "status": record["info"]["status"]}
    status |= {"version": chart["version"], "appVersion": chart.get("appVersion", "")}
    return release | {
        "name": release["name"] or record["name"],
        "namespace": release["namespace"] or record["namespace"],
        "chart": release["chart"] or chart["name"],
        "version": chart["version"],
        "values": merged(release["values"], record.get("config") or {}),
        "resourceNames": {key: sorted(them) for key, them in names.items()},
        "status": status,
    }


class Releases:
    """Answers for `kubernetes:helm.sh/v3:Release`."""

    def __init__(self, cluster: Cluster, helm: Helm, warn: Callable[[str, str], None]) -> None:
        self._cluster, self._helm, self._warn = cluster, helm, warn

    def check(self, request: Any) -> messages.CheckResponse:
        news, olds = to_wire(request.news), to_wire(request.olds)
        release, failures = decoded(news), []
        chance = f"{request.urn.rpartition('::')[2]}-{secrets.token_hex(4)}"
        release["name"] = release["name"] or plain(olds).get("name") or chance
        release["namespace"] = release["namespace"] or self._cluster.namespace
        if not release["skipAwait"] and "timeout" not in news:
            release["timeout"] = DEFAULT_TIMEOUT
        if not contains(news, lambda leaf: leaf == UNKNOWN):
            try:
                release["version"] = self._chart_version(release)
            except CallError as error:
                reason = f"{error.text}; check the chart name and repository configuration."
                failures = [messages.CheckFailure(property="chart", reason=reason)]
        release.pop("resourceNames", None)
        inputs = to_struct(mark_secrets(release, news))
        return messages.CheckResponse(inputs=inputs, failures=failures)

    def diff(self, request: Any) -> messages.DiffResponse:
        old, new = plain(to_wire(request.olds)), plain(to_wire(request.news))
        old_inputs = old.pop("__inputs", {})
        patch = merge_patch(old_inputs, new, old)
        kinds = detailed_diff(patch, old, new, old_inputs)
        more = {"diffs": list(patch), "changes": changes(patch)}
        return diff_answer(kinds, {"name", "namespace"}, **more)

    def create(self, request: Any) -> messages.CreateResponse:
        inputs = to_wire(request.properties)
        state = self._deploy("install", request, inputs, inputs)
        id = "" if request.preview else f"{plain(state['namespace'])}/{plain(state['name'])}"
        return messages.CreateResponse(id=id, properties=to_struct(state))

    def update(self, request: Any) -> messages.UpdateResponse:
        inputs, old = to_wire(request.news), to_wire(request.olds)
        state = self._deploy("upgrade", request, inputs, old)
        return messages.UpdateResponse(properties=to_struct(state))

    def read(self, request: Any) -> messages.ReadResponse:
        state = to_wire(request.properties)
        inputs = state.pop("__inputs", {}).get("value")
        release = decoded(state)
        namespace, name = release["namespace"], release["name"]
        if not state:  # an import
            namespace, _, name = request.id.rpartition("/")
        records = self._cluster.records(namespace, name)
        if not records:
            return messages.ReadResponse()
        release = with_record(release, records[max(records)]())
        if inputs is None:
            inputs = {k: v for k, v in release.items() if k not in ("resourceNames", "status")}
        state = checkpoint(release, inputs)
        return messages.ReadResponse(id=request.id, properties=to_struct(state), inputs=to_struct(inputs))

    def delete(self, request: Any) -> empty_pb2.Empty:
        self._cluster.require('can\'t delete Helm Release with unreachable cluster. Reason: "{}"')
        release = decoded(to_wire(request.properties))
        flags = ["--namespace", release["namespace"]]
        if release["atomic"] or not release["skipAwait"]:
            flags += ["--wait", f"--timeout={release['timeout'] or DEFAULT_TIMEOUT}s"]
        told = self._helm.run(self._cluster, "uninstall", release["name"], *flags)
        if kept := told.rpartition('release "')[0].strip("\n"):
            self._warn(request.urn, f"Helm uninstall returned information: {json.dumps(kept)}")
        return empty_pb2.Empty()

    def _deploy(self, verb: str, request: Any, inputs: Wire, place: Wire) -> Wire:
        """Install or upgrade where `place` says; the state, also of a release that failed."""
        release, namespace = decoded(inputs), plain(place["namespace"])
        if request.preview:
            return checkpoint(release, inputs) | {"resourceNames": UNKNOWN, "status": UNKNOWN}
        creates = verb == "install"
        operation = "create" if creates else "update"
        self._cluster.require(f"can't {operation} Helm Release with unreachable cluster: {{}}")
        name, values = release["name"], release["values"]
        last = max(self._cluster.records(namespace, name), default=0)
        arguments = helm_arguments(verb, release, namespace)
        try:
            self._helm.run(self._cluster, verb, *arguments, values=values)
        except CallError as error:
            try:
                records = self._cluster.records(namespace, name)
            except Exception:  # what ended Helm is in the way here too
                raise error from None
            if last + 1 not in records:
                raise
            if creates:
                text = f'Helm release "{name}" was created but has a failed status. Use the `helm`'
                text += " command to investigate the error, correct it, then retry. Reason: "
                self._warn(request.urn, text + error.text)
            id = f"{release['namespace']}/{name}"
            text = f'Helm release "{id}" {"was created, but " if creates else ""}failed to'
            text += " initialize completely. Use Helm CLI to investigate: failed to become available"
            text += f" within allocated timeout. Error: Helm Release {id}: {error.text}"
            state = checkpoint(with_record(release, records[last + 1]()), inputs)
            raise CallError(text, id=id, state=state) from None
        records = self._cluster.records(namespace, name)
        return checkpoint(with_record(release, records[max(records)]()), inputs)

    def _chart_version(self, release: Wire) -> str:
        """The version of the chart that would be deployed."""
        chart = Path(release["chart"].strip())
        if not release.get("repositoryOpts", {}).get("repo"):
            if (chart / "Chart.yaml").exists():
                return str(documents((chart / "Chart.yaml").read_text())[0]["version"])
            if not chart.is_file() and release["chart"].startswith((".", "/")):
                raise CallError(f'path "{release["chart"]}" not found')
        shown = self._helm.run(self._cluster, "show", "chart", *chart_arguments(release))
        return str(documents(shown)[0]["version"])


# -- kubernetes:core/v1:Namespace and NamespacePatch ---------------------------------------------

REMOVE_FROM_STATE = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the"
    ' operation with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)


class Namespaces:
    """Answers for `kubernetes:core/v1:Namespace` and, as a patch, for labels of an existing one."""

    def __init__(self, cluster: Cluster, stopping: threading.Event) -> None:
        self._cluster, self._stopping = cluster, stopping

    def check(self, request: Any) -> messages.CheckResponse:
        if not plain(to_wire(request.news)).get("metadata", {}).get("name"):
            raise CallError("the stand-in makes up no names of namespaces: set metadata.name")
        return messages.CheckResponse(inputs=request.news)

    def diff(self, request: Any) -> messages.DiffResponse:
        live, new = plain(to_wire(request.olds)), plain(to_wire(request.news))
        base = pruned(live, live.pop("__inputs", {}))
        kinds = detailed_diff(merge_patch(base, new, base), base, new, base)
        return diff_answer(kinds, {"metadata.name"}, hasDetailedDiff=True)

    def create(self, request: Any) -> messages.CreateResponse:
        inputs, patch = to_wire(request.properties), request.type.endswith("Patch")
        as_given = messages.CreateResponse(properties=request.properties)
        if request.preview and (patch or self._cluster.unreachable):
            return as_given
        self._cluster.require("configured Kubernetes cluster is unreachable: {}")
        manager = self._manager()
        query = {"dryRun": "All"} if request.preview else {}
        try:
            if patch:
                live = self._apply(inputs, manager)
            else:
                query["fieldManager"] = "pulumi-kubernetes"
                live = self._cluster.call("POST", "namespaces", plain(inputs), **query)
        except CallError as error:
            if request.preview and error.status in (403, 409):
                return as_given
            raise CallError(
                f'resource "{request.urn}" was not successfully created by the Kubernetes API'
                f" server: {error.text}"
            ) from None
        if request.preview:
            del live["status"]
        id = "" if request.preview else live["metadata"]["name"]
        return messages.CreateResponse(id=id, properties=self._state(inputs, live, manager))

    def update(self, request: Any) -> messages.UpdateResponse:
        inputs, state = to_wire(request.news), to_wire(request.olds)
        manager = state.get("__fieldManager") or self._manager()
        if request.preview and self._cluster.unreachable:
            return messages.UpdateResponse(properties=request.news)
        self._cluster.require("configured Kubernetes cluster is unreachable: {}")
        try:
            if not request.preview and not request.type.endswith("Patch"):
                self._take_over_created_fields(plain(inputs)["metadata"]["name"], manager)
            live = self._apply(inputs, manager, **({"dryRun": "All"} if request.preview else {}))
        except CallError as error:
            raise CallError(f'update of resource "{request.urn}" failed: {error.text}') from None
        return messages.UpdateResponse(properties=self._state(inputs, live, manager))

    def read(self, request: Any) -> messages.ReadResponse:
        inputs, state = to_wire(request.inputs), to_wire(request.properties)
        try:
            live = self._cluster.call("GET", f"namespaces/{request.id}")
        except CallError as error:
            if error.status == 404:
                return messages.ReadResponse()
            raise
        given = pruned(live, plain(inputs))
        if not inputs:  # an import
            made = {"creationTimestamp", "managedFields", "resourceVersion", "uid"}
            given = {key: live[key] for key in ("apiVersion", "kind", "spec")}
            given["metadata"] = {k: v for k, v in live["metadata"].items() if k not in made}
        inputs = mark_secrets(given, inputs)
        manager = state.get("__fieldManager") or self._manager()
        properties = self._state(inputs, live, manager)
        return messages.ReadResponse(id=request.id, properties=properties, inputs=to_struct(inputs))

    def delete(self, request: Any) -> empty_pb2.Empty:
        self._cluster.require("configured Kubernetes cluster is unreachable. " + REMOVE_FROM_STATE)
        path, name = f"namespaces/{request.id}", request.id
        try:
            if request.type.endswith("Patch"):
                # Of a manager that applies nothing, the server removes the fields.
                nothing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                self._apply(nothing, to_wire(request.properties)["__fieldManager"])
                return empty_pb2.Empty()
            self._cluster.call("DELETE", path, {"propagationPolicy": "Foreground"})
            for _ in range(int((request.timeout or 600) * 5)):
                self._cluster.call("GET", path)
                if self._stopping.wait(0.2):
                    raise CallError("context canceled")
        except CallError as error:
            if error.status == 404:
                return empty_pb2.Empty()
            raise
        raise CallError(f'timed out waiting for namespace "{name}" to be deleted')

    def _apply(self, inputs: Wire, manager: str, **query: str) -> Wire:
        """Server-side apply, which fails if another manager holds one of the fields."""
        path, force = f"namespaces/{plain(inputs)['metadata']['name']}", str("dryRun" in query)
        query |= {"fieldManager": manager, "force": force.lower()}
        return self._cluster.call("PATCH", path, plain(inputs), "apply-patch+yaml", **query)

    def _take_over_created_fields(self, name: str, manager: str) -> None:
        """Give the fields set by the creation to the manager that applies, or they conflict."""
        metadata = self._cluster.call("GET", f"namespaces/{name}")["metadata"]
        for it in metadata["managedFields"]:
            if it["manager"] == "pulumi-kubernetes" and it["operation"] == "Update":
                it |= {"manager": manager, "operation": "Apply"}
                patch = [
                    {"op": "replace", "path": f"/metadata/{key}", "value": metadata[key]}
                    for key in ("managedFields", "resourceVersion")
                ]
                self._cluster.call("PATCH", f"namespaces/{name}", patch, "json-patch+json")

    @staticmethod
    def _manager() -> str:
        return f"pulumi-kubernetes-{secrets.token_hex(4)}"

    @staticmethod
    def _state(inputs: Wire, live: Wire, manager: str) -> struct_pb2.Struct:
        private = {"__inputs": inputs, "__initialApiVersion": "v1", "__fieldManager": manager}
        return to_struct(mark_secrets(live, inputs) | private)


# -- the plugin ----------------------------------------------------------------------------------


def answering(method: Callable[[Any, Any], Any]) -> Any:
    """A gRPC method that answers with the result of the given one, or with its error."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return method(self, request)
        except CallError as error:
            return error.abort(context)

    return answer


def of_type(verb: str) -> Any:
    """A gRPC method that is answered by the type of the resource."""

    def answer(self: KubernetesProvider, request: Any) -> Any:
        if request.type not in self.answers:
            raise CallError(f"the stand-in for the Kubernetes provider has no {request.type}")
        return getattr(self.answers[request.type], verb)(request)

    return answering(answer)


class KubernetesProvider(ResourceProviderServicer):
    """The plugin as the engine sees it."""

    def __init__(self, engine_address: str = "") -> None:
        self._engine_address = engine_address
        self._stopping = threading.Event()
        self._helm = Helm()
        self._use(Cluster())

    def _use(self, cluster: Cluster) -> None:
        self._cluster = cluster
        namespaces = Namespaces(cluster, self._stopping)
        self.answers: dict[str, Any] = {
            "kubernetes:helm.sh/v3:Release": Releases(cluster, self._helm, self._warn),
            "kubernetes:core/v1:Namespace": namespaces,
            "kubernetes:core/v1:NamespacePatch": namespaces,
        }

    def _warn(self, urn: str, text: str) -> None:
        if self._engine_address:
            warning = engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=text, urn=urn)
            with grpc.insecure_channel(self._engine_address) as channel:
                engine_pb2_grpc.EngineStub(channel).Log(warning)

    def _diff_config(self, request: Any) -> messages.DiffResponse:
        old, new = plain(to_wire(request.olds)), plain(to_wire(request.news))
        changed = {key for key in old | new if not same(old.get(key), new.get(key))}
        identifiers = [it.get("clusterIdentifier") for it in (old, new)]
        replaces: set[str] = set()
        if not (identifiers[1] and same(*identifiers)):
            replaces = {"clusterIdentifier"} if all(identifiers) else set()
            identity = {"kubeconfig", "context", "cluster"}
            clusters = [self._active_cluster(it) for it in (old, new)]
            known = not any(new.get(key) == UNKNOWN for key in identity)
            if not known or (all(clusters) and not same(*clusters)):
                replaces |= changed & identity
        return messages.DiffResponse(
            changes=changes(changed), diffs=sorted(changed), replaces=sorted(replaces)
        )

    @staticmethod
    def _active_cluster(properties: Wire) -> Wire:
        """The cluster entry that a provider's properties lead to; empty if they lead to none."""
        given = properties.get("kubeconfig")
        if not given:
            return {}
        text = given if isinstance(given, str) else json.dumps(given)
        cluster = Cluster(text, properties.get("context") or "")
        return cluster.entry("cluster", properties.get("cluster") or cluster.context.get("cluster"))

    def _configure(self, request: Any) -> messages.ConfigureResponse:
        wanted = ("kubeconfig", "context", "namespace")
        self._use(Cluster(*(request.variables[f"kubernetes:config:{it}"] for it in wanted)))
        return messages.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def _invoke(self, request: Any) -> messages.InvokeResponse:
        if request.tok != "kubernetes:helm:template":
            raise CallError(f"the stand-in for the Kubernetes provider has no function {request.tok}")
        options = json.loads(to_wire(request.args)["jsonOpts"])
        try:
            found = {"result": render(self._helm, self._cluster, options)}
        except CallError as error:
            text = f"failed to generate YAML for specified Helm chart: {error.text}"
            raise CallError(text) from None
        answer = messages.InvokeResponse()
        getattr(answer, "return").CopyFrom(to_struct(found))  # a keyword of Python
        return answer

    def _cancel(self, _request: Any) -> empty_pb2.Empty:
        self._stopping.set()
        self._helm.cancel()
        return empty_pb2.Empty()

    def stop(self) -> None:
        """End at once what is under way."""
        self._stopping.set()
        self._helm.kill()

    def _read(self, request: Any) -> Any:
        sentence = "failed to read resource state due to unreachable cluster. "
        self._cluster.require(sentence + REMOVE_FROM_STATE)
        return self.answers[request.type].read(request)

    GetPluginInfo = answering(lambda _self, _request: plugin_pb2.PluginInfo(version=VERSION))
    CheckConfig = answering(lambda _self, request: messages.CheckResponse(inputs=request.news))
    DiffConfig, Configure = answering(_diff_config), answering(_configure)
    Check, Diff = of_type("check"), of_type("diff")
    Create, Update, Delete = of_type("create"), of_type("update"), of_type("delete")
    Read, Invoke, Cancel = answering(_read), answering(_invoke), answering(_cancel)


def serve(provider: ResourceProviderServicer) -> tuple[grpc.Server, int]:
    """Start to answer on a free port of this machine."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=options)
    add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def run(provider: Any) -> None:
    """Serve until the engine ends, or ends us; then `provider.stop()` ends what is under way."""
    engine = os.getppid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server, port = serve(provider)
    with contextlib.suppress(KeyboardInterrupt):
        print(port, flush=True)
        # An engine that is killed says nothing: this process then has another parent.
        while os.getppid() == engine:
            server.wait_for_termination(timeout=0.1)
    provider.stop()
    # Calls that are under way end first, for they remove the kube config that they wrote.
    server.stop(grace=None)


if __name__ == "__main__":
    # The engine gives its own address, for messages to the user.
    run(KubernetesProvider(next((it for it in sys.argv[1:] if not it.startswith("-")), "")))
