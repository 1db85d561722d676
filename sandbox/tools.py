"""The programs the sandbox runs on: found on PATH in a fitting version, or built from Go modules.

Each folder under `sandbox/tools/` is a Go module that pins one group of programs; go.sum holds the
checksums. What is built goes to the user's cache, in a folder named by a digest of those pins, so
that a second clone builds nothing.
"""

import fcntl
import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MODULES = Path(__file__).parent / "tools"


class SandboxError(Exception):
    """A fault that the user can mend; its text says how."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of programs that are built together, of the version that go.mod pins."""

    name: str
    pins: str
    """The folder under sandbox/tools with its go.mod. Groups that share one share what they have in common,
    compiled once."""
    module: str
    """The Go module whose version is theirs."""
    packages: dict[str, str]
    """Program to Go package."""
    minutes: float
    """To build it on two cores, measured."""
    version_args: tuple[str, ...] = ("--version",)
    newer_fits: bool = False
    """Whether a program on PATH may be of a newer minor version."""
    ldflags: str = ""
    """With `{version}`, `{major}` and `{minor}`."""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """File to the Go module that has it and its path there: laid beside the programs as it is."""

    @property
    def version(self) -> str:
        """The pinned version, as in `1.37.2`."""
        go_mod = (MODULES / self.pins / "go.mod").read_text()
        pinned = re.search(rf"^\s*(?:require )?{re.escape(self.module)} v(\S+)", go_mod, re.MULTILINE)
        assert pinned, self.name  # noqa: S101
        return pinned[1]


ETCD = Group(
    name="etcd",
    pins="control-plane",
    module="go.etcd.io/etcd/server/v3",
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    minutes=0.5,
)
KUBERNETES = Group(
    name="kubernetes",
    pins="control-plane",
    module="k8s.io/kubernetes",
    packages={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    },
    minutes=3.6,
    ldflags="-X k8s.io/component-base/version.gitVersion=v{version}"
    " -X k8s.io/component-base/version.gitMajor={major}"
    " -X k8s.io/component-base/version.gitMinor={minor}",
)
KWOK = Group(
    name="kwok",
    pins="control-plane",
    module="sigs.k8s.io/kwok",
    packages={name: f"sigs.k8s.io/kwok/cmd/{name}" for name in ("kwok", "kwokctl")},
    minutes=0.3,
)
PULUMI = Group(
    name="pulumi",
    pins="pulumi",
    module="github.com/pulumi/pulumi/pkg/v3",
    packages={
        "pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        "pulumi-language-python": "./pulumi-language-python",
    },
    minutes=2.4,
    version_args=("version",),
    newer_fits=True,
    ldflags="-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}",
    files={
        "pulumi-language-python-exec": (
            "github.com/pulumi/pulumi/sdk/v3",
            "python/cmd/pulumi-language-python-exec",
        )
    },
)
KUBERNETES_PROVIDER = Group(
    name="kubernetes-provider",
    pins="kubernetes-provider",
    module="github.com/pulumi/pulumi-kubernetes/provider/v4",
    packages={"pulumi-resource-kubernetes": "."},
    minutes=5,
)

# For tests alone: a client to compare with, and what the chart and the workflows are checked with.
HELM = Group(
    name="helm",
    pins="helm",
    module="helm.sh/helm/v3",
    packages={"helm": "helm.sh/helm/v3/cmd/helm"},
    minutes=1.2,
    version_args=("version", "--short"),
    ldflags="-X helm.sh/helm/v3/internal/version.version=v{version}",
)
CHECKS = Group(
    name="checks",
    pins="checks",
    module="github.com/rhysd/actionlint",
    packages={
        "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
        "helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs",
        "kube-score": "github.com/zegl/kube-score/cmd/kube-score",
    },
    minutes=0.7,
)


def cache_folder() -> Path:
    """Return the folder where built programs are kept for all clones."""
    if sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mern-sandbox"


def prepare(folder: Path, groups: Sequence[Group]) -> None:
    """Fill `folder` with links to the programs of `groups`, building what is missing.

    Raises:
        SandboxError: a program is missing and cannot be built.
    """
    programs: dict[str, Path] = {}
    missing = []
    for group in groups:
        known = _on_path(group, folder) or _built(group)
        programs |= known
        if not known:
            missing.append(group)
    programs |= _build_all(missing)
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in programs.items():
        link(folder / name, target)


def link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`."""
    if not (path.is_symlink() and path.readlink() == target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def build(group: Group) -> Path:
    """Return the folder with the programs of `group`, built where it is not there yet.

    Raises:
        SandboxError: they cannot be built.
    """
    if not _built(group):
        _build_all([group])
    return _home(group)


def _build_all(missing: Sequence[Group]) -> dict[str, Path]:
    programs: dict[str, Path] = {}
    if missing:
        minutes = math.ceil(sum(group.minutes for group in missing))
        names = ", ".join(name for group in missing for name in group.packages)
        print(f"Building {names}: about {minutes} min on two cores, once for all clones", flush=True)
        go = _go(names)
        for number, group in enumerate(missing, 1):
            programs |= _build(go, group, f"{number} of {len(missing)}")
    return programs


def _home(group: Group) -> Path:
    digest = hashlib.sha256(f"{group.ldflags}{platform.system()}{platform.machine()}".encode())
    for file in sorted((MODULES / group.pins).rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    return cache_folder() / f"{group.name}-{digest.hexdigest()[:12]}"


def _built(group: Group) -> dict[str, Path]:
    programs = {name: _home(group) / name for name in (*group.packages, *group.files)}
    return programs if all(path.exists() for path in programs.values()) else {}


def _on_path(group: Group, but: Path) -> dict[str, Path]:
    """Return the programs that PATH leads to, other than by the folder `but`."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    elsewhere = os.pathsep.join(each for each in folders if Path(each).resolve() != but.resolve())
    programs = {}
    for name in (*group.packages, *group.files):
        path = shutil.which(name, path=elsewhere)
        if path is None:
            return {}
        programs[name] = Path(path)
    return programs if _fits(next(iter(programs.values())), group) else {}


def _fits(program: Path, group: Group) -> bool:
    try:
        command = [str(program), *group.version_args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"\b(?:v|)(\d+)\.(\d+)\.\d+", done.stdout)
    if version is None:
        return False
    there, pinned = (int(version[1]), int(version[2])), tuple(map(int, group.version.split(".")[:2]))
    return there == pinned or (group.newer_fits and there[0] == pinned[0] and there > pinned)


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
        if programs := _built(group):
            return programs
        # Built aside and renamed when whole: an interrupted build leaves nothing half-done.
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as aside:
            label = f"  {count}  {', '.join(group.packages)} (about {group.minutes:g} min)"
            _compile(go, group, Path(aside), label)
            shutil.rmtree(home, ignore_errors=True)
            Path(aside).rename(home)
            Path(aside).mkdir()
    return _built(group)


def _compile(go: str, group: Group, aside: Path, label: str) -> None:
    # The compiler's processes are short: without collecting garbage they take a third less time.
    env = {"GOGC": "off", "GOMEMLIMIT": "1GiB", **os.environ}
    env |= {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly", "GOOS": "", "GOARCH": ""}
    started = time.monotonic()
    major, minor = group.version.split(".")[:2]
    ldflags = "-s -w " + group.ldflags.format(version=group.version, major=major, minor=minor)
    # One program gets its name by -o, for Go would call etcd `server`; several get their packages'.
    alone = next(iter(group.packages)) if len(group.packages) == 1 else ""
    process = subprocess.Popen(
        [go, "build", "-trimpath", "-ldflags", ldflags, "-o", f"{aside}/{alone}", *group.packages.values()],
        cwd=MODULES / group.pins,
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
    for name, (module, path) in group.files.items():
        command = [go, "list", "-m", "-f", "{{.Dir}}", module]
        folder = subprocess.check_output(command, cwd=MODULES / group.pins, env=env, text=True).strip()
        shutil.copy(Path(folder) / path, aside / name)
        (aside / name).chmod(0o755)
    print(f"{label}: {time.monotonic() - started:.0f} s", flush=True)


def _watch(process: "subprocess.Popen[str]", label: str, started: float) -> str:
    """Return what `process` prints; meanwhile, say every few seconds that it goes on."""
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
