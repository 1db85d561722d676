"""The CRDs of a chart's folder crds/: compared with the cluster, and applied on request.

Helm installs them with the first installation of a release, and never changes or removes one. Nothing here
removes any either: with a CRD goes every object of its kind, those of other releases too.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from .findings import Finding, ask_about_each
from .kubernetes_api import Api, ApiError, ClusterError
from .manifest import Object, label_of

FIELD_MANAGER = "pulumi-crds"
ESTABLISHED_WITHIN = 30
"""Seconds in which the API server serves the kind of a CRD that was applied."""


def compare(api: Api, crds: Iterable[Object]) -> list[Finding]:
    """Return what applying `crds` would create or change; changes nothing.

    The API server itself says what each would be, so that its defaults are no difference.
    """

    def question(crd: Object) -> Finding | None:
        live = api.find(_path(crd))
        if live is None:
            return Finding(item=crd, texts=[f"{label_of(crd)} is not in the cluster"])
        if live["spec"] == _with_defaults(crd["spec"]):
            return None  # without the question: a large one keeps the API server busy for a second
        try:
            applied = _apply(api, crd, dry_run=True)
        except ApiError as error:
            if error.code not in (400, 422):
                raise
            return Finding(item=crd, texts=[f"{label_of(crd)}: {error}"], refused=True)
        if applied["spec"] == live["spec"]:
            return None
        return Finding(item=crd, texts=[f"{label_of(crd)} differs from the one in the cluster"])

    return ask_about_each(crds, question)


def _with_defaults(spec: Object) -> Object:
    """Return the spec of a CRD with what the API server adds to it as a rule."""
    kind = spec["names"]["kind"]
    names = {"listKind": f"{kind}List", "singular": kind.lower(), **spec["names"]}
    return {"conversion": {"strategy": "None"}, **spec, "names": names}


def apply(api: Api, crds: Sequence[Object]) -> None:
    """Create `crds` in the cluster, or bring them up to date, and wait until their kinds are served.

    Raises:
        ClusterError: the API server refused one, could not be asked, or does not serve one in time.
    """
    for crd in crds:
        _apply(api, crd, dry_run=False)
    give_up = time.monotonic() + ESTABLISHED_WITHIN
    while waiting := [label_of(crd) for crd in crds if not _is_established(api.get(_path(crd)))]:
        if time.monotonic() > give_up:
            raise ClusterError(
                f"the API server does not serve {', '.join(waiting)} after {ESTABLISHED_WITHIN} s"
            )
        time.sleep(0.2)


def _apply(api: Api, crd: Object, *, dry_run: bool) -> Object:
    query = {"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
    return api.apply(_path(crd), crd, **query)


def path_of(name: str) -> str:
    """Return the path of a CRD."""
    return f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"


def _path(crd: Object) -> str:
    return path_of(crd["metadata"]["name"])


def _is_established(crd: Any) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)
