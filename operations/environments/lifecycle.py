"""The life of an environment: made and deployed, deployed again, removed with all that it had.

The deployment is that of every other stack: the same program, settings and checks, and the same commands of
the engine. A run that was killed leaves nothing that the next command does not go on from.
"""

import contextlib
import fcntl
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation as auto

from components.mern_application import RELEASE
from components.namespace import NAMESPACE
from components.release import Api, ClusterError, record
from components.release.kubernetes_api import lacks_namespace
from operations import stack_file
from operations.ci import deploy
from operations.ci.engine import Run
from operations.ci.github import GitHub
from operations.environments import listing
from operations.environments.listing import Environment, Serving
from operations.environments.template import NUMBER, EnvironmentsError, Template, filled
from operations.stack import connect, stderr_of

OpenStack = Callable[[str], auto.Stack]
ADOPT = "mern:release.adopt"
LONGEST_WAIT, INTERVAL = 600.0, 2.0
"""Seconds, for a namespace that is being deleted, and between two looks."""


class Environments:
    """The environments that are made from one template, in one backend."""

    def __init__(self, template: Template, open_stack: OpenStack, github: GitHub | None = None) -> None:
        """Open the template's stack.

        Args:
            template: of the environments.
            open_stack: opens the stack of a name.
            github: to look up runs that were killed; None outside GitHub Actions.

        Raises:
            CommandError: the backend is not reached, or has no stack of the template.
        """
        self.template = template
        self._open, self._github = open_stack, github
        self._stack = open_stack(template.name)

    def read(self) -> dict[int, Environment]:
        """Return those that have a stack, by the number of the pull request."""
        return listing.read(self._stack.workspace, self.template)

    def look(self, *names: str) -> dict[str, Serving]:
        """Return what runs of each in the cluster, as far as it can be asked."""
        try:
            api, _ = connect(self.template.name, self._stack.get_all_config())
        except ClusterError as error:
            return {name: Serving(state=f"not known: {error}") for name in names}
        return {name: listing.look(api, name) for name in names}

    # ---- up

    def up(self, number: int) -> Run:
        """Deploy the environment of a pull request; make it where it is not there, or is there by half.

        Raises:
            EnvironmentsError: there are as many as there may be, its namespace is somebody else's, or another
                process of this folder works on it.
            ClusterError: the cluster does not answer, or refuses.
            CommandError: its stack or its config cannot be made.
        """
        name = self.template.name_of(number)
        with _alone(name):
            return self._deploy(number, name)

    def _deploy(self, number: int, name: str) -> Run:
        known = self.read()
        is_new = number not in known
        if is_new and len(known) >= self.template.most:
            raise EnvironmentsError(self._too_many(known))
        if is_new:
            self._require_no_namespace(name)
        stack = self._made(number, is_new=is_new)
        if is_new:
            run = deploy.run(stack, "up", self._github, is_alone=True)
            if not run.ok and not _has_made_anything(stack.export_stack().deployment or {}):
                self._remove_stack(name, "--force")  # of a run that was refused nothing stays
        else:
            run = self._deploy_again(stack, name)
        if commands := self._commands_for_template(run, name):
            text = f"The config of {name} is a copy: mend it in {self.template.file}"
            run.errors.append("\n    ".join([text, *commands]))
            print(run.errors[-1], file=sys.stderr)
        return run

    def _deploy_again(self, stack: auto.Stack, name: str) -> Run:
        newest = record.newest(self._api(stack), RELEASE, name)
        if newest and newest.status == "uninstalling":  # by a run that was killed; Helm does not upgrade it
            run = self._go_on(stack, name, "destroy")
            if not run.ok:
                return run
        return self._go_on(stack, name, "up")

    def _commands_for_template(self, run: Run, name: str) -> list[str]:
        """Return the commands on the config that errors name, for the template: the copy is made anew."""
        commands = re.findall(
            rf"^ *(pulumi\s+config .* --stack ){re.escape(name)}$", "\n".join(run.errors), re.MULTILINE
        )
        return [f"{command}{self.template.name}" for command in dict.fromkeys(commands)]

    def _require_no_namespace(self, name: str) -> None:
        """Refuse a namespace of somebody else before there is a stack: with one, the next `up` would take the
        namespace for its own, and `down` delete it."""
        api = self._api(self._stack)
        self._wait_while_terminating(api, name)
        if api.find(f"/api/v1/namespaces/{name}") is not None:
            raise EnvironmentsError(
                f"namespace {name} is there, and no stack {name} that has made it. If it is nobody's\n"
                f"    kubectl delete namespace {name}"
            )

    def _too_many(self, known: dict[int, Environment]) -> str:
        oldest = min(known.values(), key=lambda item: (item.changed is not None, item.changed))
        return (
            f"there are {len(known)} environments, and environments:most in {self.template.file} allows "
            f"{self.template.most}. The one that was deployed least lately is {oldest.name}; to remove it\n"
            f"    .venv/bin/python -m operations environment down {oldest.number}"
        )

    def _made(self, number: int, *, is_new: bool) -> auto.Stack:
        """Return the stack with a copy of the template's config, and with the template's encryption."""
        name = self.template.name_of(number)
        self._write_beside(name)
        if is_new:
            self._pulumi("stack", "init", name, "--no-select")
        self._pulumi("config", "cp", "--stack", self.template.name, "--dest", name)
        stack, file = self._open(name), stack_file.read(name)
        with_number = {
            key: filled(value, number) for key, value in file.config.items() if NUMBER in json.dumps(value)
        }
        stack_file.edit(stack, file, with_number)
        return stack

    def _write_beside(self, name: str) -> None:
        """Begin the stack file anew with what encrypts its secrets: the same on every machine, so that each
        run can read what another has left. Pulumi Cloud has keys of its own, and nothing in the file."""
        file = Path(f"Pulumi.{name}.yaml")
        file.unlink(missing_ok=True)
        if self.template.beside:
            file.write_text(yaml.safe_dump(dict(self.template.beside)))

    # ---- down

    def down(self, number: int) -> Run | None:
        """Remove the environment of a pull request: all that it has in the cluster and in AWS, and its stack
        with history and backups; None where there is none.

        Raises:
            EnvironmentsError: its namespace does not go, or another process of this folder works on it.
            ClusterError: the cluster does not answer, or refuses.
            CommandError: its stack or its config cannot be read.
        """
        name = self.template.name_of(number)
        with _alone(name):
            return self._destroy(number, name)

    def _destroy(self, number: int, name: str) -> Run | None:
        if number not in self.read():
            return None
        stack = self._as_deployed(number)
        run = self._go_on(stack, name, "destroy")
        if not run.ok and self._has_faults(run, name):
            print(f"This program does not take the config that {name} was deployed with", flush=True)
            stack = self._made(number, is_new=False)
            run = self._go_on(stack, name, "destroy")
        if run.ok:
            self._remove_namespace(self._api(stack), name)
            self._remove_stack(name)
        return run

    def _go_on(self, stack: auto.Stack, name: str, command: str) -> Run:
        """Run the engine over what earlier runs have left, also where they were killed."""
        # What was made and not noted is this environment's.
        stack.set_config(ADOPT, auto.ConfigValue("true"), path=True)
        api = self._api(stack)
        self._wait_while_terminating(api, name)
        run = deploy.run(stack, command, self._github, is_alone=True, refresh=True)
        if not run.ok and lacks_namespace(api, name) and self._forget_namespace(stack, name):
            run = deploy.run(stack, command, self._github, is_alone=True, refresh=True)
        return run

    def _forget_namespace(self, stack: auto.Stack, name: str) -> bool:
        """Take a namespace that has gone, and what was in it, out of the state; return whether any was there.
        A refresh does not do: who may use its own namespaces alone may not even ask about one that is gone.
        """
        is_changed = False
        while urn := _first_in_namespace(stack.export_stack().deployment or {}, name):
            self._pulumi("state", "delete", urn, "--target-dependents", "--yes", "--stack", stack.name)
            is_changed = True
        return is_changed

    def _as_deployed(self, number: int) -> auto.Stack:
        """Return the stack with the config of its last deployment, which the backend keeps in its history; a
        stack file need not lie here. One that was killed in its first deployment has none: the template's."""
        name = self.template.name_of(number)
        self._write_beside(name)
        stack = self._open(name)
        try:
            stack.workspace.refresh_config(name)
        except auto.errors.CommandError as error:
            print(f"{name} gets its config from {self.template.file}: {stderr_of(error)}", flush=True)
            return self._made(number, is_new=False)
        return stack

    def _remove_namespace(self, api: Api, name: str) -> None:
        """Delete the namespace where it is there after all: a run was killed between making and noting it."""
        if api.find(f"/api/v1/namespaces/{name}") is not None:
            api.delete(f"/api/v1/namespaces/{name}")
            self._wait_while_terminating(api, name)

    def _wait_while_terminating(self, api: Api, name: str) -> None:
        give_up, printed = time.monotonic() + LONGEST_WAIT, ""
        while held := listing.terminating(api.find(f"/api/v1/namespaces/{name}") or {}):
            if time.monotonic() > give_up:
                raise EnvironmentsError(
                    f"namespace {name} is being deleted and does not go: {held}. When that is mended\n"
                    f"    .venv/bin/python -m operations environment down {self.template.number_of(name)}"
                )
            if held != printed:
                print(f"Waiting for namespace {name}, which is being deleted: {held}", flush=True)
                printed = held
            time.sleep(INTERVAL)

    # ----

    def _api(self, stack: auto.Stack) -> Api:
        return connect(stack.name, stack.get_all_config())[0]

    def _has_faults(self, run: Run, name: str) -> bool:
        """Return whether the program refuses the config."""
        return any(f"in the config of stack {name} " in text for text in run.errors)

    def _remove_stack(self, name: str, *options: str) -> None:
        self._pulumi("stack", "rm", name, "--yes", "--remove-backups", *options)

    def _pulumi(self, *arguments: str) -> None:
        workspace = self._stack.workspace
        workspace.pulumi_command.run([*arguments], workspace.work_dir, workspace.env_vars)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold an environment in this folder: two processes would write its stack file at the same time.

    Raises:
        EnvironmentsError: another one holds it.
    """
    file = Path(f"Pulumi.{name}.lock")
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentsError(f"another command is at work on {name} in this folder") from None
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _has_made_anything(deployment: Mapping[str, Any]) -> bool:
    """Return whether a state holds a resource that is not the engine's own."""
    resources = deployment.get("resources") or []
    return any(item.get("custom") and not item["type"].startswith("pulumi:") for item in resources)


def _first_in_namespace(deployment: Mapping[str, Any], name: str) -> str:
    """Return the URN of a resource in a state that is namespace `name` or in it, empty without one."""
    for item in deployment.get("resources") or []:
        inputs = item.get("inputs") or {}
        metadata = inputs.get("metadata") or {}
        place = metadata.get("name") if item["type"] == NAMESPACE else metadata.get("namespace")
        if item["type"].startswith("kubernetes:") and name in (place, inputs.get("namespace")):
            return str(item["urn"])
    return ""
