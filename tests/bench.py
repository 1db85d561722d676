"""How long commands take, for this project's program and for what one would write without it.

    python -m tests.bench [ROUNDS]

Each figure is a whole process of the real command line. All sides run on one control plane, in turn and each
round in another order, so that what else the machine does slows all of them down. Writes docs/bench.md.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sandbox.engine import MADE_UP_SECRETS, PROJECT, TEMPLATE
from sandbox.tools import ETCD, HELM, KUBERNETES, KWOK, prepare
from tests.conftest import FOLDER, TestCluster, empty_control_plane
from tests.engine.conftest import ENGINE, Project, new_project, share_program

PAGE = PROJECT / "docs/bench.md"
COMMANDS = ("preview", "preview of a change", "up of a change", "unchanged up")
TARGETS = {
    "this project's chart": (1.0, 1.0, 1.05, 1.05),
    "50 objects": (1.15,) * 4,
    "200 objects": (1.5,) * 4,
}
LARGE, LARGE_TEMPLATES = "90 objects, CRDs of 5 MB", "the same, half of the CRDs among its templates"
TARGETS[LARGE] = TARGETS[LARGE_TEMPLATES] = (1.5,) * 4

EMPTY = "import pulumi"
TYPED = '''
"""What Pulumi's documentation would have one write: a typed namespace, and a typed Release of the chart."""

import pulumi
import pulumi_kubernetes as kubernetes

config = pulumi.Config("mern")
cluster, values = config.require_object("cluster"), config.require_object("values")
provider = kubernetes.Provider("cluster", kubeconfig=cluster["kubeconfig"], context=cluster["context"])
uri = config.get_secret("mongodbUri")
if uri:
    values["mernServer"]["mongodbUri"] = values["pythonScript"]["mongodbUri"] = uri
    for key in ("awsAccessKeyId", "awsSecretAccessKey"):
        values["pythonScript"][key] = config.require_secret(key)
opts = pulumi.ResourceOptions(provider=provider)
namespace = kubernetes.core.v1.Namespace(
    "mern-namespace", metadata={"name": config.require_object("namespace")["name"]}, opts=opts
)
release = kubernetes.helm.v3.Release(
    "mern",
    name="mern",
    namespace=namespace.metadata["name"],
    chart="./chart",
    values=values,
    timeout=600,
    atomic=True,
    opts=opts,
)
pulumi.export("revision", release.status["revision"])
'''
SHOWN = '''
"""The same by `components/release`."""

import pulumi
from components.cluster import connect
from components.release import ChartRelease, ReleaseArgs, StackState, plan_release, quiet_exit
from settings import ClusterSettings

with quiet_exit():
    config = pulumi.Config("mern")
    state = StackState.read()
    cluster = connect(ClusterSettings.model_validate(config.require_object("cluster")), None, state)
    opts = pulumi.ResourceOptions(provider=cluster.provider)
    name = config.require_object("namespace")["name"]
    props = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    namespace = pulumi.CustomResource("kubernetes:core/v1:Namespace", "mern-namespace", props, opts)
    args = ReleaseArgs(
        chart="./chart", name="mern", namespace=name, values=config.require_object("values"), timeout=600
    )
    opts.depends_on = [namespace]
    release = ChartRelease("mern", plan_release(args, cluster.provider, cluster.api, state), opts)
    pulumi.export("revision", release.status.apply(lambda status: status and status["revision"]))
'''
MEMORY = """
import atexit, resource
def told():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    open("memory", "w").write(str(peak))
atexit.register(told)
"""

# ---- charts

TEMPLATES = {
    "ConfigMap": 'data: {number: "{{ $n }}", text: {{ repeat 200 "x" }}}',
    "Secret": 'stringData: {password: {{ repeat 20 "x" }}}',
    # Without an address, of which the control plane has 254.
    "Service": "spec: {clusterIP: None, selector: {app: item}, ports: [{port: 80}]}",
    "ServiceAccount": "automountServiceAccountToken: false",
    "apps/v1 Deployment": """spec:
  replicas: 0
  selector: {matchLabels: {app: "item-{{ $n }}"}}
  template:
    metadata: {labels: {app: "item-{{ $n }}"}}
    spec:
      containers:
        - name: web
          image: "example.org/web:{{ if $n }}1{{ else }}{{ $.Values.number }}{{ end }}"
          ports: [{containerPort: 8080, name: http}]
          env: [{name: A, value: "1"}, {name: B, value: "2"}]
          resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
          readinessProbe: {httpGet: {path: /, port: http}}""",
    "rbac.authorization.k8s.io/v1 Role": 'rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]',
    "rbac.authorization.k8s.io/v1 RoleBinding": """roleRef:
  {apiGroup: rbac.authorization.k8s.io, kind: Role, name: x}
subjects: [{kind: ServiceAccount, name: x, namespace: x}]""",
    "policy/v1 PodDisruptionBudget": "spec: {maxUnavailable: 1, selector: {matchLabels: {app: item}}}",
    "networking.k8s.io/v1 NetworkPolicy": "spec: {podSelector: {matchLabels: {app: item}}}",
    "batch/v1 CronJob": """spec:
  schedule: "0 * * * *"
  jobTemplate:
    spec: {template: {spec: {restartPolicy: Never, containers: [{name: job, image: example.org/job}]}}}""",
}
"""What an object of each kind has of its own. The first Deployment is what an `up` changes."""


def generate(chart: Path, count: int, crds: int = 0, size: int = 0, in_templates: int = 0) -> None:
    """Write a chart.

    Args:
        chart: its folder.
        count: of objects, of all kinds alike.
        crds: of CustomResourceDefinitions.
        size: of each of those, in bytes.
        in_templates: how many of them lie among the templates, and not in the folder crds/.
    """
    (chart / "templates").mkdir(parents=True)
    (chart / "crds").mkdir()
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: many, version: 1.0.0}")
    kinds = len(TEMPLATES)
    for at, (kind, own) in enumerate(TEMPLATES.items()):
        group, _, name = kind.rpartition(" ")
        head = f"apiVersion: {group or 'v1'}\nkind: {name}\n"
        head += 'metadata: {name: "item-{{ $n }}", labels: {app.kubernetes.io/name: many}}\n'
        loop = f"{{{{- range $n := until {(count - at + kinds - 1) // kinds} }}}}\n---\n"
        (chart / f"templates/{name.lower()}.yaml").write_text(f"{loop}{head}{own}\n{{{{- end }}}}\n")
    for number in range(crds):
        folder = "templates" if number < in_templates else "crds"
        crd = _crd(f"{chart.parent.name}.example.org", number, size)
        (chart / f"{folder}/crd-{number}.yaml").write_text(json.dumps(crd, indent=1))


def _crd(group: str, number: int, size: int) -> dict[str, Any]:
    """Return a CustomResourceDefinition as large ones are: some levels of properties, each described."""
    text = "A long description of what this field means and which values it takes. "
    leaf = {"type": "string", "description": text}
    fields = {f"field{at}": leaf for at in range(20)}
    spec = {
        f"part{at}": {"type": "object", "description": text, "properties": fields}
        for at in range(max(1, size // (len(fields) * 130)))
    }
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    names = {"plural": f"larges{number}", "singular": f"large{number}", "kind": f"Large{number}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"larges{number}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


# ---- sides


@dataclass(kw_only=True)
class Side:
    """One way to deploy a chart."""

    command: Callable[[str], list[str]]
    """The command for `preview` or `up`; empty where there is none."""
    folder: Path
    environment: dict[str, str]
    change: Callable[[int], None] = lambda _: None
    """Sets the value that an `up` changes, to one of two."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of processor time, of all processes of the command."""

    def run(self, command: str, name: str = "") -> None:
        arguments = self.command(command)
        if not arguments:
            return
        started = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(output)
        if name:
            self.seconds.setdefault(name, []).append(time.perf_counter() - started)
            self.processor.setdefault(name, []).append(used.ru_utime + used.ru_stime)


def _of(project: Project, change: Callable[[int], None], command: Any = None) -> Side:
    return Side(
        command=command or (lambda name: project.command(name, "--color", "never")),
        folder=project.folder,
        environment=project.environment(),
        change=change,
    )


def application(name: str, cluster: TestCluster, stack_file: Path, program: str = "") -> Project:
    """Return this project's chart with its own program or another one."""
    project = new_project(name, cluster, stack_file)
    project.configure(release={"timeout": 600})
    if program:
        project.program(program)
    project.make()
    return project


def applications(cluster: TestCluster, stack_file: Path) -> dict[str, Side]:
    """Return the ways to deploy this project's chart."""

    def side(name: str, program: str = "") -> Side:
        project = application(f"bench-{name}", cluster, stack_file, program)
        return _of(project, lambda number: project.configure(values={"mernClient": {"replicas": 2 + number}}))

    sides = {"ours": side("ours"), "typed": side("typed", TYPED), "empty": side("empty", EMPTY)}
    ci = application("bench-ci", cluster, stack_file)
    Side.run(_of(ci, lambda _: None), "up")
    operations = [sys.executable, "-m", "operations", "preview", "bench-ci"]
    sides["ci"] = _of(ci, lambda _: None, lambda name: operations if name == "preview" else [])
    values = yaml.safe_load(TEMPLATE.read_text())["config"]["mern:values"]
    secrets = {key.removeprefix("mern:"): text for key, text in MADE_UP_SECRETS.items()}
    uri = {"mongodbUri": secrets["mongodbUri"]}
    values = {
        **values,
        "mernServer": values["mernServer"] | uri,
        "pythonScript": values["pythonScript"] | secrets,
    }
    file = ci.folder / "helm.json"

    def set_replicas(number: int) -> None:
        values["mernClient"]["replicas"] = 2 + number
        file.write_text(json.dumps(values))

    helm = [str(FOLDER / "bin/helm"), "upgrade", "--install", "--atomic", "mern", "./chart"]
    helm += ["--namespace", "bench-helm", "--create-namespace", "--values", str(file)]
    sides["helm"] = _of(ci, set_replicas, lambda name: helm if name == "up" else [])
    sides["helm"].environment["KUBECONFIG"] = str(cluster.kubeconfig)
    return sides


def generated(count: int, cluster: TestCluster, **crds: int) -> dict[str, Side]:
    """Return the ways to deploy a chart that `generate` makes."""

    def side(kind: str, program: str) -> Side:
        name = f"many-{count + sum(crds.values())}-{kind}"
        folder = FOLDER / "projects" / name
        folder.mkdir(parents=True)
        share_program(folder)
        generate(folder / "chart", count, **crds)
        config = {
            "mern:cluster": {"kubeconfig": str(cluster.kubeconfig), "context": "kwok-mern"},
            "mern:namespace": {"name": name},
            "mern:values": {"number": 1},
            "pulumi:disable-default-providers": ["kubernetes"],
        }
        (folder / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": config}))
        project = Project(folder=folder, stack=name, namespace=name, cluster=cluster, secrets={})
        ENGINE.pulumi("stack", "init", name, cwd=folder)
        project._made = True
        project.program(MEMORY + program)
        return _of(project, lambda number: project.configure(values={"number": 1 + number}))

    return {"ours": side("ours", SHOWN), "typed": side("typed", TYPED)}


# ---- measuring


def measure(sides: dict[str, Side], rounds: int) -> None:
    """Run all sides in turn, `rounds` times, each time in another order."""
    order = list(sides.values())
    for side in order:
        side.change(0)
        side.run("up")
    for number in range(1, rounds + 1):
        order = order[1:] + order[:1]
        for name in COMMANDS:
            for side in order:
                if name == "preview of a change":
                    side.change(number % 2)
                side.run(name.partition(" ")[0] if name != "unchanged up" else "up", name)


def rows_of(chart: str, sides: dict[str, Side]) -> Iterable[list[str]]:
    """Yield a row of the table for each command."""
    targets = TARGETS.get(chart, (None,) * len(COMMANDS))
    ours, typed = sides["ours"], sides["typed"]
    for name, target in zip(COMMANDS, targets, strict=True):
        shown = [_median(sides.get(other), name) for other in ("empty", "helm", "typed", "ours", "ci")]
        seconds = ours.seconds[name]
        yield [
            chart,
            name,
            *shown,
            f"{min(seconds):.2f} to {max(seconds):.2f}",
            *(
                f"{statistics.median(a[name]) / statistics.median(b[name]):.2f}"
                for a, b in ((ours.seconds, typed.seconds), (ours.processor, typed.processor))
            ),
            f"{target:.2f}" if target else "",
        ]


def _median(side: Side | None, name: str) -> str:
    return f"{statistics.median(side.seconds[name]):.2f}" if side and name in side.seconds else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory(sides: dict[str, Side]) -> list[str]:
    """Return how many MB the programs take in a preview."""
    peaks = []
    for name in ("typed", "ours"):
        sides[name].run("preview")
        peaks.append(f"{int((sides[name].folder / 'memory').read_text()) / 1024:.0f}")
    return peaks


def write(rounds: int, rows: list[list[str]], peaks: list[list[str]], provider: str) -> None:
    """Write the page."""
    head = [
        "chart",
        "command",
        "empty",
        "helm",
        "typed",
        "ours",
        "ci",
        "ours, from to",
        "ratio",
        "processor",
        "target",
    ]
    pulumi = ENGINE.pulumi("version").strip()
    PAGE.write_text(
        f"""# What the release component costs

Written by `make bench`. Seconds of whole commands (`pulumi preview`, `pulumi up --skip-preview`), medians of
{rounds} rounds in turn on one control plane (of one round with 1,000 objects):

- *empty*: a program without resources;
- *helm*: `helm upgrade --install --atomic` of the same chart with the same values;
- *typed*: what Pulumi's documentation would have one write, a typed Namespace and a typed Release of it;
- *ours*: this project's program, with everything on: rendering, rows, Helm's record, dry run, drift;
- *ci*: `python -m operations preview` of the same.

*ratio* is *ours* against *typed*, *processor* the same of the processor time of all processes. The objects
are of ten kinds; the CRDs lie in the chart's folder crds/, or half of them among its templates.

{table(head, rows)}

The most memory that the program takes in a preview, in MB:

{table(["chart", "typed", "ours"], peaks)}

Measured on {os.cpu_count()} cores ({platform.system()} {platform.machine()}) with Python
{platform.python_version()}, Pulumi {pulumi}, its SDK {version("pulumi")}, the sandbox's language host
(as the official one does, it starts the official launcher), and {provider.partition(" (")[0]}.
"""
    )


def main(rounds: int) -> None:
    prepare(FOLDER / "bin", [ETCD, KUBERNETES, KWOK, HELM])
    rows: list[list[str]] = []
    peaks: list[list[str]] = []
    with empty_control_plane() as control_plane:
        provider = ENGINE.prepare()
        folder = FOLDER / "projects/bench"
        folder.mkdir(parents=True)
        shutil.copy(PROJECT / "Pulumi.yaml", folder)
        ENGINE.make_local_stack("local", folder)
        cluster = TestCluster(control_plane=control_plane)
        charts: dict[str, tuple[Callable[[], dict[str, Side]], int]] = {
            "this project's chart": (lambda: applications(cluster, folder / "Pulumi.local.yaml"), rounds),
            "10 objects": (lambda: generated(10, cluster), rounds),
            "50 objects": (lambda: generated(50, cluster), rounds),
            "200 objects": (lambda: generated(200, cluster), rounds),
            LARGE: (lambda: generated(90, cluster, crds=10, size=500_000), rounds),
            LARGE_TEMPLATES: (
                lambda: generated(90, cluster, crds=10, size=500_000, in_templates=5),
                rounds,
            ),
            "1,000 objects": (lambda: generated(1000, cluster), 1),
        }
        for chart, (make, times) in charts.items():
            sides = make()
            measure(sides, times)
            rows += rows_of(chart, sides)
            print(rows[-len(COMMANDS) :], flush=True)
            if chart in ("200 objects", "1,000 objects"):
                peaks.append([chart, *memory(sides)])
            write(rounds, rows, peaks, provider)  # whoever ends it early keeps what was measured
    print(PAGE.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
