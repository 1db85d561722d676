"""The failure report: which objects did not become ready and why, what serves now, what to do."""

import re
from collections.abc import Sequence

from . import record
from .kubernetes_api import ClusterError
from .plan import ReleasePlan
from .workloads import Workload, observe, watched

LOCKED = "another operation (install/upgrade/rollback) is in progress"
"""Helm's words for a release that another run deploys."""
PROVIDERS_WORDS = re.compile(r"\A1 error occurred:\s+\* Helm release .* Error: Helm Release \S+: (?=\S)")
"""What the provider puts before Helm's own."""
UNREAD = "Now serving: could not be read"


def failure_report(plan: ReleasePlan, unready: Sequence[Workload], error: str) -> str:
    """Return the report of a deployment that has failed.

    Args:
        plan: of the release.
        unready: the workloads that did not become ready.
        error: the provider's.
    """
    args = plan.args
    lines = [f"release {args.name} in namespace {args.namespace} was not deployed"]
    if unready:
        lines[0] += f": within {args.timeout} s these did not become ready:"
        for workload in unready:
            lines += _explained(workload)
    else:
        lines[0] += f". Helm says: {PROVIDERS_WORDS.sub('', error.strip())}"
    serving = _serving(plan)
    return "\n".join([*lines, serving, _next_step(plan.up_command, error, serving)])


def _next_step(up_command: str, error: str, serving: str) -> str:
    if LOCKED in error:
        return "Next: another run deploys this release right now; run again when it has ended."
    if serving.startswith(UNREAD):
        return (
            f"Next: run `{up_command}` again when the cluster answers. Where Helm was cut off in its work, "
            "that says how to go on."
        )
    return (
        f"Next: mend the cause and run `{up_command}` again; there is nothing to clean up. "
        "Until then a preview shows what is not deployed."
    )


def _serving(plan: ReleasePlan) -> str:
    args = plan.args
    try:
        deployed = record.newest(plan.api, args.name, args.namespace, "deployed")
        if deployed is not None:
            workloads = observe(plan.api, watched(deployed.objects()), args.namespace)
            states = [
                f"{workload.name} {workload.ready}/{workload.wanted} ready"
                for workload in workloads
                if workload.wanted
            ]
            return (
                f"Now serving: revision {deployed.revision} ({deployed.description}) of "
                f"{deployed.created:%Y-%m-%d %H:%M UTC}: {', '.join(states) or 'no workloads'}."
            )
        status = record.status(plan.api, args.name, args.namespace)
    except ClusterError as reason:
        return f"{UNREAD} ({reason})."
    if status:
        return f"Now serving: no revision was ever deployed, and Helm calls the newest {status}."
    return "Now serving: nothing; Helm has removed what this first installation had made."


def _explained(workload: Workload) -> list[str]:
    state = workload.state
    lines = [f"{workload.kind} {workload.name}" + (f": {state}" if state else "")]
    for cause in workload.causes:
        lines.append(f"  {cause}" + (f": {cause.detail}" if cause.detail else ""))
        if cause.pod:
            lines[-1] += f" [pod {cause.pod}]"
        if cause.log:
            lines.append(f"    last lines of container {cause.container}:")
            lines += [f"    | {line}" for line in cause.log.splitlines()]
    return lines
