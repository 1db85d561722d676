"""Helm's record of a release: its revisions, read from the cluster.

Helm keeps each revision in a Secret `sh.helm.release.v1.NAME.vN`. It, and not Pulumi's memory, is the
truth of what runs: a rollback, an upgrade from outside and a killed run are seen in it alone.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import yaml

from . import helm_yaml
from .kubernetes_api import Api, ApiError, ClusterError, lacks_namespace
from .manifest import Key, Object, by_key, comparable, flattened, written_at

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One revision of a release."""

    name: str
    namespace: str
    revision: int
    status: str
    """`deployed`, `failed`, `pending-upgrade`, …"""
    description: str
    created: datetime
    """When the operation that made it began, by the API server's clock."""
    stored: datetime | None = None
    """When Helm wrote it last, by the API server's clock: after all objects. None where that is not kept."""
    values: Mapping[str, Any]
    """What the deployer gave, without the chart's defaults. Holds credentials."""
    manifest: str
    """The objects as YAML, without hooks. Holds credentials."""
    hooks: str = ""
    """The hooks as YAML. Holds credentials."""

    @property
    def is_pending(self) -> bool:
        """Whether a run is at work on it, or was killed in the midst of it; Helm refuses any other."""
        return self.status.startswith("pending-")

    def objects(self) -> list[dict[str, Any]]:
        """Return the objects of `manifest`.

        Raises:
            ClusterError: it is no YAML.
        """
        return self._objects

    def has(self, objects: Iterable[Object]) -> bool:
        """Return whether each of `objects`, hooks among them, is recorded as it is.

        Raises:
            ClusterError: what is recorded is no YAML.
        """
        recorded = by_key([*self.objects(), *self._parsed(self.hooks)], self.namespace)
        wanted = by_key(objects, self.namespace)
        return all(
            key in recorded and comparable(recorded[key]) == comparable(item) for key, item in wanted.items()
        )

    @cached_property
    def _objects(self) -> list[dict[str, Any]]:
        return self._parsed(self.manifest)

    def _parsed(self, text: str) -> list[dict[str, Any]]:
        try:
            return flattened(helm_yaml.load_all(text))
        except (yaml.YAMLError, ValueError):  # whose messages quote what they have read
            raise ClusterError(
                f"the manifest of revision {self.revision} in Helm's record of {self.name} is no YAML"
            ) from None

    @property
    def is_at_work(self) -> bool:
        """Whether a run is at work on it, or was killed in the midst of that: pending, or being
        uninstalled, which Helm does not upgrade either."""
        return self.is_pending or self.status == "uninstalling"

    @property
    def began(self) -> datetime:
        """When that run began."""
        return self.created if self.is_pending else self.stored or self.created

    def has_surely_ended(self, now: datetime, timeout: int) -> bool:
        """Return whether the run at work on it has ended: a wait and the rollback after it last at most twice
        the timeout (seconds)."""
        return self.is_at_work and now - self.began > timedelta(seconds=2 * timeout)


def status(api: Api, name: str, namespace: str) -> str:
    """Return the status of the newest revision of release `name`, empty where there is none.

    Raises:
        ClusterError: as `newest`.
    """
    labels = _labels_of_revisions(api, name, namespace)
    return str(labels[max(labels)]["status"]) if labels else ""


def newest(
    api: Api, name: str, namespace: str, status: str = "", known: Record | None = None
) -> Record | None:
    """Return the newest revision of release `name` (with `status`, where given), None where there is none.

    Args:
        api: of the cluster.
        name: of the release.
        namespace: of the release.
        status: that it has to have.
        known: one that was read before; where it is still the newest, with that status, it is not read again.

    Raises:
        ClusterError: the API server could not be asked, or refused, or what Helm has stored cannot be read.
    """
    while revisions := _labels_of_revisions(api, name, namespace, status):
        number = max(revisions)
        if known and (number, revisions[number]["status"]) == (known.revision, known.status):
            return known
        if record := revision(api, name, namespace, number):
            return record  # else it went since the list was made
    return None


def revision(api: Api, name: str, namespace: str, number: int) -> Record | None:
    """Return revision `number` of release `name`, None where Helm no longer keeps it.

    Raises:
        ClusterError: as `newest`.
    """
    secret = api.find(_path(name, namespace, number))
    return None if secret is None else _decode(secret)


def history(api: Api, name: str, namespace: str) -> list[Record]:
    """Return every revision of release `name` that Helm still keeps, the newest last.

    Raises:
        ClusterError: as `newest`.
    """
    numbers = sorted(_labels_of_revisions(api, name, namespace))
    return [record for number in numbers if (record := revision(api, name, namespace, number))]


def _labels_of_revisions(
    api: Api, name: str, namespace: str, status: str = ""
) -> dict[int, Mapping[str, str]]:
    """Return of each revision what its Secret's labels say: a revision can be a megabyte, and Helm keeps
    several."""
    wanted = f"owner=helm,name={name}" + (f",status={status}" if status else "")
    path = f"/api/v1/namespaces/{namespace}/secrets"
    try:
        listed = api.get(path, METADATA_ONLY, labelSelector=wanted).get("items") or []
    except ApiError as error:
        if error.code == 403 and lacks_namespace(api, namespace):
            return {}
        raise
    labels = [item["metadata"]["labels"] for item in listed]
    return {int(of_one["version"]): of_one for of_one in labels}


def basis(api: Api, newest_one: Record) -> Record:
    """Return the revision that Helm upgrades from.

    Raises:
        ClusterError: as `newest`.
    """
    if newest_one.status == "deployed":
        return newest_one
    return newest(api, newest_one.name, newest_one.namespace, "deployed") or newest_one


def mark_failed(api: Api, record: Record, text: str) -> bool:
    """Let Helm go on over a revision that it refuses to upgrade: one that a killed run has left pending, or
    that was uninstalled with its history kept. Nothing is deleted, and the next upgrade starts from the last
    deployed revision, or makes all objects anew.

    Args:
        api: of the cluster.
        record: the revision.
        text: the reason, for its description.

    Returns:
        False where `record` is out of date: a run is at work on it after all.
    """
    return _rewrite(api, record, labels={"status": "failed"}, info={"status": "failed", "description": text})


def leave_replicas(api: Api, record: Record, keys: Container[Key]) -> bool:
    """Let an upgrade leave the running number of pods alone: take `spec.replicas` of the objects with `keys`
    out of Helm's record. What stands there and not in the new manifest would fall back to Kubernetes'
    default, one.

    Returns:
        False where `record` is out of date.
    """
    text = record.manifest
    for document, start, end in reversed([*helm_yaml.Reader(text).documents()]):
        objects = by_key(flattened([document]), record.namespace)
        if any(key in keys for key in objects):
            items = [_unsized(item) if key in keys else item for key, item in objects.items()]
            text = text[:start] + "\n---\n".join(map(helm_yaml.dump, items)) + "\n" + text[end:]
    return _rewrite(api, record, manifest=text)


def _unsized(item: Object) -> Object:
    spec = {key: value for key, value in item["spec"].items() if key != "replicas"}
    return {**item, "spec": spec}


def append(api: Api, record: Record, description: str, newest: int | None = None) -> bool:
    """Record one more revision with the objects of `record`, and without its values.

    Args:
        api: of the cluster.
        record: the revision that is deployed.
        description: of the new one.
        newest: number of the newest revision, where that is not `record`.

    Returns:
        False where there is a newer one by now.
    """
    number = (newest or record.revision) + 1
    secret = api.get(_path(record.name, record.namespace, record.revision))
    release = _release(secret)
    release |= {"version": number, "config": {}}
    release["info"] |= {"status": "deployed", "description": description}
    name = f"sh.helm.release.v1.{record.name}.v{number}"
    labels = {**secret["metadata"]["labels"], "version": str(number), "status": "deployed"}
    new = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": secret["type"],
        "metadata": {"name": name, "labels": labels},
        "data": {"release": _packed(release)},
    }
    try:
        api.create(f"/api/v1/namespaces/{record.namespace}/secrets", new)
    except ApiError as error:
        if error.reason == "AlreadyExists":
            return False
        raise
    return _rewrite(api, record, labels={"status": "superseded"}, info={"status": "superseded"})


def _rewrite(
    api: Api,
    record: Record,
    labels: Mapping[str, str] | None = None,
    info: Object | None = None,
    **parts: str,
) -> bool:
    """Change what Helm has stored, and return False where that is not what `record` says any more."""
    path = _path(record.name, record.namespace, record.revision)
    secret = api.get(path)
    release = _release(secret)
    if release["info"]["status"] != record.status:
        return False
    release |= parts
    release["info"] |= info or {}
    patch = {
        "metadata": {
            "labels": labels or {},
            # Refused when somebody has written it since it was read.
            "resourceVersion": secret["metadata"]["resourceVersion"],
        },
        "data": {"release": _packed(release)},
    }
    try:
        api.merge_patch(path, patch)
    except ApiError as error:
        if error.reason == "Conflict":
            return False
        raise
    return True


def _path(name: str, namespace: str, revision: int) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/sh.helm.release.v1.{name}.v{revision}"


def _release(secret: Object) -> dict[str, Any]:
    # Kubernetes encodes the Secret's data once, Helm once more, over gzip.
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    release: dict[str, Any] = json.loads(gzip.decompress(packed))
    return release


def _packed(release: Mapping[str, Any]) -> str:
    packed = base64.b64encode(gzip.compress(json.dumps(release).encode()))
    return base64.b64encode(packed).decode()


def _decode(secret: Object) -> Record:
    try:
        return _record_in(secret)
    except (KeyError, TypeError, AttributeError, ValueError, OSError, EOFError, zlib.error):
        name = secret["metadata"]["name"]
        raise ClusterError(f"Secret {name} does not hold what Helm stores of a release") from None


def _record_in(secret: Object) -> Record:
    release = _release(secret)
    return Record(
        name=release["name"],
        namespace=secret["metadata"]["namespace"],
        revision=release["version"],
        status=release["info"]["status"],
        description=release["info"].get("description", ""),
        created=datetime.fromisoformat(secret["metadata"]["creationTimestamp"]),
        stored=max((time for time in written_at(secret) if time), default=None),
        values=release.get("config") or {},
        manifest=release.get("manifest", ""),
        hooks="\n---\n".join(hook.get("manifest", "") for hook in release.get("hooks") or ()),
    )
