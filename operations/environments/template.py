"""The template of environments: a stack file with `{number}` in it, and limits that hold for all of them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.release.values import ABSENT, get, map_leaves
from operations import stack_file

NUMBER = "{number}"
"""What stands in the template in place of the number of the pull request."""
NAMESPACE = "mern:namespace"
MOST, DAYS = "environments:most", "environments:days"
LIMITS = {MOST: 20, DAYS: 7}
"""Keys of the template alone, with their defaults."""
LONGEST_NAME = 63  # of a namespace
PATTERN = re.compile(r"[a-z]([-a-z0-9]*-)?\{number\}")


class EnvironmentsError(Exception):
    """A reason why a command about environments was not done; for the user."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """The stack that environments are copied from. It is never deployed itself."""

    name: str
    """Of the stack, as `preview`."""
    pattern: str
    """Of the names of stacks and namespaces, which are the same, as `mern-pr-{number}`."""
    most: int
    """How many environments there may be."""
    days: int
    """How long an environment lives after its last deployment."""
    beside: Mapping[str, Any]
    """What its stack file says beside the config: what encrypts secrets, the environments of Pulumi ESC."""

    @property
    def file(self) -> str:
        """The name of its stack file."""
        return f"Pulumi.{self.name}.yaml"

    def name_of(self, number: int) -> str:
        """Return the name of the stack, and of the namespace, of a pull request.

        Raises:
            EnvironmentsError: no namespace can be called so.
        """
        name = filled(self.pattern, number)
        if len(name) > LONGEST_NAME:
            raise EnvironmentsError(
                f"{name} has more than {LONGEST_NAME} characters, and no namespace can be called so: "
                f"shorten {NAMESPACE}.name in {self.file}"
            )
        return name

    def number_of(self, name: str) -> int | None:
        """Return the number of the pull request whose environment is called `name`, None where it is none."""
        match = re.fullmatch(re.escape(self.pattern).replace(re.escape(NUMBER), r"([1-9]\d*)"), name)
        return int(match[1]) if match else None


def read(name: str) -> Template:
    """Read the stack file of the template.

    Raises:
        StackFileError: it is not there, or is no stack file.
        EnvironmentsError: it is no template; with every fault, and the command that mends it.
    """
    file = stack_file.read(name)
    if faults := [*_faults(file.config, name)]:
        lines = (f"  {fault}\n      {command}" for fault, command in faults)
        raise EnvironmentsError(
            "\n".join([f"{file.path} is no template of environments. If it is to be one:", *lines])
        )
    return Template(
        name=name.rsplit("/", 1)[-1],
        pattern=file.config[NAMESPACE]["name"],
        most=int(file.config.get(MOST, LIMITS[MOST])),
        days=int(file.config.get(DAYS, LIMITS[DAYS])),
        beside=file.beside,
    )


def filled(value: Any, number: int) -> Any:
    """Return a value of the config with the number of the pull request in the place that is kept for it."""
    return map_leaves(
        value, lambda leaf: leaf.replace(NUMBER, str(number)) if isinstance(leaf, str) else leaf
    )


def _faults(config: Mapping[str, Any], stack: str) -> Iterator[tuple[str, str]]:
    """Yield each fault of a template, with the command that mends it."""
    pattern = get(config, (NAMESPACE, "name"))
    if not (isinstance(pattern, str) and PATTERN.fullmatch(pattern)):
        yield (
            f"{NAMESPACE}.name has to end with {NUMBER}",
            f"pulumi config set --path '{NAMESPACE}.name' 'mern-pr-{NUMBER}' --stack {stack}",
        )
    for path in _shared_hosts(config):
        yield (
            f"{path} has to hold {NUMBER}: it would be the host of all environments",
            f"pulumi config set --path '{path}' 'pr-{NUMBER}.preview.example.com' --stack {stack}",
        )
    for key in config:
        if key.startswith("environments:") and key not in LIMITS:
            known = " and ".join(LIMITS)
            yield f"{key} is not a key: {known} are", f"pulumi config rm {shlex.quote(key)} --stack {stack}"
    for key, default in LIMITS.items():
        if not re.fullmatch(r"[1-9]\d{0,3}", str(config.get(key, default))):
            yield (
                f"{key} is not a number from 1 to 9999",
                f"pulumi config set {key} {default} --stack {stack}",
            )


def _shared_hosts(config: Mapping[str, Any]) -> list[str]:
    """Return the paths of hosts that all environments would have: with one load balancer, the first would
    serve them all. In a shared one, an Ingress without hosts answers to those of others, too."""
    ingress = get(config, ("mern:values", "ingress"))
    hosts, group = get(ingress, ("hosts",)), get(ingress, ("group", "name"))
    if not (isinstance(hosts, list) and hosts):
        hosts = [""] if group not in (ABSENT, "") and get(ingress, ("enabled",)) is not False else []
    return [
        f"mern:values.ingress.hosts[{index}]" for index, host in enumerate(hosts) if NUMBER not in str(host)
    ]
