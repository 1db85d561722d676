"""The end of a program that has told the user what is wrong; the engine's tests see it on the screen."""

import os
import signal
from collections.abc import Iterator

import pulumi
import pytest

from components.release import quiet_exit
from components.release.quiet_exit import ENGINE_HAS_GONE, USER_HAS_BEEN_TOLD


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a program with an engine logs as errors."""
    lines: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(pulumi.runtime.settings, "get_engine", object)
    monkeypatch.setattr(pulumi.log, "error", lines.append)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    yield lines
    signal.signal(signal.SIGINT, before)


def test_a_refusal_is_said_once_and_the_exit_code_says_that_it_was(logged: list[str]) -> None:
    with pytest.raises(SystemExit) as ended, quiet_exit():
        raise pulumi.RunError("no such cluster")
    assert ended.value.code == USER_HAS_BEEN_TOLD
    assert logged == ["no such cluster"]


def test_a_defect_keeps_its_trace(logged: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), quiet_exit():
        _ = 1 / 0
    assert logged == []


def test_an_interrupt_of_the_engine_ends_it_without_a_word(logged: list[str]) -> None:
    with pytest.raises(SystemExit) as ended, quiet_exit():
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == USER_HAS_BEEN_TOLD
    assert logged == []


def test_an_engine_that_has_gone_before_its_interrupt_is_the_same(logged: list[str]) -> None:
    with quiet_exit():
        pass
    # As the SDK's launcher does when the program's last calls fail.
    with pytest.raises(SystemExit) as ended:
        pulumi.log.error(ENGINE_HAS_GONE)
    assert ended.value.code == USER_HAS_BEEN_TOLD
    pulumi.log.error("another")
    assert logged == ["another"]


def test_the_words_of_the_sdk_are_still_these() -> None:
    import grpc
    from pulumi.runtime.settings import grpc_error_to_exception

    class Gone(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

    assert str(grpc_error_to_exception(Gone())) == ENGINE_HAS_GONE
