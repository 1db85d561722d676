"""The API server's opinion of what Helm is about to do, asked for without doing it."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.release.api import Api, ApiError, Object, UnknownKindError
from components.release.secret_values import mask

DRY_RUN = {"dryRun": "All", "fieldManager": "helm", "fieldValidation": "Strict"}
AT_ONCE = 8

Key = tuple[str, str, str, str]


@dataclass(kw_only=True)
class Opinion:
    """What the API server said of all objects."""

    refusals: list[str] = field(default_factory=list)
    """One for each object it would not accept: object, field, reason."""
    unchecked: list[str] = field(default_factory=list)
    """What could not be asked, and why."""


def key_of(item: Object, namespace: str) -> Key:
    """What makes an object the same object for Helm."""
    group = item["apiVersion"].rpartition("/")[0]
    meta = item["metadata"]
    return group, item["kind"], meta.get("namespace", namespace), meta.get("name", "")


def comparable(item: Object) -> dict[str, Any]:
    """`item` without its namespace, which is in its key: rendered objects always say it, and those that
    Helm has recorded only where the chart does."""
    meta = {key: value for key, value in item["metadata"].items() if key != "namespace"}
    return {**item, "metadata": meta}


def is_hook(item: Object) -> bool:
    return "helm.sh/hook" in (item["metadata"].get("annotations") or {})


def ask(
    api: Api,
    rendered: Iterable[Object],
    recorded: Iterable[Object],
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
        recorded: the objects of the newest revision.
        name: of the release.
        namespace: of the release.
        secrets: texts that must not be seen; the server's messages can quote them.
    """
    before = {key_of(item, namespace): item for item in recorded}
    brought = {kind for item in rendered if (kind := _kind_of_crd(item))}
    opinion = Opinion()

    def one(item: Object) -> None:
        label = mask(f"{item['kind']} {item['metadata'].get('name', '')}", secrets)
        try:
            _try(api, item, before.get(key_of(item, namespace)), name, namespace)
        except UnknownKindError as error:
            group = item["apiVersion"].rpartition("/")[0]
            if (group, item["kind"]) in brought:
                opinion.unchecked.append(f"{label}: its kind comes with this very chart")
            else:
                opinion.refusals.append(f"{label}: {error}")
        except ApiError as error:
            why_not = _not_an_opinion(error)
            if why_not:
                opinion.unchecked.append(f"{label}: {mask(why_not, secrets)}")
            else:
                opinion.refusals += [f"{label}: {mask(text, secrets)}" for text in _reasons(error, item)]
        except Exception as error:  # no connection, no credentials
            opinion.unchecked.append(f"{label}: {type(error).__name__}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, (item for item in rendered if not is_hook(item))))
    opinion.refusals.sort()
    opinion.unchecked.sort()
    return opinion


def _try(api: Api, item: Object, before: Object | None, name: str, namespace: str) -> None:
    patch = None if before is None else difference(comparable(before), comparable(item))
    if patch == {}:
        return
    collection = api.collection(item, namespace)
    path = f"{collection}/{item['metadata'].get('name', '')}"
    if patch is not None:
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
        if error.reason != "AlreadyExists" or item["kind"] == "CustomResourceDefinition":
            if error.reason == "AlreadyExists":
                return  # Helm leaves it as it is
            raise
        meta = api.get(path)["metadata"]
        owner = meta.get("annotations") or {}
        if (
            owner.get("meta.helm.sh/release-name"),
            owner.get("meta.helm.sh/release-namespace"),
        ) != (name, namespace):
            raise ApiError(409, {"reason": "NotOwned", "message": _OWNED_BY_OTHERS}) from None
        api.merge_patch(path, {k: v for k, v in item.items() if k != "status"}, **DRY_RUN)


_OWNED_BY_OTHERS = (
    "exists already and does not belong to this release: delete it, or give it to Helm by the "
    "annotations meta.helm.sh/release-name and meta.helm.sh/release-namespace and the label "
    "app.kubernetes.io/managed-by=Helm"
)


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
    if error.code == 403 and 'User "' in text and " cannot " in text:
        return f"not permitted to ask ({text.partition(': ')[2] or text})"
    if error.code == 401:
        return "the credentials were not accepted"
    if error.code == 404 and text.startswith("namespaces "):
        return "its namespace is not there yet"
    if "does not support dry run" in text or "failed calling webhook" in text:
        return text
    if error.code >= 500 or error.code == 429:
        return text or f"HTTP {error.code}"
    return ""


def _reasons(error: ApiError, item: Object) -> list[str]:
    """One text for each field that is refused."""
    texts = []
    for cause in error.causes:
        where, what = cause.get("field", ""), cause.get("message", "")
        if "selector" in where and "immutable" in what:
            kind, name = item["kind"].lower(), item["metadata"].get("name", "")
            what = (
                "is immutable. Keep the selector, or delete the object first and leave its pods "
                f"running: kubectl delete {kind} {name} --cascade=orphan"
            )
        texts.append(f"{where}: {what}")
    return list(dict.fromkeys(texts)) or [error.message]
