"""The cluster of a stack: the Kubernetes provider, and a client for what the program itself reads."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.aws import AbsentError, Arn, Aws, AwsError, CredentialsError, Description
from components.kube_config import read_context
from components.release import Api, ApiError, ClusterError, StackState
from settings import AwsSettings, ClusterSettings, RolesSettings


@dataclass(frozen=True, kw_only=True)
class EksCluster:
    """An EKS cluster, as AWS describes it, and how this stack makes roles for its pods."""

    name: str
    arn: str
    vpc_id: str
    oidc_issuer: str
    """Without `https://`."""
    is_auto_mode: bool = False
    """EKS runs the nodes, the load balancer controller and the Pod Identity agent."""
    roles: RolesSettings = field(default_factory=RolesSettings)
    tags: Mapping[str, str] = field(default_factory=dict)
    """The stack's own, for what it makes in AWS."""

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
class Identity:
    """A cluster by what it is, whatever its address, certificate or name in a kube config."""

    id: str
    """The ARN of an EKS cluster, else the UID of the namespace kube-system."""
    name: str
    """For people: the name of the EKS cluster, or the context of the kube config."""
    mark: str = ""
    """Part of the resources' URNs, empty for a stack's first cluster: what runs in one is never taken for
    what runs in another, and a move that fails half-way can go on, or back."""

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"

    @property
    def output(self) -> dict[str, str]:
        """The stack's output from which the next run reads it."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster of this stack."""

    provider: kubernetes.Provider
    api: Api
    """For what the program itself reads."""
    identity: Identity
    """With an empty id in a preview that could not read it, before the first deployment."""
    eks: EksCluster | None = None
    aws_provider: pulumi.ProviderResource | None = None
    aws_api: Aws | None = None
    """For what the program itself reads in AWS."""

    def type_of(self, component: str) -> str:
        """Return the type of a component of this program, whose children have it in their URNs."""
        return f"mern:{self.identity.mark or 'index'}:{component}"


def connect(settings: ClusterSettings, account: AwsSettings | None, state: StackState) -> Cluster:
    """Connect to the cluster that the stack's config names; never to the current context of a kube config.

    Raises:
        pulumi.RunError: the kube config or the EKS cluster cannot be found.
    """
    if settings.eks_cluster_name is None:
        config = kube_config(settings, account, pulumi.get_stack())
        api = _api(config)
        return _cluster(settings, _last_deployed(state), config, api, _uid(api), str(settings.context))
    assert account is not None  # Settings has seen to it  # noqa: S101
    import pulumi_aws as aws  # takes a while, and a stack without AWS never comes here

    aws_api = Aws(account.region)
    # Before the provider is registered, which would refuse in words of its own.
    found = _describe(settings.eks_cluster_name, account, aws_api, pulumi.get_stack())
    config = _for_eks(found, account.region)
    return _cluster(
        settings,
        _last_deployed(state),
        config,
        _api(config),
        found["arn"],
        found["name"],
        eks=EksCluster(
            name=found["name"],
            arn=found["arn"],
            vpc_id=found["resourcesVpcConfig"]["vpcId"],
            oidc_issuer=found["identity"]["oidc"]["issuer"].removeprefix("https://"),
            is_auto_mode=found.get("computeConfig", {}).get("enabled", False),
            roles=account.roles,
            tags=account.tags,
        ),
        aws_provider=aws.Provider("aws", region=account.region, allowed_account_ids=[account.account_id]),
        aws_api=aws_api,
    )


def _api(config: dict[str, Any]) -> Api:
    try:
        return Api(config)
    except ClusterError as error:
        raise pulumi.RunError(str(error)) from None


def kube_config(settings: ClusterSettings, account: AwsSettings | None, stack: str) -> dict[str, Any]:
    """Return a kube config with the cluster that the config of `stack` names, and no other.

    Raises:
        pulumi.RunError: the kube config or the EKS cluster cannot be found.
    """
    if settings.eks_cluster_name is None:
        assert settings.kubeconfig and settings.context  # Settings has seen to it  # noqa: S101
        return read_context(settings.kubeconfig, settings.context, stack)
    assert account is not None  # Settings has seen to it  # noqa: S101
    found = _describe(settings.eks_cluster_name, account, Aws(account.region), stack)
    return _for_eks(found, account.region)


def _describe(name: str, account: AwsSettings, aws_api: Aws, stack: str) -> Description:
    """Ask AWS for the EKS cluster, in the stack's own account and no other."""
    threads = ThreadPoolExecutor()
    asked = threads.submit(aws_api.cluster, name)  # at once: an answer takes a while
    try:
        caller = aws_api.account_id()
        if caller != account.account_id:
            raise pulumi.RunError(
                f"mern:aws.accountId is {account.account_id}, but the AWS credentials in use are of account "
                f"{caller}: choose others (AWS_PROFILE), and look at them by\n"
                f"      aws sts get-caller-identity --region {account.region}"
            )
        found = asked.result()
    except CredentialsError as error:
        raise pulumi.RunError(
            f"mern:aws.accountId is {account.account_id}, but {error}: {error.remedy}"
        ) from None
    except AbsentError:
        raise pulumi.RunError(
            f"mern:cluster.eksClusterName: account {account.account_id} has no EKS cluster {name} in "
            f"{account.region}\n      aws eks list-clusters --region {account.region}\n"
            f"      pulumi config set --path 'mern:cluster.eksClusterName' NAME --stack {stack}"
        ) from None
    except AwsError as error:
        raise pulumi.RunError(f"mern:cluster.eksClusterName: {name} could not be read: {error}") from None
    if "endpoint" not in found:
        raise pulumi.RunError(
            f"mern:cluster.eksClusterName: {name} is {found['status']} and has no address: wait for it\n"
            f"      aws eks wait cluster-active --name {name} --region {account.region}"
        )
    return found


def _cluster(
    settings: ClusterSettings,
    deployed: Identity | None,
    config: dict[str, Any],
    api: Api,
    cluster_id: str,
    name: str,
    **more: Any,
) -> Cluster:
    if deployed is None:
        identity = Identity(id=cluster_id, name=name)
    elif cluster_id in ("", deployed.id):
        identity = deployed
    elif settings.moves_from == deployed.id:
        identity = Identity(id=cluster_id, name=name, mark=_short(cluster_id))
    else:
        server = config["clusters"][0]["cluster"].get("server", "")
        raise pulumi.RunError(_another_cluster(deployed, f"{name} ({cluster_id}) at {server}"))
    provider = kubernetes.Provider(
        "-".join(filter(None, ("cluster", identity.mark))),
        # Credentials can be in it. Its content, not its path, which differs per machine.
        kubeconfig=pulumi.Output.secret(json.dumps(config)),
        # With another one the engine would replace everything. That it is the same cluster is known here;
        # by what text the state has it does not matter.
        cluster_identifier=cluster_id,
        opts=pulumi.ResourceOptions(ignore_changes=["clusterIdentifier"]),
    )
    return Cluster(provider=provider, api=api, identity=identity, **more)


def _uid(api: Api) -> str:
    """Return the UID of the namespace kube-system, empty in a preview that cannot read it.

    Raises:
        pulumi.RunError: an `up` cannot read it.
    """
    try:
        return str(api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])
    except ClusterError as error:
        unknown = "whether this is the cluster that the stack is deployed to could not be checked"
        if not pulumi.runtime.is_dry_run():
            mended = "mended"
            if isinstance(error, ApiError) and error.code == 403:
                mended = "granted, as access/kubernetes.yaml does"
            raise pulumi.RunError(
                f"{error}.\nNothing was changed: {unknown}. Run "
                f"`pulumi up --stack {pulumi.get_stack()}` again when that is {mended}."
            ) from None
        if isinstance(error, ApiError):  # else the plan says that nothing can be asked
            pulumi.log.info(f"{unknown}: {error}")
        return ""


def _last_deployed(state: StackState) -> Identity | None:
    """Return the cluster that this stack was last deployed to; None before the first deployment."""
    output = state.outputs.get("cluster")
    return Identity(**output) if isinstance(output, dict) else None


def _another_cluster(deployed: Identity, named: str) -> str:
    return (
        f"mern:cluster names {named}, but this stack is deployed to another cluster, {deployed}. Nothing was "
        "changed.\n"
        "    If that is meant: after this command an `up` deploys to the new cluster and, when that "
        "serves, deletes the release and its namespace in the old one, which has to answer for that\n"
        f"      pulumi config set --path 'mern:cluster.movesFrom' {deployed.id} --stack {pulumi.get_stack()}"
    )


def _short(cluster_id: str) -> str:
    return hashlib.sha256(cluster_id.encode()).hexdigest()[:8]


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
