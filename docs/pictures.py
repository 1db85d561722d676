"""Make the README's pictures from real output: `make pictures`.

Runs the command line in a terminal, on a control plane of its own: a preview, the same as a pull request's
comment, and an upgrade whose pods fit on no node.
"""

import fcntl
import html
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from lightkube.resources.apps_v1 import Deployment
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT, Engine
from sandbox.tools import ETCD, KUBERNETES, KWOK, prepare

FOLDER = PROJECT / ".sandbox/pictures"
STACK, NAMESPACE = "local", "mern-local"
PREVIEW = "pulumi preview"
UP = "pulumi up --yes --skip-preview"
ROWS, COLUMNS = 200, 140
"""Size of the terminal: nothing scrolls, and the engine cuts no row of its tree."""
SCALE = 0.6
"""Pixels of the page for one of rich's."""


def _colours(text: str) -> list[tuple[int, int, int]]:
    return [(red, green, blue) for red, green, blue in map(bytes.fromhex, text.split())]


THEME = TerminalTheme(
    *((13, 17, 23), (230, 237, 243)),
    _colours("484f58 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4"),
    _colours("8b949e ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd f0f6fc"),
)
# That of rich, without the fonts that it loads from the network.
WINDOW = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


# ---- a terminal


def run(engine: Engine, project: Path, command: str, *, fails: bool = False) -> list[list[str]]:
    """Run `command` in a terminal; return each screen that the user sees, with its colours.

    Raises:
        SystemExit: it succeeds where it should fail, or the reverse.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, **engine.environment(), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command.split(),
        cwd=project,
        env=environment,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    seen = [[f"$ {command}", *screen] for screen in screens(output.decode())]
    if bool(process.wait()) != fails:
        sys.exit("\n".join(seen[-1]))
    return seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # so Linux says that the program has ended
        return b""


def screens(output: str) -> Iterator[list[str]]:
    """Yield what the screen shows whenever the engine goes back up to draw its tree anew, and at the end.

    The engine moves by whole lines: it returns to the left, goes up, and writes each line from its start.
    """
    output = re.sub(r"\x1b\].*?(?:\x07|\x1b\\)|\x1b\[\?\d+[hl]", "", output)
    output = output.replace("\x1b[K", "\x1b[0m")  # alone on a line it empties that line
    lines: list[str] = []
    row = 0
    for part in re.split(r"(\n|\r|\x1b\[\d*A)", output):
        if part == "\n":
            row += 1
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            yield _trimmed(lines)
            row -= int(up[1] or 1)
        elif part.strip("\r"):
            lines += [""] * (row + 1 - len(lines))
            lines[row] = part
    yield _trimmed(lines)


def _trimmed(lines: list[str]) -> list[str]:
    """Return `lines` up to the last that is not blank."""
    kept = list(lines)
    while kept and not Text.from_ansi(kept[-1]).plain.strip():
        kept.pop()
    return kept


def draw_terminal(name: str, lines: Iterable[str], columns: int) -> None:
    """Write docs/`name`.svg: `lines` in a terminal of that many columns, wrapped between words."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, highlight=False)
        for line in lines:
            for text in _wrapped(Text.from_ansi(line.replace("\t", "    ")), columns, console):
                console.print(text, no_wrap=True)
        console.print()  # room below the last line
        svg = console.export_svg(title="", theme=THEME, code_format=WINDOW)
    width, height = re.findall(r"[\d.]+", svg.partition(">")[0])[2:4]
    size = f'width="{float(width) * SCALE:.0f}" height="{float(height) * SCALE:.0f}"'
    write(name, svg.replace("<svg ", f"<svg {size} ", 1))


def _wrapped(line: Text, columns: int, console: Console) -> Iterator[Text]:
    """Yield `line` in parts that keep its indentation."""
    line.rstrip()
    indentation = len(line.plain) - len(line.plain.lstrip())
    if len(line) <= columns:
        yield line
        return
    for part in line[indentation:].wrap(console, columns - indentation):
        part.rstrip()
        part.pad_left(indentation)
        yield part


def write(name: str, svg: str) -> None:
    """Write docs/`name`.svg."""
    (PROJECT / f"docs/{name}.svg").write_text(re.sub(r"[ \t]+\n", "\n", svg))
    print(f"docs/{name}.svg")


# ---- a comment on GitHub


class Card:
    """The drawing of a comment, as it grows downwards."""

    WIDTH, EDGE, CHARACTER = 830, 17, 7.25
    SANS = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
    MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._y = 38.0

    def text(self, line: str, size: float = 14, weight: int = 400, colour: str = "#1f2328") -> None:
        """Draw a line of markdown in which `<code>` is the only mark."""
        self._y += size * 2
        spans = []
        for part in re.split(r"(<code>.*?</code>)", line):
            plain = html.escape(html.unescape(re.sub(r"</?code>", "", part)))
            style = f' font-family="{self.MONO}" font-size="{size * 0.88:.1f}"' if "<code>" in part else ""
            spans.append(f"<tspan{style}>{plain}</tspan>")
        self._shapes.append(
            f'<text xml:space="preserve" x="{self.EDGE}" y="{self._y:.0f}" font-size="{size}" '
            f'font-weight="{weight}" fill="{colour}">{"".join(spans)}</text>'
        )

    def box(self, lines: list[str]) -> None:
        """Draw preformatted lines; one that is too long goes on below, as deep as it began."""
        room = int((self.WIDTH - 4 * self.EDGE) / self.CHARACTER)
        shown = []
        for line in lines:
            hanging = " " * (len(line) - len(line.lstrip(" ~+-")))
            shown += textwrap.wrap(
                line, room, subsequent_indent=hanging, drop_whitespace=False, break_on_hyphens=False
            ) or [""]
        top, height, width = self._y + 12, 18 * len(shown) + 20, self.WIDTH - 2 * self.EDGE
        self._shapes.append(
            f'<rect x="{self.EDGE}" y="{top:.0f}" width="{width}" height="{height}" rx="6" fill="#f6f8fa"/>'
        )
        for number, line in enumerate(shown, 1):
            self._shapes.append(
                f'<text xml:space="preserve" x="{2 * self.EDGE}" y="{top + 18 * number + 5:.0f}" '
                f'font-family="{self.MONO}" font-size="12" textLength="{len(line) * self.CHARACTER:.0f}" '
                f'fill="#1f2328">{html.escape(line)}</text>'
            )
        self._y = top + height

    def svg(self) -> str:
        """Return the whole picture."""
        height = self._y + 20
        frame = f'x="0.5" y="0.5" width="{self.WIDTH - 1}" rx="6" stroke="#d1d9e0"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.WIDTH}" height="{height:.0f}" '
                f'viewBox="0 0 {self.WIDTH} {height:.0f}" font-family="{self.SANS}">',
                f'<rect {frame} height="{height - 1:.0f}" fill="#ffffff"/>',
                f'<rect {frame} height="38" fill="#f6f8fa"/>',
                f'<text x="{self.EDGE}" y="25" font-size="14" font-weight="600" fill="#1f2328">'
                'github-actions <tspan font-weight="400" fill="#59636e">bot commented</tspan></text>',
                *self._shapes,
                "</svg>\n",
            ]
        )


def draw_comment(name: str, markdown: str) -> None:
    """Write docs/`name`.svg: a comment as GitHub shows it, with its folded parts open."""
    card = Card()
    lines = iter(markdown.splitlines())
    for line in lines:
        if line.startswith("### "):
            card.text(line.removeprefix("### "), size=17, weight=600)
        elif bold := re.fullmatch(r"\*\*(.*)\*\*", line):
            card.text(bold[1], weight=600)
        elif summary := re.search(r"<summary>(.*)</summary>", line):
            card.text(f"▾ {summary[1]}")
        elif line == "<pre>":
            card.box([html.unescape(text) for text in iter(lines.__next__, "</pre>")])
        elif line not in ("", "</details>"):
            card.text(line)
    note = "A drawing of the real text. GitHub shows the parts marked ▾ folded at first."
    card.text(note, size=12, colour="#59636e")
    write(name, card.svg())


# ---- what is drawn


def configure(project: Path, *, tag: str, replicas: int, cpu: str) -> None:
    """Set these values in the stack file."""
    file = project / f"Pulumi.{STACK}.yaml"
    text = yaml.safe_load(file.read_text())
    config = text["config"]
    config["mern:cluster"]["kubeconfig"] = str(FOLDER / "kubeconfig")
    config["mern:imageTag"] = tag
    config["mern:release"] = {"timeout": 20}
    server = config["mern:values"]["mernServer"]
    server |= {"replicas": replicas, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}
    file.write_text(yaml.safe_dump(text))


def scale(control_plane: ControlPlane, replicas: int) -> None:
    """Change the client's Deployment in the cluster, past the stack."""
    with control_plane.client() as client:
        patch = {"spec": {"replicas": replicas}}
        client.patch(Deployment, "mern-client", patch, namespace=NAMESPACE, field_manager="make-pictures")


def lay_out(project: Path) -> None:
    """Make the project's folder: its own chart and stack file, the program of this clone."""
    for left_over in (project, FOLDER / "state"):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(PROJECT / "chart", project / "chart")
    shutil.copy(PROJECT / "Pulumi.yaml", project)
    for name in ("__main__.py", "settings", "components", "operations"):
        (project / name).symlink_to(PROJECT / name)
    (project / ".venv").symlink_to(sys.prefix)
    (FOLDER / "state").mkdir()


def main() -> None:
    """Make all pictures."""
    engine = Engine(folder=FOLDER)
    prepare(engine.tools, [ETCD, KUBERNETES, KWOK])
    engine.prepare()
    control_plane = ControlPlane(folder=FOLDER, tools=engine.tools)
    control_plane.remove()
    project = FOLDER / "project"
    lay_out(project)
    control_plane.start()
    try:
        engine.make_local_stack(STACK, project)
        configure(project, tag="1.0.0", replicas=2, cpu="1")
        run(engine, project, UP)

        configure(project, tag="1.1.0", replicas=3, cpu="1")
        draw_terminal("preview", run(engine, project, PREVIEW)[-1], columns=110)

        scale(control_plane, 3)  # by hand, for the comment to tell
        run(engine, project, f"{sys.executable} -m operations preview {STACK} --comment comment.md")
        draw_comment("comment", (project / "comment.md").read_text())
        scale(control_plane, 2)

        configure(project, tag="1.1.0", replicas=3, cpu="1000")
        seen = run(engine, project, UP, fails=True)
        waiting = [screen for screen in seen if any("waiting for" in line for line in screen)]
        draw_terminal("progress", waiting[-1], columns=COLUMNS)
        outputs = next(at for at, line in enumerate(seen[-1]) if "Outputs:" in line)
        draw_terminal("failure", _trimmed(seen[-1][:outputs]), columns=110)
    finally:
        control_plane.remove()


if __name__ == "__main__":
    main()
