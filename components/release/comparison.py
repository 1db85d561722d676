"""The objects of two versions of a release compared by what they mean: `cpu: 1000m` is `cpu: 1`.

The API server is asked what a change would change, without doing it: it alone knows its defaults, and which
texts are the same quantity. Where it has no opinion, every difference counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .dry_run import LENIENT
from .kubernetes_api import Api, ClusterError
from .manifest import (
    Key,
    Object,
    by_key,
    is_hook,
    label_of_key,
    update_patch,
    without_chart_version,
    without_system_fields,
)
from .values import dotted, leaves, merge_patch


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What stands on one side only, and what differs. Hooks, which Helm runs anew each time, are left out."""

    changed: dict[Key, list[str]]
    """Fields that differ of each object that stands on both sides, by name."""
    added: dict[Key, Object]
    removed: dict[Key, Object]

    @property
    def differing(self) -> list[str]:
        """Kind and name of each object that is not the same on both sides."""
        changed = [key for key, fields in self.changed.items() if fields]
        return sorted(map(label_of_key, [*changed, *self.added, *self.removed]))


def compare(api: Api | None, old: Iterable[Object], new: Iterable[Object], namespace: str) -> Comparison:
    """Compare the objects that Helm has recorded with those that it will deploy.

    Args:
        api: of the cluster that has the old ones; None: it is not asked.
        old, new: the objects.
        namespace: of the release.
    """
    olds = by_key((item for item in old if not is_hook(item)), namespace)
    news = by_key((item for item in new if not is_hook(item)), namespace)
    return Comparison(
        changed={
            key: _changed_fields(api, olds[key], news[key], namespace)
            for key in sorted(olds.keys() & news.keys())
        },
        added={key: item for key, item in news.items() if key not in olds},
        removed={key: item for key, item in olds.items() if key not in news},
    )


def _changed_fields(api: Api | None, old: Object, new: Object, namespace: str) -> list[str]:
    patch = update_patch(without_chart_version(old), without_chart_version(new))
    if patch and api is not None:
        try:
            path = api.path(new, namespace)
            if live := api.find(path):
                after = api.merge_patch(path, patch, **LENIENT)
                patch = merge_patch(without_system_fields(live), without_system_fields(after))
        except ClusterError:  # the dry run of the whole plan says why
            pass
    return sorted(dotted(path) for path, _ in leaves(patch) if path)
