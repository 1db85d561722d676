"""The Pulumi engine, driven by the Automation API with the project's own program.

The Python language host comes only as a download, so the program runs in this process, as an inline
program. The engine's work folder holds copies of Pulumi.yaml and the stack file and a link to the
chart: no committed file is rewritten, and `./chart` is the same input as everywhere.
"""

import contextlib
import json
import os
import runpy
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation as auto

from sandbox.control_plane import is_alive
from sandbox.tools import SandboxError, cache_folder

PROJECT = Path(__file__).parent.parent
PLUGIN = "pulumi-resource-kubernetes"
PLUGIN_VERSION = "4.34.2"  # of pulumi-kubernetes in requirements.txt

# Nobody's credentials: made up so that the chart's Secrets have something in them.
MADE_UP_SECRETS = {
    "mern:mongodbUri": "mongodb://sandbox:made-up@mongodb.invalid/mern",
    "mern:awsAccessKeyId": "made-up-key-id",
    "mern:awsSecretAccessKey": "made-up-access-key",
}


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One Pulumi backend with its home and passphrase, all in `folder`."""

    folder: Path
    tools: Path
    """Folder of the programs, named `bin`."""
    project: Path = PROJECT
    """Folder with Pulumi.yaml, the stack files and the chart."""
    env: Mapping[str, str] = field(default_factory=dict)
    """More variables for the engine and the program."""

    def environment(self) -> dict[str, str]:
        """The variables that lead any `pulumi` to this backend."""
        return {
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(self.folder / "pulumi-home"),
            "PULUMI_BACKEND_URL": (self.folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.folder / "passphrase"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_ERROR_OUTPUT_STRING": "true",
            **self.env,
        }

    def stack(
        self,
        name: str,
        made_up: Mapping[str, str] | None = None,
        program: Callable[[], None] | None = None,
    ) -> auto.Stack:
        """The stack `name`, created where there is none.

        Args:
            name: of the stack and of its file in the project.
            made_up: secrets to set, key to value; they stay when given once.
            program: to run instead of the project's `__main__.py`.
        """
        work = self._work_folder(name)
        options = auto.LocalWorkspaceOptions(
            work_dir=str(work),
            pulumi_home=str(self.folder / "pulumi-home"),
            env_vars=self.environment(),
            pulumi_command=auto.PulumiCommand(root=str(self.tools.parent)),
        )
        stack = auto.create_or_select_stack(
            name, project_name="mern", program=program or self._run, opts=options
        )
        known = _load(work / f"Pulumi.{name}.yaml").get("config", {})
        for key, value in (made_up or {}).items():
            if key not in known:
                self.set_secret(name, key, value)
        self._break_stale_lock(stack)
        return stack

    def _run(self) -> None:
        """The project's own program, as `pulumi up` would run it."""
        with contextlib.chdir(self.project):
            runpy.run_path(str(PROJECT / "__main__.py"), run_name="__main__")

    def _work_folder(self, stack: str) -> Path:
        self._own_secrets()
        work = self.folder / "work" / stack
        work.mkdir(parents=True, exist_ok=True)
        chart = work / "chart"
        if not (chart.is_symlink() and chart.readlink() == self.project / "chart"):
            chart.unlink(missing_ok=True)
            chart.symlink_to(self.project / "chart")
        project = yaml.safe_load((self.project / "Pulumi.yaml").read_text())
        plugins = sorted((self.folder / "provider").glob("pulumi-resource-*"))
        project["plugins"] = {
            "providers": [{"name": it.name.split("-", 2)[2], "path": str(it.parent)} for it in plugins]
        }
        (work / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        # The stack's secrets and their salt live in the copy only.
        name = f"Pulumi.{stack}.yaml"
        committed = _load(self.project / name)
        copy = _load(work / name)
        kept = {k: v for k, v in copy.get("config", {}).items() if _is_secret(v)}
        new = {**copy, "config": {**committed.get("config", {}), **kept}}
        if new != copy:
            (work / name).write_text(yaml.safe_dump(new, sort_keys=False))
        return work

    def _own_secrets(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        passphrase = self.folder / "passphrase"
        if not passphrase.exists():
            passphrase.touch(mode=0o600)
            passphrase.write_text(secrets.token_urlsafe(32))

    def set_secret(self, stack: str, key: str, value: str) -> None:
        """Encrypt `value` into the work folder's copy of the stack file."""
        # By standard input: an argument could be read in the list of processes.
        self._pulumi(stack, "config", "set", "--secret", key, "--stack", stack, given=value)

    def _pulumi(self, stack: str, *args: str, given: str) -> None:
        done = subprocess.run(
            [str(self.tools / "pulumi"), *args],
            cwd=self.folder / "work" / stack,
            env={**os.environ, **self.environment()},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"pulumi {' '.join(args[:2])} failed:\n{done.stderr.strip()}")

    def _break_stale_lock(self, stack: auto.Stack) -> None:
        """A killed engine leaves its lock behind; take it away when its process is gone."""
        for lock in (self.folder / "state").glob(f".pulumi/locks/*/*/{stack.name}/*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                pid = int(json.loads(lock.read_text())["pid"])
                if not is_alive(pid):
                    lock.unlink()


def choose_provider(folder: Path) -> str:
    """Put the Kubernetes provider's plugin into `folder`/provider; say which it is.

    The real one where it is on PATH, in the user's Pulumi home, or can be downloaded; else the
    stand-in, for this sandbox alone.
    """
    home = folder / "provider"
    home.mkdir(parents=True, exist_ok=True)
    plugin = home / PLUGIN
    real = _real_plugin(folder)
    if real is not None:
        plugin.unlink(missing_ok=True)
        plugin.symlink_to(real)
        return f"the real Kubernetes provider ({real})"
    put_stand_in(plugin, "kubernetes_provider")
    return "the stand-in for the Kubernetes provider (the real one is not installed)"


def put_stand_in(plugin: Path, module: str) -> None:
    """Make `plugin` the program that the module of this package is."""
    script = f'#!/bin/sh\nPYTHONPATH="{PROJECT}" exec "{sys.executable}" -m sandbox.{module} "$@"\n'
    if plugin.is_symlink() or not plugin.exists() or plugin.read_text() != script:
        plugin.unlink(missing_ok=True)
        plugin.write_text(script)
        plugin.chmod(0o755)


def _real_plugin(folder: Path) -> Path | None:
    found = shutil.which(PLUGIN)
    if found:
        return Path(found)
    name = f"resource-kubernetes-v{PLUGIN_VERSION}"
    for home in (Path.home() / ".pulumi", cache_folder() / "pulumi-home"):
        plugin = home / "plugins" / name / PLUGIN
        if plugin.exists():
            return plugin
    return _download(folder, cache_folder() / "pulumi-home", name)


def _download(folder: Path, home: Path, name: str) -> Path | None:
    """Try once; a refusal is remembered until the cache is cleared."""
    refused = home / "refused"
    if refused.exists():
        return None
    home.mkdir(parents=True, exist_ok=True)
    print(f"Looking for the Kubernetes provider {PLUGIN_VERSION} …", flush=True)
    command = ["plugin", "install", "resource", "kubernetes", PLUGIN_VERSION]
    try:
        done = subprocess.run(
            [str(folder / "bin/pulumi"), "--non-interactive", *command],
            env={**os.environ, "PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            timeout=180,
            check=False,
        )
    except subprocess.TimeoutExpired:
        done = None
    plugin = home / "plugins" / name / PLUGIN
    if done is not None and done.returncode == 0 and plugin.exists():
        return plugin
    refused.touch()
    return None


def _load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def _is_secret(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}


def resources(stack: auto.Stack) -> Iterator[dict[str, Any]]:
    """The resources in the stack's state."""
    deployment = stack.export_stack().deployment or {}
    yield from deployment.get("resources", [])
