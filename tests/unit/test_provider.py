"""The provider for programs in other languages, without an engine: its inputs and its schema."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.output import UNKNOWN

from components.release import ReleaseArgs, ReleaseError
from components.release.provider import RELEASE, ReleaseProvider, api_of, plain_inputs
from components.release.secrets import opened
from sandbox.control_plane import is_alive
from sandbox.engine import PROJECT


def as_the_engine_hands_them_on(**inputs: Any) -> dict[str, Any]:
    """Return the arguments that a provider makes of inputs: what has a canary in it is a secret."""

    def of_the_engine(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of_the_engine(item) for key, item in value.items()}
        if value == "unknown":
            return pulumi.Output.from_input(UNKNOWN)
        return pulumi.Output.secret(value) if "canary" in str(value) else value

    async def asked() -> dict[str, Any]:
        return await plain_inputs({key: of_the_engine(value) for key, value in inputs.items()})

    return asyncio.run(asked())


def test_inputs_become_arguments_and_secrets_stay_secrets_each_for_itself() -> None:
    """The wire has one type of number."""
    values = {"replicas": 2.0, "share": 0.5, "db": {"password": "canary", "port": 5432.0}, "none": None}
    args = as_the_engine_hands_them_on(
        chart="./chart", timeout=60.0, showObjects=False, values=values, kubeconfig="canary"
    )
    assert opened(args) == {
        "chart": "./chart",
        "timeout": 60,
        "show_objects": False,
        "values": values,
        "kubeconfig": "canary",
    }
    assert isinstance(args["timeout"], int)
    assert isinstance(args["values"]["replicas"], int)
    assert "canary" not in str(args)


def test_what_is_not_known_or_cannot_be_kept_secret_is_refused_together() -> None:
    with pytest.raises(ReleaseError) as refused:
        as_the_engine_hands_them_on(
            name="canary",
            namespace=UNKNOWN,
            values={"all": [{"canary": 3}], "host": "unknown", "token": "canary"},
        )
    assert [line.partition(":")[0].partition(",")[0] for line in str(refused.value).splitlines()] == [
        "name is a secret",
        "namespace is not known before it is deployed",
        "values.all[0].canary is a secret and no text",
        "values.host is not known before it is deployed",
    ]


@pytest.mark.parametrize("text", ["", "text", "{}", "users: [{user: {token: 'canary"])
def test_a_kube_config_that_is_none_is_not_quoted(text: str) -> None:
    with pytest.raises(ReleaseError) as refused:
        api_of(text)
    assert str(refused.value) == "kubeconfig is no kube config with a current context"


def test_the_schema_has_the_arguments_of_the_component() -> None:
    schema = json.loads(ReleaseProvider("1.2.3").schema or "")
    described = schema["resources"][RELEASE]
    inputs = described["inputProperties"]
    own = {field.name: field for field in fields(ReleaseArgs)}
    of_messages = {name for name in own if name.endswith("_command")}
    in_python = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name) for name in inputs}
    assert in_python == own.keys() - of_messages - {"parents"} | {"kubeconfig"}
    assert inputs["unlockRevision"]["type"] == inputs["timeout"]["type"] == "integer"
    assert inputs["adopt"]["type"] == "boolean"
    assert inputs["leave"] == inputs["leave"] | {"type": "array", "items": {"type": "string"}}
    assert inputs["values"]["type"] == "object"
    assert inputs["drift"]["type"] == "string"
    assert all(len(described["description"]) > 20 for described in inputs.values())
    assert [name for name, described in inputs.items() if described.get("secret")] == ["kubeconfig"]


def test_the_programs_that_are_documented_use_inputs_of_the_schema() -> None:
    page = (PROJECT / "docs/release.md").read_text()
    [text] = re.findall(r"```yaml\n(name: .+?)```", page, re.DOTALL)
    [typescript] = re.findall(r"```typescript\n(.+?)```", page, re.DOTALL)
    program = yaml.safe_load(text)
    schema = json.loads(ReleaseProvider("1.2.3").schema or "")
    described = schema["resources"][RELEASE]
    used = program["resources"]["web"]
    assert used["type"] == RELEASE
    for given in (set(used["properties"]), set(re.findall(r"^  (\w+):", typescript, re.MULTILINE))):
        assert set(described["requiredInputs"]) <= given <= described["inputProperties"].keys()


def test_the_process_ends_when_whoever_has_started_it_is_killed() -> None:
    """The SDK's server of a provider does not look."""
    provider = "from components.release import provider; import time; provider.end_with_the_engine(); "
    child = [sys.executable, "-c", provider + "print(flush=True); time.sleep(60)"]
    engine = f"p = Popen({child!r}, stdout=PIPE, stderr=DEVNULL); p.stdout.readline(); print(p.pid)"
    start = [sys.executable, "-c", f"from subprocess import *; {engine}"]
    process = int(subprocess.run(start, cwd=PROJECT, check=True, capture_output=True).stdout)
    try:
        give_up = time.monotonic() + 20
        while is_alive(process):
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
