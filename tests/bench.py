"""How long this project's release takes, against the same program with a bare `helm.v3.Release`.

    python -m tests.bench

Both run on one control plane, in turn (A B A B …), and medians are compared: what else the machine does
meanwhile slows both down. Prints a table, and writes it to docs/bench.md.
"""

import contextlib
import gc
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

import pulumi
import pulumi_kubernetes as kubernetes
import yaml
from pulumi_kubernetes.helm.v3 import Release

from components.cluster import connect
from components.mern_application import READINESS_GATE, chart_values
from components.release import ChartRelease, ReleaseArgs, drift, plan_release, record
from components.release.api import Api
from components.release.secret_values import marked
from sandbox.control_plane import ControlPlane
from sandbox.engine import MADE_UP_SECRETS, PROJECT, Engine, choose_provider
from sandbox.tools import prepare
from settings import ClusterSettings, Settings
from tests.conftest import FOLDER, empty_control_plane

PAGE = PROJECT / "docs/bench.md"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
GROWTH = {10: 3, 50: 3, 200: 2}
"""Number of objects to number of rounds."""
TARGETS = {"preview": 1.35, "unchanged up": 1.15, "up of a change": 1.1}
HELM = {"atomic": True, "max_history": 10, "skip_await": False, "create_namespace": False, "replace": True}


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

    folder: Path
    stack: Any
    change: Callable[[int], None]
    """Sets the value that the up of a change changes, to one of two."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in TARGETS})

    def run(self, command: str, kind: str = "") -> None:
        lines: list[str] = []
        started = time.monotonic()
        try:
            getattr(self.stack, command)(on_output=lines.append, color="never")
        except Exception:
            print("\n".join(lines), file=sys.stderr)
            raise
        if kind:
            self.seconds[kind].append(time.monotonic() - started)
        gc.collect()

    def __post_init__(self) -> None:
        # After an `up`, the Automation API starts the CLI three times more to tell what came of it.
        self.stack.outputs = dict
        self.stack.info = lambda *_: self


def bare_application() -> None:
    """`__main__.py`, with a bare Release in place of this project's."""
    settings = Settings.load()
    cluster = connect(settings.cluster, settings.aws)
    opts = pulumi.ResourceOptions(provider=cluster.provider)
    metadata = {"name": settings.namespace.name, "labels": {READINESS_GATE: "enabled"}}
    namespace = kubernetes.core.v1.Namespace("mern-namespace", metadata=metadata, opts=opts)
    release = Release(
        "mern",
        name="mern",
        namespace=settings.namespace.name,
        chart="./chart",
        values=marked(chart_values(settings, {}, None)),
        timeout=settings.release.timeout,
        **HELM,
        opts=pulumi.ResourceOptions(provider=cluster.provider, depends_on=[namespace]),
    )
    pulumi.export("revision", release.status["revision"])


def nothing() -> None:
    """The least that a Pulumi program can do."""


def helm(name: str) -> Helm:
    config = yaml.safe_load((PROJECT / "Pulumi.local.yaml").read_text())["config"]["mern:values"]

    def change(number: int) -> None:
        config["mernClient"]["replicas"] = 2 + number

    def values() -> dict[str, Any]:
        uri = {"mongodbUri": MADE_UP_SECRETS["mern:mongodbUri"]}
        keys = {"awsAccessKeyId": "made-up-key-id", "awsSecretAccessKey": "made-up-access-key"}
        server, script = config["mernServer"] | uri, config["pythonScript"] | uri | keys
        return {**config, "mernServer": server, "pythonScript": script}

    return Helm(name=name, change=change, values=values)


def many_objects(values: dict[str, Any], namespace: str, shown: bool) -> None:
    """A chart of ConfigMaps, deployed by this project's release or by a bare one."""
    config = {"kubeconfig": str(FOLDER / "kubeconfig"), "context": "kwok-mern"}
    cluster = connect(ClusterSettings.model_validate(config), None)
    opts = pulumi.ResourceOptions(provider=cluster.provider)
    if shown:
        args = ReleaseArgs(chart="./chart", name="many", namespace=namespace, values=values)
        ChartRelease("many", plan_release(args, cluster.provider, cluster.api), opts)
    else:
        given = {"name": "many", "namespace": namespace, "chart": "./chart", "values": values}
        Release("many", **given, timeout=300, **HELM, opts=opts)


def application(engine: Callable[[Path], Engine], name: str, program: Any) -> Side:
    folder = FOLDER / "projects" / name
    shutil.copytree(PROJECT / "chart", folder / "chart")
    shutil.copy(PROJECT / "Pulumi.yaml", folder)
    file = folder / f"Pulumi.{name}.yaml"
    config = yaml.safe_load((PROJECT / "Pulumi.local.yaml").read_text())
    config["config"]["mern:cluster"]["kubeconfig"] = str(FOLDER / "kubeconfig")
    config["config"]["mern:namespace"] = {"name": name}
    file.write_text(yaml.safe_dump(config))

    def change(number: int) -> None:
        config["config"]["mern:values"]["mernClient"]["replicas"] = 2 + number
        file.write_text(yaml.safe_dump(config))
        open_()

    def open_() -> Any:
        return engine(folder).stack(name, MADE_UP_SECRETS, program)

    return Side(folder=folder, stack=open_(), change=change)


def generated(engine: Callable[[Path], Engine], count: int, shown: bool, control_plane: Any) -> Side:
    name = f"many-{count}-{'shown' if shown else 'bare'}"
    folder = FOLDER / "projects" / name
    (folder / "chart/templates").mkdir(parents=True)
    shutil.copy(PROJECT / "Pulumi.yaml", folder)
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
    values = {"count": count, "number": 0}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    from lightkube.resources.core_v1 import Namespace

    control_plane.client().create(Namespace.from_dict(namespace))

    def program() -> None:
        with contextlib.chdir(folder):
            many_objects(values, name, shown)

    def change(number: int) -> None:
        values["number"] = number

    return Side(folder=folder, stack=engine(folder).stack(name, {}, program), change=change)


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
        drift.find(api, found.objects(), namespace, [])
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def imports() -> dict[str, float]:
    """Seconds that each program needs to be loaded, which the runs above have behind them."""
    bare = "import pulumi, pulumi_kubernetes, pulumi_aws, pulumi_kubernetes.helm.v3, pydantic, yaml, settings"
    programs = {"bare": bare, "ours": f"{bare}; import components.mern_application, components.cluster"}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, text in programs.items():
            started = time.monotonic()
            subprocess.run([sys.executable, "-c", text], cwd=PROJECT, check=True)
            seconds[name].append(time.monotonic() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}


@contextlib.contextmanager
def running() -> Iterator[tuple[ControlPlane, str, float]]:
    """A control plane for this run, the name of the Kubernetes provider, and the seconds that
    it took to start."""
    prepare(FOLDER / "bin")
    started = time.monotonic()
    with empty_control_plane() as control_plane:
        seconds = time.monotonic() - started
        yield control_plane, choose_provider(FOLDER), seconds


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
    with running() as (control_plane, provider, start):

        def engine(folder: Path) -> Engine:
            return Engine(folder=FOLDER, tools=FOLDER / "bin", project=folder)

        ours = application(engine, "bench-ours", None)
        bare = application(engine, "bench-bare", bare_application)
        others = application(engine, "bench-empty", nothing), helm("bench-helm")
        compare([ours, bare, *others], ROUNDS)
        rows += rows_of("this project's chart", ours, bare, others)
        looked = [looking("mern", "bench-ours")]
        for count, rounds in GROWTH.items():
            ours = generated(engine, count, True, control_plane)
            bare = generated(engine, count, False, control_plane)
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
