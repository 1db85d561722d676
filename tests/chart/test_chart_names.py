"""Names, labels and selectors: what ties the objects together, and keeps releases apart."""

from __future__ import annotations

import re

import pytest

from tests.chart.rendering import CREDENTIALS, Chart, Rendered

LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LONGEST = "a" * 53  # Helm takes no longer release name
PARTS = ("client", "server", "python-script", "client-test", "server-test", "python-script-once")


def test_objects_are_named_after_the_release_and_their_part(chart: Chart) -> None:
    rendered = chart.render(release="shop-staging")
    assert {o["metadata"]["name"] for o in rendered.objects} == {
        "shop-staging-client",
        "shop-staging-server",
        "shop-staging-python-script",
        "shop-staging-client-test",
        "shop-staging-server-test",
        "shop-staging",
    }


@pytest.mark.parametrize(
    "release", ["m", "a" * 38, "a" * 39, LONGEST, "a.b", "1st", "a" * 28 + "-" + "b" * 24]
)
def test_names_keep_to_the_limits_of_kubernetes_for_any_release_name(chart: Chart, release: str) -> None:
    rendered = chart.render({"pythonScript": {"runAfterDeployment": True}}, release=release)
    for found in rendered.objects:
        name = found["metadata"]["name"]
        if found["kind"] == "Ingress":
            assert name == release
        else:
            assert LABEL.fullmatch(name), name
            assert name.endswith(tuple(f"-{part}" for part in PARTS))
        for value in found["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value), value
    (cronjob,) = rendered.kind("CronJob")
    assert len(cronjob["metadata"]["name"]) <= 52


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mern", "mern-client"),
        (LONGEST, "a" * 52 + "b"),
        ("a.b", "a-b"),
        ("1st", "r1st"),
        ("mern", "mern2"),
    ],
)
def test_two_releases_share_a_namespace_without_a_clash(chart: Chart, one: str, other: str) -> None:
    first, second = chart.render(release=one), chart.render(release=other)
    assert not first.names() & second.names()
    for service in first.kind("Service"):
        for pod in second.pods():
            assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_every_object_says_which_namespace_it_belongs_to(chart: Chart) -> None:
    for found in chart.render(namespace="shop-production").objects:
        assert found["metadata"]["namespace"] == "shop-production"


def test_every_object_carries_the_recommended_labels(chart: Chart) -> None:
    for found in chart.render({"mernServer": {"image": {"tag": "v2"}}}).objects:
        component = found["metadata"]["labels"]["app.kubernetes.io/component"]
        assert found["metadata"]["labels"] == {
            "app.kubernetes.io/name": f"mern-{component}",
            "app.kubernetes.io/instance": "mern",
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/part-of": "mern",
            "app.kubernetes.io/version": "v2" if component == "server" else "1.0.0",
            "app.kubernetes.io/managed-by": "Helm",
            "helm.sh/chart": "mern-0.1.0",
        }


def test_a_tag_that_is_no_label_is_cut_to_one(chart: Chart) -> None:
    rendered = chart.render({"mernClient": {"image": {"tag": "_" + "x" * 61 + "." + "y" * 60}}})
    labels = rendered.one("Deployment", "mern-client")["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == "x" * 61


def selected(rendered: Rendered, selector: dict[str, str]) -> list[str]:
    labels = [pod["metadata"]["labels"] for pod in rendered.pods()]
    return [found["app.kubernetes.io/component"] for found in labels if selector.items() <= found.items()]


def test_a_selector_is_name_and_instance_and_picks_one_part(chart: Chart) -> None:
    rendered = chart.render()
    for part in ("client", "server"):
        expected = {
            "app.kubernetes.io/name": f"mern-{part}",
            "app.kubernetes.io/instance": "mern",
        }
        deployment = rendered.one("Deployment", f"mern-{part}")
        assert deployment["spec"]["selector"] == {"matchLabels": expected}
        assert rendered.one("Service", f"mern-{part}")["spec"]["selector"] == expected
        assert selected(rendered, expected) == [part]


def test_no_running_pod_changes_with_the_version_of_the_chart(chart: Chart) -> None:
    pods = chart.render({"mernServer": {"image": {"tag": "v2"}}}).pods()
    for pod in pods:
        if pod.get("kind") == "Pod":
            continue  # a test's, made anew each time
        assert set(pod["metadata"]["labels"]) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
            "app.kubernetes.io/part-of",
        }


def test_a_release_named_like_a_number_stays_a_string(chart: Chart) -> None:
    text = chart.text(CREDENTIALS, release="2024")
    assert 'app.kubernetes.io/instance: "2024"' in text
