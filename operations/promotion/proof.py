"""What a stack proves: the images that its ready pods run, by digest; or the reasons why it proves nothing.

A digest is the one that the Deployment itself names, or else the one in the kubelet's report (`imageID`):
that is REPOSITORY@DIGEST, but for an image that came from no registry it is the bare id of its config, which
no registry knows (https://github.com/containerd/containerd/issues/8408). It may also name another repository
from which the node has pulled the same image (https://github.com/kubernetes/kubernetes/issues/95385), whose
digests ours need not have.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pulumi
from pulumi import automation as auto

from components.mern_application import RELEASE
from components.release import Api, ClusterError, drift, record
from components.release.description import files_in, is_ours
from components.release.findings import texts_of, unchecked_notes
from components.release.manifest import Object, label_of
from components.release.plan import NOT_COMPARED
from components.release.record import Record
from components.release.secrets import Secrets
from components.release.workloads import is_owned, is_pod_ready, look_at, newest_set
from operations.deployed import COMPONENT_LABEL, WORKLOADS, container_of, workloads_in
from operations.stack import connect, secrets_in, stderr_of
from settings import ReleaseSettings, parse_image_reference

DIGEST = re.compile(r"(?P<repository>.+)@(?P<digest>sha256:[0-9a-f]{64})")
AFTER_DEPLOYMENT = "python-script-once"
"""The component label of the script's run after a deployment, `pythonScript.runAfterDeployment`."""


class PromotionError(pulumi.RunError):
    """The reasons why nothing is promoted, with what to do; for the user."""


class _NotProvedError(Exception):
    """The reason why one part of the chart proves nothing."""


@dataclass(frozen=True, kw_only=True)
class ProvedImage:
    """The image of a part of the chart, and what speaks for it."""

    part: str
    image: str
    """As its pods name it."""
    digest: str
    proof: str
    """As in `2 of 2 pods ready, the oldest since 2026-11-28 10:44 UTC`."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What runs in a stack and is healthy."""

    stack: str
    revision: int
    chart: str
    """Name, version and digest of the chart's files."""
    images: Sequence[ProvedImage]
    """Of every part of the chart."""

    @property
    def option(self) -> str:
        """The images as `--image` takes them."""
        return " ".join(f"{image.part}={image.digest}" for image in self.images)


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """What runs in a namespace, at one moment."""

    pods: list[Object]
    sets: list[Object]
    jobs: list[Object]
    events: list[Object]

    @classmethod
    def read(cls, api: Api, name: str) -> "Namespace":
        return cls(
            pods=api.items(f"/api/v1/namespaces/{name}/pods"),
            sets=api.items(f"/apis/apps/v1/namespaces/{name}/replicasets"),
            jobs=api.items(f"/apis/batch/v1/namespaces/{name}/jobs"),
            events=api.items(f"/api/v1/namespaces/{name}/events"),
        )


def prove(name: str, open_stack: Callable[[str], auto.Stack]) -> Proof:
    """Return what runs in stack `name` and is healthy; only reads.

    Raises:
        PromotionError: something is not healthy, or cannot be read; all reasons together.
    """
    config = read_config(name, open_stack)
    secrets = secrets_in(config, name)
    with secrets.masked_in_errors():
        try:
            api, namespace = connect(name, config)
            newest = _require_deployed(name, record.newest(api, RELEASE, namespace), namespace)
            objects = newest.objects()
            images, reasons = _prove_parts(name, api, namespace, objects)
            reasons += _drift(name, config, api, namespace, objects, secrets)
        except ClusterError as error:
            raise PromotionError(f"what runs in stack {name} cannot be read: {error}") from None
        if reasons:
            raise PromotionError(f"stack {name} proves no images now:\n" + "\n".join(_indented(reasons)))
    return Proof(stack=name, revision=newest.revision, chart=files_in(newest.description), images=images)


def read_config(name: str, open_stack: Callable[[str], auto.Stack]) -> auto.ConfigMap:
    """Return the config of stack `name`.

    Raises:
        PromotionError: it cannot be read.
    """
    try:
        return open_stack(name).get_all_config()
    except auto.errors.CommandError as error:
        raise PromotionError(f"stack {name} cannot be opened: {stderr_of(error)}") from None


def _require_deployed(name: str, newest: Record | None, namespace: str) -> Record:
    """Return the newest revision, which this stack has deployed.

    Raises:
        PromotionError: it is another's, has failed, or is not there or not done yet.
    """
    command = f"    pulumi up --stack {name}"
    if newest is None:
        raise PromotionError(
            f"stack {name} proves no images: there is no release {RELEASE} in namespace {namespace}\n"
            f"{command}"
        )
    if newest.is_pending:
        raise PromotionError(
            f"stack {name} is in the middle of a deployment: revision {newest.revision} is {newest.status} "
            f"since {_minute(newest.created)}. Wait for it; if it was killed, an `up` goes on\n{command}"
        )
    if not is_ours(newest):
        raise PromotionError(
            f"stack {name} proves no images: its newest revision {newest.revision} is {newest.status} "
            f"({newest.description}), not a deployment of this stack that went well. Deploy it first\n"
            f"{command}"
        )
    return newest


def _drift(
    name: str, config: auto.ConfigMap, api: Api, namespace: str, objects: Sequence[Object], secrets: Secrets
) -> list[str]:
    """Return what was changed by hand, and what could not be compared."""
    release = config.get("mern:release")
    settings = ReleaseSettings.model_validate(json.loads(release.value) if release else {})
    if settings.drift == "ignore":
        return []
    hidden = secrets | Secrets.of_objects(objects)
    findings = drift.find(api, objects, namespace, hidden, settings.leave)
    reasons = unchecked_notes(findings, NOT_COMPARED)
    if drifted := texts_of(findings):
        mend = (
            "to have it put back:\n"
            f"    pulumi config set --path 'mern:release.drift' restore --stack {name}\n"
            f"    pulumi up --stack {name}"
        )
        reasons.append("\n".join(["it has drifted:", *(f"  {text}" for text in drifted), mend]))
    return reasons


def _prove_parts(
    name: str, api: Api, namespace: str, objects: Iterable[Object]
) -> tuple[list[ProvedImage], list[str]]:
    """Return the images that are proved, and the reasons why others are not."""
    images, reasons = list[ProvedImage](), list[str]()
    now = Namespace.read(api, namespace)
    workloads = dict(workloads_in(objects))
    for part, (kind, _) in WORKLOADS.items():
        prove_part = _by_pods if kind == "Deployment" else _by_last_run
        try:
            item = workloads.get(part)
            live = api.find(api.path(item, namespace)) if item else None
            if live is None:
                raise _NotProvedError(f"its {kind} is not there")
            images.append(prove_part(part, {**live, "kind": kind}, now, name))
        except _NotProvedError as error:
            reasons.append(f"{part}: {error}")
    return images, reasons


# ---- a part that serves


def _by_pods(part: str, deployment: Object, now: Namespace, stack: str) -> ProvedImage:
    """Return the image that all pods of a Deployment run, whose rollout is done.

    Raises:
        _NotProvedError: it is not, or they do not.
    """
    workload = look_at(deployment, now.pods, now.sets, now.events)
    label, place = label_of(deployment), f"deployment/{workload.name} -n {workload.namespace}"
    details = "".join(f"\n  {cause.detail}" for cause in workload.causes if cause.detail)
    newest = newest_set(deployment, now.sets)
    older = [
        pod
        for item in now.sets
        if is_owned(item, deployment) and item is not newest
        for pod in now.pods
        if is_owned(pod, item) and pod.get("status", {}).get("phase") in ("Pending", "Running")
    ]
    if deployment["spec"].get("paused"):
        raise _NotProvedError(f"{label} is paused. To go on:\n    kubectl rollout resume {place}")
    if older:
        raise _NotProvedError(
            f"{label} is in the middle of a rollout, with {len(older)} pods of the version before: {workload}"
            f"{details}\nWait for it to end:\n    kubectl rollout status {place}"
        )
    if workload.causes or workload.ready < workload.wanted:
        raise _NotProvedError(f"it is not healthy: {workload}{details}")
    if not workload.wanted:
        raise _NotProvedError(f"{label} has no pods: 0 are wanted")
    ready = [pod for pod in now.pods if is_owned(pod, newest) and is_pod_ready(pod)]
    container = container_of(deployment)
    digest = _agreed(part, container, ready, stack)
    since = min(str(pod["status"].get("startTime", "")) for pod in ready)
    proof = f"{len(ready)} of {workload.wanted} pods ready, the oldest since {_minute(since)}"
    return ProvedImage(part=part, image=container["image"], digest=digest, proof=proof)


def _agreed(part: str, container: Any, pods: Sequence[Object], stack: str) -> str:
    """Return the digest that all `pods` run.

    Raises:
        _NotProvedError: they differ, or it is not reported.
    """
    digests = Counter(digest_of(pod, container) for pod in pods)
    by_digest = f"    .venv/bin/python -m operations up {stack} --image {part}=sha256:DIGEST"
    if "" in digests:
        raise _NotProvedError(
            f"{digests['']} of {len(pods)} pods run {container['image']}, and no digest of that is reported: "
            f"the node has the image from elsewhere. Deploy it by its digest:\n{by_digest}"
        )
    if len(digests) > 1:
        counts = ", ".join(f"{digest} ({count} pods)" for digest, count in digests.most_common())
        raise _NotProvedError(
            f"its pods run different images of the name {container['image']}: {counts}. Deploy one of them "
            f"by its digest:\n{by_digest}"
        )
    [digest] = digests
    return digest


def digest_of(pod: Object, container: Any) -> str:
    """Return the digest of the image that a pod runs in `container`, empty where it is not known.

    Args:
        pod: as the API server has it.
        container: name and image, as the Deployment or the Job has them.
    """
    if own := DIGEST.fullmatch(container["image"]):
        return own["digest"]  # the kubelet can run no other
    for status in pod.get("status", {}).get("containerStatuses") or []:
        # With Docker, the report has its way of access before it.
        reported = DIGEST.fullmatch(status.get("imageID", "").removeprefix("docker-pullable://"))
        if status["name"] == container["name"] and reported:
            repository = parse_image_reference(container["image"]).repository
            return reported["digest"] if _full(repository) == _full(reported["repository"]) else ""
    return ""


def _full(repository: str) -> str:
    """Return a repository with the registry that container runtimes put before one without."""
    registry, slash, _ = repository.partition("/")
    if slash and (registry == "localhost" or set(registry) & set(".:")):
        return repository
    return f"docker.io/{'' if slash else 'library/'}{repository}"


# ---- a part that runs at times


def _by_last_run(part: str, cron_job: Object, now: Namespace, stack: str) -> ProvedImage:
    """Return the image of the last run of a CronJob that succeeded, which is the one that it would run now.

    Raises:
        _NotProvedError: there was none, or its pod is gone.
    """
    container, name = container_of(cron_job), cron_job["metadata"]["name"]
    namespace = cron_job["metadata"]["namespace"]
    again = f"    kubectl create job {_free_name(name, now.jobs)} --from=cronjob/{name} -n {namespace}"
    done = [
        job
        for job in now.jobs
        if (is_owned(job, cron_job) or _component(job) == AFTER_DEPLOYMENT)
        and container_of(job)["image"] == container["image"]
    ]
    succeeded = [job for job in done if job.get("status", {}).get("completionTime")]
    if not succeeded:
        raise _NotProvedError(
            f"no run of {container['image']} has succeeded that is still there. Run it, and wait until it is "
            f"done:\n{again}"
        )
    last = max(succeeded, key=lambda job: str(job["status"]["completionTime"]))
    pods = [pod for pod in now.pods if is_owned(pod, last) and pod["status"].get("phase") == "Succeeded"]
    if not (pods or DIGEST.fullmatch(container["image"])):
        raise _NotProvedError(
            f"the pod of its last run, Job {last['metadata']['name']}, is gone, and with it the report of "
            f"the digest. Run it again, and wait until it is done:\n{again}"
        )
    digest = _agreed(part, container_of(last), pods or [{}], stack)
    proof = f"last run succeeded {_minute(last['status']['completionTime'])}"
    if failed := _failed_since(last, done):
        proof += f"; a later one failed: Job {failed}"
    return ProvedImage(part=part, image=container["image"], digest=digest, proof=proof)


def _free_name(cron_job: str, jobs: Iterable[Object]) -> str:
    """Return a name for a Job that none has."""
    taken = {job["metadata"]["name"] for job in jobs}
    names = (f"{cron_job}-promotion-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


def _component(item: Object) -> Any:
    return (item["metadata"].get("labels") or {}).get(COMPONENT_LABEL)


def _failed_since(last: Object, jobs: Iterable[Object]) -> str:
    """Return the name of a Job that was begun after `last` and failed, empty where there is none."""
    for job in jobs:
        conditions = job.get("status", {}).get("conditions") or []
        has_failed = any(item["type"] == "Failed" and item["status"] == "True" for item in conditions)
        if has_failed and job["metadata"]["creationTimestamp"] > last["metadata"]["creationTimestamp"]:
            return str(job["metadata"]["name"])
    return ""


def _minute(time: str | datetime) -> str:
    moment = datetime.fromisoformat(time) if isinstance(time, str) and time else time
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "a time that is not known"


def _indented(reasons: Iterable[str]) -> Iterable[str]:
    return (f"  {line}" for reason in reasons for line in reason.split("\n"))
