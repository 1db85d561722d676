"""What is looked at before a deployment to EKS: what is refused, what is only said."""

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pulumi
import pulumi_kubernetes as kubernetes
import pytest
from botocore.stub import Stubber

from components import preflight
from components.aws import Aws
from components.cluster import Cluster, EksCluster, Identity
from components.release import Api, ApiError, ReleaseArgs, ReleasePlan
from components.release.secrets import Secrets
from settings import Settings
from tests.stand_ins.aws_account import aws_in_this_process
from tests.unit.recording import run

REGION = "eu-central-1"
ISSUER = f"oidc.eks.{REGION}.amazonaws.com/id/1"
AGENT = "eks-pod-identity-agent"
ARN = f"arn:aws:acm:{REGION}:123456789012:certificate/{{}}"
OF_IAM = "arn:aws:iam::123456789012:server-certificate/shop"

CLASSES = "/apis/networking.k8s.io/v1/ingressclasses/alb"
DEPLOYMENTS = "/apis/apps/v1/deployments"


def ingress(**annotations: str) -> dict[str, Any]:
    notes = {f"alb.ingress.kubernetes.io/{key.replace('_', '-')}": text for key, text in annotations.items()}
    notes = {key.replace("group-name", "group.name"): text for key, text in notes.items()}
    return {
        "kind": "Ingress",
        "metadata": {"name": "mern", "annotations": notes},
        "spec": {"ingressClassName": "alb", "rules": [{"host": "www.shop.example"}]},
    }


class FakeApi:
    """Answers from a table, path to object or error."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str, **_: str) -> Any:
        found = self.answers.get(path, ApiError(404, {}))
        if isinstance(found, Exception):
            raise found
        return found

    find, items = Api.find, Api.items


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    for level in ("info", "warn"):
        monkeypatch.setattr(pulumi.log, level, lambda text, *_: texts.append(text))
    return texts


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with aws_in_this_process(monkeypatch) as id:
        boto3.client("eks", region_name=REGION).create_cluster(
            name="shop", roleArn=f"arn:aws:iam::{id}:role/cluster", resourcesVpcConfig={"subnetIds": []}
        )
        yield id


@pytest.fixture
def vpc(account: str) -> str:
    return str(boto3.client("ec2", region_name=REGION).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])


def subnet(vpc: str, number: int, zone: str, tag: str) -> str:
    made = boto3.client("ec2", region_name=REGION).create_subnet(
        VpcId=vpc,
        CidrBlock=f"10.0.{number}.0/24",
        AvailabilityZone=f"{REGION}{zone}",
        TagSpecifications=[{"ResourceType": "subnet", "Tags": [{"Key": tag, "Value": "1"}]}],
    )
    return str(made["Subnet"]["SubnetId"])


def check(
    objects: list[dict[str, Any]],
    config: dict[str, Any],
    *,
    aws: Aws | None = None,
    in_cluster: Mapping[str, Any] | None = None,
    auto_mode: bool = False,
    vpc: str = "vpc-1",
) -> str:
    """The refusal, empty where there is none."""
    off = dict.fromkeys(("ingressClass", "subnets", "certificates", "identity"), False)
    settings = Settings.model_validate(
        {"cluster": {"eksClusterName": "shop"}, "namespace": {"name": "mern"}}
        | config
        | {"checks": off | config["checks"]}
    )
    eks = EksCluster(
        name="shop",
        arn=f"arn:aws:eks:{REGION}:123456789012:cluster/shop",
        vpc_id=vpc,
        oidc_issuer=ISSUER,
        is_auto_mode=auto_mode,
    )
    api: Any = FakeApi(in_cluster or {})
    args = ReleaseArgs(chart="./chart", name="mern", namespace="mern")
    plan = ReleasePlan(args=args, api=api, description="", objects=objects, secrets=Secrets())

    def program() -> None:
        provider = kubernetes.Provider("cluster")
        cluster = Cluster(
            provider=provider,
            api=api,
            identity=Identity(id=eks.arn, name=eks.name),
            eks=eks,
            aws_api=aws or Aws(REGION),
        )
        preflight.check(settings, cluster, plan)

    done = run(program)
    if done.error is not None and not isinstance(done.error, pulumi.RunError):
        raise done.error
    return str(done.error or "")


def stubbed(service: str) -> tuple[Aws, Stubber]:
    """AWS with answers of the test's own for one service."""
    aws = Aws(REGION)
    stub = Stubber(aws._client(service))
    stub.activate()
    return aws, stub


IDENTITY: dict[str, Any] = {"checks": {"identity": True}}


def controller(**settings: str) -> dict[str, Any]:
    return {"loadBalancerController": settings}


def test_an_oidc_issuer_that_the_account_does_not_know_is_refused(account: str, said: list[str]) -> None:
    config = IDENTITY | controller(mode="install", identity="irsa")

    missing = check([], config)

    arn = f"arn:aws:iam::{account}:oidc-provider/{ISSUER}"
    assert f"the account does not know the cluster's OIDC issuer ({arn})" in missing
    assert "eksctl utils associate-iam-oidc-provider --approve --cluster shop" in missing
    boto3.client("iam").create_open_id_connect_provider(Url=f"https://{ISSUER}")
    assert check([], config) == ""
    assert said == []


@pytest.mark.parametrize("auto_mode", [False, True])
def test_pod_identity_needs_its_agent_which_auto_mode_has(said: list[str], auto_mode: bool) -> None:
    config = IDENTITY | {"pythonScript": {"policy": {}, "identity": "pod-identity"}}

    missing = check([], config, auto_mode=auto_mode)

    if auto_mode:
        assert missing == ""
    else:
        assert f"the cluster lacks the add-on {AGENT}" in missing
        assert f"aws eks create-addon --cluster-name shop --addon-name {AGENT}" in missing
        boto3.client("eks", region_name=REGION).create_addon(clusterName="shop", addonName=AGENT)
        assert check([], config) == ""
    assert said == []


def test_what_may_not_be_asked_is_said_and_not_refused(said: list[str]) -> None:
    aws, stub = stubbed("iam")
    reason = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: iam:Get…"
    stub.add_client_error("get_open_id_connect_provider", "AccessDenied", reason, 403)

    assert check([], IDENTITY | controller(mode="install", identity="irsa"), aws=aws) == ""
    assert said == [
        "how pods get their roles could not be checked: AWS refuses GetOpenIDConnectProvider (AccessDenied): "
        + reason
    ]


def test_what_was_found_before_a_question_that_fails_counts(said: list[str]) -> None:
    aws, stub = stubbed("eks")
    stub.add_client_error("describe_addon", "AccessDeniedException", "not yours", 403)
    script = {"policy": {}, "identity": "pod-identity"}

    missing = check([], IDENTITY | controller(mode="install") | {"pythonScript": script}, aws=aws)

    assert missing.startswith("1 thing is missing on EKS cluster shop")
    assert "OIDC issuer" in missing
    assert said[0].startswith("how pods get their roles could not be checked: AWS refuses DescribeAddon")


def ready(replicas: int) -> dict[str, Any]:
    return {"items": [{"status": {"readyReplicas": replicas}}]}


@pytest.mark.parametrize(
    ("mode", "in_cluster", "refusal"),
    [
        ("existing", {}, "IngressClass alb is not there, not of ingress.k8s.aws/alb"),
        (
            "existing",
            {CLASSES: {"spec": {"controller": "k8s.io/nginx"}}},
            "IngressClass alb is of k8s.io/nginx, not of ingress.k8s.aws/alb",
        ),
        (
            "existing",
            {CLASSES: {"spec": {"controller": "ingress.k8s.aws/alb"}}, DEPLOYMENTS: ready(0)},
            "no pod of a load balancer controller is ready",
        ),
        ("existing", {CLASSES: {"spec": {"controller": "ingress.k8s.aws/alb"}}, DEPLOYMENTS: ready(2)}, ""),
        (
            "auto-mode",
            {CLASSES: {"spec": {"controller": "ingress.k8s.aws/alb"}}},
            "not of eks.amazonaws.com/alb",
        ),
        ("auto-mode", {CLASSES: {"spec": {"controller": "eks.amazonaws.com/alb"}}}, ""),
        ("install", {}, ""),
        ("none", {}, ""),
    ],
)
def test_the_ingress_class_has_to_be_there_where_this_stack_does_not_bring_it(
    mode: str, in_cluster: dict[str, Any], refusal: str
) -> None:
    found = check(
        [ingress()], {"checks": {"ingressClass": True}} | controller(mode=mode), in_cluster=in_cluster
    )

    assert refusal in found
    assert bool(found) == bool(refusal)
    if found:
        assert f"mern:loadBalancerController.mode is {mode}" in found


def test_auto_mode_reads_no_group_from_the_ingress() -> None:
    there = {CLASSES: {"spec": {"controller": "eks.amazonaws.com/alb"}}}

    config = {"checks": {"ingressClass": True}} | controller(mode="auto-mode")
    found = check([ingress(group_name="shared")], config, in_cluster=there)

    assert "mern:values ingress.group.name does nothing" in found


def test_a_load_balancer_needs_tagged_subnets_in_two_zones(vpc: str, said: list[str]) -> None:
    config = {"checks": {"subnets": True}} | controller(mode="install")
    tag = "kubernetes.io/role/internal-elb"
    one, two = subnet(vpc, 1, "a", tag), subnet(vpc, 2, "a", tag)
    elsewhere = boto3.client("ec2", region_name=REGION).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet(elsewhere, 1, "b", tag)

    def found(scheme: str) -> str:
        return check([ingress(scheme=scheme)], config, vpc=vpc)

    missing = found("internal")
    assert f"needs subnets in two zones: of {vpc} only " in missing
    assert f"only {one}, {two} in {REGION}a have the tag {tag}" in missing
    assert f"aws ec2 create-tags --resources SUBNET --tags Key={tag},Value=1 --region {REGION}" in missing
    subnet(vpc, 3, "b", tag)
    assert found("internal") == ""
    assert said == []
    assert found("internet-facing") == ""
    assert said == [
        f"no subnet of {vpc} has the tag kubernetes.io/role/elb: the load balancer controller goes by their "
        "routes"
    ]


def test_subnets_that_the_ingress_names_are_not_looked_for(said: list[str]) -> None:
    config = {"checks": {"subnets": True}} | controller(mode="install")

    assert check([ingress(subnets="subnet-1,subnet-2")], config) == ""
    assert said == []


def certificate(arn: str, status: str, *names: str, **more: Any) -> dict[str, Any]:
    listed = {"DomainName": names[0], "SubjectAlternativeNameSummaries": list(names)}
    return {"CertificateArn": arn, "Status": status, **listed, **more}


@pytest.mark.parametrize(
    ("certificates", "arns", "refusal", "note"),
    [
        ([certificate(ARN.format("a"), "ISSUED", "www.shop.example")], "", "", ""),
        ([certificate(ARN.format("a"), "ISSUED", "shop.example", "*.shop.example")], ARN.format("a"), "", ""),
        (
            [certificate(ARN.format("b"), "ISSUED", "*.shop.example")],
            ARN.format("a"),
            "no certificate in mern:values ingress.tls.certificateArns covers www.shop.example",
            "",
        ),
        (
            [certificate(ARN.format("a"), "ISSUED", "*.example")],
            "",
            "no certificate in the account in eu-central-1 covers www.shop.example",
            "",
        ),
        (
            [certificate(ARN.format("a"), "PENDING_VALIDATION", "www.shop.example")],
            ARN.format("a"),
            f"the certificate for www.shop.example ({ARN.format('a')}) is PENDING_VALIDATION",
            "",
        ),
        (
            [certificate(ARN.format("a"), "ISSUED", "a.example", HasAdditionalSubjectAlternativeNames=True)],
            "",
            "",
            "no certificate in the account in eu-central-1 names www.shop.example, but",
        ),
        (
            [certificate(ARN.format("a"), "ISSUED", "*.example")],
            f"{ARN.format('a')},{OF_IAM}",
            "",
            f"whether {OF_IAM} covers www.shop.example was not checked",
        ),
        (
            [certificate(ARN.format("a"), "PENDING_VALIDATION", "www.shop.example")],
            f"{ARN.format('a')},{OF_IAM}",
            f"the certificate for www.shop.example ({ARN.format('a')}) is PENDING_VALIDATION",
            "",
        ),
        (None, "", "", "the certificates could not be checked: AWS refuses ListCertificates ("),
    ],
)
def test_https_needs_an_issued_certificate_for_each_host(
    said: list[str],
    certificates: list[dict[str, Any]] | None,
    arns: str,
    refusal: str,
    note: str,
) -> None:
    aws, stub = stubbed("acm")
    if certificates is None:
        stub.add_client_error("list_certificates", "AccessDeniedException", "not yours", 403)
    else:  # on two pages
        stub.add_response("list_certificates", {"CertificateSummaryList": [], "NextToken": "2"})
        stub.add_response("list_certificates", {"CertificateSummaryList": certificates})
    https = ingress(listen_ports='[{"HTTP": 80}, {"HTTPS": 443}]', certificate_arn=arns)
    config = {"checks": {"certificates": True}} | controller(mode="install")
    found = check([https], config, aws=aws)

    assert refusal in found
    assert bool(found) == bool(refusal)
    assert [text[: len(note)] for text in said] == ([note] if note else [])


def test_all_that_is_missing_comes_together_and_can_be_switched_off(vpc: str) -> None:
    subnet(vpc, 1, "a", "kubernetes.io/role/elb")
    on = {"checks": {"identity": True, "subnets": True}} | controller(mode="install")

    found = check([ingress(scheme="internet-facing")], on, vpc=vpc)

    assert found.startswith(
        "2 things are missing on EKS cluster shop (mern:checks switches these checks off):\n  a load balancer"
    )
    assert check([ingress(scheme="internet-facing")], {"checks": {}} | controller(mode="install")) == ""
