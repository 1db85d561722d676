"""The whole program, for each stack file as it is committed, up to what the engine would be told.

Only the outside is made up: credentials, AWS, the answers of Helm's rendering, and what Helm has stored
in the cluster.
"""

import base64
import contextlib
import functools
import gzip
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pulumi
import pytest
import yaml

from components.load_balancer_controller import CHART as CONTROLLER_CHART
from components.release import Api, chart, chart_source
from components.release.kubernetes_api import ApiError, ClusterError
from operations.environments import template
from tests.engine.load_balancer_controller import chart_with_crds
from tests.unit.recording import Answers, Recording, Registered, Secret, fails, run

ROOT = Path(__file__).parents[2]
STACKS = ("local", "staging", "production")
ON_EKS = ("staging", "production")

RELEASE = "kubernetes:helm.sh/v3:Release"
NAMESPACE = "kubernetes:core/v1:Namespace"
TEMPLATE = "kubernetes:helm:template"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"

CREDENTIALS = {
    "mern:mongodbUri": "mongodb://app:pw-of-mongodb@mongo.example/mern",
    "mern:serverSecrets": json.dumps({"JWT_SECRET": "value-of-jwt-secret"}),
    "mern:awsAccessKeyId": "value-of-key-id",
    "mern:awsSecretAccessKey": "value-of-secret-key",
}
# What must never be seen.
HIDDEN = (
    "pw-of-mongodb",
    "value-of-jwt-secret",
    "value-of-key-id",
    "value-of-secret-key",
    base64.b64encode(CREDENTIALS["mern:mongodbUri"].encode()).decode(),
)


class FakeApi:
    """In place of the API server: holds Helm's records, and reaches nothing else."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.namespaces = {"team"}

    def get(self, path: str, *_: str, **__: str) -> dict[str, Any]:
        place, name = path.rsplit("/", 1)
        if path == "/api/v1/namespaces/kube-system/secrets":
            return {"items": []}
        if name == "secrets":
            return {"items": list(self.records.values())}
        if place.endswith("/secrets"):
            return self.records[name]
        if path == "/api/v1/namespaces/kube-system":
            return {"metadata": {"uid": "0c0ffee0"}}
        if place.endswith("/namespaces"):
            if name in self.namespaces:
                return {"status": {"phase": "Active"}}
            raise ApiError(404, {"reason": "NotFound"})
        raise ClusterError(f"no cluster to get {path} from in a unit test")

    find = Api.find

    def __getattr__(self, name: str) -> Any:
        raise ClusterError(f"no cluster to {name} from in a unit test")

    def has_run(self, revision: int, values: Mapping[str, Any]) -> None:
        self.namespaces.add("mern-staging")
        release = {
            "name": "mern",
            "version": revision,
            "info": {"status": "deployed", "description": "mern 0.0.9 (files 0123456789abcdef)"},
            "config": values,
            "manifest": "",
        }
        packed = base64.b64encode(gzip.compress(json.dumps(release).encode()))
        name = f"sh.helm.release.v1.mern.v{revision}"
        self.records[name] = {
            "metadata": {
                "name": name,
                "namespace": "mern-staging",
                "labels": {"version": str(revision)},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "data": {"release": base64.b64encode(packed).decode()},
        }


class FakeAws:
    """In place of AWS: an account in which a stack finds all that it needs."""

    def __init__(self, account: str, region: str) -> None:
        self.account, self.region = account, region

    def account_id(self) -> str:
        return self.account

    def cluster(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "arn": f"arn:aws:eks:{self.region}:{self.account}:cluster/{name}",
            "endpoint": "https://127.0.0.1:1",
            "certificateAuthority": {"data": base64.b64encode(b"certificate").decode()},
            "identity": {"oidc": {"issuer": "https://oidc.example/id/1"}},
            "resourcesVpcConfig": {"vpcId": "vpc-1"},
        }

    def subnets(self, _: Mapping[str, str]) -> list[dict[str, Any]]:
        return [{"SubnetId": f"subnet-{zone}", "AvailabilityZone": zone} for zone in "ab"]

    def oidc_provider(self, _: str) -> dict[str, Any]:
        return {}

    def addon(self, *_: str) -> dict[str, Any]:
        return {}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr("components.cluster.Api", lambda *_: fake)
    return fake


class Deploy(Protocol):
    def __call__(
        self,
        stack: str,
        *,
        change: Mapping[str, Any] | None = None,
        plain: frozenset[str] = frozenset(),
        answers: Answers | None = None,
    ) -> Recording: ...


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: FakeApi) -> Deploy:
    """Runs the program for a stack.

    `change`: keys of its config that differ, None to leave one out; `plain`: credentials that
    somebody forgot to encrypt; `answers`: functions that answer in another way.
    """
    # The program reads ./chart and the sandbox's kube config where it runs.
    (tmp_path / "chart").symlink_to(ROOT / "chart")
    (tmp_path / ".sandbox").mkdir()
    # The controller's chart was pulled before.
    chart_with_crds(tmp_path)
    monkeypatch.setattr(
        chart_source, "pull", lambda name, *_: ("./chart" if name == "./chart" else CONTROLLER_CHART, "")
    )
    (tmp_path / ".sandbox/kubeconfig").write_text(yaml.safe_dump(kubeconfig("kwok-mern")))
    monkeypatch.chdir(tmp_path)
    # Of a refusal it makes words and an exit code; here the refusal itself is looked at.
    monkeypatch.setattr("components.release.quiet_exit", contextlib.nullcontext)

    def deploy(
        stack: str,
        *,
        change: Mapping[str, Any] | None = None,
        plain: frozenset[str] = frozenset(),
        answers: Answers | None = None,
    ) -> Recording:
        config = {**stack_file(stack), **CREDENTIALS, **(change or {})}
        # For a stack without an account there is no AWS at all.
        aws = functools.partial(FakeAws, account_of(stack)) if "mern:aws" in config else None
        monkeypatch.setattr("components.cluster.Aws", aws)
        known: Answers = {TEMPLATE: rendered}
        return run(
            lambda: runpy.run_path(str(ROOT / "__main__.py")),
            stack=stack,
            config={key: as_text(value) for key, value in config.items() if value is not None},
            secret_keys=frozenset(CREDENTIALS) - plain,
            answers={**known, **(answers or {})},
        )

    return deploy


def in_state(namespace: str = "mern-staging", mode: str = "Namespace") -> Answers:
    """The state of a stack that has deployed to `namespace`, as the engine was seen to answer it."""
    types = {
        f"$kubernetes:core/v1:{mode}::mern-namespace": {"metadata": {"name": namespace}},
        f"$helm:index:ChartRelease${RELEASE}::mern": {"name": "mern", "namespace": namespace},
    }
    stored = {
        f"urn:pulumi:staging::mern::mern:index:MernApplication{rest}": {"type": "", "outputs": outputs}
        for rest, outputs in types.items()
    }
    return {"pulumi:pulumi:readStackResourceOutputs": lambda _: {"outputs": stored}}


def stack_file(stack: str) -> dict[str, Any]:
    folder = ROOT / "sandbox" if stack == "local" else ROOT
    config: dict[str, Any] = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    return config


def account_of(stack: str) -> str:
    return str(stack_file(stack)["mern:aws"]["accountId"])


def as_text(value: Any) -> str:
    """A value of a stack file as the engine hands it to the program."""
    return value if isinstance(value, str) else json.dumps(value)


def kubeconfig(context: str) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "value-of-token"}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
    }


def rendered(args: dict[str, Any]) -> dict[str, Any]:
    """Two objects of a chart that is careless with a credential."""
    options = json.loads(args["jsonOpts"])
    if options["chart"] == "aws-load-balancer-controller":
        return {"result": [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "webhook"}}]}
    uri = options["values"]["mernServer"]["mongodbUri"]
    data = {"URI": base64.b64encode(uri.encode()).decode(), "PORT": "ODA4MA=="}
    meta = {"name": "mern-server", "namespace": options["namespace"]}
    spec = {"replicas": 2, "command": f"serve --db {uri}"}
    return {
        "result": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        ]
    }


def release(recording: Recording) -> Registered:
    """The application's release; the controller has one too."""
    return recording.one(RELEASE, "mern")


def succeeded(recording: Recording) -> Recording:
    if recording.error:
        raise recording.error
    return recording


def without_secrets(value: Any) -> Any:
    """`value` without the leaves that are marked as secret, and without maps of nothing else."""
    if not isinstance(value, dict):
        return value
    kept = {k: without_secrets(v) for k, v in value.items() if not isinstance(v, Secret)}
    return {k: v for k, v in kept.items() if v != {} or value[k] == {}}


def in_the_open(value: Any) -> Iterator[str]:
    """Every text in `value` that is not marked as secret."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from in_the_open(item)
    elif isinstance(value, list):
        for item in value:
            yield from in_the_open(item)
    elif not isinstance(value, Secret):
        yield str(value)


@pytest.mark.parametrize(
    ("version", "kept"),
    [("4.25.0", False), ("4.29.1", False), ("4.30.0", True), ("5.0.0a1", True), ("", True)],
)
def test_a_null_among_the_values_is_rendered_as_the_providers_version_deploys_it(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, version: str, kept: bool
) -> None:
    monkeypatch.setenv("RELEASE_PROVIDER_VERSION", version)
    values = {**stack_file("local")["mern:values"], "mernClient": {"resources": {"limits": None}}}
    recording = succeeded(deploy("local", change={"mern:values": values}))

    [call] = [call for call in recording.calls if call.token == TEMPLATE][:1]
    resources = json.loads(call.args["jsonOpts"])["values"]["mernClient"]["resources"]
    assert resources == ({"limits": None} if kept else {})
    # Where it is deprecated, it is a warning in each run.
    assert release(recording).inputs.get("allowNullValues") == (None if kept else True)


@pytest.mark.parametrize("stack", STACKS)
def test_the_release_is_deployed_the_same_way_in_every_stack(stack: str, deploy: Deploy) -> None:
    inputs = release(succeeded(deploy(stack))).inputs

    del inputs["values"]
    assert inputs == {
        "name": "mern",
        "namespace": f"mern-{stack}",
        "chart": "./chart",
        "description": chart.load("./chart").description,
        "timeout": {"local": 60, "staging": 300, "production": 600}[stack],
        "atomic": True,
        "replace": True,
        "maxHistory": 10,
        "skipAwait": False,
        "createNamespace": False,
        "compat": "true",
    }


@pytest.mark.parametrize("stack", STACKS)
def test_the_chart_is_given_the_values_of_the_stack_file(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack, change={"mern:imageTag": "1.2.3"}))

    expected = stack_file(stack)["mern:values"]
    for part in ("mernClient", "mernServer", "pythonScript"):
        expected[part].setdefault("image", {})["tag"] = "1.2.3"
    assert without_secrets(release(done).inputs["values"]) == expected


@pytest.mark.parametrize("stack", STACKS)
def test_each_credential_is_a_secret_of_its_own_among_the_values(stack: str, deploy: Deploy) -> None:
    values = release(succeeded(deploy(stack))).inputs["values"]

    uri = Secret(CREDENTIALS["mern:mongodbUri"])
    assert values["mernServer"]["mongodbUri"] == uri
    assert values["mernServer"]["secrets"] == {"JWT_SECRET": Secret("value-of-jwt-secret")}
    assert values["pythonScript"]["mongodbUri"] == uri
    assert values["pythonScript"]["awsAccessKeyId"] == Secret("value-of-key-id")
    assert values["pythonScript"]["awsSecretAccessKey"] == Secret("value-of-secret-key")


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_that_is_registered_or_exported_shows_a_credential(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    registered = [[r.name, r.inputs] for r in done.resources]
    seen = "\n".join(in_the_open([registered, done.exports]))
    assert not [hidden for hidden in (*HIDDEN, "value-of-token") if hidden in seen]


@pytest.mark.parametrize("stack", STACKS)
def test_the_chart_is_rendered_as_it_will_be_deployed(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    call = next(call for call in done.calls if call.token == TEMPLATE)
    options = json.loads(call.args["jsonOpts"])
    deployed = release(done).inputs
    assert options.pop("values") == opened(deployed["values"])
    assert options == {
        "chart": "chart",
        "path": ".",
        "release_name": deployed["name"],
        "namespace": deployed["namespace"],
        "skip_crd_rendering": True,  # of the folder crds/, which Helm treats apart
    }


def opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: opened(item) for key, item in value.items()}
    return value.value if isinstance(value, Secret) else value


@pytest.mark.parametrize("stack", STACKS)
def test_every_object_of_the_chart_is_shown_below_the_release(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    children = done.children(release(done))
    name = f"mern/mern-{stack}/mern-server"
    assert {(child.type, child.name) for child in children} == {
        ("helm:core/v1:Secret", name),
        ("helm:apps/v1:Deployment", name),
    }
    for child in children:
        assert child.protect is False
        assert child.retain_on_delete is False
        assert release(done).urn in child.depends_on
    data = done.one("helm:core/v1:Secret").inputs["data"]
    assert data["PORT"] == Secret("ODA4MA==")  # all of a Secret is secret
    spec = done.one("helm:apps/v1:Deployment").inputs["spec"]
    assert spec["replicas"] == 2
    assert isinstance(spec["command"], Secret)  # and so is a credential anywhere else


def test_objects_are_not_shown_where_the_stack_does_not_want_them(deploy: Deploy) -> None:
    done = succeeded(deploy("local", change={"mern:release": {"showObjects": False}}))

    assert done.children(release(done)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_the_namespace_is_there_before_the_release(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    namespace = done.one(NAMESPACE)
    assert namespace.inputs["metadata"]["name"] == f"mern-{stack}"
    assert namespace.inputs["metadata"]["labels"] == {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
    assert namespace.urn in release(done).depends_on


@pytest.mark.parametrize("stack", STACKS)
def test_only_what_production_serves_is_protected(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    protected = [resource.type for resource in done.resources if resource.protect]
    assert sorted(protected) == (
        ["helm:index:ChartRelease", NAMESPACE, RELEASE] if stack == "production" else []
    )


def test_a_namespace_of_someone_else_only_gets_labels(deploy: Deploy) -> None:
    done = succeeded(deploy("local", change={"mern:namespace": {"name": "team", "mode": "existing"}}))

    patch = done.one("kubernetes:core/v1:NamespacePatch")
    assert patch.inputs["metadata"]["name"] == "team"
    assert NAMESPACE not in done.types()
    assert release(done).inputs["namespace"] == "team"
    assert patch.urn in release(done).depends_on


@pytest.mark.parametrize("stack", ON_EKS)
def test_the_application_waits_for_the_load_balancer_controller(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    assert done.one(RELEASE, "load-balancer-controller-release").urn in release(done).depends_on
    values = done.one(RELEASE, "load-balancer-controller-release").inputs["values"]
    assert values["clusterName"] == stack
    assert values["vpcId"] == "vpc-1"


def test_the_laptop_has_neither_controller_nor_aws(deploy: Deploy) -> None:
    done = succeeded(deploy("local"))

    assert not [type_ for type_ in done.types() if "aws" in type_ or "LoadBalancer" in type_]


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_is_deployed_by_a_provider_that_the_stack_did_not_configure(
    stack: str, deploy: Deploy
) -> None:
    done = succeeded(deploy(stack))

    assert stack_file(stack)["pulumi:disable-default-providers"] == ["kubernetes", "aws"]
    used = [(resource.type, resource.provider) for resource in done.resources]
    used += [(call.token, call.provider) for call in done.calls]
    packages = {(type_.split(":")[0], provider) for type_, provider in used}
    assert {("kubernetes", "cluster")} == {(p, by) for p, by in packages if p == "kubernetes"}
    assert {("aws", "aws")} >= {(p, by) for p, by in packages if p == "aws"}


@pytest.mark.parametrize("stack", ON_EKS)
def test_the_providers_are_held_to_the_account_and_the_cluster_of_the_stack(
    stack: str, deploy: Deploy
) -> None:
    done = succeeded(deploy(stack))

    account = account_of(stack)
    provider = done.one("pulumi:providers:aws").inputs
    assert provider["region"] == "eu-central-1"
    assert json.loads(provider["allowedAccountIds"]) == [account]
    identifier = done.one("pulumi:providers:kubernetes").inputs["clusterIdentifier"]
    assert identifier == f"arn:aws:eks:eu-central-1:{account}:cluster/{stack}"


@pytest.mark.parametrize("stack", STACKS)
def test_the_kube_config_of_the_provider_is_secret(stack: str, deploy: Deploy) -> None:
    provider = succeeded(deploy(stack)).one("pulumi:providers:kubernetes")

    assert isinstance(provider.inputs["kubeconfig"], Secret)
    assert provider.inputs["clusterIdentifier"]


@pytest.mark.parametrize("stack", STACKS)
def test_the_exports_say_what_was_deployed_and_nothing_secret(stack: str, deploy: Deploy) -> None:
    done = succeeded(deploy(stack))

    exports = done.exports
    role = exports.pop("controllerRoleArn", None)
    cluster_id = exports.pop("cluster")["id"]
    if stack in ON_EKS:
        assert cluster_id.startswith(f"arn:aws:eks:eu-central-1:{account_of(stack)}:cluster/")
    else:
        assert cluster_id == "0c0ffee0"
    assert exports == {
        "namespace": f"mern-{stack}",
        "release": "mern",
        "chart": chart.load("./chart").description,
        "revision": 1,
        "hosts": [],
    }
    if stack in ON_EKS:
        arn = f"arn:aws:iam::{account_of(stack)}:role/mern.{stack}.{stack}.load-balancer-controller"
        assert role == arn
    else:
        assert role is None


def test_without_an_image_tag_the_images_stay_as_they_run(deploy: Deploy, cluster: FakeApi) -> None:
    running = {"mernClient": "3.0.0", "mernServer": "3.0.1", "pythonScript": "2.9.0"}
    cluster.has_run(4, {part: {"image": {"tag": "1.0.0"}} for part in running})
    cluster.has_run(5, {part: {"image": {"tag": tag}} for part, tag in running.items()})

    values = release(succeeded(deploy("staging", answers=in_state()))).inputs["values"]

    assert {part: values[part]["image"]["tag"] for part in running} == running


def test_the_images_of_one_run_are_deployed_and_the_others_stay_as_they_run(
    deploy: Deploy, cluster: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {part: f"sha256:{digit * 64}" for part, digit in (("mernServer", "a"), ("mernClient", "b"))}
    running = {part: {"image": {"digest": digest}} for part, digest in digests.items()}
    cluster.has_run(5, {**running, "pythonScript": {"image": {"tag": "2.9.0"}}})
    monkeypatch.setenv("MERN_IMAGES", f"mernServer=sha256:{'c' * 64}")

    done = succeeded(deploy("staging", answers=in_state()))

    values = release(done).inputs["values"]
    assert values["mernServer"]["image"]["digest"] == "sha256:" + "c" * 64
    assert values["mernClient"]["image"]["digest"] == digests["mernClient"]
    assert values["pythonScript"]["image"]["tag"] == "2.9.0"
    assert "tag" not in values["mernServer"]["image"]

    own = {"mernServer": {"image": {"digest": digests["mernServer"]}}}
    warnings: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", lambda text, *_: warnings.append(text))
    succeeded(deploy("staging", change={"mern:values": own, "mern:imageTag": "2"}, answers=in_state()))

    commands = [
        f"    pulumi config rm --path '{key}' --stack staging"
        for key in ("mern:values.mernServer.image.digest", "mern:imageTag")
    ]
    text = "a later run without --image deploys again what the config says. To keep these images"
    assert "\n".join([text, *commands]) in warnings


POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}
NO_KEYS: dict[str, Any] = {"mern:awsAccessKeyId": None, "mern:awsSecretAccessKey": None}


def whole_chart(args: dict[str, Any]) -> dict[str, Any]:
    """A chart with what the program looks for."""
    answer = rendered(args)
    if json.loads(args["jsonOpts"])["chart"] == "chart":
        pod = {"spec": {"serviceAccountName": "mern-python-script"}}
        job = {"jobTemplate": {"spec": {"template": pod}}}
        answer["result"].append(
            {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "script"}, "spec": job}
        )
    return answer


@pytest.mark.parametrize("identity", ["irsa", "pod-identity"])
def test_the_script_gets_a_role_of_its_own_with_the_policy_of_the_stack(
    identity: str, deploy: Deploy
) -> None:
    script = {"policy": POLICY, "identity": identity}
    answers: Answers = {TEMPLATE: whole_chart}
    done = succeeded(deploy("staging", change={"mern:pythonScript": script, **NO_KEYS}, answers=answers))

    assert json.loads(done.one("aws:iam/policy:Policy", "python-script-policy").inputs["policy"]) == POLICY
    role = done.one("aws:iam/role:Role", "python-script-role").inputs
    assert role["name"] == "mern.staging.staging.python-script"
    values = release(done).inputs["values"]["pythonScript"]
    assert "awsAccessKeyId" not in values
    trust = json.loads(role["assumeRolePolicy"])["Statement"][0]
    if identity == "irsa":
        annotations = values["serviceAccount"]["annotations"]
        assert annotations == {"eks.amazonaws.com/role-arn": f"arn:aws:iam::111111111111:role/{role['name']}"}
        claims = trust["Condition"]["StringEquals"]
        assert claims["oidc.example/id/1:sub"] == "system:serviceaccount:mern-staging:mern-python-script"
    else:
        assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        association = done.one(ASSOCIATION, "python-script-association")
        assert association.inputs["namespace"] == "mern-staging"
        assert association.inputs["serviceAccount"] == "mern-python-script"
        assert association.urn in release(done).depends_on
    assert done.one("aws:iam/rolePolicyAttachment:RolePolicyAttachment", "python-script-attachment").urn in (
        release(done).depends_on
    )


def test_a_role_that_is_there_can_be_given_by_pod_identity(deploy: Deploy) -> None:
    arn = "arn:aws:iam::111111111111:role/etl"
    script = {"roleArn": arn, "identity": "pod-identity"}
    answers: Answers = {TEMPLATE: whole_chart}
    done = succeeded(deploy("staging", change={"mern:pythonScript": script, **NO_KEYS}, answers=answers))

    association = done.one(ASSOCIATION, "python-script-association")
    assert association.inputs["roleArn"] == arn
    assert association.urn in release(done).depends_on
    assert "python-script-role" not in [resource.name for resource in done.resources]


def test_all_faults_of_the_config_end_the_program_together_before_anything_is_registered(
    deploy: Deploy,
) -> None:
    done = deploy(
        "production",
        change={
            "mern:mongodbUri": None,
            "mern:mongodbUrl": "mongodb://app:pw-of-mongodb@mongo.example/mern",
            "mern:release": {"timeout": "long"},
            "mern:namespace": {"nmae": "mern"},
        },
        plain=frozenset({"mern:awsSecretAccessKey"}),
    )

    assert isinstance(done.error, pulumi.RunError)
    text = str(done.error)
    for key in (
        "mern:mongodbUri is missing",
        "mern:mongodbUrl is not a key",
        "mern:release.timeout should be",
        "mern:namespace.name is missing",
        "mern:namespace.nmae is not a key",
        "mern:awsSecretAccessKey is not encrypted",
    ):
        assert key in text
    assert not [hidden for hidden in HIDDEN if hidden in text]
    assert done.resources == []


# The words of the real provider for a template that fails.
CANNOT_RENDER = (
    "invocation of kubernetes:helm:template returned an error: failed to generate YAML for "
    "specified Helm chart: failed to create chart from template: "
)


@pytest.mark.parametrize(
    "fault",
    [
        "execution error at (mern/templates/mern-server.yaml:21:5): replicas must be even",
        "values don't meet the specifications of the schema(s) in the following chart(s):\n"
        "mern:\n- at '/mernServer/secrets/JWT_SECRET': 'value-of-jwt-secret' does not match",
    ],
)
@pytest.mark.parametrize("stack", STACKS)
def test_a_chart_that_cannot_be_rendered_ends_the_program_before_anything_is_registered(
    stack: str, fault: str, deploy: Deploy
) -> None:
    done = deploy(stack, answers={TEMPLATE: fails(CANNOT_RENDER + fault)})

    assert isinstance(done.error, pulumi.RunError)
    text = str(done.error)
    assert text.startswith(f"chart ./chart of release mern-{stack}/mern cannot be rendered:\n")
    assert fault.replace("value-of-jwt-secret", "[secret]") in text
    assert not [hidden for hidden in HIDDEN if hidden in text]
    assert done.besides_providers() == []


def test_the_program_of_a_local_stack_imports_none_of_what_is_slow() -> None:
    """Each takes 0.03 to 0.3 s, in every preview."""
    slow = ("boto3", "pulumi_aws", "pulumi_kubernetes.core.v1._inputs", "requests")
    text = (ROOT / "__main__.py").read_text()
    imports = "\n".join(line for line in text.splitlines() if line.startswith(("import ", "from ")))
    program = f"{imports}\nimport sys\nprint([name for name in {slow} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_an_environment_of_a_pull_request_has_a_quota_and_the_right_to_deploy_before_the_release(
    deploy: Deploy,
) -> None:
    filled = template.filled(stack_file("preview"), 482)
    done = succeeded(deploy("preview", change={**filled, "mern:loadBalancerController": {"mode": "none"}}))

    settings = stack_file("preview")["mern:namespace"]
    namespace = done.one(NAMESPACE)
    quota = done.one("kubernetes:core/v1:ResourceQuota")
    binding = done.one("kubernetes:rbac.authorization.k8s.io/v1:RoleBinding")
    assert namespace.inputs["metadata"]["name"] == "mern-pr-482"
    labels = namespace.inputs["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert quota.inputs["metadata"] == {"name": "mern", "namespace": "mern-pr-482"}
    assert quota.inputs["spec"] == {"hard": settings["quota"]}
    assert binding.inputs["roleRef"]["name"] == "mern-environment"
    assert binding.inputs["subjects"][0]["name"] == "mern:environments"
    assert namespace.urn in binding.depends_on
    assert binding.urn in quota.depends_on
    assert {namespace.urn, binding.urn, quota.urn} <= release(done).depends_on
