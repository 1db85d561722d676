"""A deployment as it happens: what it waits for, why it failed, and a stale lock mended before it.

Helm says no more than `timed out`, and its rollback takes the failed pods away. So their state is
gathered while Helm waits, and told when it has given up.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pulumi

from components.release import record
from components.release.api import Api, Object
from components.release.dry_run import is_hook
from components.release.secret_values import mask

EVERY = 1.0  # second between two looks
LOG_LINES = 10
REPORT_VARIABLE = "RELEASE_REPORT_FILE"
"""Names a file that the failure report is written to as well, for CI."""

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
LOCKED = "another operation (install/upgrade/rollback) is in progress"

HINTS = {
    "ImagePullBackOff": "is the tag pushed, is the repository right, may the nodes pull it?",
    "ErrImagePull": "is the tag pushed, is the repository right, may the nodes pull it?",
    "InvalidImageName": "the image's name is malformed",
    "CrashLoopBackOff": "it starts and ends at once; its last log lines say why",
    "OOMKilled": "it wants more memory than its limit",
    "CreateContainerConfigError": "a Secret or ConfigMap is missing, or the image runs as root",
}


@dataclass(kw_only=True)
class Workload:
    """One workload at one moment."""

    label: str
    """As in `Deployment mern-server`."""
    identity: str
    """Differs from version to version of the workload."""
    ready: int
    wanted: int
    causes: dict[str, str] = field(default_factory=dict)
    """What keeps it from becoming ready: short text to the details."""

    @property
    def is_ready(self) -> bool:
        return self.ready >= self.wanted and not self.causes

    def __str__(self) -> str:
        name = self.label.partition(" ")[2]
        return ", ".join([f"{name} {self.ready}/{self.wanted} ready", *self.causes])


def observe(api: Api, objects: Sequence[Object], namespace: str) -> list[Workload]:
    """The workloads among `objects` as they are now; one that is not there yet is left out.

    Raises:
        Exception: the API server did not answer, or refused.
    """
    wanted = [item for item in objects if item["kind"] in WORKLOADS]
    found = []
    for space in sorted({item["metadata"].get("namespace", namespace) for item in wanted}):
        root = f"/namespaces/{space}"
        pods = api.items(f"/api/v1{root}/pods")
        sets = api.items(f"/apis/apps/v1{root}/replicasets")
        events = [e for e in api.items(f"/api/v1{root}/events") if e.get("type") == "Warning"]
        for item in wanted:
            if item["metadata"].get("namespace", namespace) != space:
                continue
            live = _live(api, item, space)
            if live is not None:
                found.append(_look_at(live, pods, sets, events))
    return found


def _live(api: Api, item: Object, namespace: str) -> Object | None:
    path = api.collection(item, namespace)
    named = api.items(path, fieldSelector=f"metadata.name={item['metadata'].get('name', '')}")
    return {**named[0], "kind": item["kind"]} if named else None


def _look_at(
    live: Object, pods: Sequence[Object], sets: Sequence[Object], events: Sequence[Object]
) -> Workload:
    kind, meta, spec = live["kind"], live["metadata"], live.get("spec", {})
    status = live.get("status", {})
    owner = live
    if kind == "Deployment":
        of_it = [item for item in sets if _owned(item, live)]
        owner = max(of_it, key=_revision, default=live)
    mine = [pod for pod in pods if _owned(pod, owner)]
    if kind == "StatefulSet":
        update = status.get("updateRevision")
        mine = [p for p in mine if p["metadata"].get("labels", {}).get("controller-revision-hash") == update]
    if kind == "Job":
        ready, wanted = status.get("succeeded", 0), spec.get("completions", 1)
    else:
        ready = sum(_is_ready(pod) for pod in mine)
        wanted = spec.get("replicas", 1) if kind != "DaemonSet" else status.get("desiredNumberScheduled", 0)
    workload = Workload(
        label=f"{kind} {meta['name']}",
        identity=f"{meta['uid']} {owner['metadata']['uid']} {owner['metadata'].get('generation', 0)}",
        ready=ready,
        wanted=wanted,
    )
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        workload.causes["not taken up by its controller yet"] = ""
    if ready < wanted:
        for condition in status.get("conditions", []) + owner.get("status", {}).get("conditions", []):
            if condition["type"] in ("ReplicaFailure", "FailureTarget") and condition["status"] == "True":
                workload.causes["pods are refused"] = condition.get("message", "")
        _add_pods(workload, [pod for pod in mine if not _is_ready(pod)], events)
        names = {meta["name"], owner["metadata"]["name"]}
        for event in events:
            if event["involvedObject"].get("name") in names and event.get("reason") != "FailedScheduling":
                workload.causes.setdefault("pods are refused", event.get("message", ""))
    return workload


def _add_pods(workload: Workload, pods: Sequence[Object], events: Sequence[Object]) -> None:
    grouped: dict[str, list[tuple[str, str]]] = {}
    for pod in pods:
        short, detail = _why(pod, events)
        grouped.setdefault(short, []).append((pod["metadata"]["name"], detail))
    for short, of_them in grouped.items():
        count = "1 pod" if len(of_them) == 1 else f"{len(of_them)} pods"
        name, detail = of_them[0]
        workload.causes[f"{count} {short}"] = f"pod {name}: {detail}" if detail else f"pod {name}"


def _why(pod: Object, events: Sequence[Object]) -> tuple[str, str]:
    """Why a pod is not ready, in a few words and in full."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    own = [e for e in events if e["involvedObject"].get("name") == name]
    for state in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
        waiting, ended = state.get("state", {}).get("waiting"), state.get("lastState", {}).get("terminated")
        ended = state.get("state", {}).get("terminated") or ended
        reason = (waiting or {}).get("reason", "")
        if reason in ("ImagePullBackOff", "ErrImagePull", "InvalidImageName"):
            return "cannot pull its image", _details(reason, waiting, f"image {state.get('image')}")
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return "cannot start its container", _details(reason, waiting)
        if ended and (ended.get("exitCode") or reason == "CrashLoopBackOff"):
            why = ended.get("reason") or reason
            code = f"container {state['name']} ended with exit code {ended.get('exitCode')}"
            times = f"restarted {state.get('restartCount', 0)} times"
            return "keeps ending", _details(why, ended, code, times)
        if reason in ("ContainerCreating", "PodInitializing"):
            return "pulling its image or starting", _last(own)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return "cannot be scheduled", condition.get("message", "")
    gates = [g["conditionType"] for g in pod.get("spec", {}).get("readinessGates", [])]
    open_ = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
    if "ContainersReady" in open_ and (shut := [gate for gate in gates if gate not in open_]):
        return "waiting for the load balancer", f"readiness gate {', '.join(shut)}"
    if status.get("phase") == "Failed":
        return "failed", status.get("message", "") or _last(own)
    if any(e.get("reason") == "Unhealthy" for e in own):
        return "failing its probe", _last([e for e in own if e.get("reason") == "Unhealthy"])
    return ("starting" if status.get("phase") == "Pending" else "not ready yet"), _last(own)


def _details(reason: str, state: Mapping[str, Any] | None, *more: str) -> str:
    parts = [reason, *more, (state or {}).get("message", ""), HINTS.get(reason, "")]
    return "; ".join(part for part in parts if part)


def _last(events: Sequence[Object]) -> str:
    if not events:
        return ""
    last = max(events, key=_when)
    count = last.get("count") or 1
    return f"{last.get('reason')}: {last.get('message', '')}" + (f" ({count} times)" if count > 1 else "")


def _when(event: Object) -> str:
    return event.get("lastTimestamp") or event.get("eventTime") or ""


def _owned(item: Object, owner: Object) -> bool:
    uid = owner["metadata"]["uid"]
    return any(ref["uid"] == uid for ref in item["metadata"].get("ownerReferences", []))


def _revision(replica_set: Object) -> int:
    notes = replica_set["metadata"].get("annotations", {})
    return int(notes.get("deployment.kubernetes.io/revision", 0))


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    ending = "deletionTimestamp" in pod["metadata"]
    return not ending and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class Watch:
    """Looks at the workloads while Helm waits; remembers what kept them from becoming ready."""

    def __init__(self, api: Api, objects: Sequence[Object], namespace: str, secrets: list[str]) -> None:
        self.api, self.objects, self.namespace, self.secrets = api, objects, namespace, secrets
        self.unready: dict[tuple[str, str], Workload] = {}
        self.logs: dict[str, str] = {}
        self._ready: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, resource: pulumi.Resource) -> None:
        """Look every second, and show on `resource` what Helm waits for whenever it changes."""
        self._task = asyncio.get_running_loop().create_task(self._run(resource))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def look(self) -> str:
        """What is not ready now; remembers it."""
        waiting = []
        for workload in observe(self.api, self.objects, self.namespace):
            key = (workload.label, workload.identity)
            if workload.is_ready:
                self._ready.add(key)
                self.unready.pop(key, None)
                continue
            waiting.append(str(workload))
            if key not in self._ready:
                self.unready[key] = workload
                self._read_logs(workload)
        return mask("; ".join(waiting), self.secrets)

    def _read_logs(self, workload: Workload) -> None:
        for short, detail in workload.causes.items():
            pod = detail.removeprefix("pod ").partition(":")[0]
            if "keeps ending" not in short or pod in self.logs:
                continue
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
            text = self.api.text(path, tailLines=str(LOG_LINES), previous="true")
            self.logs[pod] = text or self.api.text(path, tailLines=str(LOG_LINES))

    async def _run(self, resource: pulumi.Resource) -> None:
        shown = ""
        while True:
            try:
                text = await asyncio.to_thread(self.look)
            except Exception as error:  # it goes on when the API server does
                text = f"the API server does not answer ({type(error).__name__})"
            if text != shown:
                pulumi.log.info(f"waiting for {text}" if text else "ready", resource, ephemeral=True)
                shown = text
            await asyncio.sleep(EVERY)


@dataclass(kw_only=True)
class Rollout:
    """The hooks of one Release."""

    api: Api
    name: str
    namespace: str
    objects: Sequence[Object]
    secrets: list[str]
    timeout: int
    unlock_revision: int | None
    unlock_command: str
    """How a user sets `unlock_revision`; `{revision}` stands for the number."""
    component: pulumi.Resource
    """What progress and reports are shown on."""
    _retried: bool = False
    _watch: Watch | None = None

    def hooks(self) -> pulumi.ResourceHookBinding:
        """What the engine calls before and after the Release is deployed, and when that fails."""
        in_previews = pulumi.ResourceHookOptions(on_dry_run=True)
        named = f"{self.namespace}-{self.name}"
        before = [
            pulumi.ResourceHook(f"{named}-before-{verb}", hook, in_previews)
            for verb, hook in (("create", self._before_create), ("update", self._before_update))
        ]
        return pulumi.ResourceHookBinding(
            before_create=[before[0]],
            before_update=[before[1]],
            after_create=[self._after],
            after_update=[self._after],
            on_error=[pulumi.ErrorHook(f"{named}-on-error", self._on_error)],
        )

    async def _before_create(self, _: pulumi.ResourceHookArgs) -> None:
        found = await self._newest()
        if found is not None and found.status == "deployed":
            raise RuntimeError(
                f"release {self.name} in namespace {self.namespace} exists already: revision "
                f"{found.revision}, made outside this stack on {_day(found.created)}. Remove it by `helm "
                f"uninstall {self.name} -n {self.namespace}`, or import it into the stack."
            )
        await self._begin(found)

    async def _before_update(self, _: pulumi.ResourceHookArgs) -> None:
        found = await self._newest()
        if found is None and self._known:
            raise RuntimeError(
                f"release {self.name} in namespace {self.namespace} is gone: it was uninstalled outside "
                "this stack. `pulumi refresh` takes note of that; the next `pulumi up` installs it anew."
            )
        await self._begin(found)

    async def _newest(self) -> record.Record | None:
        self._known = True
        try:
            return await asyncio.to_thread(record.newest, self.api, self.name, self.namespace)
        except Exception as error:
            self._known = False
            pulumi.log.warn(f"Helm's record could not be read ({_reason(error)})", self.component)
            return None

    async def _begin(self, found: record.Record | None) -> None:
        if pulumi.runtime.is_dry_run():
            return
        if found is not None and found.is_pending:
            await asyncio.to_thread(self._mend, found)
        self._watch = Watch(self.api, self.objects, self.namespace, self.secrets)
        self._watch.start(self.component)

    def _mend(self, found: record.Record) -> None:
        """Mark a dead run's revision failed, so that Helm goes on.

        Raises:
            RuntimeError: the run may be alive.
        """
        now = self.api.now()
        if found.revision != self.unlock_revision and not found.surely_dead(now, self.timeout):
            raise RuntimeError(pending_text(found, self.timeout, self.unlock_command, now))
        record.mark_failed(self.api, found)
        pulumi.log.info(
            f"revision {found.revision} was left {found.status} by a run that was killed: marked failed, "
            "and this deployment goes on",
            self.component,
        )

    async def _after(self, _: pulumi.ResourceHookArgs) -> None:
        if self._watch is not None:
            self._watch.stop()

    async def _on_error(self, args: pulumi.ErrorHookArgs) -> bool:
        if self._watch is not None:
            self._watch.stop()
        error = args.errors[0] if args.errors else ""
        if args.failed_operation == "delete":
            return False
        if LOCKED in error and not self._retried:
            self._retried = True
            found = await self._newest()
            if found is not None and found.is_pending:
                try:
                    await asyncio.to_thread(self._mend, found)
                except RuntimeError as why_not:
                    pulumi.log.error(str(why_not), self.component)
                    return False
                return True
        text = mask(await asyncio.to_thread(self._report, error), self.secrets)
        pulumi.log.error(text, self.component)
        if file := os.environ.get(REPORT_VARIABLE):
            Path(file).write_text(text + "\n")
        return False

    def _report(self, error: str) -> str:
        """The failure report: what did not become ready and why, what serves now, what to do."""
        lines = [f"release {self.name} in namespace {self.namespace} was not deployed."]
        watch = self._watch
        unready = list(watch.unready.values()) if watch is not None else []
        for workload in unready:
            lines.append(f"{workload.label}: {workload.ready} of {workload.wanted} ready")
            for short, detail in workload.causes.items():
                lines.append(f"  {short}" + (f": {detail}" if detail else ""))
                pod = detail.removeprefix("pod ").partition(":")[0]
                if watch is not None and watch.logs.get(pod):
                    lines.append("  its last lines:")
                    lines += [f"    | {line}" for line in watch.logs[pod].splitlines()[-LOG_LINES:]]
        if not unready:
            lines.append(f"Helm says: {error.strip()}")
        lines.append(self._serving())
        lines.append(
            "Next: mend the cause and run the same command again; there is nothing to clean up. "
            "`pulumi preview` shows what is not deployed."
        )
        return "\n".join(lines)

    def _serving(self) -> str:
        try:
            found = record.newest(self.api, self.name, self.namespace, "deployed")
            if found is None:
                return "Now serving: nothing; Helm has removed what a failed first install left."
            here = observe(self.api, found.objects(), self.namespace)
        except Exception as error:
            return f"Now serving: could not be read ({_reason(error)})."
        states = ", ".join(f"{w.label.partition(' ')[2]} {w.ready}/{w.wanted}" for w in here)
        return f"Now serving: revision {found.revision} of {_day(found.created)} ({states} ready)."


def pending_text(found: record.Record, timeout: int, command: str, now: datetime) -> str:
    """What to do about a revision that a run has left pending, or is still at work on."""
    age = int((now - found.created).total_seconds())
    left = max(0, 2 * timeout - age)
    again = command.format(revision=found.revision)
    return (
        f"revision {found.revision} is {found.status} since {age} s: a run is still at work on it, or was "
        f"killed. If it was killed: run `pulumi up` again in {left} s or later, or at once after\n    {again}"
    )


def watched(objects: Sequence[Object]) -> list[Object]:
    """The objects that Helm waits for."""
    return [item for item in objects if not is_hook(item)]


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
