"""What AWS's controller is in the tests: a chart of our own in a Helm repository on this machine, and
somebody who does to Ingresses what its pods would do, for kwok's pods run no code."""

import contextlib
import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components.load_balancer_controller import CRDS
from components.release import Api
from sandbox.engine import PROJECT
from tests.conftest import TestCluster
from tests.stand_ins.http_server import serving

CHART = PROJECT / "tests/charts/aws-load-balancer-controller"
FINALIZER = "ingress.k8s.aws/resources"
TAGS = "alb.ingress.kubernetes.io/tags"
ADDRESS = "k8s-mern.elb.invalid"

DEPLOYMENTS = "/apis/apps/v1/namespaces/kube-system/deployments"
INGRESSES = "/apis/networking.k8s.io/v1/ingresses"


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and prints no line per request."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def chart_repository(folder: Path, helm: str) -> Iterator[str]:
    """Address of a Helm repository that has the controller's chart."""
    chart_with_crds(folder)
    for command in (
        ["package", str(folder / CHART.name), "-d", str(folder)],
        ["repo", "index", str(folder)],
    ):
        subprocess.run([helm, *command], check=True, capture_output=True)
    with serving(functools.partial(Silent, directory=str(folder))) as url:
        yield url


def chart_with_crds(folder: Path) -> None:
    """Put the chart into `folder`, with CRDs of the names that the real one has."""
    shutil.copytree(CHART, folder / CHART.name)
    (folder / CHART.name / "crds").mkdir()
    for name in CRDS:
        text = yaml.safe_dump(crd(*name.split(".", 1)))
        (folder / CHART.name / f"crds/{name}.yaml").write_text(text)


def crd(plural: str, group: str) -> dict[str, Any]:
    """As in the real chart, but for what its objects hold."""
    kind = {"ingressclassparams": "IngressClassParams", "targetgroupbindings": "TargetGroupBinding"}
    names = {"plural": plural, "kind": kind.get(plural, plural.capitalize())}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    scope = "Cluster" if plural == "ingressclassparams" else "Namespaced"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Of groups below k8s.io the API server wants to know who has agreed to them.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {"group": group, "names": names, "scope": scope, "versions": [version]},
    }


class Controller:
    """While the controller's Deployment is ready: gives each Ingress of class alb in a namespace a
    finalizer and an address, says by an event whether it accepts what that asks for, and takes the
    finalizer off those that are being deleted."""

    def __init__(self, cluster: TestCluster, namespace: str) -> None:
        self._ingresses = INGRESSES.replace("/ingresses", f"/namespaces/{namespace}/ingresses")
        self._api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
        self._end = threading.Event()
        self.served: list[str] = []
        """Namespace and name of every Ingress that got an address."""
        self.released: list[str] = []
        """The same, of every one that it let go."""
        self._models: dict[str, Any] = {}
        """What it has last read of each."""

    @contextmanager
    def running(self) -> Iterator["Controller"]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            thread.join()

    @property
    def ready(self) -> bool:
        named = [it for it in self._api.items(DEPLOYMENTS) if it["metadata"]["name"] == CHART.name]
        return any(it["status"].get("availableReplicas") for it in named)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            # An object that has changed or gone meanwhile is looked at again.
            with contextlib.suppress(Exception):
                if self.ready:
                    for ingress in self._api.items(self._ingresses):
                        self._serve(ingress)

    def _serve(self, ingress: Any) -> None:
        metadata = ingress["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        path = INGRESSES.replace("/ingresses", f"/namespaces/{name.replace('/', '/ingresses/')}")
        if ingress["spec"].get("ingressClassName") != "alb":
            return
        kept = [it for it in metadata.get("finalizers") or [] if it != FINALIZER]
        held = kept != (metadata.get("finalizers") or [])
        if metadata.get("deletionTimestamp"):
            if held:
                self._api.merge_patch(path, {"metadata": {"finalizers": kept}})
                self.released.append(name)
        elif not held:
            self._api.merge_patch(path, {"metadata": {"finalizers": [*kept, FINALIZER]}})
            address = {"loadBalancer": {"ingress": [{"hostname": ADDRESS}]}}
            self._api.merge_patch(f"{path}/status", {"status": address})
            self.served.append(name)
        model = metadata["uid"], ingress["spec"], metadata.get("annotations")
        if not metadata.get("deletionTimestamp") and self._models.get(name) != model:
            self._say(ingress)
            self._models[name] = model

    def _say(self, ingress: Any) -> None:
        """Make the event that the real one makes, in its words."""
        metadata, now = ingress["metadata"], f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        tags = (metadata.get("annotations") or {}).get(TAGS, "a=b")
        kind, reason, message = "Normal", "SuccessfullyReconciled", "Successfully reconciled"
        if "=" not in tags:
            kind, reason = "Warning", "FailedBuildModel"
            message = f"Failed build model due to failed to parse stringMap annotation, {TAGS}: {tags}"
        names = ("namespace", "name", "uid")
        event = {
            "metadata": {"generateName": "mern.", "namespace": metadata["namespace"]},
            "involvedObject": {"kind": "Ingress"} | {name: metadata[name] for name in names},
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "ingress"},
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        self._api.create(f"/api/v1/namespaces/{metadata['namespace']}/events", event)
