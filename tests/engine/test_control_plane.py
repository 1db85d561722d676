"""The sandbox's control plane where it is not as usual: odd folders, proxies, ports taken, ends by force."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from lightkube.resources.core_v1 import Namespace, Node

from sandbox.control_plane import NAME, PROGRAMS, ControlPlane, stop_all
from sandbox.engine import PROJECT
from sandbox.tools import SandboxError

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
Make = Callable[..., ControlPlane]


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """A word in the environment of all that the test starts, wherever it runs."""
    mark = uuid4().hex
    monkeypatch.setenv("STARTED_BY_TEST", mark)
    return mark


@pytest.fixture
def make(tools: Path, mark: str) -> Iterator[Make]:
    """What makes a control plane in a folder; nothing of it is left after the test."""
    made: list[ControlPlane] = []

    def make(folder: Path, programs: Path = tools) -> ControlPlane:
        made.append(ControlPlane(folder=folder, tools=programs))
        return made[-1]

    yield make
    for pid in started(mark):
        os.kill(pid, signal.SIGKILL)
    for control_plane in made:
        control_plane.remove()


def started(mark: str) -> dict[int, str]:
    """Command lines by the ids of all processes with the mark, but this one."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"STARTED_BY_TEST={mark}".encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes() + (entry / "status").read_bytes()[:80]
                found[int(entry.name)] = command.decode(errors="replace")
    return {pid: command for pid, command in found.items() if pid != os.getpid()}


def keep_something(control_plane: ControlPlane) -> None:
    with control_plane.client() as client:
        client.create(Namespace.from_dict({"metadata": {"name": "kept"}}))


def has_kept(control_plane: ControlPlane) -> bool:
    with control_plane.client() as client:
        return bool(client.get(Namespace, "kept"))


def wait_for_ready_nodes(control_plane: ControlPlane) -> None:
    """Until kwok has done what its configuration says."""
    give_up = time.monotonic() + 20
    with control_plane.client() as client:
        while True:
            states = [it.status.conditions or [] for it in client.list(Node)]
            ready = [any(it.type == "Ready" and it.status == "True" for it in state) for state in states]
            if ready == [True, True]:
                return
            assert time.monotonic() < give_up
            time.sleep(0.1)


def port_of(control_plane: ControlPlane) -> int:
    config: Any = yaml.safe_load(control_plane.kubeconfig.read_text())
    return int(config["clusters"][0]["cluster"]["server"].rpartition(":")[2])


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield


# -- folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a clone of mine", id="spaces"),
        pytest.param('it\'s "50%", über\u00a0#1 = [ok] & $HOME', id="odd characters"),
        pytest.param("/".join(["of two hundred letters ".ljust(200, "x")] * 10), id="very long"),
    ],
)
def test_a_clone_may_lie_in_any_folder(make: Make, tmp_path: Path, mark: str, name: str) -> None:
    folder = tmp_path / name / ".sandbox"
    control_plane = make(folder)
    assert control_plane.start() is False
    assert control_plane.processes() == set(started(mark))
    assert len(started(mark)) == len(PROGRAMS)
    keep_something(control_plane)
    wait_for_ready_nodes(control_plane)

    assert control_plane.stop() == len(PROGRAMS)
    assert started(mark) == {}
    assert control_plane.start() is True
    assert has_kept(control_plane)

    control_plane.remove()
    assert started(mark) == {}
    assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


def test_a_link_to_a_clone_leads_to_the_same_control_plane(make: Make, tmp_path: Path, mark: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real, link = make(tmp_path / "real/.sandbox"), make(tmp_path / "link/.sandbox")
    assert link.start() is False
    assert real.processes() == link.processes() == set(started(mark))
    assert real.start() is True
    assert real.stop() == len(PROGRAMS)
    assert started(mark) == {}


def test_a_moved_clone_goes_on_with_what_it_stored(make: Make, tmp_path: Path, mark: str) -> None:
    (tmp_path / "before").mkdir()
    control_plane = make(tmp_path / "before/.sandbox")
    control_plane.start()
    keep_something(control_plane)
    (tmp_path / "before").rename(tmp_path / "after")
    assert control_plane.processes() == set()

    moved = make(tmp_path / "after/.sandbox")
    assert moved.processes() == set(started(mark))
    assert moved.start() is True
    assert has_kept(moved)
    assert len(started(mark)) == len(PROGRAMS)
    assert not (tmp_path / "before").exists()


def test_where_there_is_no_proc_the_processes_are_told_by_ps(
    make: Make, tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_plane = make(tmp_path / "a clone/.sandbox")
    control_plane.start()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert control_plane.processes() == set(started(mark))
    assert stop_all(tmp_path / "a clone/.sandbox") == len(PROGRAMS)
    assert started(mark) == {}


# -- network ----------------------------------------------------------------------------------------


def test_a_proxy_is_not_asked_for_this_machine(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.delenv("no_proxy", raising=False)
    control_plane = make(tmp_path / ".sandbox")
    assert control_plane.start() is False
    running = control_plane.processes()
    for pid in running:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"NO_PROXY=example.com,127.0.0.1,localhost,::1" in environment
    keep_something(control_plane)
    assert control_plane.start() is True
    assert control_plane.processes() == running
    control_plane.stop()
    assert control_plane.start() is True
    assert has_kept(control_plane)


def test_it_starts_on_a_machine_without_network(tools: Path, tmp_path: Path, mark: str) -> None:
    offline = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*offline, "true"], check=False).returncode:
        pytest.skip("this machine cannot be imitated without network")
    code = (
        "import sys; from pathlib import Path; from sandbox.control_plane import ControlPlane\n"
        "it = ControlPlane(folder=Path(sys.argv[1]), tools=Path(sys.argv[2])); it.start(); it.remove()"
    )
    subprocess.run([*offline, sys.executable, "-c", code, tmp_path, tools], cwd=PROJECT, check=True)
    assert started(mark) == {}


def test_it_needs_no_program_of_the_user(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # there is no kubectl, which kwokctl would download
    monkeypatch.setenv("KWOK_WORKDIR", str(tmp_path / "elsewhere"))
    control_plane = make(tmp_path / ".sandbox")
    begun = time.monotonic()
    assert control_plane.start() is False
    assert time.monotonic() - begun < 60
    wait_for_ready_nodes(control_plane)
    assert not (tmp_path / "elsewhere").exists()


def test_only_this_machine_can_reach_it(make: Make, tmp_path: Path) -> None:
    control_plane = make(tmp_path / ".sandbox")
    control_plane.start()
    for pid in control_plane.processes():
        assert b"0.0.0.0" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_with_its_ports_taken_it_moves_to_others(make: Make, tmp_path: Path) -> None:
    control_plane = make(tmp_path / ".sandbox")
    control_plane.start()
    keep_something(control_plane)
    port = port_of(control_plane)
    control_plane.stop()
    with listening(port):
        assert control_plane.start() is True
        assert port_of(control_plane) != port
        assert has_kept(control_plane)


def test_two_that_start_at_once_take_different_ports(make: Make, tmp_path: Path) -> None:
    both = [make(tmp_path / name / ".sandbox") for name in ("one", "other")]
    for _ in range(2):  # afresh, and again
        threads = [threading.Thread(target=control_plane.start) for control_plane in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert port_of(both[0]) != port_of(both[1])
        for control_plane in both:
            assert control_plane.stop() == len(PROGRAMS)


# -- what does not start ----------------------------------------------------------------------------


@pytest.mark.parametrize("knows_its_version", [True, False])
def test_one_that_does_not_start_again_keeps_what_it_stores(
    make: Make, tools: Path, tmp_path: Path, mark: str, knows_its_version: bool
) -> None:
    folder = tmp_path / ".sandbox"
    control_plane = make(folder)
    control_plane.start()
    keep_something(control_plane)
    control_plane.stop()

    programs = tmp_path / "programs"
    shutil.copytree(tools, programs, symlinks=True)
    (programs / "etcd").unlink()
    version = (
        f'[ "$1" = --version ] && exec "{tools.resolve()}/etcd" --version\n' if knows_its_version else ""
    )
    (programs / "etcd").write_text(f"#!/bin/sh\n{version}echo 'fatal: no room on the moon' >&2\nexit 1\n")
    (programs / "etcd").chmod(0o755)
    with pytest.raises(SandboxError) as error:
        make(folder, programs).start()
    assert "no room on the moon" in str(error.value)
    assert "What it stores is kept; `make clean` deletes it" in str(error.value)
    assert started(mark) == {}

    assert control_plane.start() is True
    assert has_kept(control_plane)


def test_one_that_does_not_answer_is_started_again(make: Make, tmp_path: Path) -> None:
    control_plane = make(tmp_path / ".sandbox")
    control_plane.start()
    keep_something(control_plane)
    before = control_plane.processes()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    assert control_plane.start() is True
    assert has_kept(control_plane)
    assert not before & control_plane.processes()


# -- ends by force ----------------------------------------------------------------------------------


def start_elsewhere(folder: Path, tools: Path) -> "subprocess.Popen[bytes]":
    """A process that starts a control plane and then waits; returned as soon as it has started a program."""
    code = (
        "import signal, sys, time; from pathlib import Path; from sandbox.control_plane import ControlPlane\n"
        # As a shell starts it, and not as one starts pytest in the background, or by nohup.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "ControlPlane(folder=Path(sys.argv[1]), tools=Path(sys.argv[2])).start(); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(tools)], cwd=PROJECT)
    control_plane = ControlPlane(folder=folder, tools=tools)
    while len(control_plane.processes()) < 2 and process.poll() is None:  # kwokctl, and what it starts
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)]
)
def test_ended_while_it_starts_it_leaves_nothing_running(
    make: Make, tools: Path, tmp_path: Path, mark: str, number: int, code: int
) -> None:
    make(tmp_path)
    with start_elsewhere(tmp_path, tools) as process:
        process.send_signal(number)
    assert process.returncode == code
    assert started(mark) == {}


def test_what_a_killed_run_leaves_can_be_ended(make: Make, tools: Path, tmp_path: Path, mark: str) -> None:
    sandbox = tmp_path / "clone/.sandbox"
    make(sandbox / "testgw0")
    with start_elsewhere(sandbox / "testgw0", tools) as process:
        process.kill()
    ended = stop_all(sandbox)
    assert ended >= 1
    time.sleep(1)  # nothing goes on that would start more
    assert started(mark) == {}
    assert stop_all(sandbox) == 0


def test_all_of_a_clone_are_ended_and_none_of_another(tmp_path: Path) -> None:
    clone = tmp_path / "mern"
    own = [clone / ".sandbox", clone / ".sandbox/test", clone / ".sandbox/testgw0"]
    foreign = [
        tmp_path / "mern2/.sandbox",
        clone / "nested/.sandbox",
        clone / ".sandbox/projects/nested/.sandbox",
        clone / ".sandbox2",
        tmp_path / "x" / str(clone).lstrip("/") / ".sandbox",
    ]
    etcd = {folder: run_as_etcd(folder) for folder in own + foreign}
    other_program = subprocess.Popen(["sleep", "600"], cwd=clone / ".sandbox/kwok")
    shutil.rmtree(clone / ".sandbox/test")  # as `make clean` once did
    try:
        assert ControlPlane(folder=own[0], tools=tmp_path).processes() == {etcd[own[0]].pid}
        assert stop_all(clone / ".sandbox") == len(own)
        assert [etcd[folder].wait() for folder in own] == [-signal.SIGKILL] * len(own)
        assert [etcd[folder].poll() for folder in foreign] == [None] * len(foreign)
        assert other_program.poll() is None
    finally:
        for process in (*etcd.values(), other_program):
            process.kill()
            process.wait()


def run_as_etcd(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that runs from where a control plane in `folder` has its etcd."""
    home = folder / "kwok/.kwok/clusters" / NAME
    (home / "bin").mkdir(parents=True)
    (home / "bin/etcd").symlink_to(shutil.which("sleep") or "/bin/sleep")
    return subprocess.Popen([home / "bin/etcd", "600"], cwd=home)
