"""What a revision says of a stack's config, how often it is asked, and what stands against a rollback."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import automation as auto

from components.release import chart, record
from components.release.kubernetes_api import ApiError, UnreachableError
from components.release.record import Record
from components.release.secrets import Secrets
from components.service_account_role import ROLE_ANNOTATION
from operations import chart_history, stack_file
from operations.__main__ import main
from operations.ci import engine
from operations.rollback import rollback
from operations.rollback.history import ReleaseHistory
from operations.rollback.restored_config import RestoredConfig, restored_config
from operations.stack import open_stack
from sandbox.engine import PROJECT
from settings import IMAGE_TAG_VARIABLE

URI = "mongodb://app:made-up-password@mongo.example/mern"
OURS = "mern 0.1.0 (files 0123456789abcdef)"
STACK = """\
# Ours.
config:
  mern:cluster: {kubeconfig: nowhere, context: none} # by hand
  mern:namespace: {name: shop}
  mern:imageTag: "2.0" # by CI
  mern:values:
    # the client
    mernClient:
      replicas: 3 # of three zones
      resources: {requests: {cpu: 1}}
    ingress:
      hosts:
        - shop.example.com
      # no more
  mern:release:
    timeout: 60
"""


def revision(number: int = 1, description: str = OURS, status: str = "superseded", **values: Any) -> Record:
    return Record(
        name="mern",
        namespace="shop",
        revision=number,
        status=status,
        description=description,
        created=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        values=values,
        manifest="",
    )


def tags(client: Any, server: Any, script: Any) -> dict[str, Any]:
    parts = zip(("mernClient", "mernServer", "pythonScript"), (client, server, script), strict=True)
    return {part: {"image": {"tag": tag}} for part, tag in parts if tag is not None}


def history_of(*revisions: Record, **config: str) -> ReleaseHistory:
    return ReleaseHistory(
        name="shop",
        stack=None,
        config={f"mern:{key}": auto.ConfigValue(text, secret=True) for key, text in config.items()},
        api=None,  # type: ignore[arg-type]
        namespace="shop",
        revisions=list(revisions),
        secrets=Secrets([URI]),
    )


def restored(then: Record, newest: Record | None = None, **config: Any) -> RestoredConfig:
    own = {f"mern:{key}": value for key, value in config.items()}
    return restored_config(then, history_of(then, newest or then), own)


def back(then: Record, newest: Record | None = None, **config: Any) -> dict[str, Any]:
    return restored(then, newest, **config).config


def test_what_the_program_adds_is_taken_out_again() -> None:
    found = revision(
        mernServer={"mongodbUri": URI, "secrets": {"JWT": "x"}, "existingSecretChecksum": "1", "replicas": 2},
        pythonScript={
            "mongodbUri": URI,
            "awsAccessKeyId": "x",
            "awsSecretAccessKey": "x",
            "serviceAccount": {"annotations": {ROLE_ANNOTATION: "arn:aws:iam::111111111111:role/script"}},
        },
    )
    assert back(found) == {"mern:values": {"mernServer": {"replicas": 2}}}
    mine = {"pythonScript": {"serviceAccount": {"annotations": {ROLE_ANNOTATION: "of my own"}}}}
    kept = back(found, values=mine)["mern:values"]["pythonScript"]
    assert kept["serviceAccount"]["annotations"][ROLE_ANNOTATION].endswith(":role/script")


def test_a_stack_file_is_read_as_the_engine_reads_it(folder: Path) -> None:
    """So the real command line has answered: `pulumi config --json` over this file."""
    more = "p: [on, off], r: True, s: 1:30, 5: x, true: z, i: 2024-11-24"
    words = "a: 22:30, b: 1e3, c: yes, d: 1.0, e: 0o17, f: 1_000, g: 08, h: 010, k: =, l: 0x1f, m: .5, o: y"
    (folder / "Pulumi.shop.yaml").write_text(f"config: {{'mern:values': {{{words}, {more}}}}}")
    engines: dict[str, Any] = {
        "a": "22:30",
        "b": 1000,
        "c": "yes",
        "d": 1,
        "e": 15,
        "f": 1000,
        "g": 8,
        "h": 8,
    }
    engines |= {"k": "=", "l": 31, "m": 0.5, "o": "y", "p": ["on", "off"], "r": True, "s": "1:30"}
    engines |= {"5": "x", "true": "z", "i": "2024-11-24"}
    file = stack_file.read("shop")
    assert restored_config(revision(**engines), history_of(revision(**engines)), file.config).changes == []


@pytest.mark.parametrize(
    ("then", "own", "image_tag", "left"),
    [
        (tags("1", "1", "1"), {}, "1", {}),
        (tags("1", "1", "1"), tags(None, None, "2"), "1", {}),
        (tags("1", "1", "0"), tags(None, None, "2"), "1", tags(None, None, "0")),
        (tags("1", "2", "3"), {}, None, tags("1", "2", "3")),
        (tags("1", "1", None), {}, None, tags("1", "1", "")),
        (tags("1", "1", None), tags(None, None, "2"), "1", tags(None, None, "")),
        (tags(None, None, None), {}, None, tags("", "", "")),
        (tags("a b", "a b", "a b"), {}, None, tags("a b", "a b", "a b")),
    ],
)
def test_image_tags_go_where_they_have_their_place(
    then: dict[str, Any], own: dict[str, Any], image_tag: str | None, left: dict[str, Any]
) -> None:
    found = back(revision(**then), revision(2, **tags("9", "9", "9")), values=own)
    assert found.get("mern:imageTag") == image_tag
    assert found["mern:values"] == left


def test_a_credential_never_gets_into_the_stack_file() -> None:
    env = {"env": {"COPY": f"see {URI}", "LEVEL": "debug"}}
    found = revision(mernServer=env, legacy={"password": "pass-of-old"})
    own = {"mernServer": {"env": {"COPY": "none"}}}

    ours = restored(found, values=own)
    foreign = restored(replace(found, description="Upgrade complete"), values=own)

    assert ours.config["mern:values"]["mernServer"]["env"] == {"COPY": "none", "LEVEL": "debug"}
    assert ours.kept == ["mern:values.mernServer.env.COPY"]
    assert "legacy" not in foreign.config["mern:values"]
    assert foreign.kept == [*ours.kept, "mern:values.legacy.password"]


def test_a_value_that_was_set_to_nothing_stays_where_helm_keeps_no_record_of_it() -> None:
    own = {"mernClient": {"replicas": None}}
    assert back(revision(), values=own) == {"mern:values": own}
    then = revision(2, mernClient={"replicas": None})
    assert back(revision(), then, values=own) == {"mern:values": {}}


# ---- what stands against it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.shop.yaml").write_text(STACK)
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart/Chart.yaml").write_text("{name: mern, version: 0.1.0}")
    return tmp_path


class Stack(SimpleNamespace):
    name = "shop"

    def get_all_config(self) -> dict[str, Any]:
        texts = {"mern:cluster": "{}", "mern:namespace": '{"name": "shop"}'}
        plain = {key: SimpleNamespace(value=text, secret=False) for key, text in texts.items()}
        return {**plain, "mern:mongodbUri": SimpleNamespace(value=URI, secret=True)}


def said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    history: list[Record] | Exception,
    *arguments: str,
) -> str:
    """The error of a rollback that never gets as far as to the engine."""

    def answer(*_: Any) -> list[Record]:
        if isinstance(history, Exception):
            raise history
        return history

    monkeypatch.setattr("operations.rollback.history.connect", lambda *_: (None, "shop"))
    monkeypatch.setattr(record, "history", answer)
    monkeypatch.setattr(engine, "run", None)
    before = Path("Pulumi.shop.yaml").read_text()
    assert main(["rollback", "--stack", "shop", *arguments], lambda _: Stack()) == 1
    assert Path("Pulumi.shop.yaml").read_text() == before
    text = capsys.readouterr().err
    assert URI not in text
    return text


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], "there is no release mern in namespace shop: nothing to roll back"),
        (
            UnreachableError(f"no route to host, {URI}"),
            "the revisions of stack shop cannot be read: no route to host",
        ),
        (
            ApiError(403, {"message": "forbidden"}),
            "the revisions of stack shop cannot be read: forbidden",
        ),
        ([revision(1), revision(3)], "Helm keeps no revision 2 of release mern.\n"),
        ([revision(2, status="failed", description=f"no {URI}")], "revision 2 is failed (no [secret]): only"),
        ([revision(2, status="pending-upgrade")], "revision 2 is pending-upgrade"),
        (
            [revision(2, description="Taken over by Pulumi: the objects of revision 1, …")],
            "revision 2 holds no values",
        ),
        ([revision(2, description="Upgrade complete")], "revision 2 was not deployed by this stack"),
        ([revision(2)], f"from other files of the chart: {OURS}, not mern 0.1.0 (files "),
        ([revision(2)], "No commit that Git has here has those files."),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    history: Any,
    expected: str,
) -> None:
    text = said(monkeypatch, capsys, history, "2")
    assert text.startswith("error: ")
    assert expected in text


def test_credentials_that_were_others_are_named() -> None:
    def others(then: Record, newest: Record, **config: str) -> list[str]:
        return rollback.changed_credentials(then, history_of(newest, **config))

    only_one = revision(mernServer={"mongodbUri": URI, "secrets": {"A": "1", "B": "2"}})
    assert others(only_one, only_one, mongodbUri=URI, serverSecrets='{"A": "1", "B": "2"}') == []
    assert others(only_one, only_one, mongodbUri="-", awsAccessKeyId="-", serverSecrets='{"B": "3"}') == [
        "mern:awsAccessKeyId",
        "mern:mongodbUri",
        "mern:serverSecrets.A",
        "mern:serverSecrets.B",
    ]
    role: dict[str, Any] = {"serviceAccount": {"annotations": {ROLE_ANNOTATION: "arn"}}}
    assert others(revision(), revision(2, pythonScript=role)) == ["mern:pythonScript"]


def test_a_tag_for_one_run_would_win(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(IMAGE_TAG_VARIABLE, "9")
    text = said(monkeypatch, capsys, [revision(2)], "2", "--chart-as-it-is")
    assert f"{IMAGE_TAG_VARIABLE} is set" in text


def test_a_stack_that_is_not_there_is_named_with_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "1", "--stack", "shopp"]) == 1
    assert "did you mean Pulumi.shop.yaml?" in capsys.readouterr().err


def test_the_revisions_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [
        revision(1, **tags("1", "1", "1")),
        revision(2, "Rollback to 1", **tags("2.0", "2.0", "2.0")),
        revision(3, f"it broke: {URI}", "failed"),
        revision(4, "Upgrade complete", "deployed", legacy={"token": "t"}),
    ]
    monkeypatch.setattr("operations.rollback.history.connect", lambda *_: (None, "shop"))
    monkeypatch.setattr(record, "history", lambda *_: history)
    monkeypatch.setattr(rollback, "_chart_now", lambda: OURS)

    assert main(["rollback", "--stack", "shop"], lambda _: Stack()) == 0

    assert capsys.readouterr().out == (
        "Revisions of release mern in namespace shop:\n"
        f"  1  2026-03-01 12:30 UTC  superseded  {OURS}\n"
        f"     differs from the stack file in: mern:imageTag, mern:values.mernClient, mern:values.ingress\n"
        "  2  2026-03-01 12:30 UTC  superseded  Rollback to 1\n"
        "     differs from the stack file in: mern:values.mernClient, mern:values.ingress\n"
        "  3  2026-03-01 12:30 UTC  failed  it broke: [secret]\n"
        "  4  2026-03-01 12:30 UTC  deployed  Upgrade complete\n"
        f"     differs from the stack file in: the chart's files, mern:imageTag, mern:values.mernClient, "
        "mern:values.ingress\n"
    )


def test_the_commit_of_a_chart_is_found_also_on_another_branch(folder: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    def commit(version: str) -> str:
        (folder / "chart/Chart.yaml").write_text(f"{{name: mern, version: {version}}}\r\n")
        git("add", "chart")
        git("commit", "--quiet", "--message", f"Version {version}")
        return chart.load("chart").description

    assert chart_history.commit_of(OURS) is None
    git("init", "--quiet")
    first = commit("1.0.0")
    git("checkout", "--quiet", "-b", "other")
    other = commit("2.0.0")
    git("checkout", "--quiet", "-")
    latest = commit("3.0.0")
    for described, subject in ((first, "1.0.0"), (other, "2.0.0"), (latest, "3.0.0")):
        found = chart_history.commit_of(described)
        assert found is not None
        assert found.subject == f"Version {subject}"
    assert chart_history.commit_of(OURS) is None


@pytest.mark.parametrize("answer", ["n", "y"])
def test_the_stack_is_opened_and_its_config_read_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    (project / "Pulumi.shop.yaml").write_text(STACK)
    shutil.copytree(PROJECT / "chart", project / "chart")
    ours = chart.load("chart").description
    stack = open_stack("shop")
    asked = list[str]()
    monkeypatch.setattr("operations.rollback.history.connect", lambda *_: (None, "shop"))
    monkeypatch.setattr(record, "history", lambda *_: [revision(1, ours), revision(2, ours, "deployed")])
    monkeypatch.setattr("builtins.input", lambda _: answer)
    read = stack.workspace.pulumi_command.run

    def run(arguments: list[str], *others: Any) -> Any:
        asked.append(" ".join(arguments[:2]))
        return read(arguments, *others)

    def deploy(_: Any, command: str, secrets: list[str]) -> engine.Run:
        asked.append(command)
        assert "3 # of three" not in (project / "Pulumi.shop.yaml").read_text()
        return engine.Run(command=command, ok=True, changed=True)

    monkeypatch.setattr(stack.workspace.pulumi_command, "run", run)
    monkeypatch.setattr(engine, "run", deploy)

    code = main(["rollback", "1", "--stack", "shop"], lambda _: stack)

    file = (project / "Pulumi.shop.yaml").read_bytes()
    read_and_edited = ["config --show-secrets", "config set-all", "config rm-all", "preview"]
    if answer == "n":
        assert (code, file) == (1, STACK.encode())
        assert asked == read_and_edited
    else:
        assert (code, b"mern:values: {}" in file) == (0, True)
        assert asked == [*read_and_edited, "up"]
