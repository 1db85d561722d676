"""The description that Helm records with each revision: what it was deployed from, and over what.

It names the chart's files by a digest, and Pulumi compares it: so an edited template is a change, and so
is a record that is not this stack's.
"""

import re

from .record import Record

OURS = re.compile(
    r"(?P<files>.+ \(files [0-9a-f]{16}\))(, (replaces|restores) revision \d+|, installed \S+)?"
)
"""What `chart.Chart.description` says, and what is put behind it when Helm's record was not ours."""


def files_in(description: str) -> str:
    """Return name, version and digest of the chart's files as `chart.Chart.description` gives them, empty for
    the description of a revision that no program of this kind has deployed."""
    ours = OURS.fullmatch(description)
    return ours["files"] if ours else ""


def is_ours(record: Record) -> bool:
    """Return whether a program of this kind has deployed a revision, and it has not failed."""
    return record.status == "deployed" and bool(files_in(record.description))


def over(record: Record, files: str) -> str:
    """Return the description to deploy `files` with, where `record` is the newest revision.

    One that is ours and has the same files is repeated to the letter, and so no change. Whatever else
    stands there is replaced, which is a change by its name alone.
    """
    if not is_ours(record):
        return f"{files}, replaces revision {record.revision}"
    return record.description if files_in(record.description) == files else files
