"""How long this project's release takes, against the same program with a bare `helm.v3.Release`.

    python -m tests.bench

Both run on one control plane, in turn (A B A B …), and medians are compared: what else the machine does
meanwhile slows both down. Prints a table, and writes it to docs/bench.md.
"""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightkube.resources.core_v1 import Namespace

from components.release import drift, record
from components.release.kubernetes_api import Api
from components.release.secrets import Secrets
from sandbox.engine import MADE_UP_SECRETS, PROJECT, TEMPLATE
from sandbox.tools import ETCD, HELM, KUBERNETES, KWOK, prepare
from tests.conftest import FOLDER, TestCluster, empty_control_plane
from tests.engine.conftest import ENGINE, Project, new_project, share_program

PAGE = PROJECT / "docs/bench.md"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
GROWTH = {10: 3, 50: 3, 200: 2}
"""Number of objects to number of rounds."""
TARGETS = {"preview": 1.35, "unchanged up": 1.15, "up of a change": 1.1}

BARE = '''
"""`__main__.py`, with a bare Release in place of this project's."""

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_kubernetes.helm.v3 import Release
from settings import Settings

def secret(value):
    return pulumi.Output.secret(value.get_secret_value())

settings = Settings.load()
place = settings.cluster
opts = pulumi.ResourceOptions(
    provider=kubernetes.Provider("cluster", kubeconfig=place.kubeconfig, context=place.context)
)
name, values = settings.namespace.name, settings.values
uri = {"mongodbUri": secret(settings.mongodb_uri)}
keys = {
    "awsAccessKeyId": secret(settings.aws_access_key_id),
    "awsSecretAccessKey": secret(settings.aws_secret_access_key),
}
namespace = kubernetes.core.v1.Namespace("mern-namespace", metadata={"name": name}, opts=opts)
release = Release(
    "mern",
    name="mern",
    namespace=name,
    chart="./chart",
    values={
        **values,
        "mernServer": values["mernServer"] | uri,
        "pythonScript": values["pythonScript"] | uri | keys,
    },
    timeout=settings.release.timeout,
    atomic=True,
    max_history=10,
    skip_await=False,
    create_namespace=False,
    replace=True,
    opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[namespace])),
)
pulumi.export("revision", release.status["revision"])
'''
MANY = {
    "shown": """
import json, pathlib
import pulumi
from components.cluster import connect
from components.release import ChartRelease, ReleaseArgs, StackState, plan_release
from settings import ClusterSettings

given = json.loads(pathlib.Path("given.json").read_text())
cluster = connect(ClusterSettings.model_validate(given["cluster"]), None, StackState())
args = ReleaseArgs(chart="./chart", name="many", namespace=given["namespace"], values=given["values"])
opts = pulumi.ResourceOptions(provider=cluster.provider)
ChartRelease("many", plan_release(args, cluster.provider, cluster.api, StackState.read()), opts)
""",
    "bare": """
import json, pathlib
import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_kubernetes.helm.v3 import Release

given = json.loads(pathlib.Path("given.json").read_text())
provider = kubernetes.Provider("cluster", **given["cluster"])
Release(
    "many",
    name="many",
    namespace=given["namespace"],
    chart="./chart",
    values=given["values"],
    timeout=300,
    atomic=True,
    max_history=10,
    skip_await=False,
    create_namespace=False,
    replace=True,
    opts=pulumi.ResourceOptions(provider=provider),
)
""",
}
"""Programs that deploy a chart of ConfigMaps, by this project's release and by a bare one."""


@dataclass(kw_only=True)
class Helm:
    """`helm upgrade --install --atomic` of the same chart with the same values."""

    name: str
    change: Callable[[int], None]
    values: Callable[[], dict[str, Any]]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in TARGETS})

    def run(self, command: str, kind: str = "") -> None:
        if command != "up":
            return  # Helm has no preview
        started = time.monotonic()
        arguments = ["upgrade", "--install", "--atomic", self.name, "./chart", "--namespace", self.name]
        subprocess.run(
            [str(FOLDER / "bin/helm"), *arguments, "--create-namespace", "--values", "-"],
            cwd=PROJECT,
            env={**os.environ, "KUBECONFIG": str(FOLDER / "kubeconfig")},
            input=json.dumps(self.values()),
            text=True,
            check=True,
            capture_output=True,
        )
        if kind:
            self.seconds[kind].append(time.monotonic() - started)


@dataclass(kw_only=True)
class Side:
    """A program, with its stack."""

    project: Project
    change: Callable[[int], None]
    """Sets the value that the up of a change changes, to one of two."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in TARGETS})

    def run(self, command: str, kind: str = "") -> None:
        arguments = self.project.command(command, "--color", "never")
        started = time.monotonic()
        done = subprocess.run(
            arguments,
            cwd=self.project.folder,
            env=self.project.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise RuntimeError(done.stdout)
        if kind:
            self.seconds[kind].append(seconds)


def helm(name: str) -> Helm:
    config = yaml.safe_load(TEMPLATE.read_text())["config"]["mern:values"]

    def change(number: int) -> None:
        config["mernClient"]["replicas"] = 2 + number

    def values() -> dict[str, Any]:
        uri = {"mongodbUri": MADE_UP_SECRETS["mern:mongodbUri"]}
        keys = {"awsAccessKeyId": "made-up-key-id", "awsSecretAccessKey": "made-up-access-key"}
        server, script = config["mernServer"] | uri, config["pythonScript"] | uri | keys
        return {**config, "mernServer": server, "pythonScript": script}

    return Helm(name=name, change=change, values=values)


def application(name: str, cluster: TestCluster, stack_file: Path, program: str = "") -> Side:
    """This project's chart, by its own program or another one."""
    project = new_project(name, cluster, stack_file)
    project.configure(release={"timeout": 300})
    if program:
        project.program(program)

    def change(number: int) -> None:
        project.configure(values={"mernClient": {"replicas": 2 + number}})

    return Side(project=project, change=change)


def generated(count: int, kind: str, cluster: TestCluster) -> Side:
    """A chart of ConfigMaps, by one of MANY."""
    name = f"many-{count}-{kind}"
    folder = FOLDER / "projects" / name
    (folder / "chart/templates").mkdir(parents=True)
    share_program(folder)
    (folder / f"Pulumi.{name}.yaml").write_text("config: {pulumi:disable-default-providers: [kubernetes]}\n")
    (folder / "chart/Chart.yaml").write_text("{apiVersion: v2, name: many, version: 1.0.0}")
    (folder / "chart/templates/many.yaml").write_text(
        """{{- range $n := until (int .Values.count) }}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "item-{{ $n }}", labels: {app.kubernetes.io/name: many}}
data:
  number: "{{ if $n }}{{ $n }}{{ else }}changes {{ $.Values.number }}{{ end }}"
  text: {{ repeat 200 "x" }}
{{- end }}
"""
    )
    place = {"kubeconfig": str(cluster.kubeconfig), "context": "kwok-mern"}
    given = {"cluster": place, "namespace": name, "values": {"count": count, "number": 0}}
    cluster.client.create(Namespace.from_dict({"metadata": {"name": name}}))
    project = Project(folder=folder, stack=name, namespace=name, cluster=cluster, secrets={})
    project.program(MANY[kind])

    def change(number: int) -> None:
        given["values"] = {"count": count, "number": number}
        (folder / "given.json").write_text(json.dumps(given))

    return Side(project=project, change=change)


def compare(sides: list[Any], rounds: int) -> None:
    """All in turn, `rounds` times, each time in another order."""
    for side in sides:
        side.change(0)
        side.run("up")
    for number in range(1, rounds + 1):
        sides = sides[1:] + sides[:1]
        for kind in TARGETS:
            for side in sides:
                if kind == "preview":
                    side.change(number % 2)
                    side.run("preview", kind)
                elif kind == "up of a change":
                    side.run("up", kind)
        for side in sides:
            side.run("up", "unchanged up")


def looking(release: str, namespace: str) -> float:
    """Seconds of looking for drift in a release, as each `up` and preview does."""
    api = Api(yaml.safe_load((FOLDER / "kubeconfig").read_text()))
    found = record.newest(api, release, namespace)
    if found is None:
        raise RuntimeError(f"no release {release} in {namespace}")
    seconds = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        drift.find(api, found.objects(), namespace, Secrets())
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def imports() -> dict[str, float]:
    """Seconds that each program needs to be loaded, which are part of the runs above."""
    bare = "import pulumi, pulumi_kubernetes, pulumi_kubernetes.helm.v3, settings"
    parts = "cluster", "load_balancer_controller", "mern_application", "preflight"
    ours = ", ".join(f"components.{part}" for part in parts)
    programs = {"bare": bare, "ours": f"{bare}; import {ours}"}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, text in programs.items():
            started = time.monotonic()
            subprocess.run([sys.executable, "-c", text], cwd=PROJECT, check=True)
            seconds[name].append(time.monotonic() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


@contextlib.contextmanager
def running() -> Iterator[tuple[TestCluster, Path, str, float]]:
    """A control plane for this run, the local stack's file, the name of the Kubernetes provider, and
    the seconds that the control plane took to start."""
    prepare(FOLDER / "bin", [ETCD, KUBERNETES, KWOK, HELM])
    started = time.monotonic()
    with empty_control_plane() as control_plane:
        seconds = time.monotonic() - started
        provider = ENGINE.prepare()
        folder = FOLDER / "projects/bench"
        folder.mkdir(parents=True)
        shutil.copy(PROJECT / "Pulumi.yaml", folder)
        ENGINE.make_local_stack("local", folder)
        cluster = TestCluster(control_plane=control_plane)
        yield cluster, folder / "Pulumi.local.yaml", provider, seconds


def rows_of(what: str, ours: Side, bare: Side, others: tuple[Any, ...] = (None, None)) -> list[list[str]]:
    rows = []
    for kind, target in TARGETS.items():
        shown = [_median(side, kind) for side in (*others, bare, ours)]
        a, b = (statistics.median(side.seconds[kind]) for side in (ours, bare))
        spread = f"{min(ours.seconds[kind]):.2f} to {max(ours.seconds[kind]):.2f}"
        rows.append([what, kind, *shown, spread, f"{a / b:.2f}", f"{target:.2f}"])
    return rows


def _median(side: Any, kind: str) -> str:
    found = side.seconds[kind] if side else []
    return f"{statistics.median(found):.2f}" if found else ""


def table(rows: list[list[str]]) -> str:
    head = [
        "what",
        "command",
        "empty program",
        "helm",
        "bare Release",
        "this release",
        "from, to",
        "ratio",
        "target",
    ]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    started = time.monotonic()
    rows = []
    with running() as (cluster, stack_file, provider, start):
        ours = application("bench-ours", cluster, stack_file)
        bare = application("bench-bare", cluster, stack_file, BARE)
        empty = application("bench-empty", cluster, stack_file, "import pulumi")
        others = empty, helm("bench-helm")
        compare([ours, bare, *others], ROUNDS)
        rows += rows_of("this project's chart", ours, bare, others)
        looked = [looking("mern", "bench-ours")]
        for count, rounds in GROWTH.items():
            ours, bare = (generated(count, kind, cluster) for kind in ("shown", "bare"))
            compare([ours, bare], rounds)
            rows += rows_of(f"{count} ConfigMaps", ours, bare)
        looked.append(looking("many", f"many-{count}-shown"))
    loaded = imports()
    a, b = loaded["ours"], loaded["bare"]
    rows.append(["the program", "its imports", "", "", f"{b:.2f}", f"{a:.2f}", "", f"{a / b:.2f}", ""])
    text = table(rows)
    print(f"\n{text}\n\nTook {time.monotonic() - started:.0f} s.")
    PAGE.write_text(
        f"""# What the release component costs

Written by `make bench`: this release (rendering, rows, Helm's record, dry run, drift, hooks) against the
same program with a bare `helm.v3.Release` (the ratio), beside an empty program and `helm upgrade --install
--atomic`; all in turn on one control plane; medians of {ROUNDS} rounds, seconds of `pulumi preview` and
`pulumi up --skip-preview`.

{text}

Of this release's time, looking for drift is {looked[0]:.2f} s (this project's chart) to {looked[1]:.2f} s
(200 ConfigMaps). The sandbox's control plane started in {start:.1f} s.

Measured on {os.cpu_count()} cores ({platform.system()} {platform.machine()}, Python
{platform.python_version()}), with {provider.partition(" (")[0]}.
"""
    )


if __name__ == "__main__":
    main()
