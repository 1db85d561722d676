"""Rows: the Kubernetes objects of a release, shown in Pulumi's own tree.

Each object is a component resource whose inputs are the object itself. A component does nothing, but
the engine compares its inputs: so a preview says which objects are created, updated and deleted, and
`--diff` says which fields, without any diff code here.

A row is one message to the engine (`RegisterResource` in Pulumi's proto/pulumi/resource.proto), and is sent
as that. A `ComponentResource` sends the same, but also makes Outputs of all inputs, tells the engine of its
steps in four more messages, and has a stack trace stored: of a thousand objects, 3 s and 2 MB of state.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc
import pulumi
from pulumi.runtime.proto.resource_pb2 import RegisterResourceRequest
from pulumi.runtime.settings import _get_rpc_manager, get_monitor, handle_grpc_error

from .manifest import Object, without_chart_version
from .secrets import Secrets
from .values import map_leaves

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
"""The mark of a secret in messages to the engine (`SigKey` and `SecretSig` in sdk/go/common/resource/sig)."""
LARGE_SCHEMA = 10_000
"""Characters in JSON from which on the schema of a CRD is shown by its digest: some have half a million,
which the engine would compare in each run, and store in each of its many steps."""


def show(
    objects: Iterable[Object],
    *,
    release: pulumi.Resource,
    name: str,
    namespace: str,
    secrets: Secrets,
) -> None:
    """Register each of `objects` as a child of `release`, when that is deployed.

    All that a Secret holds, and every text with one of `secrets` in it, becomes a secret of Pulumi:
    `[secret]` on the screen, ciphertext in the state.

    Args:
        objects: the rendered objects.
        release: the Release that deploys them.
        name: of the release.
        namespace: of the release, and of objects that name none.
        secrets: texts that must not be seen.
    """

    async def register() -> None:
        urn = await release.urn.future()
        if urn:
            rows = requests(objects, urn, name, namespace, secrets)
            await asyncio.gather(*(asyncio.to_thread(_send, row) for row in rows))

    # What the SDK waits for before a program ends, or a provider answers.
    _get_rpc_manager().rpcs.append(asyncio.ensure_future(register()))


def requests(
    objects: Iterable[Object], release: str, name: str, namespace: str, secrets: Secrets
) -> Iterator[RegisterResourceRequest]:
    """Yield the message that registers each of `objects`; `release` is the URN of the Release."""
    seen: Counter[tuple[str, str]] = Counter()
    for item in objects:
        meta = item.get("metadata", {})
        group = item["apiVersion"]
        kind = f"helm:{group if '/' in group else f'core/{group}'}:{item['kind']}"
        # A URN holds the types of the parents, not their names: without the release's name and
        # namespace the objects of two releases would be the same resource.
        full = "/".join([name, meta.get("namespace", namespace), meta.get("name", "unnamed")])
        seen[kind, full] += 1
        if seen[kind, full] > 1:  # a hook may share a name with another
            full += f"#{seen[kind, full]}"
        request = RegisterResourceRequest(
            type=kind,
            name=full,
            parent=release,
            dependencies=[release],
            # A parent's protection and retention are inherited, and would fail or hide the removal of
            # an object that Helm has long deleted.
            protect=False,
            retainOnDelete=False,
            # What the SDK says of itself.
            acceptSecrets=True,
            acceptResources=True,
            supportsPartialValues=True,
            supportsResultReporting=True,
        )
        request.object.update(_marked(item, secrets))
        for key in request.object:
            request.propertyDependencies[key].SetInParent()  # none: left out, it would be all `dependencies`
        yield request


def _send(row: RegisterResourceRequest) -> None:
    try:
        get_monitor().RegisterResource(row)
    except grpc.RpcError as error:
        handle_grpc_error(error)


def _marked(item: Object, secrets: Secrets) -> dict[str, Any]:
    is_secret = item["kind"] == "Secret" and item["apiVersion"] == "v1"
    content = ("data", "stringData") if is_secret else ()
    return {
        key: map_leaves(value, _secret) if key in content else _hidden(value, secrets)
        for key, value in _without_large_schemas(without_chart_version(item)).items()
        if value is not None
    }


def _without_large_schemas(item: dict[str, Any]) -> dict[str, Any]:
    spec = item.get("spec") or {}
    if item["kind"] != "CustomResourceDefinition" or not spec.get("versions"):
        return item
    versions = [
        {**version, "schema": _digest(version["schema"])} if version.get("schema") else version
        for version in spec["versions"]
    ]
    return {**item, "spec": {**spec, "versions": versions}}


def _digest(schema: Object) -> Object | str:
    text = json.dumps(schema, sort_keys=True)
    if len(text) < LARGE_SCHEMA:
        return schema
    return f"{len(text) // 1000} kB, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _hidden(value: Any, secrets: Secrets) -> Any:
    """Return `value` with each text that holds one of `secrets` hidden; with a key that does, the mapping."""
    match value:
        case Mapping():
            if any(secrets.holds(str(key)) for key in value):
                return _secret(value)
            return {key: _hidden(item, secrets) for key, item in value.items()}
        case list():
            return [_hidden(item, secrets) for item in value]
        case str() if secrets.holds(value):
            return _secret(value)
    return value


def _secret(value: Any) -> dict[str, Any]:
    return {**SECRET, "value": value}
