"""The command `environment`: up, list, down and sweep."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operations.ci.commands import add_images, add_summary, append, github_of_run, set_images

OpenStack = Callable[[str], Any]


def add(commands: Any) -> None:
    """Add the command to the command line."""
    description = "environments of pull requests: a stack of its own for each, copied from a template"
    parser = commands.add_parser("environment", help=description, description=description)
    actions = parser.add_subparsers(dest="action", required=True)
    for add_action in (_add_up, _add_list, _add_down, _add_sweep):
        add_action(actions)


def _add_action(
    actions: Any, name: str, run: Callable[..., int], description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=description, description=description)
    parser.add_argument(
        "--from",
        dest="template",
        default="preview",
        metavar="STACK",
        help="the stack that is the template; by default `preview`",
    )
    parser.set_defaults(run=lambda args, open_stack: _run(run, args, open_stack))
    return parser


def _add_number(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", type=_number, metavar="NUMBER", help="of the pull request")
    parser.add_argument("--comment", type=Path, metavar="FILE", help="write a comment on the pull request")
    add_summary(parser)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or text.startswith("0"):
        raise argparse.ArgumentTypeError("a pull request has a number, as 482")
    return int(text)


def _run(run: Callable[..., int], args: argparse.Namespace, open_stack: OpenStack) -> int:
    """Run an action on the environments of its template; return its exit code."""
    from operations.environments import template
    from operations.environments.lifecycle import Environments

    try:
        return run(args, Environments(template.read(args.template), open_stack, github_of_run()))
    except _errors() as error:
        text = _text(error)
    except KeyboardInterrupt:
        text = "Stopped. The same command goes on from here."
    print(f"error: {text}", file=sys.stderr)
    if "number" in args:
        _write(args, f"### Environment of pull request {args.number}: `{args.action}` failed\n\n", text)
    return 1


def _write(args: argparse.Namespace, report: str, reason: str = "") -> None:
    """Write a report, and the reason below it, where the command line says."""
    from operations.ci.report import pre

    text = report + (f"{pre([reason])}\n" if reason else "")
    if args.comment:
        args.comment.write_text(text)
    append(args.summary, text)


# -- up, list, down -------------------------------------------------------------------------------


def _add_up(actions: Any) -> None:
    parser = _add_action(
        actions, "up", _up, "create the environment of a pull request, or deploy to it again"
    )
    _add_number(parser)
    add_images(parser)


def _up(args: argparse.Namespace, environments: Any) -> int:
    from operations.environments import listing, report

    name = environments.template.name_of(args.number)
    # A build can take longer than the pull request is open, and a run can be started again.
    if (state := _state(github_of_run(), args.number)) != "open":
        print(f"{name} is not deployed: pull request {args.number} is {state}")
        _write(args, report.of_closed(name, state))
        return 0
    set_images(args)
    run = environments.up(args.number)
    serving = environments.look(name)[name]
    print("\n".join(["", f"{name}  {serving.state}", *listing.facts(serving)]))
    _write(args, report.of_up(run, name, serving, environments.template, datetime.now(UTC)))
    return 0 if run.ok else 1


def _add_list(actions: Any) -> None:
    _add_action(actions, "list", _list, "show the environments: what runs, where, how long they live")


def _list(_: argparse.Namespace, environments: Any) -> int:
    from operations.environments import listing

    known = list(environments.read().values())
    serving = environments.look(*(item.name for item in known))
    print("\n".join(listing.lines(known, serving, environments.template)))
    return 0


def _add_down(actions: Any) -> None:
    description = "remove an environment: release, namespace, roles, and the stack with its history"
    _add_number(_add_action(actions, "down", _down, description))


def _down(args: argparse.Namespace, environments: Any) -> int:
    from operations.environments import report

    name = environments.template.name_of(args.number)
    run = environments.down(args.number)
    if run is None:
        print(f"there is no environment {name}")
    else:
        print(f"\n{name} {'is' if run.ok else 'could not be'} removed")
    _write(args, report.of_down(run, name))
    return 0 if run is None or run.ok else 1


# -- sweep ----------------------------------------------------------------------------------------


def _add_sweep(actions: Any) -> None:
    description = (
        "remove the environments whose pull request is closed, or that nothing was deployed to for long"
    )
    parser = _add_action(actions, "sweep", _sweep, description)
    parser.add_argument("--dry-run", action="store_true", help="only say which")
    add_summary(parser)


def _sweep(args: argparse.Namespace, environments: Any) -> int:
    """Remove them one after the other; what goes wrong with one holds up no other."""
    github = _github()
    is_well = github is not None
    for item in environments.read().values():
        try:
            reason = _reason_to_remove(item, environments.template, github)
            if not reason:
                print(f"{item.name} stays")
            elif args.dry_run:
                print(f"{item.name} would be removed: {reason}")
            elif environments.read().get(item.number) != item:  # the ones before it took their time
                print(f"{item.name} stays: it was deployed to meanwhile")
            else:
                is_well = _remove(item, environments, reason, github, args.summary) and is_well
        except _errors() as error:
            is_well = False
            print(f"{item.name}: {_text(error)}", file=sys.stderr)
            append(args.summary, f"### Environment `{item.name}` could not be removed\n\nThe log says why.\n")
    return 0 if is_well else 1


def _github() -> Any:
    """Return GitHub's API, None where the environment does not name it."""
    from operations.ci.github import GitHub, GitHubError

    try:
        return GitHub.of_environment()
    except GitHubError as error:
        print(f"Which pull requests are closed is not known: {error}", file=sys.stderr)
        return None


def _state(github: Any, number: int) -> str:
    """Return whether a pull request is open, closed or merged; open where that is not known.

    Raises:
        GitHubError: GitHub does not say.
    """
    from operations.ci.github import state_of_pull_request

    return state_of_pull_request(github, number) if github else "open"


def _reason_to_remove(item: Any, template: Any, github: Any) -> str:
    """Return why an environment goes, as the end of a sentence; empty where it stays.

    Raises:
        GitHubError: it has not lived for too long, and whether its pull request is open is not known.
    """
    if item.is_older_than(template.days, datetime.now(UTC)):
        return f"nothing was deployed to it for {template.days} days"
    state = _state(github, item.number)
    return "" if state == "open" else f"pull request {item.number} is {state}"


def _remove(item: Any, environments: Any, reason: str, github: Any, summary: Path | None) -> bool:
    """Remove an environment and say so on its pull request; return whether that is done."""
    from operations.ci.github import GitHubError, comment, footer
    from operations.environments import report

    run = environments.down(item.number)
    is_removed = run is None or bool(run.ok)
    print(f"\n{item.name} {'is' if is_removed else 'could not be'} removed: {reason}", flush=True)
    text = report.of_down(run, item.name, reason)
    append(summary, text)
    if github:
        try:
            comment(github, item.number, item.name, text + footer(github))
        except GitHubError as error:  # as on a pull request whose conversation is locked
            print(f"{item.name}: no comment was written: {error}", file=sys.stderr)
    return is_removed


# -- errors ---------------------------------------------------------------------------------------


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors that are for the user."""
    from pulumi import automation as auto

    from components.release import ClusterError
    from operations.ci.github import GitHubError
    from operations.environments.template import EnvironmentsError
    from operations.stack_file import StackFileError

    return auto.errors.CommandError, ClusterError, GitHubError, EnvironmentsError, StackFileError


def _text(error: Exception) -> str:
    from pulumi import automation as auto

    from operations.stack import stderr_of

    return stderr_of(error) if isinstance(error, auto.errors.CommandError) else str(error)
