"""Fields that a chart renders anew each time."""

import io
import subprocess
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from components.release import Api, ReleaseArgs, StackState, chart, plan_release, record, unstable
from components.release.manifest import Object
from tests.engine.load_balancer_controller import chart_with_crds


def a_chart(folder: Path, template: str) -> Path:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: web, version: 1.0.0}")
    (folder / "templates/web.yaml").write_text(template)
    return folder


def templates_of(folder: Path) -> list[bytes]:
    return chart.load(str(folder)).templates


def config_map(**data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": data}


def a_hook(**data: Any) -> dict[str, Any]:
    annotations = {"helm.sh/hook": "pre-install"}
    return {**config_map(**data), "metadata": {"name": "hook", "annotations": annotations}}


def test_a_certificate_of_the_chart_is_found_and_shown_the_same_each_time(tmp_path: Path, helm: str) -> None:
    chart_with_crds(tmp_path)
    [folder] = tmp_path.iterdir()

    def render() -> list[Any]:
        command = [helm, "template", "lbc", str(folder), "-n", "kube-system", "--set", "clusterName=shop"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    first, second, recorded = render(), render(), render()
    fields = unstable.find(templates_of(folder), first, "kube-system", lambda: second)

    assert {key[1]: {path[-1] for path in paths} for key, paths in fields.items()} == {
        "Secret": {"ca.crt", "tls.crt", "tls.key"},
        "MutatingWebhookConfiguration": {"caBundle"},
    }
    shown = [unstable.as_shown(items, "kube-system", fields) for items in (first, second)]
    assert shown[0] == shown[1]
    [secret] = [item for item in shown[0] if item["kind"] == "Secret"]
    assert set(secret["data"].values()) == {unstable.IN_ROWS}
    assert unstable.as_recorded(first, recorded, "kube-system", fields) == recorded
    # What Helm does not have yet is as it was rendered.
    assert unstable.as_recorded(first, [], "kube-system", fields) == first


@pytest.mark.parametrize(
    ("template", "again"),
    [
        ("a: {{ randAlphaNum 5 }}", True),
        ("a: {{- $x := genCA 1 }}", True),
        ("{{ if .Values.a }}\n{{ .Values.password | htpasswd\n  'a' }}{{ end }}", True),
        ("a: {{ .Values.rand }} # now, uuidv4", False),
        ("a: {{ .Values.nowhere }}", False),
    ],
)
def test_only_a_chart_that_calls_for_it_is_rendered_again(tmp_path: Path, template: str, again: bool) -> None:
    asked = []

    def render() -> list[Object]:
        asked.append(1)
        return []

    alone = a_chart(tmp_path / "alone", template)
    unstable.find(templates_of(alone), [], "shop", render)
    parent = a_chart(tmp_path / "parent", "a: 1")
    (parent / "charts").mkdir()
    with tarfile.open(parent / "charts/web.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("web/templates/web.yaml")
        member.size = len(template)
        archive.addfile(member, io.BytesIO(template.encode()))
    unstable.find(templates_of(parent), [], "shop", render)
    assert len(asked) == (2 if again else 0)


@pytest.mark.parametrize(
    ("deployed", "hook", "renderings"),
    [("1", "1", 1), ("2", "1", 2), ("1", "2", 2), ("1", None, 2)],
)
def test_what_helm_has_recorded_as_it_is_rendered_is_not_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: str, hook: str | None, renderings: int
) -> None:
    """It was rendered at another time, and came out the same."""
    rendered: list[Object] = [config_map(a="1"), a_hook(b="1")]
    asked = []

    def render(*_: Any, **__: Any) -> list[Object]:
        asked.append(1)
        return rendered

    newest = record.Record(
        name="web",
        namespace="shop",
        revision=1,
        status="deployed",
        description="",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        values={},
        manifest=yaml.safe_dump(config_map(a=deployed)),
        hooks=yaml.safe_dump(a_hook(b=hook)) if hook else "",
    )
    a_chart(tmp_path / "chart", "{{ randAlpha 5 }}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chart, "render", render)
    monkeypatch.setattr(record, "newest", lambda *_: newest)
    server = Mock(spec=Api)
    server.find.return_value = None
    args = ReleaseArgs(chart="chart", name="web", namespace="shop", dry_run=False, drift="ignore")
    urn = "urn:pulumi:test::mern::helm:index:ChartRelease$kubernetes:helm.sh/v3:Release::web"
    plan_release(args, Mock(), server, StackState({urn: {"name": "web", "namespace": "shop"}}))

    assert len(asked) == renderings


def test_the_time_is_seen_to_change_though_it_is_told_in_seconds(tmp_path: Path) -> None:
    templates = templates_of(a_chart(tmp_path, '{{ now | date "150405" }}'))

    def render() -> list[Object]:
        return [config_map(at=time.strftime("%H%M%S"), stays="1")]

    fields = unstable.find(templates, render(), "shop", render)

    assert fields == {("", "ConfigMap", "shop", "web"): {("data", "at")}}


def test_where_the_name_of_a_field_is_random_all_around_it_is(tmp_path: Path) -> None:
    templates = templates_of(a_chart(tmp_path, "{{ randAlpha 5 }}"))
    fields = unstable.find(templates, [config_map(abcde="1")], "shop", lambda: [config_map(fghij="1")])

    assert fields == {("", "ConfigMap", "shop", "web"): {("data",)}}
    assert unstable.as_shown([config_map(x="1")], "shop", fields)[0]["data"] == unstable.IN_ROWS
