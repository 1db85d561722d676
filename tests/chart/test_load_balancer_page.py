"""The examples of docs/load-balancer.md are config of a stack, and render to what the controller reads."""

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from lightkube import codecs

from components.load_balancer_controller import VERSION
from components.release.values import merged
from sandbox.engine import PROJECT
from settings import Settings
from tests.chart.rendering import Chart, Object
from tests.conftest import TestCluster
from tests.unit.test_preflight import CLASSES, OF_AWS, check

PAGE = (PROJECT / "docs/load-balancer.md").read_text()
EXAMPLES = {
    section.partition("\n")[0]: yaml.safe_load(block)["config"]
    for section in PAGE.split("\n## ")
    for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
}
ALB = "alb.ingress.kubernetes.io/"
PRODUCTION = yaml.safe_load((PROJECT / "Pulumi.production.yaml").read_text())["config"]
CREDENTIALS = {
    "mern:mongodbUri": "mongodb://mongo.example/shop",
    "mern:awsAccessKeyId": "value-of-key-id",
    "mern:awsSecretAccessKey": "value-of-secret-key",
}


# -- the grammar, as docs/guide/ingress/annotations.md of controller 3.5.0 gives it -------------------------


def string(text: str) -> None:
    assert text


def integer(text: str) -> None:
    int(text)


def string_list(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    assert all(items)
    return items


def cidrs(text: str) -> None:
    for item in string_list(text):
        ipaddress.ip_network(item)


def arn_of(service: str) -> Callable[[str], None]:
    def parse(text: str) -> None:
        for item in string_list(text):
            assert re.fullmatch(rf"arn:aws:{service}:[a-z0-9-]+:[0-9]{{12}}:\S+", item), item

    return parse


def string_map(text: str) -> None:
    assert all(re.fullmatch(r"[^=\s]+=[^=]+", item) for item in string_list(text))


def one_of(*choices: str) -> Callable[[str], None]:
    def parse(text: str) -> None:
        assert text in choices

    return parse


def json_with(*keys: str) -> Callable[[str], None]:
    def parse(text: str) -> None:
        value = json.loads(text)
        assert value.keys() == set(keys)
        assert all(value.values())

    return parse


def ports(text: str) -> None:
    assert all(item.keys() <= {"HTTP", "HTTPS"} for item in json.loads(text))


def scopes(text: str) -> None:
    assert set(text.split()) <= {"phone", "email", "profile", "openid", "aws.cognito.signin.user.admin"}


BOTH, INGRESS = {"Ingress", "Service"}, {"Ingress"}
GRAMMAR: dict[str, tuple[Callable[[str], Any], set[str]]] = {
    "auth-idp-cognito": (json_with("userPoolARN", "userPoolClientID", "userPoolDomain"), BOTH),
    "auth-idp-oidc": (
        json_with("issuer", "authorizationEndpoint", "tokenEndpoint", "userInfoEndpoint", "secretName"),
        BOTH,
    ),
    "auth-on-unauthenticated-request": (one_of("authenticate", "allow", "deny"), BOTH),
    "auth-scope": (scopes, BOTH),
    "auth-type": (one_of("none", "oidc", "cognito"), BOTH),
    "certificate-arn": (arn_of("acm"), INGRESS),
    "group.name": (string, INGRESS),
    "group.order": (integer, INGRESS),
    "healthcheck-interval-seconds": (integer, BOTH),
    "healthcheck-path": (string, BOTH),
    "healthcheck-timeout-seconds": (integer, BOTH),
    "healthy-threshold-count": (integer, BOTH),
    "inbound-cidrs": (cidrs, INGRESS),
    "ip-address-type": (one_of("ipv4", "dualstack", "dualstack-without-public-ipv4"), INGRESS),
    "listen-ports": (ports, INGRESS),
    "load-balancer-attributes": (string_map, INGRESS),
    "scheme": (one_of("internal", "internet-facing"), INGRESS),
    "shield-advanced-protection": (one_of("true", "false"), INGRESS),
    "ssl-policy": (string, INGRESS),
    "ssl-redirect": (integer, INGRESS),
    "success-codes": (string, BOTH),
    "target-group-attributes": (string_map, BOTH),
    "target-type": (one_of("instance", "ip"), BOTH),
    "unhealthy-threshold-count": (integer, BOTH),
    "wafv2-acl-arn": (arn_of("wafv2"), INGRESS),
}
"""What may stand in an annotation, and on which kinds of objects the controller reads it."""
OF_OTHERS = {"external-dns.kubernetes.io/ttl": integer}


def of_controller(item: Object) -> Iterator[tuple[str, str]]:
    for name, text in item["metadata"].get("annotations", {}).items():
        if name.startswith(ALB):
            yield name.removeprefix(ALB), text


def hold_to_grammar(item: Object) -> None:
    for name, text in of_controller(item):
        assert name in GRAMMAR, name
        parse, kinds = GRAMMAR[name]
        parse(text)
        assert item["kind"] in kinds
    notes = dict(of_controller(item))
    if "auth-type" in notes:
        assert f"auth-idp-{notes['auth-type']}" in notes
        assert item["kind"] == "Service" or "HTTPS" in notes["listen-ports"]
    if "stickiness.enabled=true" in notes.get("target-group-attributes", ""):
        assert notes["target-type"] == "ip"


def test_the_page_is_of_the_pinned_controller() -> None:
    """Its examples are held to that version's documentation, and it says how to raise it."""
    assert len(EXAMPLES) == PAGE.count("```yaml") == 9
    assert f"version {VERSION} allows" in PAGE.replace("\n", " ")
    assert f"Pinned is {VERSION}." in PAGE
    assert f"diff v{VERSION} v" in PAGE


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_is_a_stacks_config_that_renders_to_what_the_controller_reads(
    chart: Chart, cluster: TestCluster, title: str
) -> None:
    """An API server accepts the objects, and the checks before a deployment refuse nothing."""
    config = merged(PRODUCTION, EXAMPLES[title])
    texts = {
        key.removeprefix("mern:"): value if isinstance(value, str) else json.dumps(value)
        for key, value in (config | CREDENTIALS).items()
        if key.startswith("mern:")
    }
    settings = Settings.parse(texts, {key.removeprefix("mern:") for key in CREDENTIALS}, "production")
    rendered = chart.render(settings.values, namespace="default")
    objects = [*rendered.kind("Ingress"), *rendered.kind("Service")]
    assert len(objects) == 3
    for item in objects:
        hold_to_grammar(item)
        cluster.client.apply(codecs.from_dict(item), field_manager="tests", dry_run=True)

    ingress = rendered.one("Ingress", "mern")
    given = EXAMPLES[title]["mern:values"]["ingress"].get("annotations", {})
    assert given.items() <= ingress["metadata"]["annotations"].items()
    for name, text in given.items():
        if not name.startswith(ALB):
            OF_OTHERS[name](text)

    checks = {"loadBalancerController": {"mode": "install"}, "checks": {"ingressClass": True}}
    assert not check([ingress], checks, in_cluster={CLASSES: OF_AWS})


def test_a_login_can_be_of_one_service_alone(chart: Chart) -> None:
    (title,) = (title for title in EXAMPLES if "Cognito" in title)
    values = EXAMPLES[title]["mern:values"]
    login = values["ingress"]["annotations"]
    moved = {
        "ingress": values["ingress"] | {"annotations": {}},
        "mernServer": {"service": {"annotations": login}},
    }
    rendered = chart.render(moved)
    hold_to_grammar(rendered.one("Service", "mern-server"))
    assert login.items() <= rendered.one("Service", "mern-server")["metadata"]["annotations"].items()
    assert not login.keys() & rendered.one("Ingress", "mern")["metadata"]["annotations"].keys()


def test_what_the_controller_would_refuse_fails_here(chart: Chart) -> None:
    """The grammar is no rubber stamp."""
    for name, text in (
        ("auth-idp-cognito", '{"userPoolArn": "a", "userPoolClientID": "b", "userPoolDomain": "c"}'),
        ("auth-type", "cognito"),  # on plain HTTP
        ("inbound-cidrs", "203.0.113.1/24"),
        ("ip-address-type", "ipv6"),
        ("wafv2-acl-arn", "shop"),
        ("wafv2-acl", "none"),
    ):
        values = {"ingress": {"annotations": {f"{ALB}{name}": text}}}
        with pytest.raises((AssertionError, ValueError, KeyError)):
            hold_to_grammar(chart.render(values).one("Ingress", "mern"))
