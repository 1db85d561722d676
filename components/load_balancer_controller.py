"""The AWS Load Balancer Controller on an EKS cluster: its permissions in AWS, and its Helm release.

It turns the application's Ingress into a load balancer, and so it comes before the application and
goes after it: without it an Ingress has no address, and one that is deleted waits for it forever.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pulumi
import pulumi_aws as aws
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from components.cluster import Cluster, EksCluster
from settings import LoadBalancerControllerSettings

CHART = "aws-load-balancer-controller"
VERSION = "3.5.0"
# The permissions that VERSION needs, as its makers publish them: renew one with the other.
POLICY = Path(__file__).with_name("load_balancer_controller_policy.json")
# Where that list holds; the isolated partitions have lists of their own.
PARTITIONS = ("aws", "aws-cn", "aws-us-gov")

NAMESPACE = "kube-system"
# What the role trusts, and what the chart creates.
SERVICE_ACCOUNT = "aws-load-balancer-controller"

LONGEST_ROLE_NAME = 64  # of IAM


@dataclass(frozen=True, kw_only=True)
class LoadBalancerControllerArgs:
    """What to install. All of it is known when the program starts: no Outputs."""

    cluster: EksCluster
    identity: Literal["irsa", "pod-identity"] = "irsa"
    """How the pods get their role: `irsa` by the cluster's OIDC issuer, which must be an identity
    provider of the account; `pod-identity` by EKS, whose agent must run on the nodes."""
    chart_repository: str
    """Address of the Helm repository that has the chart."""
    timeout: int = 300
    """Seconds that Helm waits for the controller to become ready before it rolls back."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout is a positive number of seconds, not {self.timeout}")
        if self.partition not in PARTITIONS:
            raise pulumi.RunError(
                f"{self.cluster.arn}: which permissions the load balancer controller needs is not "
                f"known for partition {self.partition}, only for {', '.join(PARTITIONS)}\n"
                "      pulumi config set --path 'mern:loadBalancerController.mode' none"
            )

    @property
    def partition(self) -> str:
        return self.cluster.arn.split(":")[1]

    @property
    def region(self) -> str:
        return self.cluster.arn.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.cluster.arn.split(":")[4]


class LoadBalancerController(pulumi.ComponentResource):
    """The controller's role and its release in `kube-system`; ready when its pods are."""

    role_arn: str

    @classmethod
    def for_stack(
        cls, settings: LoadBalancerControllerSettings, cluster: Cluster
    ) -> "LoadBalancerController | None":
        """The controller that the stack's config asks for, None where it asks for none.

        Raises:
            pulumi.RunError: the cluster is in a partition of AWS that has other permissions.
        """
        if settings.mode == "none":
            return None
        assert cluster.eks is not None  # Settings has seen to it  # noqa: S101
        args = LoadBalancerControllerArgs(
            cluster=cluster.eks,
            identity=settings.identity,
            chart_repository=settings.chart_repository,
        )
        providers = [cluster.provider, cluster.aws_provider]
        return cls("load-balancer-controller", args, pulumi.ResourceOptions(providers=providers))

    def __init__(
        self,
        name: str,
        args: LoadBalancerControllerArgs,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("mern:index:LoadBalancerController", name, None, opts)
        role_name = _role_name(args.cluster.name, name)
        # Known now, so that a preview shows the release's values before the role exists.
        self.role_arn = f"arn:{args.partition}:iam::{args.account_id}:role/{role_name}"
        # A pod gets its identity when it starts or never, so the release comes after all of this;
        # in a destroy it goes first, while it can still clean up.
        identity = self._identity(name, role_name, args)
        self._release(name, args, pulumi.ResourceOptions(parent=self, depends_on=identity))
        self.register_outputs({"roleArn": self.role_arn})

    def _identity(self, name: str, role_name: str, args: LoadBalancerControllerArgs) -> list[pulumi.Resource]:
        child = pulumi.ResourceOptions(parent=self)
        tags = {
            "project": pulumi.get_project(),
            "stack": pulumi.get_stack(),
            "cluster": args.cluster.name,
            "managed-by": "pulumi",
        }
        role = aws.iam.Role(
            f"{name}-role",
            name=role_name,
            description=f"Load balancer controller of EKS cluster {args.cluster.name}",
            assume_role_policy=json.dumps(trust_policy(args)),
            tags=tags,
            opts=child,
        )
        policy = aws.iam.Policy(
            f"{name}-policy",
            name=role_name,
            description=f"What the load balancer controller {VERSION} needs",
            policy=json.dumps(permissions(args.partition)),
            tags=tags,
            opts=child,
        )
        attachment = aws.iam.RolePolicyAttachment(
            f"{name}-attachment", role=role.name, policy_arn=policy.arn, opts=child
        )
        if args.identity == "irsa":
            return [attachment]
        association = aws.eks.PodIdentityAssociation(
            f"{name}-association",
            cluster_name=args.cluster.name,
            namespace=NAMESPACE,
            service_account=SERVICE_ACCOUNT,
            role_arn=role.arn,
            tags=tags,
            opts=child,
        )
        return [attachment, association]

    def _release(self, name: str, args: LoadBalancerControllerArgs, opts: pulumi.ResourceOptions) -> None:
        Release(
            f"{name}-release",
            name=CHART,
            namespace=NAMESPACE,
            chart=CHART,
            version=VERSION,
            repository_opts=RepositoryOptsArgs(repo=args.chart_repository),
            values=chart_values(args, self.role_arn),
            timeout=args.timeout,
            atomic=True,
            max_history=10,
            # The application's Ingress and pods need its webhooks: only a ready one counts.
            skip_await=False,
            create_namespace=False,
            # Acts on a first install only, over what a killed one left; never over a deployed one.
            replace=True,
            opts=opts,
        )


def permissions(partition: str) -> dict[str, Any]:
    """The IAM policy of the controller, for one of `PARTITIONS`."""
    text = POLICY.read_text().replace("arn:aws:", f"arn:{partition}:")
    policy: dict[str, Any] = json.loads(text)
    return policy


def trust_policy(args: LoadBalancerControllerArgs) -> dict[str, Any]:
    """Who may take the role: the ServiceAccount in this cluster alone (`irsa`), or EKS,
    which itself keeps whose role it is (`pod-identity`)."""
    if args.identity == "pod-identity":
        statement = {
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    else:
        issuer = args.cluster.oidc_issuer
        provider = f"arn:{args.partition}:iam::{args.account_id}:oidc-provider/{issuer}"
        claims = {
            f"{issuer}:sub": f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}",
            # A token made for another audience, as the cluster's own API, is not for AWS.
            f"{issuer}:aud": "sts.amazonaws.com",
        }
        statement = {
            "Principal": {"Federated": provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": claims},
        }
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}


def chart_values(args: LoadBalancerControllerArgs, role_arn: str) -> dict[str, Any]:
    """The values of the controller's chart."""
    by_annotation = args.identity == "irsa"
    annotations = {"eks.amazonaws.com/role-arn": role_arn} if by_annotation else {}
    return {
        "clusterName": args.cluster.name,
        # Left out, the controller asks the node's metadata service, which pods often cannot reach.
        "region": args.region,
        "vpcId": args.cluster.vpc_id,
        "serviceAccount": {"create": True, "name": SERVICE_ACCOUNT, "annotations": annotations},
        "replicaCount": 2,
        "podDisruptionBudget": {"maxUnavailable": 1},
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
    }


def _role_name(cluster: str, purpose: str) -> str:
    """A fixed name, unique in the account: no part but a stack's name may contain a dot."""
    parts = [pulumi.get_project(), pulumi.get_stack(), cluster, purpose]
    name = ".".join(parts)
    if len(name) <= LONGEST_ROLE_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_ROLE_NAME - 9]}-{digest}"
