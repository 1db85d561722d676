"""What an Ingress says to the load balancer controller, and what became of it."""

from typing import Any

import pytest

from components.ingress import Ingress
from components.release.kubernetes_api import Api, ApiError

PREFIX = "alb.ingress.kubernetes.io/"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"


def ingress(*hosts: str, address: Any = None, **annotations: str) -> Ingress:
    """An Ingress; the names of its annotations have underscores for hyphens."""
    return Ingress(
        {
            "kind": "Ingress",
            "metadata": {
                "name": "mern",
                "annotations": {
                    f"{PREFIX}{key.replace('_', '-')}": text for key, text in annotations.items()
                },
            },
            "spec": {"rules": [{"host": host} for host in hosts]},
            "status": {"loadBalancer": {"ingress": address}},
        }
    )


def test_it_is_the_one_ingress_of_a_release() -> None:
    item = ingress().item
    assert Ingress.rendered([{"kind": "Service"}, item]) == Ingress(item)
    assert Ingress.rendered([{"kind": "Service"}]) is None


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "Ingress"},
        {"kind": "Ingress", "metadata": {"annotations": None}, "spec": {"rules": None}, "status": {}},
        {"kind": "Ingress", "metadata": {}, "spec": {"rules": [{}]}, "status": {"loadBalancer": {}}},
    ],
)
def test_what_an_ingress_does_not_say_is_empty(item: dict[str, Any]) -> None:
    bare = Ingress(item)
    assert (bare.name, bare.class_name, bare.group, bare.host, bare.address) == ("", "", "", "", "")
    assert (bare.hosts, bare.certificate_arns, bare.subnets, bare.services) == ([], [], [], set())
    assert not bare.is_https
    assert not bare.is_protected
    # As the controller takes it.
    assert not bare.is_internet_facing
    assert bare.health_check_path == "/"
    assert bare.url("") == ""


@pytest.mark.parametrize(
    ("hosts", "address", "url"),
    [
        ((), "lb.example", "https://lb.example"),
        (("shop.example.com",), "lb.example", "https://shop.example.com"),
        (("shop.example.com", "www.example.com"), "", "https://shop.example.com"),
        (("*.example.com", "shop.example.com"), "lb.example", "https://shop.example.com"),
        # Which names DNS leads here, nobody but its owner knows.
        (("*.example.com", "*.example.org"), "lb.example", "https://NAME.example.com (any NAME)"),
    ],
)
def test_a_browser_reaches_it_by_its_first_host_or_by_its_address(
    hosts: tuple[str, ...], address: str, url: str
) -> None:
    https = ingress(*hosts, listen_ports='[{"HTTP":80},{"HTTPS":443}]')
    assert https.url(address) == url
    assert https.hosts == list(hosts)
    assert ingress(*hosts, listen_ports='[{"HTTP":80}]').url(address) == url.replace("https", "http")


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        ((), ""),
        (("a.example", "*.example.com"), "a.example"),
        (("*.example.com", "shop.example.com"), "shop.example.com"),
        (("*.example.com", "*.example.org"), "www.example.com"),
    ],
)
def test_the_health_check_asks_for_a_name_that_the_load_balancer_answers_to(
    hosts: tuple[str, ...], host: str
) -> None:
    """With a host `*.example.com` it asked for that, to which no certificate and no server is for."""
    assert ingress(*hosts).host == host


@pytest.mark.parametrize(
    ("entries", "address"),
    [
        ([{"hostname": "lb.example", "ip": "10.0.0.1"}], "lb.example"),
        ([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "10.0.0.1"),
        ([], ""),
        (None, ""),
    ],
)
def test_its_address_is_that_of_the_load_balancer(entries: Any, address: str) -> None:
    assert ingress(address=entries).address == address


def test_annotations_with_several_values_are_taken_apart() -> None:
    several = ingress(
        certificate_arn="arn:a, arn:b",
        subnets="subnet-1,subnet-2",
        load_balancer_attributes="idle_timeout.timeout_seconds=60,deletion_protection.enabled=true",
    )
    assert several.certificate_arns == ["arn:a", "arn:b"]
    assert several.subnets == ["subnet-1", "subnet-2"]
    assert several.attributes["idle_timeout.timeout_seconds"] == "60"
    assert several.is_protected
    assert ingress(load_balancer_attributes="deletion_protection.enabled = true").is_protected
    assert not ingress(load_balancer_attributes="deletion_protection.enabled=false").is_protected


def test_what_its_class_says_goes_before_its_annotations() -> None:
    own = ingress(
        scheme="internal",
        certificate_arn="arn:a",
        subnets="subnet-1",
        load_balancer_attributes="deletion_protection.enabled=true,idle_timeout.timeout_seconds=60",
    )
    of_class = {
        "scheme": "internet-facing",
        "group": {"name": "all"},
        "certificateArn": ["arn:b"],
        "subnets": {"tags": {"tier": ["edge"]}},
        "ipAddressType": "dualstack",
        "loadBalancerAttributes": [{"key": "deletion_protection.enabled", "value": "false"}],
    }
    both = Ingress(own.item, of_class)

    assert (own.scheme, both.scheme) == ("internal", "internet-facing")
    assert (own.group, both.group) == ("", "all")
    assert (own.certificate_arns, both.certificate_arns) == (["arn:a"], ["arn:b"])
    assert (own.subnets, both.subnets) == (["subnet-1"], [])
    assert both.subnet_tags_of_class == {"tier": ["edge"]}
    assert (own.needs_ipv6, both.needs_ipv6) == (False, True)
    assert (own.is_protected, both.is_protected) == (True, False)
    assert both.attributes["idle_timeout.timeout_seconds"] == "60"
    assert Ingress(own.item, {"certificateARNs": ["arn:c"]}).certificate_arns == ["arn:c"]  # EKS Auto Mode


@pytest.mark.parametrize(("scheme", "role"), [("internet-facing", "elb"), ("internal", "internal-elb")])
def test_the_scheme_decides_which_subnets_it_needs(scheme: str, role: str) -> None:
    assert ingress(scheme=scheme).subnet_tag == f"kubernetes.io/role/{role}"


class FakeApi:
    """An API server that has `answers`, path to object or error."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str) -> Any:
        if path not in self.answers:
            raise ApiError(404, {})
        if isinstance(self.answers[path], Exception):
            raise self.answers[path]
        return self.answers[path]

    find = Api.find

    def items(self, path: str) -> list[Any]:
        return list(self.answers.get(path, []))


def test_one_that_is_not_in_the_cluster_is_none_and_one_that_may_not_be_read_an_error() -> None:
    item = ingress().item
    api: Any = FakeApi({f"{INGRESSES}/mern": item, f"{INGRESSES}/hidden": ApiError(403, {})})
    assert Ingress.live(api, "shop", "mern") == Ingress(item)
    assert Ingress.live(api, "shop", "another") is None
    with pytest.raises(ApiError):
        Ingress.live(api, "shop", "hidden")


def test_target_groups_are_those_of_its_services_by_either_controller() -> None:
    def binding(service: str, arn: str) -> dict[str, Any]:
        return {"spec": {"serviceRef": {"name": service}, "targetGroupARN": arn}}

    backends = [{"backend": {"service": {"name": name}}} for name in ("server", "client", "idle")]
    paths = [*backends, {"backend": {"resource": {"name": "no service"}}}]
    routed = Ingress({"kind": "Ingress", "spec": {"rules": [{"http": {"paths": paths}}]}})
    bindings = "namespaces/shop/targetgroupbindings"
    api: Any = FakeApi(
        {
            f"/apis/elbv2.k8s.aws/v1beta1/{bindings}": [binding("client", "a"), binding("another", "b")],
            f"/apis/eks.amazonaws.com/v1/{bindings}": [binding("client", "c"), binding("server", "d")],
        }
    )
    assert routed.services == {"client", "idle", "server"}
    assert routed.target_groups(api, "shop") == {"client": ["a", "c"], "idle": [], "server": ["d"]}
