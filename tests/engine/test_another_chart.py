"""The component with a chart and a program of somebody else: those of docs/release.md."""

import base64
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from lightkube.generic_resource import create_global_resource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret

from components.release.kubernetes_provider import VERSION_VARIABLE, keeps_nulls
from sandbox.engine import PROJECT
from tests.engine.conftest import ENGINE, PROGRAM, Project
from tests.stand_ins.chart_server import CANARIES, PASSWORD, USER, chart_server
from tests.try_chart import try_chart

CRDS = create_global_resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"
)
PAGE = (PROJECT / "docs/release.md").read_text()
[DOCUMENTED, *_] = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
[PLUGINS, *_] = re.findall(r"```yaml\n(plugins:\n.+?)```", PAGE, re.DOTALL)
FROM_SOURCE = DOCUMENTED.replace("pulumi_chart_release", "components.release")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the built package, and nothing of this project beside it.

    What the package needs is this environment's: a file names the place, which has no source of this project.
    """
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    subprocess.run([*build, str(PROJECT / "package")], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    home = folder / "venv"
    venv.create(home, with_pip=False)
    python = str(home / "bin/python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(home)})
    Path(packages, "needed.pth").write_text(sysconfig.get_path("purelib"))
    absent = "import importlib.util as it; assert not it.find_spec('components'), it.find_spec('components')"
    subprocess.run([python, "-c", absent], cwd=folder, check=True)
    return home


def leave_the_package_alone(folder: Path, environment: Path) -> None:
    """Have `environment` in the folder of a project, and nothing else that a program could import."""
    for name in (*PROGRAM, ".venv"):
        (folder / name).unlink(missing_ok=True)
    (folder / ".venv").symlink_to(environment)


def test_the_program_in_the_documentation_deploys_another_chart(project: Project, environment: Path) -> None:
    """With the built package, as its users have it."""
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "tests/charts/web", project.folder / "chart")
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    leave_the_package_alone(project.folder, environment)
    project.program(DOCUMENTED)
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
    (project.folder / "chart/templates/list.yaml").write_text(LIST)
    run = project.preview()
    listed = {("create", "ConfigMap first"), ("create", "ConfigMap second")}
    assert run.object_changes == {("update", "Deployment web"), *listed}, run.output
    done = project.up()
    assert done.ok, done.output
    again = project.up()
    assert again.changes == set(), again.output
    assert "drift" not in again.output
    project.cluster.client.delete(Namespace, "shop")


REMOTE = """
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes


class Release(pulumi.ComponentResource):
    def __init__(self, name, inputs, opts):
        super().__init__("chart-release:index:Release", name, {**inputs, "status": None}, opts, remote=True)


parent = pulumi.ComponentResource("shop:index:Shop", "shop")
kubeconfig = pulumi.Output.secret(Path("kubeconfig").read_text())
token = pulumi.Config().require_secret("token")
inputs = {
    "kubeconfig": kubeconfig,
    "chart": "./chart",
    "namespace": "NAMESPACE",
    "values": {"replicas": 1, "greeting": pulumi.Output.concat("token ", token), "token": token},
}
cluster = kubernetes.Provider("cluster", kubeconfig=kubeconfig)
web = Release("web", {**inputs, "name": "web"}, pulumi.ResourceOptions(parent=parent, provider=cluster))
Release("api", {**inputs, "name": "api", "showObjects": False}, pulumi.ResourceOptions())
pulumi.export("revision", web.status["revision"])
"""
"""A program as those of other languages: it tells the engine what SDKs of the provider tell it."""


def test_a_program_of_another_language_has_a_release_by_the_provider(
    project: Project, environment: Path
) -> None:
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "tests/charts/web", project.folder / "chart")
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    leave_the_package_alone(project.folder, environment)
    with (project.folder / "Pulumi.yaml").open("a") as file:
        file.write(PLUGINS)
    project.program(REMOTE.replace("NAMESPACE", project.namespace))
    project.secrets = {"mern:token": "token-canary"}
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))

    run = project.up("--diff")
    assert run.ok, run.output
    assert run.object_changes == {("create", f"{kind} web") for kind in ("Secret", "ConfigMap", "Deployment")}
    assert project.get(Deployment, "web").status.availableReplicas == 1
    for name in ("web", "api"):
        assert project.get(ConfigMap, name).data == {"greeting": "token token-canary"}
    assert project.outputs()["revision"] == 1
    for text in (run.output, run.events, project.raw_state()):
        assert "canary" not in text

    # It finds its releases in the state, also below a parent; each message is its own.
    project.edit("templates/web.yaml", "replicas: {{ .Values.replicas }}", "replicas: {{ .Values.token }}")
    run = project.preview()
    assert not run.ok
    refusal, _, below = run.output.partition("the API server refuses 1 object of release ")
    assert refusal.endswith(("resource 'web' has a problem: ", "resource 'api' has a problem: ")), run.output
    assert "exists already" not in run.output
    assert "[secret]" in below
    assert "canary" not in run.output


PART = """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-part}
data: {text: {{ .Values.text | quote }}}
"""


def test_a_chart_of_a_private_registry_is_deployed_and_any_machine_takes_over(
    project: Project, helm: str, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(PROJECT / "tests/charts/web", tmp_path / "web"))
    (source / "charts/part/templates").mkdir(parents=True)
    (source / "charts/part/Chart.yaml").write_text("{apiVersion: v2, name: part, version: 1.0.0}")
    (source / "charts/part/values.yaml").write_text("text: of the sub-chart")
    (source / "charts/part/templates/part.yaml").write_text(PART)
    shutil.rmtree(project.folder / "chart")
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    text = FROM_SOURCE.replace('namespace="shop"', f'namespace="{project.namespace}"')
    text = text.replace('"replicas": 2', '"replicas": 1, "part": {"text": "of the program"}')
    project.secrets = {"mern:token": "token-canary"}
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    pulled = project.folder / ".charts"
    with chart_server(tmp_path) as served:
        served.is_private = True
        served.pack(helm, source, "1.2.3")
        project.env = {"SSL_CERT_FILE": str(served.authority), "HELM_CONFIG_HOME": str(tmp_path / "helm")}
        login = [helm, "registry", "login", served.host, "--username", USER, "--password", PASSWORD]
        subprocess.run(login, check=True, capture_output=True, env=os.environ | project.env)
        in_registry = f'chart="{served.registry}/web", version="1.2.3"'
        project.program(text.replace('chart="./chart"', in_registry))

        run = project.up("--diff")
        assert run.ok, run.output
        assert ("create", "ConfigMap web-part") in run.object_changes
        assert project.get(ConfigMap, "web-part").data == {"text": "of the program"}
        assert "chart web 1.2.3 of oci://" in run.output
        assert "Its provenance (who made it) is not checked" in run.output
        assert len(served.downloads) == 1
        [release] = [it for it in project.state() if it["type"] == "kubernetes:helm.sh/v3:Release"]
        [file] = pulled.glob("*.tgz")
        assert release["inputs"]["chart"] == f".charts/{file.name}"
        assert re.fullmatch(r"web 1\.2\.3 \(files \w{16}\), installed .*", release["inputs"]["description"])
        for shown in (run.output, run.events, project.raw_state()):
            assert not CANARIES.search(shown)

        # From a mirror it is the same chart, on a machine that has nothing yet.
        shutil.rmtree(pulled)
        served.is_private = False
        mirror = f'chart="web", repository="{served.repository}", version="1.2.3"'
        project.program(text.replace('chart="./chart"', mirror))
        same = project.preview()
        assert same.changes == set(), same.output

        # Somebody puts another chart under the same version: the preview shows it.
        (source / "charts/part/values.yaml").write_text("{text: of the sub-chart, other: 1}")
        served.pack(helm, source, "1.2.3")
        moved = project.preview("--diff")
        assert moved.changes == {("update", "Release web")}, moved.output
        assert re.search(r'~ description\s*: "web 1.2.3 \(files \w{16}\)', moved.output), moved.output

    # Without the program neither needs a chart, or whoever has it.
    shutil.rmtree(pulled)
    (project.folder / "__main__.py").write_text("raise SystemExit('no program')")
    refreshed = project.refresh()
    assert refreshed.ok, refreshed.output
    down = project.destroy()
    assert down.ok, down.output
    assert not project.list(ConfigMap) or {it.metadata.name for it in project.list(ConfigMap)} == {
        "kube-root-ca.crt"
    }


EVERYTHING = """
{{- define "pods" }}
  selector: {matchLabels: {app: {{ . }}}}
  template:
    metadata: {labels: {app: {{ . }}}}
    spec: {nodeSelector: {no: node}, containers: [{name: web, image: "web:1"}]}
{{- end }}
{{- range list "Deployment" "StatefulSet" "DaemonSet" "ReplicaSet" }}
---
apiVersion: apps/v1
kind: {{ . }}
metadata: {name: a-{{ lower . }}}
spec:
{{- if ne . "DaemonSet" }}
  replicas: 1
{{- end }}
{{- if eq . "StatefulSet" }}
  serviceName: web
{{- end }}
{{- include "pods" (lower .) }}
{{- end }}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: a-replicationcontroller}
spec:
  replicas: 1
  selector: {app: rc}
  template:
    metadata: {labels: {app: rc}}
    spec: {nodeSelector: {no: node}, containers: [{name: web, image: "web:1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-pod}
spec: {nodeSelector: {no: node}, containers: [{name: web, image: "web:1"}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: a-claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: a-service}
spec: {type: LoadBalancer, ports: [{port: 80}], selector: {app: none}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: not-waited-for}
spec:
  template:
    spec: {nodeSelector: {no: node}, restartPolicy: Never, containers: [{name: job, image: "job:1"}]}
"""
LIST = """
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: first}, data: {text: {{ .Values.greeting }}}}
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: second}}
"""


def test_all_that_helm_waits_for_is_named_while_it_waits_and_when_it_has_given_up(project: Project) -> None:
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "tests/charts/web", project.folder / "chart")
    (project.folder / "chart/templates/everything.yaml").write_text(EVERYTHING)
    shutil.copy(project.cluster.kubeconfig, project.folder / "kubeconfig")
    text = FROM_SOURCE.replace('namespace="shop"', f'namespace="{project.namespace}", timeout=4')
    project.program(text)
    project.secrets = {"mern:token": "token-canary"}
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))

    run = project.up()

    assert not run.ok
    for line in (
        "Deployment a-deployment: 0 of 1 ready",
        "StatefulSet a-statefulset: 0 of 1 ready",
        "ReplicaSet a-replicaset: 0 of 1 ready",
        "ReplicationController a-replicationcontroller: 0 of 1 ready",
        "Pod a-pod: 0 of 1 ready",
        "PersistentVolumeClaim a-claim",
        "Service a-service",
        "no load balancer gives it an address: nothing has acted on it",
        "the cluster has no default StorageClass",
    ):
        assert line in run.output, run.output
    assert "waiting for " in run.output
    assert "Service a-service: no load balancer gives it an address" in run.output
    assert "not-waited-for" not in run.output.partition("these did not become ready")[2].partition("Next:")[0]


def test_rows_dry_run_and_drift_are_true_of_all_that_charts_do(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the aggregated role a controller writes the rules; the namespace and the kind of some objects are
    made by the chart itself; the first hooks fail unless they may run again."""
    project.program("")  # that of the trial
    trial = try_chart(project, PROJECT / "tests/charts/everything", {"list": [], "none": None}, "replicas=2")

    assert not trial.failed
    kept = f"ConfigMap {project.namespace}/kept"
    assert trial.objects - trial.rows == trial.left == {kept}
    assert trial.rows - trial.hooks <= trial.objects
    phases = {
        f"{when}-{what}" for when in ("pre", "post") for what in ("install", "upgrade", "delete", "rollback")
    }
    assert trial.hooks == {f"Job {project.namespace}/{phase}" for phase in phases}
    assert (trial.unlike, trial.noise, trial.drift) == (set(), set(), [])
    assert trial.changed == "`replicas=2`: " + ", ".join(
        (
            "delete ConfigMap kept",
            "delete ConfigMap of-the-installation",
            "update ConfigMap release",
            "update Deployment web",
            "update Gadget cluster.wide",
        )
    )
    monkeypatch.setenv(VERSION_VARIABLE, ENGINE.environment()[VERSION_VARIABLE])
    assert set(trial.notes) == {
        'ConfigMap name.with.dots: unknown field "status": the API server leaves that out',
        *([] if keeps_nulls() else ["null does not reach Helm, and the chart's own values stay: none"]),
        "not checked by the API server: 1 of 20 objects: its namespace is not there yet",
        "not checked by the API server: 1 of 20 objects: its kind comes with this very chart",
        "ConfigMap kept is left behind, by its own annotation",
    }
    assert trial.row.startswith("| everything 0.1.0 | 11 + 8 hooks |")
    project.cluster.client.delete(CRDS, "gadgets.example.org")
