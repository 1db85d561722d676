"""The revisions of a stack's release that Helm keeps, beside the stack as it is today."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pulumi
from pulumi import automation as auto

from components import chart_values
from components.mern_application import RELEASE
from components.release import Api, ClusterError, adoption, record
from components.release.description import files_in
from components.release.record import Record
from components.release.secrets import Secrets
from operations.stack import connect, secrets_in, stderr_of

DEPLOYED = ("deployed", "superseded")
"""What Helm calls a revision that serves, or has served."""
TAKEN_OVER = adoption.DESCRIPTION.partition("{")[0]


class RollbackError(pulumi.RunError):
    """A reason why nothing is rolled back, with what to do; for the user."""


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
    secrets: Secrets = field(repr=False)
    """Texts to mask: today's credentials, and those of every revision."""

    @property
    def newest(self) -> Record:
        """The revision that Helm has recorded last."""
        return self.revisions[-1]

    def original_description(self, revision: Record) -> str:
        """Return the description of the deployment that made `revision`: a rollback by Helm has made one of
        another revision."""
        by_number = {item.revision: item for item in self.revisions}
        while origin := re.match(r"Rollback to (\d+)", revision.description):
            earlier = by_number.get(int(origin[1]))
            if earlier is None or earlier.revision >= revision.revision:
                break
            revision = earlier
        return revision.description

    def chart_of(self, revision: Record) -> str:
        """Return name, version and digest of the chart's files; empty where this stack has not deployed
        `revision`."""
        return files_in(self.original_description(revision))

    def holds_values(self, revision: Record) -> bool:
        """Return whether `revision` was deployed, and with values: a take-over records none."""
        return revision.status in DEPLOYED and not revision.description.startswith(TAKEN_OVER)

    def masked(self, text: str) -> str:
        """Return `text` without any of the secrets."""
        return self.secrets.mask(text)


def read_history(name: str, open_stack: Callable[[str], auto.Stack]) -> ReleaseHistory:
    """Open the stack, read its config, and its release's revisions from the cluster.

    Raises:
        RollbackError: the stack or its cluster cannot be read, or there is no revision.
    """
    try:
        stack = open_stack(name)
        config = stack.get_all_config()
    except auto.errors.CommandError as error:
        raise RollbackError(f"stack {name} cannot be opened: {stderr_of(error)}") from None
    secrets = secrets_in(config, name)
    try:
        api, namespace = connect(name, config)
        revisions = record.history(api, RELEASE, namespace)
    except ClusterError as error:
        text = f"the revisions of stack {name} cannot be read: {error}"
        raise RollbackError(secrets.mask(text)) from None
    if not revisions:
        raise RollbackError(
            f"there is no release {RELEASE} in namespace {namespace}: nothing to roll back. "
            f"`pulumi up --stack {name}` deploys it"
        )
    return ReleaseHistory(
        name=name,
        stack=stack,
        config=config,
        api=api,
        namespace=namespace,
        revisions=revisions,
        secrets=secrets | _secrets_of(revisions),
    )


def _secrets_of(revisions: Iterable[Record]) -> Secrets:
    """Return the credentials of all `revisions`."""
    secrets = Secrets()
    for revision in revisions:
        credentials = (text for _, text in chart_values.credentials_in(revision.values))
        secrets |= Secrets.of_objects(revision.objects())
        secrets |= Secrets(text for text in credentials if isinstance(text, str))
    return secrets
