"""`pulumi up` in CI: what an earlier run that was killed has left behind does not stop the next.

Only what surely belongs to a dead run is taken away: GitHub says that a job of this workflow for this
stack was at work at that moment and has ended. Everything else is left, with the command for a person.
"""

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
from operations import cluster, engine
from operations.engine import Run
from operations.github import GitHub, GitHubError, ended_job

LOCK = re.compile(r"(?P<url>\S+): created by (?P<user>.+)@(?P<host>\S*) \(pid \d+\) at (?P<at>\S+)")
LEASED = "[409] Conflict: Another update is currently in progress."
LEASE_SECONDS, LEASE_TRIES = 30, 12
PENDING = "mern:release.unlockRevision"
"""Stands in the program's refusal to go on over a revision that may be at work."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock of the state, as the engine's refusal tells it."""

    url: str
    user: str
    host: str
    at: datetime

    def __str__(self) -> str:
        return f"the lock of {self.user}@{self.host} of {self.at:%Y-%m-%d %H:%M:%S} UTC"


def up(stack: auto.Stack, github: GitHub | None, sleep: Callable[[float], None] = time.sleep) -> Run:
    """Deploy; where an earlier run of the workflow was killed, clean up after it and deploy again.

    Args:
        stack: to deploy.
        github: for the earlier runs; None outside GitHub Actions, where nothing is cleaned up.
        sleep: waits for a lease of Pulumi Cloud to end.
    """
    run = engine.run(stack, "up")
    done: list[str] = []
    for _ in range(LEASE_TRIES):
        if run.ok or github is None or LEASED not in run.failure:
            break
        print(f"Pulumi Cloud still holds the lease of another run; trying again in {LEASE_SECONDS} s")
        sleep(LEASE_SECONDS)
        run = engine.run(stack, "up")
    if not run.ok and (locks := locks_in(run.failure)):
        why_not = _release(locks, stack.name, github, done)
        if why_not:
            mend = f"pulumi cancel --stack {stack.name}"
            run.errors = [f"{run.failure}\n{why_not}\nIf nobody deploys now:\n    {mend}"]
            return run
        run = engine.run(stack, "up")
    if not run.ok and github is not None and any(PENDING in text for text in run.errors):
        why_not = _unlock(stack, github, done)
        if why_not:
            run.errors.append(why_not)
        else:
            run = engine.run(stack, "up")
    run.notes = done + run.notes
    return run


def locks_in(text: str) -> list[Lock]:
    """The locks that the engine names when it refuses to begin."""
    return [
        Lock(
            url=found["url"],
            user=found["user"],
            host=found["host"],
            at=datetime.fromisoformat(found["at"]).astimezone(UTC),
        )
        for found in LOCK.finditer(text)
    ]


def _release(locks: list[Lock], stack: str, github: GitHub | None, done: list[str]) -> str:
    """Delete `locks`, and no other; why not, where one may be alive."""
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
        done.append(f"{lock} was left by a run that was killed ({job}): released.")
        print(done[-1], flush=True)
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
        raise OSError(f"a state in {parts.scheme}:// is not known here")


def _unlock(stack: auto.Stack, github: GitHub, done: list[str]) -> str:
    """Let the program mark the revision failed that a killed run has left pending; why not, where its
    run may be alive."""
    from components.mern_application import RELEASE
    from components.release import record

    try:
        api, namespace = cluster.connect(stack.get_all_config())
        found = record.newest(api, RELEASE, namespace)
        if found is None or not found.is_pending:
            return ""
        job = ended_job(github, stack.name, found.created)
    except Exception as error:
        return f"Whether an earlier run has left it could not be read: {error}."
    if not job:
        return (
            f"No finished job `deploy to {stack.name}` was at work when revision {found.revision} was begun."
        )
    # Into this runner's copy of the stack file. It names one revision and so holds for no other.
    stack.set_config(PENDING, auto.ConfigValue(json.dumps(found.revision)), path=True)
    done.append(
        f"revision {found.revision} was left {found.status} by a run that was killed ({job}): unlocked."
    )
    print(done[-1], flush=True)
    return ""
