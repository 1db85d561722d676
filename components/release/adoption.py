"""Taking over a release that somebody else has made, as by `helm upgrade --install … --set …`.

Pulumi imports what Helm has recorded, the values among it, and those of a release that was given
credentials on the command line are no secrets to Pulumi: they would stand in the state and in diffs.
So what is imported is a revision of our own: the same objects, nothing changed in the cluster, without
the values. The revision before it stays as it was, for `helm rollback` too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import comparison, record
from .kubernetes_api import Api
from .manifest import Object, is_kept, label_of_key
from .record import Record
from .secrets import opened
from .values import dotted, leaves

DESCRIPTION = "Taken over by Pulumi: the objects of revision {revision}, without its values"
ORIGIN = re.compile(r"(?:Taken over by Pulumi: the objects of revision|Rollback to) (\d+)")
MOST_FIELDS = 8
"""Fields of one object that are named."""


def with_values(api: Api, revision: Record) -> Record:
    """Return the revision that holds the values of `revision`: that itself, or the one it was made from.

    Raises:
        ClusterError: as `record.newest`.
    """
    while origin := ORIGIN.match(revision.description):
        earlier = record.revision(api, revision.name, revision.namespace, int(origin[1]))
        if earlier is None or earlier.revision >= revision.revision:
            break
        revision = earlier
    return revision


def compare(
    api: Api | None, taken: Record, rendered: Iterable[Object], values: Mapping[str, Any]
) -> list[str]:
    """Return what taking `taken` over changes: values and objects by name and field, never their contents.

    Args:
        api: of the cluster; None: it is not asked what is the same.
        taken: the revision.
        rendered: the objects of the chart.
        values: of this stack.

    Raises:
        ClusterError: the manifest of `taken` cannot be read.
    """
    compared = comparison.compare(api, taken.objects(), rendered, taken.namespace)
    notes = [
        f"takes over revision {taken.revision} of {taken.created:%Y-%m-%d %H:%M} UTC: no object is made "
        "anew, and pods restart only where their template differs"
    ]
    for title, keys in (
        ("same", [key for key, fields in compared.changed.items() if not fields]),
        ("new", [*compared.added]),
        ("deleted", [key for key, item in compared.removed.items() if not is_kept(item)]),
        (
            "left behind, by its own annotation",
            [key for key, item in compared.removed.items() if is_kept(item)],
        ),
    ):
        if keys:
            notes.append(f"  {title}: {', '.join(sorted(map(label_of_key, keys)))}")
    for key, fields in compared.changed.items():
        if fields:
            shown = [*fields[:MOST_FIELDS], *(["…"] if len(fields) > MOST_FIELDS else [])]
            notes.append(f"  changed: {label_of_key(key)}: {', '.join(shown)}")
    if only_there := sorted(set(_paths(taken.values)) - set(_paths(opened(values)))):
        notes.append(f"  values given there and not by this stack: {', '.join(only_there)}")
    return notes


def take_over(api: Api, taken: Record, newest: int | None = None) -> bool:
    """Record a revision like `taken` without its values.

    Returns:
        False where `taken`, or revision `newest`, is no longer the newest.

    Raises:
        ClusterError: the API server refused, or could not be asked.
    """
    return record.append(api, taken, DESCRIPTION.format(revision=taken.revision), newest)


def _paths(values: Mapping[str, Any]) -> list[str]:
    return [dotted(path) for path, _ in leaves(values) if path]
