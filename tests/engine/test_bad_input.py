"""docs/bad-input.md says what the real cases say now, and has every sentence that the chart can say."""

import re
from pathlib import Path

import pytest

from sandbox.engine import PROJECT
from sandbox.tools import PULUMI, prepare
from tests.bad_input import DOC, HIDDEN, Case, document, sections


@pytest.fixture(scope="session")  # tests are dealt out anew at the end of a run
def found(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Case]]:
    prepare(tools, [PULUMI])
    return sections(tmp_path_factory.mktemp("bad-input") / "sandbox", tools)


def test_the_table_is_what_users_are_told(found: dict[str, list[Case]]) -> None:
    assert DOC.read_text() == document(found), "make it anew: python -m tests.bad_input"


def test_no_case_ends_in_silence_in_a_stack_trace_or_in_a_credential(found: dict[str, list[Case]]) -> None:
    for case in (case for cases in found.values() for case in cases):
        text = "\n".join(case.message)
        assert text, case.written
        assert not re.search(r"Traceback|unhandled|\.go:\d|goroutine|File \"", text), case
        assert HIDDEN not in text, case.written


def test_what_the_chart_cannot_say_by_its_schema_is_all_in_the_table(found: dict[str, list[Case]]) -> None:
    said = [line for cases in found.values() for case in cases for line in case.message]
    faults = (PROJECT / "chart/templates/_faults.tpl").read_text()
    sentences = re.findall(r"^- .*", faults, re.MULTILINE)
    assert len(sentences) > 20
    for sentence in sentences:
        pattern = ".*".join(map(re.escape, re.split(r"\{\{.*?\}\}", sentence)))
        assert any(re.fullmatch(pattern, line) for line in said), sentence
