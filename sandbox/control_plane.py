"""A Kubernetes control plane on this machine: etcd, API server, controllers and scheduler are the
real ones, started by kwokctl; kwok plays the nodes, whose pods become ready but run no code."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
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


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """One control plane, with all it keeps in `folder`."""

    folder: Path
    tools: Path
    """Folder of the programs."""

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def _home(self) -> Path:
        return self.folder / "kwok/clusters" / NAME

    @property
    def _whole(self) -> Path:
        """There when the control plane was once completely set up."""
        return self._home / "whole"

    def start(self) -> bool:
        """Have it running; False when it was set up afresh and is empty.

        Raises:
            SandboxError: it cannot be started.
        """
        if self._whole.exists():
            if len(self.processes()) == len(PROGRAMS) and self._answers():
                return True
            if self._restart():
                return True
            print("The sandbox's control plane is broken and is set up afresh")
        self.remove()
        self._create()
        return False

    def stop(self) -> None:
        """End its processes, and only those; what it stores is kept."""
        if running := self.processes():
            self._kwokctl("stop", "cluster", check=False)
            for how in (signal.SIGTERM, signal.SIGKILL):
                for pid in self.processes():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, how)
                _wait_for_end_of(running)
        for file in self._home.glob("pids/*"):
            file.unlink()

    def remove(self) -> None:
        """End its processes and delete what it stores."""
        self.stop()
        shutil.rmtree(self.folder / "kwok", ignore_errors=True)
        self.kubeconfig.unlink(missing_ok=True)

    def processes(self) -> set[int]:
        """Ids of its processes, told by the folder in their command line, not by a stale file."""
        mark = f"{self._home}/bin/"
        return {pid for pid, command in _all_processes() if command.startswith(mark)}

    def _restart(self) -> bool:
        self.stop()
        for port in self._ports():
            with socket.socket() as probe:
                # As the servers do; else the last connections of a stopped one would be in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    raise SandboxError(
                        f"port {port}, on which this sandbox listens, is taken by another program.\n"
                        "End that program, or run `make clean` for a new sandbox on other ports."
                    ) from None
        started = self._kwokctl("start", "cluster", check=False)
        return started.returncode == 0 and self._answers(30)

    def _ports(self) -> list[int]:
        """Those that its programs listen on."""
        text = (self._home / "kwok.yaml").read_text()
        return [int(port) for port in re.findall(r"^ *\w*[pP]ort: (\d+)$", text, re.M)]

    def _all_listen(self, seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        for port in self._ports():
            while True:
                if len(self.processes()) < len(PROGRAMS):
                    return False
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.1)
        return True

    def _create(self) -> None:
        binaries = []
        for component, program in PROGRAMS.items():
            # Absolute and resolved: kwokctl links it into its own folder.
            binaries += [f"--{component}-binary", str((self.tools / program).resolve())]
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # kwokctl takes ports that are free: of two at once, both would take the same.
            with locked(cache_folder() / "ports.lock", "another sandbox is being set up"):
                self._kwokctl(
                    *("create", "cluster", "--runtime", "binary", "--kubeconfig", str(self.kubeconfig)),
                    # A kwok that is started again would wait for the leases of the one before: 200 s.
                    *("--node-lease-duration-seconds", "0"),
                    # Each is the only one: an election would end it when the API server is gone for a while.
                    *("--extra-args", "kube-controller-manager=leader-elect=false"),
                    *("--extra-args", "kube-scheduler=leader-elect=false"),
                    *binaries,
                )
                self.kubeconfig.chmod(0o600)
                if not self._answers(60):
                    raise SandboxError(f"the API server does not answer{self._log()}")
                self._kwokctl("scale", "node", "--replicas", "2")
                if not self._all_listen(20):
                    raise SandboxError(f"a part of the control plane has ended at once{self._log()}")
        except SandboxError:
            self.stop()
            raise
        self._whole.touch()

    def _kwokctl(self, *args: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "KWOK_WORKDIR": str(self.folder / "kwok")}
        env.pop("KUBECONFIG", None)
        done = subprocess.run(
            [str(self.tools / "kwokctl"), "--name", NAME, "--v", "ERROR", *args],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise SandboxError(f"kwokctl {args[0]} {args[1]} failed: {said}{self._log()}")
        return done

    def _answers(self, seconds: float = 2) -> bool:
        from lightkube.resources.core_v1 import Namespace

        give_up = time.monotonic() + seconds
        while True:
            try:
                self.client().get(Namespace, "default")
            except Exception:  # whatever keeps it away
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.2)
            else:
                return True

    def client(self) -> Any:
        """A client with all rights in it."""
        from lightkube import Client, KubeConfig

        return Client(config=KubeConfig.from_file(str(self.kubeconfig)).get())

    def _log(self) -> str:
        """The last errors that one of its programs has logged."""
        for component in PROGRAMS if self._home.exists() else ():
            log = self._home / f"logs/{component}.log"
            lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            if any("fatal" in line or line.startswith(("E", "F")) for line in lines):
                return f"\n{log}:\n" + "\n".join(lines)
        return ""


def _all_processes() -> list[tuple[int, str]]:
    if sys.platform == "linux":  # `ps` is not on every Linux
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                except OSError:  # it has just ended
                    continue
                found.append((int(entry.name), command.decode(errors="replace")))
        return found
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    )
    rows = (line.strip().partition(" ") for line in listed.stdout.splitlines())
    return [(int(pid), command.strip()) for pid, _, command in rows]


def _wait_for_end_of(pids: set[int], seconds: float = 5) -> None:
    """Until their sockets are free again too: a process that ends loses its command line first."""
    give_up = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < give_up:
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process still does anything: one that was killed can wait long to be collected."""
    try:
        os.kill(pid, 0)
        if sys.platform == "linux":
            # A zombie: its threads may still hold its sockets; later nobody may ever collect it.
            zombie = ") Z" in Path(f"/proc/{pid}/stat").read_text()
            return not zombie or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
        return True
    except OSError:
        return False
