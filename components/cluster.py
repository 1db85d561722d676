"""Where the stack deploys: the Kubernetes provider, and a client for what the program itself reads."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import yaml

from components.release import Api
from settings import AwsSettings, ClusterSettings


@dataclass(frozen=True, kw_only=True)
class EksCluster:
    """What AWS says of the EKS cluster."""

    name: str
    arn: str
    vpc_id: str
    oidc_issuer: str
    """Without `https://`."""
    is_auto_mode: bool = False
    """EKS runs the nodes, the load balancer controller and the Pod Identity agent."""

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    @property
    def oidc_provider_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:oidc-provider/{self.oidc_issuer}"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster of this stack."""

    provider: kubernetes.Provider
    api: Api
    """For what the program itself reads."""
    eks: EksCluster | None = None
    aws_provider: aws.Provider | None = None


def connect(settings: ClusterSettings, account: AwsSettings | None) -> Cluster:
    """The cluster that the stack's config names; never the current context of a kube config.

    Raises:
        pulumi.RunError: the kube config or the EKS cluster cannot be found.
    """
    if settings.eks_cluster_name is None:
        assert settings.kubeconfig and settings.context  # Settings has seen to it  # noqa: S101
        config = from_file(Path(settings.kubeconfig).expanduser(), settings.context)
        server = config["clusters"][0]["cluster"].get("server", "")
        return _cluster(config, f"{settings.context}@{server}")
    assert account is not None  # Settings has seen to it  # noqa: S101
    aws_provider = aws.Provider("aws", region=account.region, allowed_account_ids=[account.account_id])
    found = _read(settings.eks_cluster_name, account, aws_provider)
    eks = EksCluster(
        name=found.name,
        arn=found.arn,
        vpc_id=found.vpc_config.vpc_id,
        oidc_issuer=found.identities[0].oidcs[0].issuer.removeprefix("https://"),
        is_auto_mode=any(compute.enabled for compute in found.compute_configs or []),
    )
    config = _for_eks(found, account.region)
    return _cluster(config, found.arn, eks=eks, aws_provider=aws_provider)


def _read(name: str, account: AwsSettings, provider: aws.Provider) -> aws.eks.AwaitableGetClusterResult:
    """What AWS says of the cluster."""
    try:
        return aws.eks.get_cluster(name, opts=pulumi.InvokeOptions(provider=provider))
    except Exception as error:  # the SDK has no narrower one
        text = str(error).rpartition("returned an error: ")[2]
    if other := re.search(r"AWS account ID not allowed: (\d+)", text):
        raise pulumi.RunError(
            f"mern:aws.accountId is {account.account_id}, but the AWS credentials in use are of account "
            f"{other[1]}: choose others (AWS_PROFILE), and look at them by\n      aws sts get-caller-identity"
        )
    if "couldn't find resource" in text or "ResourceNotFound" in text:
        raise pulumi.RunError(
            f"mern:cluster.eksClusterName: account {account.account_id} has no EKS cluster {name} in "
            f"{account.region}\n      aws eks list-clusters --region {account.region}\n"
            "      pulumi config set --path 'mern:cluster.eksClusterName' NAME"
        )
    reason = " ".join(text.split()).replace("1 error occurred: * ", "")
    raise pulumi.RunError(f"mern:cluster.eksClusterName: {name} could not be read: {reason}")


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
    """One context of a kube config, with files it points to taken in."""
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
    """`entry` with the files it names taken in: their paths would differ per machine."""
    data = {}
    for key, value in entry.items():
        if key in ("certificate-authority", "client-certificate", "client-key"):
            data[f"{key}-data"] = base64.b64encode((folder / value).read_bytes()).decode()
        else:
            data[key] = value
    return data


def _for_eks(found: Any, region: str) -> dict[str, Any]:
    """A kube config that asks `aws eks get-token` for credentials, so that no token is stored."""
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", found.name, "--region", region],
        "interactiveMode": "Never",
    }
    cluster = {
        "server": found.endpoint,
        "certificate-authority-data": found.certificate_authorities[0].data,
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": found.arn, "cluster": cluster}],
        "users": [{"name": found.arn, "user": {"exec": exec_}}],
        "contexts": [{"name": found.arn, "context": {"cluster": found.arn, "user": found.arn}}],
        "current-context": found.arn,
    }
