"""`pulumi up` in CI, which goes on over the lock or the pending revision of an earlier run that was killed.

Only a lock or revision of a run that has surely ended is mended: GitHub says that a job of this workflow
for this stack was at work at that moment and has ended. Any other is left, with the command for a person.
"""

import contextlib
import json
import os
import pwd
import re
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

LOCK = re.compile(r"(?P<url>\S+): created by (?P<user>.+)@(?P<host>\S*) \(pid \d+\) at (?P<at>\S+)")
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
    at: datetime

    def __str__(self) -> str:
        return f"the lock of {self.user}@{self.host} of {self.at:%Y-%m-%d %H:%M:%S} UTC"


def up(stack: auto.Stack, github: GitHub | None, sleep: Callable[[float], None] = time.sleep) -> Run:
    """Deploy; where an earlier run of the workflow was killed, mend what it left and deploy again.

    Args:
        stack: to deploy.
        github: to look up earlier runs; None outside GitHub Actions, where nothing is mended.
        sleep: waits for a lease of Pulumi Cloud to end.
    """
    read = _reader_of_deployed(stack)
    before = read()
    run = _up(stack, github, sleep)
    run.commit = os.environ.get("GITHUB_SHA", "")
    if run.ok:
        run.before, run.after = before, read()
    return run


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


def _up(stack: auto.Stack, github: GitHub | None, sleep: Callable[[float], None]) -> Run:
    run = engine.run(stack, "up")
    mended: list[str] = []
    for _ in range(LEASE_TRIES):
        if run.ok or github is None or LEASED not in run.failure:
            break
        print(f"Pulumi Cloud still holds the lease of another run; trying again in {LEASE_SECONDS} s")
        sleep(LEASE_SECONDS)
        run = engine.run(stack, "up")
    if not run.ok and (locks := locks_in(run.failure)):
        refusal = _release(locks, stack.name, github, mended)
        if refusal:
            command = f"pulumi cancel --stack {stack.name}"
            run.errors = [f"{run.failure}\n{refusal}\nIf nobody deploys now:\n    {command}"]
            return run
        run = engine.run(stack, "up")
    if not run.ok and github is not None and any(PENDING in text for text in run.errors):
        refusal = _unlock(stack, github, mended)
        if refusal:
            run.errors.append(refusal)
        else:
            run = engine.run(stack, "up")
    run.notes = mended + run.notes
    return run


def locks_in(text: str) -> list[Lock]:
    """Return the locks that the engine names in its error."""
    return [
        Lock(
            url=match["url"],
            user=match["user"],
            host=match["host"],
            at=datetime.fromisoformat(match["at"]).astimezone(UTC),
        )
        for match in LOCK.finditer(text)
    ]


def _release(locks: list[Lock], stack: str, github: GitHub | None, mended: list[str]) -> str:
    """Delete `locks`, unless the run of one may be alive; return the reason where that is so."""
    if github is None:
        return "Outside GitHub Actions no lock is released by itself."
    jobs = []
    for lock in locks:
        if lock.user != pwd.getpwuid(os.getuid()).pw_name:
            return f"{lock} was not made by a runner."
        try:
            jobs.append(ended_job(github, stack, lock.at))
        except GitHubError as error:
            return f"Whether an earlier run has made {lock} could not be read: {error}."
        if not jobs[-1]:
            return f"No finished job `deploy to {stack}` was at work when {lock} was made."
    for lock, job in zip(locks, jobs, strict=True):
        try:
            _delete(lock.url)
        except (OSError, AwsError) as error:
            return f"{lock} could not be deleted: {error}."
        mended.append(f"{lock} was left by a run that was killed ({job}): released.")
        print(mended[-1], flush=True)
    return ""


def _delete(url: str) -> None:
    parts = urlsplit(url)
    if "/.pulumi/locks/" not in parts.path:
        raise OSError(f"{url} is not a lock of Pulumi")
    if parts.scheme == "file":
        Path(unquote(parts.path)).unlink()
    elif parts.scheme == "s3":
        region = parse_qs(parts.query).get("region", [None])[0]
        Aws(region).delete_object(parts.netloc, unquote(parts.path).removeprefix("/"))
    else:
        raise OSError(f"locks in {parts.scheme}:// are not known here")


def _unlock(stack: auto.Stack, github: GitHub, mended: list[str]) -> str:
    """Let the program mark the revision failed that a killed run has left pending; return the reason
    where that run may be alive."""
    from components.mern_application import RELEASE
    from components.release import record

    try:
        api, namespace = connect(stack.name, stack.get_all_config())
        newest = record.newest(api, RELEASE, namespace)
        if newest is None or not newest.is_pending:
            return ""
        job = ended_job(github, stack.name, newest.created)
    except (auto.errors.CommandError, ClusterError, GitHubError) as error:
        return f"Whether an earlier run has left the pending revision could not be read: {error}."
    if not job:
        return (
            f"No finished job `deploy to {stack.name}` was at work when revision {newest.revision} was begun."
        )
    # Into this runner's copy of the stack file. It names one revision and so holds for no other.
    stack.set_config(PENDING, auto.ConfigValue(json.dumps(newest.revision)), path=True)
    mended.append(
        f"revision {newest.revision} was left {newest.status} by a run that was killed ({job}): unlocked."
    )
    print(mended[-1], flush=True)
    return ""
