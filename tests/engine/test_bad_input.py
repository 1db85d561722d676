"""docs/bad-input.md says what the real cases say now, and has every sentence that the chart can say."""

import json
import re
from pathlib import Path

import pytest

from sandbox.engine import PROJECT
from sandbox.tools import PULUMI, prepare
from tests.bad_input import DOC, HIDDEN, Case, StackFiles, document, sections

ODD_KEYS = """\
mern:values:
    ingress: {annotations: {example.com/since: 2024-11-24, ".a[0]": 2024-11-24, 'b["c"]': 2024-11-24}}
    "it's": {'say "so"': 2024-11-24, $HOME: 2024-11-24, "`id`": 2024-11-24, "!x": 2024-11-24}
    1: {"": 2024-11-24, a b: 2024-11-24, x:y: 2024-11-24, "*": 2024-11-24, -a: 2024-11-24, ä: 2024-11-24}
    list: [{a.b: 2024-11-24}, 2024-11-24, [{"[1]": 2024-11-24}]]
    mernServer: {secrets: {a.b: c}}
mern:values.ingress: 2024-11-24
mern:a[0]: 1
'mern:a["b"]': 1
"mern:it's $HOME": 1
"mern:": 1
mern:cluster: {eksClusterName: staging, kubeconfig: a, context: b}
mern:checks: [1]
mern:release: {time.out: 1, time/out: 2, "time out": 3, leave: Deployment/web}
mern:pythonScript: {roleArn: "arn:aws:iam::111111111111:role/etl", policy: []}
"""
STAYS = "mern:zzz is not a key of this project"


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


def test_every_command_that_is_printed_for_an_odd_key_mends_its_fault(tools: Path, tmp_path: Path) -> None:
    prepare(tools, [PULUMI])
    files = StackFiles(tmp_path / "sandbox", tools)

    secrets = json.dumps({"JWT-SECRET": files.encrypted["mern:mongodbUri"]})

    faults = files.faults(f"{ODD_KEYS}mern:serverSecrets: {secrets}\nmern:zzz: 1\n")
    for fault, command in faults:
        if fault != STAYS:
            assert files.paste(command.replace(" VALUE ", " value ")) == "", command

    assert len(faults) == 31
    assert [fault for fault, _ in files.faults()] == [STAYS]
    assert "VALUE" not in files.file.read_text()
