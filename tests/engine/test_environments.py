"""Environments of pull requests, three side by side, by the role that access/environments.yaml gives."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.release import record
from components.release.kubernetes_api import Api
from sandbox.engine import MADE_UP_SECRETS, PROJECT
from tests import github_api
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import ENGINE, share_program
from tests.engine.faults import family, until
from tests.engine.test_access import refused
from tests.github_api import FakeGitHub
from tests.workflow import Runner

GROUP, USERS = "mern:environments", "environments-of-pull-requests"
NUMBERS = (481, 482, 483)
OPEN, MERGED = {"state": "open", "merged_at": None}, {"state": "closed", "merged_at": "2026-05-01T12:00:00Z"}


@dataclass(frozen=True, kw_only=True)
class World:
    """A checkout with the template as it is committed, but for the cluster and the images' registry."""

    folder: Path
    admin: Api
    api: Api
    """Of a user in the group."""
    github: FakeGitHub

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command as a user types it."""
        return subprocess.Popen(
            [".venv/bin/python", "-m", "operations", "environment", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                **ENGINE.environment(),
                **{key: text for key, text in self.github.env.items() if key != "GITHUB_RUN_ID"},
                "GITHUB_TOKEN": github_api.TOKEN,
                "TMPDIR": str(self.folder),
                "CI": "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run a command on a machine that no stack file lies on but the template's; return what it prints."""
        for left in self.folder.glob("Pulumi.mern-pr-*.yaml"):
            left.unlink()
        return finished(self.start(*arguments))

    def runner(self, folder: Path) -> Runner:
        """A machine of GitHub's, in a workflow for pull request 482."""
        event = folder / "event.json"
        event.write_text(json.dumps({"pull_request": {"number": 482, "head": {"sha": "0123abc"}}}))
        env = {
            **os.environ,
            **ENGINE.environment(),
            **self.github.env,
            "GITHUB_EVENT_PATH": str(event),
            "TMPDIR": str(self.folder),
        }
        for key in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"):
            del env[key]  # the steps that need them have these of their own
        for left in self.folder.glob("Pulumi.mern-pr-*.yaml"):
            left.unlink()
        return Runner(
            folder=folder,
            workspace=self.folder,
            env=env,
            expressions={
                "github.event.pull_request.number": "482",
                "github.token": github_api.TOKEN,
                "vars.PULUMI_BACKEND_URL": (FOLDER / "state").as_uri(),
                "vars.PULUMI_DEFAULT_ORGANIZATION || vars.PULUMI_OIDC_ORGANIZATION": "",
                "secrets.PULUMI_ACCESS_TOKEN": "",
                "secrets.PULUMI_CONFIG_PASSPHRASE": ENGINE.passphrase.read_text(),
            },
        )

    def kill(self, *arguments: str, when: Any) -> None:
        """Begin a command, and kill it with all that it has started."""
        process = self.start(*arguments)
        try:
            until(lambda: when() or process.poll() is not None, 150)
            assert process.poll() is None, process.communicate()[0]
        finally:
            for pid in family(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()

    def phase(self, number: int) -> str:
        """The phase of a namespace, empty where there is none."""
        found = self.admin.find(f"/api/v1/namespaces/mern-pr-{number}")
        return found["status"]["phase"] if found else ""

    def status(self, number: int) -> str:
        """Number and status of the newest revision of a release, empty where there is none."""
        newest = record.newest(self.admin, "mern", f"mern-pr-{number}")
        return f"{newest.revision} {newest.status}" if newest else ""


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


@pytest.fixture
def world(cluster: TestCluster, provider: str) -> Iterator[World]:
    folder = FOLDER / "projects/environments"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "chart", folder / "chart")
    share_program(folder)
    admin = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    group = f"system:serviceaccounts:{USERS}"
    for item in yaml.safe_load_all((PROJECT / "access/environments.yaml").read_text().replace(GROUP, group)):
        admin.apply(admin.path(item, ""), item, fieldManager="admin")
    admin.create("/api/v1/namespaces", {"metadata": {"name": USERS}})
    users = f"/api/v1/namespaces/{USERS}/serviceaccounts"
    admin.create(users, {"metadata": {"name": "somebody"}})
    token = admin.create(f"{users}/somebody/token", {"spec": {}})["status"]["token"]
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": user["name"], "user": {"token": token}} for user in kubeconfig["users"]]
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))

    template = yaml.safe_load((PROJECT / "Pulumi.preview.yaml").read_text())
    config = template["config"]
    del config["mern:aws"]
    config["mern:cluster"] = {"kubeconfig": "kubeconfig", "context": kubeconfig["current-context"]}
    config["mern:loadBalancerController"] = {"mode": "none"}
    config["mern:namespace"]["access"]["group"] = group
    config["mern:release"]["timeout"] = 60
    config["environments:most"] = str(len(NUMBERS))
    (folder / "Pulumi.preview.yaml").write_text(yaml.safe_dump(template))
    ENGINE.pulumi("stack", "init", "preview", cwd=folder)
    for key, value in MADE_UP_SECRETS.items():
        ENGINE.pulumi("config", "set", "--secret", key, "--stack", "preview", cwd=folder, given=value)
    with github_api.serve() as github:
        github.pulls = dict.fromkeys(NUMBERS, OPEN)
        try:
            yield World(folder=folder, admin=admin, api=Api(kubeconfig, timeout=30), github=github)
        finally:
            ENGINE.pulumi("stack", "rm", "preview", "--yes", cwd=folder)
            for name in (USERS, *(f"mern-pr-{number}" for number in NUMBERS)):
                if admin.find(f"/api/v1/namespaces/{name}"):
                    admin.delete(f"/api/v1/namespaces/{name}")


def ended_job(name: str, step: str, began: datetime) -> tuple[list[Any], dict[int, Any]]:
    """The runs and the jobs of which GitHub says that this job was cancelled in this step."""
    form, ended = "%Y-%m-%dT%H:%M:%SZ", datetime.now(UTC) + timedelta(seconds=2)
    times = {"started_at": began.strftime(form), "completed_at": ended.strftime(form)}
    run = {"id": 70, "created_at": began.strftime(form), "updated_at": ended.strftime(form)}
    job = {"name": name, "status": "completed", "html_url": "https://github.example/job/1", **times}
    return [run], {70: [{**job, "steps": [{"name": step, "conclusion": "cancelled", **times}]}]}


def test_three_side_by_side_one_killed_while_it_was_made_and_one_while_it_was_removed(
    world: World, tmp_path: Path
) -> None:
    both = [world.start("up", str(number), "--image-tag", "1.2.3") for number in NUMBERS[:2]]
    for number, process in zip(NUMBERS, both, strict=False):
        output = finished(process)
        assert f"mern-pr-{number}  revision 1 serves" in output
        assert f"http://pr-{number}.preview.example.com (no load balancer yet)" in output
        assert "mernClient 1.2.3, mernServer 1.2.3, pythonScript 1.2.3" in output
        assert "forbidden" not in output
        assert "not permitted" not in output
        assert "could not be" not in output
    world.kill("up", "483", when=lambda: world.status(483) == "1 pending-install")

    listed = world.run("list")
    assert "mern-pr-481  revision 1 serves\n" in listed
    assert "mern-pr-483  revision 1 is pending-install\n" in listed
    assert "3 of at most 3 environments (Pulumi.preview.yaml)" in listed

    # Goes on, on another machine.
    comment = world.folder / "comment.md"
    output = world.run("up", "483", "--image-tag", "2.0.0", "--comment", str(comment))
    assert "was left by a run that was killed (process " in output
    assert world.status(483) == "2 deployed"
    quota = world.admin.get("/api/v1/namespaces/mern-pr-483/resourcequotas/mern")
    assert quota["status"]["used"]["pods"] == "2"
    text = comment.read_text()
    assert "is deployed: http://pr-483.preview.example.com\n" in text
    assert "mern-server:2.0.0" in text

    began = datetime.now(UTC).replace(microsecond=0)
    world.kill("down", "482", when=lambda: world.phase(482) == "Terminating")
    world.github.runs, world.github.jobs = ended_job("remove mern-pr-482", "Remove", began)
    world.github.pulls[483] = MERGED
    machine = world.runner(tmp_path)
    done = machine.run("environments", "remove", "Remove")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was left by a run that was killed (https://github.example/job/1): released" in done.stdout
    assert "mern-pr-482 is removed" in done.stdout
    commented = machine.run("environments", "remove", "Comment")
    assert commented.returncode == 0, commented.stderr
    done = machine.run("environments", "sweep", "Sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mern-pr-481 stays" in done.stdout
    assert "mern-pr-483 is removed: pull request 483 is merged" in done.stdout
    for name in ("mern-pr-482", "mern-pr-483"):
        assert f"### Environment <code>{name}</code> is removed" in machine.summary
    assert world.status(481) == "1 deployed"
    who_may_what(world)

    # Somebody has removed it by hand: what is in a namespace that has gone may not even be asked for.
    world.admin.delete("/api/v1/namespaces/mern-pr-481")
    assert "mern-pr-481 is removed" in world.run("down", "481")
    for number in NUMBERS:
        assert world.phase(number) == ""
        left = [path for path in (FOLDER / "state").rglob("*") if f"mern-pr-{number}" in str(path)]
        assert [path for path in left if path.is_file()] == []


def who_may_what(world: World) -> None:
    """The group has its own namespaces, and nothing of others."""
    secret, space = {"metadata": {"name": "probe"}}, "/api/v1/namespaces"
    assert world.api.get(f"{space}/mern-pr-481/secrets")["items"]
    for path in ("/api/v1/secrets", f"{space}/default/secrets", f"{space}/{USERS}/secrets"):
        assert refused(world.api.get, path)
    assert "may change nothing but namespaces mern-pr-NUMBER" in refused(
        world.api.create, space, {"metadata": {"name": "mern-pr-1x"}}
    )
    assert "needs the label" in refused(world.api.create, space, {"metadata": {"name": "mern-pr-484"}})
    privileged = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    assert "needs the label" in refused(world.api.merge_patch, f"{space}/mern-pr-481", privileged)
    assert refused(world.api.delete, f"{space}/{USERS}")
    # Nor can it join another load balancer, and answer to the hosts of that.
    group, ingresses = (
        "alb.ingress.kubernetes.io/group.name",
        "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    )
    backend = {"service": {"name": "mern-client", "port": {"number": 80}}}
    for annotations in ({}, {group: "mern-staging"}):
        ingress = {
            "metadata": {"name": "probe", "annotations": annotations},
            "spec": {"defaultBackend": backend},
        }
        said = refused(world.api.create, ingresses.format("mern-pr-481"), ingress)
        assert f"needs the annotation {group}, which is mern-preview" in said
    # The only role that it may hand out is its own, and only in its namespaces.
    bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"
    for where, role in (("mern-pr-481", "admin"), ("default", "mern-environment")):
        binding = {
            **secret,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [],
        }
        assert refused(world.api.create, bindings.format(where), binding)
