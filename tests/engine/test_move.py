"""A team's old values files, moved by the command and deployed by the engine."""

from pathlib import Path

import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.networking_v1 import Ingress

from operations.__main__ import main
from tests.engine.conftest import Project

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


def test_old_values_files_are_moved_and_deployed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, staging = tmp_path / "values.yaml", tmp_path / "values-staging.yaml"
    base.write_text(BASE)
    staging.write_text(STAGING)
    project.configure(release={"timeout": 600})  # the local stack has no zero downtime to wait for
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PATH", project.cluster.env["PATH"])
    command = ["operations", "move", "-f", str(base), "-f", str(staging), "--stack", project.stack]
    monkeypatch.setattr("sys.argv", [*command, "--write", "--replace"])

    assert main() == 0

    said = capsys.readouterr().out
    assert "The chart accepts the values." in said
    assert "mern-server.livenessProbe.initialDelaySeconds (nearest: " in said
    assert "alb.ingress.kubernetes.io/listen-ports" in said
    for key in ("mern:mongodbUri", "mern:awsAccessKeyId", "--path 'mern:serverSecrets.JWT_SECRET'"):
        assert f"pulumi config set --secret {key} --stack {project.stack}" in said
    assert "pw-of-the-old-chart" not in said + project.config_file.read_text()

    done = project.up()
    assert done.ok, done.output
    client, server = project.get(Deployment, "mern-client"), project.get(Deployment, "mern-server")
    assert client.spec.replicas == 1
    (container,) = client.spec.template.spec.containers
    assert container.image == "registry.example/mern-client:1.10"
    (container,) = server.spec.template.spec.containers
    assert container.livenessProbe.httpGet.path == "/alive"
    assert {v.name: v.value for v in container.env} == {"NODE_ENV": "production", "PORT": "5000"}
    scaler = project.get(HorizontalPodAutoscaler, "mern-server").spec
    assert (scaler.minReplicas, scaler.maxReplicas) == (2, 4)
    assert scaler.metrics[0].resource.target.averageUtilization == 60
    assert project.get(CronJob, "mern-python-script").spec.schedule == "*/30 * * * *"
    ingress = project.get(Ingress, "mern")
    assert ingress.spec.rules[0].host == "shop.example.com"
    assert ingress.metadata.annotations["alb.ingress.kubernetes.io/scheme"] == "internal"
