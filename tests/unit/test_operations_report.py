"""What a comment and a summary say, from events of the real engine.

`events/*.json` are what the engine reported of changes of this chart, without debug lines and what stayed
the same.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation as auto
from pulumi.automation.events import EngineEvent

from operations.__main__ import main
from operations.ci import engine, report
from operations.ci.engine import ResourceChange, Run

EVENTS = Path(__file__).parent / "events"
STACK = "staging"


class Recorded:
    """A stack that reports again what was recorded."""

    name = STACK

    def __init__(self, name: str, *more: dict[str, Any], secrets: dict[str, str] | None = None) -> None:
        self.events = json.loads((EVENTS / f"{name}.json").read_text()) + list(more)
        self.fails = any(event.get("summaryEvent", {}).get("result") == "failed" for event in self.events)
        self.secrets = secrets or {}

    def get_all_config(self) -> dict[str, auto.ConfigValue]:
        return {key: auto.ConfigValue(value, secret=True) for key, value in self.secrets.items()}

    def preview(self, **options: Any) -> Any:
        for event in self.events:
            options["on_event"](EngineEvent.from_json(event))
        if self.fails:
            raise auto.errors.CommandError("\n code: 255\n stdout: \n stderr: \n")
        return type("Result", (), {"outputs": {}})

    up = preview


def recorded(name: str, command: str = "preview", *more: dict[str, Any], **secrets: str) -> Run:
    return engine.run(Recorded(name, *more, secrets=secrets), command)


def diagnostic(severity: str, message: str, **more: Any) -> dict[str, Any]:
    return {"diagnosticEvent": {"message": message, "severity": severity, "color": "never", **more}}


def folded(text: str, title: str) -> list[str]:
    """The lines below the change of that title."""
    found = re.search(f"{re.escape(title)}</summary>\n\n<pre>\n(.*?)\n</pre>", text, re.DOTALL)
    assert found, text
    return html.unescape(found[1]).split("\n")


def test_a_comment_names_each_object_with_its_fields_folded_below() -> None:
    text = report.comment(recorded("preview-change"), STACK)
    assert text.startswith("### Preview of stack <code>staging</code>: create 2, update 4\n")
    title = "<code>&#126; Deployment mern-server</code> update"
    assert folded(text, title) == ["~ spec.replicas: 2 → 1"]
    assert folded(text, "<code>&#126; Deployment mern-client</code> update") == ["- spec.replicas: 2"]
    assert folded(text, "<code>&#126; Secret mern-python-script</code> update") == [
        "~ a value that is [secret]"
    ]
    made = folded(text, "<code>+ HorizontalPodAutoscaler mern-client</code> create")
    assert made[0] == "apiVersion: autoscaling/v2"
    assert "  maxReplicas: 6" in made
    release = folded(text, "<code>&#126; Release mern</code> update")
    assert "~ values.mernServer.replicas: 2 → 1" in release
    assert "~ values.pythonScript.awsSecretAccessKey: [secret], another than before" in release
    assert text.index("Kubernetes objects") < text.index("**Releases**")


def test_what_is_deleted_is_a_line() -> None:
    text = report.comment(recorded("preview-delete"), STACK)
    assert "\n- <code>- HorizontalPodAutoscaler mern-client</code> delete\n" in text


def test_a_failed_preview_lists_all_faults_once() -> None:
    run = recorded("preview-schema")
    assert not run.ok
    text = report.comment(run, STACK)
    assert text.startswith("### The preview of stack <code>staging</code> failed\n")
    assert text.count("at '/mernServer/replicas': got string, want integer") == 1
    assert text.count("additional properties 'servce' not allowed") == 1
    assert "unhandled" not in text


def test_the_summary_of_a_failed_deployment_begins_with_the_report() -> None:
    text = report.summary(recorded("up-fails", "up"), STACK)
    lines = text.split("\n")
    assert re.fullmatch(r"### The deployment of stack <code>staging</code> failed \(\d+ s\)", lines[0])
    assert lines[3].startswith("release mern in namespace record was not deployed: within 4 s")
    assert "Deployment mern-server: 0 of 1 ready" in lines
    assert text.index("Now serving: revision 4") < text.index("context deadline exceeded")
    assert "waiting for" not in text  # progress is no result


def test_notes_are_told_and_progress_is_not() -> None:
    run = recorded(
        "preview-delete",
        "preview",
        diagnostic("info", "not checked by the API server: 2 of 13 objects: a webhook is down\n"),
        diagnostic("warning", "Helm's record could not be read\n"),
        diagnostic("info", "waiting for it\n", ephemeral=True),
        diagnostic("debug", "Invoke callback\n"),
    )
    text = report.comment(run, STACK)
    assert "not checked by the API server: 2 of 13 objects: a webhook is down" in text
    assert "Helm's record could not be read" in text
    assert "waiting for it" not in text
    assert "callback" not in text


@pytest.mark.parametrize(
    ("note", "code"),
    [
        ("images stay as in revision 1", 0),
        ("nothing was checked in the cluster: no answer", 1),
        ("drift: Deployment web: spec.replicas is 5, not 2", 3),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_neither_drift_nor_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], note: str, code: int
) -> None:
    # Unread, the record makes every deployment look like a change.
    done = Run(command="preview", ok=True, notes=[note], changed=code > 0)
    monkeypatch.setattr(engine, "run", lambda *_: done)
    assert main(["drift", STACK], lambda _: None) == code
    assert ("is not known: nothing was checked in the cluster" in capsys.readouterr().err) == (code == 1)


def test_drift_is_any_change_and_any_warning_that_says_so() -> None:
    quiet = Run(command="preview", ok=True, notes=["images stay as in revision 3"])
    assert report.drift(quiet, STACK) == ""
    quiet.notes.append("drift: Deployment web: spec.replicas is 5, not 2")
    assert "Deployment web: spec.replicas is 5, not 2" in report.drift(quiet, STACK)
    assert "images stay" not in report.drift(quiet, STACK)
    text = report.drift(recorded("preview-delete"), STACK)
    assert "The next `up` would update 2, delete 1:" in text
    # A change of what only groups others is one too.
    assert report.drift(Run(command="preview", ok=True, changed=True), STACK)


# -- size -----------------------------------------------------------------------------------------


def config_map(
    number: int, old: dict[str, Any] | None, new: dict[str, Any] | None, op: str = "update"
) -> ResourceChange:
    kind = "helm:core/v1:ConfigMap"
    urn = f"urn:pulumi:staging::mern::{kind}::mern/shop/many-{number:04}"
    return ResourceChange(operation=op, type=kind, urn=urn, old=old, new=new)


def test_a_long_comment_is_cut_object_by_object_and_says_so() -> None:
    wide = "🚀" * 100
    changes = [config_map(n, {"data": {"a": wide + "1"}}, {"data": {"a": wide + "2"}}) for n in range(200)]
    text = report.comment(Run(command="preview", ok=True, changes=changes), STACK)
    assert report.size(text) <= report.COMMENT_LIMIT < 65_536
    assert report.size(text) > report.COMMENT_LIMIT * 0.9
    assert len(re.findall(r"ConfigMap many-\d{4}</code> update", text)) == 200
    left = re.search(r"no room for the fields of (\d+) more objects", text)
    assert left
    assert int(left[1]) + text.count("<details>") == 200
    assert text.count("<details>") == text.count("</details>") == text.count("</pre>")
    for block in re.findall(r"<pre>\n(.*?)\n</pre>", text, re.DOTALL):
        assert block.startswith("~ data.a: ")


def test_more_objects_than_there_are_lines_for_are_counted() -> None:
    changes = [config_map(number, None, {"data": {}}, "create") for number in range(3000)]
    text = report.comment(Run(command="preview", ok=True, changes=changes), STACK)
    assert report.size(text) <= report.COMMENT_LIMIT
    left = re.search(r"There was no room for (\d+) more objects", text)
    assert left
    assert int(left[1]) + len(re.findall(r"many-\d{4}</code> create", text)) == 3000


def test_many_refusals_are_cut_after_a_line() -> None:
    lines = [f"Deployment web-{number}: spec.replicas: must be positive" for number in range(5000)]
    text = report.comment(Run(command="preview", errors=["refused:\n" + "\n".join(lines)]), STACK)
    assert report.size(text) <= report.COMMENT_LIMIT
    shown = re.findall(r"^Deployment web-\d+: (.*)$", text, re.MULTILINE)
    assert set(shown) == {"spec.replicas: must be positive"}
    assert f"*{5001 - 1 - len(shown)} more lines are in the log.*" in text


# -- what others wrote ----------------------------------------------------------------------------

HOSTILE = (
    "</pre></details>\n\n# @everyone [x](javascript:1) `code` ```\n\n<img src=x onerror=1>\x1b[31m &amp;"
)


@pytest.mark.parametrize("place", ["field", "created", "name", "error", "note"])
def test_no_text_of_others_is_read_as_markdown_or_html(place: str) -> None:
    run = Run(command="preview", ok=place != "error")
    match place:
        case "field":
            run.changes = [config_map(1, {"data": {"a": "x\ny"}}, {"data": {"a": HOSTILE, HOSTILE: "1"}})]
        case "created":
            run.changes = [config_map(1, None, {"data": {"a": HOSTILE}}, "create")]
        case "name":
            run.changes = [config_map(1, {"a": 1}, {"a": 2})]
            run.changes[0].urn += HOSTILE
        case "error":
            run.errors = [HOSTILE]
        case "note":
            run.notes = [HOSTILE]
    text = report.comment(run, STACK)
    outside = re.sub(r"<pre>\n.*?\n</pre>|<code>.*?</code>", "", text, flags=re.DOTALL)
    assert "everyone" in text
    assert not re.search(r"everyone|onerror|javascript|`", outside)
    assert "<img" not in text
    assert "\x1b" not in text
    for inner in re.findall(r"<code>(.*?)</code>", text, re.DOTALL):
        assert not re.search(r"[`*_@\[\]\n]", inner)


def test_a_secret_of_the_config_is_hidden_wherever_it_is_quoted() -> None:
    secret = "s3cr3t-canary"
    error = diagnostic("error", f"helm: invalid value {secret!r}\n")
    nested = json.dumps({"KEY": secret})
    run = recorded("preview-schema", "preview", error, **{"mern:serverSecrets": nested})
    text = report.comment(run, STACK)
    assert "invalid value '[secret]'" in text
    assert secret not in text


def test_fields_are_told_by_path() -> None:
    old = {"a": {"b.c/d": 1, "gone": "x", "list": [{"n": 1}, {"n": 2}], "text": "one\ntwo\nthree\n", "u": 1}}
    new = {
        "a": {
            "b.c/d": 2,
            "new": {"k": True},
            "list": [{"n": 1}, {"n": 3}],
            "text": "one\n2 ``` \nthree\n",
            "u": engine.NOT_KNOWN,
        }
    }
    text = report.comment(Run(command="preview", ok=True, changes=[config_map(1, old, new)]), STACK)
    assert folded(text, "<code>&#126; ConfigMap many-0001</code> update") == [
        '~ a["b.c/d"]: 1 → 2',
        '- a.gone: "x"',
        "~ a.list[1].n: 2 → 3",
        "~ a.text:",
        "    @@ -1,3 +1,3 @@",
        "     one",
        "    -two",
        "    +2 ``` ",
        "     three",
        "~ a.u: 1 → [known after the deployment]",
        '+ a.new: {"k": true}',
    ]


def test_a_long_value_is_cut() -> None:
    changes = [config_map(1, {"a": "x"}, {"a": "y" * 10_000})]
    text = report.comment(Run(command="preview", ok=True, changes=changes), STACK)
    assert max(map(len, text.split("\n"))) < 400
    assert "yyy…" in text
