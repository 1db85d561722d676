"""Questions to the API server about each object of a release, all asked at once."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .kubernetes_api import ClusterError
from .manifest import Object, label_of

AT_ONCE = 8
"""Objects that are asked about at the same time."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fault of one object, or the reason why it could not be checked."""

    item: Object
    texts: list[str] = field(default_factory=list)
    """The fault of each field; every text begins with kind and name of the object."""
    unchecked: str = ""
    """Why nothing can be said of the object; then `texts` is empty."""
    remark: str = ""
    """What a user should know of an object without a fault."""
    refused: bool = False
    """Whether the API server would not accept it."""
    patch: Object = field(default_factory=dict)
    """A merge patch that mends it in the cluster; empty where there is none."""


def ask_about_each(objects: Iterable[Object], question: Callable[[Object], Finding | None]) -> list[Finding]:
    """Return what `question` finds, in the order of the objects' names.

    Args:
        objects: what to ask about.
        question: runs in a thread. A ClusterError is the reason why the object could not be checked.
    """

    def ask(item: Object) -> Finding | None:
        try:
            return question(item)
        except ClusterError as error:
            return Finding(item=item, unchecked=str(error))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        findings = [finding for finding in pool.map(ask, objects) if finding is not None]
    return sorted(findings, key=lambda finding: label_of(finding.item))


def texts_of(findings: Iterable[Finding]) -> list[str]:
    """Return all faults."""
    return [text for finding in findings for text in finding.texts]


def unchecked_notes(findings: Iterable[Finding], before: str, of: str = "") -> list[str]:
    """Return a note for each reason why objects were not checked, and how many it is true of.

    Args:
        findings: of the objects.
        before: the beginning of the note.
        of: put behind the number, as in ` of 12`.
    """
    reasons = Counter(finding.unchecked for finding in findings if finding.unchecked)
    return [f"{before}: {count}{of} objects: {reason}" for reason, count in reasons.items()]
