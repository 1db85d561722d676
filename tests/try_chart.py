"""A chart of anybody on the real provider: created, again, changed, again, destroyed.

    python -m tests.try_chart PATH [--values FILE] [--set KEY=VALUE] [--timeout SECONDS]

prints what was said, and a row for the table in docs/release.md. PATH is the folder of a chart with its
sub-charts in it. It is tried on a control plane of its own. There volumes are bound, load balancers have an
address and pods become ready, but no code runs: a chart that needs something which its own pods do, as a
Secret that a Job writes or a webhook that answers, is deployed and does not work.
"""

import argparse
import contextlib
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Namespace

from components.release import chart_files, record
from components.release.kubernetes_api import Api, ClusterError
from components.release.manifest import (
    by_key,
    comparable,
    is_hook,
    key_of,
    label_of,
    without_chart_version,
)
from components.release.values import dotted, leaves, put
from sandbox.tools import ETCD, KUBERNETES, KWOK, prepare
from tests.conftest import FOLDER, TestCluster, empty_control_plane
from tests.engine.conftest import ENGINE, Project, Run, share_program

PROGRAM = """
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from components.release import Api, ChartRelease, ReleaseArgs, plan_release, quiet_exit

with quiet_exit():
    kubeconfig = Path("kubeconfig").read_text()
    given = yaml.safe_load(Path("values.yaml").read_text()) or {}
    args = ReleaseArgs(chart="./chart", values=given, **yaml.safe_load(Path("args.yaml").read_text()))
    provider = kubernetes.Provider("cluster", kubeconfig=pulumi.Output.secret(kubeconfig))
    plan = plan_release(args, provider, Api(yaml.safe_load(kubeconfig)))
    ChartRelease("tried", plan, pulumi.ResourceOptions(provider=provider))
"""
COUNTS = re.compile(r"(replicaCount|replicas)\Z", re.IGNORECASE)
"""Values whose change changes an object, in nearly every chart."""
MADE_FROM_OTHERS = ("Endpoints", "EndpointSlice")
"""Kinds that Kubernetes makes from others, with their labels."""


@dataclass(kw_only=True)
class Trial:
    """What was seen of one chart."""

    chart: str
    """Name and version."""
    rows: set[str] = field(default_factory=set)
    hooks: set[str] = field(default_factory=set)
    """Rows of hooks: objects that come and go as their annotations say."""
    objects: set[str] = field(default_factory=set)
    """What belongs to the release in the cluster."""
    unlike: set[str] = field(default_factory=set)
    """Rows that say something else than what Helm has deployed; of Secrets only whether they are there."""
    noise: set[str] = field(default_factory=set)
    """Rows that a second run of the same would change."""
    drift: list[str] = field(default_factory=list)
    """Lines on fields that nobody has changed."""
    changed: str = ""
    """The value that was changed, and which rows that changed."""
    left: set[str] = field(default_factory=set)
    """What belongs to the release after it was destroyed."""
    notes: list[str] = field(default_factory=list)
    failed: str = ""
    """The step that failed, and its last words."""

    @property
    def row(self) -> str:
        """The line of the table."""
        missing, unseen = self.rows - self.hooks - self.objects, self.objects - self.rows
        wrong = [f"no row: {', '.join(sorted(unseen))}"] if unseen else []
        wrong += [f"no object: {', '.join(sorted(missing))}"] if missing else []
        wrong += [f"deployed otherwise: {', '.join(sorted(self.unlike))}"] if self.unlike else []
        hooks = f" + {len(self.hooks)} hooks" if self.hooks else ""
        cells = (
            self.chart,
            f"{len(self.objects)}{hooks}",
            "; ".join(wrong) or "right",
            ", ".join(sorted(self.noise)) or "none",
            f"{len(self.drift)} lines" if self.drift else "none",
            self.failed or self.changed,
        )
        return f"| {' | '.join(cells)} |"


def try_chart(
    project: Project, chart: Path, values: Mapping[str, Any], change: str = "", timeout: int = 60
) -> Trial:
    """Deploy `chart` with `values` as release `tried`, and destroy it again.

    Args:
        project: in whose namespace.
        chart: folder of the chart.
        values: of the release.
        change: `KEY=VALUE` that is changed in between; where it is empty, a number of replicas.
        timeout: seconds that Helm waits.
    """
    shutil.rmtree(project.folder / "chart", ignore_errors=True)
    shutil.copytree(chart, project.folder / "chart", symlinks=True)
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    project.program(PROGRAM)
    args = {"name": "tried", "namespace": project.namespace, "timeout": timeout}
    (project.folder / "args.yaml").write_text(yaml.safe_dump(args))
    (project.folder / "values.yaml").write_text(yaml.safe_dump(dict(values)))
    try:
        project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    except ApiError as error:
        assert error.status.reason == "AlreadyExists"
    files = chart_files.load(str(chart))
    about = chart_files.metadata(files)
    trial = Trial(chart=f"{about.get('name')} {about.get('version')}")
    try:
        _go_through(trial, project, change or _change_of(files, values))
    finally:
        project.destroy()
    trial.left = _objects(project)
    return trial


def _go_through(trial: Trial, project: Project, change: str) -> None:
    if not (run := _step(trial, "create", project.up())):
        return
    _look(trial, project)
    trial.notes += _said(run)
    if not (run := _step(trial, "again", project.up())):
        return
    trial.noise |= {f"{operation} {label}" for operation, label in run.changes}
    trial.drift += [line for line in _said(run) if "drift: " in line]
    trial.notes += _said(run)
    if not change:
        trial.changed = "no value to change"
        return
    _set(project.folder / "values.yaml", change)
    if not (run := _step(trial, f"change {change}", project.up())):
        return
    trial.changed = f"`{change}`: " + ", ".join(sorted(f"{op} {label}" for op, label in run.object_changes))
    _look(trial, project)
    trial.notes += _said(run)
    if run := _step(trial, "again after the change", project.up()):
        trial.noise |= {f"{operation} {label}" for operation, label in run.changes}
        trial.drift += [line for line in _said(run) if "drift: " in line]
        trial.notes += _said(run)


def _look(trial: Trial, project: Project) -> None:
    """Compare the rows with what is in the cluster."""
    trial.rows, trial.hooks, trial.objects = _rows(project), _hooks(project), _objects(project)
    api = Api(yaml.safe_load(project.cluster.kubeconfig.read_text()))
    deployed = record.newest(api, "tried", project.namespace)
    assert deployed
    recorded = by_key(deployed.objects(), project.namespace)
    for item in project.state():
        row = item.get("inputs") or {}
        if "Release$helm:" not in item["urn"] or is_hook(row) or row["kind"] == "Secret":
            continue
        there = recorded.get(key_of(row, project.namespace))
        if there is None or without_chart_version(comparable(there)) != comparable(row):
            trial.unlike.add(label_of(row))


def _step(trial: Trial, name: str, run: Run) -> Run | None:
    if run.ok:
        return run
    trial.failed = f"{name}: {' '.join(run.output.partition('Diagnostics:')[2].split())}"
    return None


def _said(run: Run) -> list[str]:
    """Return the messages of the component, each once."""
    texts = []
    for event in run.reported:
        if (
            (said := event.diagnostic_event)
            and not said.ephemeral
            and said.urn
            and "ChartRelease" in said.urn
        ):
            texts.append(re.sub(r"<\{%.*?%\}>", "", said.message).strip())
    return list(dict.fromkeys(texts))


def _rows(project: Project) -> set[str]:
    """Return kind, namespace and name of each row."""
    rows = [item["urn"] for item in project.state() if "Release$helm:" in item["urn"]]
    return {
        f"{urn.rsplit('::', 2)[1].rsplit(':', 1)[1]} {urn.rsplit('::', 1)[1].partition('/')[2]}"
        for urn in rows
    }


def _hooks(project: Project) -> set[str]:
    """Return those of `_rows` that are hooks."""
    found = set()
    for item in project.state():
        notes = ((item.get("inputs") or item.get("outputs") or {}).get("metadata") or {}).get(
            "annotations"
        ) or {}
        if "Release$helm:" in item["urn"] and "helm.sh/hook" in notes:
            kind, name = item["urn"].rsplit("::", 2)[1:]
            found.add(f"{kind.rsplit(':', 1)[1]} {name.partition('/')[2]}")
    return found


def _objects(project: Project) -> set[str]:
    """Return kind, namespace and name of each object that Helm has marked as of this release."""
    api, found = Api(yaml.safe_load(project.cluster.kubeconfig.read_text())), set()
    groups = api.get("/apis")["groups"]
    roots = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    for root in roots:
        with contextlib.suppress(ClusterError):  # of an APIService whose server runs no code
            for resource in api.get(root)["resources"]:
                if "/" not in resource["name"] and resource["kind"] not in MADE_FROM_OTHERS:
                    found |= _of_kind(api, f"{root}/{resource['name']}", resource["kind"], project.namespace)
    return found


def _of_kind(api: Api, path: str, kind: str, namespace: str) -> set[str]:
    found = set()
    for item in api.items(path, labelSelector="app.kubernetes.io/managed-by=Helm"):
        meta = item["metadata"]
        notes = meta.get("annotations") or {}
        owner = [notes.get(f"meta.helm.sh/release-{part}") for part in ("name", "namespace")]
        if owner == ["tried", namespace] and not meta.get("ownerReferences"):
            found.add(f"{kind} {meta.get('namespace', namespace)}/{meta['name']}")
    return found


def _change_of(files: chart_files.Files, values: Mapping[str, Any]) -> str:
    """Return the first number of replicas among the values, one higher; empty where there is none."""
    defaults = yaml.safe_load(files.get("values.yaml", b"")) or {}
    for given in (values, defaults):
        for path, value in sorted(leaves(given), key=lambda leaf: len(leaf[0])):
            if type(value) is int and value > 0 and path and COUNTS.search(str(path[-1])):
                return f"{dotted(path)}={value + 1}"
    return ""


def _set(file: Path, change: str) -> None:
    key, _, value = change.partition("=")
    values = yaml.safe_load(file.read_text()) or {}
    assert put(values, tuple(key.split(".")), yaml.safe_load(value)), change
    file.write_text(yaml.safe_dump(values))


def new_project(folder: Path, cluster: TestCluster) -> Project:
    """Return an empty project for a trial."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    share_program(folder)
    (folder / "__main__.py").unlink()
    (folder / f"Pulumi.{folder.name}.yaml").write_text("config: {}\n")
    return Project(folder=folder, stack=folder.name, namespace=folder.name, cluster=cluster, secrets={})


ROOM = {"cpu": "1k", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "10k"}
NODES = 5


@contextlib.contextmanager
def cloud(cluster: TestCluster) -> Iterator[None]:
    """Play what a control plane without a cloud lacks: room on several nodes, volumes and load balancers."""
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    first = api.items("/api/v1/nodes")[0]["metadata"]
    for number in range(NODES):
        meta = {"name": f"roomy-{number}", "annotations": first["annotations"]}
        place = {"kubernetes.io/hostname": meta["name"], "topology.kubernetes.io/zone": f"zone-{number % 3}"}
        labels = {**first["labels"], **place}
        status = {"capacity": ROOM, "allocatable": ROOM}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {**meta, "labels": labels}, "status": status}
        api.create("/api/v1/nodes", node)
    storage = "storage.k8s.io/v1"
    default = {"name": "default", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    by_hand = {"apiVersion": storage, "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner"}
    api.create(f"/apis/{storage}/storageclasses", {**by_hand, "metadata": default})
    ended = threading.Event()

    def play() -> None:
        while not ended.wait(0.5):
            with contextlib.suppress(ClusterError):
                _bind_volumes(api)
                _give_addresses(api)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bind_volumes(api: Api) -> None:
    for claim in api.items("/api/v1/persistentvolumeclaims"):
        meta, spec = claim["metadata"], claim["spec"]
        if claim["status"].get("phase") != "Pending" or spec.get("volumeName"):
            continue
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"of-{meta['uid']}"},
            "spec": {
                "capacity": {"storage": "1Ti"},
                "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
                "storageClassName": spec.get("storageClassName", ""),
                "claimRef": {"namespace": meta["namespace"], "name": meta["name"]},
                "hostPath": {"path": "/nowhere"},
            },
        }
        with contextlib.suppress(ClusterError):  # it is there already
            api.create("/api/v1/persistentvolumes", volume)


def _give_addresses(api: Api) -> None:
    for service in api.items("/api/v1/services"):
        meta = service["metadata"]
        if service["spec"].get("type") == "LoadBalancer" and not service["status"]["loadBalancer"]:
            path = f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
            api.merge_patch(path, {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}})


def main() -> None:
    """Try a chart, and print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chart", type=Path)
    parser.add_argument("--values", type=Path)
    parser.add_argument("--set", default="", help="the value that is changed, as KEY=VALUE")
    parser.add_argument("--timeout", type=int, default=60)
    args = parser.parse_args()
    values = yaml.safe_load(args.values.read_text()) if args.values else {}
    prepare(FOLDER / "bin", [ETCD, KUBERNETES, KWOK])
    with empty_control_plane() as control_plane:
        ENGINE.prepare()
        cluster = TestCluster(control_plane=control_plane)
        with cloud(cluster):
            trial = try_chart(
                new_project(FOLDER / "projects/tried", cluster), args.chart, values, args.set, args.timeout
            )
    for note in dict.fromkeys(trial.notes):
        print(note, file=sys.stderr)
    print(trial.row)


if __name__ == "__main__":
    main()
