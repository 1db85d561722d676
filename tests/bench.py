"""How long this project's release takes, against the same program with a bare `helm.v3.Release`.

    python -m tests.bench

Both run on one control plane, in turn (A B A B …), and medians are compared: what else the machine does
meanwhile slows both down. Prints a table, and writes it to docs/bench.md.
"""

import contextlib
import gc
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
from components.release import ChartRelease, ReleaseArgs, plan_release
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
class Side:
    """One of the two programs, with its stack."""

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


def compare(ours: Side, bare: Side, rounds: int) -> None:
    """Both sides in turn, `rounds` times, each time in another order."""
    sides = [ours, bare]
    for side in sides:
        side.change(0)
        side.run("up")
    for number in range(1, rounds + 1):
        sides.reverse()
        for kind in TARGETS:
            for side in sides:
                if kind == "preview":
                    side.change(number % 2)
                    side.run("preview", kind)
                elif kind == "up of a change":
                    side.run("up", kind)
        for side in sides:
            side.run("up", "unchanged up")


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
def running() -> Iterator[tuple[ControlPlane, str]]:
    """A control plane for this run, and the name of the Kubernetes provider."""
    prepare(FOLDER / "bin")
    with empty_control_plane() as control_plane:
        yield control_plane, choose_provider(FOLDER)


def rows_of(what: str, ours: Side, bare: Side) -> list[list[str]]:
    rows = []
    for kind, target in TARGETS.items():
        mine, theirs = ours.seconds[kind], bare.seconds[kind]
        a, b = statistics.median(mine), statistics.median(theirs)
        spread = f"{min(mine):.2f} to {max(mine):.2f}"
        rows.append([what, kind, f"{b:.2f}", f"{a:.2f}", spread, f"{a / b:.2f}", f"{target:.2f}"])
    return rows


def table(rows: list[list[str]]) -> str:
    head = ["what", "command", "bare, s", "this release, s", "from, to", "ratio", "target"]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    started = time.monotonic()
    rows = []
    with running() as (control_plane, provider):

        def engine(folder: Path) -> Engine:
            return Engine(folder=FOLDER, tools=FOLDER / "bin", project=folder)

        ours = application(engine, "bench-ours", None)
        bare = application(engine, "bench-bare", bare_application)
        compare(ours, bare, ROUNDS)
        rows += rows_of("this project's chart", ours, bare)
        for count, rounds in GROWTH.items():
            ours = generated(engine, count, True, control_plane)
            bare = generated(engine, count, False, control_plane)
            compare(ours, bare, rounds)
            rows += rows_of(f"{count} ConfigMaps", ours, bare)
    loaded = imports()
    rows.append(
        ["the program", "its imports", f"{loaded['bare']:.2f}", f"{loaded['ours']:.2f}", "",
         f"{loaded['ours'] / loaded['bare']:.2f}", ""]
    )  # fmt: skip
    text = table(rows)
    print(f"\n{text}\n\nTook {time.monotonic() - started:.0f} s.")
    PAGE.write_text(
        f"""# What the release component costs

Written by `make bench`: this release (rendering, rows, Helm's record, dry run, hooks) against the
same program with a bare `helm.v3.Release`, in turn on one control plane; medians of {ROUNDS} rounds, seconds
of `pulumi preview` and `pulumi up --skip-preview`.

{text}

Measured on {os.cpu_count()} cores ({platform.system()} {platform.machine()}, Python
{platform.python_version()}), with {provider.partition(" (")[0]}.
"""
    )


if __name__ == "__main__":
    main()
