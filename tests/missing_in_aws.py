"""What a user is told where AWS, EKS or the cluster lacks what a deployment needs: real refusals, on a moto
server; rows of docs/bad-input.md."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pulumi
import pytest

import components.aws
from components import chart_values, cluster, mern_application, preflight
from components.cluster import EksCluster, Identity
from components.load_balancer_controller import LoadBalancerController
from components.load_balancer_controller import chart as controller_chart
from components.load_balancer_controller.owners import require_no_other_owner
from components.release import Api, ApiError, StackState, chart_servers
from settings import AwsSettings, ClusterSettings, Settings
from settings.model import ChecksSettings, fields_of
from tests.stand_ins.aws_account import Account, aws_server

REGION, ID, EKS = "eu-central-1", "111111111111", "staging"


@dataclass(frozen=True)
class Refusal:
    """Something that is missing, and who refuses it."""

    written: str
    """What was set, or what is missing."""
    ask: Callable[[], object]
    """Has the program look; raises pulumi.RunError while it is missing."""
    is_mended: bool = True
    """The commands of the message mend it; else they show what there is, or take time."""
    prepare: Callable[[], object] = lambda: None
    """Has it missing."""


class FakeApi:
    """An API server that answers from a table, path to object."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str, **_: str) -> Any:
        if path not in self.answers:
            raise ApiError(404, {})
        return self.answers[path]

    find, items = Api.find, Api.items


class Aws:
    """An account with an EKS cluster, and what is missing in it."""

    def __init__(self, account: Account, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.account, self.patch, self.folder = account, patch, folder
        account.create_cluster(EKS)
        found = account.client("eks").describe_cluster(name=EKS)["cluster"]
        issuer = found["identity"]["oidc"]["issuer"].removeprefix("https://")
        vpc = account.cluster(EKS).resources_vpc_config["vpcId"]
        self.subnet = ""
        self.eks = EksCluster(name=EKS, arn=found["arn"], vpc_id=vpc, oidc_issuer=issuer)

    def describe(self, name: str = EKS, account_id: str = ID) -> object:
        place = AwsSettings.model_validate({"accountId": account_id, "region": REGION})
        return cluster.kube_config(ClusterSettings.model_validate({"eksClusterName": name}), place, EKS)

    def check(
        self,
        checks: str,
        mode: str,
        objects: Mapping[str, Any] | None = None,
        also: Any = (),
        **notes: Any,
    ) -> None:
        """Run one of the checks before a deployment.

        Args:
            checks: the one of `mern:checks`.
            mode: of the load balancer controller.
            objects: in the cluster.
            also: rendered beside the Ingress.
            notes: annotations of the Ingress.
        """
        off = dict.fromkeys(fields_of(ChecksSettings), False)
        config = {
            "cluster": {"eksClusterName": EKS},
            "namespace": {"name": "mern"},
            "checks": off | {checks: True},
        }
        settings = Settings.model_validate(
            config
            | {"loadBalancerController": {"mode": mode, "identity": "irsa"}}
            | ({"pythonScript": {"policy": {}, "identity": "pod-identity"}} if mode == "none" else {})
        )
        annotations = {f"alb.ingress.kubernetes.io/{key}": text for key, text in notes.items()}
        ingress = {
            "kind": "Ingress",
            "metadata": {"name": "mern", "annotations": annotations},
            "spec": {"ingressClassName": "alb", "rules": [{"host": "*.shop.example"}]},
        }
        place: Any = SimpleNamespace(
            eks=self.eks, aws_api=components.aws.Aws(REGION), api=FakeApi(objects or {})
        )
        plan: Any = SimpleNamespace(
            objects=[ingress, *also], args=SimpleNamespace(name="mern", namespace="mern")
        )
        preflight.check(settings, place, plan)

    def without_keys(self) -> None:
        """Have a user who has no credentials in the environment."""
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            self.patch.delenv(key)
        for key, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
            (self.folder / file).touch()
            self.patch.setenv(key, str(self.folder / file))

    def one_subnet(self) -> None:
        """Take the tag from all subnets but those of one zone."""
        ec2 = self.account.client("ec2")
        for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [self.eks.vpc_id]}])[
            "Subnets"
        ]:
            if subnet["AvailabilityZone"].endswith("b"):
                ec2.delete_tags(Resources=[subnet["SubnetId"]], Tags=[{"Key": "kubernetes.io/role/elb"}])
                self.subnet = subnet["SubnetId"]

    def forget_issuer(self) -> None:
        self.account.client("iam").delete_open_id_connect_provider(
            OpenIDConnectProviderArn=self.eks.oidc_provider_arn
        )

    def refusals(self) -> Iterator[Refusal]:
        """Yield what is missing, one after another; each is prepared, looked at, mended."""
        of = "mern:cluster: {eksClusterName: staging}"
        yield Refusal(
            f"{of}, with credentials of another account", lambda: self.describe(account_id="2" * 12), False
        )
        yield Refusal("mern:cluster: {eksClusterName: stagin}", lambda: self.describe("stagin"), False)
        creating = {"name": EKS, "status": "CREATING"}
        yield Refusal(f"{of}, which is being made", lambda: self._creating(creating), False)
        https: dict[str, Any] = {"listen-ports": '[{"HTTPS": 443}]'}
        yield Refusal(
            "one subnet has the tag for load balancers",
            lambda: self.check("subnets", "install", scheme="internet-facing"),
            prepare=self.one_subnet,
        )
        yield Refusal(
            "no certificate for a host", lambda: self.check("certificates", "install", **https), False
        )
        yield Refusal(
            "a certificate that waits",
            lambda: self.check("certificates", "install", **https),
            False,
            lambda: self.account.client("acm").request_certificate(DomainName="*.shop.example"),
        )
        yield Refusal(
            "pods get their roles by Pod Identity, whose agent is missing",
            lambda: self.check("identity", "none"),
            prepare=lambda: self.account.cluster(EKS).kept.pop("eks-pod-identity-agent"),
        )
        yield Refusal(
            "pods get their roles by the issuer, which IAM does not know",
            lambda: self.check("identity", "install"),
            False,
            prepare=self.forget_issuer,
        )
        scaled: Any = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "mern-server"}}
        yield Refusal(
            "autoscalers, and no metrics server",
            lambda: self.check("metrics", "install", also=[scaled]),
            False,
        )
        nginx: Any = {
            "/apis/networking.k8s.io/v1/ingressclasses/alb": {"spec": {"controller": "k8s.io/nginx"}}
        }
        mode = "mern:loadBalancerController: {{mode: {}}}"
        yield Refusal(
            f"{mode.format('existing')}, with nginx",
            lambda: self.check("ingressClass", "existing", nginx),
            False,
        )
        auto: Any = {
            "/apis/networking.k8s.io/v1/ingressclasses/alb": {"spec": {"controller": "eks.amazonaws.com/alb"}}
        }
        yield Refusal(
            f"{mode.format('auto-mode')}, with mern:values ingress.group.name",
            lambda: self.check("ingressClass", "auto-mode", auto, **{"group.name": "shared"}),
            False,
        )
        alb = {"spec": {"controller": "ingress.k8s.aws/alb"}}
        idle = {
            "/apis/apps/v1/deployments": {"items": []},
            "/apis/networking.k8s.io/v1/ingressclasses/alb": alb,
        }
        yield Refusal(
            f"{mode.format('existing')}, and no controller runs",
            lambda: self.check("ingressClass", "existing", idle),
            False,
        )
        account = "/api/v1/namespaces/kube-system/serviceaccounts/aws-load-balancer-controller"
        other: Any = FakeApi({account: {"metadata": {"annotations": {"mern/installed-by": "mern/other"}}}})
        yield Refusal(
            f"{mode.format('install')}, and another stack has installed it",
            lambda: require_no_other_owner(other, False),
            False,
        )
        yield Refusal(f"{mode.format('install')}, in another partition of AWS", self._in_iso, False)
        yield Refusal("mern:loadBalancerController: {chartRepository: …}, of nobody", self._no_chart, False)
        yield Refusal("a stack that is deployed to another cluster", self._moved, False)
        yield Refusal("without mern:imageTag, and Helm's record cannot be read", self._unread, False)
        yield Refusal("pulumi destroy, with a protected load balancer", self._protected, False)
        yield Refusal("no credentials of AWS", self.describe, prepare=self.without_keys)

    def _creating(self, described: Mapping[str, Any]) -> None:
        with mock.patch.object(components.aws.Aws, "cluster", lambda *_: described):
            self.describe()

    def _in_iso(self) -> None:
        eks = dataclasses.replace(self.eks, arn=self.eks.arn.replace("arn:aws:", "arn:aws-iso:"))
        place: Any = SimpleNamespace(eks=eks, type_of=str)
        wanted: Any = SimpleNamespace(load_balancer_controller=SimpleNamespace(mode="install"))
        LoadBalancerController.plan(wanted, place, StackState())

    def _no_chart(self) -> None:
        with mock.patch.object(chart_servers._Server, "find", return_value=None):
            controller_chart.pull("https://charts.example")

    def _moved(self) -> None:
        raise pulumi.RunError(
            cluster._another_cluster(
                Identity(id="8d3c", name="laptop"), f"{EKS} ({self.eks.arn}) at https://eks"
            )
        )

    def _unread(self) -> None:
        settings: Any = SimpleNamespace(
            image_tag=None, images={}, values={}, namespace=SimpleNamespace(name="mern"), release=None
        )
        api: Any = SimpleNamespace(
            get=mock.Mock(side_effect=ApiError(403, {"message": "secrets is forbidden"}))
        )
        api.items = api.find = api.get
        with mock.patch("pulumi.runtime.is_dry_run", lambda: False):
            chart_values._running_values(settings, api, "mern")

    def _protected(self) -> None:
        import asyncio

        hook: Any = mock.Mock()
        live = SimpleNamespace(is_protected=True, is_being_deleted=False, name="mern")
        with (
            mock.patch("pulumi.ResourceHook", hook),
            mock.patch.object(mern_application, "_live_ingress", lambda _: live),
        ):
            args = SimpleNamespace(name="mern", namespace="mern")
            plan: Any = SimpleNamespace(args=args, objects=[])
            mern_application._deletion_guard(plan)
            try:
                asyncio.run(hook.call_args[0][1](None))
            except RuntimeError as error:
                raise pulumi.RunError(str(error)) from None


@contextlib.contextmanager
def aws(folder: Path) -> Iterator[Aws]:
    """An account on a moto server, which the AWS SDK and programs of this process use."""
    with aws_server() as server, pytest.MonkeyPatch.context() as patch:
        account = Account.open(server, ID, REGION)
        for key in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.delenv(key, raising=False)
        for key, text in account.env.items():
            patch.setenv(key, text)
        patch.setattr(pulumi, "get_stack", lambda: "staging")
        for level in ("info", "warn"):
            patch.setattr(pulumi.log, level, lambda *_: None)
        yield Aws(account, patch, folder)


def refusal(call: Callable[[], object]) -> str:
    """Return what the program refuses with, empty where it does not."""
    try:
        call()
    except pulumi.RunError as error:
        return str(error)
    return ""


def rows(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what is missing, and the lines that a user reads, without what differs in each run."""
    with aws(folder) as account:
        for missing in account.refusals():
            missing.prepare()
            text = refusal(missing.ask)
            text = re.sub(r"\b(vpc-|subnet-|certificate/|id/)[\w-]{10,36}", r"\1…", text)
            lines = (line.strip() for line in text.splitlines())
            yield missing.written, tuple(line for line in lines if not line.startswith("1 thing is "))
