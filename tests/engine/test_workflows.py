"""The workflows' own steps, run as GitHub runs them, against the sandbox and a small GitHub API."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment

from operations.engine import SECRET_KEY
from sandbox.engine import PROJECT, Engine
from tests import github_api
from tests.conftest import FOLDER
from tests.engine.conftest import Project
from tests.engine.faults import FITTING, TOO_BIG, family, status, until
from tests.engine.operations_in_sandbox import VARIABLE
from tests.engine.test_nothing_secret_in_the_open import PARTS, seen
from tests.github_api import FakeGitHub
from tests.workflow import Runner, load

MANY = """{{- range $number := until 200 }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ printf "many-%03d" $number }}
  namespace: {{ $.Release.Namespace }}
data:
  text: |
{{ repeat 12 "    <b>@everyone</b> ``` </pre> [link](https://example.com)\\n" | indent 0 }}
{{- end }}
"""


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with github_api.serve() as fake:
        yield fake


def program(path: Path, arguments: str) -> Path:
    """A `python` that is given these arguments first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
    path.chmod(0o755)
    return path


def runner(
    project: Project,
    github: FakeGitHub,
    folder: Path,
    warnings: tuple[str, ...] = (),
    expressions: Mapping[str, str] | None = None,
) -> Runner:
    """A runner whose `.venv/bin/python -m operations` deploys `project` by the tests' engine."""
    program(folder / ".venv/bin/python", "-m tests.engine.operations_in_sandbox")
    # No virtual environment, as where the packages could not be installed.
    bare = program(folder / "bin/python", "-S")
    event = folder / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 5, "head": {"sha": "0123abc"}}}))
    given = {
        "stack": project.stack,
        "project": str(project.folder),
        "secrets": project.secrets,
        "warnings": warnings,
    }
    return Runner(
        folder=folder,
        env={
            **github.env,
            "PATH": f"{bare.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "GITHUB_EVENT_PATH": str(event),
            VARIABLE: json.dumps(given),
        },
        expressions={
            "github.base_ref == 'main' && 'production' || 'staging'": project.stack,
            "inputs.stack || (github.ref_name == 'main' && 'production' || 'staging')": project.stack,
            "matrix.stack": project.stack,
            "inputs.image-tag": "",
            "github.token": github_api.TOKEN,
            "vars.PULUMI_BACKEND_URL": (FOLDER / "state").as_uri(),
            "secrets.PULUMI_ACCESS_TOKEN": "",
            "secrets.PULUMI_CONFIG_PASSPHRASE": (FOLDER / "passphrase").read_text(),
            **(expressions or {}),
        },
    )


def preview(machine: Runner) -> subprocess.CompletedProcess[str]:
    """The two steps of ours; both are run, whatever becomes of the first."""
    done = machine.run("preview", "preview", "Preview")
    comment = machine.run("preview", "preview", "Comment")
    assert comment.returncode == 0, comment.stderr
    return done


def test_one_comment_says_what_a_pull_request_changes_and_what_refuses_it(
    project: Project, github: FakeGitHub, tmp_path: Path
) -> None:
    project.secrets = dict(PARTS)
    assert project.up().ok
    project.configure(values={"mernServer": {"replicas": 3}})
    project.set_secret("mern:awsSecretAccessKey", PARTS["mern:awsAccessKeyId"])
    project.secrets["mern:awsSecretAccessKey"] = PARTS["mern:awsAccessKeyId"]
    machine = runner(project, github, tmp_path)
    done = preview(machine)
    assert done.returncode == 0, done.stderr
    assert "Previewing update" in done.stdout
    (comment,) = github.comments
    assert comment["issue"] == "5"
    assert "<code>&#126; Deployment mern-server</code> update" in comment["body"]
    assert "~ spec.replicas: 2 → 3" in comment["body"]
    assert "<code>&#126; Secret mern-python-script</code> update" in comment["body"]
    assert "For commit 0123abc." in comment["body"]
    assert "update 3**" not in comment["body"]
    assert "~ spec.replicas: 2 → 3" in machine.summary

    (project.folder / "chart/templates/many.yaml").write_text(MANY)
    done = preview(machine)
    assert done.returncode == 0, done.stderr
    body = comment["body"]
    assert len(github.comments) == 1
    assert "create 200" in body
    assert len(re.findall(r"<code>\+ ConfigMap many-\d\d\d</code> create", body)) == 200
    assert re.search(r"no room for the fields of \d+ more objects", body)
    assert body.count("<details>") == body.count("</details>") > 20
    assert body.count("<pre>") == body.count("</pre>")
    assert "&lt;b&gt;@everyone" in body

    (project.folder / "chart/templates/many.yaml").unlink()
    project.edit("templates/mern-client.yaml", "{{", "{{ nosuchfunction }}{{")
    done = preview(machine)
    assert done.returncode == 1
    assert len(github.comments) == 1
    assert "failed" in comment["body"].splitlines()[1]
    assert re.search(r"templates/mern-client.yaml:\d+: function &quot;|mern-client.yaml:\d+", comment["body"])
    assert "nosuchfunction" in comment["body"]
    everything = json.dumps(github.comments, ensure_ascii=False) + machine.summary + done.stdout + done.stderr
    assert not seen(everything)


def test_a_push_is_deployed_watched_for_drift_and_a_failure_is_reported(
    project: Project, github: FakeGitHub, tmp_path: Path
) -> None:
    project.secrets = dict(PARTS)
    project.configure(imageTag=None)
    machine = runner(project, github, tmp_path / "one", expressions={"inputs.image-tag": "9.8.7"})
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 0, done.stderr
    image = project.get(Deployment, "mern-server").spec.template.spec.containers[0].image
    assert image.endswith(":9.8.7")
    assert re.search(
        r"### Stack .* is deployed, revision <code>1</code>: created 1\d \(\d+ s\)", machine.summary
    )
    work = FOLDER / f"work/{project.stack}/Pulumi.{project.stack}.yaml"
    assert "9.8.7" not in work.read_text()
    state = json.loads(project.raw_state())["checkpoint"]["latest"]["resources"]
    (stack,) = [item for item in state if item["type"] == "pulumi:pulumi:Stack"]
    assert stack["outputs"]["revision"] == 1
    assert SECRET_KEY not in json.dumps(stack["outputs"])

    # No controller gives an address here.
    (step,) = [item for item in load("deploy")["jobs"]["deploy"]["steps"] if "health" in item.get("run", "")]
    assert step["run"].endswith('check-health "$STACK" --wait 600')
    main = [str(tmp_path / "one/.venv/bin/python"), "-m", "operations", "check-health", project.stack]
    looked = subprocess.run(main, env={**os.environ, **machine.env}, capture_output=True, check=False)
    assert looked.returncode == 1
    assert b"Ingress mern has no address yet" in looked.stdout
    assert b"service mern-client has no target group yet" in looked.stdout

    # The tag that was passed in is no drift.
    found = "drift: Deployment mern-client: spec.replicas is 5, not 2 (changed by kubectl)"
    for warnings, code, state in (((found,), 3, "open"), ((), 0, "closed")):
        machine = runner(project, github, tmp_path / f"drift-{state}", warnings)
        done = machine.run("drift", "drift", "Look for drift")
        assert done.returncode == code, done.stdout + done.stderr
        told = machine.run("drift", "drift", "Open, renew or close the issue")
        assert told.returncode == 0, told.stderr
        (issue,) = github.issues
        assert issue["state"] == state
        assert "Deployment mern-client: spec.replicas is 5, not 2 (changed by kubectl)" in issue["body"]
    assert "is as it should be" in machine.summary

    # The next push names no tag, and cannot become ready.
    project.configure(release={"timeout": 4}, values={"mernServer": TOO_BIG})
    machine = runner(project, github, tmp_path / "two")
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 1
    assert "failed" in machine.summary
    assert re.search(r"Deployment mern-server: \d of 2 ready\n  \d pods? cannot be", machine.summary)
    assert "Now serving: revision" in machine.summary
    assert ":9.8.7" in project.get(Deployment, "mern-server").spec.template.spec.containers[0].image
    assert not seen(machine.summary + done.stdout + done.stderr)


def test_a_run_that_was_killed_does_not_stop_the_next(
    project: Project, github: FakeGitHub, tmp_path: Path
) -> None:
    assert project.up().ok
    project.configure(values={"mernServer": TOO_BIG})
    machine = runner(project, github, tmp_path / "one")
    began = datetime.now(UTC).replace(microsecond=0)
    kill_a_deployment(project, machine)
    locks = list((FOLDER / f"state/.pulumi/locks/organization/mern/{project.stack}").glob("*.json"))
    assert len(locks) == 1

    project.configure(values={"mernServer": FITTING})
    now, form = datetime.now(UTC), "%Y-%m-%dT%H:%M:%SZ"
    github.runs = [
        {
            "id": 70,
            "created_at": (began - timedelta(days=1)).strftime(form),
            "updated_at": (now + timedelta(seconds=2)).strftime(form),
        }
    ]
    github.jobs[70] = [
        {
            "name": f"deploy to {project.stack}",
            "status": "completed",
            "steps": [{"name": "Deploy", "conclusion": "cancelled", "started_at": began.strftime(form)}],
            "completed_at": (now + timedelta(seconds=1)).strftime(form),
            "html_url": "https://github.example/job/1",
        }
    ]
    machine = runner(project, github, tmp_path / "two")
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was left by a run that was killed (https://github.example/job/1): released" in machine.summary
    assert "revision 2 was left pending-upgrade by a run that was killed" in machine.summary
    assert status(project) == "3 deployed"
    assert not locks[0].exists()


def kill_a_deployment(project: Project, machine: Runner) -> None:
    """Run the step and kill it, with all that it has started, while Helm is at work."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find what the engine has started")
    done: list[Any] = []
    work = threading.Thread(target=lambda: done.append(machine.run("deploy", "deploy", "Deploy")))
    work.start()
    try:
        until(lambda: status(project) == "2 pending-upgrade" or done)
        assert not done
    finally:
        for pid in family(os.getpid())[1:]:
            if str(machine.folder) in environment_of(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        work.join()


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_stack_that_is_not_there_is_said_with_the_command(tmp_path: Path, tools: Path) -> None:
    """By the command as it is, on a backend with nothing in it."""
    program(tmp_path / ".venv/bin/python", "")
    (tmp_path / "state").mkdir()
    env = Engine(folder=tmp_path, tools=tools).environment() | {"PYTHONPATH": str(PROJECT)}
    (tmp_path / "passphrase").write_text("made-up")
    machine = Runner(
        folder=tmp_path,
        env=env,
        expressions={
            "github.base_ref == 'main' && 'production' || 'staging'": "staging",
            "vars.PULUMI_BACKEND_URL": env["PULUMI_BACKEND_URL"],
            "secrets.PULUMI_ACCESS_TOKEN": "",
            "secrets.PULUMI_CONFIG_PASSPHRASE": "made-up",
        },
    )
    before = (PROJECT / "Pulumi.staging.yaml").read_bytes()
    done = machine.run("preview", "preview", "Preview")
    assert done.returncode == 1
    assert "no stack named 'staging' found\n    pulumi stack init staging" in machine.summary
    assert "Traceback" not in done.stderr
    assert (PROJECT / "Pulumi.staging.yaml").read_bytes() == before


def test_a_forks_pull_request_gets_a_sentence(tmp_path: Path) -> None:
    described = load("preview")["jobs"]["fork"]
    assert not {"environment", "permissions"} & set(described)
    assert "secrets." not in yaml.safe_dump(described)
    stack = {"github.base_ref == 'main' && 'production' || 'staging'": "production"}
    machine = Runner(folder=tmp_path, env={}, expressions=stack)
    done = machine.run("preview", "fork", "Say why there is no preview")
    assert done.returncode == 0
    assert "No preview of stack production" in machine.summary
    assert "::notice::No preview of stack production" in done.stdout
