"""`rollback`: take the config of a stack back to what it was at a revision of its release, and deploy it.

`helm rollback` would leave Pulumi believing something else, and the next `up` would undo it. Here the
values that Helm has recorded go back into the stack file, the preview shows what that changes, and
`up` deploys it as a new revision. Credentials stay as they are today.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi import automation as auto

from components import chart_values
from components.mern_application import CHART, RELEASE
from components.release import OURS, adoption, chart, record
from components.release.api import Api, ApiError
from components.release.record import Record
from components.release.secret_values import holds, mask
from components.release.values import (
    ABSENT,
    Change,
    Path,
    differences,
    get,
    leaves,
    put,
    remove,
)
from operations import chart_history, cluster, engine, stack_file
from operations.credentials import holds_credential
from operations.report import shorten
from operations.stack_file import IMAGE_TAG, VALUES, StackFile, StackFileError, config_path
from settings import IMAGE_TAG_VARIABLE, SECRET_KEYS

OpenStack = Callable[[str], auto.Stack]
DEPLOYED = ("deployed", "superseded")
"""What Helm calls a revision that serves, or has served."""
TAKEN_OVER = adoption.DESCRIPTION.partition("{")[0]


class RollbackError(Exception):
    """Why nothing is rolled back, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ReleaseHistory:
    """The revisions of a stack's release, with the stack and its cluster as they are today."""

    name: str
    """Of the stack, as it was given."""
    stack: auto.Stack
    config: auto.ConfigMap = field(repr=False)
    """All of it, decrypted."""
    api: Api
    namespace: str
    revisions: list[Record]
    """The newest last, never empty."""
    secrets: list[str] = field(repr=False)
    """Texts to mask: today's credentials, and those of every revision."""

    @property
    def newest(self) -> Record:
        return self.revisions[-1]

    def original_description(self, revision: Record) -> str:
        """Return the description of the deployment that made `revision`: a rollback by Helm has made one of
        another revision."""
        by_number = {each.revision: each for each in self.revisions}
        while origin := re.match(r"Rollback to (\d+)", revision.description):
            earlier = by_number.get(int(origin[1]))
            if earlier is None or earlier.revision >= revision.revision:
                break
            revision = earlier
        return revision.description

    def chart_of(self, revision: Record) -> str:
        """Return name, version and digest of the chart's files; empty where this stack has not deployed
        `revision`."""
        ours = OURS.fullmatch(self.original_description(revision))
        return ours["plain"] if ours else ""

    def masked(self, text: str) -> str:
        return mask(text, self.secrets)


@dataclass(frozen=True, kw_only=True)
class RestoredConfig:
    """The config of a stack as it was at a revision."""

    config: dict[str, Any]
    """`mern:values` and `mern:imageTag`, where there is any."""
    kept: list[str]
    """Paths that stay as they are today, because a credential stands there."""


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
    history = _read_history(name, open_stack)
    if number is None:
        print("\n".join(_listed(history, file.config)))
        return True
    revision = _revision(history, number, file.config)
    restored = restored_config(revision, history, file.config)
    changes = list(differences(_own(file.config), restored.config))
    if revision is history.newest and not changes:
        print(f"revision {number} is what runs, and {file.path} says the same: nothing to do")
        return True
    _require_same_chart(revision, history, chart_as_it_is)
    if os.environ.get(IMAGE_TAG_VARIABLE):
        raise RollbackError(f"{IMAGE_TAG_VARIABLE} is set and would win over the tag of then: unset it")
    print(_report(revision, changes, restored, history, file))
    keep = done = False
    try:
        keys = {str(path[0]) for path, _, _ in changes}
        stack_file.edit(history.stack, file, {key: restored.config.get(key, ABSENT) for key in keys})
        keep, done = _deploy(revision, history, file, yes=yes, edited=bool(changes))
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
    try:
        answer = input(f"\nRoll back to revision {revision}, as previewed? [y/N] ")
    except EOFError:
        _print_error("Nobody is here to say yes: --yes does.")
        return False
    return answer.strip().lower() in ("y", "yes")


def _is_deployed(history: ReleaseHistory) -> bool:
    """Return whether the run that failed has deployed a revision all the same."""
    try:
        newest = record.newest(history.api, RELEASE, history.namespace)
    except Exception:
        return False
    return (
        newest is not None
        and newest.revision > history.newest.revision
        and newest.status == "deployed"
        and bool(OURS.fullmatch(newest.description))
    )


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)


# ---- the revisions that Helm keeps


def _read_history(name: str, open_stack: OpenStack) -> ReleaseHistory:
    """Open the stack, read its config, and its release's revisions from the cluster.

    Raises:
        RollbackError: one of it cannot be done, or there is no revision.
    """
    try:
        stack = open_stack(name)
        config = stack.get_all_config()
    except auto.errors.CommandError as error:
        raise RollbackError(f"stack {name} cannot be opened: {engine.stderr_of(error)}") from None
    except FileNotFoundError:
        raise RollbackError("there is no `pulumi` on PATH: https://www.pulumi.com/docs/install") from None
    secrets = engine.secrets_in(config)
    try:
        api, namespace = cluster.connect(config)
    except (KeyError, TypeError, ValueError):
        raise RollbackError(
            f"the config of stack {name} names no cluster and namespace; what is wrong with it says\n"
            f"    pulumi preview --stack {name}"
        ) from None
    except (RuntimeError, pulumi.RunError) as error:
        raise RollbackError(
            f"the cluster of stack {name} is not found: {mask(str(error), secrets)}"
        ) from None
    where = f"release {RELEASE} in namespace {namespace}"
    try:
        revisions = record.history(api, RELEASE, namespace)
    except ApiError as error:
        raise RollbackError(f"what Helm has stored of {where} may not be read: {error}") from None
    except Exception as error:  # no connection, no credentials
        why = mask(str(error), secrets) or type(error).__name__
        raise RollbackError(f"the cluster of stack {name} cannot be asked: {why}") from None
    if not revisions:
        raise RollbackError(
            f"there is no {where}: nothing to roll back. `pulumi up --stack {name}` deploys it"
        )
    return ReleaseHistory(
        name=name,
        stack=stack,
        config=config,
        api=api,
        namespace=namespace,
        revisions=revisions,
        secrets=_with_secrets_of(revisions, secrets),
    )


def _with_secrets_of(revisions: Iterable[Record], secrets: Iterable[str]) -> list[str]:
    """Return `secrets` and the credentials of all `revisions`, the longest first."""
    texts = set(secrets)
    for revision in revisions:
        texts.update(adoption.secrets_in(revision))
        texts.update(
            text for _, text in chart_values.credentials_in(revision.values) if isinstance(text, str)
        )
    return sorted(texts - {""}, key=len, reverse=True)


def _revision(history: ReleaseHistory, number: int, config: Mapping[str, Any]) -> Record:
    """Return the revision to go back to.

    Raises:
        RollbackError: Helm does not keep it, or it was never deployed.
    """
    revision = next((each for each in history.revisions if each.revision == number), None)
    if revision is None:
        listed = "\n".join(_listed(history, config))
        raise RollbackError(f"Helm keeps no revision {number} of release {RELEASE}.\n{listed}")
    if revision.status not in DEPLOYED:
        raise RollbackError(
            f"revision {number} is {revision.status} ({history.masked(revision.description)}): only one "
            "that was deployed can be gone back to"
        )
    if revision.description.startswith(TAKEN_OVER):
        raise RollbackError(f"revision {number} holds no values ({revision.description}): go back to another")
    return revision


def _listed(history: ReleaseHistory, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield two lines for each revision; the second says what a rollback to it would change."""
    yield f"Revisions of release {RELEASE} in namespace {history.namespace}:"
    chart_now = _chart_now()
    for revision in history.revisions:
        ours = OURS.fullmatch(revision.description)
        text = history.masked(history.chart_of(revision) if ours else revision.description)
        made = f"{revision.created:%Y-%m-%d %H:%M} UTC"
        yield f"  {revision.revision}  {made}  {revision.status}  {shorten(text, 120)}"
        if revision.status not in DEPLOYED or revision.description.startswith(TAKEN_OVER):
            continue
        restored = restored_config(revision, history, config)
        paths = [config_path(path) for path, _, _ in differences(_own(config), restored.config)]
        files = ["the chart's files"] if history.chart_of(revision) != chart_now else []
        differing = ", ".join([*files, *paths]) or "nothing"
        yield f"     differs from the stack file in: {history.masked(differing)}"


def _chart_now() -> str:
    return chart.describe(CHART)


def _require_same_chart(revision: Record, history: ReleaseHistory, as_it_is: bool) -> None:
    """Refuse a rollback of values alone, where the chart's files have changed since; name the commit that
    has those files."""
    now, then = _chart_now(), history.chart_of(revision)
    if now == then or as_it_is:
        return
    if not then:
        text = history.masked(history.original_description(revision))
        raise RollbackError(
            f"revision {revision.revision} was not deployed by this stack ({text}): the files of its chart "
            "are known to nobody. --chart-as-it-is takes only its values"
        )
    commit = chart_history.commit_of(then)
    lines = [
        f"revision {revision.revision} was deployed from other files of the chart: {then}, not {now}. Its "
        "values alone do not bring it back."
    ]
    if commit:
        # `git checkout` alone would leave the files that are newer.
        lines += [
            f"Commit {history.masked(str(commit))} has them:",
            f"    git checkout --no-overlay {commit.hash} -- {chart_history.FOLDER}",
            "and then this again.",
        ]
    else:
        lines.append("No commit that Git has here has those files.")
    raise RollbackError("\n".join([*lines, "--chart-as-it-is takes only its values."]))


# ---- the config of a revision


def restored_config(revision: Record, history: ReleaseHistory, config: Mapping[str, Any]) -> RestoredConfig:
    """Return what `mern:values` and `mern:imageTag` were at `revision`, without any credential.

    Args:
        revision: of `history`.
        history: of the release.
        config: that of the stack file today.
    """
    today = config.get(VALUES)
    own = today if isinstance(today, Mapping) else {}
    running = history.newest.values
    is_ours = bool(history.chart_of(revision))
    values, image_tag = chart_values.strip(revision.values, own, running)
    kept = []
    for path, now, then in [*_value_by_value(own, values)]:
        if then is not ABSENT and _is_secret(path, then, history.secrets, is_ours):
            kept.append(config_path((VALUES, *path)))
            if now is ABSENT:
                remove(values, path)
            else:
                put(values, path, now)
    for path, leaf in leaves(own):
        if leaf is None and get(running, path) is get(values, path) is ABSENT:
            put(values, path, None)  # Helm keeps no record of it
    back: dict[str, Any] = {VALUES: values} if values or VALUES in config else {}
    return RestoredConfig(config=back | ({IMAGE_TAG: image_tag} if image_tag else {}), kept=kept)


def _value_by_value(old: Any, new: Any) -> Iterator[Change]:
    """Yield the differences; a mapping that is new by each of its values: a credential among them keeps
    back no other."""
    for path, before, after in differences(old, new):
        if before is ABSENT:
            yield from ((inner, ABSENT, leaf) for inner, leaf in leaves(after, path))
        else:
            yield path, before, after


def _is_secret(path: Path, value: Any, secrets: list[str], is_ours: bool) -> bool:
    """Return whether a value of a revision must not get into a stack file: it is a known credential, has one
    in it, or, where this stack has not made the revision, looks like one."""
    if not is_ours and holds_credential(value, path):
        return True
    texts = [text for _, leaf in leaves(value, lists=True) if len(text := str(leaf)) > 2]
    # A short one can be part of a word.
    long = [secret for secret in secrets if len(secret) >= 8]
    return any(text in secrets or holds(text, long) for text in texts)


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the config that a rollback sets."""
    return {key: config[key] for key in (IMAGE_TAG, VALUES) if config.get(key) is not None}


# ---- what the user reads


def _report(
    revision: Record,
    changes: list[Change],
    restored: RestoredConfig,
    history: ReleaseHistory,
    file: StackFile,
) -> str:
    text = history.chart_of(revision) or history.original_description(revision)
    made = f"{revision.created:%Y-%m-%d %H:%M} UTC, {text}"
    lines = [f"Back to revision {revision.revision} of {made}."]
    lines.append(f"In {file.path}:" if changes else "The stack file says the same as then.")
    for path, old, new in changes:
        if old is ABSENT:
            lines.append(f"  + {config_path(path)}: {_shown(new)}")
        elif new is ABSENT:
            lines.append(f"  - {config_path(path)}: {_shown(old)}")
        else:
            lines.append(f"  ~ {config_path(path)}: {_shown(old)} → {_shown(new)}")
    if keys := other_credentials(revision, history):
        lines.append(f"Other credentials than then; today's are kept: {', '.join(keys)}")
    if restored.kept:
        lines.append(f"Not taken back, because a credential stands there: {', '.join(restored.kept)}")
    return history.masked("\n".join(lines)) + "\n"


def other_credentials(revision: Record, history: ReleaseHistory) -> list[str]:
    """Return the config keys of credentials that are not what they were at `revision`."""
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
