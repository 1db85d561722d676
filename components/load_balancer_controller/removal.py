"""The removal of the controller: only when nothing in the cluster needs it any more."""

import asyncio
from collections.abc import Iterator

import pulumi

from components.load_balancer_controller.owners import set_mode
from components.release import Api, ClusterError

IN_USE = {
    "Ingress": "/apis/networking.k8s.io/v1/ingresses",
    "Service": "/api/v1/services",
    "TargetGroupBinding": "/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings",
    "Gateway": "/apis/gateway.networking.k8s.io/v1/gateways",
    "GatewayClass": "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
    "ListenerRuleConfiguration": "/apis/gateway.k8s.aws/v1beta1/listenerruleconfigurations",
    "LoadBalancerConfiguration": "/apis/gateway.k8s.aws/v1beta1/loadbalancerconfigurations",
    "TargetGroupConfiguration": "/apis/gateway.k8s.aws/v1beta1/targetgroupconfigurations",
    "GlobalAccelerator": "/apis/aga.k8s.aws/v1beta1/globalaccelerators",
}
"""What the controller has a finalizer on: what it keeps something in AWS for, and what that refers to."""


def removal_guard(api: Api) -> pulumi.ResourceHook:
    """Return a hook for before the controller is deleted, which refuses that while others need it."""

    async def refuse(_: pulumi.ResourceHookArgs) -> None:
        needing = await asyncio.to_thread(lambda: list(in_use(api)))
        if needing:
            raise RuntimeError(
                "the load balancer controller is still needed, and without it these could never be deleted: "
                f"{', '.join(needing)}. Delete them first, or hand the controller over to another stack: "
                "docs/day-two.md, Change an owner."
            )

    return pulumi.ResourceHook("load-balancer-controller-guard", refuse)


def in_use(api: Api) -> Iterator[str]:
    """Yield kind, namespace and name of what the controller still holds."""
    for kind, path in IN_USE.items():
        for item in api.items(path):  # none where the CRD is not there
            meta = item["metadata"]
            if any(name.partition("/")[0].endswith("k8s.aws") for name in meta.get("finalizers") or []):
                yield f"{kind} {'/'.join(filter(None, (meta.get('namespace'), meta['name'])))}"


def require_not_needed(mode: str, api: Api, urn: str) -> None:
    """Refuse to delete this stack's controller by a change of its mode: `existing` says that one stays, and
    with any mode what it keeps in AWS could never be deleted without it.

    Args:
        mode: the one that is set.
        api: of the cluster.
        urn: of the controller in this stack's state.

    Raises:
        pulumi.RunError: it is needed.
    """
    stack, key = pulumi.get_stack(), "mern:loadBalancerController.mode"
    try:
        needing = list(in_use(api))
    except ClusterError as error:
        by = f"; what still needs it could not be read: {error}"
    else:
        if not needing and mode != "existing":
            return
        by = f"; still needed for: {', '.join(needing)}" if needing else ""
    raise pulumi.RunError(
        f"{key} is {mode}, but the cluster's controller is this stack's, and would be deleted{by}\n"
        "    To keep it\n"
        f"      {set_mode('install')}\n"
        "    To give it to another stack, which has mode install\n"
        f"      pulumi state move --source {stack} --dest STACK '{urn}'\n"
        "    To delete it: first delete what needs it (this stack's Ingress by mern:values ingress.enabled: "
        f"false and `pulumi up --stack {stack}`), then set the mode to none"
    )
