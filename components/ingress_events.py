"""What the load balancer controller says of an Ingress, by its events: Helm waits for no Ingress."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from components.ingress import Ingress
from components.release import Api
from components.release.manifest import Object
from components.release.values import ABSENT, get

ACCEPTED = "SuccessfullyReconciled"
"""The reason of its event where the load balancer is as the Ingress asks for."""
REFUSED = "Failed"
"""How the reasons begin of its events where it is not, as in FailedBuildModel and FailedDeployModel."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the controller has said of an Ingress."""

    reason: str
    message: str
    at: datetime

    @property
    def is_accepted(self) -> bool:
        return self.reason == ACCEPTED

    @property
    def is_final(self) -> bool:
        """Whether the controller does not come to another one by itself in a moment, as after a conflict."""
        return self.is_accepted or self.reason == "FailedBuildModel"

    def __str__(self) -> str:
        return f"({self.reason}, {self.at:%Y-%m-%d %H:%M:%S UTC}): {self.message}"


def last_verdict(api: Api, ingress: Ingress) -> Verdict | None:
    """Return the last verdict on an Ingress as it is now, None where there is none: events go after an hour.

    Args:
        api: of the cluster.
        ingress: in the cluster.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    events = api.items(
        f"/api/v1/namespaces/{ingress.namespace}/events", fieldSelector=f"involvedObject.uid={ingress.uid}"
    )
    changed = _last_change(ingress)
    verdicts = [
        verdict
        for verdict in map(_verdict, events)
        if verdict is not None and (changed is None or verdict.at >= changed)
    ]
    # Times are in seconds: what it refused and then accepted in one of them, it accepts.
    return max(verdicts, key=lambda it: (it.at, it.is_accepted), default=None)


def _last_change(ingress: Ingress) -> datetime | None:
    """Return when an Ingress was last changed by others than the controller, None where that is not known."""
    entries = get(ingress.item, ("metadata", "managedFields"))
    times = [
        datetime.fromisoformat(entry["time"])
        for entry in (entries if entries is not ABSENT else None) or ()
        if "time" in entry and _is_of_its_model(entry.get("fieldsV1") or {})
    ]
    return max(times, default=None)


def _is_of_its_model(fields: Mapping[str, Object]) -> bool:
    """Return whether the load balancer depends on such fields: not on finalizers and status, which the
    controller itself sets."""
    return "f:spec" in fields or "f:annotations" in fields.get("f:metadata", {})


def _verdict(event: Object) -> Verdict | None:
    """Return what an event says, None where it is no verdict, but another program's, say."""
    reason, time = event.get("reason", ""), event.get("lastTimestamp") or event.get("eventTime")
    is_refusal = event.get("type") == "Warning" and reason.startswith(REFUSED)
    if not time or not (is_refusal or reason == ACCEPTED):
        return None
    at = datetime.fromisoformat(time).astimezone(UTC)
    return Verdict(reason=reason, message=event.get("message", "").strip(), at=at)
