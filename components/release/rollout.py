"""A deployment as it happens: what it waits for, why it failed, and a stale lock mended before it.

Helm says no more than `timed out`, and its rollback takes the failed pods away. So their state is
gathered while Helm waits, and told when it has given up.
"""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pulumi

from components.release import adoption, drift, dry_run, record
from components.release.api import Api, ApiError, Object, UnreachableError
from components.release.drift import Drift
from components.release.secret_values import mask
from components.release.workloads import Workload, observe, read_log, watched

EVERY = 1.0  # second between two looks
REPORT_VARIABLE = "RELEASE_REPORT_FILE"
"""Names a file that the failure report is written to as well, for CI."""

LOCKED = "another operation (install/upgrade/rollback) is in progress"
UNREAD = "Now serving: could not be read"
# What the provider puts before Helm's own words.
AROUND = re.compile(r"\A1 error occurred:\s+\* Helm release .* Error: Helm Release \S+: (?=\S)")


class RefusalError(Exception):
    """Why a deployment may not go on, for the user."""


@dataclass(kw_only=True)
class Rollout:
    """The hooks of one Release."""

    api: Api
    name: str
    namespace: str
    objects: Sequence[Object]
    """Of the chart."""
    restored: Sequence[Drift] = ()
    """Changes made by hand that are put back."""
    adopts: bool = False
    """It takes over a release that somebody else has made."""
    adopt: bool = False
    """It may take over one that is not in this stack's state."""
    secrets: list[str]
    timeout: int
    unlock_revision: int | None
    unlock_command: str
    """How a user sets `unlock_revision`; `{revision}` stands for the number."""
    adopt_command: str
    """How a user has such a release taken over."""
    component: pulumi.Resource
    """What progress and reports are shown on."""
    _watch: "Watch | None" = None

    def hooks(self, before_delete: Sequence[pulumi.ResourceHook] = ()) -> pulumi.ResourceHookBinding:
        """What the engine calls before and after the Release is deployed, and when that fails."""
        in_previews = pulumi.ResourceHookOptions(on_dry_run=True)
        named = f"{self.namespace}-{self.name}"
        return pulumi.ResourceHookBinding(
            before_create=[pulumi.ResourceHook(f"{named}-before-create", self._before_create, in_previews)],
            before_update=[pulumi.ResourceHook(f"{named}-before-update", self._before_update, in_previews)],
            after_create=[self._after],
            after_update=[self._after],
            before_delete=list(before_delete),
            on_error=[pulumi.ErrorHook(f"{named}-on-error", self._on_error)],
        )

    async def _before_create(self, _: pulumi.ResourceHookArgs) -> None:
        if not self.adopts and (note := await self._ask(self._refuse_a_taken_name)):
            pulumi.log.info(note, self.component)
        await self._begin()

    async def _before_update(self, _: pulumi.ResourceHookArgs) -> None:
        await self._ask(self._refuse_what_is_gone)
        await self._begin()

    async def _begin(self) -> None:
        if not pulumi.runtime.is_dry_run():
            if mended := await self._ask(self._mend):
                pulumi.log.info(mended, self.component)
            await self._ask(self._leave_replicas)
            await asyncio.to_thread(self._put_back)
            self._watch = Watch(rollout=self)
            self._watch.start()

    async def _ask(self, question: Callable[[], str]) -> str:
        """Ask the API server, in a thread, where nothing may be logged. A question that has no answer
        is a warning: Helm will find out. In a preview the plan has said so."""
        try:
            return await asyncio.to_thread(question)
        except RefusalError as error:
            raise RefusalError(mask(str(error), self.secrets)) from None
        except Exception as error:
            if not pulumi.runtime.is_dry_run():
                text = f"Helm's record could not be read ({_reason(error)})"
                pulumi.log.warn(mask(text, self.secrets), self.component)
            return ""

    def _refuse_a_taken_name(self) -> str:
        # Not only the newest: over a failed upgrade Helm would install, and uninstall it all again
        # if that failed.
        taken = record.newest(self.api, self.name, self.namespace, "deployed")
        if taken is None:
            return ""
        if self.adopt:
            return self._prepare_to_take_over(taken)
        raise RefusalError(
            f"release {self.name} in namespace {self.namespace} exists already: revision "
            f"{taken.revision} ({taken.description}) of {_day(taken.created)} is not in this stack's "
            f"state. Take it over by\n    {self.adopt_command}\nor remove it by "
            f"`helm uninstall {self.name} -n {self.namespace}`."
        )

    def _prepare_to_take_over(self, taken: record.Record) -> str:
        """Make a release importable that the plan had to take for this stack's own, as only a state that
        was lost shows that it is not, or whose newest revision failed; what a preview says of that.

        Raises:
            RefusalError: always in an `up`: the next one takes it over.
        """
        if pulumi.runtime.is_dry_run():
            return (
                f"release {self.name} is there, but not in this stack's state: `pulumi up` records its "
                "objects once more without its values and ends, and the one after takes it over"
            )
        self._mend()
        newest = record.newest(self.api, self.name, self.namespace)
        if newest is None or not adoption.take_over(self.api, taken, newest.revision):
            raise RefusalError(f"release {self.name} has just changed: run again.")
        raise RefusalError(
            f"release {self.name} in namespace {self.namespace} is ready to be taken over: its revision "
            f"{newest.revision + 1} holds the objects of revision {taken.revision}, without its values. "
            "Nothing else was changed. Run `pulumi up` again."
        )

    def _refuse_what_is_gone(self) -> str:
        if not record.status(self.api, self.name, self.namespace):
            raise RefusalError(
                f"release {self.name} in namespace {self.namespace} is gone: it was uninstalled outside "
                "this stack. `pulumi refresh` takes note of that; the next `pulumi up` installs it anew."
            )
        return ""

    def _mend(self) -> str:
        """Mark what a killed run has left pending failed, so that Helm goes on; what was done.

        Raises:
            RefusalError: the run may be alive.
        """
        found = record.newest(self.api, self.name, self.namespace)
        if found is None or not found.is_pending:
            return ""
        now = self.api.now()
        if not is_mendable(found, self.unlock_revision, self.timeout, now):
            raise RefusalError(pending_text(found, False, self.timeout, self.unlock_command, now))
        if not record.mark_failed(self.api, found):
            raise RefusalError(f"revision {found.revision} has just changed: its run is alive. Wait for it.")
        done = (
            f"revision {found.revision} was left {found.status} by a run that was killed: marked failed, "
            "and this deployment goes on."
        )
        if found.status == "pending-install":  # the engine never forgets a create by itself
            done += (
                " Pulumi's own warning of a pending operation ends after "
                "`pulumi refresh --clear-pending-creates`."
            )
        return done

    def _put_back(self) -> None:
        for each in self.restored:
            try:
                drift.put_back(self.api, each, self.namespace)
            except Exception as error:
                what = f"{each.item['kind']} {each.item['metadata']['name']}"
                text = f"what was changed by hand in {what} could not be put back: {_reason(error)}"
                raise RefusalError(mask(text, self.secrets)) from None

    def _leave_replicas(self) -> str:
        """Keep the running number of pods where the chart leaves it to an autoscaler from now on."""
        newest = record.newest(self.api, self.name, self.namespace)
        if newest is not None:
            basis = record.basis(self.api, newest)
            unsized = dry_run.unsized(self.objects, basis.objects(), self.namespace)
            if unsized and not record.leave_replicas(self.api, basis, unsized):
                raise RefusalError(
                    f"revision {basis.revision} has just changed: another run deploys this release."
                )
        return ""

    async def _after(self, _: pulumi.ResourceHookArgs) -> None:
        if self._watch is not None:
            self._watch.stop()

    async def _on_error(self, args: pulumi.ErrorHookArgs) -> bool:
        """Explain; never try again."""
        if self._watch is not None:
            self._watch.stop()
        if args.failed_operation != "delete":
            text = await asyncio.to_thread(self._report, args.errors[0] if args.errors else "")
            text = mask(text, self.secrets)
            pulumi.log.error(text, self.component)
            if file := os.environ.get(REPORT_VARIABLE):
                try:
                    Path(file).write_text(text + "\n")
                except OSError as error:
                    pulumi.log.warn(f"{REPORT_VARIABLE}: {file}: {error.strerror}", self.component)
        return False

    def _report(self, error: str) -> str:
        """The failure report: what did not become ready and why, what serves now, what to do."""
        lines = [f"release {self.name} in namespace {self.namespace} was not deployed"]
        unready = self._watch.unready if self._watch is not None else []
        if unready:
            lines[0] += f": within {self.timeout} s these did not become ready:"
            for workload in unready:
                lines += _explained(workload)
        else:
            lines[0] += f". Helm says: {AROUND.sub('', error.strip())}"
        serving = self._serving()
        lines.append(serving)
        if LOCKED in error:
            lines.append("Next: another run deploys this release right now; run again when it has ended.")
        elif serving.startswith(UNREAD):
            lines.append(
                "Next: run `pulumi up` again when the cluster answers. Where Helm was cut off in its work, "
                "that says how to go on."
            )
        else:
            lines.append(
                "Next: mend the cause and run `pulumi up` again; there is nothing to clean up. "
                "Until then `pulumi preview` shows what is not deployed."
            )
        return "\n".join(lines)

    def _serving(self) -> str:
        try:
            found = record.newest(self.api, self.name, self.namespace, "deployed")
            if found is not None:
                here = observe(self.api, watched(found.objects()), self.namespace)
                states = [f"{w.name} {w.ready}/{w.wanted} ready" for w in here]
                return (
                    f"Now serving: revision {found.revision} ({found.description}) of "
                    f"{_day(found.created)}: {', '.join(states) or 'no workloads'}."
                )
            status = record.status(self.api, self.name, self.namespace)
        except Exception as error:
            return f"{UNREAD} ({_reason(error)})."
        if status:
            return f"Now serving: no revision was ever deployed, and Helm calls the newest {status}."
        return "Now serving: nothing; Helm has removed what this first installation had made."


@dataclass(kw_only=True)
class Watch:
    """Looks at the workloads while Helm waits; remembers what kept them from becoming ready."""

    rollout: Rollout
    unready: list[Workload] = field(default_factory=list)
    """As they were when Helm gave up: its rollback takes the pods away."""
    _seen: bool = False
    """Helm is, or was, at work."""
    _began: datetime | None = None
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        """Look every second, and show what Helm waits for whenever it changes."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def look(self) -> str:
        """What Helm waits for now, in words; empty where there is nothing to say."""
        rollout = self.rollout
        if self._began is None:
            self._began = rollout.api.now()
        workloads = observe(rollout.api, watched(rollout.objects), rollout.namespace, self._began)
        # Asked for after the pods: while Helm still waits, none of them is of its rollback.
        status = record.status(rollout.api, rollout.name, rollout.namespace)
        if status in ("pending-install", "pending-upgrade"):
            self._seen = True
            unready = [workload for workload in workloads if not workload.is_ready]
            for workload in unready:
                for cause in workload.causes:
                    cause.log = read_log(rollout.api, workload.namespace, cause)
            self.unready = unready
            return f"waiting for {'; '.join(map(str, unready))}" if unready else ""
        if self._seen and status == "pending-rollback":
            return "not ready in time: Helm rolls back"
        if self._seen and status == "uninstalling":
            return "not ready in time: Helm removes what it installed"
        return ""

    async def _run(self) -> None:
        shown = ""
        while True:
            try:
                text = await asyncio.to_thread(self.look)
            except Exception as error:  # it goes on when the API server does
                text = f"what it waits for cannot be read: {_reason(error)}"
            text = mask(text, self.rollout.secrets)
            if text and text != shown:
                pulumi.log.info(text, self.rollout.component, ephemeral=True)
                shown = text
            await asyncio.sleep(EVERY)


def _explained(workload: Workload) -> list[str]:
    lines = [f"{workload.kind} {workload.name}: {workload.ready} of {workload.wanted} ready"]
    for cause in workload.causes:
        lines.append(f"  {cause}" + (f": {cause.detail}" if cause.detail else ""))
        if cause.pod:
            lines[-1] += f" [pod {cause.pod}]"
        if cause.log:
            lines.append(f"    last lines of container {cause.container}:")
            lines += [f"    | {line}" for line in cause.log.splitlines()]
    return lines


def is_mendable(found: record.Record, unlock_revision: int | None, timeout: int, now: datetime) -> bool:
    """Whether a pending revision may be marked failed: its run is surely dead, or the user says so."""
    return found.is_pending and (found.revision == unlock_revision or found.surely_dead(now, timeout))


def pending_text(found: record.Record, mendable: bool, timeout: int, command: str, now: datetime) -> str:
    """What is, and what to do, about a revision that a run has left pending or is still at work on."""
    age = int((now - found.created).total_seconds())
    what = f"revision {found.revision} of release {found.name} has been {found.status} for {_age(age)}"
    if mendable:
        return f"{what}: its run was killed. `pulumi up` marks it failed and goes on."
    wait = max(0, 2 * timeout - age) + 1
    return (
        f"{what}: a run is at work on it, or was killed in the midst of it.\n"
        f"If it was killed, run `pulumi up` again in {_age(wait)}, or at once after\n"
        f"    {command.format(revision=found.revision)}"
    )


def _age(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def _reason(error: Exception) -> str:
    """In words, where they are the API server's: others, as of a YAML parser, can quote what they read."""
    said = str(error) if isinstance(error, ApiError | UnreachableError) else ""
    return said or type(error).__name__
