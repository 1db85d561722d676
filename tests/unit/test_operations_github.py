"""One comment, one issue, and which earlier run has ended: against a small GitHub API on loopback."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from operations.__main__ import main
from operations.ci import github
from operations.ci.github import GitHub, GitHubError
from sandbox.engine import PROJECT
from tests import github_api
from tests.github_api import BOT, FakeGitHub


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    with github_api.serve() as served:
        for key, value in {**served.env, "GITHUB_TOKEN": github_api.TOKEN}.items():
            monkeypatch.setenv(key, value)
        yield served


def bodies(fake: FakeGitHub) -> list[str]:
    return [item["body"].split("\n")[1] for item in fake.comments if "mern preview" in item["body"]]


def test_a_comment_is_found_again_among_many_and_by_its_exact_stack(fake: FakeGitHub) -> None:
    for number in range(250):
        text = f"{github.marker('preview', 'staging')}\nby hand" if number == 3 else f"chat {number}"
        fake.comments.append({"id": number + 1, "body": text, "user": {"login": "somebody"}, "html_url": ""})
    api = GitHub.of_environment()
    github.comment(api, 5, "staging-eu", "one")
    github.comment(api, 5, "staging", "two")
    assert bodies(fake) == ["by hand", "one", "two"]
    github.comment(api, 5, "staging", "three")
    github.comment(api, 5, "staging-eu", "four")
    assert bodies(fake) == ["by hand", "four", "three"]
    assert fake.comments[-1]["user"] == BOT


def test_one_issue_is_open_while_the_stack_drifts(fake: FakeGitHub, tmp_path: Path) -> None:
    file = tmp_path / "drift.md"
    command = ["issue", "staging", "--from", str(file)]
    assert main(command) == 0  # it could not be looked
    assert fake.calls == []
    for text in ("spec.replicas is 5", "spec.replicas is 6"):
        file.write_text(text)
        assert main(command) == 0
        (issue,) = fake.issues
        assert text in issue["body"]
    fake.issues.append(
        {**issue, "number": 2, "body": issue["body"].replace("stack staging", "stack staging2")}
    )
    file.write_text("")
    assert main(command) == 0
    assert [item["state"] for item in fake.issues] == ["closed", "open"]
    assert "No drift any more" in fake.comments[-1]["body"]
    file.write_text("again")
    assert main(command) == 0
    assert [item["state"] for item in fake.issues] == ["closed", "open", "open"]


def test_a_preview_that_did_not_begin_is_said(fake: FakeGitHub, tmp_path: Path) -> None:
    missing = str(tmp_path / "comment.md")
    assert main(["comment", "staging", "--from", missing, "--pull-request", "5"]) == 0
    assert "The preview of stack `staging` did not begin" in fake.comments[0]["body"]
    assert "https://github.example/owner/mern/actions/runs/77" in fake.comments[0]["body"]


def test_what_is_missing_is_named(
    fake: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["comment", "staging", "--from", str(tmp_path / "none")]
    assert main(command) == 1
    assert "name one by --pull-request" in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_TOKEN", "another")
    assert main([*command, "--pull-request", "5"]) == 1
    assert "GitHub answers 401" in capsys.readouterr().err
    assert "another" not in repr(GitHub.of_environment())
    monkeypatch.delenv("GITHUB_TOKEN")
    assert main([*command, "--pull-request", "5"]) == 1
    assert "GITHUB_TOKEN must be set" in capsys.readouterr().err
    with pytest.raises(GitHubError, match="does not answer"):
        GitHub(api="http://127.0.0.1:1", repository="a/b", token="t").call("GET", "/issues")


MOMENT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
STEP = {
    "name": "Deploy",
    "conclusion": "cancelled",
    "started_at": "2026-05-01T11:50:00Z",
    "completed_at": "2026-05-01T12:01:00Z",
}
JOB = {
    "name": "deploy to staging",
    "status": "completed",
    "completed_at": "2026-05-01T12:01:00Z",
    "html_url": "https://github.example/job",
}


@pytest.mark.parametrize(
    ("job", "step", "found"),
    [
        ({}, {}, True),
        ({}, {"conclusion": "failure"}, True),
        ({}, {"conclusion": None, "completed_at": None}, True),  # the machine was lost
        ({}, {"conclusion": "success"}, False),
        ({}, {"name": "Check that it can be reached"}, False),
        ({}, {"started_at": "2026-05-01T12:00:01Z"}, False),
        ({}, {"completed_at": "2026-05-01T11:59:59Z"}, False),
        ({"name": "release / deploy to staging"}, {}, True),
        ({"name": "remove staging"}, {"name": "Remove"}, True),
        ({"name": "remove staging"}, {}, False),
        ({"name": "sweep environments"}, {"name": "Sweep"}, True),
        ({"name": "deploy to staging-eu"}, {}, False),
        ({"name": "redeploy to staging"}, {}, False),
        ({"status": "in_progress", "completed_at": None}, {}, False),
    ],
)
def test_only_a_finished_job_of_that_stack_and_moment_counts(
    fake: FakeGitHub, job: dict[str, Any], step: dict[str, Any], found: bool
) -> None:
    fake.runs = [
        {"id": 3, "created_at": "2026-05-01T12:00:01Z", "updated_at": "2026-05-01T13:00:00Z"},
        {"id": 2, "created_at": "2026-04-20T11:00:00Z", "updated_at": "2026-05-01T12:01:05Z"},
        {"id": 1, "created_at": "2026-04-19T11:00:00Z", "updated_at": "2026-04-19T12:00:00Z"},
    ]
    ended = {**JOB, "steps": [STEP]}
    fake.jobs = {3: [ended], 1: [ended]}
    fake.jobs[2] = [{**ended, "name": "lint"}, {**JOB, "steps": [{**STEP, **step}], **job}]
    assert bool(github.ended_job(GitHub.of_environment(), "staging", MOMENT)) is found
    assert not [call for call in fake.calls if "/runs/1/" in call or "/runs/3/" in call]


@pytest.mark.parametrize("command", ["comment", "issue"])
def test_it_needs_no_packages(fake: FakeGitHub, tmp_path: Path, command: str) -> None:
    """What is written to GitHub is written also where packages could not be installed."""
    file = tmp_path / "text.md"
    file.write_text("spec.replicas is 5")
    more = ["--pull-request", "5"] if command == "comment" else []

    def without_packages(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
        )

    done = without_packages("-m", "operations", command, "staging", "--from", str(file), *more)
    assert done.returncode == 0, done.stderr
    [written] = fake.comments if command == "comment" else fake.issues
    assert "spec.replicas is 5" in written["body"]
    assert "No module named 'pulumi'" in without_packages("-c", "import pulumi").stderr
