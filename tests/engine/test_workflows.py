"""The workflows' own steps, run as GitHub runs them, against the sandbox and a small GitHub API."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment

from operations.ci.engine import SECRET_KEY
from sandbox.engine import PROJECT, Engine
from sandbox.tools import PULUMI, prepare
from tests import github_api
from tests.canary import PARTS, seen
from tests.conftest import FOLDER
from tests.engine.conftest import ENGINE, Project, share_program
from tests.engine.faults import FITTING, TOO_BIG, family, status, until
from tests.github_api import FakeGitHub
from tests.workflow import WORKFLOWS, Runner, bare_python, load, steps

NOT_RUN_ON_A_CLUSTER = {
    "make check": "it is a check of its own",
    "make test": "it runs this test",
    "make package": "tests/unit/test_package.py builds the same",
    "Release": "tests/unit/test_workflows.py does, with a stand-in for gh",
    "Install the program's packages": "tests/unit/test_workflows.py does, and tests have them",
    "Show who GitHub says this job is": "tests/unit/test_workflows.py does",
    "Log in to Pulumi Cloud by OIDC": "tests/unit/test_workflows.py does, with a stand-in for Pulumi Cloud",
    "Check that it can be reached": "it waits ten minutes; it is run without",
    "Say why there is no preview": "a test of its own does, below",
    "Remove": "tests/engine/test_environments.py does",
    "Sweep": "tests/engine/test_environments.py does",
}
"""The steps that the long test here leaves out, and why."""

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


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on GitHub whose workflows deploy `project`."""

    project: Project
    github: FakeGitHub
    folder: Path

    def runner(self, name: str, expressions: Mapping[str, str] | None = None) -> Runner:
        """A machine with the repository and its packages; the name is that of a folder."""
        folder, stack = self.folder / name, self.project.stack
        folder.mkdir()
        event = folder / "event.json"
        event.write_text(json.dumps({"pull_request": {"number": 5, "head": {"sha": "0123abc"}}}))
        env = {
            **self.project.environment(),
            **self.github.env,
            "PATH": f"{bare_python(folder / 'bin')}{os.pathsep}{self.project.environment()['PATH']}",
            "GITHUB_EVENT_PATH": str(event),
        }
        # The steps that need them have these of their own.
        for key in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"):
            del env[key]
        return Runner(
            folder=folder,
            workspace=self.project.folder,
            env=env,
            expressions={
                "github.base_ref == 'main' && 'production' || 'staging'": stack,
                "inputs.stack || (github.ref_name == 'main' && 'production' || 'staging')": stack,
                "matrix.stack": stack,
                "inputs.image-tag": "",
                "inputs.promote-from && (needs.proof.outputs.images || 'none') || inputs.images": "",
                "inputs.promote-from": stack,
                "github.token": github_api.TOKEN,
                "vars.PULUMI_BACKEND_URL": (FOLDER / "state").as_uri(),
                "vars.PULUMI_DEFAULT_ORGANIZATION || vars.PULUMI_OIDC_ORGANIZATION": "",
                "secrets.PULUMI_ACCESS_TOKEN": "",
                "secrets.PULUMI_CONFIG_PASSPHRASE": ENGINE.passphrase.read_text(),
                **(expressions or {}),
            },
        )


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with github_api.serve() as fake:
        yield fake


def test_the_workflows_deploy_look_for_drift_preview_and_go_on_after_failures(
    project: Project, github: FakeGitHub, tmp_path: Path
) -> None:
    project.secrets = dict(PARTS)
    project.configure(imageTag=None)
    project.make()
    repository = Repository(project=project, github=github, folder=tmp_path)

    runners = [
        deploy_an_image_tag(repository),
        promote_what_nobody_reports(repository),
        *look_for_drift(repository),
        preview_a_pull_request(repository),
        deploy_what_cannot_become_ready(repository),
        *deploy_after_a_run_that_was_killed(repository),
    ]

    commands = {
        step.get("name", step["run"])
        for workflow in WORKFLOWS.glob("*.yaml")
        for job in load(workflow.stem)["jobs"].values()
        for step in steps(job)
        if "run" in step
    }
    assert commands - {name for machine in runners for name in machine.ran} == set(NOT_RUN_ON_A_CLUSTER)
    shown = [text for machine in runners for text in (machine.summary, *machine.printed)]
    assert len("".join(shown)) > 10_000
    assert not seen("".join(shown) + json.dumps([github.comments, github.issues], ensure_ascii=False))


def deploy_an_image_tag(repository: Repository) -> Runner:
    """The first push; the workflow that built the images calls."""
    project = repository.project
    machine = repository.runner("first", {"inputs.image-tag": "9.8.7"})
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert image(project).endswith(":9.8.7")
    assert re.search(
        r"### Stack .* is deployed, revision <code>1</code>: created 1\d \(\d+ s\)", machine.summary
    )
    assert "9.8.7" not in project.config_file.read_text()
    assert project.outputs()["revision"] == 1
    assert SECRET_KEY not in json.dumps(project.outputs())

    # No controller gives an address here.
    (step,) = [item for item in load("deploy")["jobs"]["deploy"]["steps"] if "health" in item.get("run", "")]
    assert step["run"] == '.venv/bin/python -m operations check-health "$STACK" --wait 600'
    looked = subprocess.run(
        [".venv/bin/python", "-m", "operations", "check-health", project.stack],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 1
    assert "Ingress mern has no address yet" in looked.stdout
    assert "service mern-client has no target group yet" in looked.stdout
    return machine


def image(project: Project) -> str:
    return str(project.get(Deployment, "mern-server").spec.template.spec.containers[0].image)


def promote_what_nobody_reports(repository: Repository) -> Runner:
    """kwok reports no digests; tests/engine/test_promotion.py invents them."""
    machine = repository.runner("promotion")
    done = machine.run("deploy", "proof", "Read the images")
    assert done.returncode == 1
    assert "### Nothing was promoted" in machine.summary
    assert "no digest of that is reported" in machine.summary
    return machine


def look_for_drift(repository: Repository) -> Iterator[Runner]:
    """An issue is open while something is not as it should be; a tag that was passed in is no drift."""
    project, github = repository.project, repository.github
    for replicas, code, state in ((5, 3, "open"), (2, 0, "closed")):
        project.cluster.client.patch(
            Deployment,
            "mern-client",
            {"spec": {"replicas": replicas}},
            namespace=project.namespace,
            field_manager="kubectl",
        )
        machine = repository.runner(f"drift-{state}")
        done = machine.run("drift", "drift", "Look for drift")
        assert done.returncode == code, done.stdout + done.stderr
        told = machine.run("drift", "drift", "Open, renew or close the issue")
        assert told.returncode == 0, told.stderr
        (issue,) = github.issues
        assert issue["state"] == state
        assert "Deployment mern-client: spec.replicas is 5, not 2 (by kubectl, " in issue["body"]
        yield machine
    assert "is as it should be" in machine.summary


def preview_a_pull_request(repository: Repository) -> Runner:
    """One comment says what it changes, and is renewed to say what refuses it."""
    project, github = repository.project, repository.github
    before = project.config_file.read_text()
    many = project.folder / "chart/templates/many.yaml"
    project.configure(values={"mernServer": {"replicas": 3}})
    project.set_secret("mern:awsSecretAccessKey", PARTS["mern:awsAccessKeyId"])
    many.write_text(MANY)
    machine = repository.runner("preview")
    done = machine.run("preview", "preview", "Preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Previewing update" in done.stdout
    commented = machine.run("preview", "preview", "Comment")
    assert commented.returncode == 0, commented.stderr
    (comment,) = of_pull_request(github)
    body = comment["body"]
    assert "For commit 0123abc." in body
    assert "<code>&#126; Deployment mern-server</code> update" in body
    assert "~ spec.replicas: 2 → 3" in body
    assert "<code>&#126; Secret mern-python-script</code> update" in body
    assert "update 3**" not in body
    assert "~ spec.replicas: 2 → 3" in machine.summary
    assert "create 200" in body
    assert len(re.findall(r"<code>\+ ConfigMap many-\d\d\d</code> create", body)) == 200
    assert re.search(r"no room for the fields of \d+ more objects", body)
    assert body.count("<details>") == body.count("</details>") > 20
    assert body.count("<pre>") == body.count("</pre>")
    assert "&lt;b&gt;@everyone" in body

    many.unlink()
    project.edit("templates/mern-client.yaml", "{{", "{{ nosuchfunction }}{{")
    done = machine.run("preview", "preview", "Preview")
    assert done.returncode == 1
    commented = machine.run("preview", "preview", "Comment")
    assert commented.returncode == 0, commented.stderr
    assert of_pull_request(github) == [comment]
    assert "failed" in comment["body"].splitlines()[1]
    assert re.search(r"templates/mern-client.yaml:\d+: function &quot;|mern-client.yaml:\d+", comment["body"])
    assert "nosuchfunction" in comment["body"]
    project.edit("templates/mern-client.yaml", "{{ nosuchfunction }}{{", "{{")
    project.config_file.write_text(before)
    return machine


def of_pull_request(github: FakeGitHub) -> list[dict[str, Any]]:
    """The comments on it; the issue on drift has others."""
    return [comment for comment in github.comments if comment["issue"] == "5"]


def deploy_what_cannot_become_ready(repository: Repository) -> Runner:
    """The next push names no tag, and fails with a report."""
    project = repository.project
    project.configure(release={"timeout": 4}, values={"mernServer": TOO_BIG})
    machine = repository.runner("second")
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 1
    assert "failed" in machine.summary
    assert re.search(r"Deployment mern-server: \d of 2 ready\n  \d pods? cannot be", machine.summary)
    assert "Now serving: revision" in machine.summary
    assert image(project).endswith(":9.8.7")
    assert status(project) == "3 deployed"
    return machine


def deploy_after_a_run_that_was_killed(repository: Repository) -> Iterator[Runner]:
    """Its lock is released and its revision marked failed, for GitHub says that it has ended."""
    project, github = repository.project, repository.github
    project.configure(release={"timeout": 30})
    killed = repository.runner("third")
    began = datetime.now(UTC).replace(microsecond=0)
    kill_a_deployment(project, killed, when="4 pending-upgrade")
    locks = list((FOLDER / f"state/.pulumi/locks/organization/mern/{project.stack}").glob("*.json"))
    assert len(locks) == 1
    yield killed

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
    machine = repository.runner("fourth")
    done = machine.run("deploy", "deploy", "Deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was left by a run that was killed (https://github.example/job/1): released" in machine.summary
    assert "revision 4 was left pending-upgrade by a run that was killed" in machine.summary
    assert status(project) == "5 deployed"
    assert image(project).endswith(":9.8.7")
    assert not locks[0].exists()
    yield machine


def kill_a_deployment(project: Project, machine: Runner, when: str) -> None:
    """Run the step and kill it, with all that it has started, while Helm is at work."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find what the engine has started")
    done: list[Any] = []
    work = threading.Thread(target=lambda: done.append(machine.run("deploy", "deploy", "Deploy")))
    work.start()
    try:
        until(lambda: status(project) == when or done)
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
    """On a backend with nothing in it."""
    prepare(tools, [PULUMI])
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    share_program(workspace)
    shutil.copy(PROJECT / "Pulumi.staging.yaml", workspace)
    engine = Engine(folder=tmp_path)
    (tmp_path / "state").mkdir()
    engine.tools.symlink_to(tools)
    machine = Runner(
        folder=tmp_path,
        workspace=workspace,
        env={key: text for key, text in engine.environment().items() if "PASSPHRASE" not in key},
        expressions={
            "github.base_ref == 'main' && 'production' || 'staging'": "staging",
            "vars.PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
            "vars.PULUMI_DEFAULT_ORGANIZATION || vars.PULUMI_OIDC_ORGANIZATION": "",
            "secrets.PULUMI_ACCESS_TOKEN": "",
            "secrets.PULUMI_CONFIG_PASSPHRASE": "made-up",
        },
    )
    done = machine.run("preview", "preview", "Preview")
    assert done.returncode == 1
    assert "no stack named 'staging' found\n    pulumi stack init staging" in machine.summary
    assert "Traceback" not in done.stderr
    assert (workspace / "Pulumi.staging.yaml").read_bytes() == (PROJECT / "Pulumi.staging.yaml").read_bytes()


def test_a_forks_pull_request_gets_a_sentence(tmp_path: Path) -> None:
    described = load("preview")["jobs"]["fork"]
    assert not {"environment", "permissions"} & set(described)
    assert "secrets." not in yaml.safe_dump(described)
    stack = {"github.base_ref == 'main' && 'production' || 'staging'": "production"}
    machine = Runner(folder=tmp_path, workspace=tmp_path, env={}, expressions=stack)
    done = machine.run("preview", "fork", "Say why there is no preview")
    assert done.returncode == 0
    assert "No preview of stack production" in machine.summary
    assert "::notice::No preview of stack production" in done.stdout
