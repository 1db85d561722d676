"""The Pulumi command line on this machine: a backend, a home and a passphrase of its own.

The home holds the real Kubernetes provider as a plugin. The program runs as everywhere: the command
line starts the language host, which starts the program in a process of its own.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.control_plane import is_alive, without_proxy
from sandbox.tools import (
    KUBERNETES_PROVIDER,
    MODULES,
    PULUMI,
    SandboxError,
    build,
    cache_folder,
    link,
    prepare,
)

PROJECT = Path(__file__).parent.parent
TEMPLATE = Path(__file__).with_name("Pulumi.local.yaml")
PLUGIN = "pulumi-resource-kubernetes"

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

    @property
    def tools(self) -> Path:
        """The folder of the programs."""
        return self.folder / "bin"

    @property
    def passphrase(self) -> Path:
        """The file with the passphrase that encrypts secrets."""
        return self.folder / "passphrase"

    @property
    def _version(self) -> Path:
        """The file with the version of the Kubernetes provider."""
        return self.folder / "provider-version"

    def environment(self) -> dict[str, str]:
        """Return the variables that lead any `pulumi` to this backend and to the plugins of its home."""
        return {
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(self.folder / "pulumi-home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.passphrase),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            # The provider is older than the SDK; without this the engine warns of that in each run.
            "PULUMI_DEV": "true",
            **without_proxy(),
            # Plugins are those of this home, whatever lies on PATH.
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
            # What components/release goes by; without it, by the version of the SDK.
            **({"RELEASE_PROVIDER_VERSION": self._version.read_text()} if self._version.exists() else {}),
        }

    def prepare(self) -> str:
        """Have programs, provider and passphrase; return which provider it is.

        Raises:
            SandboxError: a program is missing and cannot be built.
        """
        prepare(self.tools, [PULUMI])
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        if not self.passphrase.exists():
            self.passphrase.touch(mode=0o600)
            self.passphrase.write_text(secrets.token_urlsafe(32))
        wanted = _wanted_version("kubernetes")
        plugin, version, where = _provider(self, wanted)
        self.put_plugin("kubernetes", wanted, plugin)
        self._version.write_text(version)
        return f"Kubernetes provider {version} ({where})"

    def put_plugin(self, name: str, version: str, program: Path) -> None:
        """Make `program` the plugin that the engine takes for the provider `name` in `version`."""
        slot = self.folder / f"pulumi-home/plugins/resource-{name}-v{version}"
        slot.mkdir(parents=True, exist_ok=True)
        link(slot / f"pulumi-resource-{name}", program)

    def make_local_stack(self, name: str, project: Path = PROJECT) -> None:
        """Have the stack `name` selected, and its file in `project`: made once from the template, with
        made-up credentials; from then on it is the user's.

        Raises:
            SandboxError: a step of the command line fails.
        """
        file = project / f"Pulumi.{name}.yaml"
        if not file.exists():
            # Made aside: one that is there is whole.
            draft = self.folder / "new"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            shutil.copy(project / "Pulumi.yaml", draft)
            self.pulumi("stack", "select", "--create", name, cwd=draft)
            shutil.copy(TEMPLATE, draft / file.name)
            for key, value in MADE_UP_SECRETS.items():
                # By standard input: an argument could be read in the list of processes.
                self.pulumi("config", "set", "--secret", key, "--stack", name, cwd=draft, given=value)
            shutil.move(draft / file.name, file)
            shutil.rmtree(draft)
        self.break_stale_lock(name)
        self.pulumi("stack", "select", "--create", name, cwd=project)

    def pulumi(self, *args: str, cwd: Path = PROJECT, given: str = "") -> str:
        """Run the command line for a step of the sandbox's own; return what it prints.

        Raises:
            SandboxError: it fails.
        """
        done = subprocess.run(
            [str(self.tools / "pulumi"), *args, "--non-interactive"],
            cwd=cwd,
            env={**os.environ, **self.environment()},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"pulumi {' '.join(args[:2])} failed:\n{done.stderr.strip()}")
        return done.stdout

    def break_stale_lock(self, stack: str) -> None:
        """Delete a lock of `stack` whose process is gone: a killed engine leaves it behind."""
        for lock in (self.folder / "state").glob(f".pulumi/locks/*/*/{stack}/*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if not is_alive(int(json.loads(lock.read_text())["pid"])):
                    lock.unlink()


def _wanted_version(name: str) -> str:
    """Return the version of the plugin that the pinned SDK asks for."""
    pins = (PROJECT / "requirements.txt").read_text()
    pinned = re.search(rf"^pulumi-{name}==(\S+)", pins, re.MULTILINE)
    assert pinned  # noqa: S101
    return pinned[1]


# -- the Kubernetes provider ---------------------------------------------------------------------


def _provider(engine: Engine, wanted: str) -> tuple[Path, str, str]:
    """Return the plugin to use, its version, and where it comes from: the `wanted` one, that the SDK
    asks for, where it is installed or can be downloaded, else the one that is built here."""
    if (ambient := shutil.which(PLUGIN)) and _version_of(ambient) == wanted:
        return Path(ambient), wanted, ambient
    for home in (Path.home() / ".pulumi", cache_folder() / "pulumi-home"):
        plugin = home / f"plugins/resource-kubernetes-v{wanted}" / PLUGIN
        if plugin.exists() or (home.parent == cache_folder() and _download(engine, home, wanted)):
            return plugin, wanted, str(plugin)
    main = (MODULES / KUBERNETES_PROVIDER.pins / "main.go").read_text()
    version = re.search(r'"kubernetes", "([^"]+)"', main)
    assert version  # noqa: S101
    return build(KUBERNETES_PROVIDER) / PLUGIN, version[1], "built from its Go module"


def _version_of(plugin: str) -> str:
    """Ask a plugin for its version, in the protocol of the engine; empty where it does not answer."""
    import grpc
    from google.protobuf.empty_pb2 import Empty
    from pulumi.runtime.proto.provider_pb2_grpc import ResourceProviderStub

    with subprocess.Popen([plugin], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                return str(ResourceProviderStub(channel).GetPluginInfo(Empty(), timeout=10).version)
        except grpc.RpcError:
            return ""
        finally:
            process.kill()


def _download(engine: Engine, home: Path, version: str) -> bool:
    """Try once; a refusal is remembered until the cache is cleared."""
    refused = home / "refused"
    if refused.exists():
        return False
    home.mkdir(parents=True, exist_ok=True)
    print(f"Looking for the Kubernetes provider {version} …", flush=True)
    command = [str(engine.tools / "pulumi"), "plugin", "install", "resource", "kubernetes", version]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, "--non-interactive"],
            env={**os.environ, "PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            timeout=180,
            check=False,
        )
        if done.returncode == 0:
            return True
    refused.touch()
    return False
