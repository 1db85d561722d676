"""What a release says anyway: texts in which a secret is not looked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .args import ReleaseArgs
from .chart import Chart
from .errors import ChartError
from .manifest import Object
from .secrets import Secrets, disguised
from .values import dotted, leaves


def public_texts(
    args: ReleaseArgs,
    chart: Chart,
    rendered: Sequence[Object],
    render: Callable[[Mapping[str, Any]], Sequence[Object]],
) -> str:
    """Return what a release says without its secrets: names, labels, images and hosts stay readable where a
    secret happens to say the same."""
    if not args.adopt and not len(Secrets.of_values(args.values)):
        return ""
    public = [args.name, args.namespace, args.adopt_command, args.unlock_command]
    public += chart.public_texts(args.values)
    shown = Secrets.of_values(args.values, public="\n".join(public)).found_in(_texts_in_the_open(rendered))
    if shown:  # rendered without these, it tells whether they came from the secrets
        try:
            rendered = render(disguised(args.values, shown))
        except ChartError:
            return "\n".join(public)  # what is not known to be public is masked
    return "\n".join([*public, _texts_in_the_open(rendered)])


def _texts_in_the_open(objects: Iterable[Object]) -> str:
    """Return all that objects say, without the data of Secrets."""
    return "\n".join(
        f"{dotted(path)} {leaf}"
        for item in objects
        for path, leaf in leaves(item, lists=True)
        if item["kind"] != "Secret" or path[0] not in ("data", "stringData")
    )


def note_on_weak(count: int) -> str:
    """Return what to say of secrets that cannot be told from other texts, without naming them."""
    are, they = ("1 secret is", "it is") if count == 1 else (f"{count} secrets are", "they are")
    return (
        f"{are} too short or too common to be told from other texts: {they} hidden in Secrets only, and "
        "Pulumi prints [secret] for every text that says the same. What is no credential belongs among the "
        "plain values; a credential should be longer"
    )
