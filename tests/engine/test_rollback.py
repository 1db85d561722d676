"""Back to an earlier revision: afterwards the stack file, Pulumi's state and the cluster agree."""

import base64
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Secret

from operations.__main__ import main
from tests.engine.conftest import Project

NEW_URI = "mongodb://app:another-password@mongo.example/mern"
MORE = ("templates/_workload.tpl", "spec:", "spec:\n  minReadySeconds: 1")
Rollback = Callable[..., int]


@pytest.fixture
def rollback(project: Project, monkeypatch: pytest.MonkeyPatch) -> Rollback:
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PATH", project.cluster.env["PATH"])

    def run(*arguments: str) -> int:
        command = ["rollback", *arguments, "--stack", project.stack]
        return main(command, lambda _: project.open())

    return run


def image(project: Project, name: str) -> Any:
    return project.get(Deployment, name).spec.template.spec.containers[0].image


def replace(project: Project, old: str, new: str) -> None:
    text = project.config_file.read_text()
    assert old in text
    project.config_file.write_text(text.replace(old, new))


def test_config_state_and_cluster_go_back_together_and_credentials_do_not(
    project: Project, rollback: Rollback, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(project, "replicas: 2\n", "replicas: 2 # of two zones\n")
    assert project.up().ok
    first = project.config_file.read_text()
    replace(project, "mern:imageTag: 1.0.0", "mern:imageTag: 2.0.0")
    assert project.up().ok
    replace(project, "replicas: 2 #", "replicas: 3 #")
    project.set_secret("mern:mongodbUri", NEW_URI)
    assert project.up().ok
    capsys.readouterr()

    assert rollback("1", "--yes") == 0

    said = capsys.readouterr()
    assert '  ~ mern:imageTag: "2.0.0" → "1.0.0"\n' in said.out
    assert "  ~ mern:values.mernClient.replicas: 3 → 2\n" in said.out
    assert "today's are kept: mern:mongodbUri\n" in said.out
    assert "~  helm:apps/v1:Deployment" in said.out
    assert "Revision 4 has the config of revision 1." in said.out
    assert NEW_URI not in said.out + said.err
    assert project.config_file.read_text() == first
    assert image(project, "mern-client") == "mern-client:1.0.0"
    assert project.get(Deployment, "mern-client").spec.replicas == 2
    uri = project.get(Secret, "mern-server").data["MONGODB_URI"]
    assert base64.b64decode(uri).decode() == NEW_URI
    assert project.up().changes == set()

    assert rollback("4") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert rollback("9") == 1
    listed = capsys.readouterr().err
    assert "Helm keeps no revision 9" in listed
    assert "differs from the stack file in: mern:imageTag, mern:values.mernClient.replicas" in listed


def test_a_declined_a_refused_and_a_failed_rollback_leave_the_stack_file_as_it_was(
    project: Project,
    rollback: Rollback,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = project.cluster.client
    node = next(iter(client.list(Node))).metadata.name
    client.patch(Node, node, {"metadata": {"labels": {"zone": "a"}}})
    project.configure(values={"mernClient": {"nodeSelector": {"zone": "a"}}})
    assert project.up().ok
    client.patch(Node, node, {"metadata": {"labels": {"zone": None}}})
    project.configure(values={"mernClient": {"nodeSelector": None}}, imageTag="2.0.0", release={"timeout": 5})
    assert project.up().ok
    now = project.config_file.read_text()

    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert rollback("1") == 1
    assert f"Pulumi.{project.stack}.yaml is as it was." in capsys.readouterr().err
    assert project.config_file.read_text() == now

    project.edit(*MORE)
    project.edit("templates/_workload.tpl", "minReadySeconds: 1", "minReadySeconds: -1")
    assert rollback("1", "--yes", "--chart-as-it-is") == 1
    said = capsys.readouterr()
    assert "the API server refuses" in said.out
    assert "the preview says why" in said.err
    assert project.config_file.read_text() == now
    project.edit("templates/_workload.tpl", "\n  minReadySeconds: -1", "")

    assert rollback("1", "--yes") == 1
    assert "The rollback to revision 1 failed." in capsys.readouterr().err
    assert project.config_file.read_text() == now
    assert image(project, "mern-client") == "mern-client:2.0.0"
    assert project.up().ok
    assert project.up().changes == set()


def test_another_chart_is_refused_with_the_commit_that_has_it(
    project: Project, rollback: Rollback, capsys: pytest.CaptureFixture[str]
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=project.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "chart")
    git("commit", "--quiet", "--message", "The first chart")
    commit = git("rev-parse", "HEAD")[:12]
    assert project.up().ok
    project.edit(*MORE)
    (project.folder / "chart/templates/more.yaml").write_text("# more\n")
    git("add", "chart")
    git("commit", "--quiet", "--message", "Another chart")
    assert project.up().ok
    before = project.config_file.read_text()

    assert rollback("1", "--yes") == 1

    said = capsys.readouterr().err
    assert f"Commit {commit} (" in said
    command = f"git checkout --no-overlay {commit} -- chart"
    assert f"    {command}\n" in said
    assert project.config_file.read_text() == before

    git(*command.split()[1:])
    assert rollback("1", "--yes") == 0
    assert project.get(Deployment, "mern-client").spec.minReadySeconds is None
    assert project.up().changes == set()
