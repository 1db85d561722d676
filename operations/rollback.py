"""`rollback`: the config of a stack becomes what it was at a revision of its release, and is deployed.

`helm rollback` would leave Pulumi believing something else, and the next `up` would undo it. Here the
values that Helm has recorded go back into the stack file, the preview shows what that changes, and
`up` deploys it as a new revision. Credentials stay as they are today.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi import automation as auto

from components import chart_values
from components.mern_application import CHART, RELEASE
from components.release import OURS, adoption, chart, record
from components.release.api import Api, ApiError
from components.release.record import Record
from components.release.secret_values import holds, map_leaves, mask
from components.release.values import get
from operations import chart_history, cluster, engine
from operations.move import IMAGE_TAG, VALUES, MoveError, end_of, read_stack_file, with_config
from operations.old_values import Dumper, holds_credential
from operations.report import GONE, shorten
from settings import IMAGE_TAG_VARIABLE, SECRET_KEYS

Keys = tuple[str, ...]
Change = tuple[Keys, Any, Any]
"""Where in `config` of the stack file, what stands there, and what it becomes; GONE: nothing."""
OpenStack = Callable[[str], auto.Stack]

TAKEN_OVER = adoption.DESCRIPTION.partition("{")[0]


class RollbackError(Exception):
    """Why nothing is rolled back, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the stack and its cluster say."""

    stack: str
    config: Mapping[str, str]
    """All of it, decrypted."""
    api: Api
    namespace: str
    history: list[Record]
    """The newest last, never empty."""
    secrets: list[str] = field(repr=False)
    """Texts that must not be seen: today's credentials, and those of every revision."""

    def made_as(self, found: Record) -> str:
        """The description of the deployment that made `found`: Helm's rollbacks name another revision."""
        by_number = {each.revision: each for each in self.history}
        while again := re.match(r"Rollback to (\d+)", found.description):
            earlier = by_number.get(int(again[1]))
            if earlier is None or earlier.revision >= found.revision:
                break
            found = earlier
        return found.description

    def chart_of(self, found: Record) -> str:
        """Name, version and digest of the chart's files; empty where this stack has not deployed it."""
        ours = OURS.fullmatch(self.made_as(found))
        return ours["plain"] if ours else ""

    def is_ours(self, found: Record) -> bool:
        return bool(self.chart_of(found))


@dataclass(frozen=True, kw_only=True)
class Back:
    """What a revision says of a stack's config."""

    config: dict[str, Any]
    """`mern:values` and `mern:imageTag`, where there is any."""
    left: list[str]
    """Paths that stay as they are today, because a credential stands there."""


def run(args: argparse.Namespace, open_stack: OpenStack) -> int:
    """Roll back; 1 where it was not done."""
    try:
        done = rollback(
            args.stack,
            args.revision,
            yes=args.yes,
            chart_as_it_is=args.chart_as_it_is,
            open_stack=open_stack,
        )
    except (RollbackError, MoveError, pulumi.RunError) as error:
        _complain(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _complain("Stopped.")
        return 1
    return 0 if done else 1


def rollback(
    name: str, revision: int | None, *, yes: bool, chart_as_it_is: bool, open_stack: OpenStack
) -> bool:
    """Take stack `name` back to `revision`, after the preview and a yes; whether that is done.

    Unless it is, the stack file stays as it was.

    Raises:
        RollbackError: it cannot be done; nothing has changed.
        MoveError: the stack file cannot be read, or not be edited safely.
    """
    file = Path(f"Pulumi.{name.rsplit('/', 1)[-1]}.yaml")
    text = read_stack_file(file)
    config = (yaml.safe_load(text) or {}).get("config") or {}
    known = _read(name, open_stack)
    if revision is None:
        print("\n".join(_listed(known, config)))
        return True
    found = _wanted(known, revision, config)
    back = config_of(found, known.history[-1], config, known.secrets, known.is_ours(found))
    changes = list(differences(_own(config), back.config))
    if found is known.history[-1] and not changes:
        print(f"revision {revision} is what runs, and {file} says the same: nothing to do")
        return True
    _refuse_other_chart(found, known, chart_as_it_is)
    if os.environ.get(IMAGE_TAG_VARIABLE):
        raise RollbackError(f"{IMAGE_TAG_VARIABLE} is set and would win over the tag of then: unset it")
    print(_report(found, changes, back, known))
    _write(file, with_changes(text, changes, back.config))
    keep = done = False
    try:
        keep, done = _deploy(name, found, known, yes=yes, edited=bool(changes), open_stack=open_stack)
    finally:
        if not keep:
            _write(file, text)
            _complain(f"{file} is as it was.")
    return done


def _deploy(
    name: str, found: Record, known: Known, *, yes: bool, edited: bool, open_stack: OpenStack
) -> tuple[bool, bool]:
    """Preview, ask, deploy: whether the stack file stays as it is written now, and whether all went well."""
    stack = open_stack(name)
    preview = engine.run(stack, "preview")
    if not preview.ok:
        _complain(f"\nNot rolled back to revision {found.revision}: the preview says why.")
        return False, False
    if not (preview.changed or edited):
        print(f"\nWhat runs is the same as revision {found.revision}: nothing to do")
        return True, True
    if not (yes or _asked(found.revision)):
        _complain("\nNot rolled back.")
        return False, False
    run = engine.run(stack, "up")
    if run.ok:
        runs = f"Revision {run.revision}" if run.revision else "What runs now"
        print(f"\n{runs} has the config of revision {found.revision}. Next: commit Pulumi.{stack.name}.yaml")
        return True, True
    if _is_deployed(known):
        _complain(
            f"\nThe release is rolled back, but something after it failed. Once that is mended:\n"
            f"    pulumi up --stack {name}"
        )
        return True, False
    _complain(f"\nThe rollback to revision {found.revision} failed.")
    return False, False


def _asked(revision: int) -> bool:
    try:
        answer = input(f"\nRoll back to revision {revision}, as previewed? [y/N] ")
    except EOFError:
        _complain("Nobody is here to say yes: --yes does.")
        return False
    return answer.strip().lower() in ("y", "yes")


def _is_deployed(known: Known) -> bool:
    """Whether the run that failed has deployed a revision all the same."""
    try:
        newest = record.newest(known.api, RELEASE, known.namespace)
    except Exception:
        return False
    return (
        newest is not None
        and newest.revision > known.history[-1].revision
        and newest.status == "deployed"
        and bool(OURS.fullmatch(newest.description))
    )


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _write(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8", newline="") as stack_file:
        stack_file.write(text)


# ---- what is known


def _read(name: str, open_stack: OpenStack) -> Known:
    try:
        stack = open_stack(name)
        secrets = engine.secrets_of(stack)
        config = {key: item.value for key, item in stack.get_all_config().items()}
    except auto.errors.CommandError as error:
        raise RollbackError(f"stack {name} cannot be opened: {engine.said(error)}") from None
    except FileNotFoundError:
        raise RollbackError("there is no `pulumi` on PATH: https://www.pulumi.com/docs/install") from None
    try:
        api, namespace = cluster.connect(stack)
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
        history = record.history(api, RELEASE, namespace)
    except ApiError as error:
        raise RollbackError(f"what Helm has stored of {where} may not be read: {error}") from None
    except Exception as error:  # no connection, no credentials
        why = mask(str(error), secrets) or type(error).__name__
        raise RollbackError(f"the cluster of stack {name} cannot be asked: {why}") from None
    if not history:
        raise RollbackError(
            f"there is no {where}: nothing to roll back. `pulumi up --stack {name}` deploys it"
        )
    texts = set(secrets)
    for each in history:
        credentials = [text for _, text in chart_values.credentials_in(each.values)]
        texts |= {*adoption.secrets_in(each), *(text for text in credentials if isinstance(text, str))}
    return Known(
        stack=name,
        config=config,
        api=api,
        namespace=namespace,
        history=history,
        secrets=sorted(texts - {""}, key=len, reverse=True),
    )


def _wanted(known: Known, revision: int, config: Mapping[str, Any]) -> Record:
    """The revision to go back to.

    Raises:
        RollbackError: Helm does not keep it, or it was never deployed.
    """
    found = next((each for each in known.history if each.revision == revision), None)
    if found is None:
        listed = "\n".join(_listed(known, config))
        raise RollbackError(f"Helm keeps no revision {revision} of release {RELEASE}.\n{listed}")
    if found.status not in ("deployed", "superseded"):
        raise RollbackError(
            f"revision {revision} is {found.status} ({mask(found.description, known.secrets)}): only one "
            "that was deployed can be gone back to"
        )
    if found.description.startswith(TAKEN_OVER):
        raise RollbackError(f"revision {revision} holds no values ({found.description}): go back to another")
    return found


def _listed(known: Known, config: Mapping[str, Any]) -> Iterator[str]:
    """Each revision in two lines; the second says what a rollback to it would change."""
    yield f"Revisions of release {RELEASE} in namespace {known.namespace}:"
    now = _chart_now()
    for each in known.history:
        what = mask(
            known.chart_of(each) if OURS.fullmatch(each.description) else each.description, known.secrets
        )
        yield f"  {each.revision}  {each.created:%Y-%m-%d %H:%M} UTC  {each.status}  {shorten(what, 120)}"
        if each.status not in ("deployed", "superseded") or each.description.startswith(TAKEN_OVER):
            continue
        back = config_of(each, known.history[-1], config, known.secrets, known.is_ours(each))
        paths = [_path(keys) for keys, _, _ in differences(_own(config), back.config)]
        other = ["the chart's files"] if known.chart_of(each) != now else []
        differing = ", ".join([*other, *paths]) or "nothing"
        yield f"     differs from the stack file in: {mask(differing, known.secrets)}"


def _chart_now() -> str:
    return chart.describe(CHART)


def _refuse_other_chart(found: Record, known: Known, as_it_is: bool) -> None:
    now, then = _chart_now(), known.chart_of(found)
    if now == then or as_it_is:
        return
    if not then:
        what = mask(known.made_as(found), known.secrets)
        raise RollbackError(
            f"revision {found.revision} was not deployed by this stack ({what}): the files of its chart are "
            "known to nobody. --chart-as-it-is takes only its values"
        )
    commit = chart_history.commit_of(then)
    lines = [
        f"revision {found.revision} was deployed from other files of the chart: {then}, not {now}. Its "
        "values alone do not bring it back."
    ]
    if commit:
        # `git checkout` alone would leave the files that are newer.
        lines += [
            f"Commit {mask(str(commit), known.secrets)} has them:",
            f"    git checkout --no-overlay {commit.hash} -- {chart_history.FOLDER}",
            "and then this again.",
        ]
    else:
        lines.append("No commit that Git has here has those files.")
    raise RollbackError("\n".join([*lines, "--chart-as-it-is takes only its values."]))


# ---- the config of a revision


def config_of(
    found: Record, newest: Record, config: Mapping[str, Any], secrets: list[str], is_ours: bool
) -> Back:
    """What `mern:values` and `mern:imageTag` were at revision `found`.

    What the program adds to the values is taken out again, and no credential is ever among them.

    Args:
        found: the revision.
        newest: what runs.
        config: that of the stack file today.
        secrets: texts that may not stand in a stack file.
        is_ours: whether this stack has made it; else its values can hold credentials anywhere.
    """
    today = config.get(VALUES)
    own = today if isinstance(today, Mapping) else {}
    values, image_tag = chart_values.strip(found.values, own, newest.values)
    left = []
    changed = [part for change in differences(own, values) for part in _parts(*change)]
    for path, now, then in changed:
        if then is not GONE and _is_secret(path, then, secrets, is_ours):
            left.append(_path((VALUES, *path)))
            if now is GONE:
                _cut(values, path)
            else:
                _put(values, path, now)
    for path in _nulls(own):
        if _at(newest.values, path) is _at(values, path) is GONE:
            _put(values, path, None)  # Helm keeps no record of it
    back = {VALUES: values} if values or VALUES in config else {}
    return Back(config=back | ({IMAGE_TAG: image_tag} if image_tag else {}), left=left)


def _parts(path: Keys, now: Any, then: Any) -> Iterator[Change]:
    """A mapping that is not there today, value by value: a credential in it keeps back no other."""
    if now is GONE and isinstance(then, Mapping) and then:
        for key, below in then.items():
            yield from _parts((*path, key), now, below)
    else:
        yield path, now, then


def _is_secret(path: Keys, value: Any, secrets: list[str], is_ours: bool) -> bool:
    if not is_ours and holds_credential(value, path):
        return True
    texts: list[str] = []
    map_leaves(value, lambda leaf: texts.append(str(leaf)))
    # A short one can be part of a word.
    long = [secret for secret in secrets if len(secret) >= 8]
    return any(text in secrets or holds(text, long) for text in texts if len(text) > 2)


def _nulls(values: Any, path: Keys = ()) -> Iterator[Keys]:
    if isinstance(values, Mapping):
        for key, below in values.items():
            yield from _nulls(below, (*path, key))
    elif values is None and path:
        yield path


def differences(old: Any, new: Any, path: Keys = ()) -> Iterator[Change]:
    """Each value that differs between two mappings; a list is one value."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and (not path or (old and new)):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key, GONE), new.get(key, GONE), (*path, key))
    elif _canonical(old) != _canonical(new):
        yield path, old, new


def _canonical(value: Any) -> str | None:
    return None if value is GONE else json.dumps(map_leaves(value, chart.whole), sort_keys=True, default=str)


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in (IMAGE_TAG, VALUES) if config.get(key) is not None}


def _at(values: Any, path: Keys) -> Any:
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return GONE
        values = values[key]
    return values


def _put(values: dict[str, Any], path: Keys, value: Any) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            return
        values = inner
    values[path[-1]] = value


def _cut(values: dict[str, Any], path: Keys) -> None:
    """Take out what stands at `path`, and the mappings that it leaves empty."""
    inner = values.get(path[0])
    if len(path) > 1 and isinstance(inner, dict) and inner:
        _cut(inner, path[1:])
        if not inner:
            del values[path[0]]
    elif len(path) == 1:
        values.pop(path[0], None)


# ---- the stack file's text


def with_changes(text: str, changes: list[Change], config: Mapping[str, Any]) -> str:
    """The stack file `text` with `changes` made, after which `config` is what it says of those two keys.

    Comments stay; where a change cannot be made in its place, that key is written anew.

    Raises:
        MoveError: the file's form allows neither.
    """
    expected = yaml.safe_load(text)
    rest = {key: value for key, value in expected["config"].items() if key not in (VALUES, IMAGE_TAG)}
    expected["config"] = {**rest, **config}
    written = text
    for path, _, new in changes:
        written = _with_change(written, ("config", *path), new)
    if _says(written, expected):
        return written
    written = with_config(text, config)
    for key in (VALUES, IMAGE_TAG):
        if key not in config:
            written = _with_change(written, ("config", key), GONE)
    if _says(written, expected):
        return written
    raise MoveError("the stack file has a form that cannot be edited safely: nothing is rolled back")


def _says(text: str, expected: Any) -> bool:
    try:
        return _canonical(yaml.safe_load(text)) == _canonical(expected)
    except yaml.YAMLError:
        return False


def _with_change(text: str, path: Keys, new: Any) -> str:
    """`text` with the value at `path` set or taken out; the caller looks whether that went well."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    try:
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return text
    for depth, name in enumerate(path):
        if not isinstance(node, yaml.MappingNode) or not node.value:
            return text
        found = next((pair for pair in node.value if pair[0].value == name), None)
        if found is not None and depth < len(path) - 1:
            node = found[1]
            continue
        if found is None:
            start = node.value[0][0].start_mark.column
            for key in reversed(path[depth + 1 :]):
                new = {key: new}
        else:
            start = found[0].start_mark.column
        lines = [] if new is GONE else _lines({name: new})
        if found is not None and getattr(found[1], "style", "") == '"' and isinstance(new, str):
            lines = [f"{_lines({name: 0})[0].removesuffix('0')}{json.dumps(new, ensure_ascii=False)}"]
        block = line_end.join(" " * start + line if line else "" for line in lines)
        if found is not None and new is not GONE:
            end = end_of(found[1])
            gap = line_end if text[:end].endswith("\n") else ""
            return text[: found[0].start_mark.index] + block.lstrip(" ") + gap + text[end:]
        if found is not None:
            return text[: _line_start(text, found[0].start_mark.index)] + text[_line_end(text, found[1]) :]
        end = _line_end(text, node.value[-1][1])
        gap = "" if text[:end].endswith("\n") else line_end
        return f"{text[:end]}{gap}{block}{line_end}{text[end:]}"
    return text


def _lines(value: Mapping[str, Any]) -> list[str]:
    return yaml.dump(dict(value), Dumper=Dumper, sort_keys=False, width=10_000).splitlines()


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, node: yaml.Node) -> int:
    """Where the line begins that follows a node and the comment beside it."""
    end = end_of(node)
    if text[:end].endswith("\n"):
        return end
    found = text.find("\n", end)
    return len(text) if found < 0 else found + 1


# ---- what the user reads


def _report(found: Record, changes: list[Change], back: Back, known: Known) -> str:
    what = known.chart_of(found) or known.made_as(found)
    made = f"{found.created:%Y-%m-%d %H:%M} UTC, {what}"
    lines = [f"Back to revision {found.revision} of {made}."]
    if changes:
        lines.append(f"In Pulumi.{known.stack.rsplit('/', 1)[-1]}.yaml:")
    else:
        lines.append("The stack file says the same as then.")
    for path, old, new in changes:
        if old is GONE:
            lines.append(f"  + {_path(path)}: {_shown(new)}")
        elif new is GONE:
            lines.append(f"  - {_path(path)}: {_shown(old)}")
        else:
            lines.append(f"  ~ {_path(path)}: {_shown(old)} → {_shown(new)}")
    if others := other_credentials(found, known):
        lines.append(f"Other credentials than then; today's are kept: {', '.join(others)}")
    if back.left:
        lines.append(f"Not taken back, because a credential stands there: {', '.join(back.left)}")
    return mask("\n".join(lines), known.secrets) + "\n"


def other_credentials(found: Record, known: Known) -> list[str]:
    """The config keys of credentials that are not what they were at `found`."""
    then: dict[str, set[Any]] = {}
    for key, text in chart_values.credentials_in(found.values):
        then.setdefault(key, set()).add(text)
    today: dict[str, set[Any]] = {}
    for key in SECRET_KEYS:
        text = known.config.get(f"mern:{key}")
        if text is not None and key == "serverSecrets":
            today |= {f"{key}.{name}": {secret} for name, secret in json.loads(text).items()}
        elif text is not None:
            today[key] = {text}
    names = {f"mern:{key}" for key in then.keys() | today.keys() if then.get(key) != today.get(key)}
    if get(found.values, chart_values.ROLE) != get(known.history[-1].values, chart_values.ROLE):
        names.add("mern:pythonScript")
    return sorted(names)


def _path(path: Keys) -> str:
    """As Pulumi writes it after --path."""
    first, *rest = path
    plain = r"[A-Za-z_][\w-]*"
    return str(first) + "".join(
        f".{key}" if re.fullmatch(plain, str(key)) else f"[{json.dumps(str(key))}]" for key in rest
    )


def _shown(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False, default=str), 160)
