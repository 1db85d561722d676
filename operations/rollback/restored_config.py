"""The config of a stack as it was at a revision of its release."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components import chart_values
from components.release.record import Record
from components.release.secrets import Secrets
from components.release.values import ABSENT, Change, Path, differences, get, leaves, put, remove
from operations.credentials import holds_credential
from operations.rollback.history import ReleaseHistory
from operations.stack_file import IMAGE_TAG, VALUES, config_path


@dataclass(frozen=True, kw_only=True)
class RestoredConfig:
    """The config of a stack as it was at a revision."""

    config: dict[str, Any]
    """`mern:values` and `mern:imageTag`, where there is any."""
    changes: list[Change]
    """What differs from the config of today."""
    kept: list[str]
    """Paths that stay as they are today, because a credential stands there."""


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
    if image_tag:
        back[IMAGE_TAG] = image_tag
    set_today = {key: config[key] for key in (IMAGE_TAG, VALUES) if config.get(key) is not None}
    return RestoredConfig(config=back, changes=list(differences(set_today, back)), kept=kept)


def _value_by_value(old: Any, new: Any) -> Iterator[Change]:
    """Yield the differences; a mapping that is new by each of its values: a credential among them keeps
    back no other."""
    for path, before, after in differences(old, new):
        if before is ABSENT:
            yield from ((inner, ABSENT, leaf) for inner, leaf in leaves(after, path))
        else:
            yield path, before, after


def _is_secret(path: Path, value: Any, secrets: Secrets, is_ours: bool) -> bool:
    """Return whether a value of a revision must not get into a stack file: it is a known credential, has one
    in it, or, where this stack has not made the revision, looks like one."""
    if not is_ours and holds_credential(value, path):
        return True
    return any(secrets.holds(str(leaf)) for _, leaf in leaves(value, lists=True))
