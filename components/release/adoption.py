"""Taking over a release that somebody else has made, as by `helm upgrade --install … --set …`.

Pulumi imports what Helm has recorded, the values among it, and those of a release that was given
credentials on the command line are no secrets to Pulumi: they would stand in the state and in diffs.
So what is imported is a revision of our own: the same objects, nothing changed in the cluster, without
the values. The revision before it stays as it was, for `helm rollback` too.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.release import record
from components.release.api import Api, Object
from components.release.dry_run import bare, difference, hook_phases, is_hook, key_of
from components.release.record import Record
from components.release.secret_values import plain

DESCRIPTION = "Taken over by Pulumi: the objects of revision {revision}, without its values"
ORIGIN = re.compile(r"(?:Taken over by Pulumi: the objects of revision|Rollback to) (\d+)")
POLICY = "helm.sh/resource-policy"
AT_MOST = 8  # fields of one object that are named


def with_values(api: Api, found: Record) -> Record:
    """The revision that holds the values of `found`: that itself, or the one that was taken over.

    Raises: as `record.newest`.
    """
    while origin := ORIGIN.match(found.description):
        earlier = record.revision(api, found.name, found.namespace, int(origin[1]))
        if earlier is None or earlier.revision >= found.revision:
            break
        found = earlier
    return found


def secrets_in(found: Record) -> list[str]:
    """What the Secrets of a release hold: texts that must not be seen."""
    texts = set()
    for item in found.objects():
        if item["kind"] == "Secret":
            texts |= {str(value) for value in (item.get("stringData") or {}).values()}
            for value in (item.get("data") or {}).values():
                try:
                    texts.add(base64.b64decode(str(value), validate=True).decode())
                except (binascii.Error, UnicodeDecodeError):
                    texts.add(str(value))
    return sorted((text for text in texts if len(text) > 2), key=len, reverse=True)


def compare(found: Record, rendered: Iterable[Object], values: Mapping[str, Any]) -> list[str]:
    """What taking `found` over changes: values and objects by name and field, never what they hold."""
    there = {key_of(item, found.namespace): item for item in found.objects()}
    here = {key_of(item, found.namespace): item for item in rendered if not is_hook(item)}
    notes = [
        f"takes over revision {found.revision} of {found.created:%Y-%m-%d %H:%M} UTC: no object is made "
        "anew, and pods restart only where their template differs"
    ]
    for what, keys in (
        ("same", [key for key in there.keys() & here.keys() if not _fields(there[key], here[key])]),
        ("new", here.keys() - there.keys()),
        ("deleted", [key for key in there.keys() - here.keys() if not _is_kept(there[key])]),
        ("left behind, by its own annotation", [k for k in there.keys() - here.keys() if _is_kept(there[k])]),
    ):
        if keys:
            notes.append(f"  {what}: {', '.join(sorted(f'{key[1]} {key[3]}' for key in keys))}")
    for key in sorted(there.keys() & here.keys()):
        if fields := _fields(there[key], here[key]):
            shown = [*fields[:AT_MOST], *(["…"] if len(fields) > AT_MOST else [])]
            notes.append(f"  changed: {key[1]} {key[3]}: {', '.join(shown)}")
    if only_there := sorted(set(_leaves(found.values)) - set(_leaves(plain(values)))):
        notes.append(f"  values given there and not by this stack: {', '.join(only_there)}")
    return notes


def take_over(api: Api, found: Record, newest: int | None = None) -> bool:
    """Record a revision like `found` without its values; False where `found`, or revision `newest`, is
    no longer the newest.

    Raises:
        ApiError: the API server refused.
    """
    return record.append(api, found, DESCRIPTION.format(revision=found.revision), newest)


def _is_kept(item: Object) -> bool:
    return (item["metadata"].get("annotations") or {}).get(POLICY) == "keep" or bool(hook_phases(item))


def _fields(old: Object, new: Object) -> list[str]:
    return sorted(_leaves(difference(bare(old), bare(new))))


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The path of each value that holds no others."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
