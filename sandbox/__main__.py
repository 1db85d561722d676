"""The laptop's sandbox: `python -m sandbox up|preview|status|down|env|clean`.

`up` has a real control plane running and the `local` stack deployed to it, on a machine without
Docker and without a cloud account.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from sandbox.control_plane import ControlPlane
from sandbox.tools import SandboxError, locked, prepare

STACK = "local"


class Sandbox:
    """The sandbox of this clone, with all it keeps in `.sandbox`."""

    def __init__(self) -> None:
        project = Path(__file__).parent.parent
        self.folder = project / ".sandbox"
        self.tools = self.folder / "bin"
        self.control_plane = ControlPlane(folder=self.folder, tools=self.tools)

    def start(self) -> Any:
        """Have the control plane running; the stack, ready to be deployed."""
        from sandbox.engine import MADE_UP_SECRETS, Engine, choose_provider

        prepare(self.tools)
        kept = self.control_plane.start()
        if not kept:  # what Pulumi remembers of the old one is void
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        print(f"Control plane running, deployed by {choose_provider(self.folder)}", flush=True)
        engine = Engine(folder=self.folder, tools=self.tools)
        return engine.stack(STACK, MADE_UP_SECRETS)

    def up(self) -> None:
        started = time.monotonic()
        stack = self.start()
        color = "always" if sys.stdout.isatty() else "never"
        done = stack.up(on_output=_say, on_error=_complain, color=color, show_secrets=False)
        changed = {op: n for op, n in (done.summary.resource_changes or {}).items() if op != "same"}
        print(f"\n{'Deployed' if changed else 'Nothing changed'}.", end=" ")
        self.show()
        print(
            f"\nTook {time.monotonic() - started:.1f} s. Next: edit Pulumi.local.yaml or a template "
            "in chart/, then `make preview` and `make up`;\n`make env` lets kubectl, helm and pulumi "
            "look inside; `make down` stops it."
        )

    def preview(self) -> None:
        color = "always" if sys.stdout.isatty() else "never"
        self.start().preview(on_output=_say, on_error=_complain, color=color, diff=DIFF)

    def status(self) -> None:
        running = self.control_plane.processes()
        if not running:
            print("The sandbox is stopped: `make up` starts it.")
            return
        print(f"The sandbox runs ({len(running)} processes).", end=" ")
        self.show()

    def show(self) -> None:
        """What runs in the application's namespace."""
        from lightkube.resources.apps_v1 import Deployment
        from lightkube.resources.batch_v1 import CronJob
        from lightkube.resources.core_v1 import Pod
        from lightkube.resources.networking_v1 import Ingress

        namespace = _namespace()
        client = self.control_plane.client()
        rows = []
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

    def down(self) -> None:
        self.control_plane.stop()
        print("The sandbox is stopped; what it stores is kept: `make up` goes on from there.")

    def clean(self) -> None:
        self.control_plane.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        print("The sandbox is removed. Built programs stay in the cache for other clones.")

    def env(self) -> None:
        from sandbox.engine import Engine

        engine = Engine(folder=self.folder, tools=self.tools)
        variables = engine.environment() | {"KUBECONFIG": str(self.control_plane.kubeconfig)}
        del variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"]  # an official `pulumi` may download
        for key, value in variables.items():
            text = value.replace(os.environ["PATH"], "$PATH") if key == "PATH" else value
            print(f'export {key}="{text}"')
        config = self.folder / f"work/{STACK}/Pulumi.{STACK}.yaml"
        print(
            '# Use it by: eval "$(make -s env)". With Pulumi\'s official installation this does the'
            f" same as `make up`:\n#   pulumi up --stack {STACK} --config-file {config}"
        )


DIFF = False


def _namespace() -> str:
    import yaml

    config = yaml.safe_load((Path(__file__).parent.parent / "Pulumi.local.yaml").read_text())
    return str(config["config"]["mern:namespace"]["name"])


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = ("up", "preview", "status", "down", "env", "clean")
    parser.add_argument("command", choices=commands)
    parser.add_argument("--diff", action="store_true", help="show the changed fields (preview)")
    args = parser.parse_args()
    global DIFF  # noqa: PLW0603
    DIFF = args.diff
    sandbox = Sandbox()
    command = getattr(sandbox, args.command)
    try:
        if args.command in ("status", "env"):
            command()
        else:
            with locked(
                sandbox.folder / "lock",
                "another sandbox command is at work in this clone",
                wait=False,
            ):
                command()
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        print(f"error: {error.filename or sandbox.folder}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make down` ends what still runs.", file=sys.stderr)
        return 130
    except Exception as error:
        # The engine has printed what is wrong; its own words would only be said again.
        if type(error).__module__ == "pulumi.automation.errors":
            return 1
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
