"""The stand-in for Pulumi's AWS provider, started and asked as the engine does it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto.provider_pb2_grpc import ResourceProviderStub

from tests.stand_ins.aws_account import Account, aws_server, provider_program
from tests.stand_ins.provider_server import Properties, to_dict, to_struct

REGION = "eu-central-1"
ROLE, POLICY = "aws:iam/role:Role", "aws:iam/policy:Policy"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"


def document(action: str, **about: Any) -> str:
    statement = {"Effect": "Allow", "Action": action, **about}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


TRUST = document("sts:AssumeRole", Principal={"Service": "pods.eks.amazonaws.com"})
GET, PUT = document("s3:GetObject", Resource="*"), document("s3:PutObject", Resource="*")


@dataclass(frozen=True)
class Engine:
    """The calls of an engine, with dicts in place of messages."""

    stub: Any
    account: Account

    def configure(self, account: str) -> None:
        allowed = json.dumps([account])
        variables = {"aws:config:region": REGION, "aws:config:allowedAccountIds": allowed}
        self.stub.Configure(messages.ConfigureRequest(variables=variables))

    def check(self, type_: str, inputs: Properties) -> tuple[Properties, list[str]]:
        answer = self.stub.Check(messages.CheckRequest(type=type_, news=to_struct(inputs)))
        return to_dict(answer.inputs), [failure.reason for failure in answer.failures]

    def create(self, type_: str, inputs: Properties, preview: bool = False) -> tuple[str, Properties]:
        checked, failures = self.check(type_, inputs)
        assert failures == []
        request = messages.CreateRequest(type=type_, properties=to_struct(checked), preview=preview)
        answer = self.stub.Create(request)
        return answer.id, to_dict(answer.properties)

    def diff(
        self, type_: str, state: Properties, old: Properties, new: Properties
    ) -> tuple[list[str], list[str]]:
        """What changed, and what of it replaces the resource."""
        checked, _ = self.check(type_, new)
        answer = self.stub.Diff(
            messages.DiffRequest(
                type=type_, olds=to_struct(state), old_inputs=to_struct(old), news=to_struct(checked)
            )
        )
        assert (answer.changes == messages.DiffResponse.DIFF_SOME) == bool(answer.diffs)
        return list(answer.diffs), list(answer.replaces)

    def update(self, type_: str, id: str, state: Properties, inputs: Properties) -> Properties:
        checked, _ = self.check(type_, inputs)
        request = messages.UpdateRequest(type=type_, id=id, olds=to_struct(state), news=to_struct(checked))
        return to_dict(self.stub.Update(request).properties)

    def read(self, type_: str, id: str, state: Properties) -> tuple[str, Properties]:
        answer = self.stub.Read(messages.ReadRequest(type=type_, id=id, properties=to_struct(state)))
        return answer.id, to_dict(answer.properties)

    def delete(self, type_: str, id: str, state: Properties) -> None:
        self.stub.Delete(messages.DeleteRequest(type=type_, id=id, properties=to_struct(state)))


@contextmanager
def plugin(folder: Path, env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The running program, and its port."""
    provider_program(folder / "pulumi-resource-aws")
    with subprocess.Popen(
        [folder / "pulumi-resource-aws"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    ) as process:
        assert process.stdout
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with aws_server() as server:
        account = Account.open(server, "111111111111", REGION)
        account.create_cluster("shop")
        with (
            plugin(tmp_path_factory.mktemp("plugin"), account.env) as (_, port),
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            found = Engine(ResourceProviderStub(channel), account)
            found.configure("111111111111")
            yield found


def test_a_role_and_its_policy_live_their_whole_life(engine: Engine) -> None:
    iam = engine.account.client("iam")
    wanted = {
        "name": "shop",
        "description": "d",
        "assumeRolePolicy": TRUST,
        "tags": {"a": "1"},
    }
    assert engine.create(ROLE, wanted, preview=True)[0] == ""
    role_id, role = engine.create(ROLE, wanted)
    assert role["arn"] == iam.get_role(RoleName=role_id)["Role"]["Arn"]
    given = {"name": "shop", "description": "d", "policy": GET, "tags": {"a": "1"}}
    policy_id, policy = engine.create(POLICY, given)
    both = {"role": "shop", "policyArn": policy_id}
    attachment_id, attachment = engine.create(ATTACHMENT, both)

    for type_, state, inputs in (
        (ROLE, role, wanted),
        (POLICY, policy, given),
        (ATTACHMENT, attachment, both),
    ):
        assert engine.diff(type_, state, inputs, inputs) == ([], [])
    # Another order of the same keys is no change; another action is.
    same = json.dumps(json.loads(GET), sort_keys=True, indent=1)
    assert engine.diff(POLICY, policy, given, given | {"policy": same}) == ([], [])
    changed = {**given, "policy": PUT, "tags": {"b": "2"}}
    assert engine.diff(POLICY, policy, given, changed) == (["policy", "tags"], [])
    assert engine.diff(POLICY, policy, given, given | {"description": "e"}) == (["description"],) * 2
    assert engine.diff(ROLE, role, wanted, {k: wanted[k] for k in wanted if k != "tags"}) == (["tags"], [])
    for _ in range(6):  # more than IAM keeps
        changed["policy"] = PUT if "Get" in policy["policy"] else GET
        policy = engine.update(POLICY, policy_id, policy, changed)
    assert policy["tags"] == {"b": "2"}
    role = engine.update(ROLE, role_id, role, wanted | {"description": "e", "tags": {}})
    assert (role["description"], role["tags"]) == ("e", {})

    # What is changed from outside is seen by a refresh.
    iam.tag_role(RoleName="shop", Tags=[{"Key": "z", "Value": "1"}])
    assert engine.read(ROLE, role_id, role)[1]["tags"] == {"z": "1"}
    for type_, id, state in ((ATTACHMENT, attachment_id, attachment), (POLICY, policy_id, policy)):
        assert engine.read(type_, id, state)[0] == id
        engine.delete(type_, id, state)
        assert engine.read(type_, id, state)[0] == ""
    engine.delete(ROLE, role_id, role)
    assert iam.list_roles()["Roles"] == []


def test_a_role_can_have_a_path_and_a_boundary(engine: Engine) -> None:
    iam = engine.account.client("iam")
    limit = iam.create_policy(PolicyName="limit", PolicyDocument=GET)["Policy"]["Arn"]
    wanted = {
        "name": "shop",
        "assumeRolePolicy": TRUST,
        "path": "/teams/",
        "permissionsBoundary": limit,
        "tags": {"a": "1"},
    }

    id, role = engine.create(ROLE, wanted)

    assert role["arn"] == "arn:aws:iam::111111111111:role/teams/shop"
    assert engine.diff(ROLE, role, wanted, wanted | {"path": "/"}) == (["path"],) * 2
    free = {key: text for key, text in wanted.items() if key != "permissionsBoundary"}
    assert engine.diff(ROLE, role, wanted, free) == (["permissionsBoundary"], [])
    role = engine.update(ROLE, id, role, free)
    assert "permissionsBoundary" not in role
    role = engine.update(ROLE, id, role, wanted)
    assert iam.get_role(RoleName=id)["Role"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == limit
    engine.delete(ROLE, id, role)
    iam.delete_policy(PolicyArn=limit)


def test_an_association_changes_its_role_in_place(engine: Engine) -> None:
    arn = "arn:aws:iam::111111111111:role/{}"
    wanted = {
        "clusterName": "shop",
        "namespace": "kube-system",
        "serviceAccount": "controller",
        "roleArn": arn.format("one"),
        "tags": {"a": "1"},
    }
    id, state = engine.create(ASSOCIATION, wanted)

    assert engine.diff(ASSOCIATION, state, wanted, wanted) == ([], [])
    other = wanted | {"roleArn": arn.format("two")}
    assert engine.diff(ASSOCIATION, state, wanted, other) == (["roleArn"], [])
    assert engine.diff(ASSOCIATION, state, wanted, wanted | {"namespace": "b"}) == (["namespace"],) * 2
    assert engine.update(ASSOCIATION, id, state, other)["roleArn"] == arn.format("two")
    engine.delete(ASSOCIATION, id, state)
    assert engine.read(ASSOCIATION, id, state)[0] == ""


def test_what_it_does_not_know_it_refuses_by_name(engine: Engine) -> None:
    _, failures = engine.check(ROLE, {"name": "a", "namePrefix": "b"})
    assert failures == ["the stand-in for AWS knows no namePrefix"]
    with pytest.raises(grpc.RpcError) as caught:
        engine.check("aws:s3/bucket:Bucket", {})
    assert caught.value.details() == "check: the stand-in for AWS knows no aws:s3/bucket:Bucket"
    with pytest.raises(grpc.RpcError) as caught:
        engine.create(ROLE, {"name": "a", "assumeRolePolicy": TRUST, "tags": {"a": 3}})
    assert "Invalid type for parameter Tags[0].Value" in caught.value.details()


def test_another_account_is_refused(engine: Engine) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        engine.configure("333333333333")
    assert caught.value.details() == "configure: AWS account ID not allowed: 111111111111"


def test_it_makes_nothing_but_on_this_machine(tmp_path: Path) -> None:
    with (
        plugin(tmp_path, {"AWS_ENDPOINT_URL": "https://iam.amazonaws.com"}) as (_, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        ResourceProviderStub(channel).Configure(messages.ConfigureRequest())
    assert "wants AWS_ENDPOINT_URL to be a server on this machine" in caught.value.details()


@pytest.mark.parametrize("end", ["standard input", signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_engine(tmp_path: Path, end: signal.Signals | str) -> None:
    with plugin(tmp_path, {}) as (process, _):
        if isinstance(end, signal.Signals):
            process.send_signal(end)
        else:
            assert process.stdin
            process.stdin.close()
        assert process.wait(timeout=10) == (-end if isinstance(end, signal.Signals) else 0)


def test_it_shares_nothing_with_the_program() -> None:
    program = "import sys, tests.stand_ins.aws_provider; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"components", "sandbox", "settings"} & set(loaded.stdout.split())
