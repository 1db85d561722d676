"""Stale locks: a killed run leaves a revision that Helm calls pending or uninstalling, and that locks the
release."""

from datetime import datetime

import pulumi

from . import record
from .args import ReleaseArgs
from .errors import ReleaseError
from .kubernetes_api import Api
from .record import Record


def is_mendable(pending: Record, unlock_revision: int | None, timeout: int, now: datetime) -> bool:
    """Return whether such a revision may be marked failed: its run has surely ended, or the user says so.

    Args:
        pending: the revision.
        unlock_revision: the number that the user gives.
        timeout: of the release, in seconds.
        now: by the API server's clock.
    """
    return pending.is_at_work and (
        pending.revision == unlock_revision or pending.has_surely_ended(now, timeout)
    )


def pending_text(pending: Record, mendable: bool, timeout: int, command: str, now: datetime) -> str:
    """Return what is, and what to do, about a revision that a run has left so or is at work on."""
    age = int((now - pending.began).total_seconds())
    fact = f"revision {pending.revision} of release {pending.name} has been {pending.status} for {_age(age)}"
    if mendable:
        return f"{fact}: its run was killed. The next `up` marks it failed and goes on."
    wait = max(0, 2 * timeout - age) + 1
    return (
        f"{fact}: a run is at work on it, or was killed in the midst of it.\n"
        f"If it was killed, an `up` goes on in {_age(wait)}, or at once after\n"
        f"    {command.format(revision=pending.revision)}"
    )


def outlook(api: Api, pending: Record, args: ReleaseArgs) -> tuple[bool, str]:
    """Return whether such a revision may be marked failed by now, and what to say of it."""
    now = api.now()
    mendable = is_mendable(pending, args.unlock_revision, args.timeout, now)
    return mendable, pending_text(pending, mendable, args.timeout, args.unlock_command, now)


def mend(api: Api, pending: Record, unlock_revision: int | None, timeout: int, command: str) -> str:
    """Mark failed what a killed run has left so, for Helm to go on; return what was done.

    Raises:
        ReleaseError: the run may be alive.
        ClusterError: the API server refused, or could not be asked.
    """
    now = api.now()
    if not is_mendable(pending, unlock_revision, timeout, now):
        raise ReleaseError(pending_text(pending, False, timeout, command, now))
    if not record.mark_failed(api, pending, f"Left {pending.status} by a run that was killed"):
        raise ReleaseError(f"revision {pending.revision} has just changed: its run is alive. Wait for it.")
    done = (
        f"revision {pending.revision} was left {pending.status} by a run that was killed: marked failed, "
        "and this deployment goes on."
    )
    if pending.status == "pending-install":  # the engine never forgets a create by itself
        done += (
            " Pulumi's own warning of a pending operation ends after "
            f"`pulumi refresh --clear-pending-creates --stack {pulumi.get_stack()}`."
        )
    return done


def _age(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
