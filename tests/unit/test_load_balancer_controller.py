"""What the load balancer controller is given in AWS and in the cluster."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes
import pytest

from components.cluster import Cluster, EksCluster, Identity
from components.load_balancer_controller import CHART, CRDS, POLICY, VERSION, LoadBalancerController
from components.load_balancer_controller.removal import in_use
from components.release import Api, ApiError, ChartError, StackState, chart_source
from components.release.plan import RELEASE as RELEASE_TYPE
from components.release.values import leaves
from settings import RolesSettings
from settings.model import CONTROLLER_VALUES
from tests.engine.load_balancer_controller import chart_with_crds
from tests.unit.recording import Recording, run
from tests.unit.test_settings import EKS, parse

# The permission list that belongs to a version: neither changes without the other.
POLICIES = {"3.5.0": "d917aaadbc3281054a592cd496f5c80f8e0c11d59004558e1a05c7dc395b286a"}
# And so do the CRDs in its chart.
CRDS_OF = {
    "3.5.0": {
        "albtargetcontrolconfigs.elbv2.k8s.aws",
        "globalaccelerators.aga.k8s.aws",
        "ingressclassparams.elbv2.k8s.aws",
        "listenerruleconfigurations.gateway.k8s.aws",
        "loadbalancerconfigurations.gateway.k8s.aws",
        "targetgroupbindings.elbv2.k8s.aws",
        "targetgroupconfigurations.gateway.k8s.aws",
    }
}

ISSUER = "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF"
ROLE = "aws:iam/role:Role"
POLICY_TYPE = "aws:iam/policy:Policy"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
RELEASE = "kubernetes:helm.sh/v3:Release"
TEMPLATE = "kubernetes:helm:template"
SERVICE_ACCOUNT_PATH = "/api/v1/namespaces/kube-system/serviceaccounts/aws-load-balancer-controller"


def eks(name: str = "shop", partition: str = "aws", region: str = "eu-central-1") -> EksCluster:
    return EksCluster(
        name=name,
        arn=f"arn:{partition}:eks:{region}:111111111111:cluster/{name}",
        vpc_id="vpc-1",
        oidc_issuer=ISSUER,
    )


class FakeApi:
    """A cluster with the given objects, path to object."""

    def __init__(self, objects: dict[str, Any] | None = None) -> None:
        self.objects = objects or {}

    def get(self, path: str, *_: str, **query: str) -> Any:
        if path.endswith("/kube-system/secrets"):
            return {"items": []}
        if path not in self.objects:
            raise ApiError(404, {"reason": "NotFound"})
        return self.objects[path]

    def apply(self, path: str, item: Any, **_: str) -> Any:
        return item

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    find, items = Api.find, Api.items


@pytest.fixture(autouse=True)
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chart, as it was pulled to the project."""
    chart_with_crds(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chart_source, "pull", lambda *_: (CHART, ""))
    return tmp_path / CHART


def program(cluster: EksCluster, api: FakeApi | None = None, **settings: Any) -> Callable[[], object]:
    def install() -> object:
        here = Cluster(
            provider=kubernetes.Provider("cluster"),
            aws_provider=aws.Provider("aws", region="eu-central-1"),
            api=cast(Any, api or FakeApi()),
            identity=Identity(id=cluster.arn, name=cluster.name),
            eks=cluster,
        )
        wanted = parse({**EKS, "loadBalancerController": settings, "release": {"dryRun": False}})
        return LoadBalancerController.install(
            LoadBalancerController.plan(wanted, here, StackState.read()), here
        )

    return install


WEBHOOK = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "webhook"}}


def rendered(args: dict[str, Any]) -> dict[str, Any]:
    """One object of the chart."""
    return {"result": [WEBHOOK]}


RENDERED = {TEMPLATE: rendered}


def install(cluster: EksCluster | None = None, stack: str = "staging", **settings: Any) -> Recording:
    done = run(program(cluster or eks(), mode="install", **settings), stack=stack, answers=RENDERED)
    if done.error:
        raise done.error
    return done


def document(recording: Recording, type_: str, key: str) -> Any:
    return json.loads(recording.one(type_).inputs[key])


def test_mode_none_registers_nothing() -> None:
    done = run(program(eks(), mode="none"))

    assert done.error is None
    assert done.besides_providers() == []


def test_the_permission_list_is_the_one_of_the_pinned_version() -> None:
    canonical = json.dumps(json.loads(POLICY.read_text()), sort_keys=True)

    assert hashlib.sha256(canonical.encode()).hexdigest() == POLICIES.get(VERSION)


def test_the_crds_are_those_of_the_pinned_version() -> None:
    assert set(CRDS) == CRDS_OF.get(VERSION)


def test_a_chart_with_other_crds_is_refused(pulled: Path) -> None:
    (pulled / f"crds/{CRDS[0]}.yaml").unlink()

    done = run(program(eks(), mode="install"), answers=RENDERED)

    assert isinstance(done.error, pulumi.RunError)
    assert f"it lacks the CRDs {CRDS[0]}" in str(done.error)
    assert done.besides_providers() == []


def test_a_chart_that_cannot_be_had_is_refused_with_the_key_that_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pull(name: str, repository: str, version: str) -> None:
        raise ChartError(f"chart {name} {version} of {repository}: charts.example does not answer")

    monkeypatch.setattr(chart_source, "pull", pull)
    done = run(program(eks(), mode="install", chartRepository="https://charts.example"), answers=RENDERED)

    assert isinstance(done.error, pulumi.RunError)
    assert str(done.error) == (
        "mern:loadBalancerController.chartRepository: chart aws-load-balancer-controller 3.5.0 of "
        "https://charts.example: charts.example does not answer\n      pulumi config set --path "
        "'mern:loadBalancerController.chartRepository' URL --stack test"
    )


@pytest.mark.parametrize(
    ("annotations", "whose"),
    [
        ({"mern/installed-by": "mern/production"}, "a controller of stack mern/production already"),
        ({}, "a controller of somebody else already"),
        ({"mern/installed-by": "mern/staging"}, ""),
    ],
)
def test_two_stacks_do_not_fight_over_one_controller(annotations: dict[str, str], whose: str) -> None:
    there = {SERVICE_ACCOUNT_PATH: {"metadata": {"annotations": annotations}}}

    done = run(program(eks(), FakeApi(there), mode="install"), stack="staging", answers=RENDERED)

    if whose:
        assert isinstance(done.error, pulumi.RunError)
        assert whose in str(done.error)
        assert "pulumi config set --path 'mern:loadBalancerController.mode' existing" in str(done.error)
        assert done.besides_providers() == []
    else:
        assert done.error is None
        values = done.one(RELEASE).inputs["values"]
        assert values["serviceAccount"]["annotations"]["mern/installed-by"] == "mern/staging"


CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CLASS = "/apis/networking.k8s.io/v1/ingressclasses/alb"
DEPLOYMENTS = "/apis/apps/v1/deployments"


def deployment(namespace: str, name: str, account: str) -> dict[str, Any]:
    containers = [{"image": "public.ecr.aws/eks/aws-load-balancer-controller:v2.8.1"}]
    spec = {"serviceAccountName": account, "containers": containers}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize(
    ("namespace", "name", "account"),
    [
        ("kube-system", CHART, "another"),
        ("ingress", CHART, CHART),
        ("kube-system", "alb-controller", CHART),
    ],
)
def test_a_controller_under_any_name_is_noticed_before_its_crds_are_applied(
    namespace: str, name: str, account: str
) -> None:
    there = {DEPLOYMENTS: {"items": [deployment(namespace, name, account)]}}

    done = run(program(eks(), FakeApi(there), mode="install"), answers=RENDERED)

    deployed = f"Deployment {namespace}/{name}, which runs under ServiceAccount {account}"
    assert f"the cluster has a controller already: {deployed}\n" in str(done.error)
    assert "\n      pulumi config set --path 'mern:loadBalancerController.mode' existing" in str(done.error)
    assert done.besides_providers() == []


def managed_by(*managers: str, **metadata: Any) -> dict[str, Any]:
    """A CRD; a manager of its status has `/status` behind its name."""
    entries = [
        {"manager": name, "operation": "Update"} | ({"subresource": part} if part else {})
        for name, _, part in (manager.partition("/") for manager in managers)
    ]
    return {"metadata": {"managedFields": entries, **metadata}, "spec": {}}


@pytest.mark.parametrize(
    ("crd", "owner"),
    [
        (managed_by("mern", "pulumi-crds", "kube-apiserver/status"), ""),
        # Helm brings them once, also inside of other tools, and never renews them.
        (managed_by("helm"), ""),
        (managed_by("terraform-provider-helm_v2.17.0_x5"), ""),
        (managed_by("pulumi-resource-kubernetes"), ""),
        (managed_by("kubectl-client-side-apply"), ""),
        (managed_by("kubectl-apply", annotations={"argocd.argoproj.io/tracking-id": "lbc:a"}), "argocd"),
        (managed_by("helm", labels={"argocd.argoproj.io/instance": "lbc"}), "argocd.argoproj.io (lbc)"),
        (managed_by("helm", annotations={"meta.helm.sh/release-name": "crds"}), "meta.helm.sh (crds)"),
        (
            managed_by("helm-controller", labels={"helm.toolkit.fluxcd.io/name": "lbc"}),
            "helm.toolkit.fluxcd.io",
        ),
        (managed_by("argocd-controller", "mern"), "argocd-controller"),
        (managed_by("eks"), "eks"),
        (managed_by("helm-controller"), "helm-controller"),  # of Flux, which renews them
        (managed_by("mern", "somebody/status"), ""),
        (managed_by("eks", annotations={"mern/installed-by": "mern/staging"}), ""),
        (managed_by("eks", annotations={"mern/installed-by": "mern/production"}), "eks"),
        ({"metadata": {}, "spec": {}}, ""),
    ],
)
def test_crds_that_somebody_else_keeps_are_not_applied_over(crd: dict[str, Any], owner: str) -> None:
    there = {f"{CRD_PATH}/{CRDS[0]}": crd, f"{CRD_PATH}/{CRDS[1]}": crd}

    done = run(program(eks(), FakeApi(there), mode="install"), stack="staging", answers=RENDERED)

    if owner:
        assert f"CRDs of the controller are kept by {owner}" in str(done.error)
        names = f"{CRDS[0]} {CRDS[1]}"
        assert f"kubectl annotate crd {names} --overwrite mern/installed-by=mern/staging" in str(done.error)
        assert done.besides_providers() == []
    else:
        assert done.error is None


@pytest.mark.parametrize(
    ("controller", "annotations", "mode"),
    [
        ("eks.amazonaws.com/alb", {}, "auto-mode"),  # by the example in its documentation
        ("ingress.k8s.aws/alb", {"meta.helm.sh/release-name": "other"}, "existing"),
        (
            "ingress.k8s.aws/alb",
            {"meta.helm.sh/release-name": CHART, "meta.helm.sh/release-namespace": "kube-system"},
            "",
        ),
    ],
)
def test_an_ingress_class_that_helm_could_not_create_is_refused_before_there_is_a_role(
    controller: str, annotations: dict[str, str], mode: str
) -> None:
    there = {CLASS: {"metadata": {"annotations": annotations}, "spec": {"controller": controller}}}

    done = run(program(eks(), FakeApi(there), mode="install"), answers=RENDERED)

    if mode:
        assert f"the cluster has an IngressClass alb already, of {controller}" in str(done.error)
        assert f"pulumi config set --path 'mern:loadBalancerController.mode' {mode}" in str(done.error)
    assert (done.besides_providers() == []) == bool(mode)


@pytest.mark.parametrize(("version", "newer"), [("v0.20.1", True), ("v0.19.0", False), ("v0.5.0", False)])
def test_crds_of_a_newer_controller_are_told(
    monkeypatch: pytest.MonkeyPatch, version: str, newer: bool
) -> None:
    """v3.0.0 to v3.5.0 of the controller say v0.19.0, v2.4.2 said v0.5.0."""
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_, **__: warnings.append(text))
    crd = managed_by("helm", annotations={"controller-gen.kubebuilder.io/version": version})

    there = FakeApi({f"{CRD_PATH}/{CRDS[0]}": crd})
    assert run(program(eks(), there, mode="install"), answers=RENDERED).error is None

    assert bool(warnings) == newer
    assert not newer or f"take their place: {CRDS[0]}." in warnings[0]


def test_what_may_not_be_read_is_told_and_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(pulumi.log, "info", lambda text, *_, **__: notes.append(text))

    class Forbidding(FakeApi):
        def get(self, path: str, *_: str, **query: str) -> Any:
            raise ApiError(403, {"message": "not yours"})

    done = run(program(eks(), Forbidding(), mode="install"), answers=RENDERED)

    assert done.error is None
    assert notes[:3] == [
        "whether the cluster has a load balancer controller already was not checked: not yours",
        "whose IngressClass alb is was not checked: not yours",
        "whose its CRDs are was not checked: not yours",
    ]


def test_the_controller_goes_only_when_nothing_in_the_cluster_needs_it() -> None:
    def listed(name: str, *finalizers: str) -> Any:
        return {"metadata": {"namespace": "shop", "name": name, "finalizers": list(finalizers)}}

    api: Any = FakeApi(
        {
            "/apis/networking.k8s.io/v1/ingresses": {
                "items": [listed("ours", "group.ingress.k8s.aws/shop"), listed("of-another-controller")]
            },
            "/api/v1/services": {
                "items": [listed("nlb", "service.k8s.aws/resources"), listed("plain", "a.b/c")]
            },
            "/apis/gateway.networking.k8s.io/v1/gateways": {
                "items": [listed("edge", "gateway.k8s.aws/alb"), listed("of-istio")]
            },
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses": {
                "items": [{"metadata": {"name": "alb", "finalizers": ["gateway.k8s.aws/gatewayclass"]}}]
            },
            "/apis/gateway.k8s.aws/v1beta1/targetgroupconfigurations": {
                "items": [listed("slow", "gateway.k8s.aws/targetgroupconfigurations")]
            },
        }
    )

    assert list(in_use(api)) == [
        "Ingress shop/ours",
        "Service shop/nlb",
        "Gateway shop/edge",
        "GatewayClass alb",
        "TargetGroupConfiguration shop/slow",
    ]
    assert list(in_use(cast(Any, FakeApi()))) == []


def test_the_policy_grants_exactly_that_list() -> None:
    granted = document(install(), POLICY_TYPE, "policy")

    assert granted == json.loads(POLICY.read_text())


def test_the_policy_fits_into_a_managed_policy() -> None:
    granted = install().one(POLICY_TYPE).inputs["policy"]

    assert len("".join(granted.split())) <= 6144  # IAM does not count white space


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1"), ("aws-eusc", "eusc-de-east-1")],
)
def test_every_arn_is_of_the_partition_that_the_cluster_is_in(partition: str, region: str) -> None:
    done = install(eks(partition=partition, region=region))

    texts = [
        done.one(POLICY_TYPE).inputs["policy"],
        done.one(ROLE).inputs["assumeRolePolicy"],
        json.dumps(done.one(RELEASE).inputs["values"]),
    ]
    for text in texts:
        assert f"arn:{partition}:" in text
        assert "arn:aws:" not in text


def test_a_partition_with_other_permissions_is_refused_before_anything_is_registered() -> None:
    done = run(program(eks(partition="aws-iso", region="us-iso-east-1"), mode="install"), answers=RENDERED)

    assert isinstance(done.error, pulumi.RunError)
    assert "partition aws-iso" in str(done.error)
    assert "pulumi config set --path 'mern:loadBalancerController.mode' none" in str(done.error)
    assert done.besides_providers() == []


def test_with_irsa_the_one_service_account_of_this_cluster_may_take_the_role() -> None:
    done = install(identity="irsa")

    [statement] = document(done, ROLE, "assumeRolePolicy")["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::111111111111:oidc-provider/{ISSUER}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                f"{ISSUER}:sub": "system:serviceaccount:kube-system:aws-load-balancer-controller",
                f"{ISSUER}:aud": "sts.amazonaws.com",
            }
        },
    }
    role = done.one(ROLE).inputs["name"]
    assert done.one(RELEASE).inputs["values"]["serviceAccount"] == {
        "create": True,
        "name": "aws-load-balancer-controller",
        "annotations": {
            "eks.amazonaws.com/role-arn": f"arn:aws:iam::111111111111:role/{role}",
            "mern/installed-by": "mern/staging",
        },
    }
    assert ASSOCIATION not in done.types()


def test_with_pod_identity_eks_gives_the_role_to_the_one_service_account() -> None:
    done = install(identity="pod-identity")

    [statement] = document(done, ROLE, "assumeRolePolicy")["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
    }
    association = done.one(ASSOCIATION).inputs
    account = done.one(RELEASE).inputs["values"]["serviceAccount"]
    assert association["clusterName"] == "shop"
    assert association["namespace"] == done.one(RELEASE).inputs["namespace"] == "kube-system"
    assert association["serviceAccount"] == account["name"]
    assert association["roleArn"] == f"arn:{ROLE}:load-balancer-controller-role"
    assert account["annotations"] == {"mern/installed-by": "mern/staging"}


@pytest.mark.parametrize("identity", ["irsa", "pod-identity"])
def test_the_controller_starts_after_it_has_its_permissions_and_identity(identity: str) -> None:
    done = install(identity=identity)

    waits_for = done.one(RELEASE).depends_on
    assert done.one(ATTACHMENT).urn in waits_for
    if identity == "pod-identity":
        assert done.one(ASSOCIATION).urn in waits_for


def test_the_release_waits_for_the_controller() -> None:
    inputs = install().one(RELEASE).inputs

    values = inputs.pop("values")
    description = inputs.pop("description")
    assert re.fullmatch(rf"{CHART} {VERSION} \(files \w{{16}}\), installed 2026-01-01T00:00:00Z", description)
    assert inputs == {
        "name": CHART,
        "namespace": "kube-system",
        "chart": CHART,
        "compat": "true",
        "timeout": 300,
        "atomic": True,
        "maxHistory": 10,
        "skipAwait": False,
        "createNamespace": False,
        "replace": True,
    }
    assert (values["clusterName"], values["region"], values["vpcId"]) == (
        "shop",
        "eu-central-1",
        "vpc-1",
    )
    assert values["keepTLSSecret"] is True
    assert values["enableServiceMutatorWebhook"] is False
    assert values["resources"]["requests"]["memory"] == "256Mi"
    assert values["resources"]["limits"]["memory"] == "1Gi"
    assert values["env"]["GOMEMLIMIT"] == "900MiB"


def test_no_pod_starts_without_its_readiness_gate_while_the_controller_is_down() -> None:
    """Rendered with the real chart 3.5.0, both stand in the webhook mpod.elbv2.k8s.aws, beside the selectors
    that it has: the label of the namespace, and no pods of the controller itself."""
    values = install().one(RELEASE).inputs["values"]

    assert values["podMutatorWebhookConfig"] == {"failurePolicy": "Fail"}
    assert values["objectSelector"]["matchExpressions"] == [
        {"key": "batch.kubernetes.io/job-name", "operator": "DoesNotExist"}
    ]


def test_values_of_the_stack_go_over_those_of_the_program() -> None:
    """As in a VPC without access to the internet."""
    given = {
        "image": {"repository": "111111111111.dkr.ecr.eu-central-1.amazonaws.com/mirror/controller"},
        "enableShield": False,
        "enableWaf": False,
        "enableWafv2": False,
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "resources": {"limits": {"memory": "512Mi"}},
        "defaultTags": {"team": "shop"},
        "replicaCount": 1,
        "serviceAccount": {"annotations": {"team": "shop"}},
    }
    values = install(values=given).one(RELEASE).inputs["values"]

    assert (
        values.items() >= {key: given[key] for key in given.keys() - {"resources", "serviceAccount"}}.items()
    )
    assert values["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"memory": "512Mi"},
    }
    assert "env" not in values  # Go's limit was that of our memory
    assert values["serviceAccount"]["annotations"].keys() == {
        "team",
        "mern/installed-by",
        "eks.amazonaws.com/role-arn",
    }


def test_what_the_program_sets_for_itself_no_stack_can_set() -> None:
    values = install(values={"replicaCount": 1}).one(RELEASE).inputs["values"]
    by_default = {
        ("replicaCount",),
        ("podDisruptionBudget", "maxUnavailable"),
        ("resources", "requests", "cpu"),
        ("resources", "requests", "memory"),
        ("resources", "limits", "memory"),
        ("env", "GOMEMLIMIT"),
        ("enableServiceMutatorWebhook",),
        ("podMutatorWebhookConfig", "failurePolicy"),
        ("objectSelector", "matchExpressions"),
    }
    assert {path for path, _ in leaves(values)} - by_default < set(CONTROLLER_VALUES)


def test_a_release_of_an_earlier_program_is_moved() -> None:
    """It stood in the component itself, as the engine was seen to keep it."""
    component = "urn:pulumi:staging::mern::mern:index:LoadBalancerController"
    parent, urn = (
        f"{component}::load-balancer-controller",
        f"{component}${RELEASE_TYPE}::load-balancer-controller-release",
    )
    stored = {
        parent: {"type": "", "outputs": {}},
        urn: {"type": RELEASE_TYPE, "outputs": {"name": CHART, "namespace": "kube-system"}},
    }
    state = {"pulumi:pulumi:readStackResourceOutputs": lambda _: {"outputs": stored}}

    done = run(program(eks(), mode="install"), stack="staging", answers=RENDERED | state)

    assert done.error is None
    assert done.one(RELEASE).aliases == {urn}


def test_everything_is_in_the_component_and_by_the_providers_of_the_stack() -> None:
    done = install(identity="pod-identity")

    component = done.one("mern:index:LoadBalancerController")
    children = done.children(component)
    role, chart_release = (
        next(child for child in children if child.type == type_)
        for type_ in ("mern:index:ServiceAccountRole", "helm:index:ChartRelease")
    )
    children += [*done.children(role), *done.children(chart_release)]
    children += done.children(done.one(RELEASE))
    assert len(children) == len(done.besides_providers()) - 1
    assert {child.type: child.provider for child in children} == {
        role.type: "",
        ROLE: "aws",
        POLICY_TYPE: "aws",
        ATTACHMENT: "aws",
        ASSOCIATION: "aws",
        chart_release.type: "",
        RELEASE: "cluster",
        "helm:core/v1:Service": "",
    }


def test_what_is_made_in_aws_says_which_stack_made_it() -> None:
    done = install(identity="pod-identity")

    for type_ in (ROLE, POLICY_TYPE, ASSOCIATION):
        assert done.one(type_).inputs["tags"] == {
            "project": "mern",
            "stack": "staging",
            "cluster": "shop",
            "managed-by": "pulumi",
        }


def test_roles_and_policies_are_made_as_the_account_wants_them() -> None:
    boundary = "arn:aws:iam::111111111111:policy/limit"
    roles = RolesSettings.model_validate({"permissionsBoundary": boundary, "path": "/teams/shop/"})

    done = install(dataclasses.replace(eks(), roles=roles, tags={"team": "shop", "Project": "web"}))

    role, policy = done.one(ROLE).inputs, done.one(POLICY_TYPE).inputs
    assert (role["path"], role["permissionsBoundary"], policy["path"]) == (
        "/teams/shop/",
        boundary,
        "/teams/shop/",
    )
    # To IAM `Project` and `project` are one key, and two of them an error.
    tags = {"stack": "staging", "cluster": "shop", "managed-by": "pulumi", "team": "shop", "Project": "web"}
    assert role["tags"] == policy["tags"] == tags
    values = done.one(RELEASE).inputs["values"]
    arn = "arn:aws:iam::111111111111:role/teams/shop/mern.staging.shop.load-balancer-controller"
    assert values["serviceAccount"]["annotations"]["eks.amazonaws.com/role-arn"] == arn
    # Pods keep the role that they were started with.
    assert values["podAnnotations"] == {"mern/identity": f"irsa {arn}"}


def test_the_name_of_the_role_says_whose_it_is() -> None:
    assert install().one(ROLE).inputs["name"] == "mern.staging.shop.load-balancer-controller"


def test_two_stacks_never_share_a_role() -> None:
    names = {
        install(eks(cluster), stack).one(ROLE).inputs["name"]
        for stack, cluster in [("dev", "eu-shop"), ("dev-eu", "shop"), ("dev", "shop")]
    }

    assert len(names) == 3


def test_a_name_that_is_too_long_for_a_role_is_shortened_and_stays_unique() -> None:
    names = [install(eks(f"{'c' * 90}{end}")).one(ROLE).inputs["name"] for end in "ab"]

    assert [len(name) for name in names] == [64, 64]
    assert names[0] != names[1]
