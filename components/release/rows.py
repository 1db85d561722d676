"""Rows: the Kubernetes objects of a release, shown in Pulumi's own tree.

Each object is a component resource whose inputs are the object itself. A component does nothing, but
the engine compares its inputs: so a preview says which objects are created, updated and deleted, and
`--diff` says which fields, without any diff code here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pulumi

from components.release.manifest import Object, without_chart_version
from components.release.secrets import Secrets
from components.release.values import map_leaves


class KubernetesObject(pulumi.ComponentResource):
    """One object that Helm deploys; for show, Helm alone creates, changes and deletes it."""


def show(
    objects: Iterable[Object],
    *,
    release: pulumi.Resource,
    name: str,
    namespace: str,
    secrets: Secrets,
) -> list[KubernetesObject]:
    """Register each of `objects` as a child of `release`.

    All that a Secret holds, and every text with one of `secrets` in it, becomes a secret of Pulumi:
    `[secret]` on the screen, ciphertext in the state.

    Args:
        objects: the rendered objects.
        release: the Release that deploys them.
        name: of the release.
        namespace: of the release, and of objects that name none.
        secrets: texts that must not be seen.
    """
    seen: Counter[tuple[str, str]] = Counter()
    children = []
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
        # A parent's protection and retention are inherited, and would fail or hide the removal of
        # an object that Helm has long deleted.
        opts = pulumi.ResourceOptions(
            parent=release, depends_on=[release], protect=False, retain_on_delete=False
        )
        children.append(KubernetesObject(kind, full, _marked(item, secrets), opts))
    return children


def _marked(item: Object, secrets: Secrets) -> dict[str, Any]:
    is_secret = item["kind"] == "Secret" and item["apiVersion"] == "v1"
    content = ("data", "stringData") if is_secret else ()
    return {
        key: map_leaves(value, pulumi.Output.secret) if key in content else _hidden(value, secrets)
        for key, value in without_chart_version(item).items()
    }


def _hidden(value: Any, secrets: Secrets) -> Any:
    """Return `value` with each text that holds one of `secrets` hidden; with a key that does, the mapping."""
    match value:
        case Mapping():
            inner = {key: _hidden(item, secrets) for key, item in value.items()}
            return pulumi.Output.secret(inner) if any(secrets.holds(str(key)) for key in value) else inner
        case list():
            return [_hidden(item, secrets) for item in value]
        case str() if secrets.holds(value):
            return pulumi.Output.secret(value)
    return value
