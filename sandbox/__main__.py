"""The laptop's sandbox: `python -m sandbox up|preview|status|down|env|clean`.

`up` has a real control plane running and the `local` stack deployed to it by `pulumi up`, on a machine
without Docker and without a cloud account.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from sandbox.control_plane import ControlPlane, stop_all
from sandbox.engine import PROJECT, Engine
from sandbox.tools import ETCD, KUBERNETES, KWOK, SandboxError, locked, prepare

STACK = "local"
CONFIG = PROJECT / f"Pulumi.{STACK}.yaml"


class Sandbox:
    """The sandbox of this clone, with all it keeps in `.sandbox`."""

    def __init__(self) -> None:
        self.folder = PROJECT / ".sandbox"
        self.engine = Engine(folder=self.folder)
        self.control_plane = ControlPlane(folder=self.folder, tools=self.engine.tools)

    def up(self, _: argparse.Namespace) -> int:
        """Deploy the local stack, and show what runs."""
        started = time.monotonic()
        self._start()
        # The preview is `make preview`.
        code = self._pulumi("up", "--yes", "--skip-preview")
        if code == 0:
            print()
            self._show()
            print(
                f"\nTook {time.monotonic() - started:.1f} s. Next: edit {CONFIG.name} or a template "
                "in chart/, then `make preview` and `make up`;\n`make env` lets kubectl, helm and pulumi "
                "look inside; `make down` stops it."
            )
        return code

    def preview(self, args: argparse.Namespace) -> int:
        """Show what `up` would change."""
        self._start()
        return self._pulumi("preview", *(["--diff"] if args.diff else []))

    def status(self, _: argparse.Namespace) -> int:
        """Show what runs."""
        running = self.control_plane.processes()
        if not running:
            print("The sandbox is stopped: `make up` starts it.")
            return 0
        print(f"The sandbox runs ({len(running)} processes).", end=" ")
        self._show()
        return 0

    def down(self, _: argparse.Namespace) -> int:
        """Stop all that this clone has started; what it stores is kept."""
        stop_all(self.folder)
        print("The sandbox is stopped; what it stores is kept: `make up` goes on from there.")
        return 0

    def clean(self, _: argparse.Namespace) -> int:
        """Remove what the sandbox stores, but for what is the user's."""
        stop_all(self.folder)
        self.control_plane.remove()
        keep = {"lock", self.engine.passphrase.name} if CONFIG.exists() else {"lock"}
        for path in self.folder.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        kept = f" {CONFIG.name} and the passphrase of its secrets stay." if CONFIG.exists() else ""
        print(f"The sandbox is removed. Built programs stay in the cache for other clones.{kept}")
        return 0

    def env(self, _: argparse.Namespace) -> int:
        """Print the variables that lead kubectl, helm and pulumi to the sandbox."""
        variables = self.engine.environment() | {"KUBECONFIG": str(self.control_plane.kubeconfig)}
        variables["PATH"] = str(self.engine.tools)
        for key, value in variables.items():
            print(f"export {key}={shlex.quote(value)}" + (':"$PATH"' if key == "PATH" else ""))
        print('# Use it by: eval "$(make -s env)"')
        return 0

    def _start(self) -> None:
        """Have the control plane running, and the stack ready to be deployed."""
        encrypted = CONFIG.exists() and "encryptionsalt:" in CONFIG.read_text()
        if encrypted and not self.engine.passphrase.exists():
            raise SandboxError(
                f"the secrets in {CONFIG.name} cannot be read: their passphrase, "
                f"{self.engine.passphrase}, is gone.\nPut it back, or have file and sandbox made anew:\n"
                f"    mv {CONFIG.name} {CONFIG.name}.old && .venv/bin/python -m sandbox clean && make up"
            )
        prepare(self.engine.tools, [ETCD, KUBERNETES, KWOK])
        provider = self.engine.prepare()
        kept = self.control_plane.start()
        if not kept:  # what Pulumi remembers of the old one is void
            shutil.rmtree(self.folder / "state")
            (self.folder / "state").mkdir()
        print(f"Control plane running; {provider}", flush=True)
        self.engine.make_local_stack(STACK)

    def _pulumi(self, *args: str) -> int:
        """Run the command line as a user does, in this terminal; return its exit code."""
        process = subprocess.Popen(
            [str(self.engine.tools / "pulumi"), *args, "--stack", STACK],
            cwd=PROJECT,
            env={**os.environ, **self.engine.environment()},
        )
        # A terminal sends Ctrl-C to both, and a second one would end the engine at once.
        for each in (signal.SIGTERM, signal.SIGINT):
            terminal = each == signal.SIGINT and sys.stdin.isatty()
            signal.signal(each, signal.SIG_IGN if terminal else lambda it, _: process.send_signal(it))
        return process.wait()

    def _show(self) -> None:
        """Print what runs in the application's namespace."""
        from lightkube.resources.apps_v1 import Deployment
        from lightkube.resources.batch_v1 import CronJob
        from lightkube.resources.core_v1 import Pod
        from lightkube.resources.networking_v1 import Ingress

        try:
            namespace = self.engine.pulumi("stack", "output", "namespace", "--stack", STACK).strip()
        except SandboxError:
            print("Nothing is deployed.")
            return
        client = self.control_plane.client()
        rows: list[tuple[str, Any, str]] = []
        for item in client.list(Deployment, namespace=namespace):
            ready = item.status.readyReplicas or 0
            rows.append(("Deployment", item, f"{ready}/{item.spec.replicas} ready"))
        for item in client.list(Pod, namespace=namespace):
            rows.append(("Pod", item, item.status.phase))
        for item in client.list(CronJob, namespace=namespace):
            rows.append(("CronJob", item, item.spec.schedule))
        for item in client.list(Ingress, namespace=namespace):
            paths = [p.path for rule in item.spec.rules or [] for p in rule.http.paths]
            rows.append(("Ingress", item, f"{item.spec.ingressClassName}: {' '.join(paths)}"))
        print(f"In namespace {namespace}:" if rows else f"Namespace {namespace} is empty.")
        for kind, item, text in rows:
            print(f"  {kind:<11} {item.metadata.name:<28} {text}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = ("up", "preview", "status", "down", "env", "clean")
    parser.add_argument("command", choices=commands)
    parser.add_argument("--diff", action="store_true", help="show the changed fields (preview)")
    args = parser.parse_args()
    sandbox = Sandbox()
    try:
        if args.command in ("status", "env"):
            return int(getattr(sandbox, args.command)(args))
        why = "another sandbox command is at work in this clone"
        with locked(sandbox.folder / "lock", why, wait=False):
            return int(getattr(sandbox, args.command)(args))
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        print(f"error: {error.filename or sandbox.folder}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make down` ends what still runs.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
