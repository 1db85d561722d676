"""What editors say of a stack file, by its schema, is what the settings and the chart say of it."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

from components.release.values import ABSENT, get, leaves, merged, put
from operations import stack_file
from sandbox.engine import PROJECT
from settings import SECRET_VALUES, schema
from tests import bad_input
from tests.chart.rendering import CREDENTIALS
from tests.chart.test_chart_values import WITHOUT_DEFAULT

COMMITTED = [PROJECT / f"Pulumi.{stack}.yaml" for stack in ("preview", "production", "staging")]
TEMPLATE = PROJECT / "sandbox/Pulumi.local.yaml"
CHART = PROJECT / "chart"
CHART_SCHEMA = CHART / "values.schema.json"
SCHEMA: Any = json.loads(schema.FILE.read_text())
DEFAULTS: Any = yaml.safe_load((CHART / "values.yaml").read_text())


@functools.cache
def checker(file: Path) -> Any:
    return fastjsonschema.compile(json.loads(file.read_text()))


def fault(config: Mapping[str, Any]) -> str:
    """Return what is wrong with the config of a stack file, empty where nothing is."""
    return fault_by(schema.FILE, {"config": config})


def fault_by(file: Path, document: Any) -> str:
    try:
        checker(file)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        return str(error.message)
    return ""


def right(**values: Any) -> dict[str, Any]:
    """Return a right config, with these of the chart's values."""
    return {**bad_input.written("mern:values: {}"), "mern:values": values}


def test_the_schema_is_that_of_the_settings_and_the_chart() -> None:
    assert schema.FILE.read_text() == schema.text(), f"make it anew: {schema.COMMAND}"


def test_vs_code_finds_the_schema_of_a_file_that_does_not_name_it() -> None:
    [(name, patterns)] = json.loads((PROJECT / ".vscode/settings.json").read_text())["yaml.schemas"].items()
    assert PROJECT / name == schema.FILE
    assert {file for pattern in patterns for file in PROJECT.glob(pattern)} >= set(COMMITTED)


@pytest.mark.parametrize("file", [*COMMITTED, TEMPLATE], ids=lambda file: file.name)
def test_each_stack_file_names_the_schema_and_keeps_to_it(file: Any) -> None:
    text = file.read_text()
    [name] = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", text)
    assert PROJECT / name == schema.FILE  # of the copy that `make up` makes of the template
    assert fault_by(schema.FILE, yaml.safe_load(text)) == ""


def test_the_charts_values_name_their_schema_and_keep_to_it() -> None:
    text = (CHART / "values.yaml").read_text()
    [name] = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", text)
    assert CHART / name == CHART_SCHEMA
    assert fault_by(CHART_SCHEMA, yaml.safe_load(text)) == ""


# ---- what is wrong, to both

BETWEEN_KEYS = {
    *("without mern:mongodbUri", "without mern:awsSecretAccessKey", "without mern:aws"),
    'mern:aws: {accountId: "111111111111", region: eu-central-1, tags: {team: shop, Team: web}}',
    "mern:values: {mernServer: {existingSecret: a}, pythonScript: {existingSecret: b}}",
    bad_input.KEYS_AND_ROLE,
    *(f"{bad_input.LAPTOP}\n{text}" for text in bad_input.NEEDS_EKS.strip().splitlines()),
}
"""What keys ask of each other, which the schema leaves to the settings."""
ENCRYPTED = re.compile(r"mern:(mongodbUri|serverSecrets|aws\w*Key\w*): ({JWT_SECRET: )?{secure: [^{}]*}}?")
"""A secret: what is wrong with it, only the settings see."""
DATE = re.compile(r"20\d\d-\d\d-\d\d")
"""To editors text, to the engine a date."""


def test_what_the_settings_refuse_is_a_fault_to_an_editor() -> None:
    accepted = {text for text in bad_input.settings_texts() if not fault(bad_input.written(text))}
    assert {text for text in accepted if not ENCRYPTED.fullmatch(text)} == BETWEEN_KEYS


def test_what_yaml_takes_for_something_else_is_a_fault_to_an_editor() -> None:
    for text in bad_input.MISREAD:
        config = stack_file._parsed(text.encode())
        assert fault({**right(), **config}) or DATE.search(text), text


def test_a_value_that_the_charts_schema_refuses_is_a_fault_to_an_editor() -> None:
    for text in bad_input.VALUES.strip().splitlines():
        values = yaml.safe_load(text)
        refused = fault_by(CHART_SCHEMA, merged(merged(DEFAULTS, CREDENTIALS), values))
        is_secret = any(get(values, tuple(place.split("."))) is not ABSENT for place in SECRET_VALUES)
        assert bool(fault(right(**values))) == bool(refused or is_secret), text


# ---- what is right, to both

RIGHT = """
mern:cluster: {eksClusterName: staging, movesFrom: 8d3c}
mern:cluster: {kubeconfig: "~/.kube/config:other", context: laptop}
mern:aws: {accountId: "111111111111", region: us-gov-west-1, roles: {path: /, permissionsBoundary: "arn:aws:iam::aws:policy/A"}}
mern:aws: {accountId: "111111111111", region: eu-central-1, tags: {"cost centre": "", Größe: 4+1}}
mern:namespace: {name: shop, mode: existing, protect: true, labels: {a/b: c}, access: {clusterRole: a, group: "b:c"}}
mern:namespace: {name: shop, quota: {pods: "10"}}
mern:imageTag: "7"
mern:mongodbUri: {secure: mongodb://a}
mern:serverSecrets: {}
mern:serverSecrets: {JWT_SECRET: {secure: a}, _B: {secure: b}}
mern:serverSecrets: {secure: '{"JWT_SECRET": "a"}'}
mern:pythonScript: {roleArn: "arn:aws-cn:iam::111111111111:role/path/etl"}
mern:pythonScript: {policy: {Version: "2012-10-17", Statement: []}, identity: pod-identity}
mern:loadBalancerController: {mode: auto-mode}
mern:loadBalancerController: {mode: install, identity: irsa, chartRepository: oci://a, values: {replicaCount: 1, a: {secure: b}}}
mern:loadBalancerController: {values: {serviceAccount: {annotations: {team: shop}}, podAnnotations: {a: b}}}
mern:checks: {ingressClass: false, group: false, subnets: false, certificates: false, identity: false, metrics: false}
mern:release: {timeout: 86400, showObjects: false, dryRun: false, drift: restore, leave: ["Deployment/*:spec"], adopt: true}
mern:release: {unlockRevision: 1}
mern:values: {mernServer: {existingSecret: a}, ingress: {hosts: [a.example.com]}}
"""  # noqa: E501


@pytest.mark.parametrize("text", RIGHT.strip().splitlines())
def test_what_the_settings_take_is_no_fault_to_an_editor(text: str) -> None:
    config = bad_input.written(text)
    bad_input.parse(config)
    assert fault(config) == ""


def test_each_value_of_the_chart_can_be_overridden_by_itself() -> None:
    for path, value in leaves(DEFAULTS):
        values: dict[str, Any] = {}
        put(values, path, value)
        assert bool(fault(right(**values))) == (".".join(map(str, path)) in SECRET_VALUES), path


def test_the_stack_files_in_the_documentation_keep_to_it() -> None:
    text = "".join(page.read_text() for page in PROJECT.glob("docs/*.md"))
    examples = re.findall(r"```yaml\n((?:config|mern:\w+):\n.+?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        config = yaml.safe_load(example)
        assert fault({**right(), **config.get("config", config)}) == "", example


# ---- what an editor explains


def test_every_key_is_explained() -> None:
    """But for groups of values, and what Kubernetes' own documentation explains."""
    unexplained = {
        path for path, part in keys_of(SCHEMA) if "description" not in part and "properties" not in part
    }
    assert {path for path in unexplained if not WITHOUT_DEFAULT.search(path)} == set()


def keys_of(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, below in part.get("properties", {}).items():
        if below is not False:  # a key that is refused
            yield f"{path}.{name}", below
            yield from keys_of(below, f"{path}.{name}")
