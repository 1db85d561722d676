"""Kubernetes objects as Helm deploys them: what identifies one, what Helm does with it, what is compared."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .values import merge_patch

Object = Mapping[str, Any]
"""A Kubernetes object, as rendered, recorded or stored."""

Key = tuple[str, str, str, str]
"""Group, kind, namespace and name of an object."""

HOOKS_OF_AN_INSTALLATION = {"pre-install", "post-install"}
HOOKS_OF_AN_UPGRADE = {"pre-upgrade", "post-upgrade"}
CHART_VERSION_LABELS = ("helm.sh/chart", "app.kubernetes.io/version")


def flattened(items: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the objects of a rendered chart, with those of a v1 `List` in its place, as Helm takes them."""
    objects: list[dict[str, Any]] = []
    for item in items:
        if (
            isinstance(item, Mapping)
            and isinstance(item.get("items"), list)
            and item["kind"].endswith("List")
        ):
            objects += flattened(item["items"])
        elif item:
            objects.append(dict(item))
    return objects


def key_of(item: Object, namespace: str) -> Key:
    """Return what makes an object the same for Helm; `namespace` is that of the release."""
    meta = item["metadata"]
    return group_of(item), item["kind"], meta.get("namespace", namespace), meta.get("name", "")


def by_key(objects: Iterable[Object], namespace: str) -> dict[Key, Object]:
    """Return `objects` by `key_of`."""
    return {key_of(item, namespace): item for item in objects}


def group_of(item: Object) -> str:
    """Return the API group of an object, empty for the core group."""
    return str(item["apiVersion"]).rpartition("/")[0]


def label_of(item: Object) -> str:
    """Return kind and name, as in `Deployment web`."""
    meta = item["metadata"]
    return f"{item['kind']} {meta.get('name') or meta.get('generateName', '')}"


def label_of_key(key: Key) -> str:
    """Return kind and name, as in `Deployment web`."""
    return f"{key[1]} {key[3]}"


def hook_phases(item: Object) -> set[str]:
    """Return when Helm runs an object as a hook, as in `post-install`; empty for one that is none."""
    phases = (item["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return {phase.strip() for phase in phases.split(",") if phase.strip()}


def is_hook(item: Object) -> bool:
    """Return whether Helm runs an object as a hook."""
    return bool(hook_phases(item))


def is_removed_before_it_runs(item: Object) -> bool:
    """Return whether Helm deletes what an earlier deployment has left of a hook, as it does by default."""
    notes = item["metadata"].get("annotations") or {}
    policies = {policy.strip() for policy in notes.get("helm.sh/hook-delete-policy", "").split(",")} - {""}
    return not policies or "before-hook-creation" in policies


def is_kept(item: Object) -> bool:
    """Return whether Helm leaves an object in the cluster when the chart has it no more."""
    policy = (item["metadata"].get("annotations") or {}).get("helm.sh/resource-policy")
    return policy == "keep" or is_hook(item)


def comparable(item: Object) -> dict[str, Any]:
    """Return an object without its namespace, which `key_of` holds, and without nulls.

    The provider's rendering names the namespace in every object and loses nulls; Helm's record has both
    where the chart has.
    """
    meta = {key: value for key, value in item["metadata"].items() if key != "namespace"}
    bare: dict[str, Any] = without_nulls({**item, "metadata": meta})
    return bare


def without_nulls(value: Any) -> Any:
    """Return `value` without the keys whose value is null."""
    match value:
        case Mapping():
            return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
    return value


def without_chart_version(item: Object) -> dict[str, Any]:
    """Return an object without the labels that name the chart's version.

    They would show every object as changed whenever the chart has a new version, and the release says
    that by itself.
    """
    meta = item.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k not in CHART_VERSION_LABELS}
    return {**item, "metadata": {**meta, **({"labels": labels} if "labels" in meta else {})}}


def without_system_fields(item: Object) -> dict[str, Any]:
    """Return a stored object without its status, and without what the API server writes with every change."""
    meta = {
        key: value
        for key, value in item["metadata"].items()
        if key not in ("managedFields", "resourceVersion", "generation")
    }
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": meta}


def written_at(item: Object) -> list[datetime | None]:
    """Return when each of its writers has last changed a stored object, apart from its status; None where the
    API server does not keep that."""
    entries = item["metadata"].get("managedFields") or []
    return [
        datetime.fromisoformat(entry["time"]) if entry.get("time") else None
        for entry in entries
        if entry.get("subresource") != "status"
    ]


def update_patch(old: Object, new: Object) -> dict[str, Any]:
    """Return the JSON merge patch for what Helm sends when it upgrades `old` to `new`.

    Helm uses Kubernetes' strategic merge, in which a Deployment's strategy alone keeps no key that it is
    not given: `rollingUpdate` goes, though the server and not the chart has set it.
    """
    patch = merge_patch(comparable(old) if old else {}, comparable(new))
    spec = patch.get("spec")
    strategy = spec.get("strategy") if isinstance(spec, dict) and new["kind"] == "Deployment" else None
    if strategy and "rollingUpdate" not in new["spec"]["strategy"]:
        strategy["rollingUpdate"] = None
    return patch


def newly_unsized(
    rendered: Iterable[Object], recorded: Iterable[Object], namespace: str
) -> dict[Key, Object]:
    """Return those of `recorded` that no longer say how many pods they have, because an autoscaler does."""
    unsized = {key_of(item, namespace) for item in rendered if _replicas(item) is None}
    return {
        key: item
        for key, item in by_key(recorded, namespace).items()
        if key in unsized and _replicas(item) is not None
    }


def _replicas(item: Object) -> Any:
    spec = item.get("spec")
    return spec.get("replicas") if isinstance(spec, Mapping) else None


def kinds_of_crds(objects: Iterable[Object]) -> set[tuple[str, str]]:
    """Return group and kind of what the CustomResourceDefinitions among `objects` define."""
    specs = [item.get("spec", {}) for item in objects if item["kind"] == "CustomResourceDefinition"]
    return {(spec.get("group", ""), spec.get("names", {}).get("kind", "")) for spec in specs}


def in_their_scope(objects: Iterable[Object], crds: Sequence[Object], namespace: str) -> list[dict[str, Any]]:
    """Return `objects` without the namespace of the release where their kind has none: the provider puts it
    into all whose kind the cluster does not know yet.

    Args:
        objects: of the chart, as the provider renders them.
        crds: of the chart's folder crds/.
        namespace: of the release.
    """
    rendered = list(objects)
    of_cluster = kinds_of_crds(
        item for item in [*crds, *rendered] if (item.get("spec") or {}).get("scope") == "Cluster"
    )

    def settled(item: Object) -> dict[str, Any]:
        meta = item.get("metadata") or {}
        if meta.get("namespace") != namespace or (group_of(item), item["kind"]) not in of_cluster:
            return dict(item)
        return {**item, "metadata": {key: text for key, text in meta.items() if key != "namespace"}}

    return [settled(item) for item in rendered]
