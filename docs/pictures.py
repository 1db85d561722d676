"""Makes the pictures of the README from real output: `make pictures`.

A preview of a change, and an upgrade that cannot be scheduled, on a control plane of its own.
"""

import html
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT, Engine
from sandbox.tools import ETCD, KUBERNETES, KWOK, prepare

FOLDER = PROJECT / ".sandbox/pictures"
STACK = "local"
COLORS = {"+": "#3fb950", "~": "#d29922", "-": "#f85149"}
WIDTH, LINE = 116, 18


def draw(name: str, lines: Iterable[str]) -> None:
    """Write `lines` as docs/`name`.svg, the way a terminal shows them."""
    shown = [line[i : i + WIDTH] for line in lines for i in range(0, max(len(line), 1), WIDTH)]
    rows = []
    for number, line in enumerate(shown, 1):
        color = COLORS.get(line.strip()[:1], "#c9d1d9")
        color = COLORS["-"] if "error:" in line or "failed" in line else color
        text = html.escape(line).replace(" ", "&#160;")
        rows.append(f'<text x="16" y="{number * LINE + 8}" fill="{color}">{text}</text>')
    size = f'width="{WIDTH * 8 + 32}" height="{len(shown) * LINE + 24}"'
    style = 'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="13"'
    box = '<rect width="100%" height="100%" rx="6" fill="#0d1117"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{box}{"".join(rows)}</svg>\n'
    (PROJECT / f"docs/{name}.svg").write_text(svg)
    print(f"docs/{name}.svg: {len(shown)} lines")


def run(engine: Engine, project: Path, *command: str) -> list[str]:
    """What a user sees of one command, without the dots that mean that it goes on."""
    done = subprocess.run(
        [str(engine.tools / "pulumi"), *command, "--stack", STACK, "--non-interactive", "--color", "never"],
        cwd=project,
        env={**os.environ, **engine.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("@ ")]


def configure(project: Path, replicas: int, cpu: str, timeout: int) -> None:
    """Set these numbers in the stack file."""
    file = project / f"Pulumi.{STACK}.yaml"
    text = yaml.safe_load(file.read_text())
    config = text["config"]
    config["mern:cluster"]["kubeconfig"] = str(FOLDER / "kubeconfig")
    config["mern:release"] = {"timeout": timeout}
    server = config["mern:values"]["mernServer"]
    server |= {"replicas": replicas, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}
    file.write_text(yaml.safe_dump(text))


def main() -> None:
    """Make all pictures."""
    engine = Engine(folder=FOLDER)
    prepare(engine.tools, [ETCD, KUBERNETES, KWOK])
    engine.prepare()
    control_plane = ControlPlane(folder=FOLDER, tools=engine.tools)
    control_plane.remove()
    project = FOLDER / "project"
    for left_over in (project, FOLDER / "state"):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(PROJECT / "chart", project / "chart")
    shutil.copy(PROJECT / "Pulumi.yaml", project)
    for name in ("__main__.py", "settings", "components"):
        (project / name).symlink_to(PROJECT / name)
    (project / ".venv").symlink_to(sys.prefix)
    (FOLDER / "state").mkdir()
    control_plane.start()
    try:
        engine.make_local_stack(STACK, project)
        up = ("up", "--yes", "--skip-preview")
        for replicas, cpu, timeout in ((2, "1", 60), (3, "1", 60), (3, "1000", 8)):
            configure(project, replicas, cpu, timeout)
            if replicas == 2:
                run(engine, project, *up)
            elif cpu == "1":
                draw("preview", run(engine, project, "preview"))
            else:
                said = run(engine, project, *up)
                report = next(i for i, line in enumerate(said) if line.startswith("Diagnostics"))
                draw("progress", said[:report])
                draw("failure", said[report:])
    finally:
        control_plane.remove()


if __name__ == "__main__":
    main()
