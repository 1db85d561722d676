"""What is looked at before a deployment to EKS: what is refused, what is only said."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pytest

from components import preflight
from components.cluster import Cluster, EksCluster
from components.release import ApiError, ReleaseArgs, ReleasePlan
from settings import Settings
from tests.unit.recording import fails, run

ISSUER = "oidc.eks.eu-central-1.amazonaws.com/id/1"
PROVIDER = f"arn:aws:iam::111111111111:oidc-provider/{ISSUER}"
OIDC = "aws:iam/getOpenIdConnectProvider:getOpenIdConnectProvider"
ADDON = "aws:eks/getAddon:getAddon"
SUBNETS = "aws:ec2/getSubnets:getSubnets"
SUBNET = "aws:ec2/getSubnet:getSubnet"

CLASSES = "/apis/networking.k8s.io/v1/ingressclasses/alb"
DEPLOYMENTS = "/apis/apps/v1/deployments"

Answer = Callable[[dict[str, Any]], dict[str, Any]]


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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    for level in ("info", "warn"):
        monkeypatch.setattr(pulumi.log, level, lambda text, *_: texts.append(text))
    return texts


def check(
    objects: list[dict[str, Any]],
    config: dict[str, Any],
    answers: dict[str, Answer] | None = None,
    in_cluster: Mapping[str, Any] | None = None,
    auto_mode: bool = False,
) -> str:
    """The refusal, empty where there is none."""
    off = dict.fromkeys(("ingressClass", "subnets", "certificates", "identity"), False)
    config = {"checks": off | config.pop("checks")} | config
    settings = Settings.model_validate(
        {"cluster": {"eksClusterName": "shop"}, "namespace": {"name": "mern"}} | config
    )
    eks = EksCluster(
        name="shop",
        arn="arn:aws:eks:eu-central-1:111111111111:cluster/shop",
        vpc_id="vpc-1",
        oidc_issuer=ISSUER,
        is_auto_mode=auto_mode,
    )
    api: Any = FakeApi(in_cluster or {})
    args = ReleaseArgs(chart="./chart", name="mern", namespace="mern")
    plan = ReleasePlan(args=args, api=api, description="", objects=objects, secrets=[], notes=[])

    def program() -> None:
        cluster = Cluster(
            provider=kubernetes.Provider("cluster"),
            api=api,
            eks=eks,
            aws_provider=aws.Provider("aws", region="eu-central-1"),
        )
        preflight.check(settings, cluster, plan)

    done = run(program, answers=answers)
    if done.error is not None and not isinstance(done.error, pulumi.RunError):
        raise done.error
    return str(done.error or "")


IDENTITY: dict[str, Any] = {"checks": {"identity": True}}


def controller(**settings: str) -> dict[str, Any]:
    return {"loadBalancerController": settings}


def test_an_oidc_issuer_that_the_account_does_not_know_is_refused(said: list[str]) -> None:
    config = IDENTITY | controller(mode="install", identity="irsa")

    missing = check([], dict(config), {OIDC: fails("reading IAM OIDC Provider: couldn't find resource")})

    assert f"the account does not know the cluster's OIDC issuer ({PROVIDER})" in missing
    assert "eksctl utils associate-iam-oidc-provider --approve --cluster shop" in missing
    assert check([], dict(config), {OIDC: lambda args: args}) == ""
    assert said == []


def test_what_may_not_be_asked_is_said_and_not_refused(said: list[str]) -> None:
    config = IDENTITY | controller(mode="install", identity="irsa")

    assert check([], config, {OIDC: fails("AccessDenied: not authorized to perform: iam:Get…")}) == ""
    assert len(said) == 1
    assert said[0].startswith("how pods get their roles could not be checked: ")
    assert "AccessDenied" in said[0]


@pytest.mark.parametrize("auto_mode", [False, True])
def test_pod_identity_needs_its_agent_which_auto_mode_has(said: list[str], auto_mode: bool) -> None:
    config = IDENTITY | {"pythonScript": {"policy": {}, "identity": "pod-identity"}}
    answers = {} if auto_mode else {ADDON: fails("ResourceNotFoundException: No addon")}

    missing = check([], config, answers, auto_mode=auto_mode)

    if auto_mode:
        assert missing == ""
    else:
        assert "the cluster lacks the add-on eks-pod-identity-agent" in missing
        assert "aws eks create-addon --cluster-name shop --addon-name eks-pod-identity-agent" in missing


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
    found = check([ingress()], {"checks": {"ingressClass": True}} | controller(mode=mode), {}, in_cluster)

    assert refusal in found
    assert bool(found) == bool(refusal)
    if found:
        assert f"mern:loadBalancerController.mode is {mode}" in found


def test_auto_mode_reads_no_group_from_the_ingress() -> None:
    there = {CLASSES: {"spec": {"controller": "eks.amazonaws.com/alb"}}}

    config = {"checks": {"ingressClass": True}} | controller(mode="auto-mode")
    found = check([ingress(group_name="shared")], config, {}, there)

    assert "mern:values ingress.group.name does nothing" in found


def test_a_load_balancer_needs_tagged_subnets_in_two_zones(said: list[str]) -> None:
    asked: list[Any] = []

    def subnets(*ids: str) -> Answer:
        def answer(args: dict[str, Any]) -> dict[str, Any]:
            asked.append(args["filters"])
            return {"ids": list(ids)}

        return answer

    def subnet(args: dict[str, Any]) -> dict[str, Any]:
        return {"availabilityZone": f"eu-central-1{args['id'][-1]}"}

    def found(*ids: str, scheme: str = "internet-facing") -> str:
        config = {"checks": {"subnets": True}} | controller(mode="install")
        return check([ingress(scheme=scheme)], config, {SUBNETS: subnets(*ids), SUBNET: subnet})

    assert found("net-a", "net-b") == ""
    one = found("net-1-a", "net-2-a", scheme="internal")
    assert "needs subnets in two zones: of vpc-1 only net-1-a, net-2-a in eu-central-1a" in one
    assert "aws ec2 create-tags --resources SUBNET --tags Key=kubernetes.io/role/internal-elb,Value=1" in one
    assert said == []
    assert found() == ""
    assert "no subnet of vpc-1 has the tag kubernetes.io/role/elb" in said[0]
    assert asked[0][0] == {"name": "vpc-id", "values": ["vpc-1"]}


def certificate(arn: str, status: str, *names: str, **more: Any) -> dict[str, Any]:
    listed = {"DomainName": names[0], "SubjectAlternativeNameSummaries": list(names)}
    return {"CertificateArn": arn, "Status": status, **listed, **more}


@pytest.mark.parametrize(
    ("certificates", "arns", "refusal", "note"),
    [
        ([certificate("arn:a", "ISSUED", "www.shop.example")], "", "", ""),
        ([certificate("arn:a", "ISSUED", "shop.example", "*.shop.example")], "arn:a", "", ""),
        (
            [certificate("arn:b", "ISSUED", "*.shop.example")],
            "arn:a",
            "no certificate in mern:values ingress.tls.certificateArns covers www.shop.example",
            "",
        ),
        (
            [certificate("arn:a", "ISSUED", "*.example")],
            "",
            "no certificate in the account in eu-central-1 covers www.shop.example",
            "",
        ),
        (
            [certificate("arn:a", "PENDING_VALIDATION", "www.shop.example")],
            "arn:a",
            "the certificate for www.shop.example (arn:a) is PENDING_VALIDATION",
            "",
        ),
        (
            [certificate("arn:a", "ISSUED", "a.example", HasAdditionalSubjectAlternativeNames=True)],
            "",
            "",
            "no certificate in the account in eu-central-1 names www.shop.example, but",
        ),
        (None, "", "", "the certificates could not be checked: Unable to locate credentials"),
    ],
)
def test_https_needs_an_issued_certificate_for_each_host(
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    certificates: list[dict[str, Any]] | None,
    arns: str,
    refusal: str,
    note: str,
) -> None:
    answer = json.dumps({"CertificateSummaryList": certificates})
    fails_ = "echo Unable to locate credentials >&2; exit 253"
    (tmp_path / "aws").write_text("#!/bin/sh\n" + (fails_ if certificates is None else f"echo '{answer}'"))
    (tmp_path / "aws").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    https = ingress(listen_ports='[{"HTTP": 80}, {"HTTPS": 443}]', certificate_arn=arns)
    config = {"checks": {"certificates": True}} | controller(mode="install")
    found = check([https], config, {})

    assert refusal in found
    assert bool(found) == bool(refusal)
    assert [text[: len(note)] for text in said] == ([note] if note else [])


def test_all_that_is_missing_comes_together_and_can_be_switched_off() -> None:
    answers = {
        OIDC: fails("couldn't find resource"),
        SUBNETS: lambda _: {"ids": ["net-a"]},
        SUBNET: lambda _: {"availabilityZone": "eu-central-1a"},
    }

    on = {"checks": {"identity": True, "subnets": True}} | controller(mode="install")
    found = check([ingress()], on, answers)

    assert found.startswith(
        "2 things are missing on EKS cluster shop (mern:checks switches these checks off):"
    )
    assert check([ingress()], {"checks": {}} | controller(mode="install"), {}) == ""
