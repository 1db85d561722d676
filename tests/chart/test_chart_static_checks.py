"""What kube-score finds in every variant of the chart, and why it stays."""

import json
import subprocess
from pathlib import Path

from sandbox.engine import PROJECT

# Every finding that is left, with the reason. A check that finds nothing more must leave this list.
EXPLAINED = {
    "container-image-pull-policy": "tags are not reused, so IfNotPresent saves the pull; a value",
    "container-ephemeral-storage-request-and-limit": "what an image writes is its own; a value",
    "container-security-context-readonlyrootfilesystem": "not every image can; readOnlyRootFilesystem",
    "container-security-context-user-group-id": "it wants ids above 10000; 1000 is that of node images",
    "cronjob-has-deadline": "without one a late run is made up for; startingDeadlineSeconds",
    "deployment-has-host-podantiaffinity": "topology spread constraints do this, and over zones too",
    "deployment-has-poddisruptionbudget": "the variant with one replica goes without",
    "deployment-replicas": "the minimal variant has one replica",
    "pod-networkpolicy": "policies are a value: not every cluster's network enforces them",
    "pod-probes-identical": "both ask /health; liveness waits longer than readiness",
    "service-type": "target type `instance` asks for node ports",
}
VARIANTS = sorted((PROJECT / "chart/ci").glob("*-values.yaml"))


def findings(helm: str, checks: Path, variant: Path) -> set[str]:
    objects = subprocess.run(
        [helm, "template", "mern", str(PROJECT / "chart"), "-n", "shop", "-f", str(variant)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    scored = subprocess.run(
        [str(checks / "kube-score"), "score", "--output-format", "json", "-"],
        input=objects,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    all_ok = 10
    return {
        check["check"]["id"]
        for scored_object in json.loads(scored)
        for check in scored_object["checks"] or []
        if not check["skipped"] and check["grade"] < all_ok
    }


def test_kube_score_finds_nothing_that_is_not_explained(helm: str, checks: Path) -> None:
    found = set().union(*(findings(helm, checks, variant) for variant in VARIANTS))
    assert found == set(EXPLAINED)


def test_the_chart_page_says_what_its_values_say(checks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chart"
    subprocess.run(["cp", "-R", str(PROJECT / "chart"), str(folder)], check=True)
    subprocess.run(
        [str(checks / "helm-docs"), "--chart-search-root", str(folder), "--sort-values-order", "file"],
        check=True,
        capture_output=True,
    )
    assert (folder / "README.md").read_text() == (PROJECT / "chart/README.md").read_text()
