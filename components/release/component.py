"""The Pulumi resources of a release."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from . import rows
from .hooks import Hooks
from .kubernetes_provider import keeps_nulls
from .plan import COMPONENT, RELEASE, ReleasePlan
from .secrets import Messages, marked

_SAFELY: Mapping[str, Any] = {
    "atomic": True,
    "maxHistory": 10,
    # Only a deployment whose objects are ready counts.
    "skipAwait": False,
    "createNamespace": False,
    # Acts on a first install only, over what a killed one left; refuses over a deployed one.
    "replace": True,
}
"""The arguments that each Release has in common."""


class ChartRelease(pulumi.ComponentResource):
    """A release of a chart, and the Kubernetes objects it consists of."""

    status: pulumi.Output[Any]
    """What Helm says of the deployed release: `revision`, `status`, `version` of the chart and the rest of a
    Release's output `status`. None where nothing is deployed: in a `pulumi destroy --run-program` without
    one."""

    def __init__(
        self,
        name: str,
        plan: ReleasePlan,
        opts: pulumi.ResourceOptions | None = None,
        before_delete: Sequence[pulumi.ResourceHook] = (),
        after: Sequence[pulumi.ResourceHook] = (),
    ) -> None:
        """Register what `plan` holds.

        Args:
            name: of the component and of its Release, in Pulumi's tree.
            plan: of `plan_release`.
            opts: of the component; the provider is the one of the plan.
            before_delete: hooks of the Release; with any, `pulumi destroy` needs `--run-program`.
            after: hooks of the Release, for when it has been created or updated.
        """
        args, hooks = plan.args, Hooks(plan)
        super().__init__(
            COMPONENT,
            name,
            # What is taken over is a change for the engine, whose hook prepares it before the Release is
            # imported; once that is done it is none.
            {"adopts": plan.description} if plan.is_recorded_anew else None,
            pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(
                    hooks=hooks.of_component(),
                    ignore_changes=[] if plan.is_recorded_anew else ["adopts"],
                ),
            ),
        )
        hooks.show_on(self)
        messages = Messages(plan.secrets, self)
        for note in plan.notes:
            messages.info(note)
        for drift in plan.drifts:
            for text in drift.texts:
                messages.warn(f"drift: {text}")
        # A preview would show the values of what is imported.
        imports = plan.taken_over is not None and not pulumi.runtime.is_dry_run()
        # By its token: `pulumi_kubernetes.helm.v3` takes 50 ms to import.
        release = pulumi.CustomResource(
            RELEASE,
            name,
            {
                "name": args.name,
                "namespace": args.namespace,
                "chart": args.chart,
                "values": marked(args.values),
                "description": plan.description,
                "timeout": args.timeout,
                **_SAFELY,
                **({} if keeps_nulls() else {"allowNullValues": True}),
                "compat": "true",  # what the typed resource adds
                "status": None,  # an output
            },
            pulumi.ResourceOptions(
                parent=self,
                depends_on=opts.depends_on if opts else None,
                hooks=hooks.of_release(before_delete, after),
                aliases=list(args.aliases),
                import_=f"{args.namespace}/{args.name}" if imports else None,
            ),
        )
        if args.show_objects:
            rows.show(
                plan.shown,
                release=release,
                name=args.name,
                namespace=args.namespace,
                secrets=plan.secrets,
            )
        self.status = _known(release.status)
        self.register_outputs({"status": self.status})


def _known(output: pulumi.Output[Any]) -> pulumi.Output[Any]:
    """Return None in place of an output that stays unknown: outside of previews the engine would store a text
    of its own for it."""

    async def value() -> Any:
        return await output.future() if await output.is_known() else None

    return output if pulumi.runtime.is_dry_run() else pulumi.Output.from_input(value())
