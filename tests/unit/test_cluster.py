"""The EKS cluster of a stack: what is made of AWS's description of it, and what is refused."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pulumi
import pytest
from botocore.stub import Stubber
from pulumi import automation as auto

from components.aws import Aws
from components.cluster import Cluster, EksCluster, connect
from components.release import ClusterError, StackState
from operations import __main__ as operations
from operations import stack as of_stack
from settings import AwsSettings, ClusterSettings
from tests.stand_ins.aws_account import aws_in_this_process
from tests.unit.recording import Recording, Secret, run

REGION = "eu-central-1"
DESCRIBED = {
    "name": "shop",
    "arn": f"arn:aws:eks:{REGION}:123456789012:cluster/shop",
    "status": "ACTIVE",
    "endpoint": "https://shop.example",
    "certificateAuthority": {"data": "Y2VydGlmaWNhdGU="},
    "identity": {"oidc": {"issuer": "https://oidc.example/id/1"}},
    "resourcesVpcConfig": {"vpcId": "vpc-1"},
}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with aws_in_this_process(monkeypatch) as id:
        yield id


@pytest.fixture(autouse=True)
def _no_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a client its kube config: the certificates are made up."""
    for module in ("components.cluster", "operations.stack"):
        monkeypatch.setattr(f"{module}.Api", lambda config: config)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Stubber]:
    """Answers of the test's own, by service."""
    aws = Aws(REGION)
    monkeypatch.setattr("components.cluster.Aws", lambda _: aws)
    found = {service: Stubber(aws._client(service)) for service in ("sts", "eks")}
    for stub in found.values():
        stub.activate()
    found["sts"].add_response("get_caller_identity", {"Account": "123456789012"})
    return found


def connected(account_id: str = "123456789012") -> tuple[Recording, list[Cluster]]:
    clusters: list[Cluster] = []

    def program() -> None:
        place = ClusterSettings.model_validate({"eksClusterName": "shop"})
        account = AwsSettings.model_validate({"accountId": account_id, "region": REGION})
        clusters.append(connect(place, account, StackState()))

    return run(program), clusters


def refusal(account_id: str = "123456789012") -> str:
    """The message, of a run that has registered nothing."""
    done, _ = connected(account_id)
    assert isinstance(done.error, pulumi.RunError)
    assert done.resources == []
    return str(done.error)


@pytest.mark.parametrize("auto_mode", [None, False, True])
def test_a_cluster_is_what_aws_says_of_it(stubs: dict[str, Stubber], auto_mode: bool | None) -> None:
    compute = {} if auto_mode is None else {"computeConfig": {"enabled": auto_mode}}
    stubs["eks"].add_response("describe_cluster", {"cluster": DESCRIBED | compute}, {"name": "shop"})

    done, [cluster] = connected()

    assert done.error is None
    assert cluster.eks == EksCluster(
        name="shop",
        arn=f"arn:aws:eks:{REGION}:123456789012:cluster/shop",
        vpc_id="vpc-1",
        oidc_issuer="oidc.example/id/1",
        is_auto_mode=bool(auto_mode),
    )
    assert cluster.aws_api is not None
    provider = done.one("pulumi:providers:aws").inputs
    assert provider["region"] == REGION
    assert json.loads(provider["allowedAccountIds"]) == ["123456789012"]


def test_no_token_is_in_the_kube_config_which_asks_the_aws_cli_for_one(stubs: dict[str, Stubber]) -> None:
    stubs["eks"].add_response("describe_cluster", {"cluster": DESCRIBED})

    provider = connected()[0].one("pulumi:providers:kubernetes").inputs

    assert provider["clusterIdentifier"] == DESCRIBED["arn"]
    assert isinstance(provider["kubeconfig"], Secret)
    config = json.loads(provider["kubeconfig"].value)
    [cluster], [user] = config["clusters"], config["users"]
    assert cluster["cluster"] == {
        "server": "https://shop.example",
        "certificate-authority-data": "Y2VydGlmaWNhdGU=",
    }
    assert user["user"]["exec"] == {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", "shop", "--region", REGION],
        "interactiveMode": "Never",
    }


def test_a_cluster_that_is_not_there_is_refused() -> None:
    assert refusal() == (
        f"mern:cluster.eksClusterName: account 123456789012 has no EKS cluster shop in {REGION}\n"
        f"      aws eks list-clusters --region {REGION}\n"
        "      pulumi config set --path 'mern:cluster.eksClusterName' NAME --stack test"
    )


def test_a_cluster_that_is_being_made_is_refused(stubs: dict[str, Stubber]) -> None:
    described = {"name": "shop", "arn": DESCRIBED["arn"], "status": "CREATING", "certificateAuthority": {}}
    stubs["eks"].add_response("describe_cluster", {"cluster": described})

    message = refusal()

    assert message.startswith("mern:cluster.eksClusterName: shop is CREATING and has no address: wait for it")
    assert f"aws eks wait cluster-active --name shop --region {REGION}" in message


def test_credentials_of_another_account_are_refused() -> None:
    assert refusal("111111111111") == (
        "mern:aws.accountId is 111111111111, but the AWS credentials in use are of account 123456789012: "
        "choose others (AWS_PROFILE), and look at them by\n      aws sts get-caller-identity "
        f"--region {REGION}"
    )


def test_no_credentials_are_refused_before_the_provider_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    assert refusal() == (
        "mern:aws.accountId is 123456789012, but there are no AWS credentials: choose a profile that has "
        "some (AWS_PROFILE), or log in\n      aws sso login\n      aws configure"
    )


@pytest.mark.parametrize(
    ("service", "operation", "code", "message"),
    [
        (
            "sts",
            "get_caller_identity",
            "ExpiredToken",
            "mern:aws.accountId is 123456789012, but the AWS credentials in use have expired: log in anew\n",
        ),
        (
            "eks",
            "describe_cluster",
            "AccessDeniedException",
            "mern:cluster.eksClusterName: shop could not be read: AWS refuses DescribeCluster "
            "(AccessDeniedException): not yours",
        ),
    ],
)
def test_what_aws_refuses_is_refused(
    stubs: dict[str, Stubber], service: str, operation: str, code: str, message: str
) -> None:
    if service == "sts":
        stubs["sts"]._queue.clear()
    stubs[service].add_client_error(operation, code, "not yours", 403)

    assert refusal().startswith(message)


def test_no_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.aws.LIMITS", {"retries": {"total_max_attempts": 1}})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    assert refusal().startswith("mern:cluster.eksClusterName: shop could not be read: AWS does not answer: ")


class Stack:
    def __init__(self, **config: dict[str, str]) -> None:
        self.config = {f"mern:{key}": auto.ConfigValue(json.dumps(value)) for key, value in config.items()}

    def get_all_config(self) -> dict[str, auto.ConfigValue]:
        return self.config


def test_operations_find_the_cluster_of_a_stack_in_the_same_way(account: str) -> None:
    place: Any = Stack(
        cluster={"eksClusterName": "shop"},
        aws={"accountId": account, "region": REGION},
        namespace={"name": "mern-shop"},
    )
    with pytest.raises(ClusterError, match=f"account {account} has no EKS cluster shop in {REGION}"):
        of_stack.connect("shop", place.get_all_config())
    role = f"arn:aws:iam::{account}:role/cluster"
    eks = boto3.client("eks", region_name=REGION)
    made = eks.create_cluster(name="shop", roleArn=role, resourcesVpcConfig={"subnetIds": []})["cluster"]

    config: Any
    config, namespace = of_stack.connect("shop", place.get_all_config())

    assert namespace == "mern-shop"
    assert config["clusters"][0]["cluster"]["server"] == made["endpoint"]
    assert config["users"][0]["user"]["exec"]["args"][:2] == ["eks", "get-token"]


def test_operations_name_a_kube_config_that_is_not_there() -> None:
    place: Any = Stack(cluster={"kubeconfig": "/nowhere", "context": "laptop"}, namespace={"name": "mern"})

    with pytest.raises(ClusterError, match=r"shop is not found: mern:cluster\.kubeconfig: cannot read /no"):
        of_stack.connect("shop", place.get_all_config())


@pytest.mark.parametrize("config", [{}, {"namespace": {"name": "mern"}}, {"cluster": {"context": "a"}}])
def test_check_health_says_of_a_stack_without_a_cluster_what_shows_the_fault(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place: Any = Stack(**config)
    assert operations.main(["check-health", "shop"], lambda _: place) == 1
    assert capsys.readouterr().err == (
        "the config of stack shop names no cluster and namespace; this shows its faults:\n"
        "    pulumi preview --stack shop\n"
    )
