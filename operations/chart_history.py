"""The earlier versions of the chart's files, as Git has them."""

import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO

from components.release import ChartError, chart

FOLDER = "chart"
AT_MOST = 200
"""Versions of the chart that are compared, the newest first; each takes some milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit with a version of the chart."""

    hash: str
    """Its first 12 digits."""
    date: str
    subject: str

    def __str__(self) -> str:
        return f"{self.hash} ({self.date}, {self.subject})"


def commit_of(description: str) -> Commit | None:
    """Return the newest commit in which the chart has `description` (of `chart.Chart`), None where Git has no
    such commit, or is not here."""
    try:
        form = "--format=%H%x00%cs%x00%s"
        log = _git("log", "--all", "--full-history", form, "--", FOLDER).decode(errors="replace")
        commits = [line.split("\0", 2) for line in log.splitlines()]
        asked = "".join(f"{commit}:./{FOLDER}\n" for commit, _, _ in commits)
        trees = _git("cat-file", "--batch-check=%(objectname) %(objecttype)", given=asked.encode())
        seen: set[str] = set()
        for (commit, date, subject), answer in zip(commits, trees.decode().splitlines(), strict=True):
            tree, _, kind = answer.rpartition(" ")
            if kind != "tree" or tree in seen:
                continue
            if len(seen) == AT_MOST:
                break
            seen.add(tree)
            if _describe(tree) == description:
                return Commit(hash=commit[:12], date=date, subject=subject)
    except (OSError, ValueError, subprocess.SubprocessError, tarfile.TarError):
        return None
    return None


def _describe(tree: str) -> str:
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(fileobj=BytesIO(_git("archive", "--format=tar", tree))) as files,
    ):
        files.extractall(folder, filter="data")
        try:
            return chart.load(folder).description
        except ChartError:
            return ""  # no chart yet


def _git(*arguments: str, given: bytes = b"") -> bytes:
    command = ["git", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True, timeout=30).stdout
