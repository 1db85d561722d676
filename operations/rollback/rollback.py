"""Take a stack back to a revision: edit its config, preview, ask, deploy."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pulumi
from pulumi import automation as auto

from components import chart_values
from components.mern_application import CHART, RELEASE
from components.release import ClusterError, chart, record
from components.release.description import files_in, is_ours
from components.release.record import Record
from components.release.values import ABSENT, get
from operations import chart_history, stack_file
from operations.ci import engine
from operations.ci.report import shorten
from operations.rollback.history import DEPLOYED, ReleaseHistory, RollbackError, read_history
from operations.rollback.restored_config import RestoredConfig, restored_config
from operations.stack_file import StackFile, StackFileError, config_path
from settings import IMAGE_TAG_VARIABLE, IMAGES_VARIABLE, SECRET_KEYS

OpenStack = Callable[[str], auto.Stack]


def run(args: argparse.Namespace, open_stack: OpenStack) -> int:
    """Roll back; return 1 where it was not done."""
    try:
        done = rollback(
            args.stack,
            args.revision,
            yes=args.yes,
            chart_as_it_is=args.chart_as_it_is,
            open_stack=open_stack,
        )
    except (RollbackError, StackFileError, pulumi.RunError) as error:
        _print_error(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _print_error("Stopped.")
        return 1
    return 0 if done else 1


def rollback(
    name: str, number: int | None, *, yes: bool, chart_as_it_is: bool, open_stack: OpenStack
) -> bool:
    """Take a stack back to a revision, after the preview and a yes; return whether that is done.

    Unless it is, the stack file stays as it was.

    Args:
        name: of the stack.
        number: of the revision; None lists those that Helm keeps.
        yes: deploy without asking.
        chart_as_it_is: take only the values back, where the chart's files were others.
        open_stack: opens the stack of a name.

    Raises:
        RollbackError: it cannot be done; nothing has changed.
        StackFileError: the stack file cannot be read, or not be edited.
    """
    file = stack_file.read(name)
    history = read_history(name, open_stack)
    with history.secrets.masked_in_errors():
        if number is None:
            print(history.masked("\n".join(_listed(history, file.config))))
            return True
        return _roll_back(number, history, file, yes=yes, chart_as_it_is=chart_as_it_is)


def _roll_back(
    number: int, history: ReleaseHistory, file: StackFile, *, yes: bool, chart_as_it_is: bool
) -> bool:
    revision = _revision(history, number, file.config)
    restored = restored_config(revision, history, file.config)
    if revision is history.newest and not restored.changes:
        print(f"revision {number} is what runs, and {file.path} says the same: nothing to do")
        return True
    _require_same_chart(revision, history, chart_as_it_is)
    for variable in (IMAGE_TAG_VARIABLE, IMAGES_VARIABLE):
        if os.environ.get(variable):
            raise RollbackError(f"{variable} is set and would override the images of then: unset it")
    print(history.masked(_report(revision, restored, history, file)))
    keep = done = False
    try:
        keys = sorted({str(path[0]) for path, _, _ in restored.changes})
        stack_file.edit(history.stack, file, {key: restored.config.get(key, ABSENT) for key in keys})
        keep, done = _deploy(revision, history, file, yes=yes, edited=bool(restored.changes))
    finally:
        if not keep:
            file.restore()
            _print_error(f"{file.path} is as it was.")
    return done


def _deploy(
    revision: Record, history: ReleaseHistory, file: StackFile, *, yes: bool, edited: bool
) -> tuple[bool, bool]:
    """Preview, ask, deploy; return whether the edited stack file stays, and whether all went well."""
    preview = engine.run(history.stack, "preview", history.secrets)
    if not preview.ok:
        _print_error(f"\nNot rolled back to revision {revision.revision}: the preview says why.")
        return False, False
    if not (preview.changed or edited):
        print(f"\nWhat runs is the same as revision {revision.revision}: nothing to do")
        return True, True
    if not (yes or _is_confirmed(revision.revision)):
        _print_error("\nNot rolled back.")
        return False, False
    run = engine.run(history.stack, "up", history.secrets)
    if run.ok:
        runs = f"Revision {run.revision}" if run.revision else "What runs now"
        print(f"\n{runs} has the config of revision {revision.revision}. Next: commit {file.path}")
        return True, True
    if _is_deployed(history):
        _print_error(
            f"\nThe release is rolled back, but something after it failed. Once that is mended:\n"
            f"    pulumi up --stack {history.name}"
        )
        return True, False
    _print_error(f"\nThe rollback to revision {revision.revision} failed.")
    return False, False


def _is_confirmed(revision: int) -> bool:
    """Ask whether to deploy; return the answer, no where nobody can be asked."""
    try:
        answer = input(f"\nRoll back to revision {revision}, as previewed? [y/N] ")
    except EOFError:
        _print_error("Nobody can be asked here: --yes deploys without asking.")
        return False
    return answer.strip().lower() in ("y", "yes")


def _is_deployed(history: ReleaseHistory) -> bool:
    """Return whether the run that failed has deployed a revision all the same."""
    try:
        newest = record.newest(history.api, RELEASE, history.namespace)
    except ClusterError:
        return False
    return newest is not None and newest.revision > history.newest.revision and is_ours(newest)


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)


def _revision(history: ReleaseHistory, number: int, config: Mapping[str, Any]) -> Record:
    """Return the revision to go back to.

    Raises:
        RollbackError: Helm does not keep it, or it was never deployed.
    """
    revision = next((item for item in history.revisions if item.revision == number), None)
    if revision is None:
        listed = "\n".join(_listed(history, config))
        raise RollbackError(f"Helm keeps no revision {number} of release {RELEASE}.\n{listed}")
    if revision.status not in DEPLOYED:
        raise RollbackError(
            f"revision {number} is {revision.status} ({revision.description}): only one "
            "that was deployed can be restored"
        )
    if not history.holds_values(revision):
        raise RollbackError(f"revision {number} holds no values ({revision.description}): choose another")
    return revision


def _listed(history: ReleaseHistory, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield two lines for each revision; the second says what a rollback to it would change."""
    yield f"Revisions of release {RELEASE} in namespace {history.namespace}:"
    chart_now = _chart_now()
    for revision in history.revisions:
        # Before it is cut: no mask finds a part of a credential.
        text = history.masked(files_in(revision.description) or revision.description)
        made = f"{revision.created:%Y-%m-%d %H:%M} UTC"
        yield f"  {revision.revision}  {made}  {revision.status}  {shorten(text, 120)}"
        if not history.holds_values(revision):
            continue
        paths = [config_path(path) for path, _, _ in restored_config(revision, history, config).changes]
        files = ["the chart's files"] if history.chart_of(revision) != chart_now else []
        differing = ", ".join([*files, *paths]) or "nothing"
        yield f"     differs from the stack file in: {differing}"


def _chart_now() -> str:
    """Return name, version and digest of the chart's files of today."""
    return chart.load(CHART).description


def _require_same_chart(revision: Record, history: ReleaseHistory, as_it_is: bool) -> None:
    """Refuse a rollback of values alone, where the chart's files have changed since; name the commit that
    has those files."""
    now, then = _chart_now(), history.chart_of(revision)
    if now == then or as_it_is:
        return
    if not then:
        text = history.original_description(revision)
        raise RollbackError(
            f"revision {revision.revision} was not deployed by this stack ({text}): the files of its chart "
            "are not known. --chart-as-it-is takes only its values back"
        )
    commit = chart_history.commit_of(then)
    lines = [
        f"revision {revision.revision} was deployed from other files of the chart: {then}, not {now}. Its "
        "values alone do not bring it back."
    ]
    if commit:
        # `git checkout` alone would leave the files that are newer.
        lines += [
            f"Commit {commit} has them:",
            f"    git checkout --no-overlay {commit.hash} -- {chart_history.FOLDER}",
            "and then this again.",
        ]
    else:
        lines.append("No commit that Git has here has those files.")
    raise RollbackError("\n".join([*lines, "--chart-as-it-is takes only its values back."]))


def _report(
    revision: Record,
    restored: RestoredConfig,
    history: ReleaseHistory,
    file: StackFile,
) -> str:
    """Return what a rollback changes in the stack file, and what it leaves."""
    text = history.chart_of(revision) or history.original_description(revision)
    made = f"{revision.created:%Y-%m-%d %H:%M} UTC, {text}"
    lines = [f"Back to revision {revision.revision} of {made}."]
    lines.append(f"In {file.path}:" if restored.changes else "The stack file says the same as then.")
    for path, old, new in restored.changes:
        if old is ABSENT:
            lines.append(f"  + {config_path(path)}: {_shown(new)}")
        elif new is ABSENT:
            lines.append(f"  - {config_path(path)}: {_shown(old)}")
        else:
            lines.append(f"  ~ {config_path(path)}: {_shown(old)} → {_shown(new)}")
    if keys := changed_credentials(revision, history):
        lines.append(f"Credentials changed since then; today's are kept: {', '.join(keys)}")
    if restored.kept:
        lines.append(f"Not taken back, because a credential stands there: {', '.join(restored.kept)}")
    return "\n".join(lines) + "\n"


def changed_credentials(revision: Record, history: ReleaseHistory) -> list[str]:
    """Return the config keys of the credentials that have changed since `revision`."""
    then: dict[str, set[Any]] = {}
    for key, text in chart_values.credentials_in(revision.values):
        then.setdefault(key, set()).add(text)
    today: dict[str, set[Any]] = {}
    for key in SECRET_KEYS:
        item = history.config.get(f"mern:{key}")
        if item is not None and key == "serverSecrets":
            today |= {f"{key}.{name}": {text} for name, text in json.loads(item.value).items()}
        elif item is not None:
            today[key] = {item.value}
    keys = {f"mern:{key}" for key in then.keys() | today.keys() if then.get(key) != today.get(key)}
    if get(revision.values, chart_values.ROLE) != get(history.newest.values, chart_values.ROLE):
        keys.add("mern:pythonScript")
    return sorted(keys)


def _shown(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 160)
