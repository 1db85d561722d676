"""A credential with every character that quoting changes goes everywhere, and is seen nowhere."""

import asyncio
import base64
import html
import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote, quote_plus

import pulumi
import pytest
import yaml
from lightkube.resources.core_v1 import Namespace, Secret
from pulumi.automation.events import EngineEvent
from pydantic import SecretStr

from components import release
from components.release import ReleaseArgs, adoption, chart, drift, dry_run, objects, record, rollout
from components.release import secret_values as module
from components.release.api import ApiError, UnknownKindError, UnreachableError
from components.release.chart import ChartError
from operations import engine, old_values, report, rollback
from operations.__main__ import main
from settings import Settings
from tests.conftest import FOLDER
from tests.engine.conftest import Project, Run

# What quoting leaves as it is: whoever sees it has seen the credential, in whatever form.
MARK = "kanariepiet7Qx"
CANARY = f"""p"w'%2B+ü\\<&>€{MARK}=~"""
URI = f"mongodb://app:{CANARY}@mongodb.invalid/mern"
OTHER = f"-----BEGIN KEY-----\n{CANARY}\n{MARK}second\n-----END KEY-----\n"
PARTS = {
    "mern:mongodbUri": URI,
    "mern:serverSecrets": json.dumps({"SESSION_KEY": CANARY, "SIGNING_KEY": OTHER}),
    "mern:awsAccessKeyId": f"id-{CANARY}",
    "mern:awsSecretAccessKey": CANARY,
}


def in_base64(text: str) -> list[str]:
    """What base64 of anything with `text` in it contains: it can begin at three places."""
    runs = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text.encode()).decode()
        runs.append(encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6])
    return runs


# Twice: a Secret's data in base64 within Helm's or another's base64.
FORMS = [MARK, *in_base64(MARK), *(twice for once in in_base64(MARK) for twice in in_base64(once))]


def seen(text: str) -> list[str]:
    return [text[max(0, text.index(form) - 60) :][:160] for form in FORMS if form in text]


def seen_in_files(folder: Path) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and seen(path.read_text(errors="replace"))
    ]


def everything(project: Project, run: Run) -> str:
    """What a run shows and leaves: its output, its events, the state, the stack file, what CI writes."""
    work = FOLDER / f"work/{project.stack}/Pulumi.{project.stack}.yaml"
    told = engine.Run(command="up", ok=run.ok)
    engine.gather(told, run.reported, engine.secrets_of(project.open()))
    written = report.comment(told, project.stack) + report.summary(told, project.stack)
    return "\n".join([run.output, run.events, written, project.raw_state(), work.read_text()])


@pytest.fixture
def canary(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """The project with the canary as its credentials, in a namespace that is there."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    project.secrets = dict(PARTS)
    project.cluster.client.create(Namespace.from_dict({"metadata": {"name": project.namespace}}))
    project.configure(namespace={"mode": "existing"}, release={"timeout": 20})
    return project


class CommandLines(threading.Thread):
    """Reads the arguments of every process on this machine, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
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


def test_a_deployment_a_change_and_a_failure_show_and_leave_nothing(
    canary: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = tmp_path / "report.txt"
    monkeypatch.setenv("RELEASE_REPORT_FILE", str(report))
    with CommandLines() as arguments:
        run = canary.up(diff=True)
    assert run.ok, run.output
    assert any("helm" in line or "pulumi" in line for line in arguments.found)
    assert not seen("\n".join(arguments.found))
    held = canary.get(Secret, "mern-server").data
    assert base64.b64decode(held["SESSION_KEY"]).decode() == CANARY
    assert "[secret]" in run.output
    assert not seen(everything(canary, run))

    # The next one: another credential, written to places where it does not belong, and a failure
    # whose event quotes the old one and the new.
    put_astray(canary)
    canary.set_secret("mern:awsSecretAccessKey", f"new-{CANARY}")
    preview = canary.preview(diff=True)
    assert ("update", "Secret mern-python-script") in preview.object_changes
    assert not seen(everything(canary, preview))
    too_much(canary)
    monkeypatch.setattr(rollout.Watch, "look", looking(canary, rollout.Watch.look))
    run = canary.up(diff=True)
    assert not run.ok
    assert "Deployment mern-server: " in run.output
    assert "could not use [secret] nor" in report.read_text()
    assert not seen(everything(canary, run) + report.read_text())
    monkeypatch.undo()
    for folder in (FOLDER / "work", FOLDER / "state", canary.folder, tmp_path / "temporary"):
        assert seen_in_files(folder) == []


def looking(project: Project, look: Callable[[Any], str]) -> Callable[[Any], str]:
    """`look`, after an event on the Deployment that quotes the credential in every way."""
    text = f"could not use {CANARY} nor {json.dumps(CANARY)} nor {json.dumps(URI)} nor " + " nor ".join(
        base64.b64encode((before + OTHER).encode()).decode() for before in ("", "a", "ab")
    )

    def quoting(watch: Any) -> str:
        api, root = watch.rollout.api, f"namespaces/{project.namespace}"
        named = api.items(f"/apis/apps/v1/{root}/deployments", fieldSelector="metadata.name=mern-server")
        for meta in (item["metadata"] for item in named):
            event = {
                "metadata": {"generateName": "canary-"},
                "involvedObject": {
                    "kind": "Deployment",
                    "name": meta["name"],
                    "namespace": project.namespace,
                    "uid": meta["uid"],
                },
                "type": "Warning",
                "reason": "FailedCreate",
                "message": text,
                "lastTimestamp": f"{datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}",
            }
            api.create(f"/api/v1/{root}/events", event)
        return look(watch)

    return quoting


# -- charts that put it where it does not belong ------------------------------------------------------


def put_astray(project: Project) -> None:
    """As a value, amid a text, in base64 and as a key."""
    project.edit(
        "templates/mern-client.yaml",
        "{{- include",
        """---
apiVersion: v1
kind: ConfigMap
metadata: {name: astray}
data:
  plain: {{ .Values.mernServer.secrets.SESSION_KEY | quote }}
  amid: {{ printf "user:%s@host" .Values.mernServer.secrets.SESSION_KEY | quote }}
  json: {{ toJson .Values.mernServer | quote }}
  url: {{ printf "https://x/?k=%s" (urlquery .Values.mernServer.secrets.SESSION_KEY) | quote }}
  base64: {{ printf "user:%s" .Values.mernServer.secrets.SESSION_KEY | b64enc | quote }}
---
{{- include""",
    )
    project.configure(values={"mernServer": {"replicas": 1}})


def put_into_a_key(project: Project) -> None:
    project.edit(
        "templates/mern-client.yaml",
        "{{- include",
        """---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ print "astray-" .Values.mernServer.secrets.SESSION_KEY | quote }}
  annotations:
    {{ .Values.mernServer.secrets.SIGNING_KEY | b64enc | quote }}: "key"
---
{{- include""",
    )
    # The API server does not take such an object.
    project.configure(release={"dryRun": False})


def fail_with_it(project: Project) -> None:
    project.edit(
        "templates/validate.yaml",
        "{{- with",
        """{{- $server := .Values.mernServer }}
{{- $encoded := b64enc (print "a" (toJson .Values.pythonScript)) }}
{{- fail (printf "%s %q %s %s" $server.secrets.SESSION_KEY $server.mongodbUri (toJson $server) $encoded) }}
{{- with""",
    )


def schema_quotes_it(project: Project) -> None:
    project.edit("values.schema.json", '"type": "string", "minLength": 1 }', '"pattern": "^[0-9]+$" }')
    path = project.folder / "chart/values.schema.json"
    schema = json.loads(path.read_text())
    schema["definitions"]["credential"] |= {"enum": ["a", "b"], "maxLength": 3}
    path.write_text(json.dumps(schema))


def api_server_refuses_it(project: Project) -> None:
    project.edit(
        "templates/mern-client.yaml",
        "{{- include",
        """---
apiVersion: v1
kind: Service
metadata: {name: astray, labels: {secret: {{ .Values.mernServer.secrets.SESSION_KEY | quote }}}}
spec:
  type: {{ .Values.mernServer.mongodbUri | quote }}
  ports: [{port: 80, name: {{ b64enc .Values.mernServer.secrets.SIGNING_KEY | quote }}}]
---
{{- include""",
    )


def too_much(project: Project) -> None:
    big = {"requests": {"cpu": "1000"}, "limits": {"cpu": "1000"}}
    project.configure(release={"timeout": 3}, values={"mernServer": {"resources": big}})


# -- the masks, each taken out ------------------------------------------------------------------------


def unmasked(text: str, secrets: list[str]) -> str:
    return text


REFUSALS = {
    "a template that fails": (fail_with_it, "cannot be rendered", chart),
    "a schema": (schema_quotes_it, "cannot be rendered", chart),
    "the API server": (api_server_refuses_it, "the API server refuses", dry_run),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_only_a_mask_hides_it_in_a_refusal_of(
    what: str, canary: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, words, masked = REFUSALS[what]
    edit(canary)
    run = canary.preview()
    assert not run.ok
    assert words in run.output
    assert "[secret]" in run.output
    assert not seen(everything(canary, run))
    monkeypatch.setattr(masked, "mask", unmasked)
    run = canary.preview()
    assert words in run.output
    assert seen(run.output)


def show_secrets_only(item: Mapping[str, Any], secrets: list[str]) -> dict[str, Any]:
    return dict(item) if item["kind"] == "Secret" else {}


def test_values_and_objects_are_hidden_and_only_by_their_marks(
    canary: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_astray(canary)
    put_into_a_key(canary)
    run = canary.preview(diff=True)
    assert run.ok, run.output
    assert not seen(everything(canary, run))
    removals: list[Callable[[pytest.MonkeyPatch], None]] = [
        lambda patch: patch.setattr("components.release.marked", module.plain),
        lambda patch: patch.setattr(objects, "holds", lambda text, secrets: False),
        lambda patch: patch.setattr(objects, "_marked", show_secrets_only),
        lambda patch: patch.setattr(module, "_in_base64", lambda content: iter(())),
    ]
    for remove in removals:
        with monkeypatch.context() as patch:
            module._finders.cache_clear()
            remove(patch)
            run = canary.preview(diff=True)
            assert seen(run.output + run.events), run.output
    module._finders.cache_clear()


def test_the_failure_report_is_masked_and_only_by_the_mask(
    canary: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = tmp_path / "report.txt"
    monkeypatch.setenv("RELEASE_REPORT_FILE", str(report))
    monkeypatch.setattr(rollout, "mask", unmasked)
    monkeypatch.setattr(rollout.Watch, "look", looking(canary, rollout.Watch.look))
    too_much(canary)
    run = canary.up()
    assert not run.ok
    assert seen(run.output)
    assert seen(report.read_text())


# -- day two ------------------------------------------------------------------------------------------


@pytest.fixture
def rollback_(canary: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, on a stack whose first revision had the credential among its open values."""
    config = yaml.safe_load(canary.config_file.read_text())["config"]["mern:values"]
    canary.configure(values={"mernServer": {"env": {"COPY": f"see {CANARY}", "LEVEL": "debug"}}})
    assert canary.up().ok
    canary.configure(values=None)
    canary.configure(values=config)
    canary.set_secret("mern:awsSecretAccessKey", f"new-{CANARY}")
    assert canary.up().ok
    monkeypatch.chdir(canary.folder)
    monkeypatch.setenv("PATH", canary.cluster.env["PATH"])
    monkeypatch.setattr("builtins.input", lambda _: "n")
    history = record.history

    def with_a_failure(*given: Any) -> list[record.Record]:
        found = history(*given)
        said = f"Upgrade failed: {json.dumps(URI)}"
        return [replace(found[0], revision=0, status="failed", description=said), *found]

    monkeypatch.setattr(record, "history", with_a_failure)

    def run(*arguments: str) -> int:
        return main(["rollback", *arguments, "--stack", canary.stack], lambda _: canary.open())

    return run


def test_a_rollback_shows_and_leaves_nothing_and_only_by_its_masks(
    canary: Project,
    rollback_: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    written: list[str] = []
    write = rollback._write

    def writing(file: Path, text: str) -> None:
        written.append(text)
        write(file, text)

    monkeypatch.setattr(rollback, "_write", writing)
    capfd.readouterr()

    assert rollback_() == 0
    assert rollback_("0") == 1
    assert rollback_("1") == 1  # declined

    said = "".join(capfd.readouterr())
    assert "Upgrade failed" in said
    assert "+ mern:values.mernServer.env" in said
    assert "today's are kept: mern:awsSecretAccessKey\n" in said
    assert "a credential stands there: mern:values.mernServer.env.COPY" in said
    assert not seen("\n".join([said, *written]))
    with monkeypatch.context() as patch:
        patch.setattr(rollback, "_is_secret", lambda *_: False)
        rollback_("1")
        assert seen("\n".join(written))
        assert not seen("".join(capfd.readouterr()))
    for command in ([], ["0"]):
        with monkeypatch.context() as patch:
            patch.setattr(rollback, "mask", unmasked)
            rollback_(*command)
            assert seen("".join(capfd.readouterr()))
    written.clear()

    assert rollback_("1", "--yes") == 0

    assert "has the config of revision 1" in capfd.readouterr().out
    assert "LEVEL: debug" in canary.config_file.read_text()
    assert not seen("\n".join([canary.config_file.read_text(), canary.raw_state(), *written]))


def test_values_files_are_moved_without_it_and_only_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack_file, old, broken = (tmp_path / name for name in ("Pulumi.staging.yaml", "old.yaml", "broken.yaml"))
    env = {
        "DB_PASSWORD": CANARY,
        "CACHE": f"redis://:{quote(CANARY)}@cache.invalid",
        "API_TOKEN": base64.b64encode(URI.encode()).decode(),
        "LOG": "debug",
    }
    server = {"replicaCount": 2, "mongodbUri": URI, "jwtSecret": OTHER, "env": env}
    script = {"aws": {"accessKeyId": PARTS["mern:awsAccessKeyId"], "secretAccessKey": CANARY}}
    old.write_text(yaml.safe_dump({"mern-server": server, "python-script": script}))
    broken.write_text(f"mern-server:\n  jwtSecret: [{json.dumps(CANARY)}\n  mongodbUri: {json.dumps(URI)}\n")
    monkeypatch.chdir(tmp_path)

    def run(file: Path) -> str:
        stack_file.write_text("config:\n  mern:namespace: {name: shop}\n")
        main(["move", str(file), "--stack", "staging", "--write"])
        return "".join(capfd.readouterr()) + stack_file.read_text()

    moved = run(old)
    assert "replicas: 2" in moved
    assert "LOG: debug" in moved
    for path in ("mongodbUri", "jwtSecret", "env.DB_PASSWORD", "env.CACHE", "env.API_TOKEN"):
        assert f"mern-server.{path}" in moved, path
    assert not seen(moved)
    refused = run(broken)
    assert "error: " in refused
    assert not seen(refused)
    monkeypatch.setattr(old_values, "_is_credential", lambda *_: False)
    assert seen(run(old))


def test_what_the_engine_reports_is_hidden_from_comments_and_summaries_and_only_by_the_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = {
        "op": "update",
        "urn": f"urn:pulumi:staging::mern::x:y:Z::{CANARY}",
        "type": "x:y:Z",
        "provider": "",
        "old": {"type": "x:y:Z", "urn": "", "custom": True, "id": "1", "inputs": {"a": {CANARY: 1}}},
        "new": {"type": "x:y:Z", "urn": "", "custom": True, "id": "1", "inputs": {"a": [URI]}},
        "detailedDiff": {"a": {"diffKind": "update", "inputDiff": True}},
    }
    told = {"severity": "error", "color": "never", "prefix": "", "message": f"no {json.dumps(URI)}"}
    events = [
        EngineEvent.from_json({"sequence": 1, "timestamp": 1, "resourcePreEvent": {"metadata": step}}),
        EngineEvent.from_json({"sequence": 2, "timestamp": 1, "diagnosticEvent": told}),
    ]

    def written() -> str:
        run = engine.Run(command="up", ok=False, failure=f"locked by {CANARY}")
        engine.gather(run, events, [URI, CANARY])
        return "\n".join([report.comment(run, "staging"), report.summary(run, "staging"), repr(run)])

    assert "[secret]" in written()
    assert not seen(written())
    for name, without in (("mask", unmasked), ("plain", lambda value, _: value)):
        with monkeypatch.context() as patch:
            patch.setattr(engine, name, without)
            assert seen(written())


# -- what the engine is not needed for ----------------------------------------------------------------


def test_a_foreign_failure_that_quotes_an_old_credential_is_masked() -> None:
    values = {"a": {"uri": SecretStr(URI), "keys": {"NEW": SecretStr("new-canary")}}}
    recorded = {"a": {"uri": f"old-{CANARY}", "keys": {"GONE": OTHER}, "tag": "1"}, "b": MARK}
    secrets = module.secrets_of(values, recorded)
    assert set(secrets) == {URI, "new-canary", f"old-{CANARY}", OTHER}
    message = f"Upgrade failed: Invalid value: {json.dumps(OTHER)}, not {json.dumps('old-' + CANARY)}"
    assert module.mask(message, secrets).count("[secret]") == 2
    assert not seen(module.mask(message, secrets))


class ByHand:
    """An API server in which somebody has put the canary into two objects."""

    def __init__(self) -> None:
        data = {"URI": base64.b64encode(URI.encode()).decode()}
        self.recorded = [
            {
                "kind": "Deployment",
                "metadata": {"name": "web"},
                "spec": {"env": [{"name": "A", "value": "1"}]},
            },
            {"kind": "Secret", "metadata": {"name": "web"}, "data": {"URI": "b2xk"}},
        ]
        self.live: dict[str, Any] = {
            "deployment": {
                "spec": {"env": [{"name": "A", "value": URI}], "args": [URI]},
                "metadata": {"name": "web"},
            },
            "secret": {"data": data, "metadata": {"name": "web"}},
        }

    def collection(self, item: Mapping[str, Any], _: str) -> str:
        return str(item["kind"]).lower()

    def get(self, path: str) -> Any:
        kind = path.partition("/")[0]
        return {"kind": kind.capitalize(), **self.live[kind]}

    def merge_patch(self, path: str, patch: Any, **_: str) -> Any:
        return patch


def test_a_change_by_hand_is_named_without_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ByHand()

    def texts(secrets: list[str]) -> str:
        return "\n".join(drift.find(fake, fake.recorded, "shop", secrets).texts())

    found = texts([URI])
    assert "Deployment web: spec.env[A].value is [value], not [value]" in found
    assert 'Deployment web: spec.args is ["[secret]"], not nothing' in found
    assert "Secret web: data.URI is [secret], not [secret]" in found
    assert not seen(found)
    with monkeypatch.context() as patch:
        patch.setattr(drift, "mask", unmasked)
        assert seen(texts([URI]))
    assert MARK not in texts([URI]).replace(CANARY, "")
    monkeypatch.setattr(drift, "_without_variables", lambda value, _=False: value)
    fake.live["deployment"]["spec"]["env"] = [{"name": "A", "value": MARK}, {"name": "B", "value": MARK}]
    assert seen(texts([]))


def test_what_a_release_of_somebody_else_holds_is_never_in_its_comparison() -> None:
    uri = base64.b64encode(URI.encode()).decode()
    manifest = f"""
{{apiVersion: v1, kind: Secret, metadata: {{name: web}}, data: {{URI: {uri}}}, stringData: {{KEY: {MARK}}}}}
---
{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{command: {json.dumps(CANARY)}}}}}
"""
    old = record.Record(
        name="web",
        namespace="shop",
        revision=1,
        status="deployed",
        description="",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        values={"password": CANARY, "uri": {"of": URI}},
        manifest=manifest,
    )
    assert set(adoption.secrets_in(old)) == {URI, MARK}
    notes = "\n".join(adoption.compare(old, [], {}))
    assert "deleted: Deployment web, Secret web" in notes
    assert "values given there and not by this stack: password, uri.of" in notes
    assert not seen(notes)


class Refusing:
    """An API server that quotes the credential in whatever it answers."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def collection(self, *_: Any) -> str:
        if isinstance(self.error, UnknownKindError):
            raise self.error
        return "webs"

    def get(self, *_: Any, **__: Any) -> Any:
        raise self.error

    create = merge_patch = items = now = get


QUOTED = f"no {json.dumps(URI)} nor {CANARY}"
CAUSES = [{"field": f"data[{CANARY}]", "message": QUOTED}]
ANSWERS = {
    "refuses": ApiError(422, {"message": QUOTED}),
    "refuses fields": ApiError(422, {"message": QUOTED, "details": {"causes": CAUSES}}),
    "has a dead webhook": ApiError(500, {"message": f"failed calling webhook: {QUOTED}"}),
    "is in trouble": ApiError(503, {"message": QUOTED}),
    "does not know the kind": UnknownKindError(QUOTED),
    "cannot be reached": UnreachableError(QUOTED),
    "is not understood": ValueError(QUOTED),
}


def hooks_of(server: Any, *restored: drift.Drift) -> Any:
    return rollout.Rollout(
        api=server,
        name="web",
        namespace="shop",
        objects=[],
        restored=restored,
        secrets=[URI, CANARY],
        timeout=1,
        unlock_revision=None,
        unlock_command="",
        adopt_command="",
        component=Mock(),
    )


def told(hooks: Any, question: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a hook that asks this question shows, in an `up`."""
    lines: list[str] = []
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_: lines.append(text))
    try:
        asyncio.run(hooks._ask(question))
    except rollout.RefusalError as refusal:
        lines.append(str(refusal))
    return "\n".join(lines)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_whatever_the_api_server_answers_does_not_show_it(
    answer: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Any = Refusing(answer)
    secrets = [URI, CANARY]
    item = {"apiVersion": "v1", "kind": "Web", "metadata": {"name": f"web-{CANARY}"}}
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", values={"uri": SecretStr(URI)})
    hooks = hooks_of(server, drift.Drift(item=item, texts=[], patch={"a": 1}))
    monkeypatch.setattr(release.chart, "describe", lambda _: "web 1.0.0 (files 0123456789abcdef)")
    monkeypatch.setattr(release.chart, "render", lambda *_: [item])
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    asked = dry_run.ask(server, [item], [], "web", "shop", secrets)
    found = drift.find(server, [item], "shop", secrets)
    try:
        planned = release.plan_release(args, Mock(), server).notes
    except ChartError as refusal:
        planned = [str(refusal)]

    shown = [
        *(asked.refusals + asked.unchecked),
        *found.unchecked,
        *planned,
        told(hooks, hooks._refuse_a_taken_name, monkeypatch),
    ]
    with pytest.raises(rollout.RefusalError) as refused:
        hooks._put_back()
    shown += [str(refused.value), module.mask(hooks._report(QUOTED), secrets)]

    assert all(shown[:4]), shown
    assert seen(str(answer))
    assert not seen("\n".join(shown))


def test_a_revision_whose_description_quotes_it_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = record.Record(
        name="web",
        namespace="shop",
        revision=3,
        status="deployed",
        description=QUOTED,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        values={},
        manifest="",
    )
    monkeypatch.setattr(record, "newest", lambda *_: there)
    hooks = hooks_of(Mock())
    assert "revision 3 (no" in told(hooks, hooks._refuse_a_taken_name, monkeypatch)
    assert not seen(told(hooks, hooks._refuse_a_taken_name, monkeypatch))
    monkeypatch.setattr(rollout, "mask", unmasked)
    assert seen(told(hooks, hooks._refuse_a_taken_name, monkeypatch))


@pytest.mark.parametrize(
    "quoted",
    [
        str,
        json.dumps,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: json.dumps(text, ensure_ascii=False).replace("<", r"\u003c").replace("&", r"\u0026"),
        lambda text: text.replace("'", "''"),
        lambda text: "\n    | ".join(text.split("\n")),
        html.escape,
        quote,
        quote_plus,
        lambda text: quote(quote(text)),
        lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="!'()*")),
    ],
)
@pytest.mark.parametrize("secret", [URI, OTHER, CANARY])
def test_no_way_of_quoting_hides_it_from_the_mask(quoted: Callable[[str], str], secret: str) -> None:
    assert not seen(module.mask(f"see {quoted(secret)} there", [secret]))
    assert module.holds(quoted(secret), [secret])
    for before in ("", "a", "ab"):
        encoded = base64.b64encode((before + secret + "c").encode()).decode()
        assert not seen(module.mask(f"see {encoded} there", [secret]))


def test_a_short_secret_does_not_hide_the_rest_of_a_text() -> None:
    assert module.mask("replicas: 1", ["1"]) == "replicas: 1"


@pytest.mark.parametrize(
    "key", ["mongodbUri", "serverSecrets", "awsAccessKeyId", "values", "release", "nosuchkey"]
)
def test_no_fault_of_the_config_quotes_it(key: str) -> None:
    for text in (CANARY, json.dumps(CANARY), json.dumps([CANARY]), json.dumps({"timeout": CANARY, "1": URI})):
        with pytest.raises(pulumi.RunError) as fault:
            Settings.parse({key: text}, set(), "staging")
        assert not seen(str(fault.value))
