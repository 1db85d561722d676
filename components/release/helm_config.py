"""What a user has told Helm of repositories and registries: credentials and certificates.

`helm repo add` writes `repositories.yaml`, `helm registry login` writes `registry/config.json`; behind that,
as for Helm, stand Docker's own file and its credential helpers. Nothing of these files gets into a message.
"""

import base64
import binascii
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import ChartError

DOCKER_HUB = "https://index.docker.io/v1/"
"""What the files call `registry-1.docker.io`."""
IS_A_TOKEN = "<token>"  # noqa: S105
"""What a credential helper answers as the user name where the password is an identity token."""
HELPER_WITHIN = 30
"""Seconds in which a credential helper has to answer."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """Credentials for a host; all empty where Helm has none."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """In place of user name and password, for the server that gives tokens."""
    problem: str = ""
    """Why there are none, though a file says where they are."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    """An entry of `repositories.yaml`."""

    login: Login = Login()
    for_all_hosts: bool = False
    """Whether the credentials go to other hosts as well, where the repository has its charts."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    is_insecure: bool = False


def repository(url: str) -> Repository:
    """Return what Helm knows of the repository at `url`.

    Raises:
        ChartError: its file cannot be read.
    """
    file = _file("HELM_REPOSITORY_CONFIG", "repositories.yaml")
    for entry in _read(file).get("repositories") or []:
        if str(entry.get("url", "")).rstrip("/") == url.rstrip("/"):
            return Repository(
                login=Login(username=entry.get("username") or "", password=entry.get("password") or ""),
                for_all_hosts=entry.get("pass_credentials_all") is True,
                ca_file=entry.get("caFile") or None,
                cert_file=entry.get("certFile") or None,
                key_file=entry.get("keyFile") or None,
                is_insecure=entry.get("insecure_skip_tls_verify") is True,
            )
    return Repository()


def registry_login(host: str) -> Login:
    """Return the credentials for the OCI registry at `host`, which may have a port.

    Raises:
        ChartError: a file cannot be read.
    """
    server = DOCKER_HUB if host == "registry-1.docker.io" else host
    docker = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    problem = ""
    for file in (_file("HELM_REGISTRY_CONFIG", "registry/config.json"), docker):
        config = _read(file)
        helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
        login = _from_helper(helper, server) if helper else _from_file(config, server)
        if login.username or login.identity_token:
            return login
        problem = problem or login.problem
    return Login(problem=problem)


def _from_file(config: Mapping[str, Any], server: str) -> Login:
    entries = config.get("auths") or {}
    by_host = {name.partition("://")[2].partition("/")[0] or name: entry for name, entry in entries.items()}
    entry = entries.get(server) or by_host.get(server) or {}
    try:
        username, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return Login(problem="what Helm has stored for it is no user name and password")
    return Login(username=username, password=password, identity_token=entry.get("identitytoken") or "")


def _from_helper(name: str, server: str) -> Login:
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=HELPER_WITHIN,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return Login(problem=f"{program} could not be asked for credentials")
    if answer.get("Username") == IS_A_TOKEN:
        return Login(identity_token=answer.get("Secret", ""))
    return Login(username=answer.get("Username", ""), password=answer.get("Secret", ""))


def _file(variable: str, name: str) -> Path:
    """Return a file of Helm's configuration, from where Helm takes it."""
    if path := os.environ.get(variable):
        return Path(path)
    if home := os.environ.get("HELM_CONFIG_HOME"):
        return Path(home, name)
    defaults = {"darwin": Path.home() / "Library/Preferences", "win32": Path(os.environ.get("APPDATA", ""))}
    default = defaults.get(sys.platform, Path.home() / ".config")
    return Path(os.environ.get("XDG_CONFIG_HOME") or default, "helm", name)


def _read(file: Path) -> Mapping[str, Any]:
    """Return the content of a file in YAML or JSON; empty where there is none."""
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text or "{}") if file.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError):  # whose messages quote the file
        raise ChartError(f"{file}, in which Helm keeps credentials, cannot be read") from None
    return content if isinstance(content, Mapping) else {}
