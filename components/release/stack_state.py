"""What this stack's state holds: which objects in the cluster are the stack's own, and which are not."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

Outputs = Mapping[str, Any]

READ_WITHIN = 5
"""Seconds. A backend on disk does not write a state at once: meanwhile a reader finds a part of it."""


@dataclass(frozen=True)
class StackState:
    """The resources in a stack's state, as the last run has left them. A refresh in this very run is not yet
    among it: a resource may be gone since, but one that is not there is nobody's or somebody else's."""

    resources: Mapping[str, Outputs] = field(default_factory=dict)
    """Outputs by URN."""

    @classmethod
    def read(cls) -> "StackState":
        """Return the state of the stack that this program runs for.

        Raises:
            pulumi.RunError: the backend does not give it.
        """
        name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
        stored = _read(name).get("outputs") or {}
        return cls({urn: item.get("outputs") or {} for urn, item in stored.items()})

    @property
    def outputs(self) -> Outputs:
        """The outputs of the stack itself; empty before its first deployment."""
        return next(iter(self.of_types("pulumi:pulumi:Stack").values()), {})

    def of_types(self, *types: str) -> dict[str, Outputs]:
        """Return the outputs of the resources of a type, by URN.

        Args:
            types: those of the parents, the outermost first, and its own.
        """
        chain = "$".join(types)
        return {urn: outputs for urn, outputs in self.resources.items() if urn.split("::")[2] == chain}


def _read(stack: str) -> Outputs:
    give_up = time.monotonic() + READ_WITHIN
    while True:
        try:
            answer = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        except Exception as error:  # the SDK raises a bare Exception for every failed call
            if time.monotonic() > give_up:
                raise pulumi.RunError(f"the state of stack {stack} could not be read: {error}") from None
            time.sleep(0.05)
        else:
            return answer.value or {}
