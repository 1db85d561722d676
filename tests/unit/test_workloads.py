"""What keeps a workload from becoming ready, from objects as the API server gives them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from components.release.workloads import Cause, cause_of, look_at, observe, read_log, watched

Made = dict[str, Any]


def pod(name: str = "web-1", owner: str = "rs", **status: Any) -> Made:
    return {
        "metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": owner}]},
        "spec": {},
        "status": {"phase": "Pending", **status},
    }


def ready(name: str, owner: str = "rs") -> Made:
    return pod(name, owner, phase="Running", conditions=[{"type": "Ready", "status": "True"}])


def container(state: Made, last: Made | None = None, restarts: int = 0, name: str = "web") -> Made:
    return {
        "name": name,
        "image": "registry.example.com/web:2",
        "ready": False,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def waiting(reason: str, message: str = "", **more: Any) -> Made:
    return container({"waiting": {"reason": reason, "message": message}}, **more)


def event(reason: str, message: str, of: str = "web-1", minute: int = 0, **more: Any) -> Made:
    return {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"name": of, "uid": of},
        "lastTimestamp": f"2026-01-01T00:{minute:02}:00Z",
        **more,
    }


def deployment(replicas: int = 2, **status: Any) -> Made:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "uid": "web", "generation": 2},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 2, **status},
    }


def replica_set(uid: str = "rs", revision: int = 1, **status: Any) -> Made:
    notes = {"deployment.kubernetes.io/revision": str(revision)}
    meta = {"name": uid, "uid": uid, "annotations": notes, "ownerReferences": [{"uid": "web"}]}
    return {"metadata": meta, "status": status}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
CRASHED = {"terminated": {"exitCode": 1, "reason": "Error"}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
PULL = "Failed to pull image: not found"
AS_ROOT = "container has runAsNonRoot and image will run as root"
PROBE = "Readiness probe failed: HTTP probe failed with statuscode: 503"


@pytest.mark.parametrize(
    ("status", "events", "text", "details"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "2 Insufficient cpu."}]},
            [],
            "cannot be scheduled",
            ["2 Insufficient cpu.", "the nodes are full"],
        ),
        (
            {"containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image")]},
            [event("Failed", PULL), event("Failed", "Error: ImagePullBackOff", minute=1)],
            "cannot pull the image",
            ["registry.example.com/web:2", PULL, "is the tag pushed"],
        ),
        (
            {"containerStatuses": [waiting("ContainerCreating"), waiting("ErrImagePull", "denied")]},
            [],
            "cannot pull the image",
            ["denied"],
        ),
        (
            {"containerStatuses": [waiting("CreateContainerConfigError", AS_ROOT)]},
            [],
            "cannot start the container",
            [AS_ROOT, "numeric USER"],
        ),
        (
            {"containerStatuses": [waiting("CreateContainerConfigError", 'secret "key" not found')]},
            [],
            "cannot start the container",
            ['secret "key" not found'],
        ),
        (
            {"containerStatuses": [container(BACK_OFF, CRASHED, restarts=4)]},
            [event("BackOff", "Back-off restarting failed container")],
            "crashing",
            ["container web ended with exit code 1, restarted 4 times", "Error"],
        ),
        (
            {"containerStatuses": [container(BACK_OFF, {"terminated": {"exitCode": 0}}, restarts=2)]},
            [],
            "crashing",
            ["exit code 0"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container(RUNNING, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, restarts=1)
                ],
            },
            [],
            "crashing",
            ["exit code 137", "OOMKilled", "more memory than its limit"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container(RUNNING, {"terminated": {"exitCode": 143, "reason": "Error"}}, restarts=1)
                ],
            },
            [event("Unhealthy", "Liveness probe failed: connection refused")],
            "crashing",
            ["exit code 143", "Liveness probe failed"],
        ),
        (
            {
                "initContainerStatuses": [container(BACK_OFF, CRASHED, restarts=3, name="migrate")],
                "containerStatuses": [waiting("PodInitializing")],
            },
            [],
            "crashing",
            ["container migrate ended with exit code 1"],
        ),
        (
            {"phase": "Running", "containerStatuses": [container(RUNNING)]},
            [event("Unhealthy", "an older one"), event("Unhealthy", PROBE, minute=1, count=7)],
            "failing the probe",
            [f"{PROBE} (7 times)"],
        ),
        (
            {"containerStatuses": [waiting("ContainerCreating")]},
            [event("FailedMount", 'secret "tls" not found'), event("FailedMount", "of another", of="x")],
            "starting",
            ['FailedMount: secret "tls" not found'],
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            [],
            "failed",
            ["Evicted: The node was low on memory."],
        ),
        (
            {"phase": "Running", "containerStatuses": [container(RUNNING)]},
            [event("FailedScheduling", "of another time: no node yet")],
            "not ready yet",
            [],
        ),
        ({}, [], "starting", []),
    ],
)
def test_each_cause_is_named_with_kubernetes_own_words(
    status: Made, events: list[Made], text: str, details: list[str]
) -> None:
    cause = cause_of(pod(**status), events)
    assert cause.text == text
    for detail in details:
        assert detail in cause.detail
    assert "of another" not in cause.detail  # pod, or time


def test_a_pod_whose_readiness_gate_is_shut_waits_for_the_load_balancer() -> None:
    gate = "target-health.elbv2.k8s.aws/web"
    waiting_for = {"type": gate, "status": "False", "message": "Target registration is in progress"}
    containers = {"type": "ContainersReady", "status": "True"}
    behind = pod(phase="Running", conditions=[containers, waiting_for])
    behind["spec"] = {"readinessGates": [{"conditionType": gate}]}
    cause = cause_of(behind, [])
    assert cause.text == "waiting for the load balancer"
    assert cause.detail == f"readiness gate {gate}; Target registration is in progress"
    behind["status"]["conditions"] = [containers]  # the controller has not looked at it yet
    assert cause_of(behind, []).text == "waiting for the load balancer"


def test_a_deployment_counts_the_pods_of_its_newest_version_and_groups_what_keeps_them() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "no node fits"}
    pods = [
        ready("old-1", "old"),
        ready("old-2", "old"),
        ready("web-1"),
        pod("web-2", conditions=[unscheduled]),
        pod("web-3", conditions=[unscheduled]),
        pod("web-4"),
    ]
    gone = ready("web-5")
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sets = [replica_set("old"), replica_set("rs", revision=10)]
    found = look_at(deployment(4), [*pods, gone], sets, [])
    assert str(found) == "web 1/4 ready, 2 pods cannot be scheduled, 1 pod starting"
    assert found.causes[0].pod == "web-2"
    assert not found.is_ready


def test_a_deployment_that_its_controller_has_not_seen_is_not_ready() -> None:
    found = look_at(deployment(1, observedGeneration=1), [ready("web-1")], [replica_set()], [])
    assert str(found) == "web 1/1 ready, not taken up by its controller yet"
    assert not found.is_ready


def test_refused_pods_are_told_by_the_condition_or_by_an_event_of_that_very_object() -> None:
    quota = 'pods "web-x" is forbidden: exceeded quota: pods, requested: pods=1'
    condition = {"type": "ReplicaFailure", "status": "True", "message": quota}
    found = look_at(deployment(1), [], [replica_set(conditions=[condition])], [])
    assert str(found) == "web 0/1 ready, pods are refused"
    assert quota in found.causes[0].detail
    assert "ResourceQuota" in found.causes[0].detail

    stateful = {**deployment(1, updateRevision="b"), "kind": "StatefulSet"}
    namesake = event("FailedGetResourceMetric", "no metrics", of="web")
    namesake["involvedObject"]["uid"] = "the autoscaler of that name"
    assert look_at(stateful, [], [], [namesake]).causes == []
    found = look_at(stateful, [], [], [namesake, event("FailedCreate", quota, of="web")])
    assert str(found) == "web 0/1 ready, pods are refused"


def test_stateful_and_daemon_sets_count_the_pods_of_their_newest_version() -> None:
    old, new = ready("web-0", "web"), ready("web-1", "web")
    old["metadata"]["labels"] = {"controller-revision-hash": "a", "pod-template-generation": "1"}
    new["metadata"]["labels"] = {"controller-revision-hash": "b", "pod-template-generation": "2"}
    stateful = {**deployment(2, updateRevision="b"), "kind": "StatefulSet"}
    assert str(look_at(stateful, [old, new], [], [])) == "web 1/2 ready"
    daemons = {**deployment(0, desiredNumberScheduled=2), "kind": "DaemonSet", "spec": {}}
    daemons["metadata"]["annotations"] = {"deprecated.daemonset.template.generation": "2"}
    assert str(look_at(daemons, [old, new], [], [])) == "web 1/2 ready"


def test_a_job_is_ready_when_it_has_succeeded_and_says_why_it_failed() -> None:
    job = {**deployment(), "kind": "Job", "spec": {"completions": 1}, "status": {}}
    assert str(look_at(job, [pod(owner="web")], [], [])) == "web 0/1 ready, 1 pod starting"
    ended = pod(owner="web", phase="Failed", containerStatuses=[container(CRASHED)])
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
    job["status"] = {"conditions": [condition]}
    found = look_at(job, [ended], [], [])
    assert str(found) == "web 0/1 ready, 1 pod ended with an error, failed"
    assert found.causes[0].container == "web"
    assert found.causes[1].detail == "BackoffLimitExceeded: too often"
    job["status"] = {"succeeded": 1}
    assert look_at(job, [ended], [], []).is_ready


class FakeApi:
    """Answers lists and logs from dictionaries."""

    def __init__(self, **lists: list[Made]) -> None:
        self.lists = lists
        self.logs: dict[tuple[str, ...], str] = {}

    def items(self, path: str, **_: str) -> list[Made]:
        return self.lists.get(path.rpartition("/")[2], [])

    def collection(self, item: Made, namespace: str) -> str:
        return f"/{namespace}/{item['kind'].lower()}s"

    def text(self, path: str, **query: str) -> str:
        return self.logs.get((path, query["container"], query.get("previous", "")), "")


def hook(phases: str, kind: str = "Job") -> Made:
    meta = {"name": phases, "annotations": {"helm.sh/hook": phases}}
    return {"apiVersion": "batch/v1" if kind == "Job" else "v1", "kind": kind, "metadata": meta}


def test_hooks_of_a_deployment_are_watched_and_tests_and_hooks_of_the_end_are_not() -> None:
    ran = [hook("post-install,post-upgrade"), hook("pre-upgrade", "Pod")]
    others = [hook("test"), hook("pre-delete"), hook("pre-install", "ConfigMap")]
    assert watched([*ran, *others]) == ran


def rendered(api_version: str, kind: str, **spec: Any) -> Made:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize(
    ("item", "is_watched"),
    [
        *(
            (rendered("apps/v1", kind), True)
            for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
        ),
        *((rendered("v1", kind), True) for kind in ("ReplicationController", "Pod", "PersistentVolumeClaim")),
        (rendered("apiextensions.k8s.io/v1", "CustomResourceDefinition"), True),
        (rendered("v1", "Service", type="LoadBalancer"), True),
        (rendered("v1", "Service", type="LoadBalancer", externalIPs=["192.0.2.1"]), False),
        (rendered("v1", "Service"), False),
        (rendered("serving.knative.dev/v1", "Service", type="LoadBalancer"), False),
        (rendered("batch/v1", "Job"), False),
        (rendered("batch/v1", "CronJob"), False),
        (rendered("v1", "ConfigMap"), False),
    ],
    ids=lambda value: f"{value['apiVersion']}-{value['kind']}" if isinstance(value, dict) else str(value),
)
def test_what_is_watched_is_what_helm_waits_for(item: Made, is_watched: bool) -> None:
    assert watched([item]) == ([item] if is_watched else [])


@pytest.mark.parametrize(
    ("kind", "spec", "needed"),
    [
        ("Deployment", {"replicas": 4, "strategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}, 3),
        (
            "Deployment",
            {"replicas": 4, "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}},
            4,
        ),
        (
            "Deployment",
            {"replicas": 4, "strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}},
            3,
        ),
        ("Deployment", {"replicas": 4, "strategy": {"type": "Recreate"}}, 4),
        ("Deployment", {"replicas": 4, "paused": True}, 0),
        ("StatefulSet", {"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}}, 3),
        ("StatefulSet", {"replicas": 3, "updateStrategy": {"type": "OnDelete"}}, 0),
        ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}, 2),
        ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, 0),
    ],
)
def test_helm_waits_for_no_more_pods_than_a_rollout_has_to_have(kind: str, spec: Made, needed: int) -> None:
    """As in `deploymentReady`, `statefulSetReady` and `daemonSetReady` of Helm 3.18."""
    live = {**deployment(desiredNumberScheduled=4), "kind": kind, "spec": spec}
    seen = look_at(live, [], [], [])
    assert seen.needed == needed
    assert seen.is_ready == (needed == 0)


def test_a_service_a_claim_and_a_crd_say_what_they_lack_and_what_was_said_of_them() -> None:
    meta = {"name": "web", "uid": "web"}
    service = {"kind": "Service", "metadata": meta, "spec": {"type": "LoadBalancer"}, "status": {}}
    found = look_at(service, [], [], [])
    assert str(found) == "Service web: no load balancer gives it an address"
    assert found.causes[0].detail == "nothing has acted on it"
    assert not found.is_ready
    said = event("SyncLoadBalancerFailed", "no subnets", of="web")
    assert look_at(service, [], [], [said]).causes[0].detail == "SyncLoadBalancerFailed: no subnets"
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "a.example.com"}]}}
    assert look_at(service, [], [], []).is_ready

    claim = {"kind": "PersistentVolumeClaim", "metadata": meta, "spec": {}, "status": {"phase": "Pending"}}
    told = event("FailedBinding", "no persistent volumes available and no storage class is set", of="web")
    found = look_at(claim, [], [], [{**told, "type": "Normal"}])
    assert str(found) == "PersistentVolumeClaim web: no volume is bound to it"
    assert "the cluster has no default StorageClass" in found.causes[0].detail
    claim["status"] = {"phase": "Bound"}
    assert look_at(claim, [], [], []).is_ready

    crd = {"kind": "CustomResourceDefinition", "metadata": meta, "spec": {}, "status": {}}
    assert str(look_at(crd, [], [], [])).endswith("the API server does not serve its kind yet")
    crd["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    assert look_at(crd, [], [], []).is_ready


def test_pods_by_themselves_and_of_older_controllers_count() -> None:
    alone = {**pod("alone"), "kind": "Pod"}
    assert str(look_at(alone, [], [], [])) == "alone 0/1 ready, 1 pod starting"
    assert look_at({**ready("alone"), "kind": "Pod"}, [], [], []).is_ready
    assert look_at({**pod("alone", phase="Succeeded"), "kind": "Pod"}, [], [], []).is_ready
    for kind in ("ReplicaSet", "ReplicationController"):
        live = {**deployment(2), "kind": kind}
        assert str(look_at(live, [ready("web-1", "web")], [], [])) == "web 1/2 ready"


def test_hooks_and_events_of_an_earlier_deployment_do_not_count() -> None:
    began = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    job = {**deployment(), "kind": "Job", "spec": {}, "status": {}}
    made = {"name": "post-upgrade", "creationTimestamp": "2026-01-01T00:29:59Z"}
    job["metadata"] = {**job["metadata"], **made}
    stateful = {**deployment(1), "kind": "StatefulSet"}
    stateful["metadata"] = {**stateful["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z"}
    old = event("FailedCreate", "exceeded quota", of="web", minute=29)
    api: Any = FakeApi(jobs=[job], statefulsets=[stateful], events=[old])
    items = [hook("post-upgrade"), rendered("apps/v1", "StatefulSet")]
    assert [str(each) for each in observe(api, items, "shop", began)] == ["web 0/1 ready"]
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:30:00Z"
    api.lists["events"] = [{**old, "lastTimestamp": None, "eventTime": "2026-01-01T00:31:00.123456Z"}]
    # Both have the same id here.
    refused = "0/1 ready, pods are refused"
    found = [str(each) for each in observe(api, items, "shop", began)]
    assert found == [f"post-upgrade {refused}", f"web {refused}"]


def test_the_log_is_of_the_run_that_ended_or_else_of_the_last() -> None:
    api: Any = FakeApi()
    cause = Cause(text="crashing", pod="web-1", container="web")
    path = "/api/v1/namespaces/shop/pods/web-1/log"
    assert read_log(api, "shop", cause) == ""
    api.logs[path, "web", ""] = "starting"
    assert read_log(api, "shop", cause) == "starting"
    api.logs[path, "web", "true"] = "no database"
    assert read_log(api, "shop", cause) == "no database"
    assert read_log(api, "shop", Cause(text="starting", pod="web-1")) == ""
