"""Back to an earlier revision: afterwards the stack file, Pulumi's state and the cluster agree."""

import base64
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Secret

from operations.__main__ import main
from tests.engine.conftest import Project

NEW_URI = "mongodb://app:another-password@mongo.example/mern"
MORE = ("templates/_workload.tpl", "spec:", "spec:\n  minReadySeconds: 1")
Rollback = Callable[..., int]


@pytest.fixture
def rollback(project: Project, monkeypatch: pytest.MonkeyPatch) -> Rollback:
    """The command, as if typed in the project's folder."""
    monkeypatch.chdir(project.folder)
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("operations.stack.PROJECT", project.folder)
    return lambda *arguments: main(["rollback", *arguments, "--stack", project.stack])


def git(project: Project, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=project.folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(project: Project) -> str:
    git(project, "add", "chart")
    git(project, "commit", "--quiet", "--message", "The chart")
    return git(project, "rev-parse", "HEAD")[:12]


def image(project: Project, name: str) -> Any:
    return project.get(Deployment, name).spec.template.spec.containers[0].image


def replace(project: Project, old: str, new: str) -> None:
    text = project.config_file.read_text()
    assert old in text
    project.config_file.write_text(text.replace(old, new))


@contextmanager
def zone(project: Project) -> Iterator[None]:
    """With a node in zone a, for a while."""
    client = project.cluster.client
    node = next(iter(client.list(Node))).metadata.name
    client.patch(Node, node, {"metadata": {"labels": {"zone": "a"}}})
    try:
        yield
    finally:
        client.patch(Node, node, {"metadata": {"labels": {"zone": None}}})


def test_config_state_and_cluster_go_back_together_or_stay_and_credentials_stay_as_they_are(
    project: Project,
    rollback: Rollback,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    git(project, "init", "--quiet")
    first_chart = commit(project)
    project.configure(values={"mernClient": {"nodeSelector": {"zone": "a"}}})
    replace(project, "replicas: 2\n", "replicas: 2 # of two zones\n")
    with zone(project):
        first = project.up()
    assert first.ok, first.output
    then = yaml.safe_load(project.config_file.read_text())["config"]
    replace(project, "      nodeSelector:\n        zone: a\n", "")
    replace(project, "mern:imageTag: 1.0.0", "mern:imageTag: 2.0.0")
    replace(project, "replicas: 2 #", "replicas: 3 #")
    project.set_secret("mern:mongodbUri", NEW_URI)
    project.edit(*MORE)
    (project.folder / "chart/templates/more.yaml").write_text("# more\n")
    commit(project)
    second = project.up()
    assert second.ok, second.output

    def refused(*arguments: str) -> tuple[str, str]:
        """What was said, of a rollback that leaves the stack file as it was."""
        before = project.config_file.read_text()
        capsys.readouterr()
        assert rollback(*arguments) == 1
        assert project.config_file.read_text() == before
        said = capsys.readouterr()
        return said.out, said.err

    # The chart is another.
    _, errors = refused("1", "--yes")
    assert f"Commit {first_chart} (" in errors
    command = f"git checkout --no-overlay {first_chart} -- chart"
    assert f"    {command}\n" in errors
    project.paste(command)

    # Nobody wants it.
    monkeypatch.setattr("builtins.input", lambda _: "n")
    _, errors = refused("1")
    assert f"Pulumi.{project.stack}.yaml is as it was." in errors

    # The API server does not accept it.
    project.edit(*MORE)
    project.edit("templates/_workload.tpl", "minReadySeconds: 1", "minReadySeconds: -1")
    shown, errors = refused("1", "--yes", "--chart-as-it-is")
    assert "the API server refuses" in shown
    assert "the preview says why" in errors
    project.edit("templates/_workload.tpl", "\n  minReadySeconds: -1", "")

    # Its pods find no node.
    replace(project, "timeout: 30", "timeout: 4")
    _, errors = refused("1", "--yes")
    assert "The rollback to revision 1 failed." in errors
    assert image(project, "mern-client") == "mern-client:2.0.0"
    replace(project, "timeout: 4", "timeout: 30")

    with zone(project):
        assert rollback("1", "--yes") == 0

    said = capsys.readouterr()
    assert '  ~ mern:imageTag: "2.0.0" → "1.0.0"\n' in said.out
    assert "  ~ mern:values.mernClient.replicas: 3 → 2\n" in said.out
    assert "today's are kept: mern:mongodbUri\n" in said.out
    assert "~  helm:apps/v1:Deployment" in said.out
    assert "Revision 5 has the config of revision 1." in said.out
    assert NEW_URI not in said.out + said.err
    now = yaml.safe_load(project.config_file.read_text())["config"]
    assert now.pop("mern:mongodbUri") != then.pop("mern:mongodbUri")
    assert now == then
    assert "replicas: 2 # of two zones\n" in project.config_file.read_text()
    client = project.get(Deployment, "mern-client").spec
    assert image(project, "mern-client") == "mern-client:1.0.0"
    assert (client.replicas, client.minReadySeconds) == (2, None)
    uri = project.get(Secret, "mern-server").data["MONGODB_URI"]
    assert base64.b64decode(uri).decode() == NEW_URI
    again = project.up()
    assert (again.ok, again.changes) == (True, set()), again.output

    assert rollback("5") == 0
    assert "nothing to do" in capsys.readouterr().out
    _, errors = refused("9")
    assert "Helm keeps no revision 9" in errors
    keys = "mern:imageTag, mern:values.mernClient.replicas, mern:values.mernClient.nodeSelector"
    assert f"differs from the stack file in: the chart's files, {keys}" in errors
