"""A credential with every character that quoting changes is masked wherever a text is shown, and only the
mask hides it. What the real engine shows and leaves is looked at in tests/engine."""

import asyncio
import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote, quote_plus

import pulumi
import pytest
import yaml
from pulumi.automation import ConfigValue
from pulumi.automation.events import EngineEvent
from pydantic import SecretStr

from components.release import (
    Api,
    ChartError,
    ReleaseArgs,
    ReleaseError,
    ReleasePlan,
    StackState,
    adoption,
    chart,
    drift,
    plan_release,
    record,
    rows,
)
from components.release import secrets as module
from components.release.failure_report import failure_report
from components.release.findings import Finding, texts_of
from components.release.hooks import Hooks
from components.release.kubernetes_api import ApiError, UnknownKindError, UnreachableError
from components.release.secrets import Messages, Secrets
from operations import credentials, stack, stack_file
from operations.__main__ import main
from operations.ci import engine, report
from operations.rollback import history, restored_config
from settings import Settings
from tests.canary import CANARY, MARK, OTHER, PARTS, URI, seen
from tests.unit.test_operations_report import recorded


def open_the_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Secrets, "mask", lambda _, text: text)


@pytest.fixture(autouse=True)
def _no_memory_of_other_masks() -> Iterator[None]:
    yield
    module._finders.cache_clear()


# -- what Pulumi is given -----------------------------------------------------------------------------


def open_texts(value: Any) -> str:
    """All that is not marked as a secret of Pulumi, keys among it."""
    match value:
        case pulumi.Output():
            return ""
        case Mapping() if rows.SECRET.items() <= value.items():
            return ""
        case Mapping():
            return "\n".join(f"{key} {open_texts(item)}" for key, item in value.items())
        case list():
            return "\n".join(map(open_texts, value))
    return str(value)


def astray() -> list[dict[str, Any]]:
    """Objects of a chart that puts it where it does not belong."""
    inner = base64.b64encode(OTHER.encode()).decode()
    meta = {"name": "astray", "labels": {"helm.sh/chart": "web-1"}}
    data = {
        "plain": CANARY,
        "amid": f"user:{CANARY}@host",
        "json": json.dumps({"uri": URI, "keys": [CANARY, OTHER]}),
        "url": f"https://x/?k={quote_plus(CANARY)}",
        "base64": base64.b64encode(f"user:{CANARY}".encode()).decode(),
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "key", "annotations": {inner: "key"}}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own"}, "data": {"A": inner}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"args": [URI]}},
    ]


def show_secrets_only(item: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    return dict(item) if item["kind"] == "Secret" else {}


def test_objects_and_values_are_hidden_and_only_by_their_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def shown() -> str:  # an Output wants a loop
        return open_texts([rows._marked(item, Secrets([URI, CANARY, OTHER])) for item in astray()])

    found = asyncio.run(shown())
    assert "ConfigMap" in found
    assert not seen(found)
    removals: list[tuple[Any, str, Any]] = [
        (Secrets, "holds", lambda *_: False),
        (rows, "_marked", show_secrets_only),
        (module, "_in_base64", lambda content: iter(())),
    ]
    for owner, name, without in removals:
        with monkeypatch.context() as patch:
            module._finders.cache_clear()
            patch.setattr(owner, name, without)
            assert seen(asyncio.run(shown())), name
    module._finders.cache_clear()

    async def values(mark: Callable[[Any], Any]) -> str:
        given = {"uri": SecretStr(URI), "keys": [SecretStr(CANARY)], "replicas": 2}
        return open_texts(mark(given))

    assert "replicas 2" in asyncio.run(values(module.marked))
    assert not seen(asyncio.run(values(module.marked)))
    assert seen(asyncio.run(values(module.opened)))


def test_a_row_is_named_after_its_object_whatever_the_secrets_are() -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mern-client"}}
    secrets = Secrets(["mern", "client"])
    [row] = rows.requests([item], "urn", "mern", "shop", secrets)
    assert row.name == "mern/shop/mern-client"


NAMED = {"kind": "Service", "metadata": {"name": "shop-api", "labels": {"app": "shop-api-0a1b2c3d"}}}
KEPT_IN = {"kind": "Secret", "metadata": {"name": "own"}, "data": {"A": ""}}


def a_chart(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a chart renders that puts one secret where it belongs, and one also where it does not."""
    host, token = (values[key].get_secret_value() for key in ("host", "token"))
    data = {"A": base64.b64encode(host.encode()).decode()}
    map_ = {"kind": "ConfigMap", "metadata": {"name": "astray"}, "data": {"token": token, "see": "shop-api"}}
    return [
        {"apiVersion": "v1", **item}
        for item in (NAMED, {**KEPT_IN, "stringData": {"T": token}, "data": data}, map_)
    ]


def planned(
    monkeypatch: pytest.MonkeyPatch, host: str, recorded: Mapping[str, Any], **changes: Any
) -> tuple[ReleasePlan, int]:
    """The plan of a release of that chart, and how often it was rendered for it."""
    renderings = []

    def render(*given: Any, **_: Any) -> list[dict[str, Any]]:
        values = given[3]
        renderings.append(values)
        return changes.get("render", a_chart)(values)

    server = Mock(spec=Api)
    server.find.return_value = None
    newest = record.Record(
        name="shop",
        namespace="shop",
        revision=1,
        status="deployed",
        description="",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        values=recorded,
        manifest="",
    )
    monkeypatch.setattr(record, "newest", lambda *_: newest)
    monkeypatch.setattr(chart.Chart, "description", "web 1.0.0 (files 0123456789abcdef)")
    monkeypatch.setattr(chart, "render", render)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    values = {"host": SecretStr(host), "token": SecretStr(f"token-{MARK}")}
    args = ReleaseArgs(
        chart="./chart", name="shop", namespace="shop", values=values, dry_run=False, drift="ignore"
    )
    urn = "urn:pulumi:test::mern::helm:index:ChartRelease$kubernetes:helm.sh/v3:Release::shop"
    state = StackState({urn: {"name": args.name, "namespace": args.namespace}})
    return plan_release(args, Mock(), server, state), len(renderings)


@pytest.mark.parametrize("host", ["shop-api", "shop-api-0a1b2c3d"])
def test_what_the_chart_says_without_a_secret_too_is_none(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    plan, renderings = planned(monkeypatch, host, {"host": "of-old-times"})

    assert renderings == 2
    assert plan.secrets.mask("Service shop-api") == "Service shop-api"
    assert plan.secrets.mask(f"of-old-times token-{MARK}") == "[secret] [secret]"
    [note] = [note for note in plan.notes if "too short or too common" in note]
    assert note.startswith("1 secret is")
    assert host not in note
    assert [rows._marked(item, plan.secrets) for item in plan.objects if item["kind"] == "Service"] == [
        item for item in plan.objects if item["kind"] == "Service"
    ]


def test_a_secret_that_is_gone_hides_nothing_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, renderings = planned(monkeypatch, "of-new-times", {"host": "shop-api"})
    assert plan.secrets.mask("Service shop-api") == "Service shop-api"
    assert renderings == 2  # for the token in the ConfigMap


def test_a_secret_that_cannot_be_told_from_the_charts_own_texts_is_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strict(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        if values["host"].get_secret_value() != "shop-api":
            raise ChartError("this chart takes no other host")
        return a_chart(values)

    plan, _ = planned(monkeypatch, "shop-api", {}, render=strict)
    assert plan.secrets.mask("Service shop-api") == "Service [secret]"


# -- day two ------------------------------------------------------------------------------------------


class Rollback:
    """The command, on a stack whose first revision had the credential among its open values."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "Pulumi.shop.yaml"
        self.file.write_text("config:\n  mern:values:\n    mernClient:\n      replicas: 3\n")
        self.written: list[str] = []
        (folder / "chart").mkdir()
        (folder / "chart/Chart.yaml").write_text("{name: mern, version: 0.1.0}")
        monkeypatch.chdir(folder)
        monkeypatch.setattr("builtins.input", lambda _: "n")
        monkeypatch.setattr(history, "connect", lambda *_: (None, "shop"))
        revisions = self.history(chart.load("chart").description)
        monkeypatch.setattr(record, "history", lambda *_: revisions)
        monkeypatch.setattr(
            engine, "run", lambda _, command, __: engine.Run(command=command, ok=True, changed=True)
        )
        self.stack = stack.open_stack("shop")
        words = {"LOG": "debug"}  # which the level of the first revision is too, and no credential
        parts = {**PARTS, "mern:serverSecrets": json.dumps(json.loads(PARTS["mern:serverSecrets"]) | words)}
        config = {key: ConfigValue(text, secret=True) for key, text in parts.items()}
        monkeypatch.setattr(self.stack, "get_all_config", lambda: config)
        edit = stack_file.edit

        def editing(*given: Any) -> None:
            edit(*given)
            self.written.append(self.file.read_text())

        monkeypatch.setattr(stack_file, "edit", editing)

    def history(self, ours: str) -> list[record.Record]:
        first = {
            "mernServer": {
                "mongodbUri": URI,
                "secrets": {"KEY": OTHER},
                "env": {"COPY": f"see {CANARY}", "LEVEL": "debug"},
            },
            "pythonScript": {"mongodbUri": URI, "awsSecretAccessKey": f"old-{CANARY}"},
        }
        texts = [f"Upgrade failed: {json.dumps(URI)}", ours, ours]
        states = ["failed", "superseded", "deployed"]
        return [
            record.Record(
                name="mern",
                namespace="shop",
                revision=number,
                status=states[number],
                description=texts[number],
                created=datetime(2026, 1, 1, tzinfo=UTC),
                values=first if number == 1 else {"mernServer": {"mongodbUri": URI}},
                manifest="",
            )
            for number in range(3)
        ]

    def __call__(self, *arguments: str) -> int:
        self.written.clear()
        return main(["rollback", *arguments, "--stack", "shop"], lambda _: self.stack)


def test_a_rollback_shows_and_writes_nothing_and_only_by_its_masks(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rolled_back = Rollback(project, monkeypatch)

    assert rolled_back() == 0
    assert rolled_back("0") == 1  # it failed
    assert rolled_back("1") == 1  # declined

    said = "".join(capsys.readouterr())
    assert "Upgrade failed" in said
    assert '+ mern:values.mernServer: {"env": {"LEVEL": "debug"}}' in said
    assert "today's are kept: mern:awsAccessKeyId, mern:awsSecretAccessKey, mern:serverSecrets" in said
    assert "a credential stands there: mern:values.mernServer.env.COPY" in said
    assert any("LEVEL: debug" in text for text in rolled_back.written)
    assert not seen("\n".join([said, *rolled_back.written]))
    with monkeypatch.context() as patch:
        patch.setattr(restored_config, "_is_secret", lambda *_: False)
        rolled_back("1")
        assert seen("\n".join(rolled_back.written))
        assert not seen("".join(capsys.readouterr()))
    for command in ([], ["0"]):
        with monkeypatch.context() as patch:
            open_the_doors(patch)
            rolled_back(*command)
            assert seen("".join(capsys.readouterr()))

    assert rolled_back("1", "--yes") == 0
    assert "LEVEL: debug" in rolled_back.file.read_text()
    assert not seen("".join(capsys.readouterr()) + rolled_back.file.read_text())


def test_values_files_are_moved_without_it_and_only_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file_of_stack, old, broken = (
        project / name for name in ("Pulumi.staging.yaml", "old.yaml", "broken.yaml")
    )
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

    def run(file: Path) -> str:
        file_of_stack.write_text("config:\n  mern:namespace: {name: shop}\n")
        main(["move", str(file), "--stack", "staging", "--write"])
        return "".join(capfd.readouterr()) + file_of_stack.read_text()

    moved = run(old)
    assert "replicas: 2" in moved
    assert "LOG: debug" in moved
    for path in ("mongodbUri", "jwtSecret", "env.DB_PASSWORD", "env.CACHE", "env.API_TOKEN"):
        assert f"mern-server.{path}" in moved, path
    assert not seen(moved)
    refused = run(broken)
    assert "error: " in refused
    assert not seen(refused)
    monkeypatch.setattr(credentials, "is_credential", lambda *_: False)
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
        engine.gather(run, events, Secrets([URI, CANARY]))
        return "\n".join([report.comment(run, "staging"), report.summary(run, "staging"), repr(run)])

    assert "[secret]" in written()
    assert not seen(written())
    with monkeypatch.context() as patch:
        open_the_doors(patch)
        assert seen(written())
    monkeypatch.setattr(engine, "redact", lambda value, _: value)
    assert seen(written())


@pytest.mark.parametrize("events", ["preview-change", "up-fails"])
def test_a_comment_does_not_depend_on_secrets_that_say_what_other_texts_say(events: str) -> None:
    words = {"RELEASE": "mern", "OBJECT": "mern-server", "NUMBER": "2", "STACK": "staging"}
    without, given = recorded(events), recorded(events, **words)
    assert report.comment(given, "staging") == report.comment(without, "staging")
    assert "mern-server" in report.comment(given, "staging")


# -- what others say and have done ---------------------------------------------------------------------


def test_a_foreign_failure_that_quotes_an_old_credential_is_masked() -> None:
    values = {"a": {"uri": SecretStr(URI), "keys": {"NEW": SecretStr("new-canary")}}}
    recorded = {"a": {"uri": f"old-{CANARY}", "keys": {"GONE": OTHER}, "tag": "1"}, "b": MARK}
    secrets = Secrets.of_values(values, recorded)
    assert len(secrets) == 4
    assert all(secrets.holds(text) for text in (URI, "new-canary", f"old-{CANARY}", OTHER))
    message = f"Upgrade failed: Invalid value: {json.dumps(OTHER)}, not {json.dumps('old-' + CANARY)}"
    assert secrets.mask(message).count("[secret]") == 2
    assert not seen(secrets.mask(message))
    assert not seen(repr(secrets))


class ByHand:
    """An API server in which somebody has put the canary into two objects."""

    def __init__(self) -> None:
        data = {"URI": base64.b64encode(URI.encode()).decode()}
        self.recorded = [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "web"},
                "spec": {"env": [{"name": "A", "value": "1"}]},
            },
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "data": {"URI": "b2xk"}},
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

    def get(self, path: str, **_: str) -> Any:
        kind = path.partition("/")[0]
        return {"kind": kind.capitalize(), **self.live[kind]}

    find, path = Api.find, Api.path

    def merge_patch(self, path: str, patch: Any, **_: str) -> Any:
        return patch


def test_a_change_by_hand_is_named_without_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ByHand()

    def texts(secrets: list[str]) -> str:
        return "\n".join(texts_of(drift.find(fake, fake.recorded, "shop", Secrets(secrets))))

    found = texts([URI])
    assert "Deployment web: spec.env[A].value is [value], not [value]" in found
    assert 'Deployment web: spec.args is ["[secret]"], not nothing' in found
    assert "Secret web: data.URI is [secret], not [secret]" in found
    assert not seen(found)
    with monkeypatch.context() as patch:
        open_the_doors(patch)
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
    secrets = Secrets.of_objects(old.objects())
    assert secrets.holds(URI)
    assert secrets.holds(MARK)
    notes = "\n".join(adoption.compare(None, old, [], {}))
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

    create = merge_patch = items = now = find = get
    path = Api.path


QUOTED = f"no {json.dumps(URI)} nor {CANARY}"
CAUSES = [{"field": f"data[{CANARY}]", "message": QUOTED}]
ANSWERS = {
    "refuses": ApiError(422, {"message": QUOTED}),
    "refuses fields": ApiError(422, {"message": QUOTED, "details": {"causes": CAUSES}}),
    "has a dead webhook": ApiError(500, {"message": f"failed calling webhook: {QUOTED}"}),
    "is in trouble": ApiError(503, {"message": QUOTED}),
    "does not know the kind": UnknownKindError(QUOTED),
    "cannot be reached": UnreachableError(QUOTED),
}


def plan_of(server: Any, *drifts: Finding) -> ReleasePlan:
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", timeout=1, drift="restore")
    rendered = [dict(finding.item) for finding in drifts]
    secrets = Secrets([URI, CANARY])
    return ReleasePlan(
        args=args, api=server, description="", objects=rendered, secrets=secrets, drifts=list(drifts)
    )


def hooks_of(plan: ReleasePlan) -> Hooks:
    hooks = Hooks(plan)
    hooks.show_on(Mock())
    return hooks


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user sees of an `up`."""
    lines: list[str] = []
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    for level in ("info", "warn", "error"):
        monkeypatch.setattr(pulumi.log, level, lambda text, *_, **__: lines.append(text))
    return lines


def told(hooks: Hooks, question: Callable[[], Any], logged: list[str]) -> str:
    """What a hook that asks this question shows."""
    logged.clear()
    try:
        asyncio.run(hooks._ask(question))
    except ReleaseError as refusal:
        logged.append(str(refusal))
    return "\n".join(logged)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_whatever_the_api_server_answers_does_not_show_it(
    answer: Exception, monkeypatch: pytest.MonkeyPatch, logged: list[str], tmp_path: Path
) -> None:
    server: Any = Refusing(answer)
    item = {"apiVersion": "v1", "kind": "Web", "metadata": {"name": f"web-{CANARY}"}}
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", values={"uri": SecretStr(URI)})
    monkeypatch.setattr(chart.Chart, "description", "web 1.0.0 (files 0123456789abcdef)")
    monkeypatch.setattr(chart, "render", lambda *_, **__: [item])

    def all_that_is_shown() -> list[str]:
        hooks = hooks_of(plan_of(server, Finding(item=item, patch={"a": 1})))
        shown = [told(hooks, hooks._require_release_exists, logged)]
        with monkeypatch.context() as patch:
            patch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
            try:
                plan = plan_release(args, Mock(), server, StackState())
            except ReleaseError as refusal:
                shown.append(str(refusal))
            else:
                logged.clear()
                for note in plan.notes:
                    Messages(plan.secrets, Mock()).info(note)
                shown += logged
        with pytest.raises(ReleaseError) as refused:
            hooks._put_back()
        report = failure_report(plan_of(server), [], QUOTED)
        messages = Messages(Secrets([URI, CANARY]), Mock())
        messages.write(tmp_path / "report", report)
        messages.error(report)
        return [*shown, str(refused.value), (tmp_path / "report").read_text(), logged[-1]]

    shown = all_that_is_shown()
    assert all(shown), shown
    assert seen(str(answer))
    assert not seen("\n".join(shown))
    open_the_doors(monkeypatch)
    assert all(map(seen, all_that_is_shown())), "something else hides it than the doors"


def test_a_revision_whose_description_quotes_it_is_named_without_it(
    monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
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
    monkeypatch.setattr(chart.Chart, "description", "web 1.0.0 (files 0123456789abcdef)")
    monkeypatch.setattr(chart, "render", lambda *_, **__: [])
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", values={"uri": SecretStr(URI)})

    def refusal() -> str:
        with pytest.raises(ReleaseError) as refused:
            plan_release(args, Mock(), Mock(**{"find.return_value": {}}), StackState())
        return str(refused.value)

    assert "revision 3 (no" in refusal()
    assert not seen(refusal())
    open_the_doors(monkeypatch)
    assert seen(refusal())


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
    assert not seen(Secrets([secret]).mask(f"see {quoted(secret)} there"))
    assert Secrets([secret]).holds(quoted(secret))
    for before in ("", "a", "ab"):
        encoded = base64.b64encode((before + secret + "c").encode()).decode()
        assert not seen(Secrets([secret]).mask(f"see {encoded} there"))


PUBLIC = "Deployment mern-client mern-client:v1.4.2-0a1b2c3d shop.example.com production eu-central-1"


@pytest.mark.parametrize(
    ("secret", "is_masked"),
    [
        # a character, a number, a common word, too short to be told from a part of a word
        ("1", False),
        ("27017", False),
        ("mern", False),
        ("info", False),
        ("True", False),
        ("1.4.2", False),
        # what names, images, hosts and regions say
        ("mern-client", False),
        ("v1.4.2-0a1b2c3d", False),
        ("shop.example.com", False),
        ("production", False),
        ("eu-central-1", False),
        # what nothing else says, or has the form of a credential
        ("hunter2", True),
        ("sunshine", True),
        ("4711081512", True),
        ("mern-client-2", True),
        ("mongodb://app:mern@shop.example.com/production", True),
        ("AKIAIOSFODNN7EXAMPLE", True),
    ],
)
def test_a_secret_is_masked_where_no_other_text_says_the_same(secret: str, is_masked: bool) -> None:
    secrets = Secrets([secret], PUBLIC)
    text = f"{PUBLIC} {secret}"
    assert secrets.mask(text) == (f"{PUBLIC} [secret]" if is_masked else text)
    assert secrets.not_sought == (0 if is_masked else 1)
    assert (secrets | Secrets([CANARY])).mask(text) == secrets.mask(text)


def test_the_form_of_a_credential_is_masked_wherever_it_stands() -> None:
    for secret in (URI, OTHER, "AKIAIOSFODNN7EXAMPLE", f"{MARK}0123456789{MARK}0123456789"):
        assert Secrets([secret], f"a copy of {secret} in plain values").mask(secret) == "[secret]"


def test_the_longer_of_two_secrets_with_the_same_beginning_is_masked_as_a_whole() -> None:
    secrets = Secrets(["hunter2", "hunter2-and-more"])
    assert secrets.mask("hunter2-and-more, hunter2") == "[secret], [secret]"


def test_a_secret_with_half_a_character_is_masked_too() -> None:
    assert Secrets(["\ud800-and-more"]).mask(r"no \ud800-and-more") == "no [secret]"


def test_each_line_of_a_secret_is_masked_also_alone() -> None:
    lines = [base64.b64encode(MARK.encode() * 2 + bytes([at])).decode() for at in range(30)]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
    for text in (key, key.replace("\n", "\r\n")):
        log = "".join(f"    | {line}\n" for line in text.splitlines()[-10:])
        assert Secrets([text]).mask(log) == "    | [secret]\n" * 10
    assert Secrets(["{\n\n  no\n}"]).mask("no {}") == "no {}"


@pytest.mark.parametrize(
    "key", ["mongodbUri", "serverSecrets", "awsAccessKeyId", "values", "release", "nosuchkey"]
)
def test_no_fault_of_the_config_quotes_it(key: str) -> None:
    for text in (CANARY, json.dumps(CANARY), json.dumps([CANARY]), json.dumps({"timeout": CANARY, "1": URI})):
        with pytest.raises(pulumi.RunError) as fault:
            Settings.parse({key: text}, set(), "staging")
        assert not seen(str(fault.value))
