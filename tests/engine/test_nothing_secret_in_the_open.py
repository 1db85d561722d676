"""A credential with every character that quoting changes goes everywhere, and is seen nowhere.

What needs no engine is in tests/unit/test_nothing_secret_in_the_open.py.
"""

import base64
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube.resources.core_v1 import Namespace, Secret
from pulumi.automation import ConfigValue

from components.release.hooks import REPORT_VARIABLE
from operations.ci import engine, report
from operations.stack import secrets_in
from sandbox.engine import PROJECT
from tests.canary import CANARY, MARK, OTHER, PARTS, URI, seen, seen_in_files
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import ENGINE, Project, Run, new_project
from tests.engine.faults import below_the_refusal, configured, noise, patched

VARIABLES = {
    **json.loads(PARTS["mern:serverSecrets"]),
    "KEPT": f" {MARK}\t two  blanks\r\nand ümläuts, 👩\u200d💻\r\n\n ",
}
"""Variables of the server, each right to the byte."""


@pytest.fixture(scope="session")  # tests are dealt out anew at the end of a run
def of_all(cluster: TestCluster, stack_file: Path) -> Iterator[Project]:
    """A project with the canary as its credentials, in a namespace that is there."""
    project = new_project("canary", cluster, stack_file)
    project.secrets = {key: text for key, text in PARTS.items() if key != "mern:serverSecrets"}
    cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    project.configure(namespace={"mode": "existing"}, release={"timeout": 20})
    project.make()
    for name, text in VARIABLES.items():  # --raw: else Pulumi takes off the line feed at the end
        where = ("--secret", "--raw", "--path", f"mern:serverSecrets.{name}", "--stack", project.stack)
        ENGINE.pulumi("config", "set", *where, cwd=project.folder, given=text)
    yield project
    cluster.client.delete(Namespace, project.namespace)


@pytest.fixture
def canary(of_all: Project, tmp_path: Path) -> Iterator[Project]:
    """The same, with the chart and the config as they were; what is temporary goes to tmp_path."""
    (tmp_path / "temporary").mkdir()
    of_all.env = {"TMPDIR": str(tmp_path / "temporary"), REPORT_VARIABLE: str(tmp_path / "report")}
    with configured(of_all):
        yield of_all
    restore_chart(of_all)


def restore_chart(project: Project) -> None:
    shutil.rmtree(project.folder / "chart")
    shutil.copytree(PROJECT / "chart", project.folder / "chart")


def everything(project: Project, run: Run) -> str:
    """What a run shows and leaves: its output, its events, the state, the stack file, what CI writes."""
    known = project.secrets | {"mern:serverSecrets": json.dumps(VARIABLES)}
    config = {key: ConfigValue(text, secret=True) for key, text in known.items()}
    told = engine.Run(command="up", ok=run.ok)
    engine.gather(told, run.reported, secrets_in(config))
    written = report.comment(told, project.stack) + report.summary(told, project.stack)
    assert run.events
    return "\n".join([run.output, run.events, written, project.raw_state(), project.config_file.read_text()])


class CommandLines(threading.Thread):
    """Reads the arguments of every process on this machine, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.found.add(path.read_bytes().decode(errors="replace"))
                except OSError:  # it has ended
                    continue

    def __enter__(self) -> "CommandLines":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


# -- charts that put it where it does not belong ------------------------------------------------------


def add_to_chart(project: Project, manifest: str) -> None:
    (project.folder / "chart/templates/astray.yaml").write_text(manifest)


AS_VALUES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: astray}
data:
  plain: {{ .Values.mernServer.secrets.SESSION_KEY | quote }}
  amid: {{ printf "user:%s@host" .Values.mernServer.secrets.SESSION_KEY | quote }}
  json: {{ toJson .Values.mernServer | quote }}
  url: {{ printf "https://x/?k=%s" (urlquery .Values.mernServer.secrets.SESSION_KEY) | quote }}
  base64: {{ printf "user:%s" .Values.mernServer.secrets.SESSION_KEY | b64enc | quote }}
"""
AS_KEYS = """
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: astray-keys
  annotations:
    {{ .Values.mernServer.secrets.SIGNING_KEY | b64enc | quote }}: "key"
"""
FAILING = """
{{- $server := .Values.mernServer }}
{{- $encoded := b64enc (print "a" (toJson .Values.pythonScript)) }}
{{- fail (printf "%s %q %s %s" $server.secrets.SESSION_KEY $server.mongodbUri (toJson $server) $encoded) }}
"""
REFUSED = """
apiVersion: v1
kind: Service
metadata: {name: astray, labels: {secret: {{ .Values.mernServer.secrets.SESSION_KEY | quote }}}}
spec:
  type: {{ .Values.mernServer.mongodbUri | quote }}
  ports: [{port: 80, name: {{ b64enc .Values.mernServer.secrets.SIGNING_KEY | quote }}}]
"""


def schema_quotes_it(project: Project) -> None:
    project.edit("values.schema.json", '"type": "string", "minLength": 1 }', '"pattern": "^[0-9]+$" }')
    path = project.folder / "chart/values.schema.json"
    schema = json.loads(path.read_text())
    schema["definitions"]["credential"] |= {"enum": ["a", "b"], "maxLength": 3}
    path.write_text(json.dumps(schema))


# -- within the program -------------------------------------------------------------------------------

RECORD = """
import pathlib
from components.release.secrets import Secrets
def recording(secrets, text, mask=Secrets.mask):
    with pathlib.Path({file!r}).open("a") as file:
        file.write(text + "\\n")
    return mask(secrets, text)
Secrets.mask = recording
"""
"""Has the program write what it gives to the mask."""

QUOTE = """
import datetime
from components.release.watch import Watch
def look(watch, look=Watch.look):
    api, root = watch.plan.api, "namespaces/" + watch.plan.args.namespace
    named = api.items(f"/apis/apps/v1/{{root}}/deployments", fieldSelector="metadata.name=mern-server")
    for meta in (item["metadata"] for item in named):
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
        of = {{key: meta[key] for key in ("name", "namespace", "uid")}}
        event = {{
            "metadata": {{"generateName": "canary-"}},
            "involvedObject": {{"kind": "Deployment", **of}},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": {text!r},
            "lastTimestamp": f"{{now:%Y-%m-%dT%H:%M:%SZ}}",
        }}
        api.create(f"/api/v1/{{root}}/events", event)
    return look(watch)
Watch.look = look
"""
"""Has an event on the Deployment say a text before each look at it."""

IN_EVERY_WAY = f"could not use {CANARY} nor {json.dumps(CANARY)} nor {json.dumps(URI)} nor " + " nor ".join(
    base64.b64encode((before + OTHER).encode()).decode() for before in ("", "a", "ab")
)


# -- the tests ----------------------------------------------------------------------------------------


def test_only_a_mask_hides_it_in_a_refusal(canary: Project, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        unmasked = tmp_path / words
        with patched(canary, RECORD.format(file=str(unmasked))):
            run = canary.preview()
        assert not run.ok
        assert words in run.output
        assert "[secret]" in run.output
        assert not seen(everything(canary, run)), words
        assert noise(run.output) == below_the_refusal(run.output) == []
        assert not (tmp_path / "report").exists()
        assert seen(unmasked.read_text()), "what there was to mask"

    add_to_chart(canary, FAILING)
    refused("cannot be rendered")
    restore_chart(canary)
    schema_quotes_it(canary)
    refused("schema")
    restore_chart(canary)
    add_to_chart(canary, REFUSED)
    refused("the API server refuses")


def test_a_deployment_a_change_a_failure_and_a_rollback_show_and_leave_nothing(
    canary: Project, tmp_path: Path
) -> None:
    canary.configure(values={"mernServer": {"env": {"LEVEL": "debug"}}})
    with CommandLines() as arguments:
        run = canary.up("--diff")
    assert run.ok, run.output
    assert any("helm" in line or "pulumi" in line for line in arguments.found)
    assert not seen("\n".join(arguments.found))
    held = canary.get(Secret, "mern-server").data
    assert {name: base64.b64decode(held[name]) for name in VARIABLES} == {
        name: text.encode() for name, text in VARIABLES.items()
    }
    assert "[secret]" in run.output
    assert not seen(everything(canary, run)), "a deployment"

    # The next one: another credential, written to places where it does not belong.
    canary.set_secret("mern:awsSecretAccessKey", f"new-{CANARY}")
    canary.configure(values={"mernServer": {"replicas": 1, "env": {"LEVEL": "info"}}})
    add_to_chart(canary, AS_VALUES + AS_KEYS)
    with configured(canary, release={"dryRun": False}):  # the API server does not take such keys
        run = canary.preview("--diff")
    assert run.ok, run.output
    assert ("update", "Secret mern-python-script") in run.object_changes
    assert ("create", "ConfigMap astray") in run.object_changes
    assert ("create", "ConfigMap astray-keys") in run.object_changes
    assert not seen(everything(canary, run)), "a preview"

    # And a failure whose event quotes the old one and the new.
    add_to_chart(canary, AS_VALUES)
    big = {"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}
    unmasked = tmp_path / "unmasked"
    quoting = QUOTE.format(text=IN_EVERY_WAY) + RECORD.format(file=str(unmasked))
    with (
        configured(canary, release={"timeout": 3}, values={"mernServer": {"resources": big}}),
        patched(canary, quoting),
    ):
        run = canary.up("--diff")
    assert not run.ok
    assert "Deployment mern-server: " in run.output
    told = (tmp_path / "report").read_text()
    assert "could not use [secret] nor" in told
    assert not seen(everything(canary, run) + told), "a failure"
    assert noise(run.output + told) == []
    assert seen(unmasked.read_text()), "what there was to mask"

    # Day two, on the real engine by its own command.
    restore_chart(canary)
    command = [sys.executable, "-m", "operations", "rollback", "1", "--yes", "--stack", canary.stack]
    back = subprocess.run(
        command, cwd=canary.folder, env=canary.environment(), capture_output=True, text=True, check=False
    )
    assert back.returncode == 0, back.stdout + back.stderr
    assert 'mern:values.mernServer.env.LEVEL: "info" → "debug"' in back.stdout
    assert "today's are kept: mern:awsSecretAccessKey\n" in back.stdout
    assert "has the config of revision 1" in back.stdout
    assert "LEVEL: debug" in canary.config_file.read_text()
    assert not seen("\n".join([back.stdout, back.stderr, canary.config_file.read_text()])), "a rollback"

    for folder in (FOLDER / "state", canary.folder, tmp_path / "temporary"):
        assert seen_in_files(folder) == []


# -- secrets that say what other texts say ------------------------------------------------------------

WORDS = {
    "RELEASE": "mern",
    "OBJECT": "mern-server",
    "HOST": "shop.example.com",
    "IMAGE_TAG": "release-2026.11",
    "LETTER": "e",
    "NUMBER": "3000",
    "SHORTER": "mern-server-x9K",
    "LONGER": "mern-server-x9K-and-more",
}
"""What somebody encrypts who gives all variables as secrets; two of them no other text has."""


def test_a_secret_that_says_what_other_texts_say_changes_no_row_and_no_report(
    project: Project, tmp_path: Path
) -> None:
    project.env = {REPORT_VARIABLE: str(tmp_path / "report")}
    project.configure(imageTag=WORDS["IMAGE_TAG"], values={"ingress": {"hosts": [WORDS["HOST"]]}})
    of_server = {("update", "Secret mern-server"), ("update", "Deployment mern-server")}
    assert project.up().ok

    given = [f"--secret=mern:serverSecrets.{name}={text}" for name, text in WORDS.items()]
    ENGINE.pulumi("config", "set-all", "--path", *given, "--stack", project.stack, cwd=project.folder)
    run = project.preview("--diff")
    assert run.object_changes == of_server
    assert "6 secrets are too short or too common to be told from other texts" in run.output
    # Pulumi has a filter of its own, which looks for every secret of three characters and more.
    assert 'app.kubernetes.io/instance  : "[secret]"' in run.output

    assert project.up().ok
    rows = {item["urn"].rpartition("$helm:")[2]: item.get("inputs") for item in project.state()}
    server = json.dumps(rows[f"apps/v1:Deployment::mern/{project.namespace}/mern-server"])
    assert "mern-server:release-2026.11" in server
    assert not [
        urn
        for urn, row in rows.items()
        if "::mern/" in urn
        if "Secret" not in urn
        if "ciphertext" in json.dumps(row)
    ]

    project.configure(serverSecrets=None)  # what Helm has recorded holds them still
    big = {"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}
    with configured(project, release={"timeout": 3}, values={"mernServer": {"resources": big}}):
        assert not project.up().ok
    assert "\nDeployment mern-server: 0 of 2 ready\n" in (tmp_path / "report").read_text()
    assert project.up().object_changes == of_server
    assert project.preview().object_changes == set()
