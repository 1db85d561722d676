"""The template of environments: a stack file with `{number}` in it, and limits that hold for all of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.release.values import map_leaves
from operations import stack_file

NUMBER = "{number}"
"""What stands in the template in place of the number of the pull request."""
NAMESPACE = "mern:namespace"
MOST, DAYS = "environments:most", "environments:days"
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
        EnvironmentsError: it is no template.
    """
    file = stack_file.read(name)
    namespace = file.config.get(NAMESPACE)
    pattern = namespace.get("name") if isinstance(namespace, Mapping) else None
    if not (isinstance(pattern, str) and PATTERN.fullmatch(pattern)):
        raise EnvironmentsError(
            f"{file.path} is no template of environments: its {NAMESPACE}.name has to end with {NUMBER}\n"
            f"    pulumi config set --path '{NAMESPACE}.name' 'mern-pr-{NUMBER}' --stack {name}"
        )
    return Template(
        name=name.rsplit("/", 1)[-1],
        pattern=pattern,
        most=_limit(file, MOST, 20),
        days=_limit(file, DAYS, 7),
        beside=file.beside,
    )


def filled(value: Any, number: int) -> Any:
    """Return a value of the config with the number of the pull request in the place that is kept for it."""
    return map_leaves(
        value, lambda leaf: leaf.replace(NUMBER, str(number)) if isinstance(leaf, str) else leaf
    )


def _limit(file: stack_file.StackFile, key: str, default: int) -> int:
    text = str(file.config.get(key, default))
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise EnvironmentsError(
            f"{key} in {file.path} is not a number from 1 to 9999\n"
            f"    pulumi config set {key} {default} --stack {file.path.name.split('.')[1]}"
        )
    return int(text)
