"""Questions to AWS: what is answered, and what the user is told where nothing is."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from components.aws import AbsentError, Arn, Aws, AwsError, CredentialsError
from tests.stand_ins.aws_account import aws_in_this_process

REGION = "eu-central-1"
TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with aws_in_this_process(monkeypatch) as id:
        yield id


def stubbed(service: str) -> tuple[Aws, Stubber]:
    """AWS with answers of the test's own for one service."""
    aws = Aws(REGION)
    stub = Stubber(aws._client(service))
    stub.activate()
    return aws, stub


def test_the_account_is_that_of_the_credentials(account: str) -> None:
    assert Aws(REGION).account_id() == account


def test_a_cluster_and_its_add_on_are_described_as_aws_does(account: str) -> None:
    eks = boto3.client("eks", region_name=REGION)
    role = f"arn:aws:iam::{account}:role/cluster"
    eks.create_cluster(name="shop", roleArn=role, resourcesVpcConfig={"subnetIds": []})
    eks.create_addon(clusterName="shop", addonName="eks-pod-identity-agent")
    aws = Aws(REGION)

    assert aws.cluster("shop")["arn"] == f"arn:aws:eks:{REGION}:{account}:cluster/shop"
    assert aws.addon("shop", "eks-pod-identity-agent")["status"] == "ACTIVE"


@pytest.mark.parametrize(
    "question",
    [
        lambda aws: aws.cluster("shop"),
        lambda aws: aws.addon("shop", "eks-pod-identity-agent"),
        lambda aws: aws.oidc_provider("arn:aws:iam::123456789012:oidc-provider/oidc.example/id/1"),
        lambda aws: aws.target_health(
            f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup/k8s-shop/0a"
        ),
    ],
    ids=["cluster", "add-on", "OIDC provider", "target group"],
)
def test_what_is_not_there_is_told_apart_by_its_code(account: str, question: Callable[[Aws], Any]) -> None:
    with pytest.raises(AbsentError, match="AWS refuses "):
        question(Aws(REGION))


def test_an_oidc_provider_is_found_by_its_arn(account: str) -> None:
    made = boto3.client("iam").create_open_id_connect_provider(Url="https://oidc.example/id/1")

    assert Aws(REGION).oidc_provider(made["OpenIDConnectProviderArn"])["Url"] == "oidc.example/id/1"


def test_the_targets_of_a_group_come_with_their_health(account: str) -> None:
    vpc = boto3.client("ec2", region_name=REGION).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    elb = boto3.client("elbv2", region_name=REGION)
    given = {"Name": "shop", "Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"}
    arn = elb.create_target_group(**given)["TargetGroups"][0]["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": "10.0.0.1", "Port": 8080}])

    [target] = Aws(REGION).target_health(arn)
    assert target["Target"]["Id"] == "10.0.0.1"
    assert target["TargetHealth"]["State"]


def test_subnets_come_by_their_filters_from_all_pages() -> None:
    aws, stub = stubbed("ec2")
    asked = {
        "Filters": [{"Name": "vpc-id", "Values": ["vpc-1"]}, {"Name": "tag:a", "Values": ["b", "c"]}],
    }
    stub.add_response("describe_subnets", {"Subnets": [{"SubnetId": "a"}], "NextToken": "2"}, asked)
    stub.add_response("describe_subnets", {"Subnets": [{"SubnetId": "b"}]}, {**asked, "NextToken": "2"})

    assert [it["SubnetId"] for it in aws.subnets({"vpc-id": ["vpc-1"], "tag:a": ["b", "c"]})] == ["a", "b"]
    stub.assert_no_pending_responses()


def test_certificates_come_with_keys_of_all_types_from_all_pages(account: str) -> None:
    aws, stub = stubbed("acm")
    key_types = aws._client("acm").meta.service_model.shape_for("KeyAlgorithm").enum
    asked = {"Includes": {"keyTypes": key_types}}
    pages = [[{"DomainName": "a.example"}], [{"DomainName": "b.example"}]]
    stub.add_response("list_certificates", {"CertificateSummaryList": pages[0], "NextToken": "2"}, {**asked})
    stub.add_response("list_certificates", {"CertificateSummaryList": pages[1]}, {**asked, "NextToken": "2"})

    assert [it["DomainName"] for it in aws.certificates()] == ["a.example", "b.example"]
    stub.assert_no_pending_responses()


@pytest.mark.parametrize("region", [REGION, None])
def test_an_object_is_deleted_and_need_not_be_there(account: str, region: str | None) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="state", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="state", Key="a/lock.json", Body=b"{}")
    aws = Aws(region)

    aws.delete_object("state", "a/lock.json")
    aws.delete_object("state", "a/lock.json")
    assert s3.list_objects_v2(Bucket="state")["KeyCount"] == 0
    with pytest.raises(AwsError, match=r"AWS refuses DeleteObject \(NoSuchBucket\): "):
        aws.delete_object("nowhere", "a/lock.json")


def test_without_credentials_it_is_said_how_to_get_some(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")

    with pytest.raises(CredentialsError, match="there are no AWS credentials") as caught:
        Aws(REGION).account_id()
    for word in ("AWS_PROFILE", "aws sso login", "aws configure"):
        assert word in caught.value.remedy


def test_a_profile_that_is_not_there_is_named(
    account: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[profile ours]\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "nosuch")

    with pytest.raises(CredentialsError, match="there is no AWS profile nosuch") as caught:
        Aws(REGION).account_id()
    assert caught.value.remedy == "choose another (AWS_PROFILE); there are ours"


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (
            "sso_session = ours\nsso_account_id = 123456789012\nsso_role_name = deployer\n"
            "[sso-session ours]\nsso_start_url = https://ours.example\nsso_region = eu-central-1",
            "Error loading SSO Token: Token for ours does not exist",
        ),
        ("sso_account_id = 123456789012", "missing required configuration"),
        ("credential_process = sh -c 'echo ask the desk >&2; exit 3'", "ask the desk"),
        ("aws_access_key_id = AKIA", "missing: aws_secret_access_key"),
    ],
)
def test_a_profile_that_gives_no_credentials_says_why(
    account: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str, reason: str
) -> None:
    (tmp_path / "config").write_text(f"[profile ours]\n{profile}\n")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(CredentialsError, match="the AWS credentials cannot be had") as caught:
        Aws(REGION).account_id()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


CANONICAL = f"""The request signature we calculated does not match the signature you provided.

The Canonical String for this request should have been
'POST
/
x-amz-security-token:{TOKEN}'"""


@pytest.mark.parametrize(
    ("code", "message", "kind", "said"),
    [
        ("ExpiredToken", "The security token is expired", CredentialsError, "in use have expired"),
        ("ExpiredTokenException", "The security token is expired", CredentialsError, "in use have expired"),
        (
            "InvalidClientTokenId",
            f"of {TOKEN}",
            CredentialsError,
            "AWS does not accept the credentials in use",
        ),
        ("SignatureDoesNotMatch", CANONICAL, CredentialsError, "(SignatureDoesNotMatch)"),
        (
            "AccessDenied",
            f"User: arn:aws:iam::1:user/ada is not authorized\nx-amz-security-token:{TOKEN}",
            AwsError,
            "AWS refuses GetCallerIdentity (AccessDenied): User: arn:aws:iam::1:user/ada is not authorized",
        ),
        (
            "UnauthorizedOperation",
            "You are not authorized. Encoded authorization failure message: " + "x" * 900,
            AwsError,
            "You are not authorized. Encoded authorization failure message: …",
        ),
        ("Throttling", "", AwsError, "AWS refuses GetCallerIdentity (Throttling): no reason given"),
    ],
)
def test_a_refusal_is_one_line_without_secrets(
    code: str, message: str, kind: type[AwsError], said: str
) -> None:
    aws, stub = stubbed("sts")
    stub.add_client_error("get_caller_identity", code, message, 403)

    with pytest.raises(AwsError) as caught:
        aws.account_id()
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value) + getattr(caught.value, "remedy", "")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_address_where_nobody_answers_is_named_without_its_password(
    account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.aws.LIMITS", {"retries": {"total_max_attempts": 1}})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:pw-of-proxy@127.0.0.1:1")

    with pytest.raises(AwsError, match=r"AWS does not answer: .*http://127\.0\.0\.1:1/") as caught:
        Aws(REGION).account_id()
    assert "pw-of-proxy" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "region", "resource"),
    [
        ("arn:aws:iam::123456789012:role/a/deployer", "", "role/a/deployer"),
        (f"arn:aws-cn:eks:{REGION}:123456789012:cluster/shop", REGION, "cluster/shop"),
        (f"arn:aws:logs:{REGION}:123456789012:log-group:shop:*", REGION, "log-group:shop:*"),
        ("arn:aws:s3:::state", "", "state"),
    ],
)
def test_the_parts_of_an_arn_are_those_of_its_text(text: str, region: str, resource: str) -> None:
    arn = Arn.parse(text)
    assert (arn.region, arn.resource) == (region, resource)
    assert str(arn) == text


@pytest.mark.parametrize("text", ["", "role/deployer", "arn:aws:iam::123456789012", "urn:a:b:c:d:e"])
def test_what_is_no_arn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ARN"):
        Arn.parse(text)


def test_boto3_is_not_imported_before_a_question() -> None:
    program = (
        "import sys, components.preflight, operations.ci.deploy, operations.ci.health, operations.stack\n"
        "from components.aws import Aws\n"
        "Aws('eu-central-1')\n"
        "assert not {'boto3', 'botocore'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
