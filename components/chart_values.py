"""The chart's values: the stack's own with what the program adds (`fill`), and without it again (`strip`).

Added are tags and digests of images, credentials, the role of the script, and the checksum of a Secret that
somebody else fills. Helm records all of it with the stack's own values.
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi

from components.cluster import Cluster
from components.release import Api, ClusterError, adoption, record
from components.release.values import ABSENT, Path, dotted, get, put, remove
from components.service_account_role import ROLE_ANNOTATION
from settings import (
    IMAGE_TAG_VARIABLE,
    IMAGES,
    SECRET_VALUES,
    TAG_PATTERN,
    ImageReference,
    Settings,
    has_existing_secret,
)

CREDENTIALS: dict[Path, str] = {tuple(path.split(".")): key for path, key in SECRET_VALUES.items()}
"""Paths of credentials in the chart's values, each with the key of the config that fills it."""
ROLE: Path = ("pythonScript", "serviceAccount", "annotations", ROLE_ANNOTATION)
CHECKSUM: Path = ("mernServer", "existingSecretChecksum")
EMPTY: Mapping[str, Any] = {}


def fill(
    own: Mapping[str, Any],
    *,
    images: Mapping[str, ImageReference] = EMPTY,
    image_tag: str | None = None,
    running: Mapping[str, Any] = EMPTY,
    credentials: Mapping[str, Any] = EMPTY,
    role: str | None = None,
    checksum: str = "",
) -> dict[str, Any]:
    """Return the chart's values: those of the stack itself, and what the program adds. None is replaced, but
    the tag or the digest of a part of `images`.

    A mapping that the chart has and `own` has as something else is left alone, for the chart's schema to
    refuse.

    Args:
        own: `mern:values`.
        images: by the part of the chart.
        image_tag: tag of the other images, where `own` gives neither tag nor digest.
        running: values of the revision that serves; without `image_tag` they give tag or digest.
        credentials: by the key of the config, without `mern:`.
        role: ARN of the IAM role of the script's ServiceAccount.
        checksum: of the Secret that `mernServer.existingSecret` names.
    """
    values: dict[str, Any] = copy.deepcopy(dict(own))
    for part in IMAGES:
        if part in images:
            _put_version(values, part, images[part].tag, images[part].digest)
        elif not has_version(own, part):
            digest = "" if image_tag else digest_of(running, part)
            _put_version(values, part, image_tag or image_tag_of(running, part), digest)
    additions: list[tuple[Path, Any]] = [
        (path, credentials.get(key))
        for path, key in CREDENTIALS.items()
        if not has_existing_secret(own, str(path[0]))
    ]
    for path, value in (*additions, (ROLE, role), (CHECKSUM, checksum)):
        if value and get(values, path) is ABSENT:
            put(values, path, value)
    return values


def strip(
    values: Mapping[str, Any], own: Mapping[str, Any] = EMPTY, running: Mapping[str, Any] = EMPTY
) -> tuple[dict[str, Any], str | None]:
    """Return the stack's own part of `values`, and the image tag that `fill` needs for the rest.

    Args:
        values: of a revision, as Helm has recorded them.
        own: `mern:values` of today. What stands there stays in its place, credentials excepted.
        running: values of the revision that serves: an image without tag and digest would get those from
            there, and gets an empty tag instead.
    """
    kept: dict[str, Any] = copy.deepcopy(dict(values))
    for path in (*CREDENTIALS, *(path for path in (ROLE, CHECKSUM) if get(own, path) is ABSENT)):
        _take(kept, path, own)
    tags = {part: image_tag_of(values, part) for part in IMAGES if not digest_of(values, part)}
    parts = [part for part in tags if not _stands(own, values, _tag_path(part))]
    if len({tags[part] for part in parts}) > 1:
        parts = [part for part in parts if image_tag_of(own, part) is None]
    shared = {tags[part] for part in parts}
    image_tag = shared.pop() if len(shared) == 1 else None
    if image_tag is not None and not re.fullmatch(TAG_PATTERN, image_tag):
        image_tag = None
    for part, tag in tags.items():
        if tag is None and (image_tag or version_of(running, part)):
            if not _stands(own, values, _tag_path(part)):
                put(kept, _tag_path(part), "")
        elif image_tag and part in parts:
            _take(kept, _tag_path(part), own)
    return kept, image_tag


def image_tag_of(values: Mapping[str, Any], part: str) -> str | None:
    """Return the tag of the image of `part` in values of any shape, None where they give none."""
    tag = get(values, _tag_path(part))
    return str(tag) if isinstance(tag, str | int | float) and tag else None


def digest_of(values: Mapping[str, Any], part: str) -> str:
    """Return the digest of the image of `part` in values of any shape, empty where they give none."""
    digest = get(values, _digest_path(part))
    return digest if isinstance(digest, str) else ""


def version_of(values: Mapping[str, Any], part: str) -> str:
    """Return digest or tag of the image of `part` in values of any shape, empty where they give neither."""
    return digest_of(values, part) or image_tag_of(values, part) or ""


def has_version(values: Mapping[str, Any], part: str) -> bool:
    """Return whether values say which image of its repository `part` has; an empty tag is the chart's."""
    return get(values, _tag_path(part)) is not ABSENT or bool(digest_of(values, part))


def shared_image_tag(values: Mapping[str, Any]) -> str | None:
    """Return the tag that all images have, None where they differ or one has none."""
    tags = {image_tag_of(values, part) for part in IMAGES}
    return tags.pop() if len(tags) == 1 else None


def credentials_in(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each credential in the chart's values with the key of the config that it came from, as in
    `mongodbUri` or `serverSecrets.NAME`."""
    for path, key in CREDENTIALS.items():
        value = get(values, path)
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", text) for name, text in value.items())
        elif value is not ABSENT:
            yield key, value


def values_of_stack(
    settings: Settings, cluster: Cluster, *, release: str, role: str | None
) -> dict[str, Any]:
    """Return the chart's values for a deployment; reads tags and checksum from the cluster.

    Args:
        settings: of the stack.
        cluster: that it is deployed to.
        release: name of the chart's release there.
        role: ARN of the role that the script's ServiceAccount names, if any.

    Raises:
        pulumi.RunError: in an `up`, the tags that the config leaves open cannot be read: the chart's own
            would replace what runs.
    """
    if settings.images:
        _say_images_of_run(settings)
    return fill(
        settings.values,
        images=settings.images,
        image_tag=settings.image_tag,
        running=_running_values(settings, cluster.api, release),
        credentials={
            "mongodbUri": settings.mongodb_uri,
            "serverSecrets": settings.server_secrets,
            "awsAccessKeyId": settings.aws_access_key_id,
            "awsSecretAccessKey": settings.aws_secret_access_key,
        },
        role=role,
        checksum=existing_secret_checksum(settings.values, settings.namespace.name, cluster.api, release),
    )


def _say_images_of_run(settings: Settings) -> None:
    """Say which images are given for this run alone, and what a later one makes of them."""
    given = ", ".join(f"{part} {image}" for part, image in settings.images.items())
    pulumi.log.info(f"images of this run: {given}")
    paths = [path for part in settings.images for path in (_tag_path(part), _digest_path(part))]
    keys = [f"mern:values.{dotted(path)}" for path in paths if get(settings.values, path) is not ABSENT]
    if settings.image_tag and not os.environ.get(IMAGE_TAG_VARIABLE):
        keys.append("mern:imageTag")
    if keys:
        commands = [f"    pulumi config rm --path '{key}' --stack {pulumi.get_stack()}" for key in keys]
        text = "a later run without --image deploys again what the config says. To keep these images"
        pulumi.log.warn("\n".join([text, *commands]))


def existing_secret_checksum(values: Mapping[str, Any], namespace: str, api: Api, release: str) -> str:
    """Return a checksum of the Secret of somebody else that the server reads: its pods restart when the
    data changes. Empty where there is none; that of the running revision where it cannot be read."""
    if not has_existing_secret(values, "mernServer"):
        return ""
    name = values["mernServer"]["existingSecret"]
    try:
        data = api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}").get("data") or {}
    except ClusterError as error:
        known = _recorded_checksum(api, release, namespace)
        then = "a change of it restarts no pods" if known else "pods wait until it is there"
        pulumi.log.warn(
            f"Secret {name}, which mern:values mernServer.existingSecret names, could not be read "
            f"({error}): {then}"
        )
        return known
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _running_values(settings: Settings, api: Api, release: str) -> Mapping[str, Any]:
    """Return the values of the revision that serves, empty where the config leaves no image open."""
    left = [part for part in IMAGES if part not in settings.images and not has_version(settings.values, part)]
    if settings.image_tag or not left:
        return {}
    namespace = settings.namespace.name
    try:
        running = _serving(api, release, namespace)
    except ClusterError as error:
        text = f"mern:imageTag is not set, and which images run in {namespace} could not be read ({error})"
        if not pulumi.runtime.is_dry_run():
            mend = f"pulumi config set mern:imageTag TAG --stack {pulumi.get_stack()}"
            raise pulumi.RunError(f"{text}\n      {mend}") from None
        pulumi.log.warn(f"{text}: the chart's own tags are shown")
        return {}
    if running is None:
        return {}
    versions = ", ".join(f"{part} {version_of(running.values, part) or 'as the chart says'}" for part in left)
    pulumi.log.info(f"mern:imageTag is not set: images stay as in revision {running.revision}: {versions}")
    return running.values


def _serving(api: Api, release: str, namespace: str) -> record.Record | None:
    """Return the revision that serves, not one that failed or was left pending; None before the first."""
    newest = record.newest(api, release, namespace)
    return adoption.with_values(api, record.basis(api, newest)) if newest else None


def _recorded_checksum(api: Api, release: str, namespace: str) -> str:
    """Return the checksum in the values of the revision that serves, empty where there is none."""
    try:
        running = _serving(api, release, namespace)
    except ClusterError:
        return ""  # then the plan says that the cluster cannot be asked
    checksum = get(running.values, CHECKSUM) if running else ABSENT
    return "" if checksum is ABSENT else str(checksum or "")


def _put_version(values: dict[str, Any], part: str, tag: str | None, digest: str) -> None:
    """Give the image of `part` a tag or a digest, where there is any, in place of what it has."""
    if not (tag or digest):
        return
    is_tag = not digest
    remove(values, _digest_path(part) if is_tag else _tag_path(part))
    put(values, _tag_path(part) if is_tag else _digest_path(part), tag if is_tag else digest)


def _tag_path(part: str) -> Path:
    return (part, "image", "tag")


def _digest_path(part: str) -> Path:
    return (part, "image", "digest")


def _stands(own: Mapping[str, Any], values: Mapping[str, Any], path: Path) -> bool:
    """Return whether both have the same at `path`."""
    return get(own, path) is not ABSENT and get(own, path) == get(values, path)


def _take(values: dict[str, Any], path: Path, own: Mapping[str, Any]) -> None:
    """Remove the value at `path`, and the mappings that this empties unless `own` has them empty."""
    if get(values, path) is ABSENT:
        return
    remove(values, path)
    for length in range(len(path) - 1, 0, -1):
        if get(own, path[:length]) == {} and get(values, path[:length]) is ABSENT:
            put(values, path[:length], {})
