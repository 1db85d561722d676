"""Credentials among plain values: opened, marked for Pulumi, found in texts and masked there."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import pulumi
from pydantic import SecretStr

MASK = "[secret]"


def plain(values: Any) -> Any:
    """`values` with every `SecretStr` opened."""
    return map_leaves(values, lambda leaf: leaf.get_secret_value() if isinstance(leaf, SecretStr) else leaf)


def marked(values: Any) -> Any:
    """`values` with every `SecretStr` as a secret Output of its own, so that the rest of a diff stays
    readable."""

    def mark(leaf: Any) -> Any:
        return pulumi.Output.secret(leaf.get_secret_value()) if isinstance(leaf, SecretStr) else leaf

    return map_leaves(values, mark)


def secrets_of(values: Any) -> list[str]:
    """The text of every `SecretStr` in `values`, the longest first."""
    found = set()

    def collect(leaf: Any) -> None:
        if isinstance(leaf, SecretStr):
            found.add(leaf.get_secret_value())

    map_leaves(values, collect)
    return sorted(found - {""}, key=len, reverse=True)


def forms(secret: str) -> set[str]:
    """How a text may hold `secret`: as it is, quoted by JSON, Go or YAML, in a URL, in base64."""
    quoted = json.dumps(secret, ensure_ascii=False)[1:-1]
    as_is = {secret, quoted, json.dumps(secret)[1:-1]}
    encoded = {quote(secret, safe=""), quote(secret), base64.b64encode(secret.encode()).decode()}
    return as_is | {form.replace("'", "''") for form in as_is} | encoded


def mask(text: str, secrets: list[str]) -> str:
    """`text` with `[secret]` in place of each of `secrets`, in any of its forms."""
    for form in sorted({form for secret in secrets for form in forms(secret)}, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to all that is neither mapping nor list."""
    match value:
        case Mapping():
            return {key: map_leaves(item, change) for key, item in value.items()}
        case list() | tuple():
            return [map_leaves(item, change) for item in value]
    return change(value)
