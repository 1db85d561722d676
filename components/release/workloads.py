"""The objects of a release that Helm waits for, as they are, and what keeps each from being ready.

Which these are, and when Helm takes one for ready, is in `pkg/kube/ready.go` and `client.go` of Helm 3.18.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .kubernetes_api import Api
from .manifest import (
    HOOKS_OF_AN_INSTALLATION,
    HOOKS_OF_AN_UPGRADE,
    Object,
    group_of,
    hook_phases,
    is_hook,
)

WITH_PODS = {
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("", "ReplicationController"),
    ("", "Pod"),
}
WITHOUT_PODS = {
    ("", "PersistentVolumeClaim"),
    ("", "Service"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
}
AS_HOOKS = {("batch", "Job"), ("", "Pod")}
"""Hooks are waited for until they have ended; a Job that is no hook is not waited for."""
HOOKS_OF_A_DEPLOYMENT = HOOKS_OF_AN_INSTALLATION | HOOKS_OF_AN_UPGRADE
LOG_LINES = 10

IMAGE_FAULTS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
START_FAULTS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")

# What to look at, by a word in what Kubernetes says; the first that fits.
HINTS = {
    "violates PodSecurity": "the namespace enforces a stricter Pod Security Standard than the pods keep",
    "runAsNonRoot": "the image runs as root, or as a user without a number: give it a numeric USER",
    "InvalidImageName": "the image's name is malformed",
    "ImagePullBackOff": "is the tag pushed, is the repository right, may the nodes pull it?",
    "ErrImagePull": "is the tag pushed, is the repository right, may the nodes pull it?",
    "OOMKilled": "it wants more memory than its limit",
    "exceeded quota": "ask for less, or raise the namespace's ResourceQuota",
    "Insufficient": "the nodes are full: ask for less, or add nodes",
    "no storage class is set": "the cluster has no default StorageClass: name one, or make one the default",
    "waiting for first consumer": "its StorageClass binds it when a pod uses it, and none does",
}


@dataclass(kw_only=True)
class Cause:
    """A reason why pods of a workload, or all of it, are not ready."""

    text: str
    """In a few words, as in `cannot be scheduled`."""
    detail: str = ""
    """In Kubernetes' own words, and what to look at."""
    pod: str = ""
    """One pod of those it is true of."""
    container: str = ""
    """Whose log may tell more."""
    pods: int = 0
    log: str = ""
    """The container's last lines; see `read_log`."""

    def __str__(self) -> str:
        count = {0: "", 1: "1 pod "}.get(self.pods, f"{self.pods} pods ")
        return count + self.text


@dataclass(kw_only=True)
class Workload:
    """One object that Helm waits for, at one moment."""

    kind: str
    name: str
    namespace: str
    ready: int = 0
    """Pods that are ready."""
    wanted: int = 0
    """Pods that there should be; 0 for an object that has none."""
    needed: int = 0
    """Pods that Helm waits for; a rollout may go on with fewer than `wanted`."""
    causes: list[Cause] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether Helm does not wait for it any more."""
        return self.ready >= self.needed and not self.causes

    @property
    def state(self) -> str:
        """How many pods are ready, as in `1 of 2 ready`; empty for an object that has none."""
        if not self.wanted:
            return ""
        return f"{self.ready} of {self.wanted} ready" + (
            f" (Helm waits for {self.needed})" if self.needed < self.wanted else ""
        )

    def __str__(self) -> str:
        if not self.wanted:
            return f"{self.kind} {self.name}: {', '.join(map(str, self.causes))}"
        return ", ".join([f"{self.name} {self.ready}/{self.wanted} ready", *map(str, self.causes)])


def watched(objects: Iterable[Object]) -> list[Object]:
    """Return the objects that Helm waits for: hooks of a deployment among them, tests not."""
    return [item for item in objects if _is_waited_for(item)]


def _is_waited_for(item: Object) -> bool:
    kind = (group_of(item), item["kind"])
    if is_hook(item):
        return kind in AS_HOOKS and bool(hook_phases(item) & HOOKS_OF_A_DEPLOYMENT)
    if kind == ("", "Service"):
        spec = item.get("spec") or {}
        return spec.get("type") == "LoadBalancer" and not spec.get("externalIPs")
    return kind in WITH_PODS | WITHOUT_PODS


def observe(
    api: Api, objects: Sequence[Object], namespace: str, since: datetime | None = None
) -> list[Workload]:
    """Return `objects` as they are now, without those that are not there yet.

    Args:
        api: of the cluster.
        objects: those of `watched`, as they were rendered.
        namespace: of those that name none.
        since: when the deployment began: an older hook, or event, is of another.

    Raises:
        ClusterError: the API server did not answer, or refused.
    """
    found = []
    for space in sorted({item["metadata"].get("namespace", namespace) for item in objects}):
        here = [item for item in objects if item["metadata"].get("namespace", namespace) == space]
        pods = api.items(f"/api/v1/namespaces/{space}/pods")
        sets = api.items(f"/apis/apps/v1/namespaces/{space}/replicasets")
        events = api.items(f"/api/v1/namespaces/{space}/events")
        events = [event for event in events if not _before(_when(event), since)]
        paths = [api.collection(item, space) for item in here]
        names: dict[str, list[str]] = {}
        for item, path in zip(here, paths, strict=True):
            names.setdefault(path, []).append(item["metadata"].get("name", ""))
        listed = {path: _listed(api, path, some) for path, some in names.items()}
        for item, path in zip(here, paths, strict=True):
            live = listed[path].get(item["metadata"].get("name", ""))
            if live and not (is_hook(item) and _before(live["metadata"]["creationTimestamp"], since)):
                found.append(look_at({**live, "kind": item["kind"]}, pods, sets, events))
    return found


def _listed(api: Api, path: str, names: Sequence[str]) -> dict[str, Object]:
    """Return the objects of a collection by name: one alone where only that is wanted, else all."""
    only = {"fieldSelector": f"metadata.name={names[0]}"} if len(names) == 1 else {}
    return {live["metadata"]["name"]: live for live in api.items(path, **only)}


def read_log(api: Api, namespace: str, cause: Cause) -> str:
    """Return the last lines of the container that `cause` names: of its run that ended, else of its last."""
    if not cause.container:
        return ""
    path = f"/api/v1/namespaces/{namespace}/pods/{cause.pod}/log"
    query = {"container": cause.container, "tailLines": str(LOG_LINES)}
    return api.text(path, **query, previous="true") or api.text(path, **query)


def look_at(
    live: Object, pods: Sequence[Object], sets: Sequence[Object], events: Sequence[Object]
) -> Workload:
    """Return one object that Helm waits for; only the pods of its newest version count.

    Args:
        live: the object.
        pods: of its namespace.
        sets: the ReplicaSets of its namespace.
        events: of its namespace.
    """
    kind, meta = live["kind"], live["metadata"]
    workload = Workload(kind=kind, name=meta["name"], namespace=meta.get("namespace", ""))
    if kind in NOT_READY:
        if text := NOT_READY[kind](live):
            own = [event for event in events if event["involvedObject"].get("uid") == meta["uid"]]
            workload.causes.append(
                Cause(text=text, detail=_with_hint(_last(own) or "nothing has acted on it"))
            )
    else:
        warnings = [event for event in events if event.get("type") == "Warning"]
        _count_pods(workload, live, pods, sets, warnings)
    return workload


def _without_address(service: Object) -> str:
    balancer = service.get("status", {}).get("loadBalancer", {})
    return "" if balancer.get("ingress") else "no load balancer gives it an address"


def _unbound(claim: Object) -> str:
    phase = claim.get("status", {}).get("phase")
    return "" if phase == "Bound" else "no volume is bound to it"


def _unserved(crd: Object) -> str:
    settled = {("Established", "True"), ("NamesAccepted", "False")}
    conditions = crd.get("status", {}).get("conditions") or []
    is_settled = any((item["type"], item["status"]) in settled for item in conditions)
    return "" if is_settled else "the API server does not serve its kind yet"


NOT_READY = {
    "Service": _without_address,
    "PersistentVolumeClaim": _unbound,
    "CustomResourceDefinition": _unserved,
}
"""What each kind without pods lacks, empty where it lacks nothing."""


def _count_pods(
    workload: Workload,
    live: Object,
    pods: Sequence[Object],
    sets: Sequence[Object],
    warnings: Sequence[Object],
) -> None:
    """Put the pods that are ready into `workload`, and what keeps the others from it."""
    kind, meta, spec, status = live["kind"], live["metadata"], live["spec"], live.get("status", {})
    owner = newest_set(live, sets) if kind == "Deployment" else live
    mine = [pod for pod in pods if is_owned(pod, owner) and _is_newest(pod, live)]
    if kind == "Job":
        ready, wanted = status.get("succeeded", 0), spec.get("completions", 1)
    elif kind == "Pod":
        mine = [live]
        ready, wanted = int(is_pod_ready(live) or _has_succeeded(live)), 1
    else:
        ready = sum(map(is_pod_ready, mine))
        wanted = status.get("desiredNumberScheduled", 0) if kind == "DaemonSet" else spec.get("replicas", 1)
    workload.ready, workload.wanted, workload.needed = ready, wanted, _needed(live, wanted)
    # A Job tells no generation, and a Pod has no controller.
    is_seen = kind in ("Job", "Pod") or status.get("observedGeneration", 0) >= meta.get("generation", 0)
    if not is_seen:
        workload.causes.append(Cause(text="not taken up by its controller yet"))
    if ready < workload.needed:
        if refused := _refusal([live, owner], warnings):
            workload.causes.append(Cause(text="pods are refused", detail=_with_hint(refused)))
        workload.causes += _grouped(
            cause_of(pod, warnings) for pod in mine if not is_pod_ready(pod) and not _has_succeeded(pod)
        )
        failed = [c for c in status.get("conditions", []) if c["type"] == "Failed" and c["status"] == "True"]
        workload.causes += [Cause(text="failed", detail=_joined(c, "reason", "message")) for c in failed]


def newest_set(deployment: Object, sets: Sequence[Object]) -> Object:
    """Return the ReplicaSet with the pods of a Deployment's newest version; the Deployment itself where
    there is none yet."""
    return max((item for item in sets if is_owned(item, deployment)), key=_revision, default=deployment)


def _needed(live: Object, wanted: int) -> int:
    """Return how many of `wanted` pods Helm waits for."""
    spec = live["spec"]
    if live["kind"] == "Deployment":
        if spec.get("paused"):
            return 0
        rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        may_lack = _share_of(wanted, rolling.get("maxUnavailable", 0), up=False)
        if rolling and not may_lack and not _share_of(wanted, rolling.get("maxSurge", 0), up=True):
            may_lack = 1  # else nothing could ever be replaced
        return max(0, wanted - may_lack)
    if live["kind"] in ("DaemonSet", "StatefulSet"):
        strategy = spec.get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return 0
        if live["kind"] == "DaemonSet":
            rolling = strategy.get("rollingUpdate") or {}
            return max(0, wanted - _share_of(wanted, rolling.get("maxUnavailable", 0), up=True))
    return wanted


def _share_of(wanted: int, amount: int | str, *, up: bool) -> int:
    """Return a number of pods, or a percentage of `wanted` rounded `up` or down."""
    if isinstance(amount, str):
        share = wanted * int(amount.removesuffix("%")) / 100
        return math.ceil(share) if up else math.floor(share)
    return amount


def _refusal(owners: Sequence[Object], warnings: Sequence[Object]) -> str:
    """Return why no pod is made for `owners`, as a quota or an admission rule; empty where that is not so."""
    for owner in owners:
        for condition in owner.get("status", {}).get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                return str(condition.get("message", ""))
    # StatefulSets, DaemonSets and Jobs say it by events alone. Of an object of that name there can be
    # several, as an autoscaler with troubles of its own.
    ids = {owner["metadata"]["uid"] for owner in owners}
    events = [
        e for e in warnings if e["involvedObject"].get("uid") in ids and e.get("reason") == "FailedCreate"
    ]
    return str(max(events, key=_when).get("message", "")) if events else ""


def _grouped(causes: Iterable[Cause]) -> list[Cause]:
    grouped: dict[str, Cause] = {}
    for cause in causes:
        grouped.setdefault(cause.text, cause).pods += 1
    return list(grouped.values())


def cause_of(pod: Object, warnings: Sequence[Object]) -> Cause:
    """Return why a pod is not ready."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    # While no node takes it a condition says so; the event outlives that.
    own = [
        e
        for e in warnings
        if e["involvedObject"].get("name") == name and e.get("reason") != "FailedScheduling"
    ]

    def cause(text: str, *details: str, container: str = "") -> Cause:
        detail = "; ".join(dict.fromkeys(part for part in details if part))
        return Cause(text=text, detail=_with_hint(detail), pod=name, container=container)

    conditions = {c["type"]: c for c in status.get("conditions", [])}
    holds = {kind for kind, c in conditions.items() if c["status"] == "True"}
    if conditions.get("PodScheduled", {}).get("status") == "False":
        return cause("cannot be scheduled", conditions["PodScheduled"].get("message", ""))
    containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    for state in containers:
        waiting = state.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in IMAGE_FAULTS:
            pulls = [e for e in own if e.get("reason") == "Failed" and "pull" in e.get("message", "")]
            return cause("cannot pull the image", f"{reason} {state.get('image')}", _last(pulls) or message)
        if reason in START_FAULTS:
            return cause("cannot start the container", f"{reason} of {state['name']}", message)
    for state in containers:
        ended = state.get("state", {}).get("terminated") or state.get("lastState", {}).get("terminated") or {}
        loops = state.get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        if ended.get("exitCode") or loops:
            times = state.get("restartCount", 0)
            return cause(
                "crashing" if times or loops else "ended with an error",
                f"container {state['name']} ended with exit code {ended.get('exitCode')}"
                + (f", restarted {times} times" if times else ""),
                _joined(ended, "reason", "message"),
                _last(own, "Unhealthy"),  # a failed liveness probe ends it too
                container=state["name"],
            )
    if status.get("phase") == "Failed":  # evicted, as a rule
        return cause("failed", _joined(status, "reason", "message"), _last(own))
    gates = [gate["conditionType"] for gate in pod.get("spec", {}).get("readinessGates", [])]
    shut = [gate for gate in gates if gate not in holds]
    if "ContainersReady" in holds and shut:
        said = [_joined(conditions[gate], "reason", "message") for gate in shut if gate in conditions]
        return cause("waiting for the load balancer", f"readiness gate {', '.join(shut)}", *said)
    running = [c["name"] for c in containers if c.get("state", {}).get("running") and not c.get("ready")]
    container = running[0] if running else ""
    if unhealthy := _last(own, "Unhealthy"):
        return cause("failing the probe", unhealthy, container=container)
    text = "not ready yet" if status.get("phase") == "Running" else "starting"
    return cause(text, _last(own), container=container)


def _with_hint(detail: str) -> str:
    hint = next((hint for word, hint in HINTS.items() if word in detail), "")
    return f"{detail} ({hint})" if hint else detail


def _joined(item: Object, *keys: str) -> str:
    return ": ".join(item[key].strip() for key in keys if item.get(key))


def _last(events: Iterable[Object], reason: str = "") -> str:
    """Return the text of the last of `events`, of those with `reason` where it is given."""
    last = max((e for e in events if reason in ("", e.get("reason"))), key=_when, default=None)
    if last is None:
        return ""
    count = last.get("count") or 1
    return _joined(last, "reason", "message") + (f" ({count} times)" if count > 1 else "")


def _when(event: Object) -> str:
    return event.get("lastTimestamp") or event.get("eventTime") or ""


def _before(time: str, since: datetime | None) -> bool:
    return since is not None and time != "" and datetime.fromisoformat(time) < since


def is_owned(item: Object, owner: Object) -> bool:
    """Return whether `owner` has made `item`."""
    uid = owner["metadata"]["uid"]
    return any(ref["uid"] == uid for ref in item["metadata"].get("ownerReferences", []))


def _is_newest(pod: Object, owner: Object) -> bool:
    """Return whether a pod is of the newest version of its StatefulSet or DaemonSet, and not about to go."""
    labels = pod["metadata"].get("labels", {})
    if owner["kind"] == "StatefulSet":
        wanted = owner.get("status", {}).get("updateRevision")
        return wanted in (None, labels.get("controller-revision-hash"))
    if owner["kind"] == "DaemonSet":
        notes = owner["metadata"].get("annotations", {})
        wanted = notes.get("deprecated.daemonset.template.generation")
        return wanted in (None, labels.get("pod-template-generation"))
    return "deletionTimestamp" not in pod["metadata"]


def _revision(replica_set: Object) -> int:
    notes = replica_set["metadata"].get("annotations", {})
    return int(notes.get("deployment.kubernetes.io/revision", 0))


def _has_succeeded(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Succeeded")


def is_pod_ready(pod: Object) -> bool:
    """Return whether a pod is ready, and not about to go."""
    conditions = pod.get("status", {}).get("conditions", [])
    ending = "deletionTimestamp" in pod["metadata"]
    return not ending and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
