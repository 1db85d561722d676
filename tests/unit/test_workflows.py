"""The workflows, as far as they can be checked without GitHub."""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations.ci import github
from sandbox.engine import PROJECT
from sandbox.tools import PULUMI, prepare
from tests import github_api
from tests.stand_ins import pulumi_cloud
from tests.workflow import ACTIONS, EXPRESSION, WORKFLOWS, Runner, bare_python, load, load_action, steps

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.yaml"))
OWN_ACTIONS = sorted(path.parent.name for path in ACTIONS.glob("*/action.yaml"))
FILES = [*WORKFLOWS.glob("*.yaml"), *ACTIONS.glob("*/action.yaml")]
STACKS = ("staging", "production")
CHOICE = "inputs.stack || (github.ref_name == 'main' && 'production' || 'staging')"
"""The expression for the stack of a deployment."""
ORGANIZATION = "vars.PULUMI_DEFAULT_ORGANIZATION || vars.PULUMI_OIDC_ORGANIZATION"
SHOWN, LOGIN = "Show who GitHub says this job is", "Log in to Pulumi Cloud by OIDC"


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
    assert job["concurrency"] == {"group": f"deploy-{stack}", "cancel-in-progress": False, "queue": "max"}
    assert job["environment"] == load("deploy")["env"]["STACK"] == stack
    # What `ended_job` looks for.
    assert job["name"] == f"deploy to {stack}"
    assert [step.get("name") for step in job["steps"] if " up " in step.get("run", "")] == ["Deploy"]
    assert load("deploy")["on"]["push"]["branches"] == ["develop", "main"]


def test_a_promotion_reads_with_a_role_that_only_reads_and_deploys_just_what_it_has_read() -> None:
    proof, deploy = load("deploy")["jobs"]["proof"], load("deploy")["jobs"]["deploy"]
    environment = {"name": "${{ inputs.promote-from }}-preview", "deployment": False}
    assert proof["environment"] == environment
    assert (deploy["needs"], deploy["if"]) == ("proof", "${{ !failure() && !cancelled() }}")
    [read] = [step for step in proof["steps"] if step.get("id") == "proof"]
    [up] = [step for step in deploy["steps"] if step.get("name") == "Deploy"]
    assert proof["outputs"] == {"images": "${{ steps.proof.outputs.images }}"}
    assert read["run"].endswith(' promote "$SOURCE"')
    # `none` is no image: a promotion that lost its images to GitHub's masks fails, and deploys nothing.
    assert up["env"]["IMAGES"] == (
        "${{ inputs.promote-from && (needs.proof.outputs.images || 'none') || inputs.images }}"
    )
    on = load("deploy")["on"]
    assert {"promote-from", "images"} <= on["workflow_call"]["inputs"].keys()
    assert {"promote-from", "images"} <= on["workflow_dispatch"]["inputs"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_none_unless_a_job_needs_them(name: str) -> None:
    workflow = load(name)
    assert workflow["permissions"] == {}
    needed = {
        "check": {"check": {"contents": "read"}},
        "preview": {"preview": {"contents": "read", "id-token": "write", "pull-requests": "write"}},
        "deploy": {
            "proof": {"contents": "read", "id-token": "write"},
            "deploy": {"contents": "read", "id-token": "write", "actions": "read"},
        },
        "release": {"release": {"contents": "write"}},
        "drift": {"drift": {"contents": "read", "id-token": "write", "issues": "write"}},
        "publish": {"build": {"contents": "read"}, "publish": {"id-token": "write"}},
        "environments": {
            job: {"contents": "read", "id-token": "write", "actions": "read", "pull-requests": "write"}
            for job in ("deploy", "remove", "sweep")
        },
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


def test_the_engine_gets_the_organization_from_the_environment() -> None:
    """`pulumi login --oidc-token --default-org` keeps it under an address that no command looks it up by."""
    for name in ("preview", "deploy", "drift", "environments"):
        for _, step in steps_of(name):
            if "PULUMI_BACKEND_URL" in step.get("env", {}) and step.get("name") != LOGIN:
                assert step["env"]["PULUMI_DEFAULT_ORGANIZATION"] == f"${{{{ {ORGANIZATION} }}}}"


def test_secrets_of_a_stack_are_only_where_the_engine_runs() -> None:
    for name in NAMES:
        for job, step in steps_of(name):
            if "secrets." in str(step):
                commands = r"-m operations (preview|up|drift|check-health|promote|environment) "
                assert re.search(commands, step["run"]), (name, job)
                assert "GITHUB_TOKEN" not in step["env"] or name in ("deploy", "environments")


PULL_REQUEST = "github.event.pull_request"


def test_an_environment_is_nothing_for_forks_and_its_runs_follow_each_other() -> None:
    jobs = load("environments")["jobs"]
    # With one deployment for each, GitHub would call all but the newest inactive, and a removal a deployment.
    environment = {"name": "pull-requests", "deployment": False}
    assert [job["environment"] for job in jobs.values()] == [environment] * 3
    for name in ("deploy", "remove"):
        job = jobs[name]
        for condition in (
            f"{PULL_REQUEST}.head.repo.full_name == github.repository",
            f"{PULL_REQUEST}.user.type != 'Bot'",
        ):
            assert job["if"].rstrip().endswith(condition) or f"{condition} &&" in job["if"]
        group = f"environment-${{{{ {PULL_REQUEST}.number }}}}"
        assert job["concurrency"] == {"group": group, "cancel-in-progress": False}
    assert load("environments")["on"]["pull_request"]["types"] == [
        "labeled",
        "unlabeled",
        "synchronize",
        "reopened",
        "closed",
    ]


def test_a_lock_is_looked_up_by_the_names_of_the_jobs_that_hold_one() -> None:
    named = {
        (job["name"].replace("mern-pr-${{ github.event.pull_request.number }}", "{}"), step["name"])
        for job in load("environments")["jobs"].values()
        for step in job["steps"]
        if " environment " in step.get("run", "")
    }
    assert named == set(github.STEPS.items())


@pytest.mark.parametrize(("name", "ending"), [("preview", "-preview"), ("drift", "-drift")])
def test_what_only_reads_runs_in_an_environment_of_its_own(name: str, ending: str) -> None:
    jobs = [job for job in load(name)["jobs"].values() if "environment" in job]
    assert len(jobs) == 1
    named = re.findall(r"[\w.]*-(?:preview|drift)|}}-drift", jobs[0]["environment"]["name"])
    assert named
    assert all(each.endswith(ending) for each in named)
    assert jobs[0]["environment"]["deployment"] is False  # GitHub records none


def test_a_merge_queue_gets_the_checks_that_it_waits_for() -> None:
    """By `check`, which runs, and by `preview`, whose jobs are skipped: GitHub takes that for passed."""
    for name in ("check", "preview"):
        assert "merge_group" in load(name)["on"]
    assert all(
        job["if"].startswith("github.event_name == 'pull_request' && ")
        for job in load("preview")["jobs"].values()
    )
    assert load("check")["jobs"]["check"]["if"].startswith("github.event_name != 'pull_request' ||")
    assert load("check")["on"]["push"] == {"branches-ignore": ["gh-readonly-queue/**"]}  # not twice


def test_actionlint_is_told_of_the_queue_alone_and_still_has_to_be(checks: Path, tmp_path: Path) -> None:
    text = (WORKFLOWS / "deploy.yaml").read_text()
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".git").mkdir()  # by which it finds the project
    file = tmp_path / ".github/workflows/deploy.yaml"
    file.write_text(text.replace("queue: max", "queue: max\n      queues: max"))

    def complaints() -> list[str]:
        command = [str(checks / "actionlint"), "-format", "{{range .}}{{.Message}}\n{{end}}", str(file)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return re.findall(r"unexpected key (\S+)", done.stdout)

    # When it knows `queue`, as its own pull request 654 has it: delete .github/actionlint.yaml and this test.
    assert complaints() == ['"queue"', '"queues"']
    shutil.copy(PROJECT / ".github/actionlint.yaml", tmp_path / ".github")
    assert complaints() == ['"queues"']


def test_commands_that_start_a_workflow_name_a_branch_or_tag_and_a_repository() -> None:
    """Without --ref GitHub takes the default branch, which the environment of the job may refuse."""
    commands = [
        command
        for file in (*PROJECT.glob("docs/*.md"), *PROJECT.glob("*.md"), *PROJECT.glob("operations/**/*.py"))
        for command in re.findall(r"gh workflow run [^\n`]*", file.read_text())
    ]
    assert commands
    for command in commands:
        parser = argparse.ArgumentParser()
        parser.add_argument("workflow")
        for flag in ("--ref", "-R"):
            parser.add_argument(flag, required=True)
        parser.add_argument("-f", action="append", default=[])
        args = parser.parse_args(shlex.split(command)[3:])
        given = dict(text.split("=") for text in args.f)
        trigger = load(Path(args.workflow).stem)["on"]["workflow_dispatch"] or {"inputs": {}}
        assert set(given) <= set(trigger["inputs"])
        if args.workflow == "publish.yaml":
            assert re.fullmatch(r"v\d+\.\d+\.\d+", args.ref)
        else:
            assert args.ref == ("develop" if given.get("stack") == "staging" else "main")


NOTES = """\
# Changelog

## [Unreleased]

- Not yet.

## [1.10.0] - 2026-11-28

### Added

- A key.

## [1.1.0] - 2026-11-01

- Long ago.
"""


def test_a_version_is_released_once_with_what_the_changelog_says_of_it(tmp_path: Path) -> None:
    checkout, log = tmp_path / "checkout", tmp_path / "released.md"
    checkout.mkdir()
    (checkout / "CHANGELOG.md").write_text(NOTES)
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    machine = Runner(
        folder=tmp_path / "runner",
        workspace=checkout,
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_REPOSITORY": github_api.REPOSITORY,
            "GITHUB_SHA": "HEAD",
            "LOG": str(log),
        },
        expressions={"github.token": github_api.TOKEN},
    )
    author = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], cwd=checkout, check=True)

    def release(version: str) -> str:
        log.unlink(missing_ok=True)
        (checkout / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        done = machine.run("release", "release", "Release")
        assert done.returncode == 0, done.stderr
        return log.read_text() if log.exists() else done.stdout

    given = (
        f"release create v{{0}} --repo {github_api.REPOSITORY} --target HEAD --title {{0}} "
        f"--notes-file {machine.temp}/notes.md"
    )
    first, second = "### Added\n\n- A key.\n", "- Long ago.\n"
    assert release("1.10.0").split() == [*given.format("1.10.0").split(), *first.split()]
    assert release("1.10.0") == "v1.10.0 is released already.\n"
    assert release("1.1.0").split() == [*given.format("1.1.0").split(), *second.split()]


# As GitHub does with a release, it makes the tag too.
GH = """#!/bin/sh
set -e
test "$GH_TOKEN" = token-of-the-run
for last; do :; done
{ echo "$*"; cat "$last"; } > "$LOG"
git tag "$3"
"""


def test_what_has_an_owner_is_there() -> None:
    """The rule for a file that was renamed would be dead without a word."""
    lines = (PROJECT / ".github/CODEOWNERS").read_text().splitlines()
    paths = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert [path for path in paths if path != "*" and not (PROJECT / path.strip("/")).exists()] == []


AUDIENCE = "token.actions.githubusercontent.com:aud"
SUBJECT = "token.actions.githubusercontent.com:sub"


def documented_trust_policy() -> dict[str, Any]:
    blocks = re.findall(r"```json\n(.*?)```", (PROJECT / "docs/ci.md").read_text(), re.DOTALL)
    (policy,) = (json.loads(block) for block in blocks if "AssumeRoleWithWebIdentity" in block)
    (statement,) = policy["Statement"]
    return dict(statement["Condition"])


@pytest.mark.parametrize(
    ("job", "is_trusted"),
    [
        ("repo:OWNER/REPOSITORY:environment:production-preview", True),
        ("repo:OWNER@OWNER_ID/REPOSITORY@REPOSITORY_ID:environment:production-preview", True),
        # An owner may be called so: GitHub's own form has a separator that no name can have.
        ("repo:OWNER-OWNER_ID/REPOSITORY-REPOSITORY_ID:environment:production-preview", False),
        ("repo:OWNER@OWNER_ID/REPOSITORY@REPOSITORY_ID:environment:production", False),
        ("repo:OWNER@OWNER_ID/REPOSITORY@REPOSITORY_ID:pull_request", False),
        ("repo:OWNER@OTHER_ID/REPOSITORY@REPOSITORY_ID:environment:production-preview", False),
        ("repo:OWNER@OWNER_ID/OTHER@REPOSITORY_ID:environment:production-preview", False),
    ],
)
def test_the_documented_role_trusts_the_environment_in_both_forms_of_its_name(
    job: str, is_trusted: bool
) -> None:
    condition = documented_trust_policy()
    assert condition.keys() == {"StringEquals"}  # no wildcard, so an exact comparison
    assert condition["StringEquals"][AUDIENCE] == "sts.amazonaws.com"
    assert (job in list(condition["StringEquals"][SUBJECT])) == is_trusted


def job_that_logs_in(tmp_path: Path, cloud: str, env: Mapping[str, str]) -> Runner:
    prepare(tmp_path / "bin", [PULUMI])
    path = f"{bare_python(tmp_path / 'python')}{os.pathsep}{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return Runner(
        folder=tmp_path,
        workspace=PROJECT,
        env={"PATH": path, "PULUMI_HOME": str(tmp_path / "home"), "PULUMI_SKIP_UPDATE_CHECK": "true", **env},
        expressions={
            CHOICE: "staging",
            "vars.PULUMI_OIDC_ORGANIZATION": "shop",
            "vars.PULUMI_BACKEND_URL": cloud,
        },
    )


def test_a_job_says_what_github_calls_it_and_logs_in_to_pulumi_cloud_without_a_token_of_its_own(
    tmp_path: Path,
) -> None:
    """The tokens are shown nowhere, and GitHub's is not kept."""
    with github_api.serve() as github, pulumi_cloud.serve() as cloud:
        github.job = "repo:shop@12/mern@345:environment:staging"
        cloud.accepts = github.id_token("urn:pulumi:org:shop")
        machine = job_that_logs_in(tmp_path, cloud.url, github.id_token_env)
        done = machine.run("deploy", "deploy", SHOWN)
        assert done.stdout == f"To sts.amazonaws.com this job is {github.job}\n"

        done = machine.run("deploy", "deploy", LOGIN)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"To urn:pulumi:org:shop this job is {github.job}\n" in done.stdout
        assert f"Logged in to {cloud.url} as workflows" in done.stdout
        (exchange,) = cloud.exchanges
        assert exchange["audience"] == "urn:pulumi:org:shop"
        assert exchange["requested_token_type"].endswith(":organization")
        assert exchange["expiration"] == "7200"
        assert list(machine.temp.iterdir()) == []

        # The steps after it have an empty PULUMI_ACCESS_TOKEN: the repository has no such secret.
        asked = subprocess.run(
            ["pulumi", "whoami"],
            cwd=tmp_path,
            env={**os.environ, **machine.env, "PULUMI_ACCESS_TOKEN": "", "PULUMI_BACKEND_URL": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.stdout.strip() == "workflows", asked.stderr

        cloud.accepts = ""
        done = machine.run("deploy", "deploy", LOGIN)
        assert done.returncode
        assert "no policy allows this token" in done.stderr
        printed = "".join(machine.printed)
        assert not any(part in printed for part in (*exchange["subject_token"].split("."), "pul-token"))


def test_a_job_without_the_permission_is_told_which(tmp_path: Path) -> None:
    machine = job_that_logs_in(tmp_path, "", {})
    for step in (SHOWN, LOGIN):
        done = machine.run("deploy", "deploy", step)
        assert done.returncode == 1
        assert "it needs the permission `id-token: write`" in done.stderr
