"""The hooks of a Release: when they refuse, and that nothing goes on looking afterwards."""

import asyncio
import base64
import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.release import ReleaseArgs, ReleaseError, ReleasePlan, hooks, plan, record, watch
from components.release.hooks import Hooks
from components.release.kubernetes_api import ApiError, UnreachableError
from components.release.manifest import newly_unsized
from components.release.record import Record
from components.release.secrets import Secrets
from components.release.stale_lock import is_mendable, pending_text
from components.release.workloads import Cause, Workload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARGS: Any = None


class NoApi:
    """No API server answers."""

    def __getattr__(self, name: str) -> Any:
        raise UnreachableError(f"no {name}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    texts: list[str] = []

    def log(text: str, *_: Any, **__: Any) -> None:
        asyncio.get_running_loop()  # the SDK fails in a thread that has none
        texts.append(text)

    for level in ("info", "warn", "error"):
        monkeypatch.setattr(pulumi.log, level, log)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    return texts


@pytest.fixture
def rollout(said: list[str]) -> Hooks:
    nothing: Any = NoApi()
    args = ReleaseArgs(
        chart="./chart", name="web", namespace="shop", timeout=10, unlock_command="unlock {revision}"
    )
    secrets = Secrets(["hunter2"])
    rollout = Hooks(ReleasePlan(args=args, api=nothing, description="", objects=[], secrets=secrets))
    rollout.show_on(ARGS)
    return rollout


def failed(operation: str, *errors: str) -> pulumi.ErrorHookArgs:
    return pulumi.ErrorHookArgs("", "", "", "", failed_operation=operation, errors=list(errors))


@pytest.mark.parametrize("operation", ["", "create", "update", "delete"])
def test_nothing_looks_any_more_when_a_deployment_has_ended(
    rollout: Hooks, said: list[str], operation: str
) -> None:
    async def deployment() -> int:
        await rollout._before_update(ARGS)
        await asyncio.sleep(0.05)
        if operation:
            assert not await rollout._on_error(failed(operation, "boom: hunter2"))
        else:
            await rollout._after(ARGS)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(deployment()) == 1
    assert any(text.startswith("what it waits for cannot be read: no ") for text in said)
    report = [text for text in said if "was not deployed" in text]
    assert len(report) == (operation in ("create", "update"))
    for text in report:
        assert text.startswith("release web in namespace shop was not deployed. Helm says: boom: [secret]\n")
        assert "Now serving: could not be read (no " in text


def test_a_report_that_cannot_be_written_is_a_warning(
    rollout: Hooks, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hooks.REPORT_VARIABLE, str(tmp_path / "no folder/report"))
    assert not asyncio.run(rollout._on_error(failed("update", "boom")))
    assert said[-1].endswith("no folder/report: No such file or directory")


def found(revision: int = 2, status: str = "pending-upgrade", seconds: int = 5) -> Record:
    return Record(
        name="web",
        namespace="shop",
        revision=revision,
        status=status,
        description="",
        created=NOW - timedelta(seconds=seconds),
        values={},
        manifest="",
    )


@pytest.mark.parametrize(
    ("pending", "unlock", "mendable"),
    [
        (found(seconds=20), None, False),
        (found(seconds=21), None, True),
        (found(), 1, False),
        (found(), 2, True),
        (found(status="deployed", seconds=99), 2, False),
        (found(status="uninstalling", seconds=99), None, True),
        # It was deployed long ago, and its removal has just begun.
        (replace(found(status="uninstalling", seconds=99), stored=NOW), None, False),
    ],
)
def test_a_pending_revision_is_mended_when_it_is_old_or_named(
    pending: Record, unlock: int | None, mendable: bool
) -> None:
    assert is_mendable(pending, unlock, 10, NOW) == mendable


def test_a_run_that_may_be_alive_is_told_by_its_age_with_what_to_do() -> None:
    assert pending_text(found(), False, 10, "unlock {revision}", NOW) == (
        "revision 2 of release web has been pending-upgrade for 5 s: a run is at work on it, or was killed "
        "in the midst of it.\nIf it was killed, an `up` goes on in 16 s, or at once after\n"
        "    unlock 2"
    )
    assert "for 5 min: its run was killed" in pending_text(found(seconds=300), True, 10, "", NOW)


def test_a_preview_says_of_a_pending_revision_what_an_up_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", timeout=10, unlock_revision=2)
    api: Any = SimpleNamespace(now=lambda: NOW)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    for revision, said in ((2, "The next `up` marks it failed"), (3, "a run is at work")):
        [note] = plan._note_on_pending(args, found(revision), api)
        assert said in note
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    assert plan._note_on_pending(args, found(2), api) == [], "the mending says so itself"
    with pytest.raises(ReleaseError, match="a run is at work"):
        plan._note_on_pending(args, found(3), api)


def test_a_revision_that_is_known_is_read_again_only_when_it_is_another_or_has_another_status() -> None:
    known, labels = found(), {"version": "2", "status": "pending-upgrade"}
    api: Any = SimpleNamespace(get=lambda *_, **__: {"items": [{"metadata": {"labels": labels}}]})
    assert (known.revision, known.status) == (2, "pending-upgrade")
    assert record.newest(api, "web", "shop", "", known) is known
    for label in ({"status": "deployed"}, {"version": "3"}):
        labels |= label
        with pytest.raises(AttributeError, match="find"):
            record.newest(api, "web", "shop", "", known)


def test_a_run_that_turns_out_to_be_alive_is_left_alone(
    rollout: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    api: Any = rollout._plan.api
    api.now = lambda: NOW
    monkeypatch.setattr(record, "newest", lambda *_: found(seconds=99))
    stored: dict[str, Any] = {"metadata": {"resourceVersion": "7"}}
    stored["data"] = {"release": packed("deployed")}
    api.get = lambda _: stored
    api.find = api.get
    with pytest.raises(ReleaseError, match="its run is alive"):
        rollout._mend_stale_lock()

    def conflict(*_: Any) -> None:
        raise ApiError(409, {"reason": "Conflict"})

    stored["data"] = {"release": packed("pending-upgrade")}
    api.merge_patch = conflict
    with pytest.raises(ReleaseError, match="its run is alive"):
        rollout._mend_stale_lock()


def packed(status: str) -> str:
    release = json.dumps({"info": {"status": status}}).encode()
    return base64.b64encode(base64.b64encode(gzip.compress(release))).decode()


MANIFEST = """---
# Source: web/templates/a.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: block}
spec:
  replicas: 3 # three
  selector: {}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: last, namespace: shop}
spec:
  selector: {matchLabels: {é: "="}}
  replicas: 3
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: flow}, spec: {a: 1, replicas: 3}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: text}
data: {spec: "replicas: 3", day: 2026-01-01}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec: {replicas: 3}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: merged, annotations: &notes {at: 22:30, "é": "\\U0001F600\\x85\\x7F"}}
spec: {<<: &size {replicas: 3}, template: {metadata: {annotations: *notes}}}
"""


def test_the_number_of_pods_goes_out_of_the_record_where_it_is_left_to_others_and_nothing_else_does() -> None:
    stored = replace(found(status="deployed"), manifest=MANIFEST)
    silent = [
        {**item, "spec": {}}
        for item in stored.objects()
        if item["metadata"]["name"] in ("block", "last", "flow", "text", "merged")
    ]
    patches: list[Any] = []
    api: Any = Fake(packed("deployed"), patches)

    keys = newly_unsized(silent, stored.objects(), "shop")
    assert {key[3] for key in keys} == {"block", "last", "flow", "merged"}
    assert record.leave_replicas(api, stored, keys)

    data = base64.b64decode(base64.b64decode(patches[0]["data"]["release"]))
    release = json.loads(gzip.decompress(data))
    after = replace(stored, manifest=release["manifest"]).objects()
    wanted = stored.objects()
    for item in (*wanted[:3], wanted[-1]):
        del item["spec"]["replicas"]
    assert after == wanted
    assert release["info"] == {"status": "deployed"}
    assert "# Source: web/templates/a.yaml" in release["manifest"]


class Fake:
    """An API server with one Secret."""

    def __init__(self, release: str, patches: list[Any]) -> None:
        self.release, self.patches = release, patches

    def get(self, _: str) -> Any:
        return {"metadata": {"resourceVersion": "7"}, "data": {"release": self.release}}

    def merge_patch(self, _: str, patch: Any) -> None:
        self.patches.append(patch)


def test_a_hook_that_fails_after_the_last_look_is_in_the_report(
    rollout: Hooks, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helm ends as soon as a Job has failed, up to a second after the last look."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "annotations": {"helm.sh/hook": "pre-upgrade"}},
    }
    rollout._plan.objects.append(job)
    failing = Workload(
        kind="Job", name="migrate", namespace="shop", wanted=1, needed=1, causes=[Cause(text="failed")]
    )
    monkeypatch.setattr(watch, "observe", lambda *_: [failing])

    async def deployment() -> None:
        await rollout._before_update(ARGS)
        assert not await rollout._on_error(failed("update", "boom"))

    asyncio.run(deployment())
    [report] = [text for text in said if "was not deployed" in text]
    assert "Job migrate: 0 of 1 ready\n  failed" in report


class CountingApi:
    """An API server with Deployments whose only pod crashes."""

    def __init__(self, count: int) -> None:
        self.requests = 0
        self.names = [f"web-{number}" for number in range(count)]
        self.read: list[str] = []

    def objects(self) -> list[dict[str, Any]]:
        meta = [{"name": name, "uid": name, "generation": 1} for name in self.names]
        return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": each} for each in meta]

    def collection(self, item: Any, namespace: str) -> str:
        return f"/{namespace}/deployments"

    def items(self, path: str, fieldSelector: str = "") -> list[dict[str, Any]]:  # noqa: N803
        self.requests += 1
        if path.endswith("deployments"):
            status = {"observedGeneration": 1}
            live = [{**item, "spec": {"replicas": 1}, "status": status} for item in self.objects()]
            return [
                item for item in live if fieldSelector in ("", f"metadata.name={item['metadata']['name']}")
            ]
        if not path.endswith("pods"):
            return []
        ended = {"name": "web", "restartCount": 1, "state": {"terminated": {"exitCode": 1}}}
        return [
            {
                "metadata": {"name": f"{name}-pod", "ownerReferences": [{"uid": name}]},
                "status": {"phase": "Running", "containerStatuses": [ended]},
            }
            for name in self.names
        ]

    def get(self, path: str, *_: str, **__: str) -> dict[str, Any]:
        self.requests += 1
        labels = {"version": "1", "status": "pending-upgrade"}
        return {"items": [{"metadata": {"labels": labels}}]}

    def now(self) -> datetime:
        return NOW

    def text(self, path: str, **_: str) -> str:
        self.requests += 1
        pod = path.split("/")[-2]
        self.read.append(pod)
        return f"log of {pod}"


@pytest.mark.parametrize("count", [10, 200])
def test_a_look_is_few_requests_whatever_the_number_of_objects(rollout: Hooks, count: int) -> None:
    """So that Helm's wait costs the API server little: there is at most one look in a second."""
    api: Any = CountingApi(count)
    planned = replace(rollout._plan, api=api, objects=api.objects())
    looking = watch.Watch(plan=planned, messages=rollout._messages)
    looks = count // watch.LOGS
    for _ in range(looks):
        looking.look()
    # Pods, ReplicaSets, events, Deployments, Helm's record, and logs.
    assert api.requests == looks * (5 + watch.LOGS)
    # All logs have their turn, and what was read is kept.
    assert len(set(api.read)) == count
    logs = [cause.log for workload in looking.unready for cause in workload.causes]
    assert logs == [f"log of {name}-pod" for name in api.names]


def test_a_cause_is_known_also_when_its_pod_has_gone_and_the_next_is_not_there_yet(
    rollout: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a Job between two tries, whose failed pod the cluster has removed with its node."""
    ended = Cause(text="ended with an error")
    looks = [[ended], [], [Cause(text="starting")]]
    monkeypatch.setattr(
        watch,
        "observe",
        lambda *_: [
            Workload(kind="Job", name="run", namespace="shop", wanted=1, needed=1, causes=looks.pop(0))
        ],
    )
    monkeypatch.setattr(record, "status", lambda *_: "pending-upgrade")
    api: Any = SimpleNamespace(now=lambda: NOW)
    looking = watch.Watch(plan=replace(rollout._plan, api=api), messages=rollout._messages)
    seen = [(looking.look(), list(looking.unready[0].causes)) for _ in range(3)]
    first = "waiting for run 0/1 ready, ended with an error"
    assert seen == [
        (first, [ended]),
        (first, [ended]),
        ("waiting for run 0/1 ready, starting", [Cause(text="starting")]),
    ]
