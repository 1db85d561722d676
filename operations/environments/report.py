"""Reports on environments as markdown: a pull request's comment and a job's summary."""

import re
from datetime import datetime, timedelta

from operations.ci.engine import Run
from operations.ci.report import COMMENT_LIMIT, Page, code, pre
from operations.environments.listing import TIME, Serving
from operations.environments.template import Template

LINK = re.compile(r"https?://[a-z0-9.-]+")


def of_up(run: Run, name: str, serving: Serving, template: Template, now: datetime) -> str:
    """Return the report of a deployment: where it is reached, what runs, how long it lives."""
    page = Page(COMMENT_LIMIT)
    if run.ok:
        page.add(f"### Environment {code(name)} is deployed{_link(serving)}")
    else:
        page.add(f"### The deployment of environment {code(name)} failed")
        page.add_lines(run.errors)
    page.add(f"{'What runs' if serving.is_served else 'In the cluster'}: {code(serving.state)}")
    if serving.images:
        page.add(pre(f"{part}: {image}" for part, image in serving.images.items()))
    if run.ok and serving.url and not serving.has_address:
        page.add("There is no load balancer yet: it takes a few minutes.")
    until = now + timedelta(days=template.days)
    page.add(
        "It is removed when this pull request is closed or loses its label, or when nothing was deployed to "
        f"it for {template.days} days: after {until:{TIME}}."
    )
    if run.notes:
        page.add("Notes, and what could not be checked:")
        page.add_lines(run.notes)
    return page.text


def of_closed(name: str, state: str) -> str:
    """Return the report of an environment that is not deployed, since its pull request is `state`."""
    return f"### Environment {code(name)} is not deployed: the pull request is {state}\n"


def of_down(run: Run | None, name: str, reason: str = "") -> str:
    """Return the report of a removal.

    Args:
        run: None where there was nothing to remove.
        name: of the environment.
        reason: the end of a sentence, as `the pull request is closed`.
    """
    page = Page(COMMENT_LIMIT)
    because = f": {reason}" if reason else ""
    if run is None:
        page.add(f"### There is no environment {code(name)}")
    elif run.ok:
        page.add(f"### Environment {code(name)} is removed{because}")
        page.add("While the pull request is open and has the label, a commit makes it anew.")
    else:
        page.add(f"### The removal of environment {code(name)} failed")
        page.add_lines(run.errors)
        page.add("The next sweep, or the same command again, goes on from there.")
    return page.text


def _link(serving: Serving) -> str:
    if not serving.url:
        return ""
    # By its form nothing but an address: the host comes from the pull request.
    return f": {serving.url}" if LINK.fullmatch(serving.url) else f": {code(serving.url)}"
