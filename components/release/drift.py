"""What somebody has changed by hand in the objects of a release: which fields, who, when.

The API server itself is asked what each object would be if Helm's record held, without doing it: so
defaults, other ways to write the same number, and fields that Helm never set (those of an autoscaler
among them) are no drift.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from components.release.api import Api, ApiError, Object
from components.release.dry_run import AT_ONCE, DRY_RUN, bare, difference
from components.release.secret_values import MASK, mask

Path = tuple[str, ...]
NOTHING, SET = "nothing", "[value]"


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One object that is not as Helm has recorded it."""

    item: Object
    """As recorded."""
    texts: list[str]
    """One for each field: what it is, what it was, who changed it and when."""
    patch: Object
    """What undoes it; empty where the object is missing, which Helm makes anew."""


@dataclass(kw_only=True)
class Findings:
    """What was found in all objects."""

    drifts: list[Drift] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """Objects that could not be looked at, and why."""

    def texts(self) -> list[str]:
        return [text for drift in self.drifts for text in drift.texts]


def find(
    api: Api, recorded: Iterable[Object], namespace: str, secrets: list[str], ignored: Sequence[str] = ()
) -> Findings:
    """Compare what stands in the cluster with what Helm has recorded. Changes nothing.

    Args:
        api: of the cluster.
        recorded: the objects of the revision that is deployed.
        namespace: of the release.
        secrets: texts that must not be seen.
        ignored: patterns of fields that others may change, as `Deployment/web:spec.replicas`; `*` stands
            for any text.
    """
    findings = Findings()

    def one(item: Object) -> None:
        name = f"{item['kind']} {item['metadata'].get('name', '')}"
        try:
            found = _compare(api, item, namespace, secrets, ignored)
        except ApiError as error:
            findings.unchecked.append(mask(f"{name}: {error}", secrets))
        except Exception as error:  # no connection
            findings.unchecked.append(mask(f"{name}: {type(error).__name__}", secrets))
        else:
            findings.drifts += [found] if found else []

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, recorded))
    findings.drifts.sort(key=lambda drift: drift.texts)
    findings.unchecked.sort()
    return findings


def put_back(api: Api, drift: Drift, namespace: str) -> None:
    """Undo what was done by hand. Helm alone would leave standing what was added to a list.

    Raises:
        ApiError: the API server refused.
    """
    if drift.patch:
        api.merge_patch(_path(api, drift.item, namespace), drift.patch, fieldManager="helm")


def _path(api: Api, item: Object, namespace: str) -> str:
    return f"{api.collection(item, namespace)}/{item['metadata']['name']}"


def _compare(
    api: Api, item: Object, namespace: str, secrets: list[str], ignored: Sequence[str]
) -> Drift | None:
    kind, name = item["kind"], item["metadata"]["name"]
    path = _path(api, item, namespace)
    try:
        live = api.get(path)
    except ApiError as error:
        if error.code != 404:
            raise
        text = mask(f"{kind} {name} is missing: it was deleted by hand", secrets)
        return Drift(item=item, texts=[text], patch={})

    if _holds(live, bare(item)):
        return None  # without asking once more: most objects are so

    def is_ignored(at: Path) -> bool:
        field = f"{kind}/{name}:{_dotted(at)}"
        return any(fnmatchcase(field, pattern.replace("[", "[[]")) for pattern in ignored)

    as_recorded = api.merge_patch(path, bare(item), **{**DRY_RUN, "fieldValidation": "Ignore"})
    before, now = _without_system_fields(as_recorded), _without_system_fields(live)
    texts = []
    for at, value, old in _changes(now, before):
        if is_ignored(at):
            continue
        hidden = kind == "Secret" and at[0] in ("data", "stringData")
        is_, was = (
            MASK if hidden and each is not None else _shown(each, at, secrets) for each in (value, old)
        )
        texts.append(mask(f"{kind} {name}: {_dotted(at)} is {is_}, not {was}{_by(live, at)}", secrets))
    patch = difference(now, _undone(before, now, is_ignored))
    return Drift(item=item, texts=texts, patch=patch) if texts else None


def _holds(live: Any, recorded: Any) -> bool:
    """Whether merging `recorded` into `live` would change nothing."""
    if isinstance(recorded, Mapping) and isinstance(live, Mapping):
        return all(_holds(live.get(key), value) for key, value in recorded.items())
    return type(live) is type(recorded) and bool(live == recorded)


def _undone(before: Any, now: Any, is_ignored: Callable[[Path], bool], at: Path = ()) -> Any:
    """`before`, with the fields that are left to others as they are `now`."""
    if at and is_ignored(at):
        return now
    if isinstance(before, list) and isinstance(now, list):
        old, new = _keyed(before), _keyed(now)
        left = [key for key in new if key not in old and is_ignored((*at, key))]
        return [_undone(old.get(key), new.get(key), is_ignored, (*at, key)) for key in [*old, *left]]
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        undone = {key: _undone(before.get(key), now.get(key), is_ignored, (*at, key)) for key in keys}
        return {key: value for key, value in undone.items() if value is not None}
    return before


def _without_system_fields(item: Object) -> dict[str, Any]:
    meta = {
        key: value
        for key, value in item["metadata"].items()
        if key not in ("managedFields", "resourceVersion", "generation")
    }
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": meta}


def _changes(now: Any, before: Any, at: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Each field that differs: where, and both values; None for one that is not there."""
    if isinstance(now, list) and isinstance(before, list):
        now, before = _keyed(now), _keyed(before)
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        for key in sorted(difference(before, now)):
            yield from _changes(now.get(key), before.get(key), (*at, key))
    elif now != before:
        yield at, now, before


def _keyed(items: list[Any]) -> dict[str, Any]:
    """A list as a mapping, by names where all have one: an item put in front moves no other."""
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return {f"[{name}]": item for name, item in zip(names, items, strict=True)}
    return {f"[{index}]": item for index, item in enumerate(items)}


def _dotted(at: Path) -> str:
    return "".join(part if part.startswith("[") else f".{part}" for part in at).removeprefix(".")


def _shown(value: Any, at: Path, secrets: list[str]) -> str:
    """`value` in a line, without what a variable is set to: by hand, it can be a credential."""
    if value is None:
        return NOTHING
    if "env" in at and not isinstance(value, Mapping | list):
        return value if at[-1] == "name" else SET
    value = _without_variables(value, "env" in at)
    text = mask(value if isinstance(value, str) else json.dumps(value), secrets)
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
    """Who has made the field what it is, as the API server keeps it; nothing where it is not known."""
    owners = [
        entry
        for entry in live["metadata"].get("managedFields") or []
        if entry.get("subresource") != "status" and _owns(entry.get("fieldsV1") or {}, at)
    ]
    if not owners:
        return ""
    last = max(owners, key=lambda entry: str(entry.get("time", "")))
    when = str(last.get("time", "")).replace("T", " ")[:16]
    return f" (by {last.get('manager', 'somebody')}, {when} UTC)"


def _owns(fields: Mapping[str, Any], at: Path) -> bool:
    """Whether a set of managed fields has the field at `at`, or something below it."""
    for part in at:
        keys = [f"f:{part}"]
        if part.startswith("["):  # an item of a list: found by its name, or the list is one field
            name = part[1:-1]
            keys = [key for key in fields if key.startswith("k:") and name in json.loads(key[2:]).values()]
        inner = next((fields[key] for key in keys if key in fields), None)
        if inner is None:
            return False
        fields = inner
        if not fields:  # a leaf, or a list that is owned as a whole
            return True
    return True
