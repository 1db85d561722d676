"""YAML as Helm reads it, by sigs.k8s.io/yaml: neither YAML 1.1 nor 1.2, and not what PyYAML makes of it.

What differs from PyYAML: `22:30`, `=` and dates are texts, `y` is a boolean, `1e3` and `08` are numbers; keys
become texts; what a merge (`<<`) brings stands over what was written before it; an anchor may be given twice;
unknown tags mean nothing.
"""

import base64
import json
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import yaml

from .values import whole

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+(_[0-9]+)*|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+(_[0-9]+)*)?")
_BEYOND_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_KINDS = {"null": type(None), "bool": bool, "int": int, "float": float}
_UNFINISHED = object()


class Reader:
    """A reader of one text with any number of documents."""

    keys_stand_twice = True
    """Whether a key that stands twice in a mapping is no fault: for Helm the last one counts."""

    def __init__(self, text: str | bytes) -> None:
        self._events = iter(yaml.parse(text, Loader=_Parser))
        self._anchors: dict[str, Any] = {}

    def documents(self) -> Iterator[tuple[Any, int, int]]:
        """Yield each document: its value, and where in the text it begins and ends.

        Raises:
            yaml.YAMLError, ValueError: Helm cannot read it either; the message quotes what was read.
        """
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                root: Any = next(self._events)
                value = self._value(root)
                end: Any = next(self._events)
                yield value, root.start_mark.index, end.start_mark.index

    def scalar(self, event: Any) -> Any:
        """Return what the event of a scalar stands for."""
        text, tag = event.value, (event.tag or "").removeprefix("tag:yaml.org,2002:")
        if tag == "binary":
            content = re.sub(r"[\r\n]", "", text)
            return base64.b64decode(content, validate=True).decode(errors="replace")
        if not (tag in _KINDS or (not tag and event.implicit[0])):
            return text
        if _BEYOND_JSON.fullmatch(text):
            raise _error("a number without end, which JSON does not have", event)
        value = unquoted(text)
        if tag == "float" and type(value) is int:
            return float(value)
        if tag and type(value) is not _KINDS[tag]:
            raise _error(f"a value that is no {tag}, as its tag says", event)
        return value

    def _mapping(self) -> dict[str, Any]:
        """Return the mapping that has just begun."""
        made: dict[str, Any] = {}
        written: set[str] = set()
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                merged = self._value(next(self._events))
                # Of several mappings the first counts most.
                for other in merged[::-1] if isinstance(merged, list) else [merged]:
                    if not isinstance(other, dict):
                        raise _error("a merge of something that is no mapping", event)
                    made |= other
            else:
                key = self._key(event)
                if key in written and not self.keys_stand_twice:
                    raise _error(f"the key {key} stands twice in one mapping", event)
                written.add(key)
                made[key] = self._value(next(self._events))
        return made

    def _key(self, event: Any) -> str:
        """Return the text that a key becomes."""
        value = self.scalar(event) if isinstance(event, yaml.ScalarEvent) else self._value(event)
        if value is None or isinstance(value, dict | list):
            raise _error("a key that is a mapping, a list or null", event)
        if isinstance(event, yaml.ScalarEvent) and event.anchor:
            self._anchors[event.anchor] = value
        if isinstance(value, bool):
            return json.dumps(value)
        return _float_key(value) if isinstance(value, float) else str(value)

    def _value(self, event: Any) -> Any:
        anchor: str | None = event.anchor
        if isinstance(event, yaml.AliasEvent):
            value = self._anchors.get(str(anchor), _UNFINISHED)
            if value is _UNFINISHED:
                raise _error("an alias of an anchor that is not there, or contains it", event)
            return value
        if anchor:
            self._anchors[anchor] = _UNFINISHED
        if isinstance(event, yaml.ScalarEvent):
            value = whole(self.scalar(event))
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping()
        else:
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item))
        if anchor:
            self._anchors[anchor] = value
        return value


def load_all(text: str | bytes) -> list[Any]:
    """Return the documents in `text`, without empty ones.

    Raises:
        yaml.YAMLError, ValueError: as `Reader.documents`.
    """
    return [value for value, _, _ in Reader(text).documents() if value]


def load(text: str | bytes) -> Any:
    """Return the first document in `text`, None where it is empty.

    Raises:
        yaml.YAMLError, ValueError: as `Reader.documents`.
    """
    return next((value for value, _, _ in Reader(text).documents()), None)


def dump(value: Any) -> str:
    """Return `value` in one line that every reader of YAML reads alike."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda char: f"\\U{ord(char[0]):08x}", text)


def unquoted(text: str) -> Any:
    """Return what a scalar without quotes and tag stands for: null, a boolean, a number, or a text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "-+.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        number = int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", digits), 0)
        if -(2**63) <= number < 2**63:
            return number
        if 0 < number < 2**64 and text[0] != "+":
            return float(number)
    if _FLOAT.fullmatch(digits) and abs(real := float(digits)) != float("inf"):
        return real
    return text


def _float_key(number: float) -> str:
    """Return the shortest text of a number in 32 bits, which is how Helm writes those that are keys."""
    try:
        packed = struct.pack("<f", number)
    except OverflowError:
        return ".inf" if number > 0 else "-.inf"
    texts = (f"{number:.{digits}e}" for digits in range(9))
    shortest = next(text for text in texts if struct.pack("<f", float(text)) == packed)
    return f"{Decimal(shortest):f}" if -4 <= int(shortest.partition("e")[2]) < 6 else shortest


def _error(problem: str, event: Any) -> yaml.MarkedYAMLError:
    """Return the error that `problem` stands where `event` does."""
    return yaml.constructor.ConstructorError(None, None, problem, event.start_mark)
