"""A small GitHub API on loopback: comments, issues, runs, jobs and their identity, of one repository."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.stand_ins.http_server import JsonHandler, serving

REPOSITORY = "owner/mern"
TOKEN = "token-of-the-run"
BOT = {"login": "github-actions[bot]"}


@dataclass(kw_only=True)
class FakeGitHub:
    """What it holds, and what it was asked."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    job: str = f"repo:{REPOSITORY}:environment:staging"
    """The `sub` of the tokens."""

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead a workflow's step to it."""
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "77",
            "GITHUB_SERVER_URL": "https://github.example",
        }

    @property
    def id_token_env(self) -> dict[str, str]:
        """The variables of a job with the permission `id-token: write`."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/id-token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": TOKEN,
        }

    def id_token(self, audience: str) -> str:
        """Return a token of the job's identity, in the form of a JWT."""
        parts = ({"alg": "RS256"}, {"sub": self.job, "aud": audience}, "signature")
        encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
        return ".".join(text.decode().rstrip("=") for text in encoded)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if path == "/id-token":
            return 200, {"count": 1, "value": self.id_token(query["audience"])}
        match method, *path.removeprefix(f"/repos/{REPOSITORY}/").split("/"):
            case "GET", "issues", _, "comments":
                return 200, _page(self.comments, query)
            case "POST", "issues", number, "comments":
                made = {"id": len(self.comments) + 1, "user": BOT, "issue": number, **body}
                self.comments.append(made | {"html_url": f"https://github.example/comment/{made['id']}"})
                return 201, self.comments[-1]
            case "PATCH", "issues", "comments", number:
                found = next(item for item in self.comments if item["id"] == int(number))
                found |= body
                return 200, found
            case "GET", "issues":
                return 200, _page([item for item in self.issues if item["state"] == query["state"]], query)
            case "POST", "issues":
                made = {"number": len(self.issues) + 1, "user": BOT, "state": "open", **body}
                self.issues.append(made | {"html_url": f"https://github.example/issues/{made['number']}"})
                return 201, self.issues[-1]
            case "PATCH", "issues", number:
                found = next(item for item in self.issues if item["number"] == int(number))
                found |= body
                return 200, found
            case "GET", "pulls", number if int(number) in self.pulls:
                return 200, self.pulls[int(number)]
            case "GET", "actions", "runs":
                bound = query["created"].removeprefix("<=")
                return 200, {"workflow_runs": [run for run in self.runs if run["created_at"] <= bound]}
            case "GET", "actions", "runs", number, "jobs" if int(number) in self.jobs:
                return 200, {"jobs": _page(self.jobs[int(number)], query)}
        return 404, {"message": "Not Found"}


def _page(items: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    size = int(query.get("per_page", "30"))
    start = (int(query.get("page", "1")) - 1) * size
    return items[start : start + size]


@contextmanager
def serve() -> Iterator[FakeGitHub]:
    """It, for as long as it is used."""
    fake = FakeGitHub()

    class Handler(JsonHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.calls.append(f"{self.command} {self.path}")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, answer = 401, {"message": "Bad credentials"}
            elif body and len(re.sub("[^\0-\uffff]", "xx", body.get("body", ""))) > 65_536:
                status, answer = 422, {"message": "body is too long (maximum is 65536 characters)"}
            else:
                status, answer = fake.answer(self.command, parts.path, query, body)
            self.send_json(status, answer)

        do_GET = do_POST = do_PATCH = handle_any  # noqa: N815

    with serving(Handler) as fake.url:
        yield fake
