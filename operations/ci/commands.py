"""The commands that workflows call: preview, up, drift, check-health, comment, issue, id-token.

Packages are imported within a command: `comment`, `issue` and `id-token` need none.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRIFTED = 3
Commands = Any  # argparse's own type is private
OpenStack = Callable[[str], Any]


def add(commands: Commands) -> None:
    """Add the commands to the command line."""
    for add_command in (
        _add_preview,
        _add_up,
        _add_check_health,
        _add_drift,
        _add_comment,
        _add_issue,
        _add_id_token,
    ):
        add_command(commands)


def _add_command(
    commands: Commands, name: str, run: Callable[..., int], description: str, *, of_stack: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=description, description=description)
    if of_stack:
        parser.add_argument("stack", metavar="STACK")
    parser.set_defaults(run=run)
    return parser


def add_summary(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file of the job's summary."""
    parser.add_argument(
        "--summary",
        type=Path,
        default=os.environ.get("GITHUB_STEP_SUMMARY") or None,
        metavar="FILE",
        help="append the result as markdown; by default what GITHUB_STEP_SUMMARY names",
    )


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which images to deploy; `set_images` reads them."""
    parser.add_argument(
        "--image-tag",
        metavar="TAG",
        default="",
        help="of all images, in place of mern:imageTag; not saved; empty: as the config says",
    )
    parser.add_argument(
        "--image",
        action="append",
        metavar="PART=REFERENCE",
        default=[],
        help="of one part of the chart, as mernServer=REPOSITORY@sha256:DIGEST, mernServer=sha256:DIGEST or "
        "mernServer=REPOSITORY:TAG, in place of tag and digest in the config; not saved; can be repeated, "
        "and take several with blanks between",
    )


def set_images(args: argparse.Namespace) -> None:
    """Hand the images that the command line names to the program, which checks them."""
    from settings import IMAGE_TAG_VARIABLE, IMAGES_VARIABLE

    if args.image_tag:
        os.environ[IMAGE_TAG_VARIABLE] = args.image_tag
    if args.image:
        os.environ[IMAGES_VARIABLE] = " ".join(args.image)


# -- preview, up, drift: the engine ---------------------------------------------------------------


def _add_preview(commands: Commands) -> None:
    parser = _add_command(commands, "preview", _preview, "show what `up` would change")
    parser.add_argument("--comment", type=Path, metavar="FILE", help="write a pull request's comment")
    add_images(parser)
    add_summary(parser)


def _preview(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations.ci import report

    run = _run_engine(args, open_stack, "preview")
    if args.comment:
        args.comment.write_text(report.comment(run, args.stack))
    append(args.summary, report.summary(run, args.stack))
    return 0 if run.ok else 1


def _add_up(commands: Commands) -> None:
    parser = _add_command(commands, "up", _up, "deploy; in CI also over what a killed run has left")
    add_images(parser)
    add_summary(parser)


def _up(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations.ci import report

    run = _run_engine(args, open_stack, "up")
    append(args.summary, report.summary(run, args.stack))
    return 0 if run.ok else 1


def _add_drift(commands: Commands) -> None:
    parser = _add_command(commands, "drift", _drift, "name what is not as the stack says; changes nothing")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write what has drifted; empty where nothing has"
    )
    add_summary(parser)


def _drift(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from operations.ci import report

    run = _run_engine(args, open_stack, "preview")
    if not run.ok:
        append(args.summary, report.summary(run, args.stack))
        return 1
    text = report.drift(run, args.stack)
    if run.unchecked and not run.drift:
        print("whether it has drifted is not known: " + "; ".join(run.unchecked), file=sys.stderr)
        append(args.summary, report.summary(run, args.stack))
        return 1
    if args.report:
        args.report.write_text(text)
    append(args.summary, text or report.no_drift(run, args.stack))
    print("the stack has drifted" if text else "no drift")
    return DRIFTED if text else 0


def _run_engine(args: argparse.Namespace, open_stack: OpenStack, command: str) -> Any:
    """Run the engine; a stack that cannot be opened is a failed run as well."""
    from pulumi import automation as auto

    from operations.ci import deploy, engine
    from operations.stack import stderr_of

    if "image" in args:
        set_images(args)
    try:
        stack = open_stack(args.stack)
    except auto.errors.CommandError as error:
        run = engine.Run(command=command, errors=[stderr_of(error)])
        print(run.errors[0], file=sys.stderr)
        return run
    if command == "up":
        return deploy.up(stack, github_of_run())
    return engine.run(stack, command)


def github_of_run() -> Any:
    """Return GitHub's API within a workflow, else None."""
    from operations.ci.github import GitHub, GitHubError

    if not os.environ.get("GITHUB_RUN_ID"):
        return None
    try:
        return GitHub.of_environment()
    except GitHubError as error:
        print(f"earlier runs cannot be looked up: {error}", file=sys.stderr)
        return None


# -- check-health ---------------------------------------------------------------------------------


def _add_check_health(commands: Commands) -> None:
    description = "wait until the Ingress has an address, its targets are healthy and it answers"
    parser = _add_command(commands, "check-health", _check_health, description)
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for it; by default not")
    add_summary(parser)


def _check_health(args: argparse.Namespace, open_stack: OpenStack) -> int:
    from pulumi import automation as auto

    from components.mern_application import RELEASE
    from components.release import ClusterError
    from operations.ci import health
    from operations.stack import connect, stderr_of

    try:
        api, namespace = connect(args.stack, open_stack(args.stack).get_all_config())
    except auto.errors.CommandError as error:
        print(f"stack {args.stack} cannot be opened: {stderr_of(error)}", file=sys.stderr)
        return 1
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    result = health.wait(api, namespace, RELEASE, args.wait)
    for line in (*result.facts, *result.problems):
        print(line)
    append(args.summary, health.summary(result, args.stack))
    return 1 if result.problems else 0


def append(file: Path | None, text: str) -> None:
    """Append `text` to `file`, where there is one."""
    if file:
        with file.open("a") as summary:
            summary.write(text + "\n")


# -- comment, issue, id-token: GitHub -------------------------------------------------------------


def _add_comment(commands: Commands) -> None:
    description = "write a preview's comment on the pull request, or renew it; needs no packages"
    parser = _add_command(commands, "comment", _comment, description)
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--pull-request", type=int, metavar="NUMBER", help="by default that of this run")


def _comment(args: argparse.Namespace, _: OpenStack) -> int:
    from operations.ci import github

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


def _add_issue(commands: Commands) -> None:
    description = "keep one issue open while the stack has drifted; needs no packages"
    parser = _add_command(commands, "issue", _issue, description)
    parser.add_argument("--from", dest="file", type=Path, required=True, metavar="FILE")


def _issue(args: argparse.Namespace, _: OpenStack) -> int:
    from operations.ci import github

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


def _add_id_token(commands: Commands) -> None:
    description = "print the name by which GitHub tells others which job this is; needs no packages"
    parser = _add_command(commands, "id-token", _id_token, description, of_stack=False)
    parser.add_argument("--audience", required=True, help="who is told, as in sts.amazonaws.com")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the token itself to a new file")


def _id_token(args: argparse.Namespace, _: OpenStack) -> int:
    from operations.ci import github

    try:
        token = github.id_token(args.audience)
    except github.GitHubError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"To {args.audience} this job is {github.subject_of(token)}")
    if args.to:
        args.to.touch(mode=0o600, exist_ok=False)
        args.to.write_text(token)
    return 0
