"""Makes the pictures of the README from real output: `make pictures`.

A preview of a change, and an upgrade that cannot be scheduled, on a control plane of its own.
"""

import html
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml
from pulumi import automation as auto

from sandbox.control_plane import ControlPlane
from sandbox.engine import MADE_UP_SECRETS, PROJECT, Engine, choose_provider
from sandbox.tools import prepare

FOLDER = PROJECT / ".sandbox/pictures"
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


def run(stack: auto.Stack, command: str) -> list[str]:
    """What a user sees of one command, without the dots that mean that it goes on."""
    lines: list[str] = []
    try:
        getattr(stack, command)(on_output=lines.append, on_error=lines.append, color="never")
    except auto.errors.CommandError:
        lines.append("")
    return [line for line in lines if line.strip() and not line.startswith("@ ")]


def configure(project: Path, replicas: int, cpu: str, timeout: int) -> None:
    """The stack file of the pictures: the local one with these numbers."""
    text = yaml.safe_load((PROJECT / "Pulumi.local.yaml").read_text())
    config = text["config"]
    config["mern:cluster"]["kubeconfig"] = str(FOLDER / "kubeconfig")
    config["mern:release"] = {"timeout": timeout}
    server = config["mern:values"]["mernServer"]
    server |= {"replicas": replicas, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}
    (project / "Pulumi.local.yaml").write_text(yaml.safe_dump(text))


def main() -> None:
    """Make all pictures."""
    tools = FOLDER / "bin"
    prepare(tools)
    control_plane = ControlPlane(folder=FOLDER, tools=tools)
    control_plane.remove()
    project = FOLDER / "project"
    shutil.rmtree(FOLDER / "state", ignore_errors=True)
    shutil.copytree(PROJECT / "chart", project / "chart", dirs_exist_ok=True)
    shutil.copy(PROJECT / "Pulumi.yaml", project)
    control_plane.start()
    try:
        choose_provider(FOLDER)
        engine = Engine(folder=FOLDER, tools=tools, project=project)
        for replicas, cpu, timeout in ((2, "1", 60), (3, "1", 60), (3, "1000", 8)):
            configure(project, replicas, cpu, timeout)
            stack = engine.stack("local", MADE_UP_SECRETS)
            if replicas == 2:
                run(stack, "up")
            elif cpu == "1":
                draw("preview", run(stack, "preview"))
            else:
                said = run(stack, "up")
                report = next(i for i, line in enumerate(said) if line.startswith("Diagnostics"))
                draw("progress", said[:report])
                draw("failure", said[report:])
    finally:
        control_plane.remove()


if __name__ == "__main__":
    main()
