"""What is looked at before a deployment to EKS: what is refused, what is only said."""

import functools
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
from settings.model import ChecksSettings, fields_of
from tests.stand_ins.aws_account import aws_in_this_process
from tests.unit.recording import run

REGION = "eu-central-1"
ISSUER = f"oidc.eks.{REGION}.amazonaws.com/id/1"
AGENT = "eks-pod-identity-agent"
ARN = f"arn:aws:acm:{REGION}:123456789012:certificate/{{}}"
OF_IAM = "arn:aws:iam::123456789012:server-certificate/shop"
PLACE = "mern:values ingress.tls.certificateArns"

CLASSES = "/apis/networking.k8s.io/v1/ingressclasses/alb"
DEPLOYMENTS = "/apis/apps/v1/deployments"
METRICS = "/apis/metrics.k8s.io/v1beta1"
LIVE = "/apis/networking.k8s.io/v1/namespaces/mern/ingresses/mern"
OF_AWS = {"spec": {"controller": "ingress.k8s.aws/alb"}}
OF_EKS = {"spec": {"controller": "eks.amazonaws.com/alb"}}
INSTALL = {"loadBalancerController": {"mode": "install"}}


def ingress(*hosts: str, paths: Any = 0, **annotations: str) -> dict[str, Any]:
    notes = {f"alb.ingress.kubernetes.io/{key.replace('_', '-')}": text for key, text in annotations.items()}
    notes = {key.replace("group-name", "group.name"): text for key, text in notes.items()}
    backend = {"service": {"name": "server"}}
    http = {"paths": [{"path": f"/{number}", "backend": backend} for number in range(paths)]}
    return {
        "kind": "Ingress",
        "metadata": {"name": "mern", "annotations": notes},
        "spec": {
            "ingressClassName": "alb",
            "rules": [{"host": host, "http": http} for host in hosts or ("www.shop.example",)],
        },
    }


def live(address: Any = "lb.example", **annotations: str) -> dict[str, Any]:
    """The release's Ingress in the cluster."""
    item = ingress(**annotations)
    item["metadata"]["annotations"]["meta.helm.sh/release-name"] = "mern"
    return item | {"status": {"loadBalancer": {"ingress": [{"hostname": address}] if address else []}}}


def with_params(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A cluster in which class alb has IngressClassParams."""
    reference = {"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "ours"}
    return {
        CLASSES: {"spec": OF_AWS["spec"] | {"parameters": reference}},
        "/apis/elbv2.k8s.aws/v1beta1/ingressclassparams/ours": {"metadata": {"name": "ours"}, "spec": spec},
    }


@functools.cache  # to make one takes long
def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


AWS = Aws(REGION)
STUBS: list[Stubber] = []


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
        client("eks").create_cluster(
            name="shop", roleArn=f"arn:aws:iam::{id}:role/cluster", resourcesVpcConfig={"subnetIds": []}
        )
        yield id
    stub_no_more()


@pytest.fixture
def vpc(account: str) -> str:
    return str(client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])


def subnet(vpc: str, number: int, zone: str, *tags: str, size: int = 24) -> str:
    """Make a subnet with tags as in `key=value`; of size 29 it has three free addresses."""
    made = client("ec2").create_subnet(
        VpcId=vpc,
        CidrBlock=f"10.0.{number}.0/{size}",
        AvailabilityZone=f"{REGION}{zone}",
        TagSpecifications=[
            {
                "ResourceType": "subnet",
                "Tags": [
                    {"Key": key, "Value": value} for key, _, value in (tag.partition("=") for tag in tags)
                ],
            }
        ]
        if tags
        else [],
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
    off = dict.fromkeys(fields_of(ChecksSettings), False)
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
            aws_api=aws or AWS,
        )
        preflight.check(settings, cluster, plan)

    done = run(program)
    if done.error is not None and not isinstance(done.error, pulumi.RunError):
        raise done.error
    return str(done.error or "")


def stubbed(service: str) -> tuple[Aws, Stubber]:
    """AWS with answers of the test's own for one service, until this is called again or the test ends."""
    stub_no_more()
    stub = Stubber(AWS._client(service))
    stub.activate()
    STUBS.append(stub)
    return AWS, stub


def stub_no_more() -> None:
    while STUBS:
        STUBS.pop().deactivate()


IDENTITY: dict[str, Any] = {"checks": {"identity": True}}


def controller(**settings: str) -> dict[str, Any]:
    return {"loadBalancerController": settings}


def test_an_oidc_issuer_that_the_account_does_not_know_is_refused(account: str, said: list[str]) -> None:
    config = IDENTITY | controller(mode="install", identity="irsa")

    missing = check([], config)

    arn = f"arn:aws:iam::{account}:oidc-provider/{ISSUER}"
    assert f"the account does not know the cluster's OIDC issuer ({arn})" in missing
    assert "eksctl utils associate-iam-oidc-provider --approve --cluster shop" in missing
    client("iam").create_open_id_connect_provider(Url=f"https://{ISSUER}")
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
        client("eks").create_addon(clusterName="shop", addonName=AGENT)
        assert check([], config) == ""
    assert said == []


@pytest.mark.parametrize("mode", ["install", "none"])
def test_autoscalers_need_the_api_of_a_metrics_server(said: list[str], mode: str) -> None:
    """A service of the API server that does not answer is HTTP 503 with a line of text, as was seen."""
    autoscalers = [
        {"kind": "HorizontalPodAutoscaler", "metadata": {"name": name}} for name in ("client", "server")
    ]
    config = {"checks": {"metrics": True}} | controller(mode=mode)

    missing = check(autoscalers, config)

    assert "no metrics server (API metrics.k8s.io/v1beta1): the autoscalers client, server would" in missing
    assert (
        f"aws eks create-addon --cluster-name shop --addon-name metrics-server --region {REGION}" in missing
    )
    assert check([], config) == check(autoscalers, {"checks": {}}) == ""
    assert check(autoscalers, config, in_cluster={METRICS: {"kind": "APIResourceList"}}) == ""
    assert said == []
    down = ApiError(503, {"message": "HTTP 503 Service Unavailable"})
    assert check(autoscalers, config, in_cluster={METRICS: down}) == ""
    [warning] = said
    assert warning.startswith("the metrics server of the cluster does not answer: until it does, the auto")


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

    assert missing.startswith("1 thing is in the way on EKS cluster shop")
    assert "OIDC issuer" in missing
    assert said[0].startswith("how pods get their roles could not be checked: AWS refuses DescribeAddon")


def deployment(image: str, *flags: str, replicas: int = 1) -> dict[str, Any]:
    pods = {"spec": {"containers": [{"image": image, "args": list(flags)}]}}
    return {"spec": {"template": pods}, "status": {"readyReplicas": replicas}}


def ready(replicas: int, *flags: str) -> dict[str, Any]:
    return {"items": [deployment("aws-load-balancer-controller", *flags, replicas=replicas)]}


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
        (
            "install",
            {CLASSES: {"spec": {"controller": "k8s.io/nginx"}}},
            "IngressClass alb is of k8s.io/nginx",
        ),
        ("none", {}, ""),
        ("existing", {CLASSES: OF_AWS}, "no pod of a load balancer controller is ready"),
        (
            "existing",
            {CLASSES: OF_AWS, DEPLOYMENTS: ready(1, "--watch-namespace=theirs")},
            "serves namespace theirs alone",
        ),
        ("existing", {CLASSES: OF_AWS, DEPLOYMENTS: ready(1, "--watch-namespace=mern")}, ""),
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


def test_a_class_that_this_stack_s_controller_does_not_bring_has_to_be_there_for_it_as_well() -> None:
    item = ingress()
    item["spec"]["ingressClassName"] = "shared"

    found = check([item], {"checks": {"ingressClass": True}} | INSTALL)

    assert "IngressClass shared is not there, not of ingress.k8s.aws/alb" in found


@pytest.mark.parametrize(
    ("in_cluster", "refusal", "note"),
    [
        (with_params({}), "", ""),
        (
            {
                CLASSES: {
                    "spec": OF_AWS["spec"] | {"parameters": {"apiGroup": "eks.amazonaws.com", "name": "a"}}
                }
            },
            "a of eks.amazonaws.com, which is not there or not the controller's",
            "",
        ),
        (
            with_params({}) | {"/apis/elbv2.k8s.aws/v1beta1/ingressclassparams/ours": ApiError(404, {})},
            "ours",
            "",
        ),
        (
            with_params({"scheme": "internal"}),
            "",
            "ingress.scheme does not count: IngressClassParams ours says int",
        ),
        (with_params({"scheme": "internet-facing"}), "", ""),
        (with_params({"group": {"name": "all"}}), "", ""),
        (
            with_params(
                {"loadBalancerAttributes": [{"key": "deletion_protection.enabled", "value": "true"}]}
            ),
            "",
            "",
        ),
        (
            with_params({"namespaceSelector": {"matchLabels": {"team": "shop"}}}),
            "kubectl label namespace mern --overwrite team=shop",
            "",
        ),
        (
            with_params({"namespaceSelector": {"matchLabels": {"team": "shop"}}})
            | {"/api/v1/namespaces/mern": {"metadata": {"labels": {"team": "shop"}}}},
            "",
            "",
        ),
        (with_params({"namespaceSelector": {"matchExpressions": [{}]}}), "", "was not checked"),
    ],
)
def test_what_the_parameters_of_a_class_say_counts(
    said: list[str], in_cluster: dict[str, Any], refusal: str, note: str
) -> None:
    found = check([ingress(**PUBLIC)], {"checks": {"ingressClass": True}} | INSTALL, in_cluster=in_cluster)

    assert refusal in found
    assert bool(found) == bool(refusal)
    assert len(said) == bool(note)
    assert note in "".join(said)


def test_a_controller_that_takes_the_cluster_for_another_is_told(said: list[str]) -> None:
    in_cluster = {CLASSES: OF_AWS, DEPLOYMENTS: ready(1, "--cluster-name=shop-2")}

    check(
        [ingress()], {"checks": {"ingressClass": True}} | controller(mode="existing"), in_cluster=in_cluster
    )

    assert "takes this cluster for 'shop-2' (--cluster-name), not shop" in said[0]


def test_auto_mode_reads_no_group_from_the_ingress() -> None:
    there = {CLASSES: {"spec": {"controller": "eks.amazonaws.com/alb"}}}

    config = {"checks": {"ingressClass": True}} | controller(mode="auto-mode")
    found = check([ingress(group_name="shared")], config, in_cluster=there)

    assert "mern:values ingress.group.name does nothing" in found


def test_a_load_balancer_needs_tagged_subnets_in_two_zones(vpc: str, said: list[str]) -> None:
    config = {"checks": {"subnets": True}} | controller(mode="install")
    tag = "kubernetes.io/role/internal-elb"
    one, two = subnet(vpc, 1, "a", f"{tag}=1"), subnet(vpc, 2, "a", f"{tag}=")
    elsewhere = client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet(elsewhere, 1, "b", f"{tag}=1")

    def found(scheme: str) -> str:
        return check([ingress(scheme=scheme)], config, vpc=vpc)

    missing = found("internal")
    assert f"needs subnets in two zones: with the tag {tag} the controller takes only " in missing
    assert f"{one} ({REGION}a)" in missing
    assert f"{two} ({REGION}a)" in missing
    assert f"aws ec2 create-tags --resources SUBNET --tags Key={tag},Value=1 --region {REGION}" in missing
    subnet(vpc, 3, "b", f"{tag}=1")
    assert found("internal") == ""
    assert said == []
    assert found("internet-facing") == ""
    assert said == [
        f"no subnet of {vpc} has the tag kubernetes.io/role/elb with the value 1 or none: the load balancer "
        "controller goes by their routes"
    ]


ROLE = "kubernetes.io/role/elb"
SUBNETS: dict[str, Any] = {"checks": {"subnets": True}}
PUBLIC = {"scheme": "internet-facing"}


def check_subnets(vpc: str, config: dict[str, Any] = INSTALL, **more: Any) -> str:
    return check([ingress(**PUBLIC)], SUBNETS | config, vpc=vpc, **more)


@pytest.mark.parametrize(
    ("tags", "reason", "remedy"),
    [
        ([f"{ROLE}=0"], "{} has it with the value 0", f"--resources {{}} --tags Key={ROLE},Value=1"),
        (
            [f"{ROLE}=1", "kubernetes.io/cluster/another=owned"],
            "{} has the tag kubernetes.io/cluster/another and not kubernetes.io/cluster/shop",
            "--resources {} --tags Key=kubernetes.io/cluster/shop,Value=shared",
        ),
        ([f"{ROLE}=1", "kubernetes.io/cluster/another=owned", "kubernetes.io/cluster/shop=shared"], "", ""),
    ],
)
def test_a_subnet_counts_where_it_does_for_the_controller(
    vpc: str, said: list[str], tags: list[str], reason: str, remedy: str
) -> None:
    subnet(vpc, 1, "a", f"{ROLE}=1")
    two = subnet(vpc, 2, "b", *tags)

    missing = check_subnets(vpc)

    assert reason.format(two) in missing
    assert remedy.format(two) in missing
    assert bool(missing) == bool(reason)
    assert said == []


def test_a_subnet_without_free_addresses_or_of_another_kind_of_place_does_not_count() -> None:
    def of(zone: str, **more: Any) -> dict[str, Any]:
        tags = [{"Key": ROLE, "Value": ""}]
        return {"SubnetId": f"subnet-{zone}", "AvailabilityZone": f"{REGION}{zone}", "Tags": tags, **more}

    def found(*there: dict[str, Any], **annotations: str) -> str:
        aws, stub = stubbed("ec2")
        stub.add_response("describe_subnets", {"Subnets": list(there)})
        return check([ingress(**PUBLIC, **annotations)], SUBNETS | INSTALL, aws=aws)

    assert "subnet-b has 3 free addresses, fewer than 8" in found(of("a"), of("b", AvailableIpAddressCount=3))
    assert found(of("a"), of("b", AvailableIpAddressCount=8)) == ""
    assert "no subnet of vpc-1 with" in found(of("a", AvailableIpAddressCount=0))
    # One subnet will do outside of availability zones, but not together with one inside.
    assert found(of("-ham-1a")) == found(of("-wl1-ber-wlz-1")) == found(of("a", OutpostArn="arn:a")) == ""
    mixed = found(of("a"), of("-ham-1a"))
    assert f"subnet-a ({REGION}a), subnet--ham-1a ({REGION}-ham-1a), of Local Zones and availability" in mixed
    block = {"Ipv6CidrBlock": "2a05::/64", "Ipv6CidrBlockState": {"State": "associated"}}
    dual = of("b", Ipv6CidrBlockAssociationSet=[block])
    assert "subnet-a has no IPv6 addresses" in found(of("a"), dual, ip_address_type="dualstack")


def test_a_load_balancer_that_is_there_keeps_its_subnets(vpc: str, said: list[str]) -> None:
    subnet(vpc, 1, "a", f"{ROLE}=1")

    assert check_subnets(vpc, in_cluster={LIVE: live(**PUBLIC)}) == ""
    assert said == []
    # Another scheme is another load balancer.
    assert "subnets in two zones" in check_subnets(vpc, in_cluster={LIVE: live(scheme="internal")})
    assert "subnets in two zones" in check_subnets(vpc, in_cluster={LIVE: live(address="", **PUBLIC)})


def test_auto_mode_needs_the_tags(vpc: str, said: list[str]) -> None:
    subnet(vpc, 1, "a")

    missing = check_subnets(vpc, controller(mode="auto-mode"), in_cluster={CLASSES: OF_EKS})

    assert f"has the tag {ROLE} with the value 1 or none: EKS Auto Mode takes no others" in missing
    assert said == []


@pytest.mark.parametrize(
    ("image", "flags", "refusal"),
    [
        ("aws-load-balancer-controller:v2.8.1", "", "the load balancer controller here takes no others"),
        ("aws-load-balancer-controller:v2.12.1", "", ""),
        ("mirror/controller@sha256:00", "", ""),
        (
            "aws-load-balancer-controller:v3.5.0",
            "SubnetDiscoveryByReachability=false",
            "the load balancer controller here takes no others",
        ),
    ],
)
def test_without_tags_it_depends_on_the_controller_that_is_there(
    vpc: str, said: list[str], image: str, flags: str, refusal: str
) -> None:
    there = {CLASSES: OF_AWS, DEPLOYMENTS: {"items": [deployment(image, f"--feature-gates={flags}")]}}

    missing = check_subnets(vpc, controller(mode="existing"), in_cluster=there)

    assert refusal in missing
    assert bool(missing) == bool(refusal)
    assert bool(said) != bool(refusal)


def test_feature_gates_of_the_controller_that_is_there_count(vpc: str) -> None:
    subnet(vpc, 1, "a", f"{ROLE}=1", "kubernetes.io/cluster/another=owned")

    def found(*gates: str) -> str:
        there = {DEPLOYMENTS: {"items": [deployment("c:v3.5.0", f"--feature-gates={','.join(gates)}")]}}
        return check_subnets(vpc, controller(mode="existing"), in_cluster={CLASSES: OF_AWS, **there})

    assert "kubernetes.io/cluster/another" in found("ALBSingleSubnet=true")
    assert "two zones" in found("SubnetsClusterTagCheck=false")
    assert found("SubnetsClusterTagCheck=false", "ALBSingleSubnet=true") == ""


def test_subnets_that_the_ingress_names_have_to_fit(vpc: str, said: list[str]) -> None:
    one, two = subnet(vpc, 1, "a", "Name=public"), subnet(vpc, 2, "b", "Name=public")
    three = subnet(vpc, 3, "b", "Name=another")

    def found(*names: str, **more: Any) -> str:
        return check([ingress(subnets=", ".join(names))], SUBNETS | INSTALL, vpc=vpc, **more)

    assert found(one, two) == found("public", "public") == found(one, "another") == ""
    there = f"mern:values ingress.annotations names subnet {{}}, which {vpc} does not have"
    missing = found(one, "subnet-0a", "private")
    assert there.format("subnet-0a") in missing
    assert there.format("private") in missing
    assert f"aws ec2 describe-subnets --filters Name=vpc-id,Values={vpc} --region {REGION}" in missing
    assert there.format("public") in found("public", "public", "public")
    assert f"names 2 subnets in {REGION}b" in found(one, two, three)
    assert f"needs subnets in two zones: mern:values ingress.annotations names {one}" in found(one)
    small = subnet(vpc, 4, "c", size=29)
    full = f"names {small}, which has "
    assert full in found(one, small)
    assert full not in found(one, small, in_cluster={LIVE: live()})  # AWS asks for them at first only
    assert said == []


def test_subnets_that_the_class_names_go_before_those_of_the_ingress(vpc: str, said: list[str]) -> None:
    one, two = subnet(vpc, 1, "a", "tier=edge"), subnet(vpc, 2, "b", "tier=edge")

    def found(selector: Any, **annotations: str) -> str:
        there = with_params({"subnets": selector})
        return check([ingress(**annotations)], SUBNETS | INSTALL, vpc=vpc, in_cluster=there)

    assert found({"ids": [one, two]}, subnets="subnet-0a") == ""
    assert "IngressClass alb names subnet subnet-0a" in found({"ids": [one, "subnet-0a"]})
    assert found({"tags": {"tier": ["edge", "public"]}}) == ""
    assert "takes no subnet of" in found({"tags": {"tier": ["private"]}})
    assert said == []
    assert found({"matchTags": [{"key": "tier", "values": ["edge"]}]}) == ""  # of EKS Auto Mode
    assert "was not checked" in said[0]


def test_a_class_that_cannot_be_read_refuses_nothing(vpc: str, said: list[str]) -> None:
    in_cluster: dict[str, Any] = {CLASSES: ApiError(403, {"message": "not yours"})}
    on = {"checks": {"ingressClass": True, "subnets": True, "certificates": True}} | INSTALL
    # What becomes of a load balancer that is there depends on its class as well.
    in_cluster[LIVE] = live()

    assert check([ingress()], on, vpc=vpc, in_cluster=in_cluster) == ""
    assert said == [
        "the load balancer, the IngressClass, the subnets for load balancers, the certificates could not be "
        "checked: not yours"
    ]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"scheme": "internal"}, PUBLIC, "ingress.scheme from internal to internet-facing"),
        ({"group_name": "a"}, {"group_name": "b"}, "ingress.group.name from a to b"),
        ({}, {"group_name": "b"}, "ingress.group.name from none to b"),
        (PUBLIC, PUBLIC, ""),
        # As the controller takes it where nothing is said.
        ({}, {"scheme": "internal"}, ""),
    ],
)
def test_a_load_balancer_that_is_replaced_is_told(
    said: list[str], before: dict[str, str], after: dict[str, str], text: str
) -> None:
    config: dict[str, Any] = {"checks": {}} | INSTALL

    assert check([ingress(**after)], config, in_cluster={LIVE: live(**before)}) == ""

    if text:
        [warning] = said
        assert warning.startswith(f"the load balancer is replaced ({text}): lb.example ends")
    else:
        assert said == []
    assert check([ingress(**after)], config, in_cluster={LIVE: live(address="", **before)}) == ""
    assert len(said) == bool(text)  # there is none yet


def test_protection_does_not_stop_a_replacement(said: list[str]) -> None:
    protected = {"load_balancer_attributes": "deletion_protection.enabled=true"}

    check([ingress(**PUBLIC, **protected)], {"checks": {}} | INSTALL, in_cluster={LIVE: live(**protected)})

    assert "Its protection from deletion does not stop that." in said[0]


def test_an_ingress_that_is_switched_off_while_its_load_balancer_is_protected_is_refused(
    said: list[str],
) -> None:
    """`up` succeeded, the Ingress hung, and a destroy left the namespace Terminating for minutes."""
    config: dict[str, Any] = {"checks": {}} | INSTALL
    item = live(
        load_balancer_attributes="idle_timeout.timeout_seconds=60, deletion_protection.enabled = true"
    )

    refusal = check([], config, in_cluster={LIVE: item})

    assert refusal.startswith(
        "1 thing is in the way on EKS cluster shop:\n  the load balancer lb.example is protected from "
        "deletion, and mern:values ingress.enabled is false"
    )
    for command in (
        "pulumi config set --path 'mern:values.ingress.enabled' true --stack test",
        "pulumi config set --path 'mern:values.ingress.loadBalancerAttributes"
        '["deletion_protection.enabled"]\' false --type string --stack test',
        "pulumi up --stack test",
    ):
        assert f"\n      {command}" in refusal
    item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    refusal = check([], config, in_cluster={LIVE: item})
    assert "kubectl annotate ingress mern -n mern --overwrite alb.ingress.kubernetes.io/load-b" in refusal
    assert "pulumi config" not in refusal
    assert said == []
    del item["metadata"]["annotations"]["meta.helm.sh/release-name"]  # nothing of ours goes
    assert check([], config, in_cluster={LIVE: item}) == ""
    assert said == []


def test_an_ingress_that_is_switched_off_is_told(said: list[str]) -> None:
    assert check([], {"checks": {}} | INSTALL, in_cluster={LIVE: live()}) == ""
    assert said == ["mern:values ingress.enabled is false: the load balancer lb.example is deleted"]


HTTPS = '[{"HTTP":80},{"HTTPS":443}]'
ALL = "/apis/networking.k8s.io/v1/ingresses"


def test_an_attribute_that_is_taken_out_is_not_reset(said: list[str]) -> None:
    """The real controller leaves in AWS what the annotation does not name."""
    had = live(load_balancer_attributes="idle_timeout.timeout_seconds=60,a=b")
    now = ingress(load_balancer_attributes="a=c")

    assert check([now], {"checks": {}} | INSTALL, in_cluster={LIVE: had}) == ""
    [warning] = said
    assert (
        "loadBalancerAttributes has idle_timeout.timeout_seconds no more, and the load balancer k" in warning
    )


def member(order: str = "", host: str = "api.example", **annotations: str) -> dict[str, Any]:
    """An Ingress of another team in group `all`."""
    item = ingress(host, paths=1, **annotations, **({"group.order": order} if order else {}))
    item["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/"
    item["metadata"] |= {"name": "api", "namespace": "team"}
    item["metadata"]["annotations"]["alb.ingress.kubernetes.io/group.name"] = "all"
    if not host:
        del item["spec"]["rules"][0]["host"]
    return item


def in_group(ours: dict[str, Any], other: dict[str, Any], **more: Any) -> str:
    ours["metadata"] |= {"namespace": "mern"}
    ours["metadata"]["annotations"]["alb.ingress.kubernetes.io/group.name"] = "all"
    config = {"checks": {"group": True}} | INSTALL
    return check([ours], config, in_cluster={ALL: {"items": [ours, other]}, **more})


@pytest.mark.parametrize(
    ("ours", "its", "what"),
    [
        ({"scheme": "internal"}, PUBLIC, "scheme is internal here and internet-facing in Ingress team/api"),
        ({"scheme": "internal"}, {}, ""),
        (
            {"listen_ports": HTTPS, "ssl_policy": "ELBSecurityPolicy-TLS13-1-2-2021-06"},
            {"certificate_arn": "arn:a", "ssl_policy": "ELBSecurityPolicy-2016-08"},
            "ssl-policy of port 443 is ELBSecurityPolicy-TLS13-1-2-2021-06 here and ELBSecurityPolicy-2016",
        ),
        ({"ssl_policy": "a"}, {"ssl_policy": "b"}, ""),  # of plain HTTP
        (
            {"load_balancer_attributes": "a=b, c=d"},
            {"load_balancer_attributes": "a=b,c=e"},
            "load-balancer-attributes c is d here and e in Ingress team/api",
        ),
        ({"subnets": "subnet-1, subnet-2"}, {"subnets": "subnet-2,subnet-1"}, ""),
        ({"subnets": "subnet-1"}, {"subnets": "subnet-2"}, "subnets is subnet-1 here and subnet-2 in"),
        (
            {"inbound_cidrs": "10.0.0.0/8"},
            {"inbound_cidrs": "10.1.0.0/16"},
            "inbound-cidrs of port 80 is 10.0.0.0/8 here",
        ),
        (
            {"listen_ports": '[{"HTTP":80}]'},
            {"listen_ports": '[{"HTTPS":80}]'},
            "listen-ports 80 is HTTP here",
        ),
    ],
)
def test_members_of_a_group_that_contradict_each_other_are_refused(
    said: list[str], ours: dict[str, str], its: dict[str, str], what: str
) -> None:
    """One of them blocks all, as the real controller was seen to do, and as its model builder has it."""
    refusal = in_group(ingress(**ours), member(**its))

    assert what in refusal
    assert bool(refusal) == bool(what)
    assert ("kubectl get ingress api -n team -o yaml" in refusal) == bool(what)
    assert said == []
    if what:
        # It was there before: then nothing else is refused for it.
        was = live(**ours)
        was["metadata"]["annotations"]["alb.ingress.kubernetes.io/group.name"] = "all"
        assert in_group(ingress(**ours), member(**its), **{LIVE: was}) == ""
        assert what in said[0]
    other = member(**its)
    other["metadata"]["annotations"]["alb.ingress.kubernetes.io/group.name"] = "another"
    assert in_group(ingress(**ours), other) == ""
    other = member(**its)
    other["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert in_group(ingress(**ours), other) == ""


def test_a_member_of_a_group_can_take_the_requests_of_others(said: list[str]) -> None:
    redirects = {"listen_ports": HTTPS, "ssl_redirect": "443"}
    anything = ingress(paths=1)
    anything["spec"]["rules"] = member(host="")["spec"]["rules"]

    def warned(ours: dict[str, Any], other: dict[str, Any]) -> str:
        said.clear()
        assert in_group(ours, other) == ""
        return "\n".join(said)

    assert "team/api of group all serves plain HTTP alone" in warned(ingress(**redirects), member())
    assert "ingress.tls.enabled is false: the application" in warned(ingress(), member(**redirects))
    assert warned(ingress(**redirects), member(listen_ports=HTTPS)) == ""
    # Of the same order, the name decides.
    assert "team/api of group all comes after this one, which without" in warned(anything, member())
    assert warned(anything, member(order="-1")) == ""
    assert "comes before this one and names no host" in warned(ingress(), member(order="-1", host=""))
    assert warned(ingress(), member(host="")) == ""


def test_who_may_not_see_the_ingresses_of_others_is_told(said: list[str]) -> None:
    assert in_group(ingress(), member(), **{ALL: ApiError(403, {"message": "ingresses is forbidden"})}) == ""
    assert said == ["the other Ingresses of its group could not be checked: ingresses is forbidden"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (ingress(*(f"{n}.example" for n in range(34)), paths=3), "102 rules"),
        (ingress(*(f"{n}.example" for n in range(25)), paths=4), ""),
        (ingress(*(f"{n}.example" for n in range(20)), paths=3, listen_ports=HTTPS), "120 rules"),
        # A listener that only sends on has none.
        (ingress(*(f"{n}.example" for n in range(20)), paths=3, listen_ports=HTTPS, ssl_redirect="443"), ""),
        (
            ingress(
                paths=1,
                **{
                    "conditions.server": '[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"a",'
                    '"values":["1","2","3"]}}]'
                },
            ),
            "compares 6 values",
        ),
        (ingress(paths=1, **{"conditions.server": "no JSON"}), ""),
    ],
)
def test_more_than_aws_allows_by_default_is_told(said: list[str], item: dict[str, Any], text: str) -> None:
    assert check([item], {"checks": {}} | INSTALL) == ""
    assert bool(said) == bool(text)
    if text:
        assert text in said[0]
        assert "aws service-quotas list-service-quotas --service-code elasticloadbalancing" in said[0]


def test_with_no_controller_nothing_is_looked_at(said: list[str]) -> None:
    on = dict.fromkeys(fields_of(ChecksSettings), True)

    assert check([ingress(listen_ports=HTTPS)], {"checks": on} | controller(mode="none")) == ""
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
            f"{PLACE} names certificate {ARN.format('a')}, which the account does not have in {REGION}",
            "",
        ),
        (
            [certificate(ARN.format("a"), "ISSUED", "other.example")],
            ARN.format("a"),
            f"no certificate in {PLACE} covers www.shop.example",
            "",
        ),
        (
            [],
            ARN.format("a").replace(REGION, "us-east-1"),
            "of account 123456789012 in us-east-1: the load balancer takes certificates of its own, "
            f"123456789012 in {REGION}",
            "",
        ),
        ([], ARN.format("a").replace("123456789012", "999999999999"), "of account 999999999999 in ", ""),
        # One that is not issued is refused by AWS also beside another, and one that has expired is not.
        (
            [
                certificate(ARN.format("a"), "ISSUED", "*.shop.example"),
                certificate(ARN.format("b"), "FAILED", "b.c"),
            ],
            f"{ARN.format('a')},{ARN.format('b')}",
            f"the certificate for b.c ({ARN.format('b')}) is FAILED",
            "",
        ),
        (
            [
                certificate(ARN.format("a"), "ISSUED", "*.shop.example"),
                certificate(ARN.format("b"), "EXPIRED", "www.shop.example"),
            ],
            f"{ARN.format('a')},{ARN.format('b')}",
            "",
            "",
        ),
        ([certificate(ARN.format("b"), "EXPIRED", "www.shop.example")], "", "is EXPIRED", ""),
        ([certificate(ARN.format("b"), "EXPIRED", "www.shop.example")], ARN.format("b"), "is EXPIRED", ""),
        (
            [certificate(ARN.format(f"{n:02}"), "ISSUED", "*.shop.example") for n in range(27)],
            "",
            "",
            f"the account in {REGION} has 27 certificates for the load balancer: AWS allows 26",
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


def test_certificates_of_a_class_and_of_no_host_are_looked_at() -> None:
    def found(arns: list[str], *hosts: str) -> str:
        aws, stub = stubbed("acm")
        listed = [certificate(ARN.format("a"), "PENDING_VALIDATION", "www.shop.example")]
        stub.add_response("list_certificates", {"CertificateSummaryList": listed})
        item = ingress(*hosts, listen_ports=HTTPS, certificate_arn=OF_IAM)
        config = {"checks": {"certificates": True}} | INSTALL
        return check([item], config, aws=aws, in_cluster=with_params({"certificateArn": arns}))

    assert "IngressClass alb names certificate nonsense, which is no ARN" in found(["nonsense"])
    assert "is PENDING_VALIDATION" in found([ARN.format("a")], "")


def test_all_that_is_missing_comes_together_and_can_be_switched_off(vpc: str) -> None:
    subnet(vpc, 1, "a", "kubernetes.io/role/elb=1")
    on = {"checks": {"identity": True, "subnets": True}} | controller(mode="install")

    found = check([ingress(scheme="internet-facing")], on, vpc=vpc)

    assert found.startswith(
        "2 things are in the way on EKS cluster shop (mern:checks switches these checks off):\n  a load "
    )
    assert check([ingress(scheme="internet-facing")], {"checks": {}} | controller(mode="install")) == ""
