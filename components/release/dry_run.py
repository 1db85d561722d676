"""The API server's opinion of what Helm is about to do, asked for without doing it."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from .findings import Finding, ask_about_each
from .kubernetes_api import (
    Api,
    ApiError,
    ClusterError,
    UnknownKindError,
    lacks_namespace,
)
from .manifest import (
    HOOKS_OF_AN_INSTALLATION,
    HOOKS_OF_AN_UPGRADE,
    Key,
    Object,
    by_key,
    group_of,
    hook_phases,
    is_hook,
    is_removed_before_it_runs,
    key_of,
    kinds_of_crds,
    label_of,
    update_patch,
)

DRY_RUN = {"dryRun": "All", "fieldManager": "helm", "fieldValidation": "Strict"}
LENIENT = {**DRY_RUN, "fieldValidation": "Ignore"}
NO_NAMESPACE = "its namespace is not there yet"
NOT_PERMITTED = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+)')

OWNED_BY_OTHERS = (
    "exists already and {owner}: delete it, or give it to Helm by the annotations "
    "meta.helm.sh/release-name and meta.helm.sh/release-namespace and the label "
    "app.kubernetes.io/managed-by=Helm"
)
NAMELESS = "has no metadata.name, and Helm deploys no object without one"
TWICE = "stands in the chart more than once, and Helm cannot create it again"
LEFT_BY_A_HOOK = (
    "exists already, and Helm cannot run it again: its annotation helm.sh/hook-delete-policy lacks "
    "before-hook-creation"
)
TOO_LATE = (
    "its kind is defined in the chart's templates, and Helm has to know it before it deploys anything: move "
    "the CustomResourceDefinition to the folder crds/, or make this object a post-install and post-upgrade "
    "hook"
)


FIXED = re.compile("immutable|may not change once set|updates to statefulset spec .* are forbidden")
"""What the API server says of fields that nobody may change."""


class _RefusedError(Exception):
    """A refusal of the API server or of Helm; one text for each field."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.texts = texts


class _UnknownFieldsError(Exception):
    """Fields that the API server does not know: Helm deploys the object without them."""


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
    before, among = kinds_of_crds(crds), kinds_of_crds(rendered)
    phases = HOOKS_OF_AN_UPGRADE if recorded else HOOKS_OF_AN_INSTALLATION
    hooks = [item for item in rendered if hook_phases(item) & phases]
    ordinary = [item for item in rendered if not is_hook(item)]
    times = Counter(key_of(item, namespace) for item in ordinary)

    def question(item: Object) -> Finding | None:
        key = key_of(item, namespace)
        try:
            if not item["metadata"].get("name"):
                raise _RefusedError(NAMELESS)
            if is_hook(item):
                _strictly(lambda query: _try_hook(api, item, namespace, query))
            elif times[key] > 1 and key not in old:
                raise _RefusedError(TWICE)
            else:
                has_record = recorded is not None
                _strictly(lambda query: _try(api, item, old.get(key), has_record, name, namespace, query))
        except UnknownKindError as error:
            kind = group_of(item), item["kind"]
            if kind in before or (kind in among and is_hook(item)):
                raise ClusterError("its kind comes with this very chart") from None
            texts: Sequence[str] = [TOO_LATE if kind in among else str(error)]
        except ApiError as error:
            if error.code == 403 and lacks_namespace(api, key[2]):
                raise ClusterError(NO_NAMESPACE) from None
            if reason := _reason_for_no_opinion(error):
                raise ClusterError(reason) from None
            texts = _refused_fields(error, key)
        except _RefusedError as error:
            texts = error.texts
        except _UnknownFieldsError as error:
            return Finding(item=item, remark=f"{label_of(item)}: {error}: the API server leaves that out")
        else:
            return None
        return Finding(item=item, texts=[f"{label_of(item)}: {text}" for text in texts])

    return ask_about_each([*by_key(ordinary, namespace).values(), *hooks], question)


def _strictly(attempt: Callable[[Mapping[str, str]], None]) -> None:
    """Make an attempt by the query of a dry run, and where it names unknown fields another that allows them.

    Raises:
        _UnknownFieldsError: the other was accepted.
    """
    try:
        attempt(DRY_RUN)
    except ApiError as error:
        _, is_strict, fields = error.message.partition("strict decoding error: ")
        if not is_strict:
            raise
        attempt(LENIENT)
        raise _UnknownFieldsError(fields) from None


def _try_hook(api: Api, item: Object, namespace: str, query: Mapping[str, str]) -> None:
    """Try `item` as Helm creates it for each deployment."""
    try:
        api.create(api.collection(item, namespace), item, **query)
    except ApiError as error:
        if error.reason != "AlreadyExists":  # which is said of a valid object only
            raise
        if not is_removed_before_it_runs(item):
            raise _RefusedError(LEFT_BY_A_HOOK) from None


def _try(
    api: Api,
    item: Object,
    old: Object | None,
    has_record: bool,
    name: str,
    namespace: str,
    query: Mapping[str, str],
) -> None:
    """Try `item` as an update of `old`, as a new object, or as one that Helm takes over."""
    patch = {} if old is None else update_patch(old, item)
    if old is not None and not patch:
        return
    path = api.path(item, namespace)
    if old is not None:
        try:
            api.merge_patch(path, patch, **query)
        except ApiError as error:
            if error.code != 404:
                raise  # else it was deleted by hand, and Helm makes it anew
        else:
            return
    try:
        api.create(api.collection(item, namespace), item, **query)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    else:
        return
    if owner := _other_owner(api.get(path), name, namespace):
        raise _RefusedError(OWNED_BY_OTHERS.format(owner=owner))
    if not has_record:
        raise ClusterError("what Helm has stored of it could not be read")
    api.merge_patch(path, update_patch({}, item), **query)


def _other_owner(live: Object, name: str, namespace: str) -> str:
    """Return whose an object is where Helm would not take it over for this release, empty where it would."""
    labels, notes = (live["metadata"].get(key) or {} for key in ("labels", "annotations"))
    owner = notes.get("meta.helm.sh/release-name"), notes.get("meta.helm.sh/release-namespace")
    if owner == (name, namespace) and labels.get("app.kubernetes.io/managed-by") == "Helm":
        return ""
    if all(owner) and owner != (name, namespace):
        return f"belongs to release {owner[0]} in namespace {owner[1]}"
    return "does not belong to this release"


def _reason_for_no_opinion(error: ApiError) -> str:
    """Return why an answer says nothing of the object; empty where it does."""
    text = error.message
    if error.code == 403 and (denied := NOT_PERMITTED.search(text)):
        return f"not permitted to ask (user {denied['user']} cannot {denied['verb']} it)"
    if error.code == 404 and text.startswith("namespaces "):
        return NO_NAMESPACE
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
        if FIXED.search(message):  # the whole old value may stand before these words
            message = f"is immutable. {_remedy(field, key)}"
        texts.append(f"{field}: {message}" if field else message)
    return list(dict.fromkeys(texts)) or [error.message]


def _remedy(field: str, key: Key) -> str:
    """Return what to do where `field` cannot be changed."""
    _, kind, namespace, name = key
    if kind == "PersistentVolumeClaim":
        return "Keep it: who deletes the claim deletes what is stored, as a rule"
    keep = "the selector" if "selector" in field else "it"
    has_pods = "selector" in field or kind == "StatefulSet"
    how, pods = (" --cascade=orphan", " and leave its pods running") if has_pods else ("", "")
    command = f"kubectl delete {kind.lower()} {name} -n {namespace}{how}"
    return f"Keep {keep}, or delete the object first{pods}: `{command}`"
