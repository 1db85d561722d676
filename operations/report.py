"""What a run changes or has changed, as markdown for GitHub: a pull request's comment, a job's summary.

All text that is not ours stands in `<pre>` or `<code>`, escaped for HTML: GitHub reads neither markdown
nor mentions there, whatever the text holds.
"""

import difflib
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from operations.engine import NOT_KNOWN, SECRET, Change, Run

COMMENT_LIMIT = 64_000
"""Characters; GitHub takes 65,536, and the marker and the footer of a comment come on top."""
SUMMARY_LIMIT = 300_000
"""Characters; GitHub takes 1 MiB of a step, and a character can be three bytes."""
LINE = 160
"""Where a value is cut."""

SIGNS = {"create": "+", "update": "~", "replace": "+-", "delete": "-", "import": "="}
DONE = {
    "create": "created",
    "update": "updated",
    "replace": "replaced",
    "delete": "deleted",
    "import": "imported",
}
TO_DO = {"create": "create", "update": "update", "replace": "replace", "delete": "delete", "import": "import"}
GONE = object()
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def comment(run: Run, stack: str, limit: int = COMMENT_LIMIT) -> str:
    """A preview, for a pull request."""
    page = Page(limit)
    if not run.ok:
        page.add(
            f"### The preview of stack {code(stack)} failed\n\nNothing was changed. What stands in the way:"
        )
        page.add_lines(run.errors)
    else:
        page.add(f"### Preview of stack {code(stack)}: {counted(run.changes, TO_DO) or 'no change'}")
    _notes(page, run)
    if run.changes and not run.ok:
        page.add("Up to there it would have changed:")
    _changes(page, run.changes)
    return page.text


def summary(run: Run, stack: str, limit: int = SUMMARY_LIMIT) -> str:
    """A preview or a deployment, for the job's summary."""
    if run.command == "preview":
        return comment(run, stack, limit)
    page = Page(limit)
    took = f"{run.seconds:.0f} s"
    if run.ok:
        revision = f", revision {code(run.revision)}" if run.revision else ""
        what = counted(run.changes, DONE) or "nothing changed"
        page.add(f"### Stack {code(stack)} is deployed{revision}: {what} ({took})")
    else:
        page.add(f"### The deployment of stack {code(stack)} failed ({took})")
        page.add_lines(run.errors)
    _notes(page, run)
    if run.changes and not run.ok:
        page.add("What it set out to change:")
    _changes(page, run.changes)
    return page.text


def no_drift(run: Run, stack: str) -> str:
    """For the job's summary; with what could not be looked at."""
    page = Page(SUMMARY_LIMIT)
    page.add(f"### Stack {code(stack)} is as it should be")
    _notes(page, run)
    return page.text


def drift(run: Run, stack: str, limit: int = COMMENT_LIMIT) -> str:
    """What is not as the stack says; empty where nothing is."""
    if not (run.drift or run.changed):
        return ""
    page = Page(limit)
    page.add(
        f"### Stack {code(stack)} has drifted\n\nA preview of its own branch should change nothing. "
        "`pulumi up` brings back what the stack says."
    )
    if run.drift:
        page.add("Found in the cluster:")
        page.add_lines([text.removeprefix("drift:").strip() for text in run.drift])
    if run.changes:
        page.add(f"The next `pulumi up` would {counted(run.changes, TO_DO)}:")
    _changes(page, run.changes)
    return page.text


class Page:
    """A text that grows by whole blocks, as long as there is room."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._blocks: list[str] = []

    @property
    def text(self) -> str:
        return "\n\n".join(self._blocks) + "\n" if self._blocks else ""

    @property
    def room(self) -> int:
        return self._room

    def add(self, block: str) -> bool:
        """Whether there was room for it."""
        needed = size(block) + 2
        if needed > self._room:
            return False
        self._room -= needed
        self._blocks.append(block)
        return True

    def add_lines(self, texts: Iterable[str]) -> None:
        """`texts` as they stand, cut after a whole line where they take more than half of the room."""
        lines = [shorten(line, 1_000) for text in texts for line in [*clean(text).split("\n"), ""]][:-1]
        budget, kept = self._room // 2, list[str]()
        for line in lines:
            budget -= size(html.escape(line)) + 1
            if budget < 100:
                break
            kept.append(line)
        if kept and not kept[-1].strip():
            kept.pop()
        self.add(pre(kept))
        if left := len(lines) - len(kept):
            self.add(f"*{left} more lines are in the log.*")


def _notes(page: Page, run: Run) -> None:
    if run.notes:
        page.add("Notes, and what could not be checked:")
        page.add_lines(run.notes)


def _changes(page: Page, changes: list[Change]) -> None:
    """A heading for each group, and one folded block for each change. Where there is no room for all,
    the last ones lose first their fields, and then their line; a notice says so."""
    groups = [(title, found) for title, found in _grouped(changes) if found]
    rows = {change.urn: _row(change) for _, found in groups for change in found}
    spare = page.room - 400 - sum(size(row) + 2 for row in rows.values()) - 40 * len(groups)
    without_fields = without_line = 0
    for title, found in groups:
        page.add(f"**{title}**")
        for change in found:
            folded = _folded(change)
            if folded and (extra := size(folded) - size(rows[change.urn])) <= spare:
                spare -= extra
                page.add(folded)
            elif page.room > 400 and page.add(rows[change.urn]):
                without_fields += bool(folded)
            else:
                without_line += 1
    if without_fields:
        page.add(f"*There was no room for the fields of {without_fields} more objects: they are in the log.*")
    if without_line:
        page.add(f"*There was no room for {without_line} more objects: they are in the log.*")


def _grouped(changes: list[Change]) -> Iterator[tuple[str, list[Change]]]:
    groups = {"Kubernetes objects": list[Change](), "Releases": [], "AWS": [], "Other": []}
    for change in changes:
        if change.is_object or (change.type.startswith("kubernetes:") and "helm.sh" not in change.type):
            groups["Kubernetes objects"].append(change)
        elif change.type.startswith("kubernetes:"):
            groups["Releases"].append(change)
        elif change.type.startswith("aws:"):
            groups["AWS"].append(change)
        else:
            groups["Other"].append(change)
    yield from groups.items()


def counted(changes: list[Change], words: Mapping[str, str]) -> str:
    """As in `create 1, update 2`."""
    counts = Counter(change.operation for change in changes)
    return ", ".join(f"{words[each]} {counts[each]}" for each in SIGNS if counts[each])


def _title(change: Change) -> str:
    sign, what = SIGNS[change.operation], f"{change.kind} {change.name}"
    return f"{code(f'{sign} {what}')} {change.operation}"


def _row(change: Change) -> str:
    return f"- {_title(change)}"


def _folded(change: Change) -> str:
    """The change with its fields folded below; empty where there is none to show."""
    lines = list(_lines(change))
    if not lines:
        return ""
    # The blank line before <pre> makes it a block of its own, which ends at </pre> and nowhere else.
    return f"<details><summary>{_title(change)}</summary>\n\n{pre(lines)}\n\n</details>"


def _lines(change: Change) -> Iterator[str]:
    if change.operation == "delete" or change.new is None:
        return
    if change.old is None or change.operation in ("create", "import"):
        dumped = yaml.safe_dump(change.new, sort_keys=False, allow_unicode=True, width=10_000)
        yield from (shorten(line, LINE) for line in dumped.rstrip().split("\n"))
        return
    told = False
    shown: list[str] = []
    for path, old, new in differences(change.old, change.new):
        told = True
        shown.append(path)
        yield from _field(path, old, new)
    for path in change.paths:
        if not any(path.startswith(each) or each.startswith(path) for each in shown):
            old, new = _at(change.old, path), _at(change.new, path)
            if old == new == SECRET:
                told = True
                yield f"~ {path}: {SECRET}, another than before"
    if not told:
        yield f"~ a value that is {SECRET}"


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each field that differs: its path, and its values; GONE where there is none."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key, GONE), new.get(key, GONE), _join(path, str(key)))
    elif isinstance(old, list) and isinstance(new, list) and _alike(old, new):
        for at in range(max(len(old), len(new))):
            before, after = (side[at] if at < len(side) else GONE for side in (old, new))
            yield from differences(before, after, f"{path}[{at}]")
    elif old != new:
        yield path, old, new


def _alike(old: list[Any], new: list[Any]) -> bool:
    """Whether items at the same place may be compared: else one that was put first changes all."""
    return len(old) == len(new) or old[: len(new)] == new[: len(old)]


def _join(path: str, key: str) -> str:
    if re.fullmatch(r"[A-Za-z_][\w-]*", key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key, ensure_ascii=False)}]"


def _at(value: Any, path: str) -> Any:
    """What stands at a path as the engine writes it; GONE where nothing does."""
    for part in re.findall(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)', path):
        quoted, index, name = part
        if isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
        elif isinstance(value, Mapping) and (quoted or name or index) in value:
            value = value[quoted or name or index]
        else:
            return GONE
    return value


def _field(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        yield f"~ {path}:"
        # The first two lines name the files.
        for line in [*difflib.unified_diff(old.split("\n"), new.split("\n"), n=1, lineterm="")][2:]:
            yield f"    {shorten(line, LINE)}"
    elif old is GONE:
        yield from _with_lines(f"+ {path}: ", new)
    elif new is GONE:
        yield from _with_lines(f"- {path}: ", old)
    else:
        yield f"~ {path}: {_value(old)} → {_value(new)}"


def _with_lines(start: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value:
        yield start + "|"
        yield from (f"    {shorten(line, LINE)}" for line in value.rstrip("\n").split("\n"))
    else:
        yield start + _value(value)


def _value(value: Any) -> str:
    text = value if value in (SECRET, NOT_KNOWN) else json.dumps(value, ensure_ascii=False)
    return shorten(text, LINE)


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def clean(text: str) -> str:
    """`text` without colours and other control characters."""
    return CONTROL.sub("", text.replace("\r\n", "\n").replace("\t", "    "))


def pre(lines: Iterable[str]) -> str:
    return f"<pre>\n{html.escape(clean(chr(10).join(lines)), quote=False)}\n</pre>"


def code(text: str) -> str:
    """`text` in a line: no markdown, no HTML and no mention, whatever it holds."""
    one_line = html.escape(" ".join(clean(text).split()), quote=False)
    # Markdown is read within <code>: what could begin it is written as a number.
    safe = re.sub(r"[`*_\[\]\\~@#|!:]", lambda found: f"&#{ord(found[0])};", one_line)
    return f"<code>{safe}</code>"


def size(text: str) -> int:
    """Length as GitHub counts it: a character beyond 16 bits is two."""
    return len(text.encode("utf-16-le")) // 2
