"""The hooks of a deployment. Only an `up` runs them, and nothing else writes to the cluster."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pulumi

from . import adoption, crds, drift, record, stale_lock
from .errors import ReleaseError
from .failure_report import failure_report
from .kubernetes_api import ClusterError
from .manifest import label_of, newly_unsized
from .plan import ReleasePlan
from .record import Record
from .secrets import Messages
from .watch import Watch

NOT_IN_HELM = "release: not found"
"""Part of the provider's error where Helm has no record of the release that is to be deleted."""

REPORT_VARIABLE = "RELEASE_REPORT_FILE"
"""Names a file that the failure report is written to as well, for CI."""


class Hooks:
    """The hooks of one release."""

    def __init__(self, plan: ReleasePlan) -> None:
        self._plan = plan
        self._watch: Watch | None = None
        self._messages: Messages

    def show_on(self, component: pulumi.Resource) -> None:
        """Show progress and reports on `component`."""
        self._messages = Messages(self._plan.secrets, component)

    def of_component(self) -> pulumi.ResourceHookBinding:
        """Return what the engine calls before it notes that a release is taken over."""
        if not self._plan.is_recorded_anew:
            return pulumi.ResourceHookBinding()
        hook = pulumi.ResourceHook(self._named("take-over"), self._take_over)
        return pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook])

    def of_release(
        self, before_delete: Sequence[pulumi.ResourceHook], after: Sequence[pulumi.ResourceHook]
    ) -> pulumi.ResourceHookBinding:
        """Return what the engine calls before and after the Release is deployed, and when that fails."""
        in_previews = pulumi.ResourceHookOptions(on_dry_run=True)
        return pulumi.ResourceHookBinding(
            before_create=[
                pulumi.ResourceHook(self._named("before-create"), self._before_create, in_previews)
            ],
            before_update=[
                pulumi.ResourceHook(self._named("before-update"), self._before_update, in_previews)
            ],
            after_create=[self._after, *after],
            after_update=[self._after, *after],
            before_delete=list(before_delete),
            on_error=[pulumi.ErrorHook(self._named("on-error"), self._on_error)],
        )

    def _named(self, event: str) -> str:
        return f"{self._plan.args.namespace}-{self._plan.args.name}-{event}"

    # ---- before

    async def _take_over(self, _: pulumi.ResourceHookArgs) -> None:
        api, taken, newest = self._plan.api, self._plan.taken_over, self._plan.newest
        assert taken is not None and newest is not None  # else there is no such hook  # noqa: S101
        await self._ask(self._mend_stale_lock)
        if not await asyncio.to_thread(adoption.take_over, api, taken, newest.revision):
            raise ReleaseError(f"release {taken.name} has just changed: run `{self._plan.up_command}` again.")

    async def _before_create(self, _: pulumi.ResourceHookArgs) -> None:
        await self._begin()

    async def _before_update(self, _: pulumi.ResourceHookArgs) -> None:
        await self._ask(self._require_release_exists)
        await self._begin()

    async def _begin(self) -> None:
        if pulumi.runtime.is_dry_run():
            return
        await self._ask(self._mend_stale_lock)
        await self._ask(self._keep_number_of_pods)
        await asyncio.to_thread(self._apply_crds)
        await asyncio.to_thread(self._put_back)
        self._watch = Watch(plan=self._plan, messages=self._messages)
        self._watch.start()

    async def _ask(self, question: Callable[[], str]) -> None:
        """Ask the API server, in a thread, where nothing may be logged; show the note it returns.

        A question that has no answer is a warning: Helm will find out. In a preview the plan has said so.
        """
        with self._plan.secrets.masked_in_errors():
            try:
                if note := await asyncio.to_thread(question):
                    self._messages.info(note)
            except ClusterError as error:
                if not pulumi.runtime.is_dry_run():
                    self._messages.warn(f"Helm's record could not be read ({error})")

    def _newest(self) -> Record | None:
        args = self._plan.args
        return record.newest(self._plan.api, args.name, args.namespace, "", self._plan.newest)

    def _require_release_exists(self) -> str:
        args, newest = self._plan.args, self._newest()
        if newest is None:
            raise ReleaseError(
                f"release {args.name} in namespace {args.namespace} is gone: it, its namespace or Helm's "
                "record of it was deleted outside this stack. Nothing was changed. This installs it anew:\n"
                f"    pulumi up --refresh --stack {pulumi.get_stack()}"
            )
        if newest.status == "uninstalling" and pulumi.runtime.is_dry_run():
            return stale_lock.outlook(self._plan.api, newest, args)[1]
        if newest.status != "uninstalled":
            return ""
        if not pulumi.runtime.is_dry_run():  # a refresh would not help: Helm still has a record of it
            record.mark_failed(self._plan.api, newest, "Uninstalled outside the stack")
        return f"release {args.name} was uninstalled outside this stack: it is installed anew"

    def _mend_stale_lock(self) -> str:
        args, newest = self._plan.args, self._newest()
        if newest is None or not newest.is_at_work:
            return ""
        return stale_lock.mend(
            self._plan.api, newest, args.unlock_revision, args.timeout, args.unlock_command
        )

    def _keep_number_of_pods(self) -> str:
        """Keep the running number of pods where the chart leaves it to an autoscaler from now on."""
        newest = self._newest()
        if newest is not None:
            api, basis = self._plan.api, record.basis(self._plan.api, newest)
            unsized = newly_unsized(self._plan.objects, basis.objects(), self._plan.args.namespace)
            if unsized and not record.leave_replicas(api, basis, unsized):
                raise ReleaseError(
                    f"revision {basis.revision} has just changed: another run deploys this release."
                )
        return ""

    def _apply_crds(self) -> None:
        if self._plan.args.crds == "apply":
            try:
                crds.apply(self._plan.api, self._plan.crds)
            except ClusterError as error:
                text = f"the CRDs of the chart could not be applied: {error}"
                raise ReleaseError(self._plan.secrets.mask(text)) from None

    def _put_back(self) -> None:
        for finding in self._plan.restored:
            try:
                drift.put_back(self._plan.api, finding, self._plan.args.namespace)
            except ClusterError as error:
                text = f"what was changed by hand in {label_of(finding.item)} could not be put back: {error}"
                raise ReleaseError(self._plan.secrets.mask(text)) from None

    # ---- after

    async def _after(self, _: pulumi.ResourceHookArgs) -> None:
        if self._watch is not None:
            self._watch.stop()

    async def _on_error(self, args: pulumi.ErrorHookArgs) -> bool:
        """Explain; never try again."""
        unready = []
        if self._watch is not None:
            self._watch.stop()
            with contextlib.suppress(ClusterError):  # then the report has what was seen before
                await asyncio.to_thread(self._watch.look_at_hooks)
            unready = self._watch.unready
        error = args.errors[0] if args.errors else ""
        if args.failed_operation == "delete":
            if NOT_IN_HELM in error:
                self._messages.error(
                    f"release {self._plan.args.name} is gone: it was deleted outside this stack. Destroy the "
                    f"rest by\n    pulumi destroy --refresh --run-program --stack {pulumi.get_stack()}"
                )
        else:
            text = await asyncio.to_thread(failure_report, self._plan, unready, error)
            self._messages.error(text)
            if file := os.environ.get(REPORT_VARIABLE):
                try:
                    self._messages.write(Path(file), text)
                except OSError as reason:
                    self._messages.warn(f"{REPORT_VARIABLE}: {file}: {reason.strerror}")
        return False
