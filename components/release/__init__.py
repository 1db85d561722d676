"""A `helm.v3.Release` of a local chart that tells the truth. It serves any chart.

    plan = plan_release(ReleaseArgs(chart="./chart", name="web", namespace="shop"), provider, api)
    ChartRelease("web", plan, pulumi.ResourceOptions(provider=provider))

`plan_release` renders the chart, reads what Helm has stored and asks the API server, before anything
is registered: what cannot be deployed stops the program first. `ChartRelease` then registers the
Release, and each Kubernetes object of the chart as its child; while Helm waits it shows what for,
when Helm fails it says why, and what a killed run left behind is mended.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
from pulumi_kubernetes.helm.v3 import Release

from components.release import adoption, chart, drift, dry_run, objects, record
from components.release.api import Api, ApiError, UnreachableError
from components.release.chart import ChartError
from components.release.drift import Drift
from components.release.quiet_exit import quiet_exit
from components.release.record import Record
from components.release.rollout import Rollout, is_mendable, pending_text
from components.release.secret_values import marked, mask, secrets_of

__all__ = [
    "Api",
    "ApiError",
    "ChartError",
    "ChartRelease",
    "ReleaseArgs",
    "ReleasePlan",
    "plan_release",
    "quiet_exit",
]

# How the notes on a cluster that could not be looked at begin.
NOT_CHECKED, NOT_ASKED, NOT_COMPARED = (
    "what Helm has stored was not checked",
    "nothing was checked in the cluster",
    "not compared with the cluster",
)

# What `chart.describe` writes, and what is put behind it when Helm's record was not ours.
OURS = re.compile(
    r"(?P<plain>.+ \(files [0-9a-f]{16}\))(, (replaces|restores) revision \d+|, installed \S+)?"
)


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
    dry_run: bool = True
    """Ask the API server about each object before anything is registered."""
    drift: Literal["ignore", "report", "restore"] = "report"
    """What to do about objects that were changed by hand: not look, say so, or put them back."""
    leave: Sequence[str] = ()
    """Patterns of fields that are no drift, as `Deployment/web:spec.replicas`; `*` is any text. What the
    chart sets, each deployment sets again: a chart has to leave out what others own for good."""
    adopt: bool = False
    """Take over a release of this name that is not in the stack's state: one that somebody else has
    made, or this stack's own after its state was lost."""
    unlock_revision: int | None = None
    """A revision that a killed run has left pending and that may be marked failed at once; without
    it, one is mended when it is older than twice the timeout."""
    unlock_command: str = "set unlock_revision={revision}"
    """How a user sets `unlock_revision`, for messages."""
    adopt_command: str = "set adopt=True"
    """How a user sets `adopt`, for messages."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout is a positive number of seconds, not {self.timeout}")
        if self.chart.startswith("/"):
            raise ValueError(f"chart is a path relative to the program, not {self.chart}")


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """A release that has been checked and may be registered; see `plan_release`."""

    args: ReleaseArgs
    api: Api
    description: str
    """What Helm will record. It names the chart's files by a digest, and Pulumi compares it: so an
    edited template is a change, and so is a record that is not this stack's."""
    objects: list[dict[str, Any]]
    secrets: list[str] = field(repr=False)
    """Texts that must not be seen: those of `args.values`, and what stood there before."""
    notes: list[str]
    """What the user should know: a foreign revision, what could not be checked."""
    drifts: list[Drift] = field(default_factory=list)
    """What was changed by hand."""
    adopts: Record | None = None
    """The revision of somebody else that is taken over."""
    exists: bool = False
    """A release of this name is there."""


def plan_release(args: ReleaseArgs, provider: pulumi.ProviderResource, api: Api) -> ReleasePlan:
    """Render the chart, read Helm's record, ask the API server.

    Raises:
        ChartError: the chart cannot be rendered, its schema refuses the values, or the API server
            refuses objects; all refusals together. In an `up` also: the cluster cannot be asked.
    """
    plain = chart.describe(args.chart)
    rendered = chart.render(args.chart, args.name, args.namespace, args.values, provider)
    secrets = secrets_of(args.values)
    description, notes, drifts, adopts, newest = plain, list[str](), list[Drift](), None, None
    recorded: list[dict[str, Any]] | None = []
    try:
        _refuse_dying_namespace(api, args.namespace)
        newest = record.newest(api, args.name, args.namespace)
        if newest is None:
            # Not the same twice: a release that was uninstalled by hand must not seem unchanged.
            description = f"{plain}, installed {api.now():%Y-%m-%dT%H:%M:%SZ}"
        else:
            # Those that are replaced may be in use elsewhere, and messages quote them as well.
            secrets = secrets_of(args.values, newest.values)
            if args.adopt and newest.status == "deployed" and not OURS.fullmatch(newest.description):
                adopts = newest
                secrets = sorted({*secrets, *adoption.secrets_in(newest)}, key=len, reverse=True)
            description, notes = _describe(plain, newest, rendered, secrets)
            if adopts is not None:
                notes = adoption.compare(newest, rendered, args.values)
            notes += _pending(args, newest, api)
            recorded = record.basis(api, newest).objects()
            if newest.status == "deployed" and args.drift != "ignore":
                found = drift.find(api, recorded, args.namespace, secrets, args.leave)
                drifts, notes = found.drifts, notes + _not_compared(found)
                if drifts and args.drift == "restore" and OURS.fullmatch(newest.description):
                    description = f"{plain}, restores revision {newest.revision}"
            for item in dry_run.unsized(rendered, recorded, args.namespace).values():
                notes.append(
                    f"{item['kind']} {item['metadata']['name']} no longer says how many pods it has: the "
                    "number that runs is kept, for an autoscaler to change"
                )
    except ChartError:
        raise
    except Exception as error:
        if isinstance(error, UnreachableError) or (isinstance(error, ApiError) and error.code >= 500):
            return _unchecked(args, api, plain, rendered, secrets, error)
        why = error if isinstance(error, ApiError) else type(error).__name__  # a record that is none
        recorded, notes = None, [f"{NOT_CHECKED}: {why}"]
    if args.dry_run:
        notes += _ask(args, api, rendered, recorded, secrets)
    if not args.show_objects:
        notes.append("objects are not shown; rows of objects that leave this view delete nothing")
    # Helm's description of a failure is the API server's message, which can quote a value.
    notes = [mask(note, secrets) for note in notes]
    return ReleasePlan(
        args=args,
        api=api,
        description=description,
        objects=rendered,
        secrets=secrets,
        notes=notes,
        drifts=drifts,
        adopts=adopts,
        exists=newest is not None,
    )


def _unchecked(
    args: ReleaseArgs,
    api: Api,
    plain: str,
    rendered: list[dict[str, Any]],
    secrets: list[str],
    error: Exception,
) -> ReleasePlan:
    """What a preview shows where the cluster cannot be asked.

    Raises:
        ChartError: in an `up`, which could not deploy anything.
    """
    why = mask(str(error), secrets)
    if isinstance(error, ApiError):
        why = f"the API server is in trouble: {why}"
    if not pulumi.runtime.is_dry_run():
        raise ChartError(f"{why}.\nNothing was changed. Run `pulumi up` again when that is mended.")
    notes = [f"{NOT_ASKED}: {why}"]
    return ReleasePlan(args=args, api=api, description=plain, objects=rendered, secrets=secrets, notes=notes)


def _not_compared(found: drift.Findings) -> list[str]:
    why = Counter(text.partition(": ")[2] for text in found.unchecked)
    return [f"{NOT_COMPARED}: {count} objects: {text}" for text, count in why.items()]


def _pending(args: ReleaseArgs, newest: record.Record, api: Api) -> list[str]:
    """What to say in a preview of what a run has left pending.

    Raises:
        ChartError: an `up` may not go on.
    """
    if not newest.is_pending:
        return []
    now = api.now()
    mendable = is_mendable(newest, args.unlock_revision, args.timeout, now)
    text = pending_text(newest, mendable, args.timeout, args.unlock_command, now)
    if pulumi.runtime.is_dry_run():
        return [text]
    if not mendable:
        raise ChartError(text)
    return []  # the mending says so itself


def _refuse_dying_namespace(api: Api, namespace: str) -> None:
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}")
    except ApiError as error:
        if error.code in (403, 404):  # the record and the dry run say what they could not read
            return
        raise
    if found.get("status", {}).get("phase") == "Terminating":
        conditions = found["status"].get("conditions") or []
        held = [c["message"] for c in conditions if c["status"] == "True" and c.get("message")]
        since = found["metadata"].get("deletionTimestamp")
        raise ChartError(
            f"namespace {namespace} is being deleted since {since}; nothing can be deployed to it until it "
            "is gone.\n" + "\n".join(f"  {text}" for text in held)
        )


def _describe(
    plain: str, newest: record.Record, rendered: list[dict[str, Any]], secrets: list[str]
) -> tuple[str, list[str]]:
    """The description to deploy with, and what was found that is not this stack's.

    The newest revision, if it is ours and has the same files, is repeated to the letter: no change.
    Whatever else stands there is replaced, which is a change by its name alone.
    """
    ours = OURS.fullmatch(newest.description)
    if newest.status == "deployed" and ours:
        same = ours["plain"] == plain
        return newest.description if same else plain, []
    wanted = f"{plain}, replaces revision {newest.revision}"
    if newest.is_pending:
        return wanted, []
    differing = _differing(newest, rendered)
    made = f"on {newest.created:%Y-%m-%d %H:%M} UTC"
    if newest.status == "failed" or newest.description.startswith("Rollback to "):
        # Helm writes the same over a deployment of this stack that failed, and over somebody's.
        made = f"made outside this stack or after a failed deployment {made}"
    else:
        made = f"made outside this stack {made}"
    note = (
        f"revision {newest.revision}, {made}, is {newest.status} ({mask(newest.description, secrets)}) and "
        "will be replaced. "
    )
    if differing:
        note += f"What differs from this stack's: {', '.join(differing)}"
    else:
        note += "Its objects are those of this stack"
    return wanted, [note]


def _differing(newest: record.Record, rendered: list[dict[str, Any]]) -> list[str]:
    def keyed(items: list[dict[str, Any]]) -> dict[dry_run.Key, dict[str, Any]]:
        return {
            dry_run.key_of(item, newest.namespace): objects.without_chart_version(dry_run.bare(item))
            for item in items
            if not dry_run.is_hook(item)
        }

    there, here = keyed(newest.objects()), keyed(rendered)
    return sorted(
        f"{key[1]} {key[3]}" for key in there.keys() | here.keys() if there.get(key) != here.get(key)
    )


def _ask(
    args: ReleaseArgs,
    api: Api,
    rendered: list[dict[str, Any]],
    recorded: list[dict[str, Any]] | None,
    secrets: list[str],
) -> list[str]:
    opinion = dry_run.ask(api, rendered, recorded, args.name, args.namespace, secrets)
    if opinion.refusals:
        count = "1 object" if len(opinion.refusals) == 1 else f"{len(opinion.refusals)} objects or fields"
        raise ChartError(
            f"the API server refuses {count} of release {args.namespace}/{args.name}:\n"
            + "\n".join(f"  {text}" for text in opinion.refusals)
        )
    why = Counter(text.partition(": ")[2] for text in opinion.unchecked)
    return [
        f"not checked by the API server: {count} of {len(rendered)} objects: {text}"
        for text, count in why.items()
    ]


def _untouched(plan: ReleasePlan) -> list[Drift]:
    """The drift of objects that this deployment leaves alone otherwise; Helm overwrites the others."""
    namespace = plan.args.namespace
    wanted = {dry_run.key_of(item, namespace): dry_run.bare(item) for item in plan.objects}
    return [
        each
        for each in plan.drifts
        if wanted.get(dry_run.key_of(each.item, namespace)) == dry_run.bare(each.item)
    ]


class ChartRelease(pulumi.ComponentResource):
    """A release of a local chart, and the Kubernetes objects it consists of."""

    status: pulumi.Output[Any]
    """What Helm says of the deployed release: revision, status, version of the chart."""

    def __init__(
        self,
        name: str,
        plan: ReleasePlan,
        opts: pulumi.ResourceOptions | None = None,
        before_delete: Sequence[pulumi.ResourceHook] = (),
    ) -> None:
        """Register what `plan` holds.

        Args:
            name: of the resources.
            plan: of `plan_release`.
            opts: of the component.
            before_delete: hooks of the Release; with any, `pulumi destroy` needs `--run-program`.
        """
        super().__init__("helm:index:ChartRelease", name, None, opts)
        args = plan.args
        for note in plan.notes:
            pulumi.log.info(note, self)
        for found in plan.drifts:
            for text in found.texts:
                pulumi.log.warn(f"drift: {text}", self)
        rollout = Rollout(
            api=plan.api,
            name=args.name,
            namespace=args.namespace,
            objects=plan.objects,
            restored=_untouched(plan) if args.drift == "restore" else [],
            adopts=plan.adopts is not None,
            adopt=args.adopt,
            secrets=plan.secrets,
            timeout=args.timeout,
            unlock_revision=args.unlock_revision,
            unlock_command=args.unlock_command,
            adopt_command=args.adopt_command,
            component=self,
        )
        import_id = None
        if plan.adopts is not None and not pulumi.runtime.is_dry_run():
            # A preview would show the values of what is imported.
            import_id = f"{args.namespace}/{args.name}"
            if plan.adopts.values and not adoption.take_over(plan.api, plan.adopts):
                raise ChartError(f"revision {plan.adopts.revision} has just changed: run again.")
        release = Release(
            name,
            name=args.name,
            namespace=args.namespace,
            chart=args.chart,
            values=marked(args.values),
            description=plan.description,
            timeout=args.timeout,
            atomic=True,
            max_history=10,
            skip_await=False,
            create_namespace=False,
            # Acts on a first install only, over what a killed one left; refuses over a deployed one.
            replace=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=opts.depends_on if opts else None,
                hooks=rollout.hooks(before_delete),
                import_=import_id,
            ),
        )
        if args.show_objects:
            objects.show(
                plan.objects,
                release=release,
                name=args.name,
                namespace=args.namespace,
                secrets=plan.secrets,
            )
        self.status = release.status
        self.register_outputs({"status": release.status})
