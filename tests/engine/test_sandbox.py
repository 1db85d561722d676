"""`python -m sandbox` as a user runs it, in a clone of its own."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from lightkube.resources.core_v1 import Namespace

from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT


def interruptible() -> None:
    """As in a terminal: a job in the background inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Clone:
    """A copy of the project, and its sandbox."""

    def __init__(self, folder: Path) -> None:
        ignore = shutil.ignore_patterns(".*_cache", ".venv", ".sandbox", ".git", "__pycache__")
        shutil.copytree(PROJECT, folder, ignore=ignore)
        self.folder = folder
        self.control_plane = ControlPlane(folder=folder / ".sandbox", tools=folder / ".sandbox/bin")
        self.env = dict(os.environ)

    def start(self, command: str, before: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "sandbox", command],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before or interruptible,  # noqa: PLW1509 - no threads here that matter
        )

    def run(self, command: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
        process = self.start(command, before)
        output, _ = process.communicate(timeout=300)
        assert "Traceback" not in output, output
        return process.returncode, output


@pytest.fixture
def clone(tools: Path, tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path / "clone")
    yield clone
    clone.control_plane.remove()


def test_up_twice_down_and_up_again(clone: Clone) -> None:
    code, output = clone.run("up")
    assert code == 0, output
    assert "Deployment  mern-client                  2/2 ready" in output
    assert "Deployment  mern-server                  2/2 ready" in output
    assert "CronJob     mern-python-script           0 * * * *" in output
    assert "Ingress     mern                         alb: /api /" in output

    code, output = clone.run("up")
    assert code == 0, output
    assert "Nothing changed." in output

    assert clone.run("down")[0] == 0
    assert clone.control_plane.processes() == set()
    assert "is stopped" in clone.run("status")[1]
    assert clone.run("down")[0] == 0

    code, output = clone.run("up")
    assert code == 0, output
    assert "Nothing changed." in output
    assert "2/2 ready" in clone.run("status")[1]

    # Nothing in the clone was rewritten, and the secrets of the sandbox are the owner's alone.
    for name in ("Pulumi.local.yaml", "Pulumi.yaml"):
        assert (clone.folder / name).read_text() == (PROJECT / name).read_text()
    for name in ("passphrase", "kubeconfig"):
        assert (clone.folder / ".sandbox" / name).stat().st_mode & 0o077 == 0

    assert clone.run("clean")[0] == 0
    assert not (clone.folder / ".sandbox").exists()


def test_two_clones_run_side_by_side(clone: Clone, tmp_path: Path) -> None:
    other = Clone(tmp_path / "other")
    try:
        for each in (clone, other):
            assert each.run("preview")[0] == 0
        servers = {
            yaml.safe_load(each.control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
            for each in (clone, other)
        }
        assert len(servers) == 2
        assert other.run("down")[0] == 0
        assert len(clone.control_plane.processes()) == 5
    finally:
        other.control_plane.remove()


def test_a_dead_control_plane_is_noticed_and_goes_on_with_what_it_stored(clone: Clone) -> None:
    assert clone.run("preview")[0] == 0
    clone.control_plane.client().create(Namespace.from_dict({"metadata": {"name": "kept"}}))
    for pid in clone.control_plane.processes():
        os.kill(pid, signal.SIGKILL)
    code, output = clone.run("up")
    assert code == 0, output
    assert "2/2 ready" in output  # its nodes start pods as before
    assert clone.control_plane.client().get(Namespace, "kept")


def test_a_half_started_sandbox_is_started_afresh(clone: Clone) -> None:
    process = clone.start("preview")
    give_up = time.monotonic() + 60
    while not clone.control_plane.processes() and time.monotonic() < give_up:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    code, output = clone.run("up")
    assert code == 0, output
    assert "2/2 ready" in output


def test_after_ctrl_c_down_ends_what_still_runs(clone: Clone) -> None:
    process = clone.start("up")
    give_up = time.monotonic() + 60
    while not clone.control_plane.processes() and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output
    assert clone.run("down")[0] == 0
    assert clone.control_plane.processes() == set()


def test_a_foreign_process_with_a_remembered_id_is_left_alone(clone: Clone) -> None:
    assert clone.run("preview")[0] == 0
    assert clone.run("down")[0] == 0
    with subprocess.Popen(["sleep", "60"]) as foreign:
        pids = clone.folder / ".sandbox/kwok/clusters/mern/pids"
        (pids / "etcd.pid").write_text(str(foreign.pid))
        assert clone.run("down")[0] == 0
        assert clone.run("preview")[0] == 0
        assert foreign.poll() is None
        foreign.kill()


def test_without_go_and_without_programs_the_remedy_is_named(clone: Clone, tmp_path: Path) -> None:
    clone.env |= {
        "PATH": "/nowhere",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    code, output = clone.run("up")
    assert code == 1
    assert "Go is not installed" in output
    assert "kube-apiserver" in output
    assert clone.control_plane.processes() == set()


def test_an_occupied_port_is_named_with_the_remedy(clone: Clone) -> None:
    assert clone.run("preview")[0] == 0
    assert clone.run("down")[0] == 0
    server = re.search(r"127\.0\.0\.1:(\d+)", clone.control_plane.kubeconfig.read_text())
    assert server
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(server[1])))
        taken.listen()
        code, output = clone.run("up")
    assert code == 1
    assert f"port {server[1]}" in output
    assert "make clean" in output
    assert clone.control_plane.processes() == set()


def test_a_folder_that_cannot_be_written_is_named(clone: Clone) -> None:
    (clone.folder / ".sandbox").write_text("in the way")
    code, output = clone.run("up")
    assert code == 1
    assert f"error: {clone.folder / '.sandbox'}: " in output
    (clone.folder / ".sandbox").unlink()


def test_a_full_disk_is_an_error_and_leaves_nothing_running(clone: Clone) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, output = clone.run("up", before=no_room)
    assert code == 1, output
    assert "error: " in output
    assert clone.control_plane.processes() == set()


def test_a_second_command_in_the_same_clone_is_told_to_wait(clone: Clone) -> None:
    first = clone.start("up")
    give_up = time.monotonic() + 60
    while not (clone.folder / ".sandbox/bin").exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    code, output = clone.run("down")
    first.communicate()
    assert code == 1
    assert "another sandbox command is at work in this clone" in output
    assert first.returncode == 0
