"""The environments that there are: their stacks in the backend, and what runs of each in the cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pulumi import automation as auto

from components.ingress import Ingress
from components.mern_application import RELEASE
from components.release import Api, ClusterError, record
from components.release.record import Record
from operations.deployed import container_of, workloads_in
from operations.environments.template import Template

TIME = "%Y-%m-%d %H:%M UTC"
DIGEST = len("sha256:") + 12
"""Characters of a digest that are enough to know it by."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What runs of an environment in the cluster."""

    state: str
    """In words, as `revision 3 serves`."""
    is_served: bool = False
    """Whether a revision serves."""
    url: str = ""
    """Empty without an Ingress."""
    has_address: bool = False
    """Whether there is a load balancer."""
    images: Mapping[str, str] = field(default_factory=dict)
    """By the part of the chart."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of a pull request."""

    number: int
    name: str
    """Of its stack and its namespace."""
    changed: datetime | None
    """When its stack was last deployed, or made; None where the backend does not say."""
    is_updating: bool = False

    def is_older_than(self, days: int, now: datetime) -> bool:
        """Return whether its last deployment is more than that many days ago."""
        return self.changed is not None and now - self.changed > timedelta(days=days)


def read(workspace: auto.Workspace, template: Template) -> dict[int, Environment]:
    """Return the environments that have a stack, by the number of the pull request.

    Raises:
        CommandError: the backend cannot be read.
    """
    environments = (
        Environment(
            number=number,
            name=name,
            changed=stack.last_update.replace(tzinfo=UTC) if stack.last_update else None,
            is_updating=bool(stack.update_in_progress),
        )
        for stack in workspace.list_stacks()
        # On Pulumi Cloud the name can have the organization before it.
        if (number := template.number_of(name := stack.name.rsplit("/", 1)[-1])) is not None
    )
    return {item.number: item for item in sorted(environments, key=lambda item: item.number)}


def look(api: Api, namespace: str) -> Serving:
    """Return what runs in the namespace of an environment."""
    try:
        live = api.find(f"/api/v1/namespaces/{namespace}")
        if live is None:
            return Serving(state="nothing runs")
        if held := terminating(live):
            return Serving(state=f"is being deleted: {held}")
        newest = record.newest(api, RELEASE, namespace)
        if newest is None:
            return Serving(state="nothing is deployed")
        serving = record.newest(api, RELEASE, namespace, "deployed")
        if serving is None:
            return Serving(state=f"revision {newest.revision} is {newest.status}")
        return _serving(api, serving, newest)
    except ClusterError as error:
        return Serving(state=f"not known: {error}")


def terminating(namespace: Mapping[str, Any]) -> str:
    """Return what holds up the deletion of a namespace; empty where it is not being deleted."""
    status = namespace.get("status") or {}
    if status.get("phase") != "Terminating":
        return ""
    conditions = status.get("conditions") or []
    held = [item["message"] for item in conditions if item["status"] == "True" and item.get("message")]
    return "; ".join(held) or "its objects go"


def _serving(api: Api, serving: Record, newest: Record) -> Serving:
    state = f"revision {serving.revision} serves"
    if newest.revision != serving.revision:
        state += f", revision {newest.revision} is {newest.status}"
    objects = serving.objects()
    url, address = "", ""
    if ingress := Ingress.rendered(objects):
        live = Ingress.live(api, serving.namespace, ingress.name)
        address = live.address if live else ""
        url = ingress.url(address)
    images = {part: container_of(item)["image"] for part, item in workloads_in(objects)}
    return Serving(state=state, is_served=True, url=url, has_address=bool(address), images=images)


def lines(
    environments: Iterable[Environment], serving: Mapping[str, Serving], template: Template
) -> list[str]:
    """Return the list as text: two or three lines for each environment.

    Args:
        environments: with a stack.
        serving: by the name of the environment.
        template: of all of them.
    """
    texts = []
    environments = list(environments)
    for item in environments:
        at = serving[item.name]
        texts.append(f"{item.name}  {at.state}{'; a run is at work' if item.is_updating else ''}")
        if item.changed:
            until = item.changed + timedelta(days=template.days)
            texts.append(f"    deployed {item.changed:{TIME}}, lives until {until:{TIME}}")
        texts += [f"    {line}" for line in facts(at)]
    texts.append(f"{len(environments)} of at most {template.most} environments ({template.file})")
    return texts


def facts(serving: Serving) -> list[str]:
    """Return where an environment is reached, and what runs."""
    texts = []
    if serving.url:
        texts.append(serving.url if serving.has_address else f"{serving.url} (no load balancer yet)")
    if serving.images:
        texts.append(", ".join(f"{part} {_version(image)}" for part, image in serving.images.items()))
    return texts


def _version(image: str) -> str:
    """Return the tag of an image, or the beginning of its digest."""
    _, at, digest = image.partition("@")
    return digest[:DIGEST] if at else image.rpartition(":")[2]
