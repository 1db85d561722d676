"""What a revision of the release has deployed: the image of each part of the chart."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.release import Api, record
from components.release.manifest import Object

WORKLOADS = {
    "mernClient": ("Deployment", "client"),
    "mernServer": ("Deployment", "server"),
    "pythonScript": ("CronJob", "python-script"),
}
"""Of each part of the chart, the kind of the object that runs its image, and its component label."""
COMPONENT_LABEL = "app.kubernetes.io/component"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A revision that serves."""

    revision: int
    images: Mapping[str, str]
    """By the part of the chart, as its pods name them."""


def read_deployed(api: Api, namespace: str) -> Deployed | None:
    """Return the revision that serves, None where there is none.

    Raises:
        ClusterError: Helm's record cannot be read.
    """
    from components.mern_application import RELEASE  # with all that it imports: not for a preview

    newest = record.newest(api, RELEASE, namespace)
    serving = record.basis(api, newest) if newest else None
    if serving is None or serving.status != "deployed":
        return None
    images = {part: container_of(item)["image"] for part, item in workloads_in(serving.objects())}
    return Deployed(revision=serving.revision, images=images)


def workloads_in(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Yield each part of the chart with its object among `objects` that runs its image."""
    by_label = {
        (item["kind"], (item["metadata"].get("labels") or {}).get(COMPONENT_LABEL)): item for item in objects
    }
    for part, workload in WORKLOADS.items():
        if workload in by_label:
            yield part, by_label[workload]


def container_of(workload: Object) -> Mapping[str, Any]:
    """Return the container of a Deployment's, a CronJob's or a Job's pods that the chart has: what others put
    into them comes behind it, and has another name."""
    spec = workload["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    container: Mapping[str, Any] = spec["template"]["spec"]["containers"][0]
    return container
