"""An IAM role that the pods of one ServiceAccount in an EKS cluster get, and nobody else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.cluster import EksCluster
from settings import Identity

COMPONENT = "mern:index:ServiceAccountRole"
LONGEST_ROLE_NAME = 64  # of IAM

ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"


@dataclass(frozen=True, kw_only=True)
class ServiceAccountRoleArgs:
    """The owner of the role and its permissions, either `policy` or `role_arn`. All of it is known when the
    program starts: no Outputs."""

    cluster: EksCluster
    namespace: str
    service_account: str
    identity: Identity
    """How the pods get the role: `irsa` by the cluster's OIDC issuer, which must be an identity
    provider of the account; `pod-identity` by EKS, whose agent must run on the nodes."""
    description: str
    policy: Mapping[str, Any] | None = None
    """An IAM policy document of a role that is made."""
    role_arn: str | None = None
    """The role, where it is not made here."""


class ServiceAccountRole(pulumi.ComponentResource):
    """The role with its policy, unless somebody else makes it, and with `pod-identity` the association."""

    def __init__(self, name: str, args: ServiceAccountRoleArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__(COMPONENT, name, None, opts)
        import pulumi_aws as aws  # takes a while, and a stack without AWS never comes here

        child = pulumi.ResourceOptions(parent=self)
        arn = args.role_arn or self._role(name, args, child)
        if args.identity == "pod-identity":
            # One resource, whoever makes the role: EKS has one association for a ServiceAccount, and a second
            # would be refused while the first is there. It once was a child of this component's parent.
            was = pulumi.ResourceOptions(aliases=[pulumi.Alias(parent=opts.parent)] if opts.parent else [])
            aws.eks.PodIdentityAssociation(
                f"{name}-association",
                cluster_name=args.cluster.name,
                namespace=args.namespace,
                service_account=args.service_account,
                role_arn=arn,
                tags=tags(args.cluster),
                opts=pulumi.ResourceOptions.merge(child, was),
            )
        self.register_outputs({})

    def _role(
        self, name: str, args: ServiceAccountRoleArgs, opts: pulumi.ResourceOptions
    ) -> pulumi.Output[str]:
        """Register the role and its policy; return its ARN."""
        import pulumi_aws as aws

        role_name, roles = _role_name(args.cluster, name), args.cluster.roles
        path = None if roles.path == "/" else roles.path
        role = aws.iam.Role(
            f"{name}-role",
            name=role_name,
            path=path,
            permissions_boundary=roles.permissions_boundary,
            description=args.description,
            assume_role_policy=json.dumps(trust_policy(args)),
            tags=tags(args.cluster),
            opts=opts,
        )
        policy = aws.iam.Policy(
            f"{name}-policy",
            name=role_name,
            path=path,
            description=args.description,
            policy=json.dumps(args.policy),
            tags=tags(args.cluster),
            opts=opts,
        )
        aws.iam.RolePolicyAttachment(f"{name}-attachment", role=role.name, policy_arn=policy.arn, opts=opts)
        return role.arn


def role_arn(cluster: EksCluster, name: str) -> str:
    """Return the ARN of the role of component `name`: fixed, so that a preview shows it before it exists."""
    return cluster.iam_arn(f"role{cluster.roles.path}{_role_name(cluster, name)}")


def trust_policy(args: ServiceAccountRoleArgs) -> dict[str, Any]:
    """Return who may take the role: the ServiceAccount in this cluster alone (`irsa`), or EKS,
    which itself keeps whose role it is (`pod-identity`)."""
    if args.identity == "pod-identity":
        statement = {
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    else:
        issuer = args.cluster.oidc_issuer
        claims = {
            f"{issuer}:sub": f"system:serviceaccount:{args.namespace}:{args.service_account}",
            # A token made for another audience, as the cluster's own API, is not for AWS.
            f"{issuer}:aud": "sts.amazonaws.com",
        }
        statement = {
            "Principal": {"Federated": args.cluster.oidc_provider_arn},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": claims},
        }
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}


def tags(cluster: EksCluster) -> dict[str, str]:
    """Return the stack's own tags, and those that say of a resource in AWS where it comes from."""
    origin = {
        "project": pulumi.get_project(),
        "stack": pulumi.get_stack(),
        "cluster": cluster.name,
        "managed-by": "pulumi",
    }
    # IAM takes `Project` for the same key as `project`, and refuses both together.
    taken = {key.lower() for key in cluster.tags}
    return {key: text for key, text in origin.items() if key not in taken} | dict(cluster.tags)


def _role_name(cluster: EksCluster, purpose: str) -> str:
    """Return a fixed name, unique in the account: no part but a stack's name may contain a dot."""
    name = ".".join([pulumi.get_project(), pulumi.get_stack(), cluster.name, purpose])
    if len(name) <= LONGEST_ROLE_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_ROLE_NAME - 9]}-{digest}"
