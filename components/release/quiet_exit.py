"""The end of a program that has said what is wrong: nothing stands below its own words."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pulumi

USER_HAS_BEEN_TOLD = 32
"""Exit code for which Pulumi's Python language host adds no line of its own (the constant
`pythonProcessExitedAfterShowingUserActionableMessage` in its source)."""

ENGINE_HAS_GONE = "Resource monitor has terminated, shutting down"
"""From `grpc_error_to_exception` in the SDK's runtime/settings.py."""


@contextmanager
def quiet_exit() -> Iterator[None]:
    """Run a program so that its own words are the last that the user reads.

    Put the whole program into it:

        with quiet_exit():
            ...

    A `pulumi.RunError` is shown once, without a line on the exit code below it. When the engine interrupts
    the program, as it does after a failed deployment, it ends without a stack trace. Any other exception is
    a defect, and keeps its trace. The SDK's debug log is switched off: it is a call to the engine for each
    step of each resource, which the program waits for, and the engine throws it away.
    """
    if pulumi.runtime.settings.get_engine() is not None:  # a test without an engine keeps its own handlers
        signal.signal(signal.SIGINT, _leave)
        pulumi.log.debug = _no_debug_log
        pulumi.log.error = _unless_the_engine_has_gone(pulumi.log.error)
    try:
        yield
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        sys.exit(USER_HAS_BEEN_TOLD)


def _unless_the_engine_has_gone(error: Callable[..., None]) -> Callable[..., None]:
    """Return `error` for all but what the SDK says when a call finds the engine gone, which now and then
    comes before the interrupt."""

    def log_error(text: str, *args: Any, **options: Any) -> None:
        if text == ENGINE_HAS_GONE:
            _leave()
        error(text, *args, **options)

    return log_error


def _no_debug_log(*_args: Any, **_options: Any) -> None:
    return None


def _leave(_signal: int = 0, _frame: FrameType | None = None) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(USER_HAS_BEEN_TOLD)  # threads of hooks may still wait for the cluster
