"""Fixtures of the chart's tests; `helm` and `cluster` come from the conftest.py above."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from tests.chart.rendering import CHART, Chart

VARIANTS = sorted((CHART / "ci").glob("*-values.yaml"))


class Cluster(Protocol):
    kubeconfig: Path
    env: dict[str, str]


@pytest.fixture(scope="session")
def chart(helm: str) -> Chart:
    return Chart(helm)


@pytest.fixture(params=VARIANTS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def variant(request: pytest.FixtureRequest) -> Path:
    """Each of the value files in chart/ci."""
    path: Path = request.param
    return path
