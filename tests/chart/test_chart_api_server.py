"""A real API server's opinion on what the chart renders."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lightkube import ApiError, Client, KubeConfig, codecs
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from tests.chart.conftest import Cluster
from tests.chart.rendering import CHART, CREDENTIALS, Chart

NAMESPACE = "chart-tests"


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Client]:
    client = Client(config=KubeConfig.from_file(str(cluster.kubeconfig)))
    client.apply(Namespace(metadata=ObjectMeta(name=NAMESPACE)), field_manager="tests")
    yield client
    client.delete(Namespace, NAMESPACE)


def test_every_object_of_a_variant_is_accepted(chart: Chart, variant: Path, api: Client) -> None:
    """Applied server-side: that refuses fields that do not exist instead of dropping them."""
    values = yaml.safe_load(variant.read_text())
    rendered = chart.render(values, namespace=NAMESPACE)
    assert rendered.objects
    for found in rendered.objects:
        api.apply(codecs.from_dict(found), field_manager="tests", dry_run=True)


def test_the_server_is_asked_in_earnest(chart: Chart, api: Client) -> None:
    deployment = chart.render(namespace=NAMESPACE).one("Deployment", "mern-client")
    deployment["spec"]["selector"]["matchLabels"]["other"] = "pods"
    with pytest.raises(ApiError, match="selector"):
        api.apply(codecs.from_dict(deployment), field_manager="tests", dry_run=True)


def test_a_plain_helm_install_works_and_says_what_to_do_next(
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

    answer = helm("install", "plain", str(CHART), "--values", "-")
    try:
        assert "STATUS: deployed" in answer
        assert f"kubectl --namespace {NAMESPACE} get ingress plain" in answer
        assert "value-of-" not in answer
        assert "pw-of-" not in answer
        assert helm("upgrade", "plain", str(CHART), "--values", "-")
    finally:
        helm("uninstall", "plain")
