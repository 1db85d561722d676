"""Promote what a stack proves: say what it is, preview, ask, deploy."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pulumi
from pulumi import automation as auto

from components.mern_application import CHART
from components.release import ClusterError, chart
from operations import chart_history
from operations.ci import deploy, engine, report
from operations.ci.commands import append, github_of_run
from operations.deployed import Deployed, read_deployed
from operations.promotion.proof import DIGEST, PromotionError, Proof, prove, read_config
from operations.stack import connect, secrets_in
from settings import IMAGES_VARIABLE

OpenStack = Callable[[str], auto.Stack]


def run(args: argparse.Namespace, open_stack: OpenStack) -> int:
    """Promote; return 1 where it was not done."""
    try:
        if args.source == args.target:
            raise PromotionError(f"{args.source} is both: name another stack to deploy to")
        proof = prove(args.source, open_stack)
        _require_same_chart(proof, args.chart_as_it_is)
        if args.target is None:
            _say(proof, args.output, args.summary)
            return 0
        return 0 if _promote(proof, args, open_stack) else 1
    except (PromotionError, pulumi.RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        append(args.summary, report.refusal("Nothing was promoted", str(error)))
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 1


def _say(proof: Proof, output: Path | None, summary: Path | None) -> None:
    """Say which images `proof` holds, to people, and to the workflow that deploys them."""
    lines = [*_listed(proof)]
    print("\n".join(lines))
    print(f'To deploy them:\n    .venv/bin/python -m operations up TARGET --image "{proof.option}"')
    append(output, f"images={proof.option}")
    append(summary, f"### Stack {report.code(proof.stack)} proves these images\n\n{report.pre(lines)}\n")


def _promote(proof: Proof, args: argparse.Namespace, open_stack: OpenStack) -> bool:
    """Deploy the images of `proof`, after the preview and a yes; return whether that is done.

    Raises:
        PromotionError: what runs in the target cannot be read.
    """
    config = read_config(args.target, open_stack)
    secrets = secrets_in(config, args.target)
    try:
        api, namespace = connect(args.target, config)
        running = read_deployed(api, namespace)
    except ClusterError as error:
        text = f"what runs in stack {args.target} cannot be read: {error}"
        raise PromotionError(secrets.mask(text)) from None
    print("\n".join([*_listed(proof), f"In stack {args.target}:", *_changes(proof, running), ""]))
    if running and all(_digest(running.images.get(image.part, "")) == image.digest for image in proof.images):
        print("These images run there already: nothing to do")
        return True
    os.environ[IMAGES_VARIABLE] = proof.option
    stack = open_stack(args.target)
    preview = engine.run(stack, "preview")
    if not preview.ok:
        append(args.summary, report.summary(preview, args.target))
        print("\nNot promoted: the preview says why.", file=sys.stderr)
        return False
    if not (args.yes or _is_confirmed(args.target)):
        print("\nNot promoted.", file=sys.stderr)
        return False
    done = deploy.up(stack, github_of_run())
    append(args.summary, report.summary(done, args.target))
    if done.ok:
        print(f"\nStack {args.target} runs the images of stack {proof.stack}.")
        print("\n".join(report.way_back(done, args.target)))
    return done.ok


def _is_confirmed(target: str) -> bool:
    """Ask whether to deploy; return the answer, no where nobody can be asked."""
    try:
        answer = input(f"\nDeploy these images to stack {target}, as previewed? [y/N] ")
    except EOFError:
        print("Nobody can be asked here: --yes deploys without asking.", file=sys.stderr)
        return False
    return answer.strip().lower() in ("y", "yes")


def _listed(proof: Proof) -> Iterator[str]:
    yield f"Stack {proof.stack} runs, in revision {proof.revision}:"
    for image in proof.images:
        yield f"  {image.part} {image.image}"
        if not image.image.endswith(image.digest):
            yield f"    which is {image.digest}"
        yield f"    {image.proof}"


def _changes(proof: Proof, running: Deployed | None) -> Iterator[str]:
    for image in proof.images:
        now = running.images.get(image.part, "") if running else ""
        if _digest(now) == image.digest:
            yield f"  = {image.part} {now}"
        else:
            yield f"  {'~' if now else '+'} {image.part}: {now or 'nothing'} → {image.digest}"


def _digest(image: str) -> str:
    match = DIGEST.fullmatch(image)
    return match["digest"] if match else ""


def _require_same_chart(proof: Proof, as_it_is: bool) -> None:
    """Refuse images that were proved with other files of the chart than those that would deploy them.

    Raises:
        PromotionError: they were; it names the commit with those files.
    """
    here = chart.load(CHART).description
    if here == proof.chart or as_it_is:
        return
    lines = [
        f"stack {proof.stack} was deployed from other files of the chart: {proof.chart}, not {here}. Its "
        "images may need them."
    ]
    if commit := chart_history.commit_of(proof.chart):
        lines += [f"Commit {commit} has them: merge it, or take its chart here:"]
        lines += [f"    git checkout --no-overlay {commit.hash} -- {chart_history.FOLDER}"]
    else:
        lines.append("No commit that Git has here has those files.")
    raise PromotionError(
        "\n".join([*lines, "--chart-as-it-is deploys the images with the chart that is here."])
    )
