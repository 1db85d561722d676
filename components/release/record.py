"""What Helm has stored about a release: its newest revision, read from the cluster."""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightkube import ApiError, Client
from lightkube.resources.core_v1 import Secret


@dataclass(frozen=True, kw_only=True)
class Record:
    """One revision of a release, as Helm's Secret `sh.helm.release.v1.NAME.vN` holds it."""

    revision: int
    status: str
    """`deployed`, `failed`, `pending-upgrade`, …"""
    description: str
    values: Mapping[str, Any]
    """What the deployer gave, without the chart's defaults. Holds credentials."""
    manifest: str
    """The objects as YAML. Holds credentials."""


def newest(client: Client, name: str, namespace: str) -> Record | None:
    """The newest revision of release `name`, None where there is none.

    Raises:
        ApiError: the API server refused the question.
        Exception: it could not be asked (no connection, no credentials).
    """
    try:
        found = list(client.list(Secret, namespace=namespace, labels={"owner": "helm", "name": name}))
    except ApiError as error:
        if error.status.code == 404:
            return None
        raise
    records = [_decode(secret) for secret in found if secret.type == "helm.sh/release.v1"]
    return max(records, key=lambda record: record.revision, default=None)


def _decode(secret: Secret) -> Record:
    # Kubernetes encodes the Secret's data once, Helm once more, over gzip.
    packed = base64.b64decode(base64.b64decode((secret.data or {})["release"]))
    release = json.loads(gzip.decompress(packed))
    return Record(
        revision=release["version"],
        status=release["info"]["status"],
        description=release["info"].get("description", ""),
        values=release.get("config") or {},
        manifest=release.get("manifest", ""),
    )
