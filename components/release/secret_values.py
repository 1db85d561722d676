"""Credentials among plain values: opened, marked for Pulumi, found in texts and masked there."""

import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any
from urllib.parse import unquote

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


def secrets_of(values: Any, recorded: Any = None) -> list[str]:
    """The text of every `SecretStr` in `values`, and of what stands in its place in `recorded`, the
    values of an earlier revision; the longest first."""
    found: set[str] = set()
    _collect(values, recorded, found)
    return sorted(found - {""}, key=len, reverse=True)


def _collect(value: Any, recorded: Any, found: set[str]) -> None:
    match value:
        case SecretStr():
            found.add(value.get_secret_value())
            if isinstance(recorded, str):
                found.add(recorded)
        case Mapping():
            there = recorded if isinstance(recorded, Mapping) else {}
            for key, item in value.items():
                _collect(item, there.get(key), found)
            if value and all(isinstance(item, SecretStr) for item in value.values()):
                # So is what it no longer has.
                found.update(item for item in there.values() if isinstance(item, str))
        case list() | tuple():
            olds = recorded if isinstance(recorded, list) else []
            for item, old in zip_longest(value, olds[: len(value)]):
                _collect(item, old, found)


def mask(text: str, secrets: list[str]) -> str:
    """`text` with `[secret]` in place of each of `secrets`, however it is quoted or encoded."""
    for hint, finder in _finders(tuple(secrets)):
        if hint in text:
            text = finder.sub(MASK, text)
    return text


def holds(text: str, secrets: list[str]) -> bool:
    """Whether `mask` would find something."""
    return any(hint in text and finder.search(text) for hint, finder in _finders(tuple(secrets)))


@lru_cache(maxsize=8)
def _finders(secrets: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    """What finds each of `secrets`, and letters that are in every text it can be found in."""
    known = dict.fromkeys(secrets)
    for secret in secrets:
        if found := re.match(r"[a-z][a-z0-9+.-]*://[^:/@\s]*:(\S{8,})@", secret):
            known |= dict.fromkeys((found[1], unquote(found[1])))  # the password in a URL
    finders = []
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) < 3:  # as Pulumi does: else every digit of a text could be masked
            continue
        quoted = json.dumps(secret, ensure_ascii=False)[1:-1]
        in_go = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
        as_bytes = {text.encode() for text in (secret, quoted, in_go, json.dumps(secret)[1:-1])}
        finders.append((_letters(secret), re.compile("".join(map(_in_any_quotes, secret)))))
        finders += [found for content in sorted(as_bytes, key=len) for found in _in_base64(content)]
    return finders


def _letters(text: str) -> str:
    """The longest run of letters and digits, which no way of quoting changes."""
    return max(re.findall("[A-Za-z0-9]+", text), key=len, default="")


def _in_any_quotes(char: str) -> str:
    """A pattern for `char` as it is, or escaped by JSON, Go, YAML, HTML or in a URL, also more than once."""
    if char.isascii() and char.isalnum():
        return char
    escapes = {
        "\n": [r"\r?\n[\s|>]*", r"\\+n"],  # an indented or quoted block has more before each line
        "\t": [r"\\+t"],
        "\r": [r"\\+r"],
        " ": [r"\+"],
        "\\": [r"\\+"],
        "'": ["''"],
    }.get(char, [])
    units = char.encode("utf-16-be").hex()
    in_url = "".join(f"%(?:25)*{byte:02x}" for byte in char.encode())
    in_json = "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4))
    in_html = [re.escape(html.escape(char)), f"&#{ord(char)};"] if html.escape(char) != char else []
    coded = f"(?i:{in_url}|{in_json}|\\\\+U{ord(char):08x})"
    either = [*escapes, rf"\\*{re.escape(char)}", coded, *in_html]
    return f"(?:{'|'.join(either)})"


def _in_base64(content: bytes) -> Iterator[tuple[str, re.Pattern[str]]]:
    """What finds `content` in base64, also amid a longer text: three bytes make four letters, so it
    can begin at three places."""
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(content)) * 8 // 6
        run = base64.b64encode(bytes(before) + content).decode()[first:last]
        if len(run) >= 8:
            letters = re.escape(run).replace(r"\+", "[+-]").replace("/", "[/_]")
            edge = "[A-Za-z0-9+/_-]?"  # a letter with some bits of it
            yield _letters(run), re.compile(f"{edge if before else ''}{letters}{edge}=*")


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to all that is neither mapping nor list."""
    match value:
        case Mapping():
            return {key: map_leaves(item, change) for key, item in value.items()}
        case list() | tuple():
            return [map_leaves(item, change) for item in value]
    return change(value)
