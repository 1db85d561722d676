"""The MERN application on a cluster: its namespace, and the release of its chart."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import pulumi

from components import namespace as namespaces
from components import release_settings
from components.chart_values import values_of_stack
from components.cluster import Cluster, EksCluster
from components.ingress import Ingress, commands_to_unprotect, controller_of
from components.ingress_events import last_verdict
from components.release import (
    ChartRelease,
    ClusterError,
    ReleaseArgs,
    ReleasePlan,
    StackState,
    plan_release,
)
from components.release.plan import COMPONENT as RELEASE_COMPONENT
from components.release.plan import RELEASE as RELEASE_TYPE
from components.release.secrets import Messages
from components.service_account_role import COMPONENT as ROLE_COMPONENT
from components.service_account_role import ServiceAccountRole, ServiceAccountRoleArgs, role_arn
from settings import Settings

COMPONENT = "MernApplication"
RELEASE = "mern"
CHART = "./chart"
LEAST_TIMEOUT = "mern/least-rollout-seconds"

CONTROLLER_SECONDS = 15
"""How long an `up` waits for the controller's answer to an Ingress that it has changed."""

SCRIPT = "python-script"
NO_ADDRESS = "none yet: the load balancer is being made; the next `up` shows its address"


def plan_application(settings: Settings, cluster: Cluster, state: StackState) -> ReleasePlan:
    """Render the chart with this stack's values, before anything is registered.

    Raises:
        ChartError: the chart cannot be rendered, its schema refuses `mern:values`, or the API server
            refuses objects.
        pulumi.RunError: `mern:release.timeout` is too short for a rollout without downtime, or the
            deployment would delete what serves, or what is not this stack's, by a change of its owner.
    """
    component = cluster.type_of(COMPONENT)
    _require_same_namespace(settings.namespace.name, component, state)
    _require_other_role(settings, cluster, component, state)
    role = _irsa_role(settings, cluster.eks)
    values = values_of_stack(settings, cluster, release=RELEASE, role=role)
    args = ReleaseArgs(
        chart=CHART,
        name=RELEASE,
        namespace=settings.namespace.name,
        values=values,
        timeout=settings.release.timeout,
        parents=[component],
        **release_settings.arguments(settings),
    )
    plan = plan_release(args, cluster.provider, cluster.api, state)
    plan.notes += _owner_of_namespace(settings, cluster, component, state)
    _require_sufficient_timeout(plan)
    ingress = Ingress.rendered(plan.objects)
    if settings.load_balancer_controller.mode == "none":  # of the others, preflight says so
        _warn_of_another_load_balancer(plan, ingress)
    if cluster.eks and ingress and ingress.is_protected:
        pulumi.log.warn(
            "the load balancer is protected from deletion: while mern:values ingress.loadBalancerAttributes "
            "has deletion_protection.enabled, a `destroy` refuses"
        )
    return plan


def _warn_of_another_load_balancer(plan: ReleasePlan, ingress: Ingress | None) -> None:
    """Warn where an Ingress that serves gets another class: whoever served the old one deletes its load
    balancer."""
    with contextlib.suppress(ClusterError):  # then the plan says that the cluster cannot be asked
        live = ingress and plan.newest and Ingress.live(plan.api, plan.args.namespace, ingress.name)
        if ingress and live and live.address and live.class_name != ingress.class_name:
            pulumi.log.warn(
                f"Ingress {ingress.name} changes its class from {live.class_name} to {ingress.class_name}: "
                f"its load balancer {live.address} is deleted and another one made, and the hosts are out of "
                "reach until they point to that. Without a gap: deploy a second stack (docs/day-two.md, "
                "Change an owner)"
            )


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


def _require_same_namespace(namespace: str, component: str, state: StackState) -> None:
    """Refuse to move a release: it would get another load balancer, and the one that the hosts point to would
    be deleted, with the namespace and whatever else is in it.

    Raises:
        pulumi.RunError: this stack has deployed to another namespace.
    """
    stack = pulumi.get_stack()
    for outputs in state.of_types(component, RELEASE_COMPONENT, RELEASE_TYPE).values():
        old = outputs["namespace"]
        if old != namespace:
            raise pulumi.RunError(
                f"mern:namespace.name is {namespace}, but this stack's release serves in namespace {old}, "
                "and a stack stays in its namespace. Nothing was changed.\n"
                "    To stay\n"
                f"      pulumi config set --path 'mern:namespace.name' {old} --stack {stack}\n"
                "    To move: deploy another stack, point the hosts to its load balancer, destroy this one\n"
                f"      pulumi stack init NEW --copy-config-from {stack}"
            )


def _owner_of_namespace(settings: Settings, cluster: Cluster, component: str, state: StackState) -> list[str]:
    """Return what the user should know of a namespace that changes its owner.

    Raises:
        pulumi.RunError: it is somebody else's and would become this stack's, or it is not there and this
            stack is not to make it; in an `up` also: that could not be checked.
    """
    name, mode = settings.namespace.name, settings.namespace.mode
    owned, labelled = (
        any(outputs["metadata"]["name"] == name for outputs in state.of_types(component, type_).values())
        for type_ in (namespaces.NAMESPACE, namespaces.PATCH)
    )
    if owned and mode == "existing":
        return [f"namespace {name} is no longer this stack's: it stays, and a destroy leaves it there"]
    if owned or (labelled and mode == "existing"):
        return []
    try:
        exists = namespaces.has_namespace(cluster.api, name)
    except ClusterError as error:
        text = f"whether namespace {name} is there, and somebody else's, could not be checked: {error}"
        if pulumi.runtime.is_dry_run():
            return [text]
        raise pulumi.RunError(f"{text}.\nNothing was changed.") from None
    stack = pulumi.get_stack()
    if mode == "existing" and not exists:
        raise pulumi.RunError(
            f"mern:namespace.mode is existing, but namespace {name} is not there. Nothing was changed.\n"
            f"    Its owner makes it\n      kubectl create namespace {name}\n"
            f"    or this stack does\n"
            f"      pulumi config set --path 'mern:namespace.mode' create --stack {stack}"
        )
    if mode == "existing" or not exists:
        return []
    if not settings.release.adopt:
        raise pulumi.RunError(
            f"mern:namespace.mode is create, but namespace {name} is there and not this stack's. Nothing was "
            "changed.\n    To leave it to its owner\n"
            f"      pulumi config set --path 'mern:namespace.mode' existing --stack {stack}\n"
            "    To make it this stack's, whose destruction then deletes it with all that is in it\n"
            f"      pulumi config set --path 'mern:release.adopt' true --stack {stack}"
        )
    return [f"namespace {name} becomes this stack's: a destroy of it deletes the namespace and all in it"]


def _require_other_role(settings: Settings, cluster: Cluster, component: str, state: StackState) -> None:
    """Refuse a script's role of somebody else that is the one this stack has made, and would delete.

    Raises:
        pulumi.RunError: it is.
    """
    script = settings.python_script
    if script is None or cluster.eks is None or script.role_arn != role_arn(cluster.eks, SCRIPT):
        return
    if state.of_types(component, ROLE_COMPONENT, "aws:iam/role:Role"):
        raise pulumi.RunError(
            "mern:pythonScript.roleArn names the role that this stack has made for mern:pythonScript.policy, "
            "would delete now, and so leave the script without one. Nothing was changed. Put the policy "
            "back, or name a role of another owner\n"
            "      pulumi config set --path 'mern:pythonScript.roleArn' ARN "
            f"--stack {pulumi.get_stack()}"
        )


class MernApplication(pulumi.ComponentResource):
    """The release in its namespace, and the script's role."""

    release: ChartRelease
    hosts: list[str]
    """The names that the load balancer answers to; empty: any."""
    url: pulumi.Output[str | None] | None
    """Where a browser reaches the application: None without an Ingress; a sentence while there is no
    load balancer."""
    address: pulumi.Output[str | None] | None
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
        super().__init__(cluster.type_of(COMPONENT), name, None, pulumi.ResourceOptions(providers=providers))
        labels = {controller_of(settings.load_balancer_controller.mode).readiness_gate: "enabled"}
        # The namespace too: it can only be deleted while the controller still frees its Ingress.
        opts = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
        namespace = namespaces.register(name, settings, plan, labels, opts)
        role = _script_role(settings, cluster, plan, self)
        self.release = ChartRelease(
            name,
            plan,
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[*depends_on, *namespace, *role],
                # A destroy without preview would come to the namespace last.
                protect=settings.namespace.protect,
            ),
            before_delete=[_deletion_guard(plan)] if cluster.eks else [],
        )
        ingress = Ingress.rendered(plan.objects)
        self.hosts = ingress.hosts if ingress else []
        self.url = self.address = None
        if ingress:
            is_served = settings.load_balancer_controller.mode != "none"
            messages = Messages(plan.secrets, self)
            self.address = self.release.status.apply(
                lambda status: _address(plan, messages if is_served else None) if status else None
            )
            self.url = self.address.apply(
                # In place of a name in DNS it can be a sentence.
                lambda address: ingress.url(address) if address and " " not in address else address
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
    args = ServiceAccountRoleArgs(
        cluster=cluster.eks,
        namespace=plan.args.namespace,
        service_account=account,
        identity=script.identity,
        description=f"python-script of {plan.args.namespace} in EKS cluster {cluster.eks.name}",
        policy=script.policy,
        role_arn=script.role_arn,
    )
    return [ServiceAccountRole(SCRIPT, args, pulumi.ResourceOptions(parent=parent))]


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


async def _address(plan: ReleasePlan, messages: Messages | None) -> str:
    """Return the load balancer's address, or a sentence that says why there is none.

    Args:
        plan: of the release, which is deployed.
        messages: for what the load balancer controller refuses; None where there is none.
    """
    if messages and not pulumi.runtime.is_dry_run():
        with contextlib.suppress(ClusterError):  # then the address says so
            if refusal := await asyncio.to_thread(_wait_for_controller, plan):
                messages.warn(refusal)
    try:
        live = await asyncio.to_thread(_live_ingress, plan)
    except ClusterError as error:
        return f"could not be read ({error})"
    return live.address if live and live.address else NO_ADDRESS


def _wait_for_controller(plan: ReleasePlan, sleep: Callable[[float], None] = time.sleep) -> str:
    """Wait for what the load balancer controller says of the Ingress, for a short while and only where this
    deployment has changed it; return what the user should know of that, empty where all is well.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    seconds = CONTROLLER_SECONDS if _changes_model(plan) else 0
    until = time.monotonic() + seconds
    while True:
        live = _live_ingress(plan)
        verdict = last_verdict(plan.api, live) if live else None
        if live is None or (verdict and verdict.is_final) or time.monotonic() >= until:
            break
        sleep(1)
    if live is None or (verdict.is_accepted if verdict else not seconds):
        return ""
    command = f"    kubectl describe ingress {live.name} -n {plan.args.namespace}"
    if verdict is None:
        return (
            f"the load balancer controller has not said yet whether it accepts Ingress {live.name} as it is "
            f"now. What it says:\n{command}"
        )
    return (
        f"the load balancer controller refuses Ingress {live.name} {verdict}\n"
        f"Until it accepts it, the load balancer stays as it was; it tries again by itself. See\n{command}"
    )


def _changes_model(plan: ReleasePlan) -> bool:
    """Return whether the controller reads another Ingress than before: of others it says nothing anew."""
    newest, planned = plan.newest, Ingress.rendered(plan.objects)
    before = Ingress.rendered(newest.objects()) if newest and newest.status == "deployed" else None
    return before is None or planned is None or before.model != planned.model
