"""The MERN application on a cluster: its namespace, and the release of its chart."""

import asyncio
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as kubernetes

from components.chart_values import values_of_stack
from components.cluster import Cluster, EksCluster
from components.ingress import Ingress, commands_to_unprotect, controller_of
from components.release import (
    ChartRelease,
    ClusterError,
    ReleaseArgs,
    ReleasePlan,
    plan_release,
)
from components.service_account_role import (
    ServiceAccountRole,
    ServiceAccountRoleArgs,
    associate,
    role_arn,
)
from settings import NamespaceSettings, Settings

RELEASE = "mern"
CHART = "./chart"
LEAST_TIMEOUT = "mern/least-rollout-seconds"

SCRIPT = "python-script"
NO_ADDRESS = "none yet: the load balancer is being made; the next `up` shows its address"


def plan_application(settings: Settings, cluster: Cluster) -> ReleasePlan:
    """Render the chart with this stack's values, before anything is registered.

    Raises:
        ChartError: the chart cannot be rendered, its schema refuses `mern:values`, or the API server
            refuses objects.
        pulumi.RunError: `mern:release.timeout` is too short for a rollout without downtime.
    """
    role = _irsa_role(settings, cluster.eks)
    values = values_of_stack(settings, cluster, release=RELEASE, role=role)
    args = ReleaseArgs(
        chart=CHART,
        name=RELEASE,
        namespace=settings.namespace.name,
        values=values,
        timeout=settings.release.timeout,
        show_objects=settings.release.show_objects,
        dry_run=settings.release.dry_run,
        drift=settings.release.drift,
        leave=settings.release.leave,
        adopt=settings.release.adopt,
        adopt_command=f"pulumi config set --path 'mern:release.adopt' true --stack {pulumi.get_stack()}",
        unlock_revision=settings.release.unlock_revision,
        unlock_command="pulumi config set --path 'mern:release.unlockRevision' {revision} "
        f"--stack {pulumi.get_stack()}",
    )
    plan = plan_release(args, cluster.provider, cluster.api)
    _require_sufficient_timeout(plan)
    ingress = Ingress.rendered(plan.objects)
    if cluster.eks and ingress and ingress.is_protected:
        pulumi.log.warn(
            "the load balancer is protected from deletion: while mern:values ingress.loadBalancerAttributes "
            "has deletion_protection.enabled, a `destroy` refuses"
        )
    return plan


def _require_sufficient_timeout(plan: ReleasePlan) -> None:
    """Refuse a timeout that ends a rollout which goes well: the chart says how long one may take."""
    slow = {
        item["metadata"]["name"]: int(item["metadata"].get("annotations", {}).get(LEAST_TIMEOUT, 0))
        for item in plan.objects
        if item["kind"] == "Deployment"
    }
    least = max(slow.values(), default=0)
    if plan.args.timeout < least:
        parts = ", ".join(
            f"{name} {seconds} s" for name, seconds in slow.items() if seconds > plan.args.timeout
        )
        raise pulumi.RunError(
            f"mern:release.timeout is {plan.args.timeout} s, but a rollout without downtime may take longer: "
            f"{parts}\n      pulumi config set --path 'mern:release.timeout' {least} --stack "
            f"{pulumi.get_stack()}\n    or switch it off:\n      pulumi config set --path "
            f"'mern:values.ingress.zeroDowntime.enabled' false --stack {pulumi.get_stack()}"
        )


def _irsa_role(settings: Settings, eks: EksCluster | None) -> str | None:
    """Return the ARN of the role that the script's ServiceAccount names, None where it names none."""
    script = settings.python_script
    if script is None or script.identity != "irsa":
        return None
    return script.role_arn or (role_arn(eks, SCRIPT) if eks else None)


class MernApplication(pulumi.ComponentResource):
    """The release in its namespace, and the script's role."""

    release: ChartRelease
    hosts: list[str]
    """The names that the load balancer answers to; empty: any."""
    url: pulumi.Output[str] | None
    """Where a browser reaches the application: None without an Ingress; a sentence while there is no
    load balancer."""
    address: pulumi.Output[str] | None
    """The load balancer's own name in DNS, for the hosts to point to; otherwise like `url`."""

    def __init__(
        self,
        name: str,
        plan: ReleasePlan,
        settings: Settings,
        cluster: Cluster,
        depends_on: list[pulumi.Resource],
    ) -> None:
        providers = [each for each in (cluster.provider, cluster.aws_provider) if each]
        super().__init__(
            cluster.type_of("MernApplication"), name, None, pulumi.ResourceOptions(providers=providers)
        )
        labels = {controller_of(settings.load_balancer_controller.mode).readiness_gate: "enabled"}
        # The namespace too: it can only be deleted while the controller still frees its Ingress.
        opts = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
        if settings.release.adopt and plan.exists and settings.namespace.mode == "create":
            opts.import_ = settings.namespace.name  # which the engine ignores where it is in the state
        namespace = _namespace(name, settings.namespace, labels, opts)
        role = _script_role(settings, cluster, plan, self)
        self.release = ChartRelease(
            name,
            plan,
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[*depends_on, namespace, *role],
                # A destroy without preview would come to the namespace last.
                protect=settings.namespace.protect,
            ),
            before_delete=[_deletion_guard(plan)] if cluster.eks else [],
        )
        ingress = Ingress.rendered(plan.objects)
        self.hosts = ingress.hosts if ingress else []
        self.url = self.address = None
        if ingress:
            self.address = self.release.status.apply(lambda _: _address(plan))
            self.url = self.address.apply(
                # In place of a name in DNS it can be a sentence.
                lambda address: address if " " in address else ingress.url(address)
            )
        self.register_outputs({})


def _script_role(
    settings: Settings, cluster: Cluster, plan: ReleasePlan, parent: pulumi.Resource
) -> list[pulumi.Resource]:
    """Register what gives the script's pods their role; it comes before them."""
    script = settings.python_script
    if script is None or cluster.eks is None:
        return []
    job = next(item for item in plan.objects if item["kind"] == "CronJob")
    account = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"]
    opts = pulumi.ResourceOptions(parent=parent)
    if script.policy is not None:
        args = ServiceAccountRoleArgs(
            cluster=cluster.eks,
            namespace=plan.args.namespace,
            service_account=account,
            identity=script.identity,
            description=f"python-script of {plan.args.namespace} in EKS cluster {cluster.eks.name}",
            policy=script.policy,
        )
        return [ServiceAccountRole(SCRIPT, args, opts)]
    if script.identity == "pod-identity":
        assert script.role_arn  # Settings has seen to it  # noqa: S101
        return [associate(SCRIPT, cluster.eks, plan.args.namespace, account, script.role_arn, opts)]
    return []


def _deletion_guard(plan: ReleasePlan) -> pulumi.ResourceHook:
    """Return a hook that refuses to delete the release while AWS protects its load balancer: the
    deletion of the Ingress would wait for that of the load balancer without end."""
    stack = pulumi.get_stack()

    async def refuse(_: pulumi.ResourceHookArgs) -> None:
        live = await asyncio.to_thread(_live_ingress, plan)
        if live and live.is_protected:
            is_planned = Ingress.rendered(plan.objects) is not None
            commands = commands_to_unprotect(live, plan.args.namespace, stack, is_planned=is_planned)
            raise RuntimeError(
                "the load balancer is protected from deletion, and without it the Ingress cannot go. "
                "Switch the protection off first:\n    " + "\n    ".join(commands)
            )

    return pulumi.ResourceHook(f"{plan.args.name}-deletion-guard", refuse)


def _live_ingress(plan: ReleasePlan) -> Ingress | None:
    """Return the chart's Ingress as it is in the cluster, None where it is not there. Its name is the
    release's, also where the plan has none any more."""
    return Ingress.live(plan.api, plan.args.namespace, plan.args.name)


async def _address(plan: ReleasePlan) -> str:
    """Return the load balancer's address, or a sentence that says why there is none."""
    try:
        live = await asyncio.to_thread(_live_ingress, plan)
    except ClusterError as error:
        return f"could not be read ({error})"
    return live.address if live and live.address else NO_ADDRESS


def _namespace(
    name: str, settings: NamespaceSettings, labels: Mapping[str, str], opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    metadata = {"name": settings.name, "labels": labels}
    if settings.mode == "existing":
        return kubernetes.core.v1.NamespacePatch(f"{name}-namespace", metadata=metadata, opts=opts)
    opts.protect = settings.protect
    return kubernetes.core.v1.Namespace(f"{name}-namespace", metadata=metadata, opts=opts)
