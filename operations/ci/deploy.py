"""`pulumi up`, and `pulumi destroy`, over the lock or the pending revision of an earlier run that was killed.

Only a lock or revision of a run that has surely ended is mended. In GitHub Actions GitHub has to say that a
job of these workflows for this stack was at work at that moment and has ended. By hand the lock has to be of
this user on this machine, and of a process that is gone; in CI many machines have one name. Any other is
left, with the command for a person.
"""

import contextlib
import json
import os
import pwd
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pulumi import automation as auto

from components.aws import Aws, AwsError
from components.release import ClusterError
from operations.ci import engine
from operations.ci.engine import Run
from operations.ci.github import GitHub, GitHubError, ended_job
from operations.deployed import Deployed, read_deployed
from operations.stack import connect

LOCK = re.compile(r"(?P<url>\S+): created by (?P<user>.+)@(?P<host>\S*) \(pid (?P<pid>\d+)\) at (?P<at>\S+)")
LEASED = "[409] Conflict: Another update is currently in progress."
LEASE_SECONDS, LEASE_TRIES = 30, 12
PENDING = "mern:release.unlockRevision"
"""The key that the program names where it refuses to go on over a revision that may be at work."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock of the state, as the engine names it in its error."""

    url: str
    user: str
    host: str
    pid: int
    at: datetime

    def __str__(self) -> str:
        return f"the lock of {self.user}@{self.host} of {self.at:%Y-%m-%d %H:%M:%S} UTC"


def up(stack: auto.Stack, github: GitHub | None, sleep: Callable[[float], None] = time.sleep) -> Run:
    """Deploy, also over what a run that was killed has left: see `run`.

    Args:
        stack: to deploy.
        github: to look up earlier runs; None outside GitHub Actions.
        sleep: waits for a lease of Pulumi Cloud to end.
    """
    read = _reader_of_deployed(stack)
    before = read()
    done = run(stack, "up", github, sleep=sleep)
    done.commit = os.environ.get("GITHUB_SHA", "")
    if done.ok:
        done.before, done.after = before, read()
    return done


def _reader_of_deployed(stack: auto.Stack) -> Callable[[], Deployed | None]:
    """Return a function that reads what serves; where that cannot be read it gives None, and no error."""
    try:
        api, namespace = connect(stack.name, stack.get_all_config())
    except (auto.errors.CommandError, ClusterError):
        return lambda: None  # the run itself says why

    def read() -> Deployed | None:
        with contextlib.suppress(ClusterError):
            return read_deployed(api, namespace)
        return None

    return read


def run(
    stack: auto.Stack,
    command: str,
    github: GitHub | None,
    *,
    is_alone: bool = False,
    refresh: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """Run `up` or `destroy`; where an earlier run was killed, mend what it left and run it again.

    Args:
        stack: to deploy or to destroy.
        command: `up` or `destroy`.
        github: to look up earlier runs; None outside GitHub Actions.
        is_alone: nothing but this stack deploys to its namespace. So a revision that is pending while this
            run holds the lock of the state was left by a run that has ended.
        refresh: look first what is there of the resources in the state.
        sleep: waits for a lease of Pulumi Cloud to end.
    """

    def once() -> Run:
        return engine.run(stack, command, refresh=refresh)

    done, mended = once(), list[str]()
    for _ in range(LEASE_TRIES):
        if done.ok or github is None or LEASED not in done.failure:
            break
        print(f"Pulumi Cloud still holds the lease of another run; trying again in {LEASE_SECONDS} s")
        sleep(LEASE_SECONDS)
        done = once()
    if not done.ok and (locks := locks_in(done.failure)):
        refusal = _release(locks, stack.name, github, mended)
        if refusal:
            refusal += f"\nIf nobody deploys now:\n    pulumi cancel --stack {stack.name}"
            print(refusal, file=sys.stderr)
            done.errors = [f"{done.failure}\n{refusal}"]
            return done
        done = once()
    if not done.ok and (github or is_alone) and any(PENDING in text for text in done.errors):
        refusal = _unlock(stack, None if is_alone else github, mended)
        if refusal:
            print(refusal, file=sys.stderr)
            done.errors.append(refusal)
        else:
            done = once()
    done.notes = mended + done.notes
    return done


def locks_in(text: str) -> list[Lock]:
    """Return the locks that the engine names in its error."""
    return [
        Lock(
            url=match["url"],
            user=match["user"],
            host=match["host"],
            pid=int(match["pid"]),
            at=datetime.fromisoformat(match["at"]).astimezone(UTC),
        )
        for match in LOCK.finditer(text)
    ]


def _release(locks: list[Lock], stack: str, github: GitHub | None, mended: list[str]) -> str:
    """Delete `locks`, unless the run of one may be alive; return the reason where that is so."""
    jobs = []
    for lock in locks:
        if lock.user != pwd.getpwuid(os.getuid()).pw_name:
            return f"{lock} was not made by {'a runner' if github else 'this user'}."
        if github is None:
            if os.environ.get("CI"):
                return "In CI other than GitHub Actions no lock is released by itself."
            if lock.host != socket.gethostname():
                return f"{lock} was made on another machine."
            if _is_alive(lock.pid):
                return f"The process that made {lock} is at work."
            jobs.append(f"process {lock.pid} of this machine")
            continue
        try:
            jobs.append(ended_job(github, stack, lock.at))
        except GitHubError as error:
            return f"Whether an earlier run has made {lock} could not be read: {error}."
        if not jobs[-1]:
            return f"No finished job for stack {stack} was at work when {lock} was made."
    for lock, job in zip(locks, jobs, strict=True):
        try:
            _delete(lock.url)
        except (OSError, AwsError) as error:
            return f"{lock} could not be deleted: {error}."
        mended.append(f"{lock} was left by a run that was killed ({job}): released.")
        print(mended[-1], flush=True)
    return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _delete(url: str) -> None:
    parts = urlsplit(url)
    if "/.pulumi/locks/" not in parts.path:
        raise OSError(f"{url} is not a lock of Pulumi")
    if parts.scheme == "file":
        file = Path(unquote(parts.path))
        file.unlink()
        file.with_name(f"{file.name}.attrs").unlink(missing_ok=True)  # what a backend on disk keeps beside it
    elif parts.scheme == "s3":
        region = parse_qs(parts.query).get("region", [None])[0]
        Aws(region).delete_object(parts.netloc, unquote(parts.path).removeprefix("/"))
    else:
        raise OSError(f"locks in {parts.scheme}:// are not known here")


def _unlock(stack: auto.Stack, github: GitHub | None, mended: list[str]) -> str:
    """Let the program mark the revision failed that a killed run has left pending or uninstalling; return the
    reason where that run may be alive. Without `github` it is known that it has ended."""
    from components.mern_application import RELEASE
    from components.release import record

    try:
        api, namespace = connect(stack.name, stack.get_all_config())
        newest = record.newest(api, RELEASE, namespace)
        if newest is None or not newest.is_at_work:
            return ""
        job = ended_job(github, stack.name, newest.began) if github else "the lock of the state was free"
    except (auto.errors.CommandError, ClusterError, GitHubError) as error:
        return f"Whether an earlier run has left the pending revision could not be read: {error}."
    if not job:
        return (
            f"No finished job for stack {stack.name} was at work when revision {newest.revision} was begun."
        )
    # Into this runner's copy of the stack file. It names one revision and so holds for no other.
    stack.set_config(PENDING, auto.ConfigValue(json.dumps(newest.revision)), path=True)
    mended.append(
        f"revision {newest.revision} was left {newest.status} by a run that was killed ({job}): unlocked."
    )
    print(mended[-1], flush=True)
    return ""
