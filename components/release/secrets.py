"""Credentials among plain values: opened, marked for Pulumi, found in texts and masked there.

What is masked: all that a Kubernetes Secret holds, by its place, whatever it says (rows.py, drift.py).
Anywhere else a secret can only be found by its text, and no other text may be taken for it: names, labels,
images and hosts do not depend on secrets. So, outside of Secrets, a secret is looked for

- always, where it has the form of a credential: a URL with a password, a PEM block, a token, a long key;
- never, where it is a word or number of fewer than 8 characters, or any text of fewer than 6;
- never, where public texts have it too: the chart's files, its plain values, what it renders without it;
- in all other cases.

The password in a URL, and each line of a secret of several lines, are looked for in the same way.
"""

import base64
import binascii
import html
import json
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pulumi
from pydantic import SecretStr

from .values import map_leaves

MASK = "[secret]"

CREDENTIAL = re.compile(
    r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|-----BEGIN [A-Z ]+-----\s|^eyJ[\w-]+\.eyJ|\b(sk|rk)_(live|test)_|\bgh[pousr]_\w{20}"
    r"|^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z0-9+/=]{32,}$"
)
"""The form of a text that is a credential, wherever it stands."""
PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^:/@\s]*:(\S+)@")
"""A URL with a password."""
LEAST_WORD, LEAST_TEXT = 8, 6
"""Characters of a word or number, and of any other text, from which on a secret is looked for in texts."""
ALPHABETS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
OTHER_LETTERS = str.maketrans("".join(ALPHABETS), "".join(chars[1:] + chars[0] for chars in ALPHABETS))


class Secrets:
    """A set of texts that must not be seen, and a search for them in other texts."""

    def __init__(self, texts: Iterable[str] = (), public: str = "") -> None:
        """Hold `texts`.

        Args:
            texts: the secrets.
            public: texts that may be seen; a secret that stands there too is not looked for.
        """
        self._texts, self._public = frozenset(texts) - {""}, public
        lines = {line for secret in self._texts for line in _lines(secret) if _is_told_apart(line, public)}
        wholes = {
            text
            for secret in self._texts
            for text in (secret, *_passwords(secret))
            if CREDENTIAL.search(text) or _is_told_apart(text, public)
        }
        # The longest first: what is left of one when a part of it was masked would not be found.
        self._sought = tuple(
            (text, text in wholes) for text in sorted(wholes | lines, key=lambda text: (-len(text), text))
        )

    @classmethod
    def of_values(cls, values: Any, recorded: Any = None, public: str = "") -> "Secrets":
        """Return the text of every `SecretStr` in `values`, and of what stands in its place in `recorded`,
        the values of an earlier revision."""
        texts: set[str] = set()
        _collect(values, recorded, texts)
        return cls(texts, public)

    @classmethod
    def of_objects(cls, objects: Iterable[Mapping[str, Any]]) -> "Secrets":
        """Return what the Kubernetes Secrets among `objects` hold."""
        texts = set()
        for item in objects:
            if item["kind"] == "Secret":
                texts |= {str(value) for value in (item.get("stringData") or {}).values()}
                texts |= {_decoded(str(value)) for value in (item.get("data") or {}).values()}
        return cls(texts)

    def __or__(self, other: "Secrets") -> "Secrets":
        return Secrets(self._texts | other._texts, "\n".join(filter(None, {self._public, other._public})))

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"Secrets({len(self)})"

    @property
    def not_sought(self) -> int:
        """The number of those that no mask finds outside of Secrets: weak, or public."""
        return len(self._texts - {text for text, _ in self._sought})

    def found_in(self, text: str) -> list[str]:
        """Return those that stand in `text` as they are, the longest first."""
        return [secret for secret, _ in self._sought if secret in text]

    def mask(self, text: str) -> str:
        """Return `text` with `[secret]` in place of each, however it is quoted or encoded."""
        for hint, finder in _finders(self._sought):
            if hint in text:
                text = finder.sub(MASK, text)
        return text

    def holds(self, text: str) -> bool:
        """Return whether `mask` would find something in `text`."""
        return any(hint in text and finder.search(text) for hint, finder in _finders(self._sought))

    @contextmanager
    def masked_in_errors(self) -> Iterator[None]:
        """Let no error for the user out but masked."""
        try:
            yield
        except pulumi.RunError as error:
            raise type(error)(self.mask(str(error))) from None


class Messages:
    """The only way of texts about a resource to the log and to files; masks them."""

    def __init__(self, secrets: Secrets, resource: pulumi.Resource) -> None:
        self._secrets = secrets
        self._resource = resource

    def info(self, text: str, *, ephemeral: bool = False) -> None:
        """Show a note; an ephemeral one is gone with the next."""
        pulumi.log.info(self._secrets.mask(text), self._resource, ephemeral=ephemeral)

    def warn(self, text: str) -> None:
        """Show a warning."""
        pulumi.log.warn(self._secrets.mask(text), self._resource)

    def error(self, text: str) -> None:
        """Show an error; it makes the run fail."""
        pulumi.log.error(self._secrets.mask(text), self._resource)

    def write(self, file: Path, text: str) -> None:
        """Write `text` to `file`.

        Raises:
            OSError: it cannot be written.
        """
        file.write_text(self._secrets.mask(text) + "\n")


def opened(values: Any) -> Any:
    """Return `values` with the text of every `SecretStr` in its place."""
    return map_leaves(values, lambda leaf: leaf.get_secret_value() if isinstance(leaf, SecretStr) else leaf)


def marked(values: Any) -> Any:
    """Return `values` with every `SecretStr` as a secret Output of its own, so that the rest of a diff
    stays readable."""

    def mark(leaf: Any) -> Any:
        return pulumi.Output.secret(leaf.get_secret_value()) if isinstance(leaf, SecretStr) else leaf

    return map_leaves(values, mark)


def disguised(values: Any, texts: Iterable[str]) -> Any:
    """Return `values` with other letters and digits in place of each of `texts` in every `SecretStr`: what a
    chart renders of them shows where it has these texts from elsewhere.

    Args:
        values: of a chart.
        texts: of `Secrets.found_in`. The scheme of a URL stays, so that it still is one.
    """

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, SecretStr):
            return leaf
        secret = leaf.get_secret_value()
        for text in texts:
            scheme, colon, rest = text.rpartition("://")
            secret = secret.replace(text, scheme + colon + rest.translate(OTHER_LETTERS))
        return SecretStr(secret)

    return map_leaves(values, change)


def _passwords(secret: str) -> Iterator[str]:
    if url := PASSWORD.match(secret):
        yield from (url[1], unquote(url[1]))


def _lines(secret: str) -> list[str]:
    """Return the lines of a text of several: a log may show its last ones alone."""
    lines = re.split(r"[\r\n]+", secret)
    return [line.strip() for line in lines] if len(lines) > 1 else []


def _is_told_apart(secret: str, public: str) -> bool:
    """Return whether a text can have `secret` in it only because of the secret."""
    least = LEAST_WORD if secret.isalpha() or secret.isdecimal() else LEAST_TEXT
    return len(secret) >= least and secret not in public


def _decoded(text: str) -> str:
    """Return what `text` is in base64, `text` itself where it is none or holds bytes that are no text."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text


def _collect(value: Any, recorded: Any, texts: set[str]) -> None:
    match value:
        case SecretStr():
            texts.add(value.get_secret_value())
            if isinstance(recorded, str):
                texts.add(recorded)
        case Mapping():
            there = recorded if isinstance(recorded, Mapping) else {}
            for key, item in value.items():
                _collect(item, there.get(key), texts)
            if value and all(isinstance(item, SecretStr) for item in value.values()):
                # So is what it no longer has.
                texts.update(item for item in there.values() if isinstance(item, str))
        case list() | tuple():
            olds = recorded if isinstance(recorded, list) else []
            for item, old in zip_longest(value, olds[: len(value)]):
                _collect(item, old, texts)


@lru_cache(maxsize=8)
def _finders(secrets: tuple[tuple[str, bool], ...]) -> list[tuple[str, re.Pattern[str]]]:
    """Return patterns that find each of `secrets`, each with letters that stand wherever it matches.

    Args:
        secrets: texts, and whether each is looked for in base64 too: single lines are not.
    """
    finders = []
    for secret, in_base64 in secrets:
        quoted = json.dumps(secret, ensure_ascii=False)[1:-1]
        in_go = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
        finders.append((_letters(secret), re.compile("".join(map(_in_any_quotes, secret)))))
        if in_base64:
            as_bytes = {_encoded(text) for text in (secret, quoted, in_go, json.dumps(secret)[1:-1])}
            finders += [item for content in sorted(as_bytes, key=len) for item in _in_base64(content)]
    return finders


def _letters(text: str) -> str:
    """Return the longest run of letters and digits, which no way of quoting changes."""
    return max(re.findall("[A-Za-z0-9]+", text), key=len, default="")


def _in_any_quotes(char: str) -> str:
    """Return a pattern for `char` as it is, or escaped by JSON, Go, YAML, HTML or in a URL, even twice."""
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
    units = char.encode("utf-16-be", "surrogatepass").hex()
    in_url = "".join(f"%(?:25)*{byte:02x}" for byte in _encoded(char))
    in_json = "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4))
    in_html = [re.escape(html.escape(char)), f"&#{ord(char)};"] if html.escape(char) != char else []
    coded = f"(?i:{in_url}|{in_json}|\\\\+U{ord(char):08x})"
    either = [*escapes, rf"\\*{re.escape(char)}", coded, *in_html]
    return f"(?:{'|'.join(either)})"


def _encoded(text: str) -> bytes:
    """Return `text` in UTF-8; JSON can hold halves of characters."""
    return text.encode(errors="surrogatepass")


def _in_base64(content: bytes) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield patterns that find `content` in base64, also amid a longer text.

    Three bytes make four letters, so it can begin at three places.
    """
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(content)) * 8 // 6
        run = base64.b64encode(bytes(before) + content).decode()[first:last]
        if len(run) >= 8:
            letters = re.escape(run).replace(r"\+", "[+-]").replace("/", "[/_]")
            edge = "[A-Za-z0-9+/_-]?"  # a letter with some bits of it
            yield _letters(run), re.compile(f"{edge if before else ''}{letters}{edge}=*")
