"""A run of the Pulumi engine, `preview`, `up` or `destroy`, and what it reports: changes, errors, notes.

The engine's own events are the source, not its printed rows: they hold each resource before and after,
with secrets already hidden.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi import automation as auto
from pulumi.automation.events import EngineEvent, OpType, StepEventMetadata

from components.release.plan import NOT_ASKED, NOT_CHECKED, NOT_COMPARED
from components.release.secrets import Secrets
from operations.deployed import Deployed
from operations.stack import secrets_in, stderr_of

# Operations that change nothing that runs.
QUIET = {OpType.SAME, OpType.READ, OpType.REFRESH, OpType.DISCARD, OpType.DISCARD_REPLACED}
VERBS = {OpType.CREATE: "create", OpType.UPDATE: "update", OpType.DELETE: "delete", OpType.IMPORT: "import"}

# What the engine puts in a secret's place in its events, and in the place of what is not known yet.
SECRET_KEY = "4dabf18193072939515e22adb298388d"  # noqa: S105
UNKNOWN = {
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "030794c1-ac77-496b-92df-f27374a8bd58",
    "e48ece36-62e2-4504-bad9-02848725956a",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
}
SECRET, NOT_KNOWN = "[secret]", "[known after the deployment]"

OPTIONS: dict[str, dict[str, Any]] = {
    "preview": {},
    "up": {"show_secrets": False},
    "destroy": {"show_secrets": False, "run_program": True},
}
REPEATED = "an unhandled error occurred: "
"""What the SDK puts before an error that the program has reported already."""
NO_REASON = ("", "update failed", "preview failed")
"""Errors that only say that another has stopped the run."""


@dataclass(kw_only=True)
class ResourceChange:
    """A resource that is not as it was."""

    operation: str
    """`create`, `update`, `replace`, `delete` or `import`."""
    type: str
    urn: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    """Its inputs before and after; what is secret is `[secret]`."""
    paths: list[str] = field(default_factory=list)
    """Changed properties by the provider's own account; None of the chart's objects has one."""

    @property
    def is_object(self) -> bool:
        """Whether the resource is a Kubernetes object of a chart."""
        return self.type.startswith("helm:") and "/" in self.type

    @property
    def kind(self) -> str:
        """The last part of its type, as in `Deployment`."""
        return self.type.rpartition(":")[2]

    @property
    def name(self) -> str:
        """The name of a Kubernetes object in the cluster, of others the name in the program."""
        name = self.urn.rpartition("::")[2]
        if self.is_object:  # its row is called RELEASE/NAMESPACE/NAME
            return name.rpartition("/")[2]
        metadata = (self.new or self.old or {}).get("metadata")
        own = metadata.get("name") if self.type.startswith("kubernetes:") and metadata else None
        return str(own or name)


@dataclass(kw_only=True)
class Run:
    """The result of a command: what it did, or would do."""

    command: str
    """`preview`, `up` or `destroy`."""
    ok: bool = False
    seconds: float = 0
    changes: list[ResourceChange] = field(default_factory=list)
    """By kind and name, without what only groups others."""
    changed: bool = False
    """Whether anything at all is not as it was."""
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Warnings and infos of the program, such as checks that could not be made."""
    failure: str = ""
    """The error of the command itself where it failed outside the program, as for a locked stack."""
    revision: str = ""
    """The revision of the Helm release, after an `up`."""
    commit: str = ""
    """The commit that was deployed; empty outside a workflow."""
    before: Deployed | None = None
    after: Deployed | None = None
    """What served before an `up` and serves after it; None where there was nothing, or it is not known."""

    @property
    def drift(self) -> list[str]:
        """The notes on objects that were changed in the cluster by others."""
        return [note for note in self.notes if note.startswith("drift:")]

    @property
    def unchecked(self) -> list[str]:
        """The notes on checks for changes in the cluster that could not be made."""
        return [note for note in self.notes if note.startswith((NOT_CHECKED, NOT_ASKED, NOT_COMPARED))]


def run(stack: auto.Stack, command: str, secrets: Secrets | None = None, *, refresh: bool = False) -> Run:
    """Run the engine, print what it prints, and gather what it reports.

    A command that fails is no exception: the result says so, with the reasons.

    Args:
        stack: to preview or to deploy.
        command: `preview`, `up` or `destroy`.
        secrets: texts to mask; without them, the stack's config is read for its own.
        refresh: look first what is there of the resources in the state.
    """
    started = time.monotonic()
    result = Run(command=command)
    events: list[EngineEvent] = []

    def print_output(line: str) -> None:
        print((secrets or Secrets()).mask(line), flush=True)

    def print_error(line: str) -> None:
        print((secrets or Secrets()).mask(line), file=sys.stderr, flush=True)

    try:
        if secrets is None:
            secrets = _secrets_of(stack)
        done = getattr(stack, command)(
            on_output=print_output,
            on_error=print_error,
            on_event=events.append,
            color="never",
            **OPTIONS[command],
            **({"refresh": True} if refresh else {}),
        )
        result.ok = True
        if command == "up" and (revision := done.outputs.get("revision")) and not revision.secret:
            result.revision = _number(revision.value)
    except auto.errors.CommandError as error:
        result.failure = stderr_of(error)
    result.seconds = time.monotonic() - started
    gather(result, events, secrets or Secrets())
    return result


def _secrets_of(stack: auto.Stack) -> Secrets:
    """Return the secrets in the config of `stack`; print what the engine says where that cannot be read.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        return secrets_in(stack.get_all_config(), stack.name)
    except auto.errors.CommandError as error:
        print(stderr_of(error), file=sys.stderr, flush=True)
        raise


def gather(result: Run, events: Iterable[EngineEvent], secrets: Secrets) -> None:
    """Put what the engine reported into `result`, with `secrets` masked."""
    steps: dict[str, StepEventMetadata] = {}
    errors: list[str] = []
    notes: list[str] = []
    for event in events:
        if event.resource_pre_event:
            step = event.resource_pre_event.metadata
            known = steps.get(step.urn)
            # A replacement is told in several steps.
            if known is None or known.op in QUIET or step.op == OpType.REPLACE:
                steps[step.urn] = step
        elif event.diagnostic_event and not event.diagnostic_event.ephemeral:
            text = secrets.mask(event.diagnostic_event.message.strip())
            match event.diagnostic_event.severity:
                case "error":
                    # The component's own report says more than the provider's words: it goes first.
                    first = "helm:index:ChartRelease::" in (event.diagnostic_event.urn or "")
                    errors.insert(0 if first else len(errors), text)
                case "warning" | "info" | "info#err":
                    notes += [text] if text else []
    changed = [step for step in steps.values() if step.op not in QUIET]
    result.changed = bool(changed)
    result.changes = sorted(
        (_change(step, secrets) for step in changed if not _only_groups(step)),
        key=lambda change: (change.kind, change.name),
    )
    result.notes = list(dict.fromkeys(notes))
    result.failure = secrets.mask(result.failure)
    result.errors = _reasons(errors)
    if not result.ok and not result.errors:
        result.errors = [result.failure or f"{result.command} failed and gave no reason"]


def _only_groups(step: StepEventMetadata) -> bool:
    """Return whether the resource is the stack, or a component that only groups others."""
    state = step.new or step.old
    if step.type == "pulumi:pulumi:Stack" or state is None:
        return True
    return not state.custom and not (step.type.startswith("helm:") and "/" in step.type)


def _change(step: StepEventMetadata, secrets: Secrets) -> ResourceChange:
    return ResourceChange(
        operation=VERBS.get(step.op, "replace"),
        type=step.type,
        urn=secrets.mask(step.urn),
        old=redact(step.old.inputs or {}, secrets) if step.old else None,
        new=redact(step.new.inputs or {}, secrets) if step.new and step.op != OpType.DELETE else None,
        paths=list(step.detailed_diff or {}),
    )


def redact(value: Any, secrets: Secrets) -> Any:
    """Return `value` with its secrets masked, those that the engine marks and `secrets`."""
    match value:
        case Mapping() if SECRET_KEY in value:
            return SECRET
        case Mapping():
            return {secrets.mask(str(key)): redact(item, secrets) for key, item in value.items()}
        case list():
            return [redact(item, secrets) for item in value]
        case str() if value in UNKNOWN:
            return NOT_KNOWN
        case str():
            return secrets.mask(value)
    return value


def _reasons(errors: list[str]) -> list[str]:
    """Return each of `errors` once, without those that only say that another has stopped the run."""
    texts = dict.fromkeys(text.removeprefix(REPEATED) for text in errors)
    return [text for text in texts if text not in NO_REASON] or [text for text in texts if text]


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, int | float) else str(value)
