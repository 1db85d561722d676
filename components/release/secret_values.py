"""TEMPORARY."""

from typing import Any

from components.release.secrets import MASK, Secrets, opened  # noqa: F401
from components.release.values import map_leaves  # noqa: F401


def mask(text: str, secrets: Any) -> str:
    return Secrets(secrets).mask(text)


def holds(text: str, secrets: Any) -> bool:
    return Secrets(secrets).holds(text)
