"""Progress of a deployment, looked up while Helm says nothing.

Helm's rollback takes the failed pods away, so their state is remembered for the failure report.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from . import record
from .kubernetes_api import ClusterError
from .manifest import is_hook
from .plan import ReleasePlan
from .secrets import Messages
from .workloads import Workload, observe, read_log, watched

INTERVAL = 1.0
"""Seconds between two looks, at least; where one takes longer, as many as it takes."""
LOGS = 5
"""Logs that are read in one look, those first that were read the longest ago."""


@dataclass(kw_only=True)
class Watch:
    """A look at the workloads every second, and what kept them from becoming ready."""

    plan: ReleasePlan
    messages: Messages
    unready: list[Workload] = field(default_factory=list)
    """As they were when Helm gave up."""
    _helm_is_at_work: bool = False
    _began: datetime | None = None
    _task: "asyncio.Task[None] | None" = None
    _logs: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """By namespace, pod and container, the last read last."""

    def start(self) -> None:
        """Begin to look, and show what Helm waits for whenever it changes."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def look(self) -> str:
        """Return what Helm waits for now, in words; empty where there is nothing to say.

        Raises:
            ClusterError: the API server refused, or could not be asked.
        """
        api, args = self.plan.api, self.plan.args
        if self._began is None:
            self._began = api.now()
        workloads = observe(api, watched(self.plan.objects), args.namespace, self._began)
        # Asked for after the pods: while Helm still waits, none of them is of its rollback.
        status = record.status(api, args.name, args.namespace)
        if status in ("pending-install", "pending-upgrade"):
            self._helm_is_at_work = True
            known = {_key(workload): workload.causes for workload in self.unready}
            self.unready = [workload for workload in workloads if not workload.is_ready]
            for workload in self.unready:
                # The pod that told why may be gone, and the next not there yet.
                workload.causes = workload.causes or known.get(_key(workload), [])
            self._read_logs(self.unready)
            return f"waiting for {'; '.join(map(str, self.unready))}" if self.unready else ""
        if self._helm_is_at_work and status == "pending-rollback":
            return "not ready in time: Helm rolls back"
        if self._helm_is_at_work and status == "uninstalling":
            return "not ready in time: Helm removes what it installed"
        return ""

    def look_at_hooks(self) -> None:
        """Look at the hooks once more: Helm ends as soon as one has failed, and leaves it there.

        Raises:
            ClusterError: the API server refused, or could not be asked.
        """
        api, namespace = self.plan.api, self.plan.args.namespace
        hooks = [item for item in watched(self.plan.objects) if is_hook(item)]
        for workload in observe(api, hooks, namespace, self._began):
            others = [item for item in self.unready if _key(item) != _key(workload)]
            if not workload.is_ready:
                self._read_logs([workload])
                self.unready = [*others, workload]

    def _read_logs(self, workloads: Sequence[Workload]) -> None:
        """Put into the causes what their containers have logged; of many, a part is read anew."""
        causes = {
            (workload.namespace, cause.pod, cause.container): cause
            for workload in workloads
            for cause in workload.causes
            if cause.container
        }
        order = {key: place for place, key in enumerate(self._logs)}
        for key in sorted(causes, key=lambda key: order.get(key, -1))[:LOGS]:
            known = self._logs.pop(key, "")
            self._logs[key] = read_log(self.plan.api, key[0], causes[key]) or known
        for key, cause in causes.items():
            cause.log = self._logs.get(key) or cause.log

    async def _run(self) -> None:
        shown = ""
        while True:
            started = time.monotonic()
            try:
                text = await asyncio.to_thread(self.look)
            except ClusterError as error:  # it goes on when the API server does
                text = f"what it waits for cannot be read: {error}"
            if text and text != shown:
                self.messages.info(text, ephemeral=True)
                shown = text
            await asyncio.sleep(max(INTERVAL, time.monotonic() - started))


def _key(workload: Workload) -> tuple[str, str, str]:
    return workload.kind, workload.name, workload.namespace
