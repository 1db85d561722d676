"""The AWS Load Balancer Controller on an EKS cluster: its permissions in AWS, its CRDs, and its Helm release.

It turns the application's Ingress into a load balancer, and so it comes before the application and
goes after it: without it an Ingress has no address, and one that is deleted waits for it forever.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.cluster import Cluster, EksCluster
from components.ingress import AUTO_MODE
from components.release import Api, ClusterError, StackState, crds
from components.release.component import SAFELY
from components.release.findings import texts_of, unchecked_notes
from components.release.manifest import Object
from components.release.plan import RELEASE
from components.service_account_role import (
    ROLE_ANNOTATION,
    ServiceAccountRole,
    ServiceAccountRoleArgs,
    role_arn,
)
from settings import Identity, LoadBalancerControllerSettings

# One unit: a version, the permissions it needs as its makers publish them, and the CRDs of its chart.
CHART = "aws-load-balancer-controller"
VERSION = "3.5.0"
POLICY = Path(__file__).with_name("load_balancer_controller_policy.json")
CRDS = (
    "albtargetcontrolconfigs.elbv2.k8s.aws",
    "globalaccelerators.aga.k8s.aws",
    "ingressclassparams.elbv2.k8s.aws",
    "listenerruleconfigurations.gateway.k8s.aws",
    "loadbalancerconfigurations.gateway.k8s.aws",
    "targetgroupbindings.elbv2.k8s.aws",
    "targetgroupconfigurations.gateway.k8s.aws",
)
CONTROLLER_GEN = (0, 19, 0)
"""The version of the program that has made these CRDs, as they say in an annotation."""
# Where that list of permissions holds; the isolated partitions have lists of their own.
PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-eusc")

COMPONENT = "LoadBalancerController"
NAME = "load-balancer-controller"
NAMESPACE = "kube-system"
# What the role trusts, and what the chart creates.
SERVICE_ACCOUNT = "aws-load-balancer-controller"
OWNER = "mern/installed-by"
"""Annotation of the ServiceAccount: the stack that has installed the controller. On a CRD somebody sets it
who gives that to a stack."""
INGRESS_CLASS = "alb"
"""What the chart creates."""
CONTROLLER_LABEL = f"app.kubernetes.io/name={CHART}"
"""Of the controller's Deployment, unless whoever installed it has given it another name."""

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
OURS = {"mern", crds.FIELD_MANAGER}
"""The field managers of this program, the first of which it had before."""
BY_HAND = "kubectl"
"""How the field managers begin of those who have applied something once."""
INSTALLERS = re.compile(rf"helm|(terraform-provider-helm|pulumi-resource-kubernetes|{BY_HAND}).*")
"""The field managers that bring CRDs and do not renew them: Helm, alone or in another program, and people."""
KEEPERS = (
    "argocd.argoproj.io/instance",
    "argocd.argoproj.io/tracking-id",
    "helm.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/name",
    "meta.helm.sh/release-name",
)
"""Labels and annotations of those who keep an object as they want it: Argo CD, Flux, a Helm release."""

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


@dataclass(frozen=True, kw_only=True)
class LoadBalancerControllerArgs:
    """The controller to install. All of it is known when the program starts: no Outputs."""

    cluster: EksCluster
    api: Api
    crds: list[dict[str, Any]]
    """Of the chart; see `read_crds`."""
    identity: Identity = "irsa"
    chart_repository: str
    """Address of the Helm repository that has the chart, `https://…` or `oci://…`."""
    timeout: int = 300
    """Seconds that Helm waits for the controller to become ready before it rolls back."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout is a positive number of seconds, not {self.timeout}")


class LoadBalancerController(pulumi.ComponentResource):
    """The controller's role and its release in `kube-system`; ready when its pods are."""

    role_arn: str

    @classmethod
    def plan(
        cls, settings: LoadBalancerControllerSettings, cluster: Cluster, state: StackState
    ) -> LoadBalancerControllerArgs | None:
        """Return what this stack has to install, None where it installs nothing.

        Raises:
            pulumi.RunError: the cluster is in a partition of AWS that has other permissions, the chart
                cannot be had, the cluster has a controller or its CRDs that are not this stack's, or this
                stack's would be deleted while it is needed.
        """
        own = state.of_types(cluster.type_of(COMPONENT))
        if settings.mode != "install":
            for urn in own:
                _require_not_needed(settings.mode, cluster.api, urn)
            return None
        assert cluster.eks is not None  # Settings has seen to it  # noqa: S101
        if cluster.eks.partition not in PARTITIONS:
            raise pulumi.RunError(
                f"{cluster.eks.arn}: which permissions the load balancer controller needs is not "
                f"known for partition {cluster.eks.partition}, only for {', '.join(PARTITIONS)}\n"
                f"      {_set_mode('none')}"
            )
        _require_no_other_owner(cluster.api, is_own=bool(own))
        return LoadBalancerControllerArgs(
            cluster=cluster.eks,
            api=cluster.api,
            crds=read_crds(settings.chart_repository, cluster.provider),
            identity=settings.identity,
            chart_repository=settings.chart_repository,
        )

    @classmethod
    def install(
        cls, args: LoadBalancerControllerArgs | None, cluster: Cluster
    ) -> "LoadBalancerController | None":
        """Register what `plan` gives, None where that is nothing."""
        if cluster.eks is None:
            return None
        # Registered also by a stack that has ceased to install it: its deletion runs the hook.
        guard = _removal_guard(cluster.api)
        return cls(args, cluster, guard) if args else None

    def __init__(
        self, args: LoadBalancerControllerArgs, cluster: Cluster, guard: pulumi.ResourceHook
    ) -> None:
        opts = pulumi.ResourceOptions(providers=[cluster.provider, cluster.aws_provider])
        super().__init__(cluster.type_of(COMPONENT), NAME, None, opts)
        self._args = args
        self._guard = guard
        # Known now, so that a preview shows the release's values before the role exists.
        self.role_arn = role_arn(args.cluster, NAME)
        role = ServiceAccountRole(
            NAME,
            ServiceAccountRoleArgs(
                cluster=args.cluster,
                namespace=NAMESPACE,
                service_account=SERVICE_ACCOUNT,
                identity=args.identity,
                # Without the version: a policy with another description is a new one, and the old one
                # is deleted first.
                description=f"Load balancer controller of EKS cluster {args.cluster.name}",
                policy=permissions(args.cluster.partition),
            ),
            pulumi.ResourceOptions(parent=self),
        )
        # A pod gets its identity when it starts or never, so the release comes after the role; in a
        # destroy it goes first, while it can still clean up.
        self._release(args, pulumi.ResourceOptions(parent=self, depends_on=[role], hooks=self._hooks()))
        self.register_outputs({"roleArn": self.role_arn})

    def _release(self, args: LoadBalancerControllerArgs, opts: pulumi.ResourceOptions) -> None:
        chart, repository = _source(args.chart_repository)
        props = {
            "name": CHART,
            "namespace": NAMESPACE,
            "chart": chart,
            "version": VERSION,
            "repositoryOpts": repository or None,
            "values": chart_values(args, self.role_arn),
            "timeout": args.timeout,
            "compat": "true",
            **SAFELY,
        }
        pulumi.CustomResource(RELEASE, f"{NAME}-release", props, opts)

    def _hooks(self) -> pulumi.ResourceHookBinding:
        in_previews = pulumi.ResourceHookOptions(on_dry_run=True)
        apply = pulumi.ResourceHook(f"{NAME}-crds", self._apply_crds, in_previews)
        verify = [self._verify_identity] if self._args.identity == "pod-identity" else []
        return pulumi.ResourceHookBinding(
            before_create=[apply],
            before_update=[apply],
            after_create=verify,
            after_update=verify,
            before_delete=[self._guard],
        )

    async def _apply_crds(self, _: pulumi.ResourceHookArgs) -> None:
        """Apply the CRDs: Helm installs those of a chart once and never renews or removes them."""
        if not pulumi.runtime.is_dry_run():
            await asyncio.to_thread(crds.apply, self._args.api, self._args.crds)
            return
        findings = await asyncio.to_thread(crds.compare, self._args.api, self._args.crds)
        if refused := texts_of(finding for finding in findings if finding.refused):
            raise RuntimeError("\n".join(refused))
        for note in unchecked_notes(findings, f"the CRDs of {CHART} were not checked"):
            pulumi.log.info(note, self)

    async def _verify_identity(self, _: pulumi.ResourceHookArgs) -> None:
        """Warn of pods without credentials: EKS gives them to a pod when it is made, and never later."""
        without = await asyncio.to_thread(_without_credentials, self._args.api)
        if without:
            pulumi.log.warn(
                f"{len(without)} pods of the load balancer controller have no credentials from EKS Pod "
                f"Identity ({', '.join(without)}): does its agent run? Then start them anew:\n"
                f"    kubectl rollout restart deployment/{CHART} -n {NAMESPACE}",
                self,
            )


def _removal_guard(api: Api) -> pulumi.ResourceHook:
    """Return a hook for before the controller is deleted, which refuses that while others need it."""

    async def refuse(_: pulumi.ResourceHookArgs) -> None:
        needing = await asyncio.to_thread(lambda: list(_in_use(api)))
        if needing:
            raise RuntimeError(
                "the load balancer controller is still needed, and without it these could never be deleted: "
                f"{', '.join(needing)}. Delete them first, or hand the controller over to another stack: "
                "docs/day-two.md, Change an owner."
            )

    return pulumi.ResourceHook(f"{NAME}-guard", refuse)


def _in_use(api: Api) -> Iterator[str]:
    for kind, path in IN_USE.items():
        for item in api.items(path):  # none where the CRD is not there
            meta = item["metadata"]
            if any(name.partition("/")[0].endswith("k8s.aws") for name in meta.get("finalizers") or []):
                yield f"{kind} {'/'.join(filter(None, (meta.get('namespace'), meta['name'])))}"


def _require_not_needed(mode: str, api: Api, urn: str) -> None:
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
        needing = list(_in_use(api))
    except ClusterError as error:
        by = f"; what still needs it could not be read: {error}"
    else:
        if not needing and mode != "existing":
            return
        by = f"; still needed for: {', '.join(needing)}" if needing else ""
    raise pulumi.RunError(
        f"{key} is {mode}, but the cluster's controller is this stack's, and would be deleted{by}\n"
        "    To keep it\n"
        f"      {_set_mode('install')}\n"
        "    To give it to another stack, which has mode install\n"
        f"      pulumi state move --source {stack} --dest STACK '{urn}'\n"
        "    To delete it: first delete what needs it (this stack's Ingress by mern:values ingress.enabled: "
        f"false and `pulumi up --stack {stack}`), then set the mode to none"
    )


def controllers(api: Api) -> list[Object]:
    """Return the Deployments of AWS's controller in all namespaces.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    path = "/apis/apps/v1/deployments"
    labelled = api.items(path, labelSelector=CONTROLLER_LABEL)
    return labelled or [
        item
        for item in api.items(path)
        if any(
            CHART in container.get("image", "")
            for container in item["spec"]["template"]["spec"]["containers"]
        )
    ]


def _require_no_other_owner(api: Api, is_own: bool) -> None:
    """Refuse to install over what another stack or tool has installed: both would fight over it.

    Args:
        api: of the cluster.
        is_own: whether this stack's state holds the controller, which may come from another stack's.

    Raises:
        pulumi.RunError: the cluster has a controller, an IngressClass or CRDs that are not this stack's.
    """
    faults = []
    questions = {
        "whether the cluster has a load balancer controller already": _other_controllers,
        f"whose IngressClass {INGRESS_CLASS} is": _other_class,
        "whose its CRDs are": _other_crds,
    }
    for subject, question in questions.items():
        if is_own and question is _other_controllers:
            continue
        try:
            faults += [f"{fault}\n      {remedy}" for fault, remedy in question(api)]
        except ClusterError as error:
            pulumi.log.info(f"{subject} was not checked: {error}")
    if faults:
        raise pulumi.RunError("mern:loadBalancerController.mode is install, but " + "\n  and ".join(faults))


def _set_mode(mode: str) -> str:
    return f"pulumi config set --path 'mern:loadBalancerController.mode' {mode} --stack {pulumi.get_stack()}"


def _other_controllers(api: Api) -> Iterator[tuple[str, str]]:
    """Yield each controller that is not this stack's, and what to do then."""
    account = api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}")
    notes = (account or {}).get("metadata", {}).get("annotations") or {}
    if account and notes.get(OWNER) != _owner():
        by = f"stack {notes[OWNER]}" if OWNER in notes else "somebody else"
        yield f"the cluster has a controller of {by} already", _set_mode("existing")
        return
    for item in controllers(api):
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        its = item["spec"]["template"]["spec"].get("serviceAccountName", "default")
        if (namespace, name, its) != (NAMESPACE, CHART, SERVICE_ACCOUNT):
            text = f"Deployment {namespace}/{name}, which runs under ServiceAccount {its}"
            yield f"the cluster has a controller already: {text}", _set_mode("existing")


def _other_class(api: Api) -> Iterator[tuple[str, str]]:
    """Yield what is in the way of the IngressClass that the chart creates, and what to do then."""
    item = api.find(f"/apis/networking.k8s.io/v1/ingressclasses/{INGRESS_CLASS}")
    if item is None:
        return
    notes = item["metadata"].get("annotations") or {}
    release = notes.get("meta.helm.sh/release-namespace"), notes.get("meta.helm.sh/release-name")
    if release != (NAMESPACE, CHART):
        controller = item["spec"]["controller"]
        mode = "auto-mode" if controller == AUTO_MODE.ingress_class_controller else "existing"
        yield (
            f"the cluster has an IngressClass {INGRESS_CLASS} already, of {controller}: Helm could not "
            "create the one of the controller's chart",
            _set_mode(mode),
        )


def _other_crds(api: Api) -> Iterator[tuple[str, str]]:
    """Yield who keeps CRDs that this stack would apply by force, and what to do then."""
    owners: dict[str, list[str]] = {}
    by_hand, newer = [], []
    for name in CRDS:
        crd = api.find(crds.path_of(name), accept=METADATA_ONLY)
        if crd is None:
            continue
        if owner := owner_of_crd(crd["metadata"]):
            owners.setdefault(owner, []).append(name)
        elif any(manager.startswith(BY_HAND) for manager in _managers(crd["metadata"])):
            by_hand.append(name)
        made_by = (crd["metadata"].get("annotations") or {}).get("controller-gen.kubebuilder.io/version", "")
        if tuple(map(int, re.findall(r"\d+", made_by))) > CONTROLLER_GEN:
            newer.append(name)
    for owner, names in owners.items():
        yield (
            f"CRDs of the controller are kept by {owner}, and both would change them in turn: "
            f"{', '.join(names)}",
            f"{_set_mode('existing')}\n    or, where that has ended, give them to this stack:\n"
            "      kubectl annotate crd "
            f"{' '.join(names)} --overwrite {OWNER}={_owner()}",
        )
    if newer:
        pulumi.log.warn(
            f"CRDs in the cluster are of a newer controller than {VERSION}, whose CRDs take their place: "
            f"{', '.join(newer)}. Objects lose what only the newer ones know"
        )
    if by_hand:
        pulumi.log.info(f"CRDs that kubectl has applied become this stack's: {', '.join(by_hand)}")


def owner_of_crd(metadata: Mapping[str, Any]) -> str:
    """Return who keeps a CRD as they want it, other than this program; empty: nobody does."""
    notes = metadata.get("annotations") or {}
    if notes.get(OWNER) == _owner():
        return ""
    marks = notes | (metadata.get("labels") or {})
    for mark in KEEPERS:
        if mark in marks:
            return f"{mark.partition('/')[0]} ({marks[mark]})"
    return ", ".join(sorted(name for name in _managers(metadata) if not INSTALLERS.fullmatch(name)))


def _managers(metadata: Mapping[str, Any]) -> set[str]:
    """Return the field managers of an object but this program and the API server, which writes the status."""
    entries = metadata.get("managedFields") or []
    names = {entry.get("manager", "") for entry in entries if entry.get("subresource") != "status"}
    return names - OURS - {"kube-apiserver", ""}


def _owner() -> str:
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"


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


def read_crds(repository: str, provider: pulumi.ProviderResource) -> list[dict[str, Any]]:
    """Return the CRDs in the pinned chart of `repository`.

    Raises:
        pulumi.RunError: the chart cannot be had, or it has other CRDs than the pinned version.
    """
    chart, source = _source(repository)
    options = {
        "chart": chart,
        "version": VERSION,
        "fetch_opts": source,
        "release_name": CHART,
        "namespace": NAMESPACE,
        "values": {"clusterName": "any"},
    }
    mend = (
        "      pulumi config set --path 'mern:loadBalancerController.chartRepository' URL --stack "
        f"{pulumi.get_stack()}"
    )
    try:
        answer = pulumi.runtime.invoke(
            "kubernetes:helm:template",
            {"jsonOpts": json.dumps(options)},
            pulumi.InvokeOptions(provider=provider),
        )
    except Exception as error:  # the SDK raises a bare Exception for every failed call
        raise pulumi.RunError(
            f"mern:loadBalancerController.chartRepository: {CHART} {VERSION} cannot be had from "
            f"{repository}: {error}\n{mend}"
        ) from None
    found = (answer.value or {}).get("result", [])
    by_name = {it["metadata"]["name"]: it for it in found if it["kind"] == "CustomResourceDefinition"}
    if missing := [name for name in CRDS if name not in by_name]:
        raise pulumi.RunError(
            f"mern:loadBalancerController.chartRepository: {CHART} {VERSION} of {repository} is not the one "
            f"that this program is made for: it lacks the CRDs {', '.join(missing)}\n{mend}"
        )
    return [by_name[name] for name in CRDS]


def _source(repository: str) -> tuple[str, dict[str, str]]:
    """Return the chart as Helm names it, and the options that say where it is."""
    if repository.startswith("oci://"):
        return f"{repository}/{CHART}", {}
    return CHART, {"repo": repository}


def permissions(partition: str) -> dict[str, Any]:
    """Return the IAM policy of the controller, for one of `PARTITIONS`."""
    text = POLICY.read_text().replace("arn:aws:", f"arn:{partition}:")
    policy: dict[str, Any] = json.loads(text)
    return policy


def chart_values(args: LoadBalancerControllerArgs, role: str) -> dict[str, Any]:
    """Return the values of the controller's chart."""
    annotations = {OWNER: _owner()} | ({ROLE_ANNOTATION: role} if args.identity == "irsa" else {})
    return {
        "clusterName": args.cluster.name,
        # Left out, the controller asks the node's metadata service, which pods often cannot reach.
        "region": args.cluster.region,
        "vpcId": args.cluster.vpc_id,
        "serviceAccount": {"create": True, "name": SERVICE_ACCOUNT, "annotations": annotations},
        "replicaCount": 2,
        "podDisruptionBudget": {"maxUnavailable": 1},
        # A pod keeps the identity that it was started with: with another one they have to start anew.
        "podAnnotations": {"mern/identity": f"{args.identity} {role}"},
        # The first listing of all pods takes far more memory than the controller needs later.
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        "env": {"GOMEMLIMIT": "900MiB"},
        # Otherwise each upgrade makes a new certificate, and webhooks fail until the pods have it.
        "keepTLSSecret": True,
        # For Services of type LoadBalancer, of which there are none here. While no pod of the
        # controller is ready, it stops the creation of every Service in the cluster.
        "enableServiceMutatorWebhook": False,
        # By default a pod that is made while no pod of the controller is ready gets no readiness gate: a
        # rollout then ends the old pods, and no target takes their place. With this, the old ones stay.
        "podMutatorWebhookConfig": {"failurePolicy": "Fail"},
        # No load balancer sends to the pods of Jobs, and they need not wait for its controller.
        "objectSelector": {
            "matchExpressions": [{"key": "batch.kubernetes.io/job-name", "operator": "DoesNotExist"}]
        },
    }
