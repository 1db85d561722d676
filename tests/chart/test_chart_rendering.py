"""The chart renders the same on every run, wherever it is rendered."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import CHART, CREDENTIALS, Chart

TEMPLATES = sorted(p for p in (CHART / "templates").rglob("*") if p.is_file())

# Each of these answers differently from one run to the next, or with and without a cluster; then a
# preview would show changes that are none.
UNSTABLE = re.compile(
    r"(?<![$.\w])(lookup|now|ago|date\w*|htmlDate\w*|rand\w+|shuffle|uuidv4|gen\w+|bcrypt|htpasswd|encryptAES"
    r"|getHostByName|env|expandenv)\s+[\"(.$a-z]"
    r"|\.Capabilities|\.Release\.(Revision|IsUpgrade|IsInstall)|\.Files"
)
ACTION = re.compile(r"{{-?(.*?)-?}}", re.DOTALL)
STRING = re.compile(r'"[^"]*"|`[^`]*`|/\*.*?\*/', re.DOTALL)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda p: p.name)
def test_no_template_asks_for_chance_time_or_the_cluster(template: Path) -> None:
    for action in ACTION.findall(template.read_text()):
        code = STRING.sub('""', action)
        assert not UNSTABLE.search(code), f"{template.name}: {action.strip()}"


def test_two_runs_of_a_variant_are_the_same_to_the_byte(chart: Chart, variant: Path) -> None:
    values = yaml.safe_load(variant.read_text())
    assert chart.text(values) == chart.text(values)


def test_an_upgrade_and_another_cluster_render_the_same(chart: Chart) -> None:
    plain = chart.text(CREDENTIALS)
    assert chart.text(CREDENTIALS, "--is-upgrade") == plain
    assert chart.text(CREDENTIALS, "--kube-version", "1.20.0") == plain
    assert chart.text(CREDENTIALS, "--kube-version", "v1.36.3-eks-1a2b3c4") == plain
    assert chart.text(CREDENTIALS, "--api-versions", "elbv2.k8s.aws/v1beta1") == plain


def test_helm_lint_has_no_complaint(chart: Chart, variant: Path) -> None:
    run = chart.run("lint", str(CHART), "--strict", "--values", str(variant))
    assert run.returncode == 0, run.stdout


def test_a_package_holds_what_is_deployed_and_nothing_else(chart: Chart, tmp_path: Path) -> None:
    run = chart.run("package", str(CHART), "--destination", str(tmp_path))
    assert run.returncode == 0, run.stderr
    with tarfile.open(tmp_path / "mern-0.1.0.tgz") as archive:
        names = {name.removeprefix("mern/") for name in archive.getnames()}
    assert not [name for name in names if name.startswith("ci/") or "README" in name]
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "templates/NOTES.txt"} <= names
