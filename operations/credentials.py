"""Credentials among values that nobody has marked: recognised by their names, and by how they look."""

import re
from collections.abc import Mapping
from typing import Any

from components.release.secrets import CREDENTIAL
from components.release.values import Path

SECRET_NAME = re.compile(
    r"passw|secret|accesskey|credential|connectionstring|(.key|token|pwd|pass|auth|dsn|salt)$"
    r"|(mongo|atlas|database|db).*(uri|url)$"
)
SECRET_TEXT = re.compile(rf"{CREDENTIAL.pattern}|^mongodb(\+srv)?://|-----BEGIN")
# Names of Secrets, not what is in them.
NO_SECRET = re.compile(
    r"(existingsecret|existingsecretchecksum|secretname|secretref|pullsecrets|topologykey)$"
)


def is_credential(path: Path, value: Any) -> bool:
    """Return whether a value is one, by its name, also where it is empty because it came on --set, or by how
    it looks."""
    if isinstance(value, bool | Mapping | list):
        return False
    *above, name = (normalized(str(key)) for key in path)
    if any(group in ("secret", "secrets", "credentials") for group in above):
        return True
    is_named_so = not NO_SECRET.search(name) and SECRET_NAME.search(name.replace(".", ""))
    return bool(is_named_so) or bool(SECRET_TEXT.search(str(value)))


def holds_credential(value: Any, path: Path = ("value",)) -> bool:
    """Return whether a credential is anywhere in `value`, which stands at `path`."""
    if isinstance(value, Mapping):
        return any(holds_credential(below, (str(key),)) for key, below in value.items())
    if isinstance(value, list):
        return any(holds_credential(below, path) for below in value)
    return is_credential(path, value)


def normalized(name: str) -> str:
    """Return a name without what its spelling can differ in: `mern-client`, `mern_client`, `mernClient`."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())
