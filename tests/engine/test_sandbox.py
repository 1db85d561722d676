"""`make up` and the plain command line as a user runs them, in a clone of its own."""

import base64
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Secret

from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT
from tests import remedies
from tests.engine.faults import family

NAMESPACE = "mern-local"


def interruptible() -> None:
    """As in a terminal: a job in the background inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Clone:
    """A copy of the project, and its sandbox."""

    def __init__(self, folder: Path) -> None:
        for name in self.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
        # Its own virtual environment would take minutes; make takes this one for whole.
        (folder / ".venv").symlink_to(sys.prefix)
        self.folder = folder
        self.stack_file = folder / "Pulumi.local.yaml"
        self.control_plane = ControlPlane(folder=folder / ".sandbox", tools=folder / ".sandbox/bin")
        self.env = dict(os.environ)

    def start(self, command: str, before: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "sandbox", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before or interruptible,  # noqa: PLW1509 - no threads here that matter
        )

    def run(self, command: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
        """Run a command of the sandbox; return its exit code, and what it shows."""
        process = self.start(command, before)
        output, _ = process.communicate(timeout=300)
        assert "Traceback" not in output, output
        return process.returncode, output

    def paste(self, command: str) -> str:
        """Have the user's shell run a command that was printed; return what it shows."""
        return remedies.run(command, folder=self.folder, env=self.env)

    def shell(self, script: str) -> str:
        """Run commands in the user's shell, after the line that the README gives; return what they show."""
        done = subprocess.run(
            ["sh", "-ec", f'eval "$(make -s env)"\n{script}'],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @staticmethod
    def files() -> list[str]:
        """The project's files: what git has, or would take."""
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.check_output(command, cwd=PROJECT, text=True).split("\0")
        return [name for name in names if (PROJECT / name).is_file()]

    def contents(self) -> dict[str, bytes]:
        """The project's files and what they hold."""
        return {name: (self.folder / name).read_bytes() for name in self.files()}


@pytest.fixture
def clone(tools: Path, tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path / "a clone")  # most shells and tools stumble over a space first
    yield clone
    clone.control_plane.remove()


def test_the_sandbox_is_the_command_line_that_users_have(clone: Clone) -> None:
    before = clone.contents()
    clone.env["HTTPS_PROXY"] = clone.env["https_proxy"] = "http://127.0.0.1:9"  # nobody: loopback needs none
    code, output = clone.run("up")
    assert code == 0, output
    assert "Kubernetes provider 4." in output
    assert "Deployment  mern-client                  2/2 ready" in output
    assert "Deployment  mern-server                  2/2 ready" in output
    assert "CronJob     mern-python-script           0 * * * *" in output
    assert "Ingress     mern                         alb: /api /" in output
    template = (PROJECT / "sandbox/Pulumi.local.yaml").read_text()
    assert clone.stack_file.read_text().startswith(template), "the template, byte for byte"
    for name in ("passphrase", "kubeconfig"):
        assert (clone.folder / ".sandbox" / name).stat().st_mode & 0o077 == 0

    # What it says comes next.
    assert set(remedies.commands_in(output)) == {"make preview", "make up", "make env", "make down"}
    assert "19 unchanged" in clone.paste("make preview")
    assert "export KUBECONFIG=" in clone.paste("make env")

    # A second `up` changes nothing, and the plain command line sees just that, with no word of plugins.
    code, output = clone.run("up")
    assert code == 0, output
    assert "19 unchanged" in output
    output = clone.shell("pulumi preview")
    assert "19 unchanged" in output
    assert "warning" not in output.lower()
    assert "plugin" not in output.lower()

    # The user's file reaches the engine as it was written: no reader of YAML stands between.
    text = clone.stack_file.read_text()
    text = text.replace('mern:imageTag: "1.0.0"', 'mern:imageTag: "1e3"')
    text = text.replace("    mernServer:\n", "    mernServer:\n      env: {OPENS_AT: 22:30, FLAG: yes}\n")
    clone.stack_file.write_text(text)
    output = clone.shell(
        "printf made-up | pulumi config set --secret --path 'mern:serverSecrets.SESSION_KEY'\n"
        "pulumi up --yes --skip-preview"
    )
    with clone.control_plane.client() as client:
        server = client.get(Deployment, "mern-server", namespace=NAMESPACE)
        held = client.get(Secret, "mern-server", namespace=NAMESPACE).data
    container = server.spec.template.spec.containers[0]
    assert container.image.endswith(":1e3")
    env = {each.name: each.value for each in container.env}
    assert (env["OPENS_AT"], env["FLAG"]) == ("22:30", "yes")
    assert base64.b64decode(held["SESSION_KEY"]) == b"made-up"
    assert "made-up" not in output

    # Stopped and started, it goes on from there.
    clone.paste("make down")
    assert clone.control_plane.processes() == set()
    assert "is stopped: `make up` starts it." in clone.run("status")[1]
    assert clone.run("down")[0] == 0
    output = clone.paste("make up")
    assert "2 updated" not in output
    assert "unchanged" in output
    assert "2/2 ready" in clone.run("status")[1]

    # The passphrase of what is deployed is lost.
    (clone.folder / ".sandbox/passphrase").unlink()
    code, output = clone.run("up")
    assert code == 1
    [command] = remedies.commands_in(output)
    assert "2/2 ready" in clone.paste(command)

    output = clone.shell("pulumi refresh --yes --skip-preview\npulumi destroy --run-program --yes")
    assert "deleted" in output
    assert "Nothing is deployed." in clone.run("status")[1]

    assert clone.contents() == before
    output = clone.paste("make clean")
    assert "Pulumi.local.yaml and the passphrase of its secrets stay." in output
    assert [path.name for path in (clone.folder / ".sandbox").iterdir() if path.name != "lock"] == [
        "passphrase"
    ]
    assert "1e3" in (clone.folder / "Pulumi.local.yaml.old").read_text()
    assert clone.control_plane.processes() == set()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_an_interrupted_up_leaves_nothing_running_and_the_next_one_works(
    clone: Clone, how: signal.Signals
) -> None:
    with clone.start("up") as process:
        seen = ""
        assert process.stdout
        for line in process.stdout:
            seen += line
            if "mern creating" in line:
                break
        children = family(process.pid)[1:]
        assert len(children) >= 3, "the command line, the language host, the program"
        process.send_signal(how)
        seen += process.stdout.read()
    assert process.returncode != 0, seen
    for text in ("Traceback", "KeyboardInterrupt", "non-zero exit code"):
        assert text not in seen, seen
    plane = clone.control_plane.processes()
    assert [pid for pid in children if pid not in plane and Path(f"/proc/{pid}/cmdline").exists()] == []
    code, output = clone.run("up")
    assert code == 0, output
    assert "2/2 ready" in output


def test_what_cannot_be_done_is_named_with_the_remedy(clone: Clone, tmp_path: Path) -> None:
    # Nothing is installed.
    right = dict(clone.env)
    clone.env |= {
        "PATH": "/nowhere",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    code, output = clone.run("up")
    assert code == 1
    assert "Go is not installed" in output
    assert "kube-apiserver" in output
    clone.env = right

    # The passphrase of the user's secrets is gone.
    clone.stack_file.write_text("config: {}\nencryptionsalt: v1:x\n")
    code, output = clone.run("up")
    assert code == 1
    assert "the secrets in Pulumi.local.yaml cannot be read: their passphrase, " in output
    assert "    mv Pulumi.local.yaml Pulumi.local.yaml.old && " in output
    clone.stack_file.unlink()

    # The disk is full.
    shutil.rmtree(clone.folder / ".sandbox")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, output = clone.run("up", before=no_room)
    assert code == 1, output
    assert "error: " in output
    assert clone.control_plane.processes() == set()

    # The folder cannot be written.
    shutil.rmtree(clone.folder / ".sandbox", ignore_errors=True)
    (clone.folder / ".sandbox").write_text("in the way")
    code, output = clone.run("up")
    assert code == 1
    assert f"error: {clone.folder / '.sandbox'}: " in output
    (clone.folder / ".sandbox").unlink()


def test_a_second_command_in_the_same_clone_is_told_to_wait(clone: Clone) -> None:
    first = clone.start("preview")
    give_up = time.monotonic() + 60
    while not (clone.folder / ".sandbox/bin").exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    code, output = clone.run("down")
    first.communicate()
    assert code == 1
    assert "another sandbox command is at work in this clone" in output
    assert first.returncode == 0
