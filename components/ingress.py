"""An Ingress as the load balancer controller reads it, and the load balancer that it has made of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.release import Api
from components.release.manifest import Object
from components.release.values import ABSENT, get

ANNOTATION_PREFIX = "alb.ingress.kubernetes.io/"


@dataclass(frozen=True, kw_only=True)
class Controller:
    """The names that a load balancer controller goes by in a cluster."""

    ingress_class_controller: str
    """`spec.controller` of the IngressClasses that it serves."""
    readiness_gate: str
    """Label of a namespace: the controller holds a new pod back until its target is healthy. It acts on
    pods that are made after it, so it has to be there before the release."""
    binding_version: str
    """API version of its kind TargetGroupBinding, which says which target group a Service has."""


AWS_CONTROLLER = Controller(
    ingress_class_controller="ingress.k8s.aws/alb",
    readiness_gate="elbv2.k8s.aws/pod-readiness-gate-inject",
    binding_version="elbv2.k8s.aws/v1beta1",
)
AUTO_MODE = Controller(
    ingress_class_controller="eks.amazonaws.com/alb",
    readiness_gate="eks.amazonaws.com/pod-readiness-gate-inject",
    binding_version="eks.amazonaws.com/v1",
)


def controller_of(mode: str) -> Controller:
    """Return the controller that serves Ingresses in a `mern:loadBalancerController.mode`."""
    return AUTO_MODE if mode == "auto-mode" else AWS_CONTROLLER


@dataclass(frozen=True)
class Ingress:
    """An Ingress as the chart renders it, or as it is in the cluster. A text that it lacks is empty."""

    item: Object

    @classmethod
    def rendered(cls, objects: Iterable[Object]) -> "Ingress | None":
        """Return the Ingress among the objects of a release, None where there is none."""
        return next((cls(item) for item in objects if item["kind"] == "Ingress"), None)

    @classmethod
    def live(cls, api: Api, namespace: str, name: str) -> "Ingress | None":
        """Return the Ingress in the cluster, None where there is none of this name.

        Raises:
            ClusterError: the API server refuses, or does not answer.
        """
        item = api.find(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}")
        return None if item is None else cls(item)

    @property
    def name(self) -> str:
        return self._text("metadata", "name")

    @property
    def class_name(self) -> str:
        """The name of its IngressClass."""
        return self._text("spec", "ingressClassName")

    @property
    def hosts(self) -> list[str]:
        """The names that the load balancer answers to, `*.example.com` for all below one; empty: any."""
        return [rule["host"] for rule in self._rules if rule.get("host")]

    @property
    def host(self) -> str:
        """The first of `hosts` that somebody can ask for: no wildcard, where there is another."""
        return next((host for host in self.hosts if "*" not in host), next(iter(self.hosts), ""))

    @property
    def services(self) -> set[str]:
        """The names of the Services that requests go to."""
        return {
            path["backend"]["service"]["name"]
            for rule in self._rules
            for path in rule.get("http", {}).get("paths", [])
            if "service" in path["backend"]
        }

    @property
    def is_internet_facing(self) -> bool:
        """Whether the load balancer has addresses on the internet, not only in the VPC."""
        return self._annotation("scheme") == "internet-facing"

    @property
    def is_https(self) -> bool:
        """Whether the load balancer listens for HTTPS."""
        return "HTTPS" in self._annotation("listen-ports")

    @property
    def health_check_path(self) -> str:
        return self._annotation("healthcheck-path") or "/"

    @property
    def certificate_arns(self) -> list[str]:
        """The certificates for HTTPS; empty: the controller looks for those of `hosts` in the account."""
        return self._list("certificate-arn")

    @property
    def subnets(self) -> list[str]:
        """The ids or names of the subnets; empty: the controller looks for those with `subnet_tag`."""
        return self._list("subnets")

    @property
    def subnet_tag(self) -> str:
        """The tag by which the controller finds the subnets for such a load balancer."""
        return f"kubernetes.io/role/{'elb' if self.is_internet_facing else 'internal-elb'}"

    @property
    def group(self) -> str:
        """The name of the group of Ingresses that share one load balancer."""
        return self._annotation("group.name")

    @property
    def is_protected(self) -> bool:
        """Whether AWS refuses to delete the load balancer, so that the Ingress cannot be deleted either."""
        return "deletion_protection.enabled=true" in self._list("load-balancer-attributes")

    @property
    def address(self) -> str:
        """The load balancer's own name in DNS, or its IP address."""
        entries = get(self.item, ("status", "loadBalancer", "ingress"))
        first = entries[0] if entries and entries is not ABSENT else {}
        return str(first.get("hostname") or first.get("ip") or "")

    def url(self, address: str) -> str:
        """Return where a browser reaches it: at `host`, or where it has none, at `address`."""
        host = self.host or address
        return f"{'https' if self.is_https else 'http'}://{host}" if host else ""

    def target_groups(self, api: Api, namespace: str) -> dict[str, list[str]]:
        """Return the ARNs of the target groups that the controller has made for each of `services`.

        Raises:
            ClusterError: the API server refuses, or does not answer.
        """
        groups: dict[str, list[str]] = {service: [] for service in sorted(self.services)}
        for controller in (AWS_CONTROLLER, AUTO_MODE):
            path = f"/apis/{controller.binding_version}/namespaces/{namespace}/targetgroupbindings"
            for binding in api.items(path):
                service = binding["spec"]["serviceRef"]["name"]
                if service in groups:
                    groups[service].append(binding["spec"]["targetGroupARN"])
        return groups

    @property
    def _rules(self) -> list[Any]:
        rules = get(self.item, ("spec", "rules"))
        return [] if rules is ABSENT or rules is None else rules

    def _annotation(self, name: str) -> str:
        return self._text("metadata", "annotations", f"{ANNOTATION_PREFIX}{name}")

    def _list(self, annotation: str) -> list[str]:
        return [text for part in self._annotation(annotation).split(",") if (text := part.strip())]

    def _text(self, *path: str) -> str:
        value = get(self.item, path)
        return "" if value is ABSENT or value is None else str(value)
