"""A team's old values files, moved by the command and previewed by the engine."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from lightkube.resources.core_v1 import Namespace

from operations.__main__ import main
from tests.engine.conftest import Project, Run
from tests.remedies import commands_in

BASE = """\
mern-client:
  replicaCount: 1
  image: registry.example/mern-client:1.10
  service: {port: 8080, targetPort: 3000}
mern-server:
  replicaCount: 1
  image: {repository: registry.example/mern-server, tag: "1.10"}
  hpa: {enabled: no, minReplicas: 2, maxReplicas: 4, cpu: 60}
  mongodbUri: ""          # by --set
  jwtSecret: pw-of-the-old-chart
  env: {NODE_ENV: production, PORT: 5000}
  livenessProbe: {httpGet: {path: /alive}, initialDelaySeconds: 5}
python-script:
  image: {repository: registry.example/python-script, tag: "1.10"}
  cronjob: {schedule: "*/30 * * * *"}
  aws: {accessKeyId: "", secretAccessKey: ""}
ingress:
  annotations:
    alb.ingress.kubernetes.io/scheme: internal
    alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}]'
"""
STAGING = """\
mern-server:
  hpa: {enabled: yes}
ingress: {host: shop.example.com}
"""


def test_old_values_files_are_moved_and_the_api_server_accepts_what_they_become(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, staging = tmp_path / "values.yaml", tmp_path / "values-staging.yaml"
    base.write_text(BASE)
    staging.write_text(STAGING)
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    project.configure(namespace={"mode": "existing"})
    project.configure(release={"timeout": 600})  # the local stack has no zero downtime to wait for
    project.make()
    monkeypatch.chdir(project.folder)
    for name, value in {**project.environment(), "PATH": project.cluster.env["PATH"]}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("operations.stack.PROJECT", project.folder)
    command = ["operations", "move", "-f", str(base), "-f", str(staging), "--stack", project.stack]
    monkeypatch.setattr("sys.argv", [*command[:2], *command[-2:]])
    assert main() == 1
    [printed] = commands_in(capsys.readouterr().err)
    shutil.copy(staging, project.folder / f"values-{project.stack}.yaml")
    project.configure(values=None)
    assert "Nothing is written." in project.paste(printed)
    monkeypatch.setattr("sys.argv", [*command, "--write", "--replace"])

    assert main() == 0

    said = capsys.readouterr().out
    assert "The chart accepts the values." in said
    assert "mern-server.livenessProbe.initialDelaySeconds (nearest: " in said
    assert "alb.ingress.kubernetes.io/listen-ports" in said
    for key in ("mern:mongodbUri", "mern:awsAccessKeyId", "--path 'mern:serverSecrets.JWT_SECRET'"):
        assert f"pulumi config set --secret {key} --stack {project.stack}" in said
    assert "pw-of-the-old-chart" not in said + project.config_file.read_text()
    for printed in commands_in(said):
        project.paste(printed, given="mongodb://made-up")

    run = project.preview()
    assert run.ok, run.output
    assert "not checked" not in run.output
    objects = created(run)
    assert objects["Deployment", "mern-client"]["spec"]["replicas"] == 1
    [container] = containers(objects["Deployment", "mern-client"])
    assert container["image"] == "registry.example/mern-client:1.10"
    [container] = containers(objects["Deployment", "mern-server"])
    assert container["livenessProbe"]["httpGet"]["path"] == "/alive"
    assert {v["name"]: v["value"] for v in container["env"]} == {"NODE_ENV": "production", "PORT": "5000"}
    scaler = objects["HorizontalPodAutoscaler", "mern-server"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 4)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert objects["CronJob", "mern-python-script"]["spec"]["schedule"] == "*/30 * * * *"
    ingress = objects["Ingress", "mern"]
    assert ingress["spec"]["rules"][0]["host"] == "shop.example.com"
    assert ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/scheme"] == "internal"


def created(run: Run) -> dict[tuple[str, str], Any]:
    """The objects that a preview shows as new, by kind and name."""
    steps = [event.resource_pre_event.metadata for event in run.reported if event.resource_pre_event]
    objects = [step.new.inputs for step in steps if step.new and step.type.startswith("helm:")]
    return {(item["kind"], item["metadata"]["name"]): item for item in objects if item}


def containers(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]["containers"]
