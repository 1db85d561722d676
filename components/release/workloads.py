"""The workloads of a release as they are in the cluster, and what keeps each from becoming ready."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from components.release.kubernetes_api import Api
from components.release.manifest import Object, hook_phases

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
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
    """One workload at one moment."""

    kind: str
    name: str
    namespace: str
    ready: int
    wanted: int
    causes: list[Cause] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        return self.ready >= self.wanted and not self.causes

    def __str__(self) -> str:
        return ", ".join([f"{self.name} {self.ready}/{self.wanted} ready", *map(str, self.causes)])


def watched(objects: Iterable[Object]) -> list[Object]:
    """Return the workloads that Helm waits for: hooks of a deployment among them, tests not."""
    ran = {"pre-install", "post-install", "pre-upgrade", "post-upgrade"}
    return [o for o in objects if o["kind"] in KINDS and (not hook_phases(o) or hook_phases(o) & ran)]


def observe(
    api: Api, objects: Sequence[Object], namespace: str, since: datetime | None = None
) -> list[Workload]:
    """Return the workloads `objects` as they are now, without those that are not there yet.

    Args:
        api: of the cluster.
        objects: workloads as they were rendered.
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
        warnings = [e for e in events if e.get("type") == "Warning" and not _before(_when(e), since)]
        for item in here:
            named = f"metadata.name={item['metadata'].get('name', '')}"
            for live in api.items(api.collection(item, space), fieldSelector=named):
                if not (hook_phases(item) and _before(live["metadata"]["creationTimestamp"], since)):
                    found.append(look_at({**live, "kind": item["kind"]}, pods, sets, warnings))
    return found


def read_log(api: Api, namespace: str, cause: Cause) -> str:
    """Return the last lines of the container that `cause` names: of its run that ended, else of its last."""
    if not cause.container:
        return ""
    path = f"/api/v1/namespaces/{namespace}/pods/{cause.pod}/log"
    query = {"container": cause.container, "tailLines": str(LOG_LINES)}
    return api.text(path, **query, previous="true") or api.text(path, **query)


def look_at(
    live: Object, pods: Sequence[Object], sets: Sequence[Object], warnings: Sequence[Object]
) -> Workload:
    """Return one workload; only the pods of its newest version count.

    Args:
        live: the workload.
        pods: of its namespace.
        sets: the ReplicaSets of its namespace.
        warnings: events of its namespace.
    """
    kind, meta, spec, status = live["kind"], live["metadata"], live["spec"], live.get("status", {})
    owner = live
    if kind == "Deployment":
        owner = max((item for item in sets if _owned(item, live)), key=_revision, default=live)
    mine = [pod for pod in pods if _owned(pod, owner) and _is_newest(pod, live)]
    if kind == "Job":
        ready, wanted = status.get("succeeded", 0), spec.get("completions", 1)
    else:
        ready = sum(map(_is_ready, mine))
        wanted = status.get("desiredNumberScheduled", 0) if kind == "DaemonSet" else spec.get("replicas", 1)
    workload = Workload(
        kind=kind, name=meta["name"], namespace=meta.get("namespace", ""), ready=ready, wanted=wanted
    )
    # A Job tells no generation.
    if kind != "Job" and status.get("observedGeneration", 0) < meta.get("generation", 0):
        workload.causes.append(Cause(text="not taken up by its controller yet"))
    if ready < wanted:
        if refused := _refusal([live, owner], warnings):
            workload.causes.append(Cause(text="pods are refused", detail=_with_hint(refused)))
        workload.causes += _grouped(
            cause_of(pod, warnings)
            for pod in mine
            if not _is_ready(pod) and pod.get("status", {}).get("phase") != "Succeeded"
        )
        failed = [c for c in status.get("conditions", []) if c["type"] == "Failed" and c["status"] == "True"]
        workload.causes += [Cause(text="failed", detail=_joined(c, "reason", "message")) for c in failed]
    return workload


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


def _owned(item: Object, owner: Object) -> bool:
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


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    ending = "deletionTimestamp" in pod["metadata"]
    return not ending and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
