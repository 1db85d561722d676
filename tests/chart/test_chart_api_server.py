"""A real API server's opinion on what the chart renders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from lightkube import ApiError, Client, KubeConfig, codecs
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from components.release.values import merged
from tests.chart.conftest import Cluster
from tests.chart.rendering import CHART, CREDENTIALS, Chart, Object, Rendered
from tests.chart.test_chart_properties import UNHURRIED, changes

NAMESPACE = f"chart-tests-{os.getpid()}"  # a run just before may still be cleaning up
RESTRICTED = f"{NAMESPACE}-restricted"


def namespace(client: Client, name: str, labels: dict[str, str] | None = None) -> None:
    metadata = ObjectMeta(name=name, labels=labels or {})
    client.apply(Namespace(metadata=metadata), field_manager="tests")


@pytest.fixture(scope="session")  # tests are dealt out anew at the end of a run
def api(cluster: Cluster) -> Iterator[Client]:
    with Client(config=KubeConfig.from_file(str(cluster.kubeconfig))) as client:
        namespace(client, NAMESPACE)
        namespace(client, RESTRICTED, {"pod-security.kubernetes.io/enforce": "restricted"})
        yield client
        client.delete(Namespace, NAMESPACE)
        client.delete(Namespace, RESTRICTED)


def ask(api: Client, found: Object) -> None:
    """Applied server-side: that refuses fields that do not exist instead of dropping them."""
    api.apply(codecs.from_dict(found), field_manager="tests", dry_run=True)


def make_accounts(api: Client, rendered: Rendered) -> None:
    """No Pod is accepted before its account is there."""
    for account in rendered.kind("ServiceAccount"):
        api.apply(codecs.from_dict(account), field_manager="tests", force=True)


def test_every_object_of_a_variant_is_accepted(chart: Chart, variant: Path, api: Client) -> None:
    values = yaml.safe_load(variant.read_text())
    rendered = chart.render(values, namespace=NAMESPACE, credentials=False)
    make_accounts(api, rendered)
    assert rendered.objects
    for found in rendered.objects:
        ask(api, found)


@given(changes(complete=True))
@settings(UNHURRIED, max_examples=25)
def test_what_the_chart_accepts_the_server_accepts(chart: Chart, api: Client, values: dict[str, Any]) -> None:
    run = chart.template(merged(CREDENTIALS, values), "mern", NAMESPACE, ())
    if run.returncode == 0:
        rendered = chart.parsed(run.stdout)
        make_accounts(api, rendered)
        for found in rendered.objects:
            ask(api, found)


def pods_in(rendered: Rendered) -> Iterator[Object]:
    """The pods that the controllers would make: only they are held to a security standard."""
    for number, template in enumerate(rendered.pods()):
        metadata = {"name": f"pod-{number}", "namespace": RESTRICTED}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_every_pod_runs_where_pod_security_restricted_is_enforced(
    chart: Chart, variant: Path, api: Client
) -> None:
    values = yaml.safe_load(variant.read_text()) | {"podSecurity": "restricted"}
    rendered = chart.render(values, namespace=RESTRICTED, credentials=False)
    make_accounts(api, rendered)
    pods = list(pods_in(rendered))
    assert len(pods) >= 5
    for pod in pods:
        ask(api, pod)


def test_a_baseline_pod_is_refused_there(chart: Chart, api: Client) -> None:
    rendered = chart.render({"podSecurity": "baseline"}, namespace=RESTRICTED)
    make_accounts(api, rendered)
    for pod in pods_in(rendered):
        with pytest.raises(ApiError, match="violates PodSecurity"):
            ask(api, pod)


def test_the_server_is_asked_in_earnest(chart: Chart, api: Client) -> None:
    deployment = chart.render(namespace=NAMESPACE).one("Deployment", "mern-client")
    deployment["spec"]["selector"]["matchLabels"]["other"] = "pods"
    with pytest.raises(ApiError, match="selector"):
        ask(api, deployment)


def test_plain_helm_installs_two_releases_side_by_side_and_says_what_to_do_next(
    chart: Chart, cluster: Cluster, api: Client
) -> None:
    def helm(*arguments: str) -> str:
        run = subprocess.run(
            [chart.helm, *arguments, "--namespace", NAMESPACE],
            env={**os.environ, **cluster.env, "KUBECONFIG": str(cluster.kubeconfig)},
            input=yaml.safe_dump(CREDENTIALS),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    first = helm("install", "plain", str(CHART), "--values", "-")
    try:
        assert "STATUS: deployed" in first
        assert f"kubectl --namespace {NAMESPACE} get ingress plain" in first
        assert "value-of-" not in first
        assert "pw-of-" not in first
        assert "STATUS: deployed" in helm("install", "second", str(CHART), "--values", "-")
        assert "REVISION: 2" in helm("upgrade", "plain", str(CHART), "--values", "-")
    finally:
        for release in helm("list", "--short").split():
            helm("uninstall", release)
