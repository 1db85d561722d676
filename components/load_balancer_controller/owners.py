"""Whose the controller, its IngressClass and its CRDs in a cluster are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi

from components.ingress import AUTO_MODE
from components.load_balancer_controller.chart import (
    CHART,
    CONTROLLER_GEN,
    CRDS,
    INGRESS_CLASS,
    NAMESPACE,
    OWNER,
    SERVICE_ACCOUNT,
    VERSION,
    owner,
)
from components.release import Api, ClusterError, crds
from components.release.manifest import Object

CONTROLLER_LABEL = f"app.kubernetes.io/name={CHART}"
"""Of the controller's Deployment, unless whoever installed it has given it another name."""

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
OURS = {"mern", crds.FIELD_MANAGER}
"""The field managers of this program, the first of which it had before."""
BY_HAND = "kubectl"
"""How the field managers begin of those who have applied something once."""
INSTALLERS = re.compile(rf"helm|(terraform-provider-helm|pulumi-resource-kubernetes|{BY_HAND}).*")
"""The field managers that bring CRDs and do not renew them: Helm, alone or in another program, and people."""
KEEPERS = (
    "argocd.argoproj.io/instance",
    "argocd.argoproj.io/tracking-id",
    "helm.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/name",
    "meta.helm.sh/release-name",
)
"""Labels and annotations of those who keep an object as they want it: Argo CD, Flux, a Helm release."""


def controllers(api: Api) -> list[Object]:
    """Return the Deployments of AWS's controller in all namespaces.

    Raises:
        ClusterError: the API server refuses, or does not answer.
    """
    path = "/apis/apps/v1/deployments"
    labelled = api.items(path, labelSelector=CONTROLLER_LABEL)
    return labelled or [
        item
        for item in api.items(path)
        if any(
            CHART in container.get("image", "")
            for container in item["spec"]["template"]["spec"]["containers"]
        )
    ]


def require_no_other_owner(api: Api, is_own: bool) -> None:
    """Refuse to install over what another stack or tool has installed: both would fight over it.

    Args:
        api: of the cluster.
        is_own: whether this stack's state holds the controller, which may come from another stack's.

    Raises:
        pulumi.RunError: the cluster has a controller, an IngressClass or CRDs that are not this stack's.
    """
    faults = []
    questions = {
        "whether the cluster has a load balancer controller already": _other_controllers,
        f"whose IngressClass {INGRESS_CLASS} is": _other_class,
        "whose its CRDs are": _other_crds,
    }
    for subject, question in questions.items():
        if is_own and question is _other_controllers:
            continue
        try:
            faults += [f"{fault}\n      {remedy}" for fault, remedy in question(api)]
        except ClusterError as error:
            pulumi.log.info(f"{subject} was not checked: {error}")
    if faults:
        raise pulumi.RunError("mern:loadBalancerController.mode is install, but " + "\n  and ".join(faults))


def set_mode(mode: str) -> str:
    """Return the command that sets the mode of this stack."""
    return f"pulumi config set --path 'mern:loadBalancerController.mode' {mode} --stack {pulumi.get_stack()}"


def _other_controllers(api: Api) -> Iterator[tuple[str, str]]:
    """Yield each controller that is not this stack's, and what to do then."""
    account = api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}")
    notes = (account or {}).get("metadata", {}).get("annotations") or {}
    if account and notes.get(OWNER) != owner():
        by = f"stack {notes[OWNER]}" if OWNER in notes else "somebody else"
        yield f"the cluster has a controller of {by} already", set_mode("existing")
        return
    for item in controllers(api):
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        its = item["spec"]["template"]["spec"].get("serviceAccountName", "default")
        if (namespace, name, its) != (NAMESPACE, CHART, SERVICE_ACCOUNT):
            text = f"Deployment {namespace}/{name}, which runs under ServiceAccount {its}"
            yield f"the cluster has a controller already: {text}", set_mode("existing")


def _other_class(api: Api) -> Iterator[tuple[str, str]]:
    """Yield what is in the way of the IngressClass that the chart creates, and what to do then."""
    item = api.find(f"/apis/networking.k8s.io/v1/ingressclasses/{INGRESS_CLASS}")
    if item is None:
        return
    notes = item["metadata"].get("annotations") or {}
    release = notes.get("meta.helm.sh/release-namespace"), notes.get("meta.helm.sh/release-name")
    if release != (NAMESPACE, CHART):
        controller = item["spec"]["controller"]
        mode = "auto-mode" if controller == AUTO_MODE.ingress_class_controller else "existing"
        yield (
            f"the cluster has an IngressClass {INGRESS_CLASS} already, of {controller}: Helm could not "
            "create the one of the controller's chart",
            set_mode(mode),
        )


def _other_crds(api: Api) -> Iterator[tuple[str, str]]:
    """Yield who keeps CRDs that this stack would apply by force, and what to do then."""
    keepers: dict[str, list[str]] = {}
    by_hand, newer = [], []
    for name in CRDS:
        crd = api.find(crds.path_of(name), accept=METADATA_ONLY)
        if crd is None:
            continue
        if keeper := owner_of_crd(crd["metadata"]):
            keepers.setdefault(keeper, []).append(name)
        elif any(manager.startswith(BY_HAND) for manager in _managers(crd["metadata"])):
            by_hand.append(name)
        made_by = (crd["metadata"].get("annotations") or {}).get("controller-gen.kubebuilder.io/version", "")
        if tuple(map(int, re.findall(r"\d+", made_by))) > CONTROLLER_GEN:
            newer.append(name)
    for keeper, names in keepers.items():
        yield (
            f"CRDs of the controller are kept by {keeper}, and both would change them in turn: "
            f"{', '.join(names)}",
            f"{set_mode('existing')}\n    or, where that has ended, give them to this stack:\n"
            "      kubectl annotate crd "
            f"{' '.join(names)} --overwrite {OWNER}={owner()}",
        )
    if newer:
        pulumi.log.warn(
            f"CRDs in the cluster are of a newer controller than {VERSION}, whose CRDs take their place: "
            f"{', '.join(newer)}. Objects lose what only the newer ones know"
        )
    if by_hand:
        pulumi.log.info(f"CRDs that kubectl has applied become this stack's: {', '.join(by_hand)}")


def owner_of_crd(metadata: Mapping[str, Any]) -> str:
    """Return who keeps a CRD as they want it, other than this program; empty: nobody does."""
    notes = metadata.get("annotations") or {}
    if notes.get(OWNER) == owner():
        return ""
    marks = notes | (metadata.get("labels") or {})
    for mark in KEEPERS:
        if mark in marks:
            return f"{mark.partition('/')[0]} ({marks[mark]})"
    return ", ".join(sorted(name for name in _managers(metadata) if not INSTALLERS.fullmatch(name)))


def _managers(metadata: Mapping[str, Any]) -> set[str]:
    """Return the field managers of an object but this program and the API server, which writes the status."""
    entries = metadata.get("managedFields") or []
    names = {entry.get("manager", "") for entry in entries if entry.get("subresource") != "status"}
    return names - OURS - {"kube-apiserver", ""}
