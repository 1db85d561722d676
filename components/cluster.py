"""The cluster of a stack: the Kubernetes provider, and a client for what the program itself reads."""

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import yaml

from components.aws import AbsentError, Arn, Aws, AwsError, CredentialsError, Description
from components.release import Api
from settings import AwsSettings, ClusterSettings


@dataclass(frozen=True, kw_only=True)
class EksCluster:
    """An EKS cluster, as AWS describes it."""

    name: str
    arn: str
    vpc_id: str
    oidc_issuer: str
    """Without `https://`."""
    is_auto_mode: bool = False
    """EKS runs the nodes, the load balancer controller and the Pod Identity agent."""

    @property
    def partition(self) -> str:
        return Arn.parse(self.arn).partition

    @property
    def region(self) -> str:
        return Arn.parse(self.arn).region

    @property
    def oidc_provider_arn(self) -> str:
        return self.iam_arn(f"oidc-provider/{self.oidc_issuer}")

    def iam_arn(self, resource: str) -> str:
        """Return the ARN of a resource of IAM, as in `role/deployer`, in the cluster's account."""
        return str(replace(Arn.parse(self.arn), service="iam", region="", resource=resource))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster of this stack."""

    provider: kubernetes.Provider
    api: Api
    """For what the program itself reads."""
    eks: EksCluster | None = None
    aws_provider: aws.Provider | None = None
    aws_api: Aws | None = None
    """For what the program itself reads in AWS."""


def connect(settings: ClusterSettings, account: AwsSettings | None) -> Cluster:
    """Connect to the cluster that the stack's config names; never to the current context of a kube config.

    Raises:
        pulumi.RunError: the kube config or the EKS cluster cannot be found.
    """
    if settings.eks_cluster_name is None:
        config = kube_config(settings, account)
        server = config["clusters"][0]["cluster"].get("server", "")
        return _cluster(config, f"{settings.context}@{server}")
    assert account is not None  # Settings has seen to it  # noqa: S101
    aws_api = Aws(account.region)
    # Before the provider is registered, which would refuse in words of its own.
    found = _describe(settings.eks_cluster_name, account, aws_api)
    return _cluster(
        _for_eks(found, account.region),
        found["arn"],
        eks=EksCluster(
            name=found["name"],
            arn=found["arn"],
            vpc_id=found["resourcesVpcConfig"]["vpcId"],
            oidc_issuer=found["identity"]["oidc"]["issuer"].removeprefix("https://"),
            is_auto_mode=found.get("computeConfig", {}).get("enabled", False),
        ),
        aws_provider=aws.Provider("aws", region=account.region, allowed_account_ids=[account.account_id]),
        aws_api=aws_api,
    )


def kube_config(settings: ClusterSettings, account: AwsSettings | None) -> dict[str, Any]:
    """Return a kube config with the cluster that the stack's config names, and no other.

    Raises:
        pulumi.RunError: the kube config or the EKS cluster cannot be found.
    """
    if settings.eks_cluster_name is None:
        assert settings.kubeconfig and settings.context  # Settings has seen to it  # noqa: S101
        return from_file(Path(settings.kubeconfig).expanduser(), settings.context)
    assert account is not None  # Settings has seen to it  # noqa: S101
    return _for_eks(_describe(settings.eks_cluster_name, account, Aws(account.region)), account.region)


def _describe(name: str, account: AwsSettings, aws_api: Aws) -> Description:
    """Ask AWS for the EKS cluster, in the stack's own account and no other."""
    try:
        caller = aws_api.account_id()
        if caller != account.account_id:
            raise pulumi.RunError(
                f"mern:aws.accountId is {account.account_id}, but the AWS credentials in use are of account "
                f"{caller}: choose others (AWS_PROFILE), and look at them by\n"
                "      aws sts get-caller-identity"
            )
        found = aws_api.cluster(name)
    except CredentialsError as error:
        raise pulumi.RunError(
            f"mern:aws.accountId is {account.account_id}, but {error}: {error.remedy}"
        ) from None
    except AbsentError:
        raise pulumi.RunError(
            f"mern:cluster.eksClusterName: account {account.account_id} has no EKS cluster {name} in "
            f"{account.region}\n      aws eks list-clusters --region {account.region}\n"
            "      pulumi config set --path 'mern:cluster.eksClusterName' NAME"
        ) from None
    except AwsError as error:
        raise pulumi.RunError(f"mern:cluster.eksClusterName: {name} could not be read: {error}") from None
    if "endpoint" not in found:
        raise pulumi.RunError(
            f"mern:cluster.eksClusterName: {name} is {found['status']} and has no address: wait for it\n"
            f"      aws eks wait cluster-active --name {name} --region {account.region}"
        )
    return found


def _cluster(config: dict[str, Any], identifier: str, **more: Any) -> Cluster:
    provider = kubernetes.Provider(
        "cluster",
        # Credentials can be in it. Its content, not its path, which differs per machine.
        kubeconfig=pulumi.Output.secret(json.dumps(config)),
        # Without it, a new address or certificate of the same cluster would replace everything.
        cluster_identifier=identifier,
    )
    return Cluster(provider=provider, api=Api(config), **more)


def from_file(path: Path, context: str) -> dict[str, Any]:
    """Return one context of a kube config, with the contents of files that it names."""
    mend = "pulumi config set --path 'mern:cluster.kubeconfig' PATH"
    try:
        config = yaml.safe_load(path.read_text())
        contexts = {item["name"]: item["context"] for item in config["contexts"]}
    except OSError as error:
        raise pulumi.RunError(
            f"mern:cluster.kubeconfig: cannot read {path}: {error.strerror}\n      {mend}"
        ) from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        raise pulumi.RunError(f"mern:cluster.kubeconfig: {path} is not a kube config\n      {mend}") from None
    if context not in contexts:
        raise pulumi.RunError(
            f"mern:cluster.context: {path} has no context {context}; it has "
            f"{', '.join(contexts) or 'none'}\n"
            "      pulumi config set --path 'mern:cluster.context' CONTEXT"
        )
    chosen = contexts[context]

    def pick(kind: str) -> dict[str, Any]:
        name = chosen[kind]
        entry: dict[str, Any] = next((item[kind] for item in config[f"{kind}s"] if item["name"] == name), {})
        return {"name": name, kind: _inline(entry, path.parent)}

    try:
        clusters, users = [pick("cluster")], [pick("user")]
    except OSError as error:
        raise pulumi.RunError(
            f"mern:cluster.context: cannot read {error.filename}, which context {context} of {path} names: "
            f"{error.strerror}"
        ) from None
    except (KeyError, TypeError, AttributeError):
        raise pulumi.RunError(f"mern:cluster.context: context {context} of {path} is incomplete") from None
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "users": users,
        "contexts": [{"name": context, "context": chosen}],
        "current-context": context,
    }


def _inline(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `entry` with the contents of files that it names: their paths would differ per machine."""
    data = {}
    for key, value in entry.items():
        if key in ("certificate-authority", "client-certificate", "client-key"):
            data[f"{key}-data"] = base64.b64encode((folder / value).read_bytes()).decode()
        else:
            data[key] = value
    return data


def _for_eks(found: Description, region: str) -> dict[str, Any]:
    """Return a kube config that asks `aws eks get-token` for credentials, so that no token is stored."""
    arn = found["arn"]
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", found["name"], "--region", region],
        "interactiveMode": "Never",
    }
    cluster = {
        "server": found["endpoint"],
        "certificate-authority-data": found["certificateAuthority"]["data"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": arn, "cluster": cluster}],
        "users": [{"name": arn, "user": {"exec": exec_}}],
        "contexts": [{"name": arn, "context": {"cluster": arn, "user": arn}}],
        "current-context": arn,
    }
