"""Changes of who owns a part of a deployment, and what somebody removed by hand.

The table in docs/day-two.md is made from what the previews say here: `WRITE_OWNERS=1 pytest` writes it anew.
"""

import contextlib
import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from lightkube import ApiError
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret, ServiceAccount
from lightkube.resources.policy_v1 import PodDisruptionBudget

from components.load_balancer_controller import IN_USE
from components.release import ClusterError, record
from sandbox.engine import PROJECT
from tests import remedies
from tests.engine.conftest import ENGINE, Project, Run
from tests.engine.faults import api_of, noise
from tests.engine.test_staging_and_production import (  # noqa: F401  fixtures
    POLICY_OF_SCRIPT,
    AwsProject,
    associations,
    aws_provider,
    eventually,
    open_stack,
    repository,
    roles,
    server,
    staging,
    token,
)

DOC = PROJECT / "docs/day-two.md"
WRITE = "WRITE_OWNERS"
BEGIN, END = "<!-- made by tests/engine/test_owners.py -->\n", "<!-- end -->\n"
HEAD = "| change | the preview says | what happens |\n| --- | --- | --- |\n"


@dataclass(frozen=True)
class Switch:
    """A row of the table."""

    change: str
    says: str
    """Part of what the preview says, with NS for the namespace; also of a refusal."""
    effect: str

    @property
    def row(self) -> str:
        return f"| {self.change} | {self.says} | {self.effect} |\n"

    def is_said_by(self, run: Run, namespace: str) -> bool:
        """Whether the run says it; `…` stands for anything."""
        parts = self.says.replace("NS", namespace).removeprefix("refused: ").strip("`").split("…")
        text = " ".join(run.output.split())
        return re.search(".*".join(map(re.escape, (part.strip() for part in parts))), text) is not None


@dataclass
class Table:
    """The rows, each to be proven by a test."""

    rows: dict[str, Switch] = field(default_factory=dict)

    def add(self, name: str, change: str, says: str, effect: str) -> None:
        self.rows[name] = Switch(change, says, effect)

    def text(self) -> str:
        return HEAD + "".join(switch.row for switch in self.rows.values())


TABLE = Table()
TABLE.add(
    "keep namespace",
    "`namespace.mode`: `create` → `existing`",
    "namespace NS is no longer this stack's: it stays, and a destroy leaves it there",
    "the namespace leaves the stack; nothing in the cluster changes",
)
TABLE.add(
    "take namespace",
    "`namespace.mode`: `existing` → `create`, or `create` where the namespace is there already",
    "refused: mern:namespace.mode is create, but namespace NS is there and not this stack's",
    "nothing; with `mern:release.adopt` the namespace becomes this stack's, and the preview says so",
)
TABLE.add(
    "no namespace",
    "`namespace.mode`: `existing`, where there is no such namespace",
    "refused: mern:namespace.mode is existing, but namespace … is not there",
    "nothing",
)
TABLE.add(
    "move",
    "`namespace.name`",
    "refused: mern:namespace.name is …, but this stack's release serves in namespace NS",
    "nothing; see *Move to another namespace* below",
)
TABLE.add(
    "foreign release",
    "the first `up`, where a release `mern` is there already",
    "refused: release mern in namespace NS exists already",
    "nothing; with `mern:release.adopt` it is taken over",
)
TABLE.add(
    "secret of others",
    "`existingSecret`: the chart's own Secret is to be somebody else's",
    "refused: Secret mern-server belongs to release mern and would be deleted with this deployment, but "
    "Deployment mern-server still needs it",
    "nothing; after the `kubectl annotate` that it names the Secret stays, and the pods read it",
)
TABLE.add(
    "own secret",
    "`existingSecret`: removed, the chart makes the Secret again",
    "`+ helm:core/v1:Secret`",
    "the pods restart with it; a Secret of that name that is somebody else's is refused",
)
TABLE.add(
    "part off",
    "a part of the chart is switched off, as `podDisruptionBudget.enabled: false`",
    "`- helm:policy/v1:PodDisruptionBudget`",
    "its objects are deleted",
)
TABLE.add(
    "rows off",
    "`release.showObjects`: `true` → `false`",
    "objects are not shown; rows of objects that leave this view delete nothing",
    "nothing in the cluster",
)
TABLE.add(
    "controller of others",
    "`loadBalancerController.mode`: `install` → `existing`",
    "refused: mern:loadBalancerController.mode is existing, but the cluster's controller is this "
    "stack's, and would be deleted",
    "nothing; the `pulumi state move` that it names gives the controller to another stack",
)
TABLE.add(
    "no controller",
    "`loadBalancerController.mode`: `install` → `none` or `auto-mode`",
    "refused: mern:loadBalancerController.mode is none, but the cluster's controller is this stack's, "
    "and would be deleted; still needed for: Ingress NS/mern",
    "nothing, as long as an Ingress, Service or TargetGroupBinding needs it; then it is deleted",
)
TABLE.add(
    "role of others",
    "`pythonScript`: `policy` → `roleArn`",
    "`- aws:iam:Role`",
    "the script gets the other role first, then the stack's own is deleted",
)
TABLE.add(
    "own role",
    "`pythonScript.roleArn` names the role that the stack has made",
    "refused: mern:pythonScript.roleArn names the role that this stack has made for mern:pythonScript.policy",
    "nothing",
)
TABLE.add(
    "keys",
    "`pythonScript` → the AWS keys",
    "`- aws:eks:PodIdentityAssociation`",
    "the script's Secret gets the keys first, then the role is deleted",
)


def shown(name: str, project: Project, *runs: Run) -> None:
    """Assert that runs say what the table says of a change."""
    switch = TABLE.rows[name]
    for run in runs:
        assert run.ok is not switch.says.startswith("refused: "), run.output
        assert switch.is_said_by(run, project.namespace), run.output
        assert noise(run.output) == [], run.output


def test_the_table_in_the_documentation_is_the_one_proven_here() -> None:
    text = DOC.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = before + BEGIN + TABLE.text() + END + after
    if os.environ.get(WRITE):
        DOC.write_text(made)
    assert text == made


# -- what serves


def serving(project: Project) -> dict[str, str]:
    """The uid of the namespace, the Deployments and the Secrets of a release."""
    uids = {
        f"{kind.__name__} {item.metadata.name}": str(item.metadata.uid)
        for kind in (Deployment, Secret)
        for item in project.list(kind)
        if getattr(item, "type", None) != "helm.sh/release.v1"
    }
    return uids | {"Namespace": uid_of_namespace(project)}


def uid_of_namespace(project: Project) -> str:
    return str(project.cluster.client.get(Namespace, project.namespace).metadata.uid)


def owned(project: Project) -> set[tuple[str, str]]:
    """URN and id of what the state holds of the application and the controller."""
    state = project.state()
    return {(item["urn"], item.get("id", "")) for item in state if "$" in item["urn"].split("::")[2]}


def test_no_change_of_an_owner_deletes_what_serves(project: Project) -> None:
    refuse_a_namespace_of_others(project)
    first = project.up()
    assert first.ok, first.output
    hand_the_namespace_over_and_take_it_back(project)
    stay_in_the_namespace(project)
    hand_a_secret_over_and_take_it_back(project)
    switch_parts_and_rows_off(project)
    leave_the_namespace_to_its_owner(project)


def refuse_a_namespace_of_others(project: Project) -> None:
    """A namespace with something of others in it, and nothing of this stack's."""
    client = project.cluster.client
    missing = refused(project, namespace={"mode": "existing"})
    shown("no namespace", project, missing)
    paste_what_is_printed(project, missing)
    project.configure(namespace={"mode": "create"})
    client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    theirs = client.create(ConfigMap.from_dict({"metadata": {"name": "theirs"}}), namespace=project.namespace)
    taken = refused(project)
    shown("take namespace", project, project.preview(), taken)
    paste_what_is_printed(project, taken)
    project.configure(namespace={"mode": "create"}, release={"adopt": False})
    assert "kubernetes:core/v1:Namespace" not in project.registered()
    assert project.destroy("--run-program").ok or project.destroy().ok
    assert project.get(ConfigMap, "theirs").metadata.uid == theirs.metadata.uid
    client.delete(Namespace, project.namespace)
    gone(project)


def paste_what_is_printed(project: Project, run: Run) -> None:
    """Have the user's shell run each command of a refusal that this machine can run."""
    commands = [command for command in remedies.commands_in(run.output) if command.startswith("pulumi ")]
    assert commands
    for command in dict.fromkeys(commands):
        project.paste(command)


def refused(project: Project, **changes: Any) -> Run:
    """An `up` that is refused and leaves what the state has of the application as it was. A preview is
    refused in the same place, before anything is registered."""
    project.configure(**changes)
    project.make()
    before = owned(project)
    up = project.up()
    assert owned(project) == before
    return up


def hand_the_namespace_over_and_take_it_back(project: Project) -> None:
    before = serving(project)
    project.configure(namespace={"mode": "existing"})
    shown("keep namespace", project, project.preview(), project.up())
    assert serving(project) == before
    shown("take namespace", project, refused(project, namespace={"mode": "create"}))
    project.configure(release={"adopt": True})
    taken = project.up()
    assert taken.ok, taken.output
    assert f"namespace {project.namespace} becomes this stack's: a destroy of it deletes" in taken.output
    project.configure(release={"adopt": False})
    assert project.preview().changes == set()
    assert serving(project) == before


def stay_in_the_namespace(project: Project) -> None:
    before = serving(project)
    up = refused(project, namespace={"name": f"{project.namespace}-new"})
    shown("move", project, up)
    assert serving(project) == before
    [stay] = [command for command in remedies.commands_in(up.output) if "namespace.name" in command]
    project.paste(stay)
    assert project.preview().changes == set()


def hand_a_secret_over_and_take_it_back(project: Project) -> None:
    before = serving(project)
    shown(
        "secret of others",
        project,
        refused(project, values={"mernServer": {"existingSecret": "mern-server"}}),
    )
    assert serving(project) == before
    keep = {"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}}
    project.cluster.client.patch(Secret, "mern-server", keep, namespace=project.namespace)
    handed = project.up()
    assert handed.ok, handed.output
    assert "Secret mern-server is left behind, by its own annotation" in handed.output
    assert serving(project) == before
    project.configure(values={"mernServer": {"existingSecret": None}})
    shown("own secret", project, project.up())
    assert serving(project) == before


def switch_parts_and_rows_off(project: Project) -> None:
    before = serving(project)
    project.configure(values={"mernClient": {"podDisruptionBudget": {"enabled": False}}})
    shown("part off", project, project.up())
    assert {item.metadata.name for item in project.list(PodDisruptionBudget)} == {"mern-server"}
    project.configure(release={"showObjects": False})
    shown("rows off", project, project.up())
    assert {item.metadata.name for item in project.list(PodDisruptionBudget)} == {"mern-server"}
    assert serving(project) == before


def leave_the_namespace_to_its_owner(project: Project) -> None:
    before = uid_of_namespace(project)
    project.configure(namespace={"mode": "existing"})
    assert project.up().ok
    down = project.destroy("--run-program")
    assert down.ok, down.output
    assert project.list(Deployment) == []
    assert uid_of_namespace(project) == before
    labels = project.cluster.client.get(Namespace, project.namespace).metadata.labels
    # Since 4.29 the provider creates by another way than it applies, and Kubernetes takes that for another
    # owner of the labels.
    major, minor = ENGINE.environment()["RELEASE_PROVIDER_VERSION"].split(".")[:2]
    is_new = (int(major), int(minor)) >= (4, 29)
    stays = {"elbv2.k8s.aws/pod-readiness-gate-inject"} if is_new else set()
    assert set(labels) == {"kubernetes.io/metadata.name"} | stays, "the stack's own labels are gone"


# -- removed by hand


def test_what_was_removed_by_hand_comes_back_by_one_command(project: Project, helm: str) -> None:
    empty = project.destroy("--run-program")
    assert empty.ok, empty.output
    assert "[unknown]" not in empty.output
    assert "04da6b54-80e4-46f7-96ec-b56ff0331ba9" not in project.raw_state()
    assert project.up().ok

    uninstall = [helm, "uninstall", "mern", "--namespace", project.namespace, "--wait"]
    run_in(project, *uninstall, "--keep-history")
    assert "was uninstalled outside this stack: it is installed anew" in project.preview().output
    being_uninstalled(project)
    output = project.up().output
    assert "has been uninstalling for" in output, output
    assert "made outside this stack" not in output
    project.configure(release={"unlockRevision": 1})
    assert_serves(project, project.up())

    run_in(project, *uninstall)
    assert_is_refused_with_the_command(project)
    assert project.preview("--refresh").ok
    output = typed(project, "up", "--refresh", "--stack", project.stack)
    assert "Do you want to perform this update?" in output, output

    assert_serves(project)
    before = serving(project)
    lose_records(project, keep=0)
    assert_serves(project, project.up("--refresh"))
    assert serving(project) == before, "the objects are Helm's again, and the same"

    project.configure(values={"mernClient": {"replicas": 3}})
    assert project.up().ok
    lose_records(project, keep=1)
    assert_serves(project, project.up())

    project.cluster.client.delete(Namespace, project.namespace)
    gone(project)
    assert_is_refused_with_the_command(project)
    assert_serves(project, project.up("--refresh"))

    project.cluster.client.delete(Namespace, project.namespace)
    gone(project)
    fails = project.destroy("--run-program")
    assert not fails.ok
    command = f"pulumi destroy --refresh --run-program --stack {project.stack}"
    assert command in fails.output
    project.paste(command)
    assert project.state() == []


def assert_is_refused_with_the_command(project: Project) -> None:
    before = owned(project)
    for run in (project.preview(), project.up()):
        assert not run.ok
        assert "This installs it anew:\n" in run.output
        assert f"pulumi up --refresh --stack {project.stack}\n" in run.output
        assert noise(run.output) == []
    assert owned(project) == before


def typed(project: Project, *arguments: str) -> str:
    """Run a command of Pulumi in a terminal, and say yes to its question; return what stands there."""
    remedies.ran.add(" ".join(["pulumi", *arguments]))
    command = [str(ENGINE.tools / "pulumi"), *arguments, "--color", "never"]
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.environment() | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    text, answered = "", False
    with contextlib.suppress(OSError), os.fdopen(screen, "rb", buffering=0, closefd=False) as read:
        while part := read.read(4096):
            text += part.decode(errors="replace")
            if not answered and "Do you want to perform this update?" in text:
                answered = True
                time.sleep(0.5)
                os.write(screen, b"yes\r" if "[yes/no]" in text else b"\x1b[A\r")
    assert process.wait(timeout=60) == 0, text
    return text


def assert_serves(project: Project, *runs: Run) -> None:
    for run in runs:
        assert run.ok, run.output
    again = project.preview()
    assert (again.ok, again.changes) == (True, set()), again.output
    assert all(item.status.availableReplicas for item in project.list(Deployment))


def run_in(project: Project, *command: str) -> None:
    subprocess.run(command, env=project.cluster.env, check=True, capture_output=True)


def being_uninstalled(project: Project) -> None:
    """Leave the release as a run does that is killed while Helm uninstalls it."""
    api = api_of(project.cluster)
    newest = record.newest(api, "mern", project.namespace)
    assert newest
    assert record._rewrite(api, newest, {"status": "uninstalling"}, {"status": "uninstalling"})


def lose_records(project: Project, keep: int) -> None:
    """Delete the newest of the Secrets in which Helm keeps revisions, all but `keep`."""
    names = [item.metadata.name for item in project.list(Secret) if item.type == "helm.sh/release.v1"]
    for name in sorted(names, key=lambda name: int(name.rpartition(".v")[2]))[keep:]:
        project.cluster.client.delete(Secret, name, namespace=project.namespace)


def gone(project: Project) -> None:
    """Wait for the end of the namespace."""

    def is_gone() -> bool:
        try:
            uid_of_namespace(project)
        except ApiError:
            return True
        return False

    eventually(is_gone)


# -- in AWS


@pytest.fixture
def another_stack(staging: AwsProject) -> Iterator[str]:  # noqa: F811
    """A stack of this project that is deployed nowhere."""
    staging.make()
    name = "another"
    staging.paste(f"pulumi stack init {name} --copy-config-from staging")
    yield name
    ENGINE.pulumi("stack", "rm", name, "--yes", "--force", cwd=staging.folder)


def test_controller_and_roles_are_handed_over_or_stay(staging: AwsProject, another_stack: str) -> None:  # noqa: F811
    staging.secrets = {"mern:mongodbUri": staging.secrets["mern:mongodbUri"]}
    staging.configure(
        pythonScript={"policy": POLICY_OF_SCRIPT, "identity": "pod-identity"},
        awsAccessKeyId=None,
        awsSecretAccessKey=None,
    )
    up = staging.up()
    assert up.ok, up.output
    eventually(lambda: f"{staging.namespace}/mern" in staging.controller.served)
    eventually(lambda: serves_new_kinds(staging))
    keep_the_controller(staging, another_stack)
    change_the_role(staging)
    assert staging.destroy().ok


def serves_new_kinds(project: Project) -> bool:
    """Whether the API server lists the controller's own kinds: just after their CRDs came it has been seen to
    answer "storage is (re)initializing"."""
    try:
        for path in IN_USE.values():
            list(api_of(project.cluster).items(path))
    except ClusterError:
        return False
    return True


def keep_the_controller(staging: AwsProject, another: str) -> None:  # noqa: F811
    deployment = staging.cluster.client.get(
        Deployment, "aws-load-balancer-controller", namespace="kube-system"
    )
    shown("no controller", staging, refused(staging, loadBalancerController={"mode": "none"}))
    up = refused(staging, loadBalancerController={"mode": "existing"})
    shown("controller of others", staging, up)
    move = re.search(r"pulumi (state move .*) '(urn:.*)'", up.output)
    assert move
    [keep] = [command for command in remedies.commands_in(up.output) if " install " in command]
    staging.paste(keep)
    staging.configure(loadBalancerController={"mode": "existing"})
    given = move[1].replace("STACK", another).split()
    staging.paste(move[0].replace("STACK", another))
    handed = staging.up()
    assert handed.ok, handed.output
    assert "delete" not in handed.operations.values()
    now = staging.cluster.client.get(Deployment, "aws-load-balancer-controller", namespace="kube-system")
    assert now.metadata.uid == deployment.metadata.uid
    back = [
        part.replace("staging", "-").replace(another, "staging").replace("-", another, 1)
        if part in ("staging", another)
        else part
        for part in given
    ]
    ENGINE.pulumi(*back, "--yes", move[2].replace(":staging::", f":{another}::"), cwd=staging.folder)
    staging.configure(loadBalancerController={"mode": "install"})
    again = staging.up()
    assert again.ok, again.output
    assert staging.cluster.client.get(ServiceAccount, "aws-load-balancer-controller", namespace="kube-system")


def change_the_role(staging: AwsProject) -> None:  # noqa: F811
    [first] = [it for it in associations(staging) if it["namespace"] == staging.namespace]
    own = refused(staging, pythonScript={"policy": None, "roleArn": first["roleArn"]})
    shown("own role", staging, own)
    theirs = staging.aws.client("iam").create_role(
        RoleName="theirs", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []})
    )
    [command] = [command for command in remedies.commands_in(own.output) if "roleArn" in command]
    staging.paste(command.replace(" ARN ", f" {theirs['Role']['Arn']} "))
    shown("role of others", staging, staging.up())
    [second] = [it for it in associations(staging) if it["namespace"] == staging.namespace]
    assert second["roleArn"] == theirs["Role"]["Arn"]
    assert second["associationId"] == first["associationId"], "there is no moment without one"
    assert "mern.staging.staging.python-script" not in roles(staging)
    staging.configure(pythonScript=None)
    for key in ("mern:awsAccessKeyId", "mern:awsSecretAccessKey"):
        staging.set_secret(key, "made-up")
    shown("keys", staging, staging.up())
    assert "theirs" in roles(staging)
