"""The workflows, as far as they can be checked without GitHub."""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.engine import PROJECT
from tests.workflow import ACTIONS, EXPRESSION, WORKFLOWS, Runner, load, load_action, steps

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.yaml"))
OWN_ACTIONS = sorted(path.parent.name for path in ACTIONS.glob("*/action.yaml"))
FILES = [*WORKFLOWS.glob("*.yaml"), *ACTIONS.glob("*/action.yaml")]
STACKS = ("staging", "production")
CHOICE = "inputs.stack || (github.ref_name == 'main' && 'production' || 'staging')"
"""The expression for the stack of a deployment."""


def steps_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every step of a workflow and of its actions, each with its job's name."""
    return [(job, step) for job, described in load(name)["jobs"].items() for step in steps(described)]


@pytest.mark.parametrize("name", NAMES)
def test_actionlint_finds_nothing_in_the_workflows(checks: Path, name: str) -> None:
    done = subprocess.run(
        [str(checks / "actionlint"), str(WORKFLOWS / f"{name}.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_deployment_is_not_cut_off_while_helm_may_still_roll_back() -> None:
    """What is killed midway leaves a lock and a pending revision behind."""
    job = load("deploy")["jobs"]["deploy"]
    wait = next(re.search(r"--wait (\d+)", step["run"]) for step in job["steps"] if "check-" in str(step))
    assert wait
    for stack in STACKS:
        config = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())["config"]
        timeout = config.get("mern:release", {}).get("timeout", 300)
        controller = 300  # of its own release
        needed = 2 * timeout + 2 * controller + int(wait[1])
        assert job["timeout-minutes"] * 60 > needed + 5 * 60


def test_one_run_per_stack_and_none_is_cancelled_midway() -> None:
    job = load("deploy")["jobs"]["deploy"]
    stack = f"${{{{ {CHOICE} }}}}"
    assert job["concurrency"] == {"group": f"deploy-{stack}", "cancel-in-progress": False}
    assert job["environment"] == load("deploy")["env"]["STACK"] == stack
    # What `ended_job` looks for.
    assert job["name"] == f"deploy to {stack}"
    assert [step.get("name") for step in job["steps"] if " up " in step.get("run", "")] == ["Deploy"]
    assert load("deploy")["on"]["push"]["branches"] == ["develop", "main"]


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_none_unless_a_job_needs_them(name: str) -> None:
    workflow = load(name)
    assert workflow["permissions"] == {}
    needed = {
        "check": {"check": {"contents": "read"}},
        "preview": {"preview": {"contents": "read", "id-token": "write", "pull-requests": "write"}},
        "deploy": {"deploy": {"contents": "read", "id-token": "write", "actions": "read"}},
        "drift": {"drift": {"contents": "read", "id-token": "write", "issues": "write"}},
    }
    assert {job: d["permissions"] for job, d in workflow["jobs"].items() if "permissions" in d} == needed[
        name
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_actions_are_pinned_and_no_text_of_others_gets_into_a_shell(file: Path) -> None:
    text = file.read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    own = {f"./.github/actions/{name}" for name in OWN_ACTIONS}
    for action in uses:
        assert action in own or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    described = yaml.safe_load(text)
    parts = described["jobs"].values() if "jobs" in described else [described["runs"]]
    for step in (step for part in parts for step in part["steps"]):
        assert "${{" not in step.get("run", "")
    assert "pull_request_target" not in text
    assert not re.search(r"aws-(access-key-id|secret-access-key):", text)


@pytest.mark.parametrize("name", OWN_ACTIONS)
def test_an_action_knows_what_it_is_given_and_nothing_else(name: str) -> None:
    """GitHub does not tell it the variables and the secrets of an environment."""
    action = load_action(name)
    used = EXPRESSION.findall((ACTIONS / name / "action.yaml").read_text())
    assert set(used) == {f"inputs.{key}" for key in action["inputs"]}


def test_packages_are_installed_with_the_hashes_that_are_pinned_or_not_at_all(tmp_path: Path) -> None:
    wheel = tmp_path / "probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("probe.py", "")
        archive.writestr("probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
        archive.writestr("probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("probe-1.0.dist-info/RECORD", "")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    machine = Runner(folder=tmp_path, workspace=tmp_path, env=env, expressions={CHOICE: "staging"})
    pinned = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for digest, is_installed in (("0" * 64, False), (pinned, True)):
        (tmp_path / "requirements.txt").write_text(f"./{wheel.name} --hash=sha256:{digest}\n")
        done = machine.run("deploy", "deploy", "Install the program's packages")
        assert (done.returncode == 0) == is_installed, done.stdout + done.stderr
        imported = subprocess.run([".venv/bin/python", "-c", "import probe"], cwd=tmp_path, check=False)
        assert (imported.returncode == 0) == is_installed


def test_secrets_of_a_stack_are_only_where_the_engine_runs() -> None:
    for name in NAMES:
        for job, step in steps_of(name):
            if "secrets." in str(step):
                assert re.search(r"-m operations (preview|up|drift|check-health) ", step["run"]), (name, job)
                assert "GITHUB_TOKEN" not in step["env"] or name == "deploy"


@pytest.mark.parametrize(("name", "ending"), [("preview", "-preview"), ("drift", "-drift")])
def test_what_only_reads_runs_in_an_environment_of_its_own(name: str, ending: str) -> None:
    jobs = [job for job in load(name)["jobs"].values() if "environment" in job]
    assert len(jobs) == 1
    named = re.findall(r"[\w.]*-(?:preview|drift)|}}-drift", jobs[0]["environment"])
    assert named
    assert all(each.endswith(ending) for each in named)
