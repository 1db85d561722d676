"""The API server's opinion of what Helm is about to do, asked for without doing it."""

import re
from collections.abc import Sequence

from components.release.findings import Finding, ask_about_each
from components.release.kubernetes_api import Api, ApiError, ClusterError, UnknownKindError
from components.release.manifest import (
    Key,
    Object,
    by_key,
    group_of,
    is_hook,
    key_of,
    kinds_of_crds,
    label_of,
    update_patch,
)

DRY_RUN = {"dryRun": "All", "fieldManager": "helm", "fieldValidation": "Strict"}
NOT_PERMITTED = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+)')

OWNED_BY_OTHERS = (
    "exists already and does not belong to this release: delete it, or give it to Helm by the "
    "annotations meta.helm.sh/release-name and meta.helm.sh/release-namespace and the label "
    "app.kubernetes.io/managed-by=Helm"
)


class _RefusedError(Exception):
    """A refusal of the API server or of Helm; one text for each field."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.texts = texts


def ask(
    api: Api,
    rendered: Sequence[Object],
    recorded: Sequence[Object] | None,
    name: str,
    namespace: str,
    crds: Sequence[Object] = (),
) -> list[Finding]:
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
        crds: what comes before `rendered`, and brings kinds of objects.
    """
    old = by_key(recorded or (), namespace)
    brought = kinds_of_crds([*rendered, *crds])

    def question(item: Object) -> Finding | None:
        key = key_of(item, namespace)
        try:
            _try(api, item, old.get(key), recorded is not None, name, namespace)
        except UnknownKindError as error:
            if (group_of(item), item["kind"]) in brought:
                raise ClusterError("its kind comes with this very chart") from None
            texts: Sequence[str] = [str(error)]
        except ApiError as error:
            if reason := _reason_for_no_opinion(error):
                raise ClusterError(reason) from None
            texts = _refused_fields(error, key)
        except _RefusedError as error:
            texts = error.texts
        else:
            return None
        return Finding(item=item, texts=[f"{label_of(item)}: {text}" for text in texts])

    return ask_about_each([item for item in rendered if not is_hook(item)], question)


def _try(api: Api, item: Object, old: Object | None, has_record: bool, name: str, namespace: str) -> None:
    """Try `item` as an update of `old`, as a new object, or as one that Helm takes over."""
    patch = {} if old is None else update_patch(old, item)
    if old is not None and not patch:
        return
    path = api.path(item, namespace)
    if old is not None:
        try:
            api.merge_patch(path, patch, **DRY_RUN)
        except ApiError as error:
            if error.code != 404:
                raise  # else it was deleted by hand, and Helm makes it anew
        else:
            return
    try:
        api.create(api.collection(item, namespace), item, **DRY_RUN)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        if item["kind"] == "CustomResourceDefinition":
            return  # Helm leaves it as it is
    else:
        return
    if not _belongs_to(api.get(path), name, namespace):
        raise _RefusedError(OWNED_BY_OTHERS)
    if not has_record:
        raise ClusterError("what Helm has stored of it could not be read")
    api.merge_patch(path, update_patch({}, item), **DRY_RUN)


def _belongs_to(live: Object, name: str, namespace: str) -> bool:
    labels, notes = (live["metadata"].get(key) or {} for key in ("labels", "annotations"))
    return (
        labels.get("app.kubernetes.io/managed-by") == "Helm"
        and notes.get("meta.helm.sh/release-name") == name
        and notes.get("meta.helm.sh/release-namespace") == namespace
    )


def _reason_for_no_opinion(error: ApiError) -> str:
    """Return why an answer says nothing of the object; empty where it does."""
    text = error.message
    if error.code == 403 and (denied := NOT_PERMITTED.search(text)):
        return f"not permitted to ask (user {denied['user']} cannot {denied['verb']} it)"
    if error.code == 404 and text.startswith("namespaces "):
        return "its namespace is not there yet"
    if "does not support dry run" in text or "failed calling webhook" in text:
        return text
    if error.code >= 500 or error.code == 429:
        return str(error)
    return ""


def _refused_fields(error: ApiError, key: Key) -> list[str]:
    """Return a text for each field that is refused."""
    texts = []
    for cause in error.causes:
        field, message = cause.get("field", ""), cause.get("message", "")
        if "immutable" in message:  # the whole old value stands before that word
            _, kind, namespace, name = key
            keep, how = ("the selector", " --cascade=orphan") if "selector" in field else ("it", "")
            pods = " and leave its pods running" if how else ""
            message = (
                f"is immutable. Keep {keep}, or delete the object first{pods}: "
                f"`kubectl delete {kind.lower()} {name} -n {namespace}{how}`"
            )
        texts.append(f"{field}: {message}" if field else message)
    return list(dict.fromkeys(texts)) or [error.message]
