"""Drift: fields of a release's objects that somebody has changed by hand, who, and when.

The API server itself is asked what each object would be if Helm's record held, without doing it: so
defaults, other ways to write the same number, and fields that Helm never set (those of an autoscaler
among them) are no drift.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from components.release.dry_run import DRY_RUN
from components.release.findings import Finding, ask_about_each
from components.release.kubernetes_api import Api
from components.release.manifest import Object, comparable, label_of, without_system_fields
from components.release.secrets import MASK, Secrets
from components.release.values import (
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


def find(
    api: Api, recorded: Iterable[Object], namespace: str, secrets: Secrets, ignored: Sequence[str] = ()
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
    """
    return ask_about_each(recorded, lambda item: _compare(api, item, namespace, secrets, ignored))


def put_back(api: Api, drift: Finding, namespace: str) -> None:
    """Undo what was done by hand. Helm alone would leave standing what was added to a list.

    Raises:
        ClusterError: the API server refused, or could not be asked.
    """
    if drift.patch:
        api.merge_patch(api.path(drift.item, namespace), drift.patch, fieldManager="helm")


def _compare(
    api: Api, item: Object, namespace: str, secrets: Secrets, ignored: Sequence[str]
) -> Finding | None:
    path, label = api.path(item, namespace), label_of(item)
    live = api.find(path)
    if live is None:
        return Finding(item=item, texts=[f"{label} is missing: it was deleted by hand"])
    if _holds(live, comparable(item)):
        return None  # without asking once more: most objects are so

    def is_ignored(at: Path) -> bool:
        field = f"{label.replace(' ', '/', 1)}:{dotted(at)}"
        return any(fnmatchcase(field, pattern.replace("[", "[[]")) for pattern in ignored)

    as_recorded = api.merge_patch(path, comparable(item), **{**DRY_RUN, "fieldValidation": "Ignore"})
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


def _holds(live: Any, recorded: Any) -> bool:
    """Return whether merging `recorded` into `live` would change nothing."""
    if isinstance(recorded, Mapping) and isinstance(live, Mapping):
        return all(_holds(live.get(key), value) for key, value in recorded.items())
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
