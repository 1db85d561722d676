"""The application's namespace: made, or somebody else's that gets labels, with what limits and opens it."""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import pulumi

from components.release import Api, ClusterError, ReleasePlan
from settings import NamespaceSettings, Settings

# By their tokens: `pulumi_kubernetes.core.v1` takes 0.3 s to import.
NAMESPACE = "kubernetes:core/v1:Namespace"
PATCH = "kubernetes:core/v1:NamespacePatch"
QUOTA = "kubernetes:core/v1:ResourceQuota"
BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
IN_FORCE_WITHIN = 10
"""Seconds. The API server does not go by a new RoleBinding at once."""


def register(
    name: str, settings: Settings, plan: ReleasePlan, labels: Mapping[str, str], opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Register the namespace, its quota and the right to deploy to it; all of them come before the release.

    Args:
        name: the beginning of the resources' names.
        settings: of the stack.
        plan: of the release.
        labels: of the namespace, beside those of the settings.
        opts: of each of the resources.
    """
    namespace = _namespace(name, settings, plan, labels, opts)
    inside = pulumi.ResourceOptions(
        parent=opts.parent,
        depends_on=[namespace],
        # With the namespace, and not before: after a destroy that was killed, the next has to look into it.
        deleted_with=namespace if settings.namespace.mode == "create" else None,
    )
    access = _access(name, settings.namespace, plan.api, inside)
    after = pulumi.ResourceOptions.merge(inside, pulumi.ResourceOptions(depends_on=access))
    return [namespace, *access, *_quota(name, settings.namespace, after)]


def has_namespace(api: Api, name: str) -> bool:
    """Return whether a namespace is there.

    Raises:
        ClusterError: that could not be asked.
    """
    return api.find(f"/api/v1/namespaces/{name}") is not None


def _namespace(
    name: str, settings: Settings, plan: ReleasePlan, labels: Mapping[str, str], opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    """Register the namespace, or the labels of somebody else's.

    By its alias the one takes the other's place in the state: a change of `mern:namespace.mode` changes who
    owns the namespace, and nothing in the cluster.
    """
    owned = settings.namespace.mode == "create"
    metadata = {"name": settings.namespace.name, "labels": {**settings.namespace.labels, **labels}}
    props = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    opts = pulumi.ResourceOptions.merge(
        opts, pulumi.ResourceOptions(aliases=[pulumi.Alias(type_=PATCH if owned else NAMESPACE)])
    )
    if not owned:
        return pulumi.CustomResource(PATCH, f"{name}-namespace", props, opts)
    opts.protect = settings.namespace.protect
    if settings.release.adopt:
        with contextlib.suppress(ClusterError):  # of a preview, which the plan has told
            if has_namespace(plan.api, settings.namespace.name):
                opts.import_ = settings.namespace.name  # which the engine ignores where it is in the state
    return pulumi.CustomResource(NAMESPACE, f"{name}-namespace", props, opts)


def _quota(name: str, settings: NamespaceSettings, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    if not settings.quota:
        return []
    props = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": settings.name},
        "spec": {"hard": settings.quota},
    }
    return [pulumi.CustomResource(QUOTA, f"{name}-quota", props, opts)]


def _access(
    name: str, settings: NamespaceSettings, api: Api, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Register the right of a group to deploy to the namespace, in force when Helm begins."""
    if settings.access is None:
        return []
    group = "rbac.authorization.k8s.io"

    async def wait(_: pulumi.ResourceHookArgs) -> None:
        await asyncio.to_thread(_wait_for_access, api, settings.name)

    hook = pulumi.ResourceHook(f"{settings.name}-access-in-force", wait)
    props = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{name}-access", "namespace": settings.name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": settings.access.cluster_role},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": settings.access.group}],
    }
    hooked = pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(after_create=[hook]))
    return [
        pulumi.CustomResource(BINDING, f"{name}-access", props, pulumi.ResourceOptions.merge(opts, hooked))
    ]


def _wait_for_access(api: Api, namespace: str) -> None:
    """Wait until whoever deploys may read Helm's records, as far as that can be asked."""
    question = {"namespace": namespace, "verb": "list", "resource": "secrets"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": question},
    }
    give_up = time.monotonic() + IN_FORCE_WITHIN
    with contextlib.suppress(ClusterError):
        while not api.create(REVIEWS, review)["status"]["allowed"] and time.monotonic() < give_up:
            time.sleep(0.1)  # if it is never in force, Helm says what it may not do
