"""What a stack proves by what runs in it, and what is refused.

The objects are those that an API server was seen to give, down to what is read of them; the image IDs are
those of containerd and Docker, as in the issues that proof.py names.
"""

import copy
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi import automation as auto

from components.release import ApiError, chart, record
from components.release.manifest import Object
from components.release.record import Record
from operations import chart_history
from operations.__main__ import main
from operations.ci import deploy, engine
from operations.ci.engine import Run
from operations.deployed import Deployed
from operations.promotion import promotion, proof
from operations.promotion.proof import PromotionError, Proof, digest_of, prove
from settings import IMAGES_VARIABLE

OLD, NEW, SCRIPT = ("sha256:" + digit * 64 for digit in "abc")
REGISTRY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"
OURS = "mern 0.1.0 (files 0123456789abcdef)"
SECRET = "mongodb://app:made-up-password@mongo.example/mern"


def deployment(name: str, image: str, replicas: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"mern-{name}",
            "namespace": "shop",
            "labels": {"app.kubernetes.io/component": name},
        },
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": name, "image": image}]}},
        },
    }


def cron_job(image: str) -> dict[str, Any]:
    pods = {"spec": {"containers": [{"name": "python-script", "image": image}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": "mern-python-script",
            "namespace": "shop",
            "labels": {"app.kubernetes.io/component": "python-script"},
        },
        "spec": {"jobTemplate": {"spec": {"template": pods}}},
    }


class FakeApi:
    """A namespace where the recorded objects stand, with what controllers and the kubelet make of them."""

    def __init__(self, *recorded: Any) -> None:
        self.lists: dict[str, list[Any]] = {"pods": [], "replicasets": [], "jobs": [], "events": []}
        self.live: dict[str, Any] = {}
        for item in recorded:
            name = item["metadata"]["name"]
            live = copy.deepcopy(item)
            live["metadata"] |= {"uid": name, "generation": 1}
            live["status"] = {"observedGeneration": 1}
            self.live[self.path(item, "shop")] = live
            if item["kind"] == "Deployment":
                self.make_pods(name, 1, item["spec"]["template"]["spec"]["containers"][0], 2)
            else:
                self.make_job("1", item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0])

    def make_pods(self, name: str, version: int, container: Any, count: int, digest: str = NEW) -> None:
        uid = f"{name}-{version}"
        owner = {"uid": name, "ownerReferences": [{"uid": name}]}
        notes = {"deployment.kubernetes.io/revision": str(version)}
        self.lists["replicasets"].append({"metadata": {**owner, "uid": uid, "annotations": notes}})
        for number in range(count):
            self.lists["pods"].append(
                {
                    "metadata": {"name": f"{uid}-{number}", "ownerReferences": [{"uid": uid}]},
                    "spec": {"containers": [container]},
                    "status": {
                        "phase": "Running",
                        "startTime": f"2026-11-28T10:4{number}:00Z",
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "containerStatuses": [
                            {"name": "istio-proxy", "imageID": f"istio@{OLD}"},
                            status(container, digest),
                        ],
                    },
                }
            )

    def make_job(self, name: str, container: Any, **more: Any) -> None:
        self.lists["jobs"].append(
            {
                "metadata": {
                    "name": name,
                    "uid": f"job-{name}",
                    "creationTimestamp": f"2026-11-28T1{name}:00:00Z",
                    "ownerReferences": [{"uid": "mern-python-script"}],
                },
                "spec": {"template": {"spec": {"containers": [dict(container)]}}},
                "status": more or {"completionTime": f"2026-11-28T1{name}:01:00Z"},
            }
        )
        self.lists["pods"].append(
            {
                "metadata": {"name": f"pod-{name}", "ownerReferences": [{"uid": f"job-{name}"}]},
                "status": {"phase": "Succeeded", "containerStatuses": [status(container, SCRIPT)]},
            }
        )

    def collection(self, item: Object, _: str) -> str:
        return str(item["kind"])

    def path(self, item: Object, _: str) -> str:
        return f"{item['kind']}/{item['metadata']['name']}"

    def find(self, path: str) -> Any:
        return self.live.get(path)

    def items(self, path: str) -> list[Any]:
        assert "/namespaces/shop/" in path
        return self.lists[path.rpartition("/")[2]]

    def merge_patch(self, path: str, patch: Object, **_: str) -> Any:
        merged = copy.deepcopy(self.live[path])
        merged["spec"] |= patch["spec"]
        return merged


def status(container: Any, digest: str) -> dict[str, str]:
    repository = container["image"].rpartition("@")[0] or container["image"].rpartition(":")[0]
    return {"name": container["name"], "imageID": f"{repository}@{digest}"}


RECORDED = (
    deployment("client", f"{REGISTRY}/mern-client:1.4.2"),
    deployment("server", f"{REGISTRY}/mern-server@{NEW}"),
    cron_job(f"{REGISTRY}/python-script:1.4.2"),
)
Prove = Callable[[], Proof]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(*RECORDED)


@pytest.fixture
def newest() -> dict[str, Any]:
    """What Helm has recorded last, for a test to change."""
    return {
        "name": "mern",
        "namespace": "shop",
        "revision": 7,
        "status": "deployed",
        "description": OURS,
        "created": datetime(2026, 11, 28, 10, 30, tzinfo=UTC),
        "values": {},
        "manifest": "\n---\n".join(json.dumps(item) for item in RECORDED),
    }


@pytest.fixture
def config() -> dict[str, auto.ConfigValue]:
    return {"mern:mongodbUri": auto.ConfigValue(SECRET, secret=True)}


@pytest.fixture
def opened(
    api: FakeApi,
    newest: dict[str, Any],
    config: dict[str, auto.ConfigValue],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Any]:
    """Opens any stack."""
    monkeypatch.setattr(proof, "connect", lambda *_: (api, "shop"))
    monkeypatch.setattr(record, "newest", lambda *_: Record(**newest) if newest else None)
    return lambda name: SimpleNamespace(name=name, get_all_config=lambda: config)


def refusal(opened: Callable[[str], Any]) -> str:
    with pytest.raises(PromotionError) as caught:
        prove("staging", opened)
    return str(caught.value)


def test_what_all_ready_pods_run_is_proved_by_its_digest(opened: Callable[[str], Any], api: FakeApi) -> None:
    found = prove("staging", opened)

    assert (found.stack, found.revision, found.chart) == ("staging", 7, OURS)
    assert [(image.part, image.digest) for image in found.images] == [
        ("mernClient", NEW),
        ("mernServer", NEW),
        ("pythonScript", SCRIPT),
    ]
    assert found.option == f"mernClient={NEW} mernServer={NEW} pythonScript={SCRIPT}"
    assert found.images[0].image == f"{REGISTRY}/mern-client:1.4.2"
    assert found.images[0].proof == "2 of 2 pods ready, the oldest since 2026-11-28 10:40 UTC"
    assert found.images[2].proof == "last run succeeded 2026-11-28 11:01 UTC"

    container = api.lists["jobs"][0]["spec"]["template"]["spec"]["containers"][0]
    api.make_job("2", container, conditions=[{"type": "Failed", "status": "True"}])
    assert prove("staging", opened).images[2].proof.endswith("; a later one failed: Job 2")


@pytest.mark.parametrize(
    ("image", "reported", "digest"),
    [
        ("shop/app:1", f"docker.io/shop/app@{NEW}", NEW),
        ("app:1", f"docker.io/library/app@{NEW}", NEW),
        ("localhost:5000/app:1", f"docker-pullable://localhost:5000/app@{NEW}", NEW),
        ("app:1", NEW, ""),  # containerd: the id of the image's config
        ("app:1", f"docker://{NEW}", ""),
        ("app:1", "", ""),  # kwok
        ("app:1", f"ghcr.io/mirror/app@{NEW}", ""),  # the same node has it from there, too
        (f"app@{OLD}", NEW, OLD),
        (f"app@{OLD}", f"docker.io/library/app@{NEW}", OLD),  # of one platform, with CRI-O
    ],
)
def test_a_digest_is_that_of_the_repository_in_the_kubelets_own_report(
    image: str, reported: str, digest: str
) -> None:
    pod = {"status": {"containerStatuses": [{"name": "app", "imageID": reported}]}}
    assert digest_of(pod, {"name": "app", "image": image}) == digest


def test_each_reason_against_a_promotion_is_said_with_what_to_do_and_all_together(
    opened: Callable[[str], Any], api: FakeApi
) -> None:
    client, server = (item for item in api.live.values() if item["kind"] == "Deployment")
    container = client["spec"]["template"]["spec"]["containers"][0]
    api.make_pods("mern-client", 2, container, 2)
    server["spec"]["replicas"] = 3
    api.lists["jobs"].clear()

    assert refusal(opened).splitlines() == [
        "stack staging proves no images now:",
        "  mernClient: Deployment mern-client is in the middle of a rollout, with 2 pods of the version "
        "before: mern-client 2/2 ready",
        "  Wait for it to end:",
        "      kubectl rollout status deployment/mern-client -n shop",
        "  mernServer: it is not healthy: mern-server 2/3 ready",
        f"  pythonScript: no run of {REGISTRY}/python-script:1.4.2 has succeeded that is still there. "
        "Run it, and wait until it is done:",
        "      kubectl create job mern-python-script-promotion-1 --from=cronjob/mern-python-script -n shop",
        "  it has drifted:",
        "    Deployment mern-server: spec.replicas is 3, not 2",
        "  to have it put back:",
        "      pulumi config set --path 'mern:release.drift' restore --stack staging",
        "      pulumi up --stack staging",
    ]


def test_a_rollout_that_is_paused_is_told_how_to_go_on(opened: Callable[[str], Any], api: FakeApi) -> None:
    api.live["Deployment/mern-client"]["spec"]["paused"] = True
    resume = "kubectl rollout resume deployment/mern-client -n shop"
    assert f"  mernClient: Deployment mern-client is paused. To go on:\n      {resume}" in refusal(opened)


def test_pods_that_disagree_and_digests_that_nobody_reports_prove_nothing(
    opened: Callable[[str], Any], api: FakeApi
) -> None:
    client, _, _, _, script = api.lists["pods"]
    client["status"]["containerStatuses"][1]["imageID"] = f"{REGISTRY}/mern-client@{OLD}"
    script["status"]["containerStatuses"][0]["imageID"] = ""

    lines = refusal(opened).splitlines()
    assert lines[1] == (
        f"  mernClient: its pods run different images of the name {REGISTRY}/mern-client:1.4.2: "
        f"{OLD} (1 pods), {NEW} (1 pods). Deploy one of them by its digest:"
    )
    assert lines[2] == ("      .venv/bin/python -m operations up staging --image mernClient=sha256:DIGEST")
    assert lines[3].startswith("  pythonScript: 1 of 1 pods run")
    assert "no digest of that is reported" in lines[3]


def test_a_script_is_proved_by_a_run_of_what_it_would_run_now(
    opened: Callable[[str], Any], api: FakeApi
) -> None:
    api.lists["jobs"][0]["spec"]["template"]["spec"]["containers"][0]["image"] = "python-script:1.4.1"
    assert "no run of" in refusal(opened)
    api.lists["jobs"].clear()
    api.make_job("3", {"name": "python-script", "image": f"{REGISTRY}/python-script:1.4.2"})
    api.lists["pods"].pop()
    assert "the pod of its last run, Job 3, is gone" in refusal(opened)
    api.lists["jobs"][0]["metadata"] |= {"ownerReferences": [], "name": "mern-python-script-promotion-1"}
    said = refusal(opened)
    assert "no run of" in said
    assert "kubectl create job mern-python-script-promotion-2 --from" in said  # the first is there already
    api.make_job("4", {"name": "python-script-once", "image": f"{REGISTRY}/python-script:1.4.2"})
    api.lists["jobs"][-1]["metadata"] |= {
        "labels": {"app.kubernetes.io/component": "python-script-once"},
        "ownerReferences": [],
    }
    assert prove("staging", opened).images[2].digest == SCRIPT


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"status": "pending-upgrade"},
            "is in the middle of a deployment: revision 7 is pending-upgrade since",
        ),
        ({"status": "failed", "description": "no"}, "its newest revision 7 is failed (no), not a deployment"),
        (
            {"description": "Upgrade complete"},
            "is deployed (Upgrade complete), not a deployment of this stack",
        ),
    ],
)
def test_a_stack_that_is_not_deployed_proves_nothing(
    change: dict[str, str], text: str, opened: Callable[[str], Any], newest: dict[str, Any]
) -> None:
    newest |= change
    said = refusal(opened)
    assert text in said
    assert said.endswith("\n    pulumi up --stack staging")
    newest.clear()
    assert "there is no release mern in namespace shop\n    pulumi up --stack staging" in refusal(opened)


def test_what_is_missing_or_cannot_be_read_proves_nothing(
    opened: Callable[[str], Any], api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    del api.live["Deployment/mern-server"]
    said = refusal(opened)
    assert "mernServer: its Deployment is not there" in said
    assert "Deployment mern-server is missing: it was deleted by hand" in said

    def forbidden(*_: Any) -> Any:
        raise ApiError(403, {"message": f"pods is forbidden for {SECRET}"})

    monkeypatch.setattr(api, "items", forbidden)
    text = "what runs in stack staging cannot be read: pods is forbidden for [secret]"
    assert refusal(opened) == text


def test_drift_is_looked_for_as_the_stack_wants_it(
    opened: Callable[[str], Any], api: FakeApi, config: dict[str, auto.ConfigValue]
) -> None:
    api.live["Deployment/mern-client"]["spec"]["progressDeadlineSeconds"] = 5
    api.live["Deployment/mern-client"]["spec"]["replicas"] = 1
    assert "spec.replicas is 1, not 2" in refusal(opened)
    for release in ({"drift": "ignore"}, {"leave": ["Deployment/mern-client:spec.replicas"]}):
        config["mern:release"] = auto.ConfigValue(json.dumps(release))
        assert prove("staging", opened).images[0].digest == NEW


# ---- the command


class Target:
    """A stack to deploy to, the engine and Git, as far as a promotion uses them."""

    def __init__(self) -> None:
        self.running: Deployed | None = Deployed(
            revision=3,
            images={"mernClient": f"{REGISTRY}/mern-client:1.4.1", "mernServer": f"other/server@{NEW}"},
        )
        self.commands: list[tuple[str, str]] = []
        self.ok = {"preview": True, "up": True}

    def run(self, stack: Any, command: str) -> Run:
        self.commands.append((command, os.environ[IMAGES_VARIABLE]))
        ok = self.ok[command]
        after = Deployed(revision=4, images={"mernClient": f"{REGISTRY}/mern-client@{NEW}"})
        return Run(
            command=command, ok=ok, before=self.running, after=after if command == "up" and ok else None
        )


@pytest.fixture
def target(opened: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Target:
    made = Target()
    monkeypatch.setenv(IMAGES_VARIABLE, "")  # and so put back
    monkeypatch.setattr(promotion, "connect", lambda *_: (None, "shop"))
    monkeypatch.setattr(promotion, "read_deployed", lambda *_: made.running)
    monkeypatch.setattr(chart.Chart, "description", OURS)
    monkeypatch.setattr(engine, "run", made.run)
    monkeypatch.setattr(deploy, "up", lambda stack, _: made.run(stack, "up"))
    monkeypatch.setattr("builtins.input", lambda _: "y")
    return made


IMAGES = f"mernClient={NEW} mernServer={NEW} pythonScript={SCRIPT}"


def test_just_the_digests_that_are_proved_are_deployed_by_the_ordinary_up(
    opened: Callable[[str], Any], target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    assert main(["promote", "staging", "production", "--summary", str(summary)], opened) == 0

    assert target.commands == [("preview", IMAGES), ("up", IMAGES)]
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "Stack staging runs, in revision 7:",
        f"  mernClient {REGISTRY}/mern-client:1.4.2",
        f"    which is {NEW}",
        "    2 of 2 pods ready, the oldest since 2026-11-28 10:40 UTC",
        f"  mernServer {REGISTRY}/mern-server@{NEW}",
        "    2 of 2 pods ready, the oldest since 2026-11-28 10:40 UTC",
        f"  pythonScript {REGISTRY}/python-script:1.4.2",
        f"    which is {SCRIPT}",
        "    last run succeeded 2026-11-28 11:01 UTC",
        "In stack production:",
        f"  ~ mernClient: {REGISTRY}/mern-client:1.4.1 → {NEW}",
        f"  = mernServer other/server@{NEW}",
        f"  + pythonScript: nothing → {SCRIPT}",
        "",
        "",
        "Stack production runs the images of stack staging.",
        "Back to revision 3, which was there before, from a clone:",
        "    .venv/bin/python -m operations rollback 3 --stack production",
    ]
    assert (
        f"<pre>\n~ mernClient: {REGISTRY}/mern-client:1.4.1 → {REGISTRY}/mern-client@{NEW}\n</pre>\n\n"
        "Back to revision 3, which was there before, from a clone:\n\n"
        "<pre>\n.venv/bin/python -m operations rollback 3 --stack production\n</pre>"
    ) in summary.read_text()


def test_nothing_is_deployed_unless_the_preview_is_well_and_somebody_says_yes(
    opened: Callable[[str], Any],
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(["promote", "staging", "production"], opened) == 1
    assert [command for command, _ in target.commands] == ["preview"]
    target.ok["preview"] = False
    assert main(["promote", "staging", "production", "--yes"], opened) == 1
    assert "Not promoted: the preview says why." in capsys.readouterr().err
    assert [command for command, _ in target.commands] == ["preview", "preview"]
    target.ok |= {"preview": True, "up": False}
    assert main(["promote", "staging", "production", "--yes"], opened) == 1
    assert "Back to" not in capsys.readouterr().out

    target.running = Deployed(
        revision=3,
        images={part.split("=")[0]: f"x@{part.split('=')[1]}" for part in IMAGES.split()},
    )
    target.commands.clear()
    assert main(["promote", "staging", "production"], opened) == 0
    assert "These images run there already: nothing to do" in capsys.readouterr().out
    assert target.commands == []


def test_without_a_target_the_images_are_said_to_people_and_to_the_workflow(
    opened: Callable[[str], Any], target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, summary = tmp_path / "output", tmp_path / "summary.md"
    given = ["promote", "staging", "--output", str(output), "--summary", str(summary)]
    assert main(given, opened) == 0
    assert output.read_text() == f"images={IMAGES}\n"
    command = f'    .venv/bin/python -m operations up TARGET --image "{IMAGES}"\n'
    assert capsys.readouterr().out.endswith(command)
    assert "### Stack <code>staging</code> proves these images\n\n<pre>\nStack staging" in summary.read_text()
    assert target.commands == []


def test_images_that_were_proved_with_another_chart_are_refused(
    opened: Callable[[str], Any],
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = "mern 0.2.0 (files 0000000000000000)"
    summary = tmp_path / "summary.md"
    monkeypatch.setattr(chart.Chart, "description", here)
    monkeypatch.setattr(chart_history, "commit_of", lambda _: None)
    given = ["promote", "staging", "production", "--summary", str(summary)]
    assert main(given, opened) == 1
    text = (
        f"stack staging was deployed from other files of the chart: {OURS}, not {here}. Its images may need "
        "them.\nNo commit that Git has here has those files.\n"
        "--chart-as-it-is deploys the images with the chart that is here.\n"
    )
    assert capsys.readouterr().err == f"error: {text}"
    assert f"### Nothing was promoted\n\n<pre>\n{text}</pre>" in summary.read_text()
    assert main(["promote", "staging", "--chart-as-it-is"], opened) == 0
    assert main(["promote", "staging", "staging"], opened) == 1
    assert "staging is both" in capsys.readouterr().err
    assert target.commands == []
