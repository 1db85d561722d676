"""What is done around a deployment, in CI and by hand: `python -m operations COMMAND`.

Exit codes: 0 all is well, 1 it is not (the output says why), 2 wrong arguments, 3 the stack has drifted.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRIFTED = 3


def main(arguments: list[str] | None = None, open_stack: Callable[[str], Any] | None = None) -> int:
    """Run one command; its exit code.

    Args:
        arguments: of the command line.
        open_stack: gives the stack of a name; tests give the sandbox's.
    """
    parser = argparse.ArgumentParser(prog="python -m operations", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_preview, _up, _check_health, _drift, _comment, _issue, _move, _rollback):
        add(commands)
    args = parser.parse_args(arguments)
    if getattr(args, "image_tag", None):
        from settings import IMAGE_TAG_VARIABLE

        os.environ[IMAGE_TAG_VARIABLE] = args.image_tag
    return int(args.run(args, open_stack or _open))


def _open(name: str) -> Any:
    from operations.engine import open_stack

    return open_stack(name)


Commands = Any  # argparse's own type is private
OpenStack = Callable[[str], Any]


def _command(commands: Commands, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("stack", metavar="STACK")
    parser.set_defaults(run=run)
    return parser


def _with_summary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--summary",
        type=Path,
        default=os.environ.get("GITHUB_STEP_SUMMARY") or None,
        metavar="FILE",
        help="append the result as markdown; by default what GITHUB_STEP_SUMMARY names",
    )


def _with_image_tag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-tag",
        metavar="TAG",
        default="",
        help="of all images, in place of mern:imageTag; not saved; empty: as the config says",
    )


# -- preview, up, drift: the engine ---------------------------------------------------------------


def _preview(commands: Commands) -> None:
    parser = _command(commands, "preview", _run_preview, "show what `up` would change")
    parser.add_argument("--comment", type=Path, metavar="FILE", help="write a pull request's comment")
    _with_image_tag(parser)
    _with_summary(parser)


def _run_preview(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations import report

    run = _engine(args.stack, open_stack, "preview")
    if args.comment:
        args.comment.write_text(report.comment(run, args.stack))
    _append(args.summary, report.summary(run, args.stack))
    return 0 if run.ok else 1


def _up(commands: Commands) -> None:
    parser = _command(commands, "up", _run_up, "deploy; in CI also over what a killed run has left")
    _with_image_tag(parser)
    _with_summary(parser)


def _run_up(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations import report

    run = _engine(args.stack, open_stack, "up")
    _append(args.summary, report.summary(run, args.stack))
    return 0 if run.ok else 1


def _drift(commands: Commands) -> None:
    parser = _command(commands, "drift", _run_drift, "name what is not as the stack says; changes nothing")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write what has drifted; empty where nothing has"
    )
    _with_summary(parser)


def _run_drift(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations import report

    run = _engine(args.stack, open_stack, "preview")
    if not run.ok:
        _append(args.summary, report.summary(run, args.stack))
        return 1
    text = report.drift(run, args.stack)
    if run.not_looked_at and not run.drift:
        print("whether it has drifted is not known: " + "; ".join(run.not_looked_at), file=sys.stderr)
        _append(args.summary, report.summary(run, args.stack))
        return 1
    if args.report:
        args.report.write_text(text)
    _append(args.summary, text or report.no_drift(run, args.stack))
    print("the stack has drifted" if text else "no drift")
    return DRIFTED if text else 0


def _engine(name: str, open_stack: OpenStack, command: str) -> Any:
    """Run the engine; a stack that cannot be opened is a failed run as well."""
    from pulumi import automation as auto

    from operations import deploy, engine

    try:
        stack = open_stack(name)
    except auto.errors.CommandError as error:
        run = engine.Run(command=command, errors=[engine.stderr_of(error)])
        print(run.errors[0], file=sys.stderr)
        return run
    if command == "up":
        return deploy.up(stack, _github())
    return engine.run(stack, command)


def _github() -> Any:
    """GitHub's API within a workflow, else None."""
    from operations.github import GitHub, GitHubError

    if not os.environ.get("GITHUB_RUN_ID"):
        return None
    try:
        return GitHub.of_environment()
    except GitHubError as error:
        print(f"earlier runs cannot be looked up: {error}", file=sys.stderr)
        return None


# -- check-health ---------------------------------------------------------------------------------


def _check_health(commands: Commands) -> None:
    text = "wait until the Ingress has an address, its targets are healthy and it answers"
    parser = _command(commands, "check-health", _run_check_health, text)
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for it; by default not")
    _with_summary(parser)


def _run_check_health(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from pulumi import automation as auto

    from components.mern_application import RELEASE
    from operations import cluster, engine, health

    try:
        api, namespace = cluster.connect(open_stack(args.stack).get_all_config())
    except (auto.errors.CommandError, RuntimeError) as error:
        text = engine.stderr_of(error) if isinstance(error, auto.errors.CommandError) else str(error)
        print(f"the cluster of stack {args.stack} is not found: {text}", file=sys.stderr)
        return 1
    found = health.wait(api, namespace, RELEASE, args.wait)
    for line in (*found.facts, *found.problems):
        print(line)
    _append(args.summary, health.summary(found, args.stack))
    return 1 if found.problems else 0


# -- comment, issue: GitHub -----------------------------------------------------------------------


def _comment(commands: Commands) -> None:
    text = "write a preview's comment on the pull request, or renew it; needs no packages"
    parser = _command(commands, "comment", _run_comment, text)
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--pull-request", type=int, metavar="NUMBER", help="by default that of this run")


def _run_comment(args: argparse.Namespace, _: OpenStack) -> int:
    from operations import github

    try:
        api = github.GitHub.of_environment()
        number, commit = (args.pull_request, "") if args.pull_request else github.pull_request()
        if args.file.exists():
            text = args.file.read_text()
        else:
            text = f"### The preview of stack `{args.stack}` did not begin\n\nThe log says why.\n"
        print(github.comment(api, number, args.stack, text + github.footer(api, commit)))
    except github.GitHubError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _issue(commands: Commands) -> None:
    text = "keep one issue open while the stack has drifted; needs no packages"
    parser = _command(commands, "issue", _run_issue, text)
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE")


def _run_issue(args: argparse.Namespace, _: OpenStack) -> int:
    from operations import github

    if not args.file.exists():
        print(f"{args.file} was not written: whether {args.stack} has drifted is not known")
        return 0
    try:
        api = github.GitHub.of_environment()
        text = args.file.read_text()
        print(github.keep_issue(api, args.stack, text and text + github.footer(api)))
    except github.GitHubError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# -- move: from values files ----------------------------------------------------------------------


def _move(commands: Commands) -> None:
    parser = commands.add_parser(
        "move",
        help="take over the values files of a Helm chart",
        description="Translate values files of the old Helm chart into the config of a stack. "
        "Prints what it would write; --write writes it.",
    )
    more = {"dest": "files", "type": Path, "metavar": "FILE"}
    parser.add_argument(nargs="*", action="extend", help="values files; the later win, as in Helm", **more)
    parser.add_argument("-f", "--values", action="append", help="the same, as Helm has it", **more)
    parser.add_argument("--stack", required=True, help="the stack whose file gets the values")
    parser.add_argument("--write", action="store_true", help="write the stack file")
    parser.add_argument(
        "--replace", action="store_true", help="instead of the mern:values and mern:imageTag that it has"
    )
    parser.set_defaults(run=_run_move)


def _run_move(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations import move

    return move.run(args, open_stack)


# -- rollback -------------------------------------------------------------------------------------


def _rollback(commands: Commands) -> None:
    parser = commands.add_parser(
        "rollback",
        help="take a stack back to an earlier revision of its release",
        description="Take the config of a stack back to what it was at a revision of its release, show the "
        "preview, and deploy it. Without REVISION: list those that Helm keeps.",
    )
    parser.add_argument("revision", type=int, nargs="?", metavar="REVISION", help="as Helm counts them")
    parser.add_argument("--stack", required=True, help="the stack to take back")
    parser.add_argument("--yes", action="store_true", help="deploy after the preview without asking")
    parser.add_argument(
        "--chart-as-it-is",
        action="store_true",
        help="only the values go back, where the chart's files were others",
    )
    parser.set_defaults(run=_run_rollback)


def _run_rollback(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations import rollback

    return rollback.run(args, open_stack)


def _append(file: Path | None, text: str) -> None:
    if file:
        with file.open("a") as summary:
            summary.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
