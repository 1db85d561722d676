"""What holds for every unit test."""

import pytest


@pytest.fixture(autouse=True)
def _outputs_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Output in an f-string fails; otherwise it would end up in a name as `<Output at 0x…>`."""
    monkeypatch.setenv("PULUMI_ERROR_OUTPUT_STRING", "true")
