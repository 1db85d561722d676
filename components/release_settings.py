"""What `mern:release` says of each release of a stack, as arguments of a release."""

from typing import Any

import pulumi

from settings import Settings


def arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `ReleaseArgs` that all releases of the stack have in common."""
    stack, wanted = pulumi.get_stack(), settings.release
    return {
        "show_objects": wanted.show_objects,
        "dry_run": wanted.dry_run,
        "drift": wanted.drift,
        "leave": wanted.leave,
        "adopt": wanted.adopt,
        "adopt_command": f"pulumi config set --path 'mern:release.adopt' true --stack {stack}",
        "unlock_revision": wanted.unlock_revision,
        "unlock_command": "pulumi config set --path 'mern:release.unlockRevision' {revision} "
        f"--stack {stack}",
    }
