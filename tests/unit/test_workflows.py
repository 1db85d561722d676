"""The workflows, as far as they can be checked without GitHub."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.engine import PROJECT
from tests.workflow import WORKFLOWS, load

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.yaml"))
STACKS = ("staging", "production")


def steps(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every step of a workflow, with its job's name."""
    return [(job, step) for job, described in load(name)["jobs"].items() for step in described["steps"]]


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
    stack = "${{ inputs.stack || (github.ref_name == 'main' && 'production' || 'staging') }}"
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


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_and_no_text_of_others_gets_into_a_shell(name: str) -> None:
    text = (WORKFLOWS / f"{name}.yaml").read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    for _, step in steps(name):
        assert "${{" not in step.get("run", "")
    assert "pull_request_target" not in text
    assert not re.search(r"aws-(access-key-id|secret-access-key):", text)


def test_secrets_of_a_stack_are_only_where_the_engine_runs() -> None:
    for name in NAMES:
        for job, step in steps(name):
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
