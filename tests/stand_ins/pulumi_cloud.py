"""Pulumi Cloud on loopback, as far as a login needs it: it exchanges a token of GitHub's for one of its own.

Its answers are those of the stand-in in Pulumi's own tests of `pulumi login --oidc-token`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.stand_ins.http_server import JsonHandler, serving

ACCESS_TOKEN = "pul-token-of-two-hours"


@dataclass(kw_only=True)
class PulumiCloud:
    """What it was asked to exchange."""

    url: str = ""
    accepts: str = ""
    """The one token of GitHub that it exchanges."""
    exchanges: list[dict[str, str]] = field(default_factory=list)

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        if path == "/api/oauth/token":
            self.exchanges.append(form)
            if form.get("subject_token") != self.accepts:
                return 401, {"code": 401, "message": "no policy allows this token"}
            return 200, {"access_token": ACCESS_TOKEN, "expires_in": 7200, "token_type": "Bearer"}
        if authorization != f"token {ACCESS_TOKEN}":
            return 401, {"code": 401, "message": "Unauthorized"}
        if path == "/api/user":
            return 200, {"githubLogin": "workflows", "organizations": [{"githubLogin": "shop"}]}
        return 404, {"code": 404, "message": "Not Found"}


@contextmanager
def serve() -> Iterator[PulumiCloud]:
    """It, for as long as it is used."""
    cloud = PulumiCloud()

    class Handler(JsonHandler):
        def do_any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
            is_form = "form" in self.headers.get("Content-Type", "")
            form = {key: values[0] for key, values in parse_qs(sent).items()} if is_form else {}
            status, answer = cloud.answer(self.path, form, self.headers.get("Authorization", ""))
            self.send_json(status, answer)

        do_GET = do_POST = do_any  # noqa: N815

    with serving(Handler) as cloud.url:
        yield cloud
