"""From a stack to another, by the digests of what runs; kwok reports none, so this test plays that part."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace

from components.release import Api
from operations.__main__ import main
from settings import IMAGES_VARIABLE
from tests.engine.conftest import Project
from tests.engine.faults import status, until
from tests.remedies import commands_in

CLIENT, SERVER, SCRIPT = ("sha256:" + digit * 64 for digit in "0af")
REPOSITORIES = {
    part: {"image": {"repository": f"registry.example.com/{name}"}}
    for part, name in (
        ("mernClient", "mern-client"),
        ("mernServer", "mern-server"),
        ("pythonScript", "python-script"),
    )
}


@pytest.fixture
def target(project: Project) -> Iterator[Project]:
    """Another stack of the same project, in a namespace of its own."""
    name = f"{project.stack}-2"
    project.configure(values=REPOSITORIES, imageTag="1.4.2")
    shutil.copy(project.config_file, project.folder / f"Pulumi.{name}.yaml")
    target = dataclasses.replace(project, stack=name, namespace=name)
    target.configure(namespace={"name": name}, imageTag="1.4.1", values={"mernServer": {"replicas": 1}})
    yield target
    try:
        project.cluster.client.delete(Namespace, name)
    except Exception as error:
        assert "not found" in str(error)


@pytest.fixture
def operations(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, as if typed in the project's folder."""
    monkeypatch.chdir(project.folder)
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("operations.stack.PROJECT", project.folder)

    def run(*arguments: str) -> int:
        with monkeypatch.context() as this_command:
            this_command.setenv(IMAGES_VARIABLE, "")  # which it sets, as in a process of its own
            return main(list(arguments))

    return run


def report_digests(project: Project, digests: dict[str, str]) -> None:
    """Have every pod of a container report its digest, as the kubelet does."""
    api = Api(yaml.safe_load(project.cluster.kubeconfig.read_text()))
    path = f"/api/v1/namespaces/{project.namespace}/pods"
    for pod in api.items(path):
        containers = pod["status"].get("containerStatuses") or []
        reported = [
            {**item, "imageID": f"registry.example.com/mern-{item['name']}@{digests[item['name']]}"}
            if item["name"] != "python-script"
            else {**item, "imageID": f"registry.example.com/python-script@{digests['python-script']}"}
            for item in containers
            if item["name"] in digests
        ]
        if reported:
            api.merge_patch(
                f"{path}/{pod['metadata']['name']}/status", {"status": {"containerStatuses": reported}}
            )


def run_the_script(project: Project) -> None:
    """As `kubectl create job --from=cronjob/…` does, until it is done."""
    api = Api(yaml.safe_load(project.cluster.kubeconfig.read_text()))
    cron_job = api.get(f"/apis/batch/v1/namespaces/{project.namespace}/cronjobs/mern-python-script")
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "mern-python-script"}
    template = cron_job["spec"]["jobTemplate"]
    jobs = f"/apis/batch/v1/namespaces/{project.namespace}/jobs"
    metadata = {
        "name": "by-hand",
        "labels": template["metadata"]["labels"],
        "ownerReferences": [{**owner, "uid": cron_job["metadata"]["uid"]}],
    }
    api.create(jobs, {"metadata": metadata, "spec": template["spec"]})
    until(lambda: api.get(f"{jobs}/by-hand")["status"].get("completionTime"))


def image(project: Project, kind: Any, name: str) -> str:
    spec = project.get(kind, name).spec
    template = spec.jobTemplate.spec.template if kind is CronJob else spec.template
    return str(template.spec.containers[0].image)


def test_the_very_images_that_one_stack_runs_are_deployed_to_another_and_there_is_a_way_back(
    project: Project,
    target: Project,
    operations: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for stack in (project, target):
        run = stack.up()
        assert run.ok, run.output

    # Nobody reports a digest here; what is deployed by its digest needs no report.
    assert operations("promote", project.stack, target.stack) == 1
    said = capsys.readouterr().err
    assert "mernClient: 2 of 2 pods run registry.example.com/mern-client:1.4.2, and no digest of" in said
    assert "pythonScript: no run of registry.example.com/python-script:1.4.2 has succeeded" in said
    [by_digest, *_] = [text for text in commands_in(said) if "mernClient" in text]
    shown = project.paste(by_digest, DIGEST="0" * 64)
    assert f"images of this run: mernClient {CLIENT}" in shown
    run_the_script(project)
    report_digests(project, {"server": SERVER, "python-script": SCRIPT})

    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert operations("promote", project.stack, target.stack) == 0
    said = capsys.readouterr().out
    assert f"  ~ mernClient: registry.example.com/mern-client:1.4.1 → {CLIENT}\n" in said
    promoted = {
        "mern-client": f"registry.example.com/mern-client@{CLIENT}",
        "mern-server": f"registry.example.com/mern-server@{SERVER}",
    }
    assert {name: image(target, Deployment, name) for name in promoted} == promoted
    assert image(target, CronJob, "mern-python-script").endswith(f"/python-script@{SCRIPT}")
    assert status(target) == "2 deployed"
    [forget] = {text for text in commands_in(said) if "mern:imageTag" in text}
    target.paste(forget)
    kept = target.preview()
    assert kept.changes == set(), kept.output
    assert f"images stay as in revision 2: mernClient {CLIENT}" in kept.output

    # The way back, and on again by the command for two accounts.
    [back] = [text for text in commands_in(said) if " rollback " in text]
    assert "Revision 3 has the config of revision 1" in target.paste(back, given="y\n")
    assert image(target, Deployment, "mern-client").endswith(":1.4.1")
    capsys.readouterr()
    assert operations("promote", project.stack) == 0
    [deploy] = commands_in(capsys.readouterr().out)
    target.paste(deploy, TARGET=target.stack)
    assert {name: image(target, Deployment, name) for name in promoted} == promoted

    # What is no longer as it was deployed proves nothing.
    project.cluster.client.patch(
        Deployment, "mern-client", {"spec": {"replicas": 1}}, namespace=project.namespace
    )
    assert operations("promote", project.stack, target.stack) == 1
    said = capsys.readouterr().err
    assert "it has drifted:\n    Deployment mern-client: spec.replicas is 1, not 2" in said
    [restore] = [text for text in commands_in(said) if "release.drift" in text]
    project.paste(restore)
    assert "drift: restore" in project.config_file.read_text()
