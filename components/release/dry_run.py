"""The API server's opinion of what Helm is about to do, asked for without doing it."""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

from components.release.api import Api, ApiError, Object, UnknownKindError
from components.release.secret_values import mask

DRY_RUN = {"dryRun": "All", "fieldManager": "helm", "fieldValidation": "Strict"}
AT_ONCE = 8
NOT_PERMITTED = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+)')

Key = tuple[str, str, str, str]


@dataclass(kw_only=True)
class Opinion:
    """What the API server said of all objects."""

    refusals: list[str] = field(default_factory=list)
    """One for each object it would not accept: object, field, reason."""
    unchecked: list[str] = field(default_factory=list)
    """What could not be asked, and why."""


class _UncheckedError(Exception):
    """An object of which nothing can be said."""


def key_of(item: Object, namespace: str) -> Key:
    """What makes an object the same object for Helm."""
    group = item["apiVersion"].rpartition("/")[0]
    meta = item["metadata"]
    return group, item["kind"], meta.get("namespace", namespace), meta.get("name", "")


def bare(item: Object) -> Object:
    """`item` as it may be compared: without its namespace, which `key_of` holds, and without nulls. The
    provider's rendering names the one in every object and loses the others; Helm's record has both
    where the chart has."""
    meta = {k: v for k, v in item["metadata"].items() if k != "namespace"}
    return cast(Object, _without_nulls({**item, "metadata": meta}))


def _without_nulls(value: Any) -> Any:
    match value:
        case Mapping():
            return {k: _without_nulls(inner) for k, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
    return value


def unsized(rendered: Iterable[Object], recorded: Iterable[Object], namespace: str) -> dict[Key, Object]:
    """Those of `recorded` that no longer say how many pods they have, because an autoscaler now does."""
    silent = {key_of(item, namespace) for item in rendered if _replicas(item) is None}
    return {
        key: item
        for item in recorded
        if (key := key_of(item, namespace)) in silent and _replicas(item) is not None
    }


def _replicas(item: Object) -> Any:
    spec = item.get("spec")
    return spec.get("replicas") if isinstance(spec, Mapping) else None


def hook_phases(item: Object) -> set[str]:
    """When Helm runs `item` as a hook, as in `post-install`; empty for an object that is none."""
    phases = (item["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
    return {phase.strip() for phase in phases.split(",") if phase.strip()}


def is_hook(item: Object) -> bool:
    return bool(hook_phases(item))


def ask(
    api: Api,
    rendered: Iterable[Object],
    recorded: Iterable[Object] | None,
    name: str,
    namespace: str,
    secrets: list[str],
) -> Opinion:
    """Ask about each of `rendered` as Helm would act on it.

    A new object is created. One that Helm already has is patched by the difference to what Helm has
    recorded, as Helm does: a forced server-side apply would refuse valid upgrades, because what an
    object no longer says would stay, owned by Helm's updates.

    Args:
        api: of the cluster.
        rendered: the objects of the chart.
        recorded: the objects of the revision that Helm will upgrade from; None where they could not
            be read, and then nothing is said of objects that this release has in the cluster.
        name: of the release.
        namespace: of the release.
        secrets: texts that must not be seen; the server's messages can quote them.
    """
    before = {key_of(item, namespace): item for item in recorded or ()}
    brought = {kind for item in rendered if (kind := _kind_of_crd(item))}
    opinion = Opinion()

    def one(item: Object) -> None:
        label = mask(f"{item['kind']} {item['metadata'].get('name', '')}", secrets)
        try:
            _try(api, item, before.get(key_of(item, namespace)), recorded is not None, name, namespace)
        except _UncheckedError as error:
            opinion.unchecked.append(f"{label}: {error}")
        except UnknownKindError as error:
            group = item["apiVersion"].rpartition("/")[0]
            if (group, item["kind"]) in brought:
                opinion.unchecked.append(f"{label}: its kind comes with this very chart")
            else:
                opinion.refusals.append(f"{label}: {mask(str(error), secrets)}")
        except ApiError as error:
            why_not = _not_an_opinion(error)
            if why_not:
                opinion.unchecked.append(f"{label}: {mask(why_not, secrets)}")
            else:
                opinion.refusals += [
                    f"{label}: {mask(text, secrets)}" for text in _reasons(error, item, namespace)
                ]
        except Exception as error:  # no connection, no credentials
            opinion.unchecked.append(f"{label}: {mask(str(error) or type(error).__name__, secrets)}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, (item for item in rendered if not is_hook(item))))
    opinion.refusals.sort()
    opinion.unchecked.sort()
    return opinion


def _try(api: Api, item: Object, before: Object | None, has_record: bool, name: str, namespace: str) -> None:
    """Try `item` as an update of `before`, as a new object, or as one that Helm takes over."""
    patch = {} if before is None else _update(bare(before), bare(item))
    if before is not None and not patch:
        return
    collection = api.collection(item, namespace)
    path = f"{collection}/{item['metadata'].get('name', '')}"
    if before is not None:
        try:
            api.merge_patch(path, patch, **DRY_RUN)
        except ApiError as error:
            if error.code != 404:
                raise  # else it was deleted by hand, and Helm makes it anew
        else:
            return
    try:
        api.create(collection, item, **DRY_RUN)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        if item["kind"] == "CustomResourceDefinition":
            return  # Helm leaves it as it is
    else:
        return
    live = api.get(path)
    labels, notes = (live["metadata"].get(key) or {} for key in ("labels", "annotations"))
    if (
        labels.get("app.kubernetes.io/managed-by") != "Helm"
        or notes.get("meta.helm.sh/release-name") != name
        or notes.get("meta.helm.sh/release-namespace") != namespace
    ):
        raise ApiError(409, {"reason": "NotOwned", "message": _OWNED_BY_OTHERS})
    if not has_record:
        raise _UncheckedError("what Helm has stored of it could not be read")
    api.merge_patch(path, _update({}, bare(item)), **DRY_RUN)


_OWNED_BY_OTHERS = (
    "exists already and does not belong to this release: delete it, or give it to Helm by the "
    "annotations meta.helm.sh/release-name and meta.helm.sh/release-namespace and the label "
    "app.kubernetes.io/managed-by=Helm"
)


def _update(before: Object, after: Object) -> dict[str, Any]:
    """What Helm sends. It uses Kubernetes' strategic merge, in which a Deployment's strategy alone keeps
    no key that it is not given: `rollingUpdate` goes, though the server and not the chart has set it."""
    patch = difference(before, after)
    strategy = patch.get("spec", {}).get("strategy") if after["kind"] == "Deployment" else None
    if strategy and "rollingUpdate" not in after["spec"]["strategy"]:
        strategy["rollingUpdate"] = None
    return patch


def difference(before: Any, after: Any) -> dict[str, Any]:
    """The JSON merge patch from `before` to `after`: removed keys are null, lists are whole."""
    patch: dict[str, Any] = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = difference(old, new)
            if inner:
                patch[key] = inner
        elif old != new:
            patch[key] = new
    return patch


def _kind_of_crd(item: Object) -> tuple[str, str] | None:
    if item["kind"] != "CustomResourceDefinition":
        return None
    spec = item.get("spec", {})
    return spec.get("group", ""), spec.get("names", {}).get("kind", "")


def _not_an_opinion(error: ApiError) -> str:
    """Why an answer says nothing of the object; empty where it does."""
    text = error.message
    if error.code == 403 and (found := NOT_PERMITTED.search(text)):
        return f"not permitted to ask (user {found['user']} cannot {found['verb']} it)"
    if error.code == 401:
        return "the credentials were not accepted"
    if error.code == 404 and text.startswith("namespaces "):
        return "its namespace is not there yet"
    if "does not support dry run" in text or "failed calling webhook" in text:
        return text
    if error.code >= 500 or error.code == 429:
        return text or f"HTTP {error.code}"
    return ""


def _reasons(error: ApiError, item: Object, namespace: str) -> list[str]:
    """One text for each field that is refused."""
    texts = []
    for cause in error.causes:
        where, what = cause.get("field", ""), cause.get("message", "")
        if "immutable" in what:  # the whole old value stands before that word
            _, kind, space, name = key_of(item, namespace)
            keep, how = ("the selector", " --cascade=orphan") if "selector" in where else ("it", "")
            pods = " and leave its pods running" if how else ""
            what = (
                f"is immutable. Keep {keep}, or delete the object first{pods}: "
                f"kubectl delete {kind.lower()} {name} -n {space}{how}"
            )
        texts.append(f"{where}: {what}" if where else what)
    return list(dict.fromkeys(texts)) or [error.message]
