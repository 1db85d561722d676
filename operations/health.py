"""Whether a deployment can be reached: Helm's wait takes an Ingress for ready at once."""

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from components.aws import Aws, AwsError
from components.release import record
from components.release.api import Api, ApiError
from operations.report import code, pre

ALB = "alb.ingress.kubernetes.io/"
# The controller's own kind, and that of EKS Auto Mode.
BINDINGS = ("elbv2.k8s.aws/v1beta1", "eks.amazonaws.com/v1")
EVERY = 10.0  # seconds between two looks


@dataclass(kw_only=True)
class Health:
    """What was found of one Ingress."""

    url: str = ""
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is not as it should be; empty where all is well."""


def wait(
    api: Api, namespace: str, ingress: str, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Health:
    """Look until all is well, for at most `seconds`; the last of what was found."""
    until = time.monotonic() + seconds
    said = ""
    while True:
        health = look(api, namespace, ingress)
        if not health.problems or time.monotonic() >= until:
            return health
        if (text := "; ".join(health.problems)) != said:
            print(f"not yet: {text}", flush=True)
            said = text
        sleep(EVERY)


def _has_ingress(api: Api, namespace: str, release: str) -> bool:
    """Whether what was deployed has one."""
    try:
        newest = record.newest(api, release, namespace)
    except ApiError:
        return True
    return newest is None or any(item["kind"] == "Ingress" for item in newest.objects())


def look(api: Api, namespace: str, name: str) -> Health:
    """The Ingress has an address, every target of its services is healthy, and one GET of the health
    path is answered where the load balancer faces the internet."""
    health = Health()
    try:
        ingress = api.get(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}")
    except ApiError as error:
        if error.code == 404 and not _has_ingress(api, namespace, name):
            health.facts.append("the stack has no Ingress: nothing to look at")
        else:
            health.problems.append(f"Ingress {namespace}/{name}: {error}")
        return health
    entries = ingress.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    address = entries[0].get("hostname") or entries[0].get("ip") or ""
    notes = ingress["metadata"].get("annotations") or {}
    rules = ingress["spec"].get("rules") or []
    host = next((rule["host"] for rule in rules if rule.get("host")), "")
    secure = "HTTPS" in notes.get(f"{ALB}listen-ports", "")
    health.url = f"{'https' if secure else 'http'}://{host or address}/" if host or address else ""
    if address:
        health.facts.append(f"Ingress {name} has the address {address}")
    else:
        health.problems.append(
            f"Ingress {name} has no address yet: the load balancer controller gives it one"
        )
    services = {
        path["backend"]["service"]["name"]
        for rule in rules
        for path in rule.get("http", {}).get("paths", [])
        if "service" in path["backend"]
    }
    try:
        _targets(api, namespace, services, health)
    except (ApiError, AwsError) as error:
        health.problems.append(str(error))
    if address and notes.get(f"{ALB}scheme") == "internet-facing":
        _answer(address, host, secure, notes.get(f"{ALB}healthcheck-path", "/"), health)
    return health


def _targets(api: Api, namespace: str, services: set[str], health: Health) -> None:
    """The controller binds a target group to each service, and writes down which."""
    groups: dict[str, list[str]] = {service: [] for service in services}
    for version in BINDINGS:
        for item in api.items(f"/apis/{version}/namespaces/{namespace}/targetgroupbindings"):
            service = item["spec"]["serviceRef"]["name"]
            if service in groups:
                groups[service].append(item["spec"]["targetGroupARN"])
    for service, arns in sorted(groups.items()):
        if not arns:
            health.problems.append(f"service {service} has no target group yet")
        for arn in arns:
            _states(service, arn, health)


def _states(service: str, arn: str, health: Health) -> None:
    found = Aws(arn.split(":")[3]).target_health(arn)
    # One that is draining belongs to the version before.
    states = [item for item in found if item["TargetHealth"]["State"] != "draining"]
    if not states:
        health.problems.append(f"service {service} has no target yet")
        return
    well = sum(item["TargetHealth"]["State"] == "healthy" for item in states)
    if well == len(states):
        health.facts.append(f"service {service}: {well} of {well} targets are healthy")
    for item in states:
        state = item["TargetHealth"]
        if state["State"] != "healthy":
            why = state.get("Description") or state.get("Reason") or "no reason given"
            target = f"{item['Target']['Id']}:{item['Target'].get('Port', '')}"
            health.problems.append(f"service {service}: target {target} is {state['State']}: {why}")


def _answer(address: str, host: str, secure: bool, path: str, health: Health) -> None:
    """Ask the load balancer itself: the name may not lead to it yet."""
    try:
        status = get(address, host or address, path, secure)
    except OSError as error:
        health.problems.append(f"GET {path} is not answered: {error}")
        return
    except http.client.HTTPException as error:
        health.problems.append(f"GET {path} is answered by no HTTP: {type(error).__name__}")
        return
    text = f"GET {path} is answered {status}"
    (health.facts if 200 <= status < 300 else health.problems).append(text)


def get(address: str, host: str, path: str, secure: bool, timeout: float = 10) -> int:
    """The status that `address` answers to a GET as `host`; its certificate must be that of `host`."""
    name, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    raw = socket.create_connection((name, int(port) if port else 443 if secure else 80), timeout=timeout)
    with contextlib.closing(connection):
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(raw, server_hostname=host) if secure else raw
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


def summary(health: Health, stack: str) -> str:
    """For the job's summary."""
    where = f": {code(health.url)}" if health.url else ""
    if health.problems:
        text = f"### Stack {code(stack)} cannot be reached as it should{where}\n\n{pre(health.problems)}\n"
    else:
        text = f"### Stack {code(stack)} is reached{where}\n"
    return text + (f"\n{pre(health.facts)}\n" if health.facts else "")
