"""Whether a deployment can be reached: what the Ingress, AWS and the load balancer say."""

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.aws import AwsError
from components.release import Api as RealApi
from components.release.kubernetes_api import ApiError, UnreachableError
from operations.ci import health
from operations.ci.health import Health

INGRESSES = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"
BINDINGS = "/apis/elbv2.k8s.aws/v1beta1/namespaces/shop/targetgroupbindings"
ARN = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup/k8s-shop-{}/0a"
ALB = "alb.ingress.kubernetes.io/"


class Api:
    """Answers what it was given."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str, *_: str, **__: str) -> Any:
        if path not in self.answers:
            raise ApiError(404, {"message": "not found"})
        return self.answers[path]

    find = RealApi.find

    def items(self, path: str, **_: str) -> list[Any]:
        return list(self.answers.get(path, []))


def cluster(address: str = "", host: str = "", services: tuple[str, ...] = ("client", "server")) -> Api:
    paths = [{"path": f"/{name}", "backend": {"service": {"name": name}}} for name in ("client", "server")]
    rule = {"http": {"paths": paths}, **({"host": host} if host else {})}
    notes = {f"{ALB}scheme": "internet-facing", f"{ALB}healthcheck-path": "/health"}
    ingress = {
        "metadata": {"name": "mern", "namespace": "shop", "uid": "1", "annotations": notes},
        "spec": {"rules": [rule]},
        "status": {"loadBalancer": {"ingress": [{"hostname": address}]} if address else {}},
    }
    bound = [{"spec": {"serviceRef": {"name": n}, "targetGroupARN": ARN.format(n)}} for n in services]
    bound.append({"spec": {"serviceRef": {"name": "another"}, "targetGroupARN": ARN.format("another")}})
    return Api({f"{INGRESSES}/mern": ingress, BINDINGS: bound})


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """States of the targets of each service, as AWS answers with."""
    states = {"client": ["healthy", "healthy"], "server": ["healthy"]}
    groups = {ARN.format(service): service for service in states}

    class FakeAws:
        def __init__(self, region: str) -> None:
            assert region == "eu-central-1"

        def target_health(self, arn: str) -> list[dict[str, Any]]:
            if arn not in groups:
                raise AwsError("AWS refuses DescribeTargetHealth (AccessDenied): not yours")
            return [
                {
                    "Target": {"Id": f"10.0.0.{number}", "Port": 8080},
                    "TargetHealth": {"State": state, "Reason": "Target.Timeout"},
                }
                for number, state in enumerate(states[groups[arn]], 1)
            ]

    monkeypatch.setattr(health, "Aws", FakeAws)
    return states


@pytest.fixture
def balancer() -> Iterator[dict[str, Any]]:
    """A load balancer on loopback: its address, and the status it answers with."""
    described: dict[str, Any] = {"status": 200, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            described["asked"].append((self.headers["Host"], self.path))
            self.send_response(described["status"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    described["address"] = f"127.0.0.1:{server.server_port}"
    yield described
    server.shutdown()
    server.server_close()


def look(api: Api) -> Health:
    return health.look(api, "shop", "mern")  # type: ignore[arg-type]


def test_all_is_well(targets: dict[str, list[str]], balancer: dict[str, Any]) -> None:
    targets["server"] = ["healthy", "draining"]  # of the version before
    found = look(cluster(balancer["address"], "www.example.com"))
    assert found.problems == []
    assert found.url == "http://www.example.com"
    assert "service client: 2 of 2 targets are healthy" in found.facts
    assert "service server: 1 of 1 targets are healthy" in found.facts
    assert "GET /health is answered 200" in found.facts
    assert balancer["asked"] == [("www.example.com", "/health")]
    text = health.summary(found, "staging")
    assert "is reached" in text
    assert "www.example.com" in text


def test_what_is_not_well_is_named_all_at_once(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    targets["client"] = ["healthy", "unhealthy", "initial"]
    targets["server"] = []
    balancer["status"] = 503
    found = look(cluster(balancer["address"]))
    assert found.problems == [
        "service client: target 10.0.0.2:8080 is unhealthy: Target.Timeout",
        "service client: target 10.0.0.3:8080 is initial: Target.Timeout",
        "service server has no target yet",
        "GET /health is answered 503",
    ]
    assert "cannot be reached" in health.summary(found, "staging")


def test_a_name_is_asked_for_before_a_wildcard(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    api = cluster(balancer["address"], "*.example.com")
    api.answers[f"{INGRESSES}/mern"]["spec"]["rules"].append({"host": "www.example.com"})
    found = look(api)
    assert found.problems == []
    assert found.url == "http://www.example.com"
    assert balancer["asked"] == [("www.example.com", "/health")]


def test_no_address_and_no_target_group_yet(targets: dict[str, list[str]]) -> None:
    found = look(cluster(services=("client",)))
    assert "Ingress mern has no address yet" in found.problems[0]
    assert found.problems[1:] == ["service server has no target group yet"]


def test_an_internal_load_balancer_is_not_asked(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    api = cluster(balancer["address"])
    api.answers[f"{INGRESSES}/mern"]["metadata"]["annotations"][f"{ALB}scheme"] = "internal"
    assert look(api).problems == []
    assert balancer["asked"] == []


@pytest.mark.parametrize(
    ("annotations", "status", "fact"),
    [
        ({"auth-type": "oidc"}, 302, "GET /health is answered 302, which auth-type may be the reason for"),
        ({"auth-type": "cognito"}, 401, "GET /health is answered 401, which auth-type may be the reason for"),
        ({"jwt-validation": "{}"}, 401, "GET /health is answered 401, which jwt-validation may be the reas"),
        (
            {"wafv2-acl-arn": "arn:a"},
            403,
            "GET /health is answered 403, which wafv2-acl-arn may be the reaso",
        ),
        ({"auth-type": "none", "wafv2-acl-arn": "none"}, 302, ""),
        ({"auth-type": "oidc"}, 503, ""),
        ({"inbound-cidrs": "10.0.0.0/8"}, 302, ""),
        ({}, 302, ""),
    ],
)
def test_an_answer_in_place_of_the_application_s_is_a_fact_where_it_is_asked_for(
    targets: dict[str, list[str]],
    balancer: dict[str, Any],
    annotations: dict[str, str],
    status: int,
    fact: str,
) -> None:
    api = cluster(balancer["address"])
    notes = api.answers[f"{INGRESSES}/mern"]["metadata"]["annotations"]
    notes |= {f"{ALB}{key}": text for key, text in annotations.items()}
    balancer["status"] = status

    found = look(api)

    assert found.problems == ([] if fact else [f"GET /health is answered {status}"])
    assert bool(fact) == any(text.startswith(fact or "no") for text in found.facts)


def test_a_service_can_ask_its_users_to_log_in(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    api = cluster(balancer["address"])
    balancer["status"] = 302
    api.answers["/api/v1/namespaces/shop/services/server"] = {
        "metadata": {"annotations": {f"{ALB}auth-type": "oidc"}}
    }

    found = look(api)

    assert found.problems == []
    assert "GET /health is answered 302, which auth-type may be the reason for" in found.facts


def test_a_limit_of_callers_is_no_reason_for_a_name_that_is_not_known(targets: dict[str, list[str]]) -> None:
    api = cluster("lb.invalid")
    api.answers[f"{INGRESSES}/mern"]["metadata"]["annotations"][f"{ALB}inbound-cidrs"] = "10.0.0.0/8"

    assert [text.partition(":")[0] for text in look(api).problems] == ["GET /health is not answered"]


@pytest.mark.parametrize(
    ("annotations", "is_fact"),
    [
        ({"inbound-cidrs": "10.0.0.0/8"}, True),
        ({"security-group-prefix-lists": "pl-1"}, True),
        ({"security-groups": "sg-1"}, True),
        ({"mutual-authentication": '[{"port": 443, "mode": "verify"}]'}, True),
        ({"inbound-cidrs": "0.0.0.0/0, ::/0"}, False),
        ({"auth-type": "oidc"}, False),
    ],
)
def test_a_load_balancer_that_does_not_answer_this_machine_may_be_meant_so(
    targets: dict[str, list[str]], annotations: dict[str, str], is_fact: bool
) -> None:
    api = cluster("127.0.0.1:1")
    notes = api.answers[f"{INGRESSES}/mern"]["metadata"]["annotations"]
    notes |= {f"{ALB}{key}": text for key, text in annotations.items()}

    found = look(api)

    of_get = [text for text in (found.facts if is_fact else found.problems) if text.startswith("GET")]
    assert len(of_get) == 1
    assert (f", which {next(iter(annotations))} may be the reason for" in of_get[0]) == is_fact
    assert bool(found.problems) != is_fact


def test_what_the_class_says_counts(targets: dict[str, list[str]], balancer: dict[str, Any]) -> None:
    api = cluster("127.0.0.1:1")
    api.answers[f"{INGRESSES}/mern"]["spec"]["ingressClassName"] = "alb"
    reference = {"apiGroup": "elbv2.k8s.aws", "kind": "IngressClassParams", "name": "ours"}
    spec = {"controller": "ingress.k8s.aws/alb", "parameters": reference}
    api.answers["/apis/networking.k8s.io/v1/ingressclasses/alb"] = {"spec": spec}
    params: dict[str, Any] = {"metadata": {"name": "ours"}, "spec": {"inboundCIDRs": ["10.0.0.0/8"]}}
    api.answers["/apis/elbv2.k8s.aws/v1beta1/ingressclassparams/ours"] = params

    assert look(api).problems == []
    params["spec"] = {"scheme": "internal"}
    assert not any("GET" in text for text in look(api).facts)


def event(reason: str, message: str, at: str = "10:00:05", **more: Any) -> dict[str, Any]:
    kind = "Normal" if reason == "SuccessfullyReconciled" else "Warning"
    return {"type": kind, "reason": reason, "message": message, "lastTimestamp": f"2026-01-01T{at}Z", **more}


def test_what_the_controller_refuses_is_named(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    """The texts are the controller's own: Helm takes an Ingress for ready at once, and an `up` was a success
    with the old address."""
    api = cluster(balancer["address"])
    refused = "Failed build model due to ingress: shop/mern: failed to parse stringMap annotation"
    events = api.answers["/api/v1/namespaces/shop/events"] = [
        event("SuccessfullyReconciled", "Successfully reconciled", "10:00:01"),
        event("FailedBuildModel", refused),
        event("BadConfig", "of another program", "10:00:09"),
    ]

    assert look(api).problems == [
        "the load balancer controller refuses Ingress mern (FailedBuildModel, 2026-01-01 10:00:05 UTC): "
        + refused
    ]
    # It is another model since.
    changed = {"time": "2026-01-01T10:00:06Z", "fieldsV1": {"f:spec": {}}}
    held = {"time": "2026-01-01T10:00:10Z", "fieldsV1": {"f:metadata": {"f:finalizers": {}}}}
    api.answers[f"{INGRESSES}/mern"]["metadata"]["managedFields"] = [changed, held]
    assert look(api).problems == []
    del api.answers[f"{INGRESSES}/mern"]["metadata"]["managedFields"]
    events.append(event("SuccessfullyReconciled", "Successfully reconciled", "10:00:05"))
    assert look(api).problems == []


def test_what_cannot_be_asked_is_a_problem(targets: dict[str, list[str]]) -> None:
    api = cluster("127.0.0.1:1")
    for item in api.answers[BINDINGS]:
        item["spec"]["targetGroupARN"] += "b"
    found = look(api)
    assert "AWS refuses DescribeTargetHealth (AccessDenied): not yours" in found.problems
    assert any("GET /health is not answered" in text for text in found.problems)
    assert look(Api({})).problems == ["Ingress shop/mern is not found"]


def test_a_cluster_that_does_not_answer_for_a_moment_is_waited_for(
    targets: dict[str, list[str]], balancer: dict[str, Any]
) -> None:
    class Restarting(Api):
        def get(self, path: str, *_: str, **__: str) -> Any:
            if not slept:
                raise UnreachableError("no connection to https://cluster.example")
            return super().get(path)

    slept: list[float] = []
    api: Any = Restarting(cluster(balancer["address"]).answers)
    assert health.wait(api, "shop", "mern", 0, slept.append).problems == [
        "Ingress shop/mern could not be read: no connection to https://cluster.example"
    ]
    assert health.wait(api, "shop", "mern", 60, slept.append).problems == []
    assert len(slept) == 1


@pytest.mark.parametrize(("manifest", "is_fine"), [("{kind: Service}", True), ("{kind: Ingress}", False)])
def test_a_stack_without_an_ingress_has_nothing_to_wait_for(manifest: str, is_fine: bool) -> None:
    release = {"name": "mern", "version": 1, "info": {"status": "deployed"}, "manifest": manifest}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    meta = {"namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"version": "1"}}
    secrets = "/api/v1/namespaces/shop/secrets"
    secret = {"metadata": meta, "data": {"release": packed}}
    found = look(Api({secrets: {"items": [secret]}, f"{secrets}/sh.helm.release.v1.mern.v1": secret}))
    assert (found.problems == []) == is_fine
    assert found.facts == (["the stack has no Ingress: nothing to look at"] if is_fine else [])


def test_it_is_waited_for(targets: dict[str, list[str]], balancer: dict[str, Any]) -> None:
    targets["client"] = ["initial"]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            targets["client"] = ["healthy"]

    api: Any = cluster(balancer["address"])
    assert health.wait(api, "shop", "mern", 60, sleep).problems == []
    assert len(slept) == 2
    targets["client"] = ["unhealthy"]
    assert health.wait(api, "shop", "mern", 0, sleep).problems
    assert len(slept) == 2
