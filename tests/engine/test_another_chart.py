"""The component with a chart and a program of somebody else: those of docs/release.md."""

import base64
import dataclasses
import re
import shutil

from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret

from components.release import ReleaseArgs
from sandbox.engine import PROJECT
from tests.engine.conftest import Project

PAGE = (PROJECT / "docs/release.md").read_text()


def test_the_program_in_the_documentation_deploys_another_chart(project: Project) -> None:
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "tests/charts/web", project.folder / "chart")
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    block = re.search(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert block
    project.program(block[1])
    project.secrets = {"mern:token": "token-canary"}
    project.namespace = "shop"
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": "shop"}}))

    run = project.up("--diff")
    assert run.ok, run.output
    assert run.object_changes == {("create", f"{kind} web") for kind in ("Secret", "ConfigMap", "Deployment")}
    assert project.get(Deployment, "web").status.availableReplicas == 2
    assert project.get(ConfigMap, "web").data == {"greeting": "hello"}
    assert base64.b64decode(project.get(Secret, "web").data["token"]) == b"token-canary"
    for text in (run.output, run.events, project.raw_state()):
        assert "canary" not in text
    assert project.outputs()["revision"] == 1

    project.edit("templates/web.yaml", "image: web:1", "image: web:2")
    run = project.preview()
    assert run.object_changes == {("update", "Deployment web")}, run.output
    project.cluster.client.delete(Namespace, "shop")


def test_the_documentation_names_every_argument_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\|", PAGE, re.MULTILINE))
    expected = {}
    for field in dataclasses.fields(ReleaseArgs):
        has_factory = field.default_factory is not dataclasses.MISSING
        default = {} if has_factory else field.default
        expected[field.name] = "" if default is dataclasses.MISSING else str(default)
    assert rows == expected
