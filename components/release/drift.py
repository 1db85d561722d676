"""Drift: fields of a release's objects that somebody has changed by hand, who, and when.

The API server itself is asked what each object would be if Helm's record held, without doing it: so
defaults, other ways to write the same number, and fields that Helm never set (those of an autoscaler
among them) are no drift.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any

from .dry_run import LENIENT
from .findings import AT_ONCE, Finding, ask_about_each
from .kubernetes_api import Api, ClusterError
from .manifest import (
    Key,
    Object,
    by_key,
    comparable,
    key_of,
    label_of,
    without_system_fields,
    written_at,
)
from .secrets import MASK, Secrets
from .values import (
    ABSENT,
    ItemName,
    Path,
    by_name,
    differences,
    dotted,
    keyed,
    merge_patch,
)

NOTHING, SET = "nothing", "[value]"

MANY = 10
"""Objects of one kind in one namespace that are listed and not asked for one by one: to get a few is a right
that a preview has, to list is one that it may not have."""

Live = Mapping[Key, Object | ClusterError | None]
"""Objects as they are in the cluster: None where one is missing, an error where it could not be read."""


def read(api: Api, recorded: Iterable[Object], namespace: str) -> Live:
    """Return each of `recorded` as it is in the cluster.

    Args:
        api: of the cluster.
        recorded: the objects of the revision that is deployed.
        namespace: of the release.
    """
    items = by_key(recorded, namespace)

    def path_of(item: Object) -> str | ClusterError:
        try:
            return api.collection(item, namespace)
        except ClusterError as error:
            return error

    def find(item: Object) -> Object | ClusterError | None:
        try:
            return api.find(api.path(item, namespace))
        except ClusterError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        collections: dict[str, dict[Key, Object]] = {}
        for (key, item), path in zip(items.items(), threads.map(path_of, items.values()), strict=True):
            if isinstance(path, str):
                collections.setdefault(path, {})[key] = item
        large = {path: some for path, some in collections.items() if len(some) >= MANY}
        live: dict[Key, Object | ClusterError | None] = {}
        for listed in threads.map(lambda path: _listed(api, path, large[path], namespace), large):
            live |= listed
        # Whatever has lost its labels is not among the listed.
        rest = {key: item for key, item in items.items() if key not in live}
        return live | dict(zip(rest, threads.map(find, rest.values()), strict=True))


def _listed(api: Api, path: str, items: Mapping[Key, Object], namespace: str) -> dict[Key, Object]:
    """Return those of `items`, which are in one collection, that a list by their common labels has; none
    where it is refused."""
    labels = [set((item["metadata"].get("labels") or {}).items()) for item in items.values()]
    common = {"app.kubernetes.io/managed-by": "Helm", **dict(set.intersection(*labels))}  # set by Helm
    selector = ",".join(f"{name}={value}" for name, value in sorted(common.items()))
    try:
        listed = api.items(path, labelSelector=selector)
    except ClusterError:
        return {}
    one = next(iter(items.values()))
    kind = {"apiVersion": one["apiVersion"], "kind": one["kind"]}  # which the items of a list do not say
    live = {key_of(item := {**each, **kind}, namespace): item for each in listed}
    return {key: item for key, item in live.items() if key in items}


def find(
    api: Api,
    recorded: Iterable[Object],
    namespace: str,
    secrets: Secrets,
    ignored: Sequence[str] = (),
    live: Live | None = None,
    deployed: datetime | None = None,
) -> list[Finding]:
    """Compare what stands in the cluster with what Helm has recorded. Changes nothing.

    The texts say of each field what it is, what it was, who changed it and when; the patch undoes that,
    and is empty where the object is missing, which Helm makes anew.

    Args:
        api: of the cluster.
        recorded: the objects of the revision that is deployed.
        namespace: of the release.
        secrets: texts that must not be seen, not even the part that is left of a long text.
        ignored: patterns of fields that others may change, as `Deployment/web:spec.replicas`; `*` stands
            for any text.
        live: what `read` has returned, where it was read before.
        deployed: when Helm was done with the objects, by the API server's clock, where that is known.
    """
    # What the chart has twice is in the cluster as Helm wrote it last.
    items = by_key(recorded, namespace)
    there = read(api, items.values(), namespace) if live is None else live
    suspects = [item for key, item in items.items() if not _is_as_recorded(there[key], item, deployed)]

    def question(item: Object) -> Finding | None:
        return _compare(api, item, there[key_of(item, namespace)], namespace, secrets, ignored)

    return ask_about_each(suspects, question) if suspects else []


def put_back(api: Api, drift: Finding, namespace: str) -> None:
    """Undo what was done by hand. Helm alone would leave standing what was added to a list.

    Raises:
        ClusterError: the API server refused, or could not be asked.
    """
    if drift.patch:
        api.merge_patch(api.path(drift.item, namespace), drift.patch, fieldManager="helm")


def _compare(
    api: Api,
    item: Object,
    live: Object | ClusterError | None,
    namespace: str,
    secrets: Secrets,
    ignored: Sequence[str],
) -> Finding | None:
    if isinstance(live, ClusterError):
        raise live
    label = label_of(item)
    if live is None:
        return Finding(item=item, texts=[f"{label} is missing: it was deleted by hand"])

    def is_ignored(at: Path) -> bool:
        field = f"{label.replace(' ', '/', 1)}:{dotted(at)}"
        patterns = (*ignored, *_left_to_controllers(item))
        return any(fnmatchcase(field, pattern.replace("[", "[[]")) for pattern in patterns)

    as_recorded = api.merge_patch(api.path(item, namespace), comparable(item), **LENIENT)
    old, new = without_system_fields(as_recorded), without_system_fields(live)
    texts = []
    for at, was, is_ in sorted(differences(old, new, pair=by_name), key=lambda change: dotted(change[0])):
        if is_ignored(at):
            continue
        hidden = item["kind"] == "Secret" and at[0] in ("data", "stringData")
        then, now = (
            MASK if hidden and value is not ABSENT else _shown(value, at, secrets) for value in (was, is_)
        )
        texts.append(f"{label}: {dotted(at)} is {now}, not {then}{_by(live, at)}")
    patch = merge_patch(new, _undone(old, new, is_ignored))
    return Finding(item=item, texts=texts, patch=patch) if texts else None


def _left_to_controllers(item: Object) -> tuple[str, ...]:
    """Return patterns of the fields that some controller writes by design, and Helm leaves alone."""
    if item["kind"] == "ClusterRole" and item.get("aggregationRule"):
        return ("ClusterRole/*:rules*",)
    if item["kind"].endswith("WebhookConfiguration"):
        # Where the chart names no authority, some controller or Job has put it there.
        named = any((hook.get("clientConfig") or {}).get("caBundle") for hook in item.get("webhooks") or ())
        return () if named else ("*:webhooks[*].clientConfig.caBundle",)
    return ()


def _is_as_recorded(live: Object | ClusterError | None, item: Object, deployed: datetime | None) -> bool:
    """Return whether an object is as Helm has recorded it, so that the API server need not be asked what it
    would be. Most are."""
    if not isinstance(live, Mapping):
        return False
    # What the items of a list have besides is by the server's defaults, if nobody but Helm has written.
    match written_at(live):
        case [datetime() as time]:
            is_helms_alone = deployed is not None and time <= deployed
        case _:
            is_helms_alone = False
    return _holds(live, comparable(item), is_helms_alone)


def _holds(live: Any, recorded: Any, in_lists: bool) -> bool:
    """Return whether merging `recorded` into `live` would change nothing.

    Args:
        live: as it is.
        recorded: as it was.
        in_lists: merge the items of lists too; else a list has to be the same.
    """
    if isinstance(recorded, Mapping) and isinstance(live, Mapping):
        return all(_holds(live.get(key), value, in_lists) for key, value in recorded.items())
    if in_lists and isinstance(recorded, list) and isinstance(live, list):
        return len(live) == len(recorded) and all(map(_holds, live, recorded, repeat(True)))
    return type(live) is type(recorded) and bool(live == recorded)


def _undone(old: Any, new: Any, is_ignored: Callable[[Path], bool], at: Path = ()) -> Any:
    """Return `old`, with the fields that are left to others as they are in `new`."""
    if at and is_ignored(at):
        return new
    if isinstance(old, list) and isinstance(new, list):
        olds, news = keyed(old), keyed(new)
        left = [key for key in news if key not in olds and is_ignored((*at, key))]
        return [_undone(olds.get(key), news.get(key), is_ignored, (*at, key)) for key in [*olds, *left]]
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        undone = {key: _undone(old.get(key), new.get(key), is_ignored, (*at, key)) for key in keys}
        return {key: value for key, value in undone.items() if value is not None}
    return old


def _shown(value: Any, at: Path, secrets: Secrets) -> str:
    """Return `value` in a line, without what a variable is set to: by hand, it can be a credential."""
    if value is ABSENT or value is None:
        return NOTHING
    if "env" in at and not isinstance(value, Mapping | list):
        return str(value) if at[-1] == "name" else SET
    value = _without_variables(value, "env" in at)
    # Before it is cut: no mask finds a part of a credential.
    text = secrets.mask(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= 80 else f"{text[:77]}…"


def _without_variables(value: Any, is_env: bool = False) -> Any:
    match value:
        case Mapping():
            return {
                key: SET if is_env and key == "value" else _without_variables(inner, is_env or key == "env")
                for key, inner in value.items()
            }
        case list():
            return [_without_variables(inner, is_env) for inner in value]
    return value


def _by(live: Object, at: Path) -> str:
    """Return who has made the field what it is, as the API server keeps it; empty where it does not."""
    owners = [
        entry
        for entry in live["metadata"].get("managedFields") or []
        if entry.get("subresource") != "status" and _owns(entry.get("fieldsV1") or {}, at)
    ]
    if not owners:
        return ""
    last = max(owners, key=lambda entry: str(entry.get("time", "")))
    who = last.get("manager", "somebody")
    when = str(last.get("time") or "").replace("T", " ")[:16]  # `kubectl scale` leaves none
    return f" (by {who}, {when} UTC)" if when else f" (by {who})"


def _owns(fields: Mapping[str, Any], at: Path) -> bool:
    """Return whether a set of managed fields has the field at `at`, or something below it."""
    for part in at:
        keys = [f"f:{part}"]
        if isinstance(part, int | ItemName):  # found by its name, or the list is one field
            keys = [
                key for key in fields if key.startswith("k:") and str(part) in json.loads(key[2:]).values()
            ]
        inner = next((fields[key] for key in keys if key in fields), None)
        if inner is None:
            return False
        fields = inner
        if not fields:  # a leaf, or a list that is owned as a whole
            return True
    return True
