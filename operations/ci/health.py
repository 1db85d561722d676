"""Whether a deployment can be reached: Helm's wait takes an Ingress for ready at once."""

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from components.aws import Arn, Aws, AwsError
from components.ingress import ANNOTATION_PREFIX, Ingress, with_params_of_class
from components.ingress_events import last_verdict
from components.release import record
from components.release.kubernetes_api import Api, ClusterError
from components.release.values import ABSENT, get
from operations.ci.report import code, pre

INTERVAL = 10.0  # seconds between two looks
MADE_BY_THE_LOAD_BALANCER = (302, 401, 403)
"""HTTP statuses of a login, of a missing one, and of a web ACL that refuses a request."""


@dataclass(kw_only=True)
class Health:
    """How well an Ingress is served."""

    url: str = ""
    """Where a browser reaches it; empty while that is not known."""
    facts: list[str] = field(default_factory=list)
    """What is as it should be."""
    problems: list[str] = field(default_factory=list)
    """What is not; empty where all is well."""


def wait(
    api: Api, namespace: str, ingress: str, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Health:
    """Look until all is well, for at most `seconds`; return what was seen last."""
    until = time.monotonic() + seconds
    printed = ""
    while True:
        health = look(api, namespace, ingress)
        if not health.problems or time.monotonic() >= until:
            return health
        if (text := "; ".join(health.problems)) != printed:
            print(f"not yet: {text}", flush=True)
            printed = text
        sleep(INTERVAL)


def look(api: Api, namespace: str, name: str) -> Health:
    """Look whether the controller accepts an Ingress, it has an address, the targets of its services are
    healthy, and the load balancer, where it faces the internet, answers a GET of the health check path.

    Args:
        api: the cluster.
        namespace: of the Ingress.
        name: of the Ingress, and of the release that it is part of.
    """
    health = Health()
    try:
        ingress = Ingress.live(api, namespace, name)
    except ClusterError as error:
        health.problems.append(f"Ingress {namespace}/{name} could not be read: {error}")
        return health
    if ingress is None:
        if _release_has_ingress(api, namespace, name):
            health.problems.append(f"Ingress {namespace}/{name} is not found")
        else:
            health.facts.append("the stack has no Ingress: nothing to look at")
        return health
    with contextlib.suppress(ClusterError):  # a class that may not be read
        ingress = with_params_of_class(api, ingress)
    health.url = ingress.url(ingress.address)
    if ingress.address:
        health.facts.append(f"Ingress {name} has the address {ingress.address}")
    else:
        health.problems.append(
            f"Ingress {name} has no address yet: the load balancer controller gives it one"
        )
    try:
        verdict = last_verdict(api, ingress)
        if verdict and not verdict.is_accepted:
            health.problems.append(f"the load balancer controller refuses Ingress {name} {verdict}")
        for service, target_groups in ingress.target_groups(api, namespace).items():
            _look_at_targets(service, target_groups, health)
    except (ClusterError, AwsError) as error:
        health.problems.append(str(error))
    if ingress.address and ingress.is_internet_facing:
        _look_at_answer(api, namespace, ingress, health)
    return health


def _release_has_ingress(api: Api, namespace: str, release: str) -> bool:
    """Whether Helm has deployed an Ingress, as far as is known: its record may not be there."""
    try:
        newest = record.newest(api, release, namespace)
    except ClusterError:
        return True
    return newest is None or Ingress.rendered(newest.objects()) is not None


def _look_at_targets(service: str, target_groups: list[str], health: Health) -> None:
    """Ask AWS for the targets of a service's target groups, which are ARNs."""
    if not target_groups:
        health.problems.append(f"service {service} has no target group yet")
    for arn in target_groups:
        targets = [
            (target["Target"], target["TargetHealth"])
            for target in Aws(Arn.parse(arn).region).target_health(arn)
            # One that is draining belongs to the version before.
            if target["TargetHealth"]["State"] != "draining"
        ]
        if not targets:
            health.problems.append(f"service {service} has no target yet")
            continue
        healthy = sum(state["State"] == "healthy" for _, state in targets)
        if healthy == len(targets):
            health.facts.append(f"service {service}: {healthy} of {healthy} targets are healthy")
        for target, state in targets:
            if state["State"] != "healthy":
                reason = state.get("Description") or state.get("Reason") or "no reason given"
                address = f"{target['Id']}:{target.get('Port', '')}"
                health.problems.append(f"service {service}: target {address} is {state['State']}: {reason}")


def _look_at_answer(api: Api, namespace: str, ingress: Ingress, health: Health) -> None:
    """Ask the load balancer itself: its hosts may not lead to it yet. It need not answer this machine, or not
    as the application would."""
    path, reasons = ingress.health_check_path, list[str]()
    try:
        status = get_status(ingress.address, ingress.host or ingress.address, path, ingress.is_https)
        text = f"GET {path} is answered {status}"
        if status in MADE_BY_THE_LOAD_BALANCER:
            reasons = ingress.limits_of_requests or _limits_of_services(api, namespace, ingress)
        is_fact = 200 <= status < 300 or bool(reasons)
    except (ssl.SSLCertVerificationError, socket.gaierror) as error:  # of no limit of callers
        text, is_fact = f"GET {path} is not answered: {error}", False
    except OSError as error:
        text, reasons = f"GET {path} is not answered: {error}", ingress.limits_of_callers
        is_fact = bool(reasons)
    except http.client.HTTPException as error:
        text, is_fact = f"GET {path} is answered by no HTTP: {type(error).__name__}", False
    if reasons:
        text += f", which {' or '.join(reasons)} may be the reason for"
    (health.facts if is_fact else health.problems).append(text)


def _limits_of_services(api: Api, namespace: str, ingress: Ingress) -> list[str]:
    """Return the annotation by which a Service of an Ingress has its users log in; empty: none has."""
    with contextlib.suppress(ClusterError):
        for service in ingress.services:
            item = api.find(f"/api/v1/namespaces/{namespace}/services/{service}") or {}
            found = get(item, ("metadata", "annotations", f"{ANNOTATION_PREFIX}auth-type"))
            if found is not ABSENT and found != "none":
                return ["auth-type"]
    return []


def get_status(address: str, host: str, path: str, secure: bool, timeout: float = 10) -> int:
    """Return the HTTP status that `address` answers a GET with.

    Args:
        address: a name or an IP address, with or without a port.
        host: whom to ask for; with `secure`, the certificate must be for it.
        path: of the request.
        secure: use HTTPS.
        timeout: seconds to wait for a connection, and for each part of the answer.

    Raises:
        OSError: nobody answers there, or the certificate is another's.
        http.client.HTTPException: the answer is not HTTP.
    """
    name, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    raw = socket.create_connection((name, int(port) if port else 443 if secure else 80), timeout=timeout)
    with contextlib.closing(connection):
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(raw, server_hostname=host) if secure else raw
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


def summary(health: Health, stack: str) -> str:
    """Return the Markdown on a stack's health for the job's summary."""
    where = f": {code(health.url)}" if health.url else ""
    if health.problems:
        text = f"### Stack {code(stack)} cannot be reached as it should{where}\n\n{pre(health.problems)}\n"
    else:
        text = f"### Stack {code(stack)} is reached{where}\n"
    return text + (f"\n{pre(health.facts)}\n" if health.facts else "")
