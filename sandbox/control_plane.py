"""A Kubernetes control plane on this machine: etcd, API server, controllers and scheduler are the
real ones, started by kwokctl; kwok plays the nodes, whose pods become ready but run no code."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.tools import SandboxError, cache_folder, locked

NAME = "mern"
PROGRAMS = {
    "etcd": "etcd",
    "kube-apiserver": "kube-apiserver",
    "kube-controller-manager": "kube-controller-manager",
    "kube-scheduler": "kube-scheduler",
    "kwok-controller": "kwok",
}

PORTS = (
    "kubeApiserverPort",
    "etcdPort",
    "etcdPeerPort",
    "kubeControllerManagerPort",
    "kubeSchedulerPort",
    "kwokControllerPort",
)
# Arguments beyond those that kwokctl gives.
ARGUMENTS = [
    # Else it looks for an address of this machine, and ends where there is no network.
    {"name": "kube-apiserver", "extraArgs": [{"key": "advertise-address", "value": "192.0.2.1"}]},
    # Each is the only one: an election would end it when the API server is gone for a while.
    {"name": "kube-controller-manager", "extraArgs": [{"key": "leader-elect", "value": "false"}]},
    {"name": "kube-scheduler", "extraArgs": [{"key": "leader-elect", "value": "false"}]},
    # In the absolute path, kwok would take a comma or a quote for CSV.
    {"name": "kwok-controller", "extraArgs": [{"key": "config", "value": "kwok.yaml", "override": True}]},
]
CONFIGURATION = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokctlConfiguration",
    "componentsPatches": ARGUMENTS,
}


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """One control plane, with all it keeps in `folder`.

    What etcd stores and the certificates are kept from one start to the next. All else (configuration,
    ports) is written anew for each, so that it fits when the clone was moved, the programs are newer
    or the ports are taken.
    """

    folder: Path
    tools: Path
    """Folder of the programs."""

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def _kwok(self) -> Path:
        return self.folder.resolve() / "kwok"

    @property
    def _home(self) -> Path:
        """Folder of kwokctl, below what it takes for the user's home."""
        return self._kwok / ".kwok/clusters" / NAME

    @property
    def _data(self) -> Path:
        """Folder of what is kept, where it has always been."""
        return self._kwok / "clusters" / NAME

    @property
    def _whole(self) -> Path:
        """Mark of a control plane that was once completely set up."""
        return self._data / "whole"

    def start(self) -> bool:
        """Have it running; False when it was set up afresh and is empty.

        Raises:
            SandboxError: it does not start. What it stores is kept.
        """
        kept = self._whole.exists()
        if kept and len(self.processes()) == len(PROGRAMS) and not self._problem():
            return True
        if kept:
            self.stop()
        else:
            self.remove()
        try:
            with _ended_by_exception():
                self._run()
                self._keep_certificates()
                if not kept:
                    self._kwokctl("scale", "node", "--replicas", "2")
                    self._whole.touch()
        except SandboxError as error:
            self.stop()
            remedy = "\nWhat it stores is kept; `make clean` deletes it, and `make up` then starts over."
            raise SandboxError(f"the control plane does not start: {error}{remedy * kept}") from None
        except BaseException:
            self.stop()
            raise
        return kept

    def stop(self) -> int:
        """End its processes, and only those; what it stores is kept. Return how many they were."""
        return _end(self.processes)

    def remove(self) -> None:
        """End its processes and delete what it stores."""
        self.stop()
        if self._kwok.exists():
            self._whole.unlink(missing_ok=True)  # first: what is half deleted is not whole
            shutil.rmtree(self._kwok)
        self.kubeconfig.unlink(missing_ok=True)

    def processes(self) -> set[int]:
        """Return the ids of its processes."""
        return set(_programs_in(re.escape(str(self._kwok))))

    def _run(self) -> None:
        """Write the configuration around what etcd stores, and start all programs."""
        known = self.kubeconfig.read_text() if self.kubeconfig.exists() else ""
        self.kubeconfig.unlink(missing_ok=True)
        # Of two at once, both could take the same free ports.
        with locked(cache_folder() / "ports.lock", "another sandbox is being started"):
            self._lay_out(_ports(known))
            self._kwokctl(
                *("create", "cluster", "--runtime", "binary", "--kubeconfig", str(self.kubeconfig)),
                # A kwok that is started again would wait for the leases of the one before: 200 s.
                *("--node-lease-duration-seconds", "0"),
            )
            begun = time.monotonic()
            while (problem := self._problem()) or len(self.processes()) < len(PROGRAMS):
                seconds = time.monotonic() - begun
                # Not at once: a script that starts the program would be taken for something else.
                if seconds > 1 and len(self.processes()) < len(PROGRAMS):
                    raise SandboxError(f"a part of it has ended at once{self._log()}")
                if seconds > 60:
                    raise SandboxError(f"{problem}{self._log()}")
                time.sleep(0.1)

    def _lay_out(self, ports: Mapping[str, int]) -> None:
        """Write kwokctl's folder anew, with what it would otherwise look for elsewhere."""
        shutil.rmtree(self._kwok / ".kwok", ignore_errors=True)
        programs = self._home / "bin"
        programs.mkdir(parents=True)
        for component, program in (PROGRAMS | {"kwokctl": "kwokctl"}).items():
            (programs / component).symlink_to((self.tools / program).resolve())
        # kwokctl waits for the API server by kubectl, and downloads it where there is none.
        (programs / "kubectl").symlink_to(shutil.which("true") or "/usr/bin/true")
        # A link, because kwokctl deletes its folder when it fails.
        (self._data / "etcd").mkdir(parents=True, exist_ok=True)
        (self._home / "etcd").symlink_to(self._data / "etcd")
        if (self._data / "pki").exists():  # else whoever knows its certificates would not any more
            shutil.copytree(self._data / "pki", self._home / "pki")
        options = {"bindAddress": "127.0.0.1", **ports}  # etcd asks nobody for a password
        (self._kwok / ".kwok/kwok.yaml").write_text(json.dumps(CONFIGURATION | {"options": options}))

    def _keep_certificates(self) -> None:
        kept = self._data / "pki"
        if not kept.exists():
            draft = kept.with_name("pki.new")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(self._home / "pki", draft)
            draft.rename(kept)  # one that is there is whole

    def _kwokctl(self, *args: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("KWOK_")}
        # Not by KWOK_WORKDIR, which kwokctl reads up to the first space.
        env |= {"HOME": str(self._kwok), "PATH": str(self._home / "bin")}
        env |= without_proxy()
        done = subprocess.run(
            [str(self._home / "bin/kwokctl"), "--name", NAME, "--v", "ERROR", *args],
            cwd=self._home,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            output = (done.stderr or done.stdout).strip()[-2000:]
            raise SandboxError(f"kwokctl {args[0]} {args[1]} failed: {output}{self._log()}")

    def _problem(self) -> str:
        """Return the reason why it cannot be used (yet); empty where it can."""
        from lightkube.resources.core_v1 import Namespace

        try:
            with self.client() as client:
                client.get(Namespace, "default")
            for port in re.findall(r"^ *\w*[pP]ort: (\d+)$", (self._home / "kwok.yaml").read_text(), re.M):
                with socket.create_connection(("127.0.0.1", int(port)), 1):
                    pass
        except Exception as error:  # whatever keeps it away
            return f"it does not answer ({type(error).__name__}: {error})"
        return ""

    def client(self) -> Any:
        """Return a client with all rights in it."""
        from lightkube import Client, KubeConfig

        # Without the environment: a proxy does not lead to this machine.
        return Client(config=KubeConfig.from_file(str(self.kubeconfig)).get(), trust_env=False)

    def _log(self) -> str:
        """Return the last lines that one of its programs has logged, one that has ended if there is such."""
        running = _programs_in(re.escape(str(self._kwok))).values()
        for component in sorted(PROGRAMS, key=lambda it: it in running):
            log = self._home / f"logs/{component}.log"
            text = log.read_text(errors="replace") if log.exists() else ""
            if lines := text.partition("\ngoroutine ")[0].strip().splitlines()[-5:]:
                return "\n".join([f"\n{log}:", *(line[:300] for line in lines)])
        return ""


def without_proxy() -> dict[str, str]:
    """Return the variables by which programs ask no proxy for this machine."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    return dict.fromkeys(("NO_PROXY", "no_proxy"), f"{known},127.0.0.1,localhost,::1".lstrip(","))


def _ports(kubeconfig: str) -> dict[str, int]:
    """Return a free port for each option of kwokctl; the API server's is that of `kubeconfig` where nobody
    has taken it, so that whoever knows its address finds it there again."""
    # Below those that systems give to outgoing connections, which come and go.
    candidates = iter(random.sample(range(20000, 32768), 2000))
    known = re.search(r"server: https://127\.0\.0\.1:(\d+)", kubeconfig)
    ports = {PORTS[0]: int(known[1])} if known and _is_free(int(known[1])) else {}
    for option in PORTS:
        if option not in ports:
            ports[option] = next(port for port in candidates if port not in ports.values() and _is_free(port))
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do; else the last connections of a stopped one would be in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stop_all(sandbox_folder: Path) -> int:
    """End the processes of all control planes in `sandbox_folder`, whoever has started them; return how
    many they were. Those of another clone's sandbox stay, even where that clone lies within."""
    # The folders of tests have no dot in their names; `.sandbox` has.
    pattern = rf"{re.escape(str(sandbox_folder.resolve()))}(?:/[\w-]+)*/kwok"
    return _end(lambda: set(_programs_in(pattern)))


def _programs_in(folders: str) -> dict[int, str]:
    """Return ids and names of the programs that run from kwokctl's folder within `folders`, a pattern.

    They are told by their command line, not by files with ids, which may be stale.
    """
    own = re.compile(rf"{folders}/(?:\.kwok/)?clusters/{NAME}/bin/([\w-]+)")
    found = ((pid, own.match(command)) for pid, command in _all_processes())
    return {pid: match[1] for pid, match in found if match}


def _end(find: Callable[[], set[int]]) -> int:
    """End what `find` returns until it returns nothing, for a kwokctl may just start another program;
    return how many they were."""

    def left() -> set[int]:
        if running := find():
            return running
        time.sleep(0.05)  # what has just been started has no command line for a moment
        return find()

    ended: set[int] = set()
    give_up = time.monotonic() + 20
    while running := left():
        if time.monotonic() > give_up:
            raise SandboxError(f"processes that cannot be ended: {' '.join(map(str, sorted(running)))}")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # as kwokctl does; etcd has all writes on the disk
        _wait_for_end_of(running)
        ended |= running
    return len(ended)


def _all_processes() -> Iterator[tuple[int, str]]:
    """Return ids and command lines of all processes; where it can be told, without the arguments."""
    if sys.platform == "linux":  # `ps` is not on every Linux
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    program = Path(os.fsdecode((entry / "cmdline").read_bytes().partition(b"\0")[0]))
                    if program.match(f"clusters/{NAME}/bin/*"):
                        # The folder by its present name: the clone may have been moved, or deleted.
                        folder = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
                        program = Path(folder, "bin", program.name)
                    yield int(entry.name), str(program)
        return
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, check=True)
    for line in os.fsdecode(listed.stdout).splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.strip()


def _wait_for_end_of(pids: set[int], seconds: float = 5) -> None:
    """Wait until processes have ended and their sockets are free.

    A process that ends loses its command line before its sockets.
    """
    give_up = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < give_up:
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether the process still does anything: one that was killed can wait long to be collected."""
    try:
        os.kill(pid, 0)
        if sys.platform == "linux":
            # A zombie: its threads may still hold its sockets; later nobody may ever collect it.
            zombie = ") Z" in Path(f"/proc/{pid}/stat").read_text()
            return not zombie or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Let what ends a process end this one by an exception, so that it can end what it has started."""
    here = threading.current_thread() is threading.main_thread()  # others cannot have handlers
    signals = [it for it in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(it) == signal.SIG_DFL]
    for it in signals if here else ():
        signal.signal(it, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for it in signals if here else ():
            signal.signal(it, signal.SIG_DFL)
