"""The plan of a release: what will be deployed, whether it may be, and what the user should know of it.

It is made before anything is registered, and only reads.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi

from . import (
    adoption,
    chart,
    chart_source,
    comparison,
    crds,
    description,
    drift,
    dry_run,
    record,
    record_size,
    stale_lock,
    unstable,
)
from .args import ReleaseArgs
from .errors import ChartError, ReleaseError
from .findings import Finding, texts_of, unchecked_notes
from .kubernetes_api import Api, ApiError, ClusterError, UnreachableError
from .kubernetes_provider import keeps_nulls
from .manifest import (
    Object,
    by_key,
    comparable,
    in_their_scope,
    is_kept,
    key_of,
    label_of,
    newly_unsized,
    without_nulls,
)
from .public_texts import note_on_weak, public_texts
from .record import Record
from .references import Reference, references
from .secrets import Secrets, opened
from .stack_state import StackState
from .values import dotted, leaves

COMPONENT = "helm:index:ChartRelease"
RELEASE = "kubernetes:helm.sh/v3:Release"

# How the notes on a cluster that could not be looked at begin.
NOT_CHECKED, NOT_ASKED, NOT_COMPARED = (
    "what Helm has stored was not checked",
    "nothing was checked in the cluster",
    "not compared with the cluster",
)


NOTE_ON_MOVED = (
    "the objects of this release are shown from now on. Those that this run seems to create are there already"
)


@dataclass(kw_only=True)
class ReleasePlan:
    """A release that has been checked and may be registered; see `plan_release`."""

    args: ReleaseArgs
    """Those given; `chart` is the path of the chart that was pulled."""
    api: Api
    """Of the cluster."""
    description: str
    """What Helm will record: name, version and a digest of the chart's files, and what the release was made
    over."""
    objects: list[dict[str, Any]]
    """The chart's Kubernetes objects, as rendered."""
    secrets: Secrets = field(repr=False)
    """Those of `args.values`, and what stood in their place before."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: a foreign revision, what could not be checked."""
    drifts: list[Finding] = field(default_factory=list)
    """Objects that were changed by hand."""
    crds: list[dict[str, Any]] = field(default_factory=list)
    """CRDs of the chart's folder crds/ that come before the objects: applied, or installed by Helm."""
    newest: Record | None = None
    """The newest revision, None where there is none."""
    taken_over: Record | None = None
    """The revision that is not in this stack's state and becomes its own."""
    unstable_fields: unstable.Fields = field(default_factory=dict)
    """The fields of `objects` that each rendering has differently; they are not compared."""
    is_moved: bool = False
    """Whether the state has the Release under one of `args.aliases`."""
    up_command: str = field(default_factory=lambda: f"pulumi up --stack {pulumi.get_stack()}")
    """The command that deploys this stack, for messages."""

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The objects as they are shown: the same in each run."""
        return unstable.as_shown(self.objects, self.args.namespace, self.unstable_fields)

    @property
    def is_recorded_anew(self) -> bool:
        """Whether what is taken over is not what Pulumi may import: a revision that holds values, which would
        stand in the state in plain text, or one under a newer one that failed."""
        taken = self.taken_over
        return taken is not None and (bool(taken.values) or taken is not self.newest)

    @property
    def restored(self) -> list[Finding]:
        """The objects that are put back: Helm overwrites those that the deployment changes anyway."""
        if self.args.drift != "restore":
            return []
        namespace = self.args.namespace
        wanted = {key: comparable(item) for key, item in by_key(self.objects, namespace).items()}
        return [
            finding
            for finding in self.drifts
            if wanted.get(key_of(finding.item, namespace)) == comparable(finding.item)
        ]


def plan_release(
    args: ReleaseArgs, provider: pulumi.ProviderResource, api: Api, state: StackState | None = None
) -> ReleasePlan:
    """Return what will be deployed: render the chart, read Helm's record, ask the API server. Nothing is
    registered or changed.

    Args:
        args: the release.
        provider: the Kubernetes provider that deploys it.
        api: the cluster of that provider.
        state: the state of this stack; it is read where it is not given.

    Raises:
        ChartError: the chart cannot be had or rendered, its schema refuses the values, or the API server
            refuses objects; all refusals together.
        ReleaseError: a release of this name is there and not in the state, another run deploys it, its
            namespace is being deleted, or an object that is still in use would be; in an `up` also: the
            cluster cannot be asked.
    """
    state = StackState.read() if state is None else state
    path, pulled = chart_source.pull(args.chart, args.repository, args.version, args.digest)
    args = replace(args, chart=path, repository="", version="", digest="")
    with ThreadPoolExecutor() as threads:
        source = chart.load(args.chart)
        ahead = _ReadAhead(args, api, source, threads)

        def render(values: Mapping[str, Any] = args.values) -> list[dict[str, Any]]:
            objects = chart.render(
                source, args.name, args.namespace, values, provider, is_upgrade=ahead.is_upgrade
            )
            return in_their_scope(objects, ahead.crds.result(), args.namespace)

        rendered = render()
        unstable_fields = unstable.find(
            source.templates, rendered, args.namespace, render, lambda: ahead.has_recorded(rendered)
        )
    nearly_full = record_size.require_room(source, f"{args.namespace}/{args.name}", rendered, args.values)
    secrets = Secrets.of_values(args.values, public=public_texts(args, source, rendered, render))
    plan = ReleasePlan(
        args=args,
        api=api,
        description=source.description,
        objects=rendered,
        secrets=secrets,
        unstable_fields=unstable_fields,
        is_moved=any(urn in state.resources for urn in args.aliases),
    )
    try:
        _ask_the_cluster(plan, ahead, source.description, _stored(state, args))
    except ReleaseError as error:
        raise type(error)(plan.secrets.mask(str(error))) from None
    if secrets.not_sought:
        plan.notes.append(note_on_weak(secrets.not_sought))
    nulls = [dotted(path) for path, value in leaves(args.values) if value is None]
    if nulls and not keeps_nulls():
        plan.notes.append(f"null does not reach Helm, and the chart's own values stay: {', '.join(nulls)}")
    plan.notes += nearly_full + ([pulled] if pulled else [])
    if not args.show_objects:
        plan.notes.append("objects are not shown; rows of objects that leave this view delete nothing")
    return plan


class _ReadAhead:
    """What is read while the provider starts and renders the chart."""

    def __init__(self, args: ReleaseArgs, api: Api, source: chart.Chart, threads: Executor) -> None:
        self._args, self._api = args, api
        self.namespace = threads.submit(api.find, f"/api/v1/namespaces/{args.namespace}")
        self.newest = threads.submit(record.newest, api, args.name, args.namespace)
        self.live = threads.submit(self._read_live)
        self.is_upgrade = source.tells_upgrades and self._is_upgrade(source.description)
        # What keeps the processor busy comes last: the provider does not wait for it.
        self.crds = threads.submit(lambda: source.crds)
        self.different_crds = threads.submit(self._compare_crds)
        threads.submit(lambda: source.compressed_size)

    def _read_live(self) -> drift.Live | None:
        """Return the objects of the newest revision as they are, None where that is not deployed."""
        newest = self.newest.result()
        if newest is None or newest.status != "deployed" or self._args.drift == "ignore":
            return None
        return drift.read(self._api, newest.objects(), self._args.namespace)

    def _is_upgrade(self, files: str) -> bool:
        """Return whether Helm upgrades the release, or has upgraded it where nothing changes; False where
        the cluster does not answer, which the rest of the plan says."""
        try:
            newest = self.newest.result()
            basis = newest and record.basis(self._api, newest)
        except ClusterError:
            return False
        if basis is None or basis.status != "deployed":
            return False
        given, deployed = (without_nulls(values) for values in (opened(self._args.values), basis.values))
        is_same = description.files_in(basis.description) == files and given == deployed
        return basis is not newest or basis.revision > 1 or not is_same

    def has_recorded(self, rendered: Iterable[Object]) -> bool:
        """Return whether just this is deployed by Helm's record; False where that cannot be read."""
        try:
            newest = self.newest.result()
            return newest is not None and newest.status == "deployed" and newest.has(rendered)
        except ClusterError:
            return False

    def _compare_crds(self) -> list[Finding]:
        """Return the CRDs of the chart's folder crds/ that differ from those in the cluster; none where Helm
        is going to install them."""
        if self._args.crds == "install" and self.newest.result() is None:
            return []
        return crds.compare(self._api, self.crds.result())


def _stored(state: StackState, args: ReleaseArgs) -> Mapping[str, Any] | None:
    """Return the Release as the stack's state holds it, None where it does not."""
    urns = [*state.of_types(*args.parents, COMPONENT, RELEASE), *args.aliases]
    stored = [state.resources.get(urn, {}) for urn in urns]
    wanted = (args.name, args.namespace)
    return next((item for item in stored if (item.get("name"), item.get("namespace")) == wanted), None)


def _ask_the_cluster(
    plan: ReleasePlan, ahead: _ReadAhead, files: str, stored: Mapping[str, Any] | None
) -> None:
    recorded: list[dict[str, Any]] | None = None
    try:
        _require_living_namespace(plan.args.namespace, ahead.namespace.result)
        recorded = _read_record(plan, ahead, files, stored is not None)
        _require_nothing_in_use_is_deleted(plan, recorded)
    except ClusterError as error:
        if isinstance(error, UnreachableError) or (isinstance(error, ApiError) and error.code >= 500):
            _go_on_without_the_cluster(plan, error)
            # Helm's record cannot be read: what this stack has deployed last counts.
            last = str((stored or {}).get("description", ""))
            plan.description = last if description.files_in(last) == files else files
            return
        plan.notes = [f"{NOT_CHECKED}: {error}"]
    if plan.args.dry_run:
        _ask_about_objects(plan, recorded)


def _go_on_without_the_cluster(plan: ReleasePlan, error: ClusterError) -> None:
    """Let a preview show what it can.

    Raises:
        ReleaseError: in an `up`, which could not deploy anything.
    """
    reason = f"the API server is in trouble: {error}" if isinstance(error, ApiError) else str(error)
    if not pulumi.runtime.is_dry_run():
        raise ReleaseError(
            f"{reason}.\nNothing was changed. Run `{plan.up_command}` again when that is mended."
        )
    plan.notes, plan.drifts = [f"{NOT_ASKED}: {reason}"], []
    plan.taken_over = plan.newest = None


def _require_living_namespace(namespace: str, find: Callable[[], Object | None]) -> None:
    try:
        live = find() or {}
    except ApiError as error:
        if error.code == 403:  # the record and the dry run say what they could not read
            return
        raise
    status = live.get("status", {})
    if status.get("phase") == "Terminating":
        conditions = status.get("conditions") or []
        held = [item["message"] for item in conditions if item["status"] == "True" and item.get("message")]
        raise ReleaseError(
            f"namespace {namespace} is being deleted since {live['metadata'].get('deletionTimestamp')}; "
            "nothing can be deployed to it until it is gone.\n" + "\n".join(f"  {text}" for text in held)
        )


def _read_record(plan: ReleasePlan, ahead: _ReadAhead, files: str, is_in_state: bool) -> list[dict[str, Any]]:
    """Compare the plan with Helm's record, and that with the cluster; return the objects that Helm upgrades.

    Raises:
        ReleaseError: the release is not this stack's, or an `up` may not go on.
        ClusterError: the cluster could not be asked, or the record not be read.
    """
    args, api = plan.args, plan.api
    plan.newest = newest = ahead.newest.result()
    if newest is None:
        # Not the same twice: a release that was uninstalled by hand must not seem unchanged.
        plan.description = f"{files}, installed {api.now():%Y-%m-%dT%H:%M:%SZ}"
        _note_on_crds(plan, ahead)
        return []
    # Secrets that are replaced may be in use elsewhere, and messages quote them as well.
    plan.secrets |= Secrets.of_values(args.values, newest.values)
    plan.description = description.over(newest, files)
    if not is_in_state:
        _take_over(plan, newest)
    recorded = record.basis(api, newest).objects()
    plan.objects = unstable.as_recorded(plan.objects, recorded, args.namespace, plan.unstable_fields)
    if plan.taken_over is None and not newest.is_at_work and not description.is_ours(newest):
        plan.notes = [NOTE_ON_MOVED if plan.is_moved else _note_on_foreign(newest, plan)]
    plan.notes += _note_on_pending(args, newest, api)
    if newest.status == "deployed" and args.drift != "ignore":
        findings = drift.find(
            api, recorded, args.namespace, plan.secrets, args.leave, ahead.live.result(), newest.stored
        )
        plan.drifts = [finding for finding in findings if finding.texts]
        plan.notes += unchecked_notes(findings, NOT_COMPARED)
    restores = bool(plan.drifts) and args.drift == "restore"
    if (_note_on_crds(plan, ahead) or restores) and description.is_ours(newest):
        plan.description = f"{files}, restores revision {newest.revision}"
    plan.notes += [
        f"{label_of(item)} no longer says how many pods it has: the number that runs is kept, for an "
        "autoscaler to change"
        for item in newly_unsized(plan.objects, recorded, args.namespace).values()
    ]
    return recorded


def _note_on_crds(plan: ReleasePlan, ahead: _ReadAhead) -> bool:
    """Note what becomes of the CRDs of the chart's folder crds/; return whether some will be applied.

    Raises:
        ChartError: the API server refuses one that would be applied.
    """
    args = plan.args
    if args.crds == "apply" or plan.newest is None:
        plan.crds = ahead.crds.result()
    findings = ahead.different_crds.result()
    plan.notes += unchecked_notes(findings, "CRDs not compared with the cluster")
    differing = ", ".join(texts_of(findings))
    if args.crds == "apply":
        if refused := texts_of(finding for finding in findings if finding.refused):
            raise ChartError(f"the API server refuses CRDs of chart {args.chart}:\n  " + "\n  ".join(refused))
        plan.notes += [f"{differing}: applied before the release"] if differing else []
        return bool(differing)
    if differing:
        plan.notes.append(
            f"{differing}. Helm installs the CRDs of the chart's folder crds/ with a first installation and "
            f"never changes one; to have them applied before each deployment\n    {args.crds_command}"
        )
    return False


def _take_over(plan: ReleasePlan, newest: Record) -> None:
    """Plan to take over what Helm has deployed and this stack's state does not hold.

    Raises:
        ReleaseError: that is not asked for.
        ClusterError: Helm's record could not be read.
    """
    args = plan.args
    deployed: Record | None = newest
    if newest.status != "deployed":
        # Over a failed upgrade Helm would install, and uninstall it all again if that failed.
        deployed = record.newest(plan.api, args.name, args.namespace, "deployed")
    if deployed is None:
        return
    if not args.adopt:
        raise ReleaseError(
            f"release {args.name} in namespace {args.namespace} exists already: revision {deployed.revision} "
            f"({deployed.description}) of {deployed.created:%Y-%m-%d %H:%M UTC} is not in this stack's "
            f"state. Take it over, with its namespace, by\n    {args.adopt_command}\nor remove it by\n"
            f"    helm uninstall {args.name} -n {args.namespace}"
        )
    plan.taken_over, recorded = deployed, deployed.objects()
    plan.secrets |= Secrets.of_values(deployed.values) | Secrets.of_objects(recorded)
    rendered = unstable.as_recorded(plan.objects, recorded, args.namespace, plan.unstable_fields)
    plan.notes = adoption.compare(_asked(plan), deployed, rendered, args.values)


def _require_nothing_in_use_is_deleted(plan: ReleasePlan, recorded: Sequence[Object]) -> None:
    """Refuse to delete what the chart has no more and its other objects still name, as a Secret that is to
    be somebody else's from now on; note what is left behind.

    Raises:
        ReleaseError: objects that are still in use would be deleted; all of them together.
        ClusterError: the cluster could not be asked.
    """
    namespace = plan.args.namespace
    old, new = by_key(recorded, namespace), by_key(plan.objects, namespace)
    users: dict[Reference, list[str]] = {}
    for item in new.values():
        for reference in references(item):
            users.setdefault(reference, []).append(label_of(item))
    faults = []
    for key in sorted(old.keys() - new.keys()):
        _, kind, place, name = key
        by = users.get((kind, name), []) if place == namespace else []
        live = plan.api.find(plan.api.path(old[key], namespace)) if by else None
        if is_kept(live or old[key]):
            whom = f", for {', '.join(by)}" if by else ""
            plan.notes.append(f"{kind} {name} is left behind, by its own annotation{whom}")
        elif live:
            faults.append(
                f"{kind} {name} belongs to release {plan.args.name} and would be deleted with this "
                f"deployment, but {', '.join(by)} still needs it. To hand it over to another owner:\n"
                f"    kubectl annotate {kind.lower()} {name} -n {namespace} helm.sh/resource-policy=keep"
            )
    if faults:
        raise ReleaseError("\n".join(faults))


def _note_on_pending(args: ReleaseArgs, newest: Record, api: Api) -> list[str]:
    """Return what a preview says of what a run has left pending.

    Raises:
        ReleaseError: an `up` may not go on.
    """
    if not newest.is_pending:
        return []
    mendable, text = stale_lock.outlook(api, newest, args)
    if pulumi.runtime.is_dry_run():
        return [text]
    if not mendable:
        raise ReleaseError(text)
    return []  # the mending says so itself


def _note_on_foreign(newest: Record, plan: ReleasePlan) -> str:
    """Return what will be replaced: a revision that this stack has not deployed, or one that failed."""
    made = f"on {newest.created:%Y-%m-%d %H:%M} UTC"
    if newest.status == "failed" or newest.description.startswith("Rollback to "):
        # Helm writes the same over a deployment of this stack that failed, and over somebody's.
        made = f"made outside this stack or after a failed deployment {made}"
    else:
        made = f"made outside this stack {made}"
    compared = comparison.compare(_asked(plan), newest.objects(), plan.objects, newest.namespace)
    names = ", ".join(compared.differing)
    facts = f"What differs from this stack's: {names}" if names else "Its objects are those of this stack"
    return (
        f"revision {newest.revision}, {made}, is {newest.status} ({newest.description}) and will be "
        f"replaced. {facts}"
    )


def _asked(plan: ReleasePlan) -> Api | None:
    """Return whom to ask about objects, None where the stack does not want that."""
    return plan.api if plan.args.dry_run else None


def _ask_about_objects(plan: ReleasePlan, recorded: list[dict[str, Any]] | None) -> None:
    """Ask the API server for its opinion.

    Raises:
        ChartError: it refuses objects.
    """
    args = plan.args
    findings = dry_run.ask(plan.api, plan.objects, recorded, args.name, args.namespace, plan.crds)
    if refusals := texts_of(findings):
        count = "1 object" if len(refusals) == 1 else f"{len(refusals)} objects or fields"
        raise ChartError(
            f"the API server refuses {count} of release {args.namespace}/{args.name}:\n"
            + "\n".join(f"  {text}" for text in refusals)
        )
    plan.notes += [finding.remark for finding in findings if finding.remark]
    of_all = f" of {len(plan.objects)}"
    plan.notes += unchecked_notes(findings, "not checked by the API server", of_all)
