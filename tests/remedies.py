"""The commands that messages print: those that stand in the sources, and those that tests have run.

A test that reads a command in a message has `run` execute it. When all tests have run, every command of
the sources has to be among them: see tests/conftest.py.
"""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from sandbox.engine import PROJECT

ROOMS = ("components", "operations", "settings", "sandbox")
COMMAND = re.compile(
    r"(?:^ *|`)((?:pulumi|kubectl|helm|aws|eksctl|git|make|mv|\.venv/bin/python -m operations)"
    r" [^`\n\0][^`\n]*)",
    re.MULTILINE,
)
NOT_OURS = ("kubectl", "aws", "eksctl")
"""Programs that a machine need not have; nothing here builds them."""
NOT_RUN = ("aws sso login", "aws eks update-kubeconfig ", "helm dependency ", "kubectl oidc-login ")
"""Beginnings of commands that need a browser, a plugin, or a chart with dependencies: no test runs them."""
HOLE = "\0"
"""What an f-string fills in."""

ran: set[str] = set()
"""The commands that tests have run, as they were printed."""


HIDDEN = re.compile(
    r"\bpulumi (up|config|preview|refresh|cancel|stack) |\bhelm uninstall |\beksctl \w+ "
    r"|\bkubectl (get|delete|label|annotate|rollout) "
    r"|\baws \w+ [a-z-]+ --"
)
"""A command in the midst of a sentence, which neither a user nor `printed` takes for one."""


def printed() -> dict[str, str]:
    """Return the commands in the messages of the sources, with HOLEs, and the place of each."""
    return {command: place for place, text in messages() for command in commands_in(text)}


def messages() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each string in the sources that is no docstring."""
    for file in (path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py"))):
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and id(node) not in docs | inner:
                yield f"{file.relative_to(PROJECT)}:{node.lineno}", _text_of(node)


def _text_of(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part) or HOLE for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w+\}", HOLE, node.value)  # which str.format fills in
    return ""


def not_run() -> Iterator[str]:
    """Yield the commands of the sources that no test has run, of programs that every machine has here."""
    for command, place in printed().items():
        pattern = ".+".join(map(re.escape, command.split(HOLE)))
        pattern = re.sub(r"\b[A-Z]{3,}\b", ".+", pattern)  # what a user writes in its place
        if command.startswith((*NOT_OURS, *NOT_RUN)):
            continue
        if not any(re.match(pattern, text) for text in ran):
            yield f"{place}: {command.replace(HOLE, '…')}"


def filled(start: str, *texts: str) -> str:
    """Return the command of the sources that begins with `start`, with these texts filled in."""
    [command] = [command for command in printed() if command.startswith(start)]
    for text in texts:
        command = command.replace(HOLE, text, 1)
    assert HOLE not in command
    return command


def is_here(command: str) -> bool:
    """Return whether this machine has the program, and can give what the command waits for."""
    program = command.split(maxsplit=1)[0]
    return not command.startswith(NOT_RUN) and (program not in NOT_OURS or shutil.which(program) is not None)


def commands_in(text: str) -> list[str]:
    """Return the commands in a message that a user reads."""
    return [command.strip() for command in COMMAND.findall(text)]


def run(
    command: str,
    *,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    given: str = "",
    **placeholders: str,
) -> str:
    """Have a shell run a command as it was printed, and return what it says.

    Args:
        command: as printed.
        folder: to run it in; this project's where None.
        env: its variables; those of this process where None.
        given: what is typed while it runs.
        placeholders: what a user writes in place of `VALUE` and the like, word to text.
    """
    ran.add(command)
    typed = command
    for word, text in placeholders.items():
        typed = re.sub(rf"\b{word}\b", text.replace("\\", r"\\"), typed)
    done = subprocess.run(
        ["sh", "-c", typed],
        cwd=folder or PROJECT,
        env=env,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{typed}\n{done.stdout}"
    return done.stdout
