"""An Ingress as the load balancer controller reads it, and the load balancer that it has made of it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    api_version: str
    """Of its kinds: TargetGroupBinding says which target group a Service has, IngressClassParams what goes
    for every Ingress of a class."""


AWS_CONTROLLER = Controller(
    ingress_class_controller="ingress.k8s.aws/alb",
    readiness_gate="elbv2.k8s.aws/pod-readiness-gate-inject",
    api_version="elbv2.k8s.aws/v1beta1",
)
AUTO_MODE = Controller(
    ingress_class_controller="eks.amazonaws.com/alb",
    readiness_gate="eks.amazonaws.com/pod-readiness-gate-inject",
    api_version="eks.amazonaws.com/v1",
)


ANYBODY = {"0.0.0.0/0", "::/0"}
OF_CALLERS = {
    "inbound-cidrs": "inboundCIDRs",
    "security-group-prefix-lists": "prefixListsIDs",
    "security-groups": "",
    "mutual-authentication": "",
}
"""Annotations by which a load balancer answers some callers alone, with the same in IngressClassParams."""
OF_REQUESTS = {
    "auth-type": "",
    "jwt-validation": "",
    "wafv2-acl-arn": "wafv2AclArn",
    "wafv2-acl-name": "wafv2AclName",
    "waf-acl-id": "",
}
"""Those by which it answers some requests itself, with a redirect or a refusal."""


OF_GROUP = {
    "scheme": "scheme",
    "ip-address-type": "ipAddressType",
    "load-balancer-name": "loadBalancerName",
    "ssl-redirect": "sslRedirectPort",
    "wafv2-acl-arn": "wafv2AclArn",
    "wafv2-acl-name": "wafv2AclName",
    "shield-advanced-protection": "",
    "customer-owned-ipv4-pool": "",
}
"""Annotations of which a load balancer takes one value, with the same in IngressClassParams."""


def controller_of(mode: str) -> Controller:
    """Return the controller that serves Ingresses in a `mern:loadBalancerController.mode`."""
    return AUTO_MODE if mode == "auto-mode" else AWS_CONTROLLER


@dataclass(frozen=True)
class Ingress:
    """An Ingress as the chart renders it, or as it is in the cluster. A text that it lacks is empty."""

    item: Object
    params: Object = field(default_factory=dict)
    """The `spec` of the IngressClassParams of its class: what that sets, goes before its own annotations."""

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
    def namespace(self) -> str:
        return self._text("metadata", "namespace")

    @property
    def full_name(self) -> str:
        """Namespace and name."""
        return f"{self.namespace}/{self.name}"

    @property
    def model(self) -> tuple[Any, Any]:
        """All that the controller reads of it: spec and annotations."""
        return self.item.get("spec"), get(self.item, ("metadata", "annotations"))

    @property
    def uid(self) -> str:
        return self._text("metadata", "uid")

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
        """A name that the load balancer answers to: the first of `hosts` that is no wildcard, or else a name
        below the first."""
        below = [host.replace("*", "www") for host in self.hosts]
        return next((host for host in [*self.hosts, *below] if "*" not in host), "")

    @property
    def services(self) -> set[str]:
        """The names of the Services that requests go to."""
        return {
            path["backend"]["service"]["name"]
            for rule in self._rules
            for path in _paths(rule)
            if "service" in path["backend"]
        }

    @property
    def is_internet_facing(self) -> bool:
        """Whether the load balancer has addresses on the internet, not only in the VPC."""
        return self.scheme == "internet-facing"

    @property
    def scheme(self) -> str:
        """`internet-facing` or `internal`."""
        return self._setting("scheme", "scheme") or "internal"

    @property
    def ports(self) -> dict[int, str]:
        """The ports that the load balancer listens on for it, each with `HTTP` or `HTTPS`."""
        try:
            listed = json.loads(self._annotation("listen-ports") or "[]")
            ports = {int(port): str(protocol) for item in listed for protocol, port in item.items()}
        except (ValueError, TypeError, AttributeError):  # for the controller to refuse
            ports = {}
        return ports or ({443: "HTTPS"} if self.certificate_arns else {80: "HTTP"})

    @property
    def is_https(self) -> bool:
        """Whether the load balancer listens for HTTPS."""
        return "HTTPS" in self.ports.values()

    @property
    def redirects_to_https(self) -> bool:
        """Whether it sends requests for HTTP on to HTTPS: all those of its group."""
        return bool(self._setting("sslRedirectPort", "ssl-redirect"))

    @property
    def limits_of_callers(self) -> list[str]:
        """The annotations of `OF_CALLERS` that it has, for itself or by its class."""
        return [name for name, param in OF_CALLERS.items() if self._limit(name, param) - ANYBODY]

    @property
    def limits_of_requests(self) -> list[str]:
        """Those of `OF_REQUESTS`; a Service can have some of its own."""
        return [name for name, param in OF_REQUESTS.items() if self._limit(name, param) - {"none"}]

    @property
    def health_check_path(self) -> str:
        return self._annotation("healthcheck-path") or "/"

    @property
    def certificate_arns(self) -> list[str]:
        """The certificates for HTTPS; empty: the controller looks for those of `hosts` in the account."""
        # The one name is of AWS's own controller, the other of EKS Auto Mode.
        of_class = self.params.get("certificateArn") or self.params.get("certificateARNs")
        return list(of_class or self._list("certificate-arn"))

    @property
    def subnets(self) -> list[str]:
        """The ids or names of the subnets; empty: the controller looks for those with `subnet_tags_of_class`,
        or else with `subnet_tag`."""
        of_class = self.params.get("subnets")
        return list(of_class.get("ids") or []) if of_class else self._list("subnets")

    @property
    def subnet_tags_of_class(self) -> Any:
        """The tags by which its class chooses subnets; empty: it does not."""
        of_class = self.params.get("subnets") or {}
        return of_class.get("tags") or of_class.get("matchTags") or {}

    @property
    def subnet_tag(self) -> str:
        """The tag by which the controller finds the subnets for such a load balancer."""
        return f"kubernetes.io/role/{'elb' if self.is_internet_facing else 'internal-elb'}"

    @property
    def group(self) -> str:
        """The name of the group of Ingresses that share one load balancer."""
        of_class = self.params.get("group")
        return str(of_class["name"]) if of_class else self._annotation("group.name")

    @property
    def place(self) -> tuple[int, str]:
        """Where its rules stand among those of its group: the lowest first."""
        text = self._annotation("group.order")
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else 0, self.full_name

    @property
    def answers_everything(self) -> bool:
        """Whether a request for any host and path is for one of its services."""
        return any(
            not rule.get("host") and any(path.get("path") in ("/", "/*") for path in _paths(rule))
            for rule in self._rules
        )

    def contradictions(self, other: "Ingress") -> dict[str, tuple[str, str]]:
        """Return what it and another Ingress of its group say differently, of what a group has once: names
        of annotations, each with both texts."""
        mine, its = self._of_group(), other._of_group()
        return {name: (mine[name], its[name]) for name in mine if its.get(name, mine[name]) != mine[name]}

    @property
    def needs_ipv6(self) -> bool:
        """Whether the load balancer has IPv6 addresses too, which its subnets have to have then."""
        return self._setting("ipAddressType", "ip-address-type").startswith("dualstack")

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of the load balancer, as `deletion_protection.enabled`."""
        pairs = [text.partition("=") for text in self._list("load-balancer-attributes")]
        of_class = self.params.get("loadBalancerAttributes") or []
        return {key.strip(): value.strip() for key, _, value in pairs} | {
            attribute["key"]: attribute["value"] for attribute in of_class
        }

    @property
    def is_protected(self) -> bool:
        """Whether AWS refuses to delete the load balancer, so that the Ingress cannot be deleted either."""
        return self.attributes.get("deletion_protection.enabled") == "true"

    @property
    def is_being_deleted(self) -> bool:
        return bool(self._text("metadata", "deletionTimestamp"))

    @property
    def rule_count(self) -> int:
        """The number of rules that its load balancer gets for it."""
        paths = sum(len(_paths(rule)) for rule in self._rules)
        # A listener that sends everything on to HTTPS has none.
        return 2 * paths if self.is_https and not self.redirects_to_https else paths

    @property
    def values_per_rule(self) -> int:
        """The most values that one of its rules compares a request with."""
        return max((self._values_of(rule, path) for rule in self._rules for path in _paths(rule)), default=0)

    @property
    def address(self) -> str:
        """The load balancer's own name in DNS, or its IP address."""
        entries = get(self.item, ("status", "loadBalancer", "ingress"))
        first = entries[0] if entries and entries is not ABSENT else {}
        return str(first.get("hostname") or first.get("ip") or "")

    def url(self, address: str) -> str:
        """Return where a browser reaches it: at `host`, or where it has none, at `address`. With wildcards
        alone it is no address: DNS says which names below them there are."""
        scheme = "https" if self.is_https else "http"
        if self.hosts and all("*" in host for host in self.hosts):
            return f"{scheme}://{self.hosts[0].replace('*', 'NAME')} (any NAME)"
        host = self.host or address
        return f"{scheme}://{host}" if host else ""

    def target_groups(self, api: Api, namespace: str) -> dict[str, list[str]]:
        """Return the ARNs of the target groups that the controller has made for each of `services`.

        Raises:
            ClusterError: the API server refuses, or does not answer.
        """
        groups: dict[str, list[str]] = {service: [] for service in sorted(self.services)}
        for controller in (AWS_CONTROLLER, AUTO_MODE):
            path = f"/apis/{controller.api_version}/namespaces/{namespace}/targetgroupbindings"
            for binding in api.items(path):
                service = binding["spec"]["serviceRef"]["name"]
                if service in groups:
                    groups[service].append(binding["spec"]["targetGroupARN"])
        return groups

    def _of_group(self) -> dict[str, str]:
        given = {name: self._setting(param, name) for name, param in OF_GROUP.items()}
        given |= {name: ", ".join(sorted(self._list(name))) for name in ("subnets", "security-groups")}
        given |= {f"load-balancer-attributes {key}": text for key, text in self.attributes.items()}
        given |= {f"listen-ports {port}": protocol for port, protocol in self.ports.items()}
        cidrs = ", ".join(sorted(self._limit("inbound-cidrs", "inboundCIDRs")))
        given |= {f"inbound-cidrs of port {port}": cidrs for port in self.ports}
        policy = self._setting("sslPolicy", "ssl-policy")
        given |= {f"ssl-policy of port {port}": policy for port, it in self.ports.items() if it == "HTTPS"}
        return {name: text for name, text in given.items() if text}

    @property
    def _rules(self) -> list[Any]:
        rules = get(self.item, ("spec", "rules"))
        return [] if rules is ABSENT or rules is None else rules

    def _values_of(self, rule: Object, path: Object) -> int:
        """Return how many values a rule compares a request with: host, path, and the conditions that an
        annotation adds for a service."""
        # Of a path the controller makes two values: itself, and all below it.
        values = bool(rule.get("host")) + (1 if path["path"] == "/" else 2)
        service = get(path, ("backend", "service", "name"))
        try:
            conditions = json.loads(self._annotation(f"conditions.{service}") or "[]")
            configs = [
                config for item in conditions for config in item.values() if isinstance(config, Mapping)
            ]
        except (ValueError, TypeError, AttributeError):  # for the controller to refuse
            configs = []
        return values + sum(
            len(config.get(key, ())) for config in configs for key in ("values", "regexValues")
        )

    def _setting(self, param: str, annotation: str) -> str:
        """Return what its class sets, or else it itself."""
        return str(self.params.get(param) or self._annotation(annotation))

    def _limit(self, annotation: str, param: str) -> set[str]:
        of_class = self.params.get(param)
        return (
            {of_class} if isinstance(of_class, str) and of_class else set(of_class or self._list(annotation))
        )

    def _annotation(self, name: str) -> str:
        return self._text("metadata", "annotations", f"{ANNOTATION_PREFIX}{name}")

    def _list(self, annotation: str) -> list[str]:
        return [text for part in self._annotation(annotation).split(",") if (text := part.strip())]

    def _text(self, *path: str) -> str:
        value = get(self.item, path)
        return "" if value is ABSENT or value is None else str(value)


def params_of_class(api: Api, ingress_class: Object | None, controller: Controller) -> Object | None:
    """Return the IngressClassParams that an IngressClass names, None where `controller` knows none.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    reference = get(ingress_class or {}, ("spec", "parameters"))
    group = controller.api_version.partition("/")[0]
    if reference is ABSENT or not reference or reference.get("apiGroup") != group:
        return None
    return api.find(f"/apis/{controller.api_version}/ingressclassparams/{reference['name']}")


def with_params_of_class(api: Api, ingress: Ingress) -> Ingress:
    """Return an Ingress with what its class says, whichever controller that is of.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    ingress_class = api.find(f"/apis/networking.k8s.io/v1/ingressclasses/{ingress.class_name}")
    for controller in (AWS_CONTROLLER, AUTO_MODE):
        if params := params_of_class(api, ingress_class, controller):
            return replace(ingress, params=params.get("spec") or {})
    return ingress


def _paths(rule: Object) -> list[Any]:
    paths = get(rule, ("http", "paths"))
    return [] if paths is ABSENT or paths is None else paths


def commands_to_unprotect(live: Ingress, namespace: str, stack: str, *, is_planned: bool) -> list[str]:
    """Return the commands that switch the protection of a load balancer off.

    Args:
        live: the Ingress in the cluster.
        namespace: of the Ingress.
        stack: the one that has deployed it.
        is_planned: the stack's config still has an Ingress.
    """
    if live.is_being_deleted:  # Helm leaves it alone then; the controller still reads it
        return [
            f"kubectl annotate ingress {live.name} -n {namespace} --overwrite "
            f"{ANNOTATION_PREFIX}load-balancer-attributes=deletion_protection.enabled=false"
        ]
    enable = f"pulumi config set --path 'mern:values.ingress.enabled' true --stack {stack}"
    return [
        *([] if is_planned else [enable]),
        "pulumi config set --path 'mern:values.ingress.loadBalancerAttributes["
        f'"deletion_protection.enabled"]\' false --type string --stack {stack}',
        f"pulumi up --stack {stack}",
    ]
