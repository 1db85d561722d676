"""What a run that was killed has left: what is released, and what is left for a person."""

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from pulumi import automation as auto

from components.release import ClusterError
from operations.ci import deploy, report
from operations.ci.engine import Run
from operations.ci.github import GitHub
from operations.deployed import Deployed
from operations.stack import stderr_of
from tests import github_api
from tests.github_api import FakeGitHub
from tests.stand_ins.aws_account import aws_in_this_process

ME = pwd.getpwuid(os.getuid()).pw_name
AT = "2026-05-01T14:00:00+02:00"  # as the machine tells the time
REFUSED = (
    "the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the "
    "lock file with `pulumi cancel`.\n  {url}: created by {user}@runner-1 (pid 2211) at " + AT
)
Locks = Callable[[], set[str]]
LOCKS = "mern/.pulumi/locks/organization/mern/staging"
S3 = f"s3://state-bucket/{LOCKS}/1b2c.json?region=eu-central-1"
JOB = {
    "name": "deploy to staging",
    "status": "completed",
    "completed_at": "2026-05-01T12:01:00Z",
    "html_url": "https://github.example/job",
    "steps": [{"name": "Deploy", "conclusion": "failure", "started_at": "2026-05-01T11:50:00Z"}],
}


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with github_api.serve() as served:
        served.runs = [{"id": 2, "created_at": "2026-05-01T11:00:00Z", "updated_at": "2026-05-01T12:01:05Z"}]
        served.jobs = {2: [JOB]}
        yield served


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Locks]:
    """Puts two locks on S3; gives those that are there."""
    with aws_in_this_process(monkeypatch):
        s3 = boto3.client("s3", region_name="eu-central-1")
        place = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket="state-bucket", CreateBucketConfiguration=place)
        for name in ("1b2c", "3d4e"):
            s3.put_object(Bucket="state-bucket", Key=f"{LOCKS}/{name}.json", Body=b"{}")

        def there() -> set[str]:
            listed = s3.list_objects_v2(Bucket="state-bucket")
            return {Path(item["Key"]).stem for item in listed.get("Contents", [])}

        yield there


class Stack:
    """Fails with each of the texts in turn, then deploys."""

    name = "staging"

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.ups = 0

    def get_all_config(self) -> dict[str, auto.ConfigValue]:
        return {}

    def up(self, **options: Any) -> Any:
        self.ups += 1
        self.options = options
        if self.failures:
            text = f"\n code: 255\n stdout: \n stderr: error: {self.failures.pop(0)}\n"
            raise auto.errors.CommandError(text)
        return type("Result", (), {"outputs": {"revision": auto.OutputValue(3.0, False)}})

    destroy = up


def up(stack: Stack, fake: FakeGitHub | None) -> tuple[Run, list[float]]:
    slept: list[float] = []
    api = GitHub(api=fake.url, repository=github_api.REPOSITORY, token=github_api.TOKEN) if fake else None
    return deploy.up(stack, api, slept.append), slept


def test_a_lock_on_s3_of_an_ended_run_is_released_and_no_other(fake: FakeGitHub, locks: Locks) -> None:
    stack = Stack(REFUSED.format(url=S3, user=ME))
    run, _ = up(stack, fake)
    assert run.ok
    assert run.revision == "3"
    assert stack.ups == 2
    assert locks() == {"3d4e"}
    assert "was left by a run that was killed (https://github.example/job): released" in run.notes[0]


@pytest.mark.parametrize(
    ("url", "user", "job", "why"),
    [
        (S3, "ada", JOB, "the lock of ada@runner-1 of 2026-05-01 12:00:00 UTC was not made by a runner"),
        (
            S3,
            ME,
            {**JOB, "status": "in_progress", "completed_at": None},
            "No finished job for stack staging",
        ),
        (S3, ME, {**JOB, "name": "deploy to production"}, "No finished job for stack staging"),
        (S3, ME, None, "could not be read"),
        (S3.replace("/.pulumi/locks/", "/"), ME, JOB, "is not a lock of Pulumi"),
        (S3.replace("s3:", "azblob:"), ME, JOB, "are not known here"),
    ],
)
def test_any_other_lock_is_left_with_the_command(
    fake: FakeGitHub,
    locks: Locks,
    url: str,
    user: str,
    job: dict[str, Any] | None,
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.jobs = {2: [job]} if job else {}
    stack = Stack(REFUSED.format(url=url, user=user))
    run, _ = up(stack, fake)
    assert not run.ok
    assert stack.ups == 1
    assert locks() == {"1b2c", "3d4e"}
    assert why in run.errors[0]
    assert "pulumi cancel --stack staging" in run.errors[0]
    assert "created by" in run.errors[0]
    assert why in capsys.readouterr().err  # and not the engine's word alone, which is to cancel


def test_a_lock_that_may_not_be_deleted_is_left_with_the_reason(fake: FakeGitHub, locks: Locks) -> None:
    stack = Stack(REFUSED.format(url=S3.replace("state-bucket", "no-bucket"), user=ME))
    run, _ = up(stack, fake)
    assert not run.ok
    assert "could not be deleted: AWS refuses DeleteObject (NoSuchBucket): " in run.errors[0]
    assert "pulumi cancel --stack staging" in run.errors[0]


@pytest.mark.parametrize(
    ("host", "user", "alive", "why"),
    [
        (socket.gethostname(), ME, False, ""),
        (socket.gethostname(), ME, True, "is at work"),
        ("runner-1", ME, False, "was made on another machine"),
        (socket.gethostname(), "ada", False, "was not made by this user"),
        (socket.gethostname(), ME, False, "In CI"),
    ],
)
def test_by_hand_only_a_lock_of_a_process_of_this_machine_that_has_ended_is_released(
    locks: Locks, monkeypatch: pytest.MonkeyPatch, host: str, user: str, alive: bool, why: str
) -> None:
    def kill(pid: int, signal: int) -> None:
        assert (pid, signal) == (2211, 0)
        if not alive:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setenv("CI", "true" if why == "In CI" else "")
    run, _ = up(Stack(REFUSED.format(url=S3, user=user).replace("runner-1", host)), None)
    assert run.ok is not bool(why)
    assert locks() == ({"1b2c", "3d4e"} if why else {"3d4e"})
    if why:
        assert why in run.errors[0]
        assert "pulumi cancel --stack staging" in run.errors[0]


def test_what_is_destroyed_is_destroyed_by_the_program_and_over_a_lock_as_well(
    fake: FakeGitHub, locks: Locks
) -> None:
    stack = Stack(REFUSED.format(url=S3, user=ME))
    api = GitHub(api=fake.url, repository=github_api.REPOSITORY, token=github_api.TOKEN)
    assert deploy.run(cast(Any, stack), "destroy", api, refresh=True).ok
    assert stack.options["run_program"] is stack.options["refresh"] is True
    assert locks() == {"3d4e"}


def test_of_two_locks_the_second_may_be_alive(fake: FakeGitHub, locks: Locks) -> None:
    later = S3.replace("1b2c", "3d4e") + f": created by {ME}@runner-2 (pid 9) at 2026-05-01T12:30:00Z"
    stack = Stack(f"{REFUSED.format(url=S3, user=ME)}\n  {later}")
    run, _ = up(stack, fake)
    assert not run.ok
    assert locks() == {"1b2c", "3d4e"}


def test_a_lease_of_pulumi_cloud_is_waited_for(fake: FakeGitHub) -> None:
    stack = Stack(*[deploy.LEASED] * 3)
    run, slept = up(stack, fake)
    assert run.ok
    assert slept == [30, 30, 30]
    stack = Stack(*[deploy.LEASED] * 99)
    run, slept = up(stack, fake)
    assert not run.ok
    assert sum(slept) == 360
    assert deploy.LEASED in run.errors[0]


def test_a_deployment_says_its_commit_and_what_was_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    served = [Deployed(revision=number, images={"mernServer": f"shop/app:{number}"}) for number in (1, 2)]
    before, after = served
    monkeypatch.setenv("GITHUB_SHA", "0123abcd")
    monkeypatch.setattr(deploy, "connect", lambda *_: (None, "shop"))
    monkeypatch.setattr(deploy, "read_deployed", lambda *_: served.pop(0))
    run, _ = up(Stack(), None)
    assert (run.commit, run.before, run.after) == ("0123abcd", before, after)
    text = report.summary(run, "staging")
    assert "From commit <code>0123abcd</code>, with the images:" in text
    assert "<pre>\n~ mernServer: shop/app:1 → shop/app:2\n</pre>" in text
    assert "<pre>\n.venv/bin/python -m operations rollback 1 --stack staging\n</pre>" in text

    def fails(*_: Any) -> Deployed:
        raise ClusterError("secrets is forbidden")

    monkeypatch.setattr(deploy, "read_deployed", fails)
    run, _ = up(Stack(), None)
    assert (run.ok, run.before, run.after) == (True, None, None)
    assert "rollback" not in report.summary(run, "staging")


def test_a_failed_rollout_is_not_tried_again(fake: FakeGitHub) -> None:
    stack = Stack("update failed")
    run, slept = up(stack, fake)
    assert not run.ok
    assert (stack.ups, slept) == (1, [])
    assert fake.calls == []


def test_what_the_engine_says_before_the_program_runs_is_the_reason() -> None:
    text = "\n code: 255\n stdout: \n stderr: error: could not open the bucket\n"
    assert stderr_of(auto.errors.CommandError(text)) == "could not open the bucket"
