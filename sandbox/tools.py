"""The programs the sandbox runs on: found on PATH in a fitting version, or built from Go modules.

Each folder under `sandbox/tools/` is a Go module that pins one group of programs; go.sum holds the
checksums. What is built goes to the user's cache, in a folder named by a digest of those pins, so
that a second clone builds nothing.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "tools"


class SandboxError(Exception):
    """Something the user can mend; its text says what and how."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Programs that are built together."""

    name: str
    """Its folder under sandbox/tools."""
    packages: dict[str, str]
    """Program to Go package."""
    version: str
    """What `version_args` must print for a program on PATH to fit."""
    version_args: tuple[str, ...]
    minutes: float
    """To build it on two cores, measured."""
    ldflags: str = ""


GROUPS = (
    Group(
        name="etcd",
        packages={"etcd": "go.etcd.io/etcd/server/v3"},
        version=r"etcd Version: 3\.6\.",
        version_args=("--version",),
        minutes=0.5,
    ),
    Group(
        name="kubernetes",
        packages={
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        },
        version=r"Kubernetes v1\.36\.",
        version_args=("--version",),
        minutes=3,
        ldflags=" ".join(
            f"-X k8s.io/component-base/version.{key}={value}"
            for key, value in (("gitVersion", "v1.36.3"), ("gitMajor", "1"), ("gitMinor", "36"))
        ),
    ),
    Group(
        name="kwok",
        packages={name: f"sigs.k8s.io/kwok/cmd/{name}" for name in ("kwok", "kwokctl")},
        version=r"version v0\.7\.",
        version_args=("--version",),
        minutes=1.2,
    ),
    Group(
        name="helm",
        packages={"helm": "helm.sh/helm/v3/cmd/helm"},
        version=r"v3\.20\.",
        version_args=("version", "--short"),
        minutes=1.2,
        ldflags="-X helm.sh/helm/v3/internal/version.version=v3.20.2",
    ),
    Group(
        name="pulumi",
        packages={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
        version=r"^v?3\.(259|2[6-9]\d|[3-9]\d\d)\.",
        version_args=("version",),
        minutes=2.5,
        ldflags="-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=3.259.0",
    ),
)

# What the tests check the chart and the workflows with; the sandbox itself runs without.
CHECKS = (
    Group(
        name="checks",
        packages={
            "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
            "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
            "kube-score": "github.com/zegl/kube-score/cmd/kube-score",
        },
        version="pinned here only",
        version_args=("--version",),
        minutes=0.7,
    ),
)


def cache_folder() -> Path:
    """Where built programs are kept for all clones."""
    if sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mern-sandbox"


def prepare(folder: Path, groups: tuple[Group, ...] = GROUPS) -> None:
    """Fill `folder` with links to the programs of `groups`, building what is missing.

    Raises:
        SandboxError: a program is missing and cannot be built.
    """
    missing = []
    found: dict[str, Path] = {}
    for group in groups:
        programs = _cached(group) or _on_path(group)
        found |= programs
        if not programs:
            missing.append(group)
    if missing:
        minutes = sum(group.minutes for group in missing)
        names = ", ".join(name for group in missing for name in group.packages)
        print(f"Building {names}: about {minutes:.0f} min on two cores, once for all clones")
        go = _go(names)
        for number, group in enumerate(missing, 1):
            found |= _build(go, group, f"{number} of {len(missing)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in found.items():
        link = folder / name
        if not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _home(group: Group) -> Path:
    digest = hashlib.sha256(f"{group.ldflags}{platform.system()}{platform.machine()}".encode())
    for file in ("go.mod", "go.sum"):
        digest.update((MODULES / group.name / file).read_bytes())
    return cache_folder() / f"{group.name}-{digest.hexdigest()[:12]}"


def _cached(group: Group) -> dict[str, Path]:
    programs = {name: _home(group) / name for name in group.packages}
    return programs if all(path.exists() for path in programs.values()) else {}


def _on_path(group: Group) -> dict[str, Path]:
    programs = {}
    for name in group.packages:
        path = shutil.which(name)
        if path is None or not _fits(path, group):
            return {}
        programs[name] = Path(path)
    return programs


def _fits(path: str, group: Group) -> bool:
    try:
        done = subprocess.run(
            [path, *group.version_args], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(group.version, done.stdout) is not None


def _go(names: str) -> str:
    go = shutil.which("go")
    if go is None:
        raise SandboxError(
            f"Go is not installed, and these programs are missing: {names}.\n"
            "Install Go 1.26 or newer (https://go.dev/dl), or put the programs on PATH, "
            "and run the same command again."
        )
    return go


def _build(go: str, group: Group, count: str) -> dict[str, Path]:
    home = _home(group)
    with locked(cache_folder() / f"{group.name}.lock", "another clone builds the same programs"):
        if programs := _cached(group):
            return programs
        # Built aside and renamed when whole: an interrupted build leaves nothing half-done.
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as aside:
            label = f"  {count}  {', '.join(group.packages)} (about {group.minutes:g} min)"
            _compile(go, group, Path(aside), label)
            shutil.rmtree(home, ignore_errors=True)
            Path(aside).rename(home)
            Path(aside).mkdir()
    return _cached(group)


def _compile(go: str, group: Group, aside: Path, label: str) -> None:
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    env |= {"GOOS": "", "GOARCH": ""}
    started = time.monotonic()
    # One program gets its name by -o, for Go would call etcd `server`; several get their packages'.
    alone = next(iter(group.packages)) if len(group.packages) == 1 else ""
    command = [go, "build", "-trimpath", "-ldflags", f"-s -w {group.ldflags}", "-o", f"{aside}/{alone}"]
    process = subprocess.Popen(
        [*command, *group.packages.values()],
        cwd=MODULES / group.name,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = _watch(process, label, started)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        tail = "\n".join(output.strip().splitlines()[-15:])
        raise SandboxError(f"Building {', '.join(group.packages)} from Go modules failed:\n{tail}")
    print(f"{label}: {time.monotonic() - started:.0f} s", flush=True)


def _watch(process: "subprocess.Popen[str]", label: str, started: float) -> str:
    """What `process` prints; meanwhile, say every few seconds that it goes on."""
    live = sys.stdout.isatty()
    while True:
        try:
            output, _ = process.communicate(timeout=1 if live else 30)
        except subprocess.TimeoutExpired:
            text = f"{label}: {time.monotonic() - started:.0f} s …"
            print(text, end="\r" if live else "\n", flush=True)
        else:
            return output


@contextmanager
def locked(path: Path, why: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; it is free again when the process ends, however it ends.

    Raises:
        SandboxError: another process holds it, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise SandboxError(f"{why}: wait until it has ended.") from None
            print(f"Waiting: {why}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
