"""GitHub's API as far as it is needed: a comment on a pull request, an issue, earlier runs, a job's identity.

It needs the standard library alone: a comment is written also where the packages could not be installed.
"""

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

AUTHOR = "github-actions[bot]"
"""The user that writes with a workflow's own token."""
STEPS = {"deploy to {}": "Deploy", "remove {}": "Remove", "sweep environments": "Sweep"}
"""The jobs of the workflows that hold the lock of a stack, each with the step in which it does."""
PAGE = 100
"""Items of a page of a list, the most that GitHub gives."""


class GitHubError(Exception):
    """A refusal of GitHub, or something missing in the environment of this run; for the user."""


@dataclass(frozen=True, kw_only=True)
class GitHub:
    """The API for the repository that the workflow runs in."""

    api: str
    repository: str
    token: str = field(repr=False)
    run_id: str = ""
    server: str = "https://github.com"

    @classmethod
    def of_environment(cls, env: Mapping[str, str] = os.environ) -> "GitHub":
        """Return the API that the variables of GitHub Actions name.

        Raises:
            GitHubError: one is missing.
        """
        missing = [name for name in ("GITHUB_REPOSITORY", "GITHUB_TOKEN") if not env.get(name)]
        if missing:
            raise GitHubError(f"{' and '.join(missing)} must be set, as in a workflow of GitHub Actions")
        return cls(
            api=env.get("GITHUB_API_URL", "https://api.github.com"),
            repository=env["GITHUB_REPOSITORY"],
            token=env["GITHUB_TOKEN"],
            run_id=env.get("GITHUB_RUN_ID", ""),
            server=env.get("GITHUB_SERVER_URL", "https://github.com"),
        )

    @property
    def log_url(self) -> str:
        """The address of this run's log, empty outside a workflow."""
        return f"{self.server}/{self.repository}/actions/runs/{self.run_id}" if self.run_id else ""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request below the repository's path; return the answer.

        Raises:
            GitHubError: GitHub refuses, or does not answer.
        """
        url = f"{self.api}/repos/{self.repository}{path}"
        return _send(f"{method} {path}", method, url, self.token, body)

    def pages(self, path: str, key: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the items of all pages; `key` names them where the answer is an object."""
        number = 1
        while True:
            separator = "&" if "?" in path else "?"
            answer = self.call("GET", f"{path}{separator}per_page={PAGE}&page={number}")
            items = answer[key] if key else answer
            yield from items
            if len(items) < PAGE:
                return
            number += 1


def _send(subject: str, method: str, url: str, token: str, body: Mapping[str, Any] | None = None) -> Any:
    """Send a request to GitHub; return the answer. An error begins with `subject`."""
    request = urllib.request.Request(  # noqa: S310  # the address is GitHub's own variable
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "mern-operations",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise GitHubError(f"{subject}: GitHub answers {error.code} {error.reason}") from None
    except OSError as error:
        raise GitHubError(f"{subject}: GitHub does not answer ({error})") from None


def id_token(audience: str, env: Mapping[str, str] = os.environ) -> str:
    """Return a token in which GitHub tells `audience` which job this is.

    Raises:
        GitHubError: this job may have none, or GitHub does not answer.
    """
    try:
        url, token = env["ACTIONS_ID_TOKEN_REQUEST_URL"], env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    except KeyError:
        raise GitHubError(
            "this job may not ask GitHub for a token of its identity: it needs the permission "
            "`id-token: write`, and so does the job of a workflow that calls this one"
        ) from None
    subject = f"the token of this job's identity for {audience}"
    url = f"{url}&audience={urllib.parse.quote(audience, safe='')}"
    return str(_send(subject, "GET", url, token)["value"])


def subject_of(token: str) -> str:
    """Return the name that a token of `id_token` gives the job. The token itself is to be printed nowhere."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


def marker(purpose: str, stack: str) -> str:
    """Return a line that nobody sees, by which a text of this stack is found again."""
    return f"<!-- mern {purpose} of stack {stack} -->"  # the space ends the stack's name


def comment(github: GitHub, number: int, stack: str, text: str) -> str:
    """Write `text` as the only comment of `stack` on pull request `number`; return its address."""
    mark = marker("preview", stack)
    body = {"body": f"{mark}\n{text}"}
    for item in github.pages(f"/issues/{number}/comments"):
        if _is_ours(item, mark):
            return str(github.call("PATCH", f"/issues/comments/{item['id']}", body)["html_url"])
    return str(github.call("POST", f"/issues/{number}/comments", body)["html_url"])


def keep_issue(github: GitHub, stack: str, text: str) -> str:
    """Keep an issue open while `text` says that `stack` has drifted, none while it is empty; return in
    words what was done."""
    mark = marker("drift", stack)
    opened = [item for item in github.pages("/issues?state=open") if _is_ours(item, mark)]
    if not text:
        for item in opened:
            github.call(
                "POST", f"/issues/{item['number']}/comments", {"body": f"No drift any more.{_log(github)}"}
            )
            github.call("PATCH", f"/issues/{item['number']}", {"state": "closed"})
        return "closed " + ", ".join(item["html_url"] for item in opened) if opened else "no issue is open"
    body = f"{mark}\n{text}"
    if opened:
        github.call("PATCH", f"/issues/{opened[0]['number']}", {"body": body})
        return f"updated {opened[0]['html_url']}"
    made = github.call("POST", "/issues", {"title": f"Stack {stack} has drifted", "body": body})
    return f"opened {made['html_url']}"


def footer(github: GitHub, commit: str = "") -> str:
    """Return a line that says where a text comes from."""
    of_commit = f"For commit {commit}. " if commit else ""
    return f"\n<sub>{of_commit}Written by `python -m operations`.{_log(github)}</sub>\n"


def _log(github: GitHub) -> str:
    return f" [Log]({github.log_url})" if github.log_url else ""


def _is_ours(item: Mapping[str, Any], mark: str) -> bool:
    written = (item.get("body") or "").startswith(mark)
    return written and item["user"]["login"] == AUTHOR and "pull_request" not in item


def pull_request(env: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """Return number and newest commit of the pull request that started this run.

    Raises:
        GitHubError: none did.
    """
    try:
        event = json.loads(Path(env["GITHUB_EVENT_PATH"]).read_text())
        return int(event["pull_request"]["number"]), str(event["pull_request"]["head"]["sha"])
    except (KeyError, OSError, ValueError):
        raise GitHubError("no pull request started this run: name one by --pull-request") from None


def state_of_pull_request(github: GitHub, number: int) -> str:
    """Return `open`, `closed` or `merged`.

    Raises:
        GitHubError: there is no such pull request, or GitHub does not say.
    """
    pull = github.call("GET", f"/pulls/{number}")
    return "merged" if pull.get("merged_at") else str(pull["state"])


def ended_job(github: GitHub, stack: str, moment: datetime) -> str:
    """Return the address of a job that was deploying or removing `stack` at `moment` and has ended without
    success; empty where there was none."""
    steps = {job.format(stack): step for job, step in STEPS.items()}
    at = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # A run can have waited for a reviewer for days before its job began: not bound from below.
    listed = github.call("GET", f"/actions/runs?created=%3C%3D{at}&per_page={PAGE}")["workflow_runs"]
    for run in listed:
        if datetime.fromisoformat(run["updated_at"]) < moment:
            continue
        for job in github.pages(f"/actions/runs/{run['id']}/jobs?filter=all", "jobs"):
            # A called workflow's job has the caller's name before it.
            step = steps.get(job["name"].rpartition(" / ")[2])
            if step and _was_at_work(job, step, moment):
                return str(job["html_url"])
    return ""


def _was_at_work(job: Mapping[str, Any], name: str, moment: datetime) -> bool:
    """Return whether `job` has ended, and was at `moment` in its step `name`, which has not succeeded.

    A step that has succeeded leaves nothing behind; the step of a runner that was lost never got an end.
    """
    if job["status"] != "completed":
        return False
    return any(
        step["name"] == name
        and step.get("started_at")
        and step.get("conclusion") != "success"
        and datetime.fromisoformat(step["started_at"])
        <= moment
        <= datetime.fromisoformat(step.get("completed_at") or job["completed_at"])
        for step in job.get("steps", [])
    )
