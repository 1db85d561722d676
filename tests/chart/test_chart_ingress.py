"""The Ingress: one load balancer before both services."""

from __future__ import annotations

from typing import Any

import pytest

from components.ingress import Ingress
from tests.chart.rendering import Chart, Rendered

ALB = "alb.ingress.kubernetes.io"
CERTIFICATES = [
    "arn:aws:acm:eu-central-1:123456789012:certificate/1b2c",
    "arn:aws:iam::123456789012:server-certificate/old/shop",
]


DEFAULT = {
    "scheme": "internet-facing",
    "target-type": "ip",
    "healthcheck-path": "/health",
    "healthcheck-interval-seconds": "15",
    "healthcheck-timeout-seconds": "5",
    "healthy-threshold-count": "2",
    "unhealthy-threshold-count": "2",
    "success-codes": "200",
    "target-group-attributes": "deregistration_delay.timeout_seconds=30",
    "listen-ports": '[{"HTTP":80}]',
}
ONE_HOST = {"hosts": ["shop.example.com"]}
BOTH_PORTS = '[{"HTTP":80},{"HTTPS":443}]'
POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
# Controller v3.5.0, run beside an API server with a moto server in place of AWS; what it made of such
# annotations is said above each.
MADE: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
    # HTTP:80 that answers 404; a rule for the server's paths, then one for the client, IP targets
    "as it comes": ({}, {}),
    # rules by host and path
    "a host": (ONE_HOST, {}),
    # HTTPS:443 with these certificates, HTTP:80 that answers 301
    "tls": (
        {"tls": {"enabled": True, "certificateArns": CERTIFICATES}},
        {
            "listen-ports": BOTH_PORTS,
            "certificate-arn": ",".join(CERTIFICATES),
            "ssl-policy": POLICY,
            "ssl-redirect": "443",
        },
    ),
    # the certificates whose names and wildcards match; HTTP:80 serves as well
    "certificates by host, no redirect": (
        ONE_HOST | {"tls": {"enabled": True, "redirect": False}},
        {"listen-ports": BOTH_PORTS, "ssl-policy": POLICY},
    ),
    # ELBSecurityPolicy-2016-08, its default
    "no policy": (
        ONE_HOST | {"tls": {"enabled": True, "sslPolicy": ""}},
        {"listen-ports": BOTH_PORTS, "ssl-redirect": "443"},
    ),
    # another load balancer, in the private subnets
    "internal": ({"scheme": "internal"}, {"scheme": "internal"}),
    # one load balancer for the members, the lower order first
    "group": ({"group": {"name": "shop", "order": 5}}, {"group.name": "shop", "group.order": "5"}),
    "first of its group": (
        {"group": {"name": "shop", "order": 0}},
        {"group.name": "shop", "group.order": "0"},
    ),
    # as in the annotation; what is taken out stays as it was
    "attributes": (
        {
            "loadBalancerAttributes": {
                "idle_timeout.timeout_seconds": "90",
                "routing.http2.enabled": "false",
            },
            "targetGroupAttributes": {"stickiness.enabled": "true"},
        },
        {
            "load-balancer-attributes": "idle_timeout.timeout_seconds=90,routing.http2.enabled=false",
            "target-group-attributes": "deregistration_delay.timeout_seconds=30,stickiness.enabled=true",
        },
    ),
    # set; a deletion of the Ingress hangs until it is false
    "protected": (
        {"loadBalancerAttributes": {"deletion_protection.enabled": "true"}},
        {"load-balancer-attributes": "deletion_protection.enabled=true"},
    ),
    # set, each of them
    "annotations of one's own": (
        {
            "annotations": {
                f"{ALB}/wafv2-acl-arn": "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/shop/1b2c",
                f"{ALB}/inbound-cidrs": "10.0.0.0/8,192.168.0.0/16",
                f"{ALB}/tags": "team=shop,cost-centre=4711",
                f"{ALB}/subnets": "subnet-1,subnet-2",
            }
        },
        {
            "wafv2-acl-arn": "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/shop/1b2c",
            "inbound-cidrs": "10.0.0.0/8,192.168.0.0/16",
            "tags": "team=shop,cost-centre=4711",
            "subnets": "subnet-1,subnet-2",
        },
    ),
    # NodePort targets
    "nodes": (
        {"targetType": "instance", "zeroDowntime": {"enabled": False}},
        {"target-type": "instance", "target-group-attributes": None},
    ),
}


def alb_annotations(rendered: Rendered) -> dict[str, str]:
    found: dict[str, str] = rendered.one("Ingress", "mern")["metadata"]["annotations"]
    return found


def routes(rendered: Rendered) -> list[tuple[str | None, list[tuple[str, str]]]]:
    """Per host, the paths in their order, each with the Service behind it."""
    return [
        (
            rule.get("host"),
            [(p["path"], p["backend"]["service"]["name"]) for p in rule["http"]["paths"]],
        )
        for rule in rendered.one("Ingress", "mern")["spec"]["rules"]
    ]


@pytest.mark.parametrize(("values", "annotations"), MADE.values(), ids=MADE)
def test_the_annotations_are_those_of_which_the_real_controller_made_what_is_claimed(
    chart: Chart, values: dict[str, Any], annotations: dict[str, str | None]
) -> None:
    expected = {name: text for name, text in (DEFAULT | annotations).items() if text is not None}
    found = alb_annotations(chart.render({"ingress": values}))
    assert found == {f"{ALB}/{name}": text for name, text in expected.items()}


def test_the_server_gets_its_paths_and_the_client_the_rest(chart: Chart) -> None:
    rendered = chart.render({"ingress": {"serverPaths": ["/api", "/auth/v2"]}})
    assert routes(rendered) == [
        (None, [("/api", "mern-server"), ("/auth/v2", "mern-server"), ("/", "mern-client")])
    ]


def test_every_backend_is_a_port_of_a_service_of_the_release(chart: Chart) -> None:
    for release in ("mern", "1.very-long-release-name-that-has-to-be-shortened-ok"):
        rendered = chart.render(release=release)
        ports = {
            (s["metadata"]["name"], p["name"]) for s in rendered.kind("Service") for p in s["spec"]["ports"]
        }
        paths = rendered.one("Ingress", release)["spec"]["rules"][0]["http"]["paths"]
        backends = [path["backend"]["service"] for path in paths]
        assert {(b["name"], b["port"]["name"]) for b in backends} == ports


def test_every_host_has_the_same_routes(chart: Chart) -> None:
    rendered = chart.render({"ingress": {"hosts": ["shop.example.com", "*.shop.example.com"]}})
    paths = [("/api", "mern-server"), ("/", "mern-client")]
    assert routes(rendered) == [("shop.example.com", paths), ("*.shop.example.com", paths)]


def test_class_and_scheme_are_values(chart: Chart) -> None:
    rendered = chart.render({"ingress": {"className": "auto.alb", "scheme": "internal"}})
    assert rendered.one("Ingress", "mern")["spec"]["ingressClassName"] == "auto.alb"
    assert alb_annotations(rendered)[f"{ALB}/scheme"] == "internal"


def test_no_ingress_where_none_is_wanted(chart: Chart) -> None:
    assert chart.render({"ingress": {"enabled": False}}).kind("Ingress") == []


@pytest.mark.parametrize(
    "region", ["aws-cn:acm:cn-north-1", "aws-us-gov:acm:us-gov-west-1", "aws-eusc:acm:eusc-de-east-1"]
)
def test_a_certificate_can_be_of_every_partition(chart: Chart, region: str) -> None:
    arn = f"arn:{region}:123456789012:certificate/1b2c"
    found = alb_annotations(chart.render({"ingress": {"tls": {"enabled": True, "certificateArns": [arn]}}}))
    assert found[f"{ALB}/certificate-arn"] == arn


def test_https_without_certificate_and_host_is_refused(chart: Chart) -> None:
    refusal = chart.refusal({"ingress": {"tls": {"enabled": True}}})
    assert "ingress.tls needs ingress.tls.certificateArns, or ingress.hosts" in refusal


def test_further_annotations_are_added(chart: Chart) -> None:
    extra = {f"{ALB}/tags": "team=shop", "example.com/note": "true"}
    found = alb_annotations(chart.render({"ingress": {"annotations": extra}}))
    assert extra.items() <= found.items()
    assert f"{ALB}/scheme" in found


def test_an_annotation_that_the_chart_composes_is_refused(chart: Chart) -> None:
    refusal = chart.refusal({"ingress": {"annotations": {f"{ALB}/scheme": "internal"}}})
    assert f"ingress.annotations sets {ALB}/scheme, which the chart composes" in refusal


def test_a_service_with_another_health_path_tells_the_load_balancer(chart: Chart) -> None:
    rendered = chart.render({"mernServer": {"probes": {"path": "/api/health"}}})
    server = rendered.one("Service", "mern-server")["metadata"]
    assert server["annotations"] == {f"{ALB}/healthcheck-path": "/api/health"}
    assert "annotations" not in rendered.one("Service", "mern-client")["metadata"]
    assert alb_annotations(rendered)[f"{ALB}/healthcheck-path"] == "/health"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", "public"),
        ("hosts", ["https://shop.example.com"]),
        ("hosts", ["localhost"]),
        ("hosts", ["shop.example.com", "shop.example.com"]),
        ("serverPaths", ["/"]),
        ("serverPaths", ["api"]),
        ("serverPaths", ["/api/*"]),
        ("serverPaths", []),
        ("tls", {"certificateArns": ["arn:aws:s3:::bucket"]}),
        ("annotations", {"alb.ingress.kubernetes.io/tags": 1}),
    ],
)
def test_what_a_load_balancer_would_refuse_is_refused_before(chart: Chart, field: str, value: Any) -> None:
    assert f"/ingress/{field}" in chart.refusal({"ingress": {field: value}})


def test_an_order_without_a_group_is_refused(chart: Chart) -> None:
    assert "give ingress.group.name too" in chart.refusal({"ingress": {"group": {"order": 5}}})


def test_sending_to_nodes_opens_a_port_on_them(chart: Chart) -> None:
    nodes = {"targetType": "instance", "zeroDowntime": {"enabled": False}}
    rendered = chart.render({"ingress": nodes})
    assert alb_annotations(rendered)[f"{ALB}/target-type"] == "instance"
    assert {s["spec"]["type"] for s in rendered.kind("Service")} == {"NodePort"}
    assert {s["spec"]["type"] for s in chart.render().kind("Service")} == {"ClusterIP"}


def test_health_checks_can_differ_per_service(chart: Chart) -> None:
    rendered = chart.render(
        {
            "ingress": {"healthCheck": {"intervalSeconds": 20, "successCodes": "200-299"}},
            "mernServer": {
                "service": {
                    "healthCheck": {"path": "/api/health", "intervalSeconds": 60},
                    "annotations": {"example.com/owner": "shop"},
                }
            },
        }
    )
    found = alb_annotations(rendered)
    assert found[f"{ALB}/healthcheck-interval-seconds"] == "20"
    assert found[f"{ALB}/success-codes"] == "200-299"
    assert rendered.one("Service", "mern-server")["metadata"]["annotations"] == {
        f"{ALB}/healthcheck-path": "/api/health",
        f"{ALB}/healthcheck-interval-seconds": "60",
        "example.com/owner": "shop",
    }
    assert "annotations" not in rendered.one("Service", "mern-client")["metadata"]


def test_the_load_balancer_asks_for_what_makes_a_pod_ready(chart: Chart) -> None:
    rendered = chart.render({"mernClient": {"probes": {"readiness": {"path": "/ready"}}}})
    annotations = rendered.one("Service", "mern-client")["metadata"]["annotations"]
    assert annotations == {f"{ALB}/healthcheck-path": "/ready"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"ingress": {"healthCheck": {"intervalSeconds": 5}}},
            "ingress.healthCheck.timeoutSeconds (5) has to be below intervalSeconds (5)",
        ),
        (
            {"mernServer": {"service": {"healthCheck": {"timeoutSeconds": 15}}}},
            "mernServer.service.healthCheck: timeoutSeconds (15) has to be below",
        ),
        (
            {"mernClient": {"service": {"annotations": {f"{ALB}/success-codes": "200"}}}},
            "mernClient.service.annotations sets alb.ingress.kubernetes.io/success-codes",
        ),
        (
            {"ingress": {"annotations": {f"{ALB}/ssl-redirect": "443"}}},
            f"ingress.annotations sets {ALB}/ssl-redirect",
        ),
    ],
)
def test_a_health_check_or_annotation_that_contradicts_is_refused(
    chart: Chart, values: dict[str, Any], sentence: str
) -> None:
    assert sentence in chart.refusal(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targetType", "pod"),
        ("group", {"name": "Shop"}),
        ("group", {"name": "shop", "order": 1001}),
        ("healthCheck", {"intervalSeconds": 4}),
        ("healthCheck", {"healthyThreshold": 1}),
        ("healthCheck", {"successCodes": "ok"}),
        ("healthCheck", {"interval": 10}),
        ("tls", {"sslPolicy": "TLS1.2"}),
        ("loadBalancerAttributes", {"idle_timeout.timeout_seconds": 60}),
        ("targetGroupAttributes", {"a": "b,c=d"}),
    ],
)
def test_a_setting_that_aws_would_refuse_is_refused_before(chart: Chart, field: str, value: Any) -> None:
    assert f"/ingress/{field}" in chart.refusal({"ingress": {field: value}})


def test_the_program_reads_what_the_chart_writes(chart: Chart) -> None:
    hosts = ["shop.example.com", "*.shop.example.com"]
    values = {
        "hosts": hosts,
        "scheme": "internal",
        "group": {"name": "shared"},
        "healthCheck": {"path": "/alive"},
        "tls": {"enabled": True, "certificateArns": CERTIFICATES},
        "loadBalancerAttributes": {"a": "b", "deletion_protection.enabled": "true"},
        "annotations": {f"{ALB}/subnets": "subnet-1,subnet-2"},
    }
    ingress = Ingress.rendered(chart.render({"ingress": values}).objects)
    assert ingress
    assert (ingress.name, ingress.class_name, ingress.group) == ("mern", "alb", "shared")
    assert ingress.hosts == hosts
    assert ingress.services == {"mern-client", "mern-server"}
    assert (ingress.is_internet_facing, ingress.is_https, ingress.is_protected) == (False, True, True)
    assert ingress.health_check_path == "/alive"
    assert ingress.certificate_arns == CERTIFICATES
    assert ingress.subnets == ["subnet-1", "subnet-2"]
    assert Ingress.rendered(chart.render({"ingress": {"enabled": False}}).objects) is None
