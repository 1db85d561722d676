"""Faults of a deployment, produced for real; docs/faults.md is made from what a user then reads.

`WRITE_FAULTS=1 make test ARGS=tests/engine/test_faults.py` writes the file anew.
"""

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import certifi
import pytest
import yaml
from lightkube.resources.admissionregistration_v1 import (
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
)
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace, Node, Pod, ResourceQuota, ServiceAccount
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from components.release.kubernetes_api import Api, ApiError
from components.release.record import newest
from sandbox.engine import PROJECT
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import Project, Run
from tests.remedies import commands_in

DOC = PROJECT / "docs/faults.md"
WRITE = "WRITE_FAULTS"
"""A variable; when set, the tests write the file."""
ANEW = f"{WRITE}=1 make test ARGS=tests/engine/test_faults.py"

CANCEL = "pulumi cancel --stack STACK"
NOWHERE = {"nodeSelector": {"no": "node"}}
TOO_BIG = {"resources": {"requests": {"cpu": "9000"}, "limits": {"cpu": "9000"}}}
FITTING = {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}

# -- means ----------------------------------------------------------------------------------------


def api(project: Project) -> Api:
    return api_of(project.cluster)


def api_of(cluster: TestCluster) -> Api:
    return _api(cluster.kubeconfig)


@cache
def _api(kubeconfig: Path) -> Api:
    return Api(yaml.safe_load(kubeconfig.read_text()))


def status(project: Project) -> str:
    found = newest(api(project), "mern", project.namespace)
    return f"{found.revision} {found.status}" if found else ""


def until(condition: Callable[[], Any], seconds: float = 40) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)


def unlock(project: Project, revision: int) -> None:
    project.configure(release={"unlockRevision": revision})


def cancel(project: Project) -> None:
    """As a user does after an `up` that was killed: it leaves the stack locked."""
    project.paste(CANCEL.replace("STACK", project.stack))


def up_and_what_it_prints(project: Project) -> Iterator["Up"]:
    """Give the `up` to run, and have the user's shell run each command that it prints, but another `up`."""
    runs: list[Run] = []

    def up() -> Run:
        runs.append(project.up())
        return runs[0]

    yield up
    commands = [command for command in commands_in(runs[0].output) if not command.startswith("pulumi up ")]
    assert commands
    for command in dict.fromkeys(commands):
        project.paste(command)


@contextmanager
def patched(project: Project, text: str) -> Iterator[None]:
    """With `text` run before the program, in its process, for a while."""
    project.patch(text)
    try:
        yield
    finally:
        program = project.folder / "__main__.py"
        program.unlink()
        program.symlink_to(PROJECT / "__main__.py")


@contextmanager
def configured(project: Project, **changes: Any) -> Iterator[None]:
    """With other keys of the config, for a while."""
    before = project.config_file.read_text()
    project.configure(**changes)
    try:
        yield
    finally:
        project.config_file.write_text(before)


@contextmanager
def having(project: Project, kind: Any, spec: dict[str, Any]) -> Iterator[None]:
    """With an object of the cluster, for a while."""
    client = project.cluster.client
    made = client.create(kind.from_dict(spec))
    try:
        yield
    finally:
        client.delete(kind, made.metadata.name, namespace=made.metadata.namespace)


def ready(project: Project) -> dict[str, str]:
    """The pods that serve, none of the script's hourly run: id to node."""
    return {
        pod.metadata.uid: pod.spec.nodeName
        for pod in project.list(Pod)
        if not any(owner.kind == "Job" for owner in pod.metadata.ownerReferences or [])
        if any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])
    }


# -- pods that run nothing, and what a kubelet would say of them ------------------------------------


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


RUNNING = {"state": {"running": {}}, "started": True}
CRASHED = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    "restartCount": 3,
}

Told = tuple[dict[str, Any], str, str]
"""A container's status, and the reason and message of an event."""


@contextmanager
def kubelet(project: Project, **told: list[Told]) -> Iterator[None]:
    """Plays the kubelet for pods that no node takes: gives each pod of a container one of the states.

    They are bound to a node that is none, so that neither kwok nor the scheduler cares for them, once
    that has said that it found none. It is another each time: Kubernetes removes the pods of a node that it
    has missed for 40 s.
    """
    server, stop, node = api(project), threading.Event(), f"nowhere-{secrets.token_hex(4)}"
    pods = f"/api/v1/namespaces/{project.namespace}/pods"

    def give(pod: Mapping[str, Any], container: str, state: Told) -> None:
        name = pod["metadata"]["name"]
        status, reason, message = state
        server.create(f"{pods}/{name}/binding", {"metadata": {"name": name}, "target": {"name": node}})
        base = {
            "name": container,
            "image": "example.com/it:2",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        ended = status.get("state", {}).get("terminated")
        phase = "Failed" if ended else "Running" if "running" in status.get("state", {}) else "Pending"
        server.merge_patch(
            f"{pods}/{name}/status", {"status": {"phase": phase, "containerStatuses": [base | status]}}
        )
        if reason:
            event = {
                "metadata": {"generateName": "kubelet-"},
                "involvedObject": {"kind": "Pod", "name": name, "namespace": project.namespace},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": server.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            server.create(f"/api/v1/namespaces/{project.namespace}/events", event)

    def work() -> None:
        left = {container: list(states) for container, states in told.items()}
        while not stop.wait(0.1):
            for pod in server.items(pods):
                container = pod["spec"]["containers"][0]["name"].replace("-", "_")
                given_up = "PodScheduled" in str(pod["status"].get("conditions"))
                if given_up and not pod["spec"].get("nodeName") and left.get(container):
                    give(dict(pod), pod["spec"]["containers"][0]["name"], left[container].pop())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# -- commands that are killed or interrupted ----------------------------------------------------------

STOP = """
import pathlib, time
import {module}
{module}.{name} = lambda *_, **__: (pathlib.Path({flag!r}).touch(), time.sleep(600))
"""


def family(pid: int) -> list[int]:
    """The process and all that it started, itself first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


@dataclass(frozen=True, kw_only=True)
class OtherUp:
    """An `up` that runs beside the test: the command line, the language host, the program, the provider."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something while it runs."""
        until(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output

    def interrupt(self, number: signal.Signals) -> Run:
        """Send a signal to the command line alone; what is seen when all of it has ended."""
        processes = family(self.process.pid)
        self.process.send_signal(number)
        run = self.end()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), 10)
        return run

    def end(self) -> Run:
        """What is seen when it has ended by itself."""
        code = self.process.wait(90)
        return Run(ok=code == 0, output=self.output, operations={})


@contextmanager
def other_up(project: Project, at: str = "", before: tuple[str, ...] = ()) -> Iterator[OtherUp]:
    """An `up` beside the test, all of its processes killed in the end.

    Args:
        project: what it deploys.
        at: a function, as `module:name`, at which its program stops, if it gets there.
        before: a command that starts it.
    """
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find what the engine has started")
    flag = project.folder / "reached"
    flag.unlink(missing_ok=True)
    log = project.folder / "other.log"
    with ExitStack() as stack:
        if at:
            module, _, name = at.partition(":")
            stack.enter_context(patched(project, STOP.format(module=module, name=name, flag=str(flag))))
        with log.open("w") as output:
            process = subprocess.Popen(
                [*before, *project.command("up", "--color", "never")],
                cwd=project.folder,
                env=project.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        up = OtherUp(process=process, log=log)
        try:
            if at:
                up.until(flag.exists)
            yield up
        finally:
            for pid in family(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def killed_up(project: Project, when: str) -> None:
    """Kill an `up` when the record has status `when`, and unlock the stack."""
    with other_up(project) as up:
        up.until(lambda: status(project).endswith(when))
    assert status(project).endswith(when)
    cancel(project)


NOISE = re.compile(r"Traceback|KeyboardInterrupt|non-zero exit code|goroutine|panic:|File \"")


def noise(text: str) -> list[str]:
    """What a user should never read: a stack trace, or what the language host thinks of the program's end."""
    return [line for line in text.splitlines() if NOISE.search(line)]


SUMMARY = re.compile(r"\n(Outputs:\n( .*\n)+\n)?Resources:\n( .*\n)+(\nDuration: \d+\w+\n)?\s*\Z")


def below_the_refusal(output: str) -> list[str]:
    """What a run shows below the words with which the program refused it, but the engine's own summary."""
    _, _, told = output.partition("\nDiagnostics:\n")
    assert SUMMARY.search(told), output
    _, _, refusal = SUMMARY.sub("", told).partition("    error: ")
    return [line for line in refusal.splitlines()[1:] if not re.match(r"    (?!error: )|$", line)]


def progress(output: str) -> list[str]:
    """What the engine showed while Helm was at work, without the row it stands in."""
    return re.findall(r"(?:waiting for|not ready in time).*", output)


# -- parts of the control plane ---------------------------------------------------------------------


@contextmanager
def without(project: Project, program: str) -> Iterator[None]:
    """With a program of the control plane killed; it is started again as it was."""
    plane = project.cluster.control_plane

    def command_of(pid: int) -> list[str]:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]

    pid, command = next(
        (pid, found) for pid in plane.processes() if (found := command_of(pid))[0].endswith(f"/{program}")
    )
    folder = Path(f"/proc/{pid}/cwd").readlink()
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in plane.processes())
    try:
        yield
    finally:
        # By a shell that ends at once: it is not a child of the tests.
        script = ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command]
        subprocess.run(script, cwd=folder, start_new_session=True, check=True)
        until(lambda: answers(project))


def answers(project: Project) -> bool:
    try:
        return bool(api(project).text("/readyz") == "ok")
    except Exception:
        return False


@contextmanager
def kubeconfig(project: Project, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """With another kube config: that of the tests' cluster, changed."""
    config = yaml.safe_load(project.cluster.kubeconfig.read_text())
    change(config)
    file = project.folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    with configured(project, cluster={"kubeconfig": str(file)}):
        yield


@contextmanager
def somebody(project: Project, rules: list[dict[str, Any]]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A service account with rights: what puts its token into a kube config."""
    name, namespace = f"somebody-{project.namespace}", project.namespace
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    meta = {"metadata": {"name": name}}
    with ExitStack() as stack:
        account = {"metadata": {"name": name, "namespace": namespace}}
        stack.enter_context(having(project, ServiceAccount, account))
        stack.enter_context(having(project, ClusterRole, {**meta, "rules": rules}))
        stack.enter_context(
            having(project, ClusterRoleBinding, {**meta, "subjects": [subject], "roleRef": role})
        )
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = api(project).create(path, {"spec": {}})["status"]["token"]
        yield lambda config: as_user(config, {"token": token})


def as_user(config: dict[str, Any], user: dict[str, Any]) -> None:
    config["users"] = [{"name": each["name"], "user": user} for each in config["users"]]


def clock_off(project: Project, hours: int) -> AbstractContextManager[None]:
    """With a laptop whose clock is wrong, for all code of the component."""
    return patched(
        project,
        f"""
import datetime, sys
import components.release
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(hours={hours})
for name, module in list(sys.modules.items()):
    if name.startswith("components.release") and hasattr(module, "datetime"):
        module.datetime = Wrong
""",
    )


# -- the faults -------------------------------------------------------------------------------------

Up = Callable[[], Run]

NOTHING = "nothing"
"""What a fault leaves: Helm's record and the state are as they were before."""
ROLLBACK = "a rollback"
"""What a fault leaves: Helm has rolled back, and the state has the failed Release."""


@dataclass(frozen=True)
class Row:
    """What a user reads of one cause."""

    name: str
    says: tuple[str, ...]
    """Patterns of the lines in which the user reads it."""
    mend: str
    """What to do then."""
    then: str
    """What the next `up` does."""
    played: bool
    """The tests write what Kubernetes or another program would say."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong in an `up` of a second version, while the first one serves."""

    rows: tuple[Row, ...]
    """One for each cause: several at once, where they do not hide each other, need one `up`."""
    produce: Callable[[Project], AbstractContextManager[Up | None]]
    """The fault is there inside of it, and mended after it; gives the `up` where it is a special one."""
    leaves: str
    """NOTHING, ROLLBACK, or something of its own."""
    fails: bool = True
    """The `up` fails; else it gets over it."""
    old_serves: bool = True
    """The first version still serves after it."""
    timeout: int = 4
    part: str = "mernServer"
    """Of what there is a new version: of the script, which nothing waits for, where Helm never starts."""

    all: ClassVar[list["Fault"]] = []

    @property
    def name(self) -> str:
        return ", ".join(row.name for row in self.rows)


def row(name: str, *says: str, mend: str, then: str = "deploys it", played: bool = False) -> Row:
    return Row(name, says, mend, then, played)


def fault(*rows: Row, leaves: str, **more: Any) -> Callable[[Callable[[Project], Iterator[Up | None]]], None]:
    """Put the generator that produces a fault, and mends it, into the list."""

    def enlist(produce: Callable[[Project], Iterator[Up | None]]) -> None:
        Fault.all.append(Fault(rows=rows, produce=contextmanager(produce), leaves=leaves, **more))

    return enlist


# What cannot be asked

REACHED = r"error: the API server at https://127.0.0.1:\d+ "


@fault(
    row(
        "the API server is gone",
        REACHED + r"does not answer: \[Errno 111\] Connection refused\.",
        mend="wait, or start it",
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    with without(project, "kube-apiserver"):
        yield


@fault(
    row(
        "the API server is gone for a while, in the midst of the rollout",
        r"what it waits for cannot be read: the API server at https://127.0.0.1:\d+ does not answer",
        mend="nothing",
        then="changes nothing",
    ),
    leaves="a deployment after an interruption",
    fails=False,
    old_serves=False,
    timeout=90,  # until the scheduler comes back to the API server: half a minute at times
)
def _(project: Project) -> Iterator[Up]:
    client = project.cluster.client
    nodes = [node.metadata.name for node in client.list(Node)]

    def cordon(on: bool) -> None:
        for node in nodes:
            client.patch(Node, node, {"spec": {"unschedulable": on}})

    def up() -> Run:
        with other_up(project) as run:
            run.until(lambda: "cannot be scheduled" in run.output)
            with without(project, "kube-apiserver"):
                run.until(lambda: "cannot be read" in run.output)
            cordon(False)
            return run.end()

    cordon(True)  # nothing is ready before that
    try:
        yield up
    finally:
        cordon(False)


@fault(
    row("etcd is gone", REACHED + r"does not answer: waited \d+ s\.", mend="wait, or start it"),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    # A user waits for ten seconds.
    shorter = "from components.release.kubernetes_api import Api\nApi.__init__.__defaults__ = (1,)"
    with without(project, "etcd"), patched(project, shorter):
        yield


@fault(
    row(
        "the credentials of the kube config have expired",
        REACHED + r"does not accept the credentials \(401 Unauthorized\): they have expired",
        mend="sign in again, or renew the kube config",
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    with somebody(project, []) as sign_in, kubeconfig(project, sign_in):
        # A deleted account ends its tokens, as time does.
        client, name = project.cluster.client, f"somebody-{project.namespace}"
        client.delete(ServiceAccount, name, namespace=project.namespace)
        until(lambda: refuses(project))
        meta = {"name": name, "namespace": project.namespace}
        client.create(ServiceAccount.from_dict({"metadata": meta}))
        yield


def refuses(project: Project) -> bool:
    try:
        Api(yaml.safe_load((project.folder / "kubeconfig").read_text())).get("/api/v1/namespaces/default")
    except Exception as error:
        return "401" in str(error)
    return False


@fault(
    row(
        "the session of `aws` has expired",
        r"error: no credentials for the API server at https://127.0.0.1:\d+: Exec \S+ returned 255: Error "
        "loading SSO Token: Token for mern has expired and refresh failed",
        mend="`aws sso login`",
        played=True,
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    program = project.folder / "aws"
    said = "Error loading SSO Token: Token for mern has expired and refresh failed"
    program.write_text(f"#!/bin/sh\necho >&2\necho '{said}' >&2\nexit 255\n")
    program.chmod(0o755)
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": str(program),
        "args": ["eks", "get-token"],
        "interactiveMode": "Never",
    }
    with kubeconfig(project, lambda config: as_user(config, {"exec": exec_})):
        yield


@fault(
    row(
        "the cluster was made anew, the kube config is of the old one",
        REACHED + "shows a certificate that the kube config does not trust",
        mend="renew the kube config",
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    other = re.search(
        "-----BEGIN.*?-----END CERTIFICATE-----\n", Path(certifi.where()).read_text(), re.DOTALL
    )
    assert other

    def distrust(config: dict[str, Any]) -> None:
        for each in config["clusters"]:
            each["cluster"].pop("certificate-authority", None)
            each["cluster"]["certificate-authority-data"] = base64.b64encode(other[0].encode()).decode()

    with kubeconfig(project, distrust):
        yield


@fault(
    row(
        "the passphrase of the stack is wrong",
        "error: .*incorrect passphrase",
        mend="set the right `PULUMI_CONFIG_PASSPHRASE`",
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    wrong = project.folder / "wrong"
    wrong.write_text("wrong")
    project.env["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(wrong)
    try:
        yield
    finally:
        del project.env["PULUMI_CONFIG_PASSPHRASE_FILE"]


@fault(
    row(
        "another `up` of the stack is at work",
        r"error: the stack is currently locked by 1 lock\(s\)",
        mend="wait until it has ended",
    ),
    row(
        "`up` is killed just before Helm starts",
        r"Either wait for the other process\(es\) to end or delete the lock file with `pulumi cancel`",
        mend=f"`{CANCEL}`",
    ),
    leaves="an update that Helm never began",
)
def _(project: Project) -> Iterator[Up]:
    def up() -> Run:
        with other_up(project, "components.release.hooks:Hooks._begin"):
            while_it_runs = project.up()
        after_it = project.up()
        cancel(project)
        assert not while_it_runs.ok
        return replace(after_it, output=f"{while_it_runs.output}\n{after_it.output}")

    yield up


@fault(
    row("the disk with the state is full", "error: ", "no space left on device", mend="make room"),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[Up]:
    script = (
        'mkdir -p "$2" && cp -a "$1/." "$2" && mount -t tmpfs -o size=64m none "$1" && cp -a "$2/." "$1" || '
        'exit 99; cat /dev/zero > "$1/filler" 2>/dev/null; shift 2; exec "$@"'
    )
    folders = str(FOLDER / "state"), str(project.folder / "state")
    inside = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *folders)

    def up() -> Run:
        with other_up(project, before=inside) as run:
            if run.process.wait(60) == 99:
                pytest.skip("may not mount a small file system")
            return run.end()

    yield up


@fault(
    row(
        "`up` is interrupted by SIGTERM while it asks the cluster",
        "SIGTERM received; cancelling",
        "error: update canceled",
        mend="nothing",
    ),
    leaves=NOTHING,
    part="pythonScript",
)
def _(project: Project) -> Iterator[Up]:
    def up() -> Run:
        with other_up(project, "components.release:plan_release") as run:
            return run.interrupt(signal.SIGTERM)

    yield up


# What is refused


@fault(
    row(
        "the credentials may not change Deployments",
        r"error: release mern in namespace \S+ was not deployed\. Helm says: .* is forbidden: User .* cannot",
        mend="give them the right",
    ),
    leaves="a rollback that failed",
)
def _(project: Project) -> Iterator[None]:
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["*"], "verbs": ["*"]},
    ]
    with somebody(project, rules) as sign_in, kubeconfig(project, sign_in):
        yield


def said_to_a_try(project: Project) -> str:
    """What the API server says to a change of the server's Deployment."""
    path = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/mern-server"
    try:
        api(project).merge_patch(path, {"metadata": {"annotations": {"try": "it"}}}, dryRun="All")
    except ApiError as error:
        return error.message
    return ""


@fault(
    row(
        "an admission policy refuses an object",
        r"error: the API server refuses 1 object of release",
        r"Deployment mern-server: .* denied request: not on a Friday",
        mend="do what it says",
    ),
    leaves=NOTHING,
)
def _(project: Project) -> Iterator[None]:
    name = project.namespace
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    rules = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{**rule, "resources": ["deployments"]}]},
        "validations": [{"expression": "false", "message": "not on a Friday"}],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    bound = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": selector},
    }
    meta = {"metadata": {"name": name}}
    with (
        having(project, ValidatingAdmissionPolicy, {**meta, "spec": rules}),
        having(project, ValidatingAdmissionPolicyBinding, {**meta, "spec": bound}),
    ):
        until(lambda: "not on a Friday" in said_to_a_try(project))
        yield


@fault(
    row(
        "the namespace enforces a stricter Pod Security Standard",
        'pods are refused: pods "mern-server-.*violates PodSecurity "restricted',
        mend="keep to it, or relax it",
    ),
    leaves=ROLLBACK,
)
def _(project: Project) -> Iterator[None]:
    label = "pod-security.kubernetes.io/enforce"

    def enforce(level: str | None) -> None:
        project.cluster.client.patch(Namespace, project.namespace, {"metadata": {"labels": {label: level}}})

    enforce("restricted")
    try:
        with configured(project, values={"podSecurity": "baseline"}):
            yield
    finally:
        enforce(None)


@fault(
    row(
        "an admission webhook does not answer",
        r"not checked by the API server: 1 of 13 objects: .*failed calling webhook",
        r"error: release mern in namespace \S+ was not deployed\. Helm says: .*failed calling webhook",
        mend="start it, or take its configuration away",
    ),
    leaves=ROLLBACK,
)
def _(project: Project) -> Iterator[None]:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
    hook = {
        "name": "dead.example.org",
        "clientConfig": {"service": {"name": "dead", "namespace": project.namespace}},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": project.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    dead = {"metadata": {"name": project.namespace}, "webhooks": [hook]}
    with having(project, ValidatingWebhookConfiguration, dead):
        until(lambda: "failed calling webhook" in said_to_a_try(project))
        yield


@fault(
    row(
        "the cluster's own storage is full",
        r"error: release mern in namespace \S+ was not deployed\. Helm says: .*database space exceeded",
        mend="make room in etcd and disarm its alarm",
    ),
    leaves="a Release that Helm did not begin",
)
def _(project: Project) -> Iterator[None]:
    alarm(project, "ACTIVATE")
    try:
        yield
    finally:
        alarm(project, "DEACTIVATE")


def alarm(project: Project, action: str) -> None:
    """Have etcd give, or end, the alarm that its disk is full."""
    for pid in project.cluster.control_plane.processes():
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        if found := re.search(r"--etcd-servers=([^\0]+)", command):
            body = json.dumps({"action": action, "alarm": "NOSPACE"}).encode()
            with urllib.request.urlopen(f"{found[1]}/v3/maintenance/alarm", body) as answer:
                assert answer.status == 200


# What does not become ready


@fault(
    row(
        "the namespace's quota is used up",
        "Deployment mern-server: 0 of 1 ready",
        r"pods are refused: pods .*exceeded quota: few, requested: requests.memory=1Gi, used: .*, limited: ",
        mend="ask for less, or raise it",
    ),
    row(
        "the image is missing",
        "Deployment mern-client: 0 of 1 ready",
        "1 pod cannot pull the image: ImagePullBackOff example.com/it:2; Failed: Failed to pull image",
        mend="push it, or set the right tag",
        played=True,
    ),
    leaves=ROLLBACK,
)
def _(project: Project) -> Iterator[None]:
    meta = {"name": "few", "namespace": project.namespace}
    states = [(waiting("ImagePullBackOff", "back-off"), "Failed", 'Failed to pull image "it:2": not found')]
    big = {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}}
    with (
        having(project, ResourceQuota, {"metadata": meta, "spec": {"hard": {"requests.memory": "1Gi"}}}),
        configured(project, values={"mernServer": big, "mernClient": NOWHERE}),
        kubelet(project, client=states),
    ):
        until(lambda: (found := project.get(ResourceQuota, "few").status) and found.used)
        yield


@fault(
    row(
        "a node is gone, and the others are full",
        "Deployment mern-server: 0 of 1 ready",
        r"1 pod cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu",
        mend="ask for less, or add nodes",
    ),
    row(
        "the new version crashes",
        "Deployment mern-client: 0 of 1 ready",
        "1 pod crashing: container client ended with exit code 137, restarted 3 times; OOMKilled",
        mend="mend it; its last log lines stand below",
        played=True,
    ),
    leaves=ROLLBACK,
)
def _(project: Project) -> Iterator[None]:
    client = project.cluster.client
    of_server = {p.spec.nodeName for p in project.list(Pod) if p.metadata.name.startswith("mern-server-")}
    node = next(each for each in client.list(Node) if each.metadata.name not in of_server)
    spec = node.to_dict()
    spec["metadata"] = {key: spec["metadata"][key] for key in ("name", "labels", "annotations")}
    client.delete(Node, node.metadata.name)
    big = {"resources": {"requests": {"cpu": "31950m"}, "limits": {"cpu": "32"}}}
    states = [(CRASHED, "BackOff", "Back-off restarting failed container")]
    try:
        with (
            configured(project, values={"mernServer": big, "mernClient": NOWHERE}),
            kubelet(project, client=states),
        ):
            yield
    finally:
        client.create(Node.from_dict(spec))
        gone = {pod.metadata.uid for pod in project.list(Pod) if pod.spec.nodeName == node.metadata.name}
        for pod in project.list(Pod):
            if pod.metadata.uid in gone:
                client.delete(Pod, pod.metadata.name, namespace=project.namespace, grace_period=0)
        until(lambda: len(ready(project)) == 2 and not gone & ready(project).keys())


@fault(
    row(
        "the script's run after the deployment fails",
        "Job mern-python-script-once: 0 of 1 ready",
        "1 pod .*ended with exit code 3; Error",
        mend="mend it; its last log lines stand below",
        played=True,
    ),
    leaves=ROLLBACK,
    part="pythonScript",
)
def _(project: Project) -> Iterator[None]:
    # One more try: as soon as the Job has failed for good, Helm rolls back, and nobody looks at it any more.
    run = {"runAfterDeployment": True, "backoffLimit": 1, **NOWHERE}
    states = [({"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}, "", "")]
    # It comes after the rollout: a new version of the server would replace the old one, and then go again.
    server = project.get(Deployment, "mern-server").spec.template.spec.containers[0]
    same = {"image": {"tag": server.image.rpartition(":")[2]}}
    with (
        configured(project, values={"pythonScript": run, "mernServer": same}),
        kubelet(project, python_script_once=states),
    ):
        yield


@fault(
    row(
        "`up` is interrupted (Ctrl-C) while Helm waits",
        r"\^C received; cancelling",
        "has been rolled back due to atomic being set: context canceled",
        mend="nothing",
    ),
    leaves="a rollback after an interruption",
    timeout=30,
)
def _(project: Project) -> Iterator[Up]:
    def up() -> Run:
        with other_up(project) as run:
            run.until(lambda: "cannot be scheduled" in run.output)
            return run.interrupt(signal.SIGINT)

    with configured(project, values={"mernServer": NOWHERE}):
        yield up


# What is killed

LEFT = (
    r"error: revision \d+ of release mern has been {} for \d+ s: a run is at work on it, or was killed in "
    "the midst of it"
)


@fault(
    row(
        "`up` is killed while Helm waits",
        LEFT.format("pending-upgrade"),
        r"pulumi config set --path 'mern:release.unlockRevision' \d+ --stack",
        mend=f"`{CANCEL}`; then wait for twice `mern:release.timeout`, or run the command",
        then="marks that revision failed, and deploys it",
    ),
    leaves="a pending upgrade",
    timeout=30,
)
def _(project: Project) -> Iterator[Up]:
    with configured(project, values={"mernServer": TOO_BIG}):
        killed_up(project, "pending-upgrade")
    revision = int(status(project).split()[0])
    unlock(project, revision - 1)  # that is of an earlier time
    yield from up_and_what_it_prints(project)


@fault(
    row(
        "`up` is killed while Helm rolls back, and the clock of who comes next is an hour slow",
        r"revision \d+ was left pending-rollback by a run that was killed: marked failed, and this deploy",
        mend=f"`{CANCEL}`, after twice `mern:release.timeout`",
        then="changes nothing",
    ),
    leaves="a pending rollback",
    fails=False,
    old_serves=False,
    timeout=4,
)
def _(project: Project) -> Iterator[None]:
    with configured(project, values={"mernServer": TOO_BIG}):
        killed_up(project, "pending-rollback")
    found = newest(api(project), "mern", project.namespace)
    assert found
    until(lambda: found.has_surely_ended(api(project).now(), 4))
    with clock_off(project, -1):
        yield


@fault(
    row("`up` is killed after Helm, before the state is written", mend=f"`{CANCEL}`"),
    leaves="a state that is older than the record",
    fails=False,
    old_serves=False,
    timeout=30,
)
def _(project: Project) -> Iterator[None]:
    with other_up(project, "components.release.hooks:Hooks._after"):
        pass
    cancel(project)
    yield


# What others do


@fault(
    row(
        "somebody's `helm upgrade` is at work, and the laptop's clock is an hour fast",
        LEFT.format("pending-upgrade"),
        mend="wait until it has ended",
        then="replaces that revision",
    ),
    leaves="a revision of somebody else",
    timeout=30,
)
def _(project: Project) -> Iterator[None]:
    command = ["helm", "upgrade", "mern", str(project.folder / "chart"), "--namespace", project.namespace]
    command += ["--reuse-values", "--wait", "--timeout", "60s"]
    command += ["--set", "mernServer.resources.requests.cpu=9000,mernServer.resources.limits.cpu=9000"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=project.cluster.env, stdout=quiet, stderr=quiet)
    try:
        until(lambda: status(project).endswith("pending-upgrade"))
        with clock_off(project, 1):
            yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@fault(
    row(
        "somebody has uninstalled the release",
        r"error: .*release mern in namespace \S+ is gone: ",
        mend="`pulumi up --refresh --stack STACK`",
        then="installs it anew",
    ),
    leaves="no release",
    old_serves=False,
)
def _(project: Project) -> Iterator[None]:
    command = ["helm", "uninstall", "mern", "--namespace", project.namespace]
    subprocess.run(command, env=project.cluster.env, check=True, capture_output=True)
    seen = project.preview()
    assert not seen.ok
    assert "is gone: it, its namespace or Helm's record of it was deleted outside this stack" in seen.output
    assert noise(seen.output) == []
    yield
    assert project.refresh().ok  # the printed `up --refresh` is run by tests/engine/test_owners.py


# -- the table --------------------------------------------------------------------------------------

INTRODUCTION = f"""\
# What happens when something goes wrong

Each row is one fault while `pulumi up` deploys a second version over a first one that serves. Each was
produced for real, on a real API server with the real engine, but for those marked *played*: pods of the
sandbox run no code, so there a test writes what the kubelet, or a program, would say. In each the first
version went on serving, with the same pods, unless the `up` got over the fault and replaced
them, or somebody had uninstalled it. What is read is shortened. Each command below was run as it stands,
with the stack's name for STACK, but for `aws sso login`, which needs a browser; then the next `up` worked.

An `up` that is killed leaves the stack locked: the next one says so, and `{CANCEL}` unlocks it. One that
is interrupted ends in order: Helm rolls back, and nothing is locked.

Made from the tests by `{ANEW}`; the same tests
hold it to them.

| fault | what is read | what to do | the next `up` |
| --- | --- | --- | --- |
"""


def line_of(row: Row, said: list[str], project: Project) -> str:
    """The line of docs/faults.md."""
    texts = "<br>".join(f"`` {shortened(line, project)} ``" for line in said) or "nothing"
    played = " *(played)*" if row.played else ""
    return f"| {row.name}{played} | {texts} | {row.mend} | {row.then} |\n"


def shortened(line: str, project: Project) -> str:
    """A line of output without what differs in each run."""
    for pattern, text in (
        (re.escape(f"{project.folder}/"), ""),
        (re.escape(str(FOLDER)), "…"),
        (rf"\b{project.namespace}\b", "shop"),
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"[0-9a-f-]{36}\.json\.[0-9a-f]+\.tmp", "….json"),
        (r"\b[0-9a-f]{8,10}-[a-z0-9]{5}\b", "…"),
        (r"mern-(server|client)-[0-9a-f]{8,10}\b", r"mern-\1-…"),
        (r"-once-[a-z0-9]{5}\b", "-once-…"),
        (r"revision \d+", "revision N"),
        (r"unlockRevision' \d+", "unlockRevision' N"),
        (r"\d+ s\b", "N s"),
        (r"pods=\d+", "pods=N"),
        (r"\|", "/"),
    ):
        line = re.sub(pattern, text, line)
    line = line.strip()
    return line if len(line) < 260 else f"{line[:260]}…"
