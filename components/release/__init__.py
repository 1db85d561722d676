"""A `helm.v3.Release` of a local chart that shows what it does. It serves any chart.

    plan = plan_release(ReleaseArgs(chart="./chart", name="web", namespace="shop"), provider)
    ChartRelease("web", plan, pulumi.ResourceOptions(provider=provider))

`plan_release` renders the chart before anything is registered, so that a chart that cannot be
deployed stops the program first. `ChartRelease` then registers the Release, and each Kubernetes
object of the chart as its child.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes.helm.v3 import Release

from components.release import chart, objects
from components.release.chart import ChartError

__all__ = ["ChartError", "ChartRelease", "ReleaseArgs", "ReleasePlan", "plan_release"]


@dataclass(frozen=True, kw_only=True)
class ReleaseArgs:
    """What to deploy. All of it is known when the program starts: no Outputs."""

    chart: str
    """Folder of the chart, relative to the program: an absolute path would differ per machine."""
    name: str
    """Name of the release; changing it replaces the release."""
    namespace: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """The chart's values; credentials as `pydantic.SecretStr` leaves."""
    timeout: int = 300
    """Seconds that Helm waits for the objects to become ready before it rolls back."""
    show_objects: bool = True
    """Register each object as a child of the Release."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout is a positive number of seconds, not {self.timeout}")
        if self.chart.startswith("/"):
            raise ValueError(f"chart is a path relative to the program, not {self.chart}")


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """A release that has been rendered and may be registered; see `plan_release`."""

    args: ReleaseArgs
    description: str
    objects: list[dict[str, Any]]


def plan_release(args: ReleaseArgs, provider: pulumi.ProviderResource) -> ReleasePlan:
    """Render the chart and compute what Helm will record as its description.

    Raises:
        ChartError: the chart cannot be loaded or rendered, or its schema refuses the values.
    """
    description = chart.describe(args.chart)
    rendered = chart.render(args.chart, args.name, args.namespace, args.values, provider)
    return ReleasePlan(args=args, description=description, objects=rendered)


class ChartRelease(pulumi.ComponentResource):
    """A release of a local chart, and the Kubernetes objects it consists of."""

    status: pulumi.Output[Any]
    """What Helm says of the deployed release: revision, status, version of the chart."""

    def __init__(self, name: str, plan: ReleasePlan, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("helm:index:ChartRelease", name, None, opts)
        args = plan.args
        release = Release(
            name,
            name=args.name,
            namespace=args.namespace,
            chart=args.chart,
            values=chart.marked(args.values),
            # Helm stores it and Pulumi compares it, so an edited template is a change; the provider
            # alone would compare no more than the values and the chart's version.
            description=plan.description,
            timeout=args.timeout,
            atomic=True,
            max_history=10,
            skip_await=False,
            create_namespace=False,
            # Acts on a first install only, over what a killed one left; refuses over a deployed one.
            replace=True,
            opts=pulumi.ResourceOptions(parent=self, depends_on=opts.depends_on if opts else None),
        )
        if args.show_objects:
            objects.show(
                plan.objects,
                release=release,
                name=args.name,
                namespace=args.namespace,
                secrets=chart.secrets_of(args.values),
            )
        self.status = release.status
        self.register_outputs({"status": release.status})
