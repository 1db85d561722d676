"""A stand-in for `pulumi-resource-aws`, Pulumi's AWS provider plugin, for tests.

The real plugin is a download from its maker, and AWS needs an account. This program makes the kinds of
resources in `KINDS`, by boto3, in the server that AWS_ENDPOINT_URL names, which must be on this machine
(`tests/stand_ins/aws_account.py`). It keeps nothing itself, and knows the inputs that this project
gives; any other is refused by name. What AWS refuses, botocore's service models and the server refuse.

    python -m tests.stand_ins.aws_provider
"""

import contextlib
import importlib.metadata
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2 as messages

from tests.stand_ins.provider_server import Properties, run, to_dict, to_struct

POLICIES = {"assumeRolePolicy", "policy"}
"""Inputs that are JSON: kept in one way of writing it, by which they can be compared."""


class Role:
    """An IAM role; its id is its name."""

    service = "iam"
    inputs = frozenset({"name", "path", "description", "assumeRolePolicy", "permissionsBoundary", "tags"})
    replacing = frozenset({"name", "path"})
    """Inputs that AWS does not change in what there is."""

    def create(self, iam: Any, it: Properties) -> str:
        iam.create_role(
            RoleName=it["name"],
            Path=it.get("path", "/"),
            AssumeRolePolicyDocument=it["assumeRolePolicy"],
            Description=it.get("description", ""),
            Tags=tag_list(it),
            **({"PermissionsBoundary": it["permissionsBoundary"]} if "permissionsBoundary" in it else {}),
        )
        return str(it["name"])

    def read(self, iam: Any, id: str, _it: Properties) -> Properties:
        role = iam.get_role(RoleName=id)["Role"]
        boundary = role.get("PermissionsBoundary")
        return {
            "name": id,
            "arn": role["Arn"],
            "description": role.get("Description", ""),
            "assumeRolePolicy": canonical(role["AssumeRolePolicyDocument"]),
            "tags": tag_map(role),
            **path_of(role),
            **({"permissionsBoundary": boundary["PermissionsBoundaryArn"]} if boundary else {}),
        }

    def update(self, iam: Any, id: str, old: Properties, new: Properties) -> None:
        iam.update_role(RoleName=id, Description=new.get("description", ""))
        iam.update_assume_role_policy(RoleName=id, PolicyDocument=new["assumeRolePolicy"])
        if "permissionsBoundary" in new:
            iam.put_role_permissions_boundary(RoleName=id, PermissionsBoundary=new["permissionsBoundary"])
        elif "permissionsBoundary" in old:
            iam.delete_role_permissions_boundary(RoleName=id)
        iam.untag_role(RoleName=id, TagKeys=list(old.get("tags", {})))
        iam.tag_role(RoleName=id, Tags=tag_list(new))

    def delete(self, iam: Any, id: str, _it: Properties) -> None:
        give_up = time.monotonic() + 30
        while True:
            try:
                iam.delete_role(RoleName=id)
                return
            except iam.exceptions.DeleteConflictException:  # tried again, as the real provider does
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)


class Policy:
    """An IAM policy; its id is its ARN."""

    service = "iam"
    inputs = frozenset({"name", "path", "description", "policy", "tags"})
    replacing = frozenset({"name", "path", "description"})

    def create(self, iam: Any, it: Properties) -> str:
        made = iam.create_policy(
            PolicyName=it["name"],
            Path=it.get("path", "/"),
            PolicyDocument=it["policy"],
            Description=it.get("description", ""),
            Tags=tag_list(it),
        )
        return str(made["Policy"]["Arn"])

    def read(self, iam: Any, id: str, _it: Properties) -> Properties:
        policy = iam.get_policy(PolicyArn=id)["Policy"]
        version = iam.get_policy_version(PolicyArn=id, VersionId=policy["DefaultVersionId"])
        return {
            "name": policy["PolicyName"],
            "arn": id,
            "description": policy.get("Description", ""),
            "policy": canonical(version["PolicyVersion"]["Document"]),
            "tags": tag_map(policy),
            **path_of(policy),
        }

    def update(self, iam: Any, id: str, old: Properties, new: Properties) -> None:
        if new["policy"] != old["policy"]:
            self._delete_older_versions(iam, id)  # of which IAM keeps five
            iam.create_policy_version(PolicyArn=id, PolicyDocument=new["policy"], SetAsDefault=True)
        iam.untag_policy(PolicyArn=id, TagKeys=list(old.get("tags", {})))
        iam.tag_policy(PolicyArn=id, Tags=tag_list(new))

    def delete(self, iam: Any, id: str, _it: Properties) -> None:
        self._delete_older_versions(iam, id)
        iam.delete_policy(PolicyArn=id)

    def _delete_older_versions(self, iam: Any, id: str) -> None:
        for version in iam.list_policy_versions(PolicyArn=id)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=id, VersionId=version["VersionId"])


class RolePolicyAttachment:
    """A policy on a role; its id is both."""

    service = "iam"
    inputs = replacing = frozenset({"role", "policyArn"})

    def create(self, iam: Any, it: Properties) -> str:
        iam.attach_role_policy(RoleName=it["role"], PolicyArn=it["policyArn"])
        return f"{it['role']}/{it['policyArn']}"

    def read(self, iam: Any, _id: str, it: Properties) -> Properties | None:
        attached = iam.list_attached_role_policies(RoleName=it["role"])["AttachedPolicies"]
        is_there = it["policyArn"] in [policy["PolicyArn"] for policy in attached]
        return {"role": it["role"], "policyArn": it["policyArn"]} if is_there else None

    def delete(self, iam: Any, _id: str, it: Properties) -> None:
        iam.detach_role_policy(RoleName=it["role"], PolicyArn=it["policyArn"])


class PodIdentityAssociation:
    """A role for the pods of one ServiceAccount."""

    service = "eks"
    inputs = frozenset({"clusterName", "namespace", "serviceAccount", "roleArn", "tags"})
    replacing = inputs - {"roleArn"}  # moto tags clusters only

    def create(self, eks: Any, it: Properties) -> str:
        return str(eks.create_pod_identity_association(**it)["association"]["associationId"])

    def read(self, eks: Any, id: str, it: Properties) -> Properties:
        found = eks.describe_pod_identity_association(clusterName=it["clusterName"], associationId=id)
        return dict(found["association"])

    def update(self, eks: Any, id: str, _old: Properties, new: Properties) -> None:
        eks.update_pod_identity_association(
            clusterName=new["clusterName"], associationId=id, roleArn=new["roleArn"]
        )

    def delete(self, eks: Any, id: str, it: Properties) -> None:
        eks.delete_pod_identity_association(clusterName=it["clusterName"], associationId=id)


KINDS: dict[str, Any] = {
    "aws:iam/role:Role": Role(),
    "aws:iam/policy:Policy": Policy(),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": RolePolicyAttachment(),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": PodIdentityAssociation(),
}


def canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


def path_of(found: Any) -> Properties:
    """The path, where it is not the one of those that are given none."""
    return {} if found["Path"] == "/" else {"path": found["Path"]}


def tag_list(it: Properties) -> list[dict[str, str]]:
    """Tags as IAM has them."""
    return [{"Key": key, "Value": value} for key, value in it.get("tags", {}).items()]


def tag_map(found: Any) -> dict[str, str]:
    """Tags as Pulumi has them."""
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


class AwsProvider:
    """The plugin as the engine sees it."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}

    def configure(self, request: Any) -> messages.ConfigureResponse:
        if urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("the stand-in for AWS wants AWS_ENDPOINT_URL to be a server on this machine")
        session = boto3.Session(region_name=request.variables["aws:config:region"])
        account = session.client("sts").get_caller_identity()["Account"]
        allowed = json.loads(request.variables["aws:config:allowedAccountIds"] or "[]")
        if allowed and account not in allowed:
            raise ValueError(f"AWS account ID not allowed: {account}")
        self._clients = {service: session.client(service) for service in ("iam", "eks")}
        return messages.ConfigureResponse(supportsPreview=True)

    def check(self, request: Any) -> messages.CheckResponse:
        kind, inputs = self._kind(request), to_dict(request.news)
        failures = [
            messages.CheckFailure(property=key, reason=f"the stand-in for AWS knows no {key}")
            for key in sorted(inputs.keys() - kind.inputs)
        ]
        for key in POLICIES & inputs.keys():
            with contextlib.suppress(ValueError):  # not known yet, or for AWS to refuse
                inputs[key] = canonical(json.loads(inputs[key]))
        return messages.CheckResponse(inputs=to_struct(inputs), failures=failures)

    def diff(self, request: Any) -> messages.DiffResponse:
        state, new = to_dict(request.olds), to_dict(request.news)
        keys = to_dict(request.old_inputs).keys() | new.keys()
        changed = sorted(key for key in keys if state.get(key) != new.get(key))
        return messages.DiffResponse(
            changes=messages.DiffResponse.DIFF_SOME if changed else messages.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key in self._kind(request).replacing],
            deleteBeforeReplace="name" in new,  # names are unique
        )

    def create(self, request: Any) -> messages.CreateResponse:
        if request.preview:
            return messages.CreateResponse(properties=request.properties)
        inputs = to_dict(request.properties)
        id = self._kind(request).create(self._client(request), inputs)
        return messages.CreateResponse(id=id, properties=to_struct(self._state(request, id, inputs) or {}))

    def read(self, request: Any) -> messages.ReadResponse:
        inputs = to_dict(request.inputs)
        state = self._state(request, request.id, to_dict(request.properties))
        if state is None:
            return messages.ReadResponse()
        inputs = {key: state[key] for key in inputs if key in state}
        return messages.ReadResponse(id=request.id, properties=to_struct(state), inputs=to_struct(inputs))

    def update(self, request: Any) -> messages.UpdateResponse:
        old, new = to_dict(request.olds), to_dict(request.news)
        if request.preview:
            return messages.UpdateResponse(properties=to_struct(old | new))
        self._kind(request).update(self._client(request), request.id, old, new)
        return messages.UpdateResponse(properties=to_struct(self._state(request, request.id, new) or {}))

    def delete(self, request: Any) -> empty_pb2.Empty:
        self._kind(request).delete(self._client(request), request.id, to_dict(request.properties))
        return empty_pb2.Empty()

    def _kind(self, request: Any) -> Any:
        if request.type not in KINDS:
            raise ValueError(f"the stand-in for AWS knows no {request.type}")
        return KINDS[request.type]

    def _client(self, request: Any) -> Any:
        return self._clients[self._kind(request).service]

    def _state(self, request: Any, id: str, it: Properties) -> Properties | None:
        """The resource as AWS has it now; None where it is gone."""
        kind = self._kind(request)
        try:
            state: Properties | None = kind.read(self._client(request), id, it)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchEntity", "ResourceNotFoundException"):
                return None
            raise
        return state


if __name__ == "__main__":
    run(AwsProvider(), importlib.metadata.version("pulumi-aws"))
