"""What this stack's state holds: which objects in the cluster are the stack's own, and which are not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class StackState:
    """The resources in a stack's state, as the last run has left them. A refresh in this very run is not yet
    among it: a resource may be gone since, but one that is not there is nobody's or somebody else's."""

    resources: Mapping[str, Outputs] = field(default_factory=dict)
    """Outputs by URN."""

    @classmethod
    def read(cls) -> "StackState":
        """Return the state of the stack that this program runs for."""
        stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
        answer = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        stored = (answer.value or {}).get("outputs") or {}
        return cls({urn: item.get("outputs") or {} for urn, item in stored.items()})

    @property
    def outputs(self) -> Outputs:
        """The outputs of the stack itself; empty before its first deployment."""
        return next(iter(self.of_types("pulumi:pulumi:Stack").values()), {})

    def of_types(self, *types: str) -> dict[str, Outputs]:
        """Return the resources of a type, by URN.

        Args:
            types: those of the parents, the outermost first, and its own.
        """
        chain = "$".join(types)
        return {urn: outputs for urn, outputs in self.resources.items() if urn.split("::")[2] == chain}
