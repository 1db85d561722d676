"""The resources of the controller, and their plan."""

import asyncio
from dataclasses import dataclass

import pulumi

from components import release_settings
from components.cluster import Cluster, EksCluster
from components.load_balancer_controller.chart import (
    CHART,
    NAMESPACE,
    PARTITIONS,
    SERVICE_ACCOUNT,
    chart_values,
    permissions,
    pull,
)
from components.load_balancer_controller.owners import CONTROLLER_LABEL, require_no_other_owner, set_mode
from components.load_balancer_controller.removal import removal_guard, require_not_needed
from components.release import Api, ChartRelease, ReleaseArgs, ReleasePlan, StackState, plan_release
from components.release.plan import RELEASE
from components.service_account_role import ServiceAccountRole, ServiceAccountRoleArgs, role_arn
from settings import Identity, Settings

COMPONENT = "LoadBalancerController"
NAME = "load-balancer-controller"


@dataclass(frozen=True, kw_only=True)
class ControllerPlan:
    """The controller to install; see `LoadBalancerController.plan`."""

    cluster: EksCluster
    identity: Identity
    role_arn: str
    """Known now, so that a preview shows the release's values before the role exists."""
    release: ReleasePlan


class LoadBalancerController(pulumi.ComponentResource):
    """The controller's role and its release in `kube-system`; ready when its pods are."""

    role_arn: str

    @classmethod
    def plan(cls, settings: Settings, cluster: Cluster, state: StackState) -> ControllerPlan | None:
        """Return what this stack has to install, None where it installs nothing.

        Raises:
            pulumi.RunError: the cluster is in a partition of AWS that has other permissions, the chart
                cannot be had or deployed, the cluster has a controller or its CRDs that are not this
                stack's, or this stack's would be deleted while it is needed.
        """
        mode, component = settings.load_balancer_controller.mode, cluster.type_of(COMPONENT)
        own = state.of_types(component)
        if mode != "install":
            for urn in own:
                require_not_needed(mode, cluster.api, urn)
            return None
        assert cluster.eks is not None  # Settings has seen to it  # noqa: S101
        if cluster.eks.partition not in PARTITIONS:
            raise pulumi.RunError(
                f"{cluster.eks.arn}: which permissions the load balancer controller needs is not "
                f"known for partition {cluster.eks.partition}, only for {', '.join(PARTITIONS)}\n"
                f"      {set_mode('none')}"
            )
        require_no_other_owner(cluster.api, is_own=bool(own))
        arn, identity = role_arn(cluster.eks, NAME), settings.load_balancer_controller.identity
        args = ReleaseArgs(
            chart=pull(settings.load_balancer_controller.chart_repository),
            name=CHART,
            namespace=NAMESPACE,
            values=chart_values(cluster.eks, identity, arn, settings.load_balancer_controller.values),
            # Helm installs the CRDs of a chart once and never renews them.
            crds="apply",
            parents=[component],
            # An earlier program had it without a component of its own.
            aliases=list(state.of_types(component, RELEASE)),
            **release_settings.arguments(settings),
        )
        release = plan_release(args, cluster.provider, cluster.api, state)
        return ControllerPlan(cluster=cluster.eks, identity=identity, role_arn=arn, release=release)

    @classmethod
    def install(cls, plan: ControllerPlan | None, cluster: Cluster) -> "LoadBalancerController | None":
        """Register what `plan` gives, None where that is nothing."""
        if cluster.eks is None:
            return None
        # Registered also by a stack that has ceased to install it: its deletion runs the hook.
        guard = removal_guard(cluster.api)
        return cls(plan, cluster, guard) if plan else None

    def __init__(self, plan: ControllerPlan, cluster: Cluster, guard: pulumi.ResourceHook) -> None:
        opts = pulumi.ResourceOptions(providers=[cluster.provider, cluster.aws_provider])
        super().__init__(cluster.type_of(COMPONENT), NAME, None, opts)
        self.role_arn = plan.role_arn
        role = ServiceAccountRole(
            NAME,
            ServiceAccountRoleArgs(
                cluster=plan.cluster,
                namespace=NAMESPACE,
                service_account=SERVICE_ACCOUNT,
                identity=plan.identity,
                # Without the version: a policy with another description is a new one, and the old one
                # is deleted first.
                description=f"Load balancer controller of EKS cluster {plan.cluster.name}",
                policy=permissions(plan.cluster.partition),
            ),
            pulumi.ResourceOptions(parent=self),
        )
        # A pod gets its identity when it starts or never, so the release comes after the role; in a
        # destroy it goes first, while it can still clean up.
        ChartRelease(
            f"{NAME}-release",
            plan.release,
            pulumi.ResourceOptions(parent=self, depends_on=[role]),
            before_delete=[guard],
            after=[self._verify_identity(cluster.api)] if plan.identity == "pod-identity" else [],
        )
        self.register_outputs({"roleArn": self.role_arn})

    def _verify_identity(self, api: Api) -> pulumi.ResourceHook:
        """Return a hook that warns of pods without credentials: EKS gives them to a pod when it is made, and
        never later."""

        async def verify(_: pulumi.ResourceHookArgs) -> None:
            if without := await asyncio.to_thread(_without_credentials, api):
                pulumi.log.warn(
                    f"{len(without)} pods of the load balancer controller have no credentials from EKS Pod "
                    f"Identity ({', '.join(without)}): does its agent run? Then start them anew:\n"
                    f"    kubectl rollout restart deployment/{CHART} -n {NAMESPACE}",
                    self,
                )

        return pulumi.ResourceHook(f"{NAME}-identity", verify)


def _without_credentials(api: Api) -> list[str]:
    pods = api.items(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=CONTROLLER_LABEL)
    return [
        pod["metadata"]["name"]
        for pod in pods
        if not any(
            variable["name"] == "AWS_CONTAINER_CREDENTIALS_FULL_URI"
            for container in pod["spec"]["containers"]
            for variable in container.get("env") or []
        )
    ]
