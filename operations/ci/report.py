"""Reports of a run as markdown for GitHub: a pull request's comment, a job's summary, an issue on drift.

All text of others stands in `<pre>` or `<code>`, escaped for HTML: GitHub reads neither markdown
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

from components.release.values import ABSENT, Change, Path, by_index, differences, get, pulumi_path
from operations.ci.engine import NOT_KNOWN, SECRET, ResourceChange, Run

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
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


def comment(run: Run, stack: str, limit: int = COMMENT_LIMIT) -> str:
    """Return the report of a preview for a pull request."""
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
    """Return the report of a preview, a deployment or a destruction for the job's summary."""
    if run.command == "preview":
        return comment(run, stack, limit)
    page = Page(limit)
    took = f"{run.seconds:.0f} s"
    if run.command == "destroy":
        page.add(f"### Stack {code(stack)} {'is' if run.ok else 'could not be'} destroyed ({took})")
        if not run.ok:
            page.add_lines(run.errors)
    elif run.ok:
        revision = f", revision {code(run.revision)}" if run.revision else ""
        counts = counted(run.changes, DONE) or "nothing changed"
        page.add(f"### Stack {code(stack)} is deployed{revision}: {counts} ({took})")
        _images(page, run, stack)
    else:
        page.add(f"### The deployment of stack {code(stack)} failed ({took})")
        page.add_lines(run.errors)
    _notes(page, run)
    if run.changes and not run.ok:
        page.add("What it set out to change:")
    _changes(page, run.changes)
    return page.text


def _images(page: "Page", run: Run, stack: str) -> None:
    """Add the commit and the images that went out, what was there before, and the way back."""
    if run.after is None:
        return
    before = run.before.images if run.before else {}
    lines = []
    for part, image in run.after.images.items():
        old = before.get(part)
        lines.append(f"= {part} {image}" if old == image else f"~ {part}: {old or 'nothing'} → {image}")
    page.add(f"From commit {code(run.commit)}, with the images:" if run.commit else "With the images:")
    page.add_lines(lines)
    if back := way_back(run, stack):
        page.add(back[0])
        page.add_lines(line.strip() for line in back[1:])


def way_back(run: Run, stack: str) -> list[str]:
    """Return the command that takes a stack back to what was there before `run`, with a line before it; empty
    where there is nothing to go back to."""
    if run.before is None or run.after is None or run.before.revision == run.after.revision:
        return []
    return [
        f"Back to revision {run.before.revision}, which was there before, from a clone:",
        f"    .venv/bin/python -m operations rollback {run.before.revision} --stack {stack}",
    ]


def refusal(title: str, text: str) -> str:
    """Return the report of a command that was refused, for the job's summary."""
    page = Page(SUMMARY_LIMIT)
    page.add(f"### {title}")
    page.add_lines([text])
    return page.text


def no_drift(run: Run, stack: str) -> str:
    """Return the report of a drift check that found nothing, with the checks that could not be made."""
    page = Page(SUMMARY_LIMIT)
    page.add(f"### Stack {code(stack)} is as it should be")
    _notes(page, run)
    return page.text


def drift(run: Run, stack: str, limit: int = COMMENT_LIMIT) -> str:
    """Return the report of what is not as the stack says, empty where nothing is."""
    if not (run.drift or run.changed):
        return ""
    page = Page(limit)
    page.add(
        f"### Stack {code(stack)} has drifted\n\nA preview of its own branch should change nothing. "
        f"{code(f'pulumi up --stack {stack}')} brings back what the stack says."
    )
    if run.drift:
        page.add("Found in the cluster:")
        page.add_lines([text.removeprefix("drift:").strip() for text in run.drift])
    if run.changes:
        page.add(f"The next `up` would {counted(run.changes, TO_DO)}:")
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
        """Add `block` where there is room for it; return whether there was."""
        needed = size(block) + 2
        if needed > self._room:
            return False
        self._room -= needed
        self._blocks.append(block)
        return True

    def add_lines(self, texts: Iterable[str]) -> None:
        """Add `texts` as they are, cut after a whole line where they take more than half of the room."""
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


def _changes(page: Page, changes: list[ResourceChange]) -> None:
    """Add a heading for each group, and a folded block for each change. Where there is no room for all,
    the last lose first their fields, and then their line; a notice says so."""
    groups = [(title, group) for title, group in _grouped(changes) if group]
    rows = {change.urn: _row(change) for _, group in groups for change in group}
    spare = page.room - 400 - sum(size(row) + 2 for row in rows.values()) - 40 * len(groups)
    without_fields = without_line = 0
    for title, group in groups:
        page.add(f"**{title}**")
        for change in group:
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


def _grouped(changes: list[ResourceChange]) -> Iterator[tuple[str, list[ResourceChange]]]:
    groups: dict[str, list[ResourceChange]] = {
        "Kubernetes objects": [],
        "Releases": [],
        "AWS": [],
        "Other": [],
    }
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


def counted(changes: list[ResourceChange], words: Mapping[str, str]) -> str:
    """Return the number of changes by operation, as in `create 1, update 2`."""
    counts = Counter(change.operation for change in changes)
    return ", ".join(f"{words[name]} {counts[name]}" for name in SIGNS if counts[name])


def _title(change: ResourceChange) -> str:
    title = f"{SIGNS[change.operation]} {change.kind} {change.name}"
    return f"{code(title)} {change.operation}"


def _row(change: ResourceChange) -> str:
    return f"- {_title(change)}"


def _folded(change: ResourceChange) -> str:
    """Return the change with its fields folded below, empty where it has none to show."""
    lines = list(_lines(change))
    if not lines:
        return ""
    # The blank line before <pre> makes it a block of its own, which ends at </pre> and nowhere else.
    return f"<details><summary>{_title(change)}</summary>\n\n{pre(lines)}\n\n</details>"


def _lines(change: ResourceChange) -> Iterator[str]:
    if change.operation == "delete" or change.new is None:
        return
    if change.old is None or change.operation in ("create", "import"):
        dumped = yaml.safe_dump(change.new, sort_keys=False, allow_unicode=True, width=10_000)
        yield from (shorten(line, LINE) for line in dumped.rstrip().split("\n"))
        return
    fields = list(differences(change.old, change.new, pair=by_index))
    for path, old, new in fields:
        yield from _field(pulumi_path(path), old, new)
    secrets = [text for text in change.paths if _is_other_secret(change, _parsed(text), fields)]
    yield from (f"~ {text}: {SECRET}, another than before" for text in secrets)
    if not (fields or secrets):
        yield f"~ a value that is {SECRET}"


def _is_other_secret(change: ResourceChange, path: Path, fields: list[Change]) -> bool:
    """Return whether the provider reports a change at `path` that is hidden, and not among `fields`."""
    if any(path[: len(shown)] == shown[: len(path)] for shown, _, _ in fields):
        return False
    return bool(get(change.old, path) == get(change.new, path) == SECRET)


def _parsed(text: str) -> Path:
    """Return a path as the engine writes it in its events."""
    parts = re.findall(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)', text)
    return tuple(int(index) if index else quoted or name for quoted, index, name in parts)


def _field(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        yield f"~ {path}:"
        # The first two lines name the files.
        for line in [*difflib.unified_diff(old.split("\n"), new.split("\n"), n=1, lineterm="")][2:]:
            yield f"    {shorten(line, LINE)}"
    elif old is ABSENT:
        yield from _with_lines(f"+ {path}: ", new)
    elif new is ABSENT:
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
    """Return `text` of at most `length` characters, cut at the end."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def clean(text: str) -> str:
    """Return `text` without colours and other control characters."""
    return CONTROL.sub("", text.replace("\r\n", "\n").replace("\t", "    "))


def pre(lines: Iterable[str]) -> str:
    """Return `lines` as a block: no markdown, no HTML and no mention, whatever they hold."""
    return f"<pre>\n{html.escape(clean(chr(10).join(lines)), quote=False)}\n</pre>"


def code(text: str) -> str:
    """Return `text` within a line: no markdown, no HTML and no mention, whatever it holds."""
    one_line = html.escape(" ".join(clean(text).split()), quote=False)
    # Markdown is read within <code>: what could begin it is written as a number.
    safe = re.sub(r"[`*_\[\]\\~@#|!:]", lambda match: f"&#{ord(match[0])};", one_line)
    return f"<code>{safe}</code>"


def size(text: str) -> int:
    """Return the length as GitHub counts it: a character beyond 16 bits is two."""
    return len(text.encode("utf-16-le")) // 2
