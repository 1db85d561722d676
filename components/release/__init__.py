"""A `helm.v3.Release` that tells the truth. It serves any chart.

    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", values=values)
    plan = plan_release(args, provider, Api(yaml.safe_load(kubeconfig)))
    release = ChartRelease("web", plan, pulumi.ResourceOptions(provider=provider))

`plan_release` renders the chart, reads what Helm has stored and asks the API server, before anything
is registered: what cannot be deployed stops the program first. `ChartRelease` then registers the
Release, and each Kubernetes object of the chart as its child; while Helm waits it shows what for,
when Helm fails it says why, and what a killed run left behind is mended.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .quiet_exit import quiet_exit

if TYPE_CHECKING:
    from .args import ReleaseArgs
    from .component import ChartRelease
    from .errors import ChartError, ReleaseError
    from .kubernetes_api import Api, ApiError, ClusterError
    from .plan import ReleasePlan, plan_release
    from .stack_state import StackState

__all__ = [
    "Api",
    "ApiError",
    "ChartError",
    "ChartRelease",
    "ClusterError",
    "ReleaseArgs",
    "ReleaseError",
    "ReleasePlan",
    "StackState",
    "plan_release",
    "quiet_exit",
]

_MODULES = {
    "args": ["ReleaseArgs"],
    "component": ["ChartRelease"],
    "errors": ["ChartError", "ReleaseError"],
    "kubernetes_api": ["Api", "ApiError", "ClusterError"],
    "plan": ["ReleasePlan", "plan_release"],
    "stack_state": ["StackState"],
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: most who need one part of this do not need the rest."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
