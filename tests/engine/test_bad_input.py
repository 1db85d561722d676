"""docs/bad-input.md says what the real cases say now, and has every sentence that the chart can say."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from pulumi.automation.errors import CommandError

from operations.stack import stderr_of
from sandbox.engine import PROJECT
from sandbox.tools import PULUMI, prepare
from tests import missing_in_aws, remedies
from tests.bad_input import (
    DOC,
    HIDDEN,
    Case,
    StackFiles,
    document,
    kubeconfig_cases,
    sections,
    short_timeout,
    together,
)
from tests.chart.rendering import Chart
from tests.conftest import TestCluster

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
            assert files.paste(command) == "", command

    assert len(faults) == 31
    assert [fault for fault, _ in files.faults()] == [STAYS]
    assert "VALUE" not in files.file.read_text()


def test_every_command_that_is_printed_for_the_config_mends_its_fault(tools: Path, tmp_path: Path) -> None:
    prepare(tools, [PULUMI])
    files = StackFiles(tmp_path / "sandbox", tools)

    for text in together():
        files.mended(text)


def test_every_command_that_is_printed_where_aws_or_eks_lacks_something_works(
    tools: Path, helm: str, cluster: TestCluster, tmp_path: Path
) -> None:
    """Run by the real AWS CLI and kubectl where the machine has them; `eksctl` is not, nor what needs a
    browser."""
    prepare(tools, [PULUMI])
    files = StackFiles(tmp_path / "sandbox", tools)
    no_stack = CommandError(f"\n stderr: {files.pulumi('stack', 'select', 'another')}")
    [command] = remedies.commands_in(stderr_of(no_stack))
    assert "Created stack 'another'" in files.paste(command)
    files.write("mern:values: {ingress: {group: {name: shared}}}")
    for case in (*kubeconfig_cases(), short_timeout(Chart(helm))):
        for command in remedies.commands_in("\n".join(case.message)):
            assert files.paste(command) == ""
            assert files.says(command)
    with missing_in_aws.aws(tmp_path) as aws:
        keys = f"{aws.account.keys['AccessKeyId']}\n{aws.account.keys['SecretAccessKey']}\n\n\n"
        for missing in aws.refusals():
            missing.prepare()
            commands = remedies.commands_in(missing_in_aws.refusal(missing.ask))
            assert commands, missing.written
            for command in commands:
                if command.startswith("pulumi config "):
                    assert files.paste(command) == ""
                    assert files.says(command)
                elif remedies.is_here(command) and not command.startswith("pulumi up "):  # here is no stack
                    remedies.run(command, env=cluster.env, given=keys, SUBNET=aws.subnet)
            if missing.is_mended and all(map(remedies.is_here, commands[-1:])):
                assert missing_in_aws.refusal(missing.ask) == ""


CLASS_AND_CRD = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: pasted}
spec: {controller: example.org/pasted}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: pasted, namespace: default}
spec: {defaultBackend: {service: {name: pasted, port: {number: 80}}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pasted.example.org}
spec:
  group: example.org
  names: {kind: Pasted, plural: pasted}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""


def test_commands_that_look_at_a_cluster_and_an_account_or_mark_something_there_are_taken(
    cluster: TestCluster, tmp_path: Path
) -> None:
    """As they stand in the sources: which message has them, other tests say."""
    if not remedies.is_here("kubectl "):
        pytest.skip("there is no kubectl here")
    kubectl = ["kubectl", "apply", "-f", "-"]
    subprocess.run(kubectl, input=CLASS_AND_CRD, text=True, env=cluster.env, check=True, capture_output=True)
    for start, *texts in (
        ("kubectl get ingressclass ", "pasted"),
        ("kubectl get ingress ", "pasted", "default"),
        ("kubectl describe ingress ", "pasted", "default"),
        ("kubectl label namespace ", "default", "a=b c=d"),
        ("kubectl annotate ingress ", "pasted", "default", "alb.ingress.kubernetes.io/"),
        ("kubectl annotate crd ", "pasted.example.org", "mern/installed-by", "mern/staging"),
    ):
        remedies.run(remedies.filled(start, *texts), env=cluster.env)
    for command in remedies.printed():
        if command.startswith("kubectl get deployments "):
            remedies.run(command.replace(remedies.HOLE, "a=b"), env=cluster.env)
    with missing_in_aws.aws(tmp_path) as aws:
        for start, *texts in (
            ("aws acm list-certificates ", aws.eks.region),
            ("aws ec2 describe-subnets ", aws.eks.vpc_id, aws.eks.region),
        ):
            command = remedies.filled(start, *texts)
            if remedies.is_here(command):
                remedies.run(command, env=cluster.env)
