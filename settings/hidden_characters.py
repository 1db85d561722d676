"""Characters that nobody sees, in credentials: what cannot be right is named, what might be is left alone."""

import re
import unicodedata

NAMES = {
    "\0": "a NUL",
    "\t": "a tab",
    "\n": "a line feed",
    "\r": "a carriage return",
    "\x1b": "an escape character",
    " ": "a blank",
    "\N{NO-BREAK SPACE}": "a non-breaking blank",
    "\N{ZERO WIDTH SPACE}": "a zero-width blank",
    "\N{ZERO WIDTH NO-BREAK SPACE}": "a byte order mark",
    "\N{REPLACEMENT CHARACTER}": "a character that could not be decoded",
}
NEVER = re.compile(
    r"[^\t\n\r -\x7e\xa0-\ud7ff\ue000-\ufffc\U00010000-\U0010ffff]|\r(?!\n)"
    "|[\N{ZERO WIDTH SPACE}\N{WORD JOINER}\N{ZERO WIDTH NO-BREAK SPACE}]"
)
"""What no variable has anywhere: control characters, halves of characters, blanks without width."""


def hidden_in_word(text: str) -> list[str]:
    """Return what a text without blanks should not have, as in `a carriage return at its end`."""
    return _described(text, {at for at, char in enumerate(text) if char == " " or not _is_seen(char)})


def hidden_in_variable(text: str) -> list[str]:
    """Return what the value of an environment variable should not have.

    Blanks, and the line feeds of a text of several lines, may be meant.
    """
    wrong = {match.start() for match in NEVER.finditer(text)}
    wrong |= {at for at in (0, len(text) - 1) if not _is_seen(text[at]) and text[at] not in "\t\n\r"}
    if "\n" not in text.strip("\r\n"):
        wrong |= {at for at, char in enumerate(text) if char in "\r\n"}
    return _described(text, wrong)


def _is_seen(char: str) -> bool:
    # Private and unassigned characters are left alone: a newer Unicode than Python's may have them.
    is_hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
    return char == " " or not (is_hidden or char == "\N{REPLACEMENT CHARACTER}")


def _official_name(char: str) -> str:
    name = unicodedata.name(char, "").lower()
    return f" ({name})" if name else ""


def _described(text: str, places: set[int]) -> list[str]:
    """Return the characters at `places` and where they are, each once, and nothing else of `text`."""
    parts = []
    for at in sorted(places):
        name = NAMES.get(text[at]) or f"the character U+{ord(text[at]):04X}{_official_name(text[at])}"
        before, behind = (
            all(other in places for other in side) for side in (range(at), range(at, len(text)))
        )
        parts.append(f"{name} at its {'start' if before else 'end'}" if before or behind else f"{name} in it")
    return list(dict.fromkeys(parts))
