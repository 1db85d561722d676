"""What a release is made of, as its program gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ReleaseArgs:
    """The release to deploy. All of it is known when the program starts: no Outputs.

    Raises:
        ValueError: `timeout` is not positive, or `chart` is an absolute path.
    """

    chart: str
    """The chart: a folder or a packed one (`.tgz`), relative to the program, because an absolute path differs
    per machine. Or its address in an OCI registry, `oci://…`, or its name in `repository`."""
    name: str
    """Name of the release; another name replaces the release."""
    namespace: str
    """Namespace of the release; it has to exist when Helm starts."""
    repository: str = ""
    """Address of the Helm repository that has the chart, `https://…`."""
    version: str = ""
    """Version of a chart that is not in the project: exactly one, no range."""
    digest: str = ""
    """Digest of the packed chart, `sha256:…`: any other content is refused. In a registry also that of its
    manifest."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values over the chart's own; credentials as `pydantic.SecretStr`."""
    timeout: int = 300
    """Seconds that Helm waits for the objects to become ready before it rolls back."""
    show_objects: bool = True
    """Register each object as a child of the Release."""
    dry_run: bool = True
    """Ask the API server about each object before anything is registered."""
    drift: Literal["ignore", "report", "restore"] = "report"
    """What to do about objects that were changed by hand: not look, say so, or put them back."""
    leave: Sequence[str] = ()
    """Patterns of fields that are no drift, as `Deployment/web:spec.replicas`; `*` is any text. What the
    chart sets, each deployment sets again: a chart has to leave out what others own for good."""
    crds: Literal["install", "apply"] = "install"
    """The CRDs of the chart's folder crds/. `install` leaves them to Helm, which installs them with a first
    installation and never changes one; the plan names those that differ from the cluster. `apply` applies
    them before each deployment. Neither removes any."""
    adopt: bool = False
    """Take over a release of this name that is not in the stack's state: one that somebody else has
    made, or this stack's own after its state was lost."""
    unlock_revision: int | None = None
    """A revision that a killed run has left pending and that may be marked failed at once; without
    it, one is mended when it is older than twice the timeout."""
    unlock_command: str = "set unlock_revision={revision}"
    """How a user sets `unlock_revision`, for messages."""
    adopt_command: str = "set adopt=True"
    """How a user sets `adopt`, for messages."""
    crds_command: str = 'set crds="apply"'
    """How a user sets `crds`, for messages."""
    parents: Sequence[str] = ()
    """Types of the component's parents, the outermost first: the plan looks for the release in the stack's
    state by its URN, which has them in it."""
    aliases: Sequence[str] = ()
    """URNs that the Release has in the stack's state from an earlier program, as that of a plain `Release`.
    It is moved: nothing is uninstalled."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout is a positive number of seconds, not {self.timeout}")
        if self.chart.startswith("/"):
            raise ValueError(f"chart is a path relative to the program, not {self.chart}")
