"""The IAM policies in access/: what the program asks of AWS is granted, and nothing besides."""

import json
import re
from typing import Any

import pytest

from sandbox.engine import PROJECT

# What the program uses of AWS, and the actions behind it: of a function and of a resource's refresh, and
# of a resource's creation, update and deletion.
READS = {
    "eks.get_cluster": ["eks:DescribeCluster"],
    "eks.get_addon": ["eks:DescribeAddon"],
    "ec2.get_subnets": ["ec2:DescribeSubnets"],
    "ec2.get_subnet": ["ec2:DescribeSubnets"],
    "iam.get_open_id_connect_provider": ["iam:GetOpenIDConnectProvider"],
    "iam.Role": ["iam:GetRole", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies", "iam:ListRoleTags"],
    "iam.Policy": ["iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListPolicyVersions", "iam:ListPolicyTags"],
    "iam.RolePolicyAttachment": ["iam:ListAttachedRolePolicies"],
    "eks.PodIdentityAssociation": ["eks:DescribePodIdentityAssociation"],
}
WRITES = {
    "iam.Role": [
        "iam:CreateRole",
        "iam:UpdateRole",
        "iam:UpdateRoleDescription",
        "iam:UpdateAssumeRolePolicy",
        "iam:TagRole",
        "iam:UntagRole",
        "iam:ListInstanceProfilesForRole",  # before a role is deleted
        "iam:DeleteRole",
    ],
    "iam.Policy": [
        "iam:CreatePolicy",
        "iam:CreatePolicyVersion",
        "iam:DeletePolicyVersion",
        "iam:TagPolicy",
        "iam:UntagPolicy",
        "iam:DeletePolicy",
    ],
    "iam.RolePolicyAttachment": ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
    "eks.PodIdentityAssociation": [
        "eks:CreatePodIdentityAssociation",
        "eks:UpdatePodIdentityAssociation",
        "eks:DeletePodIdentityAssociation",
        "eks:TagResource",
        "eks:UntagResource",
        "iam:PassRole",
    ],
}
BY_CLI = {"acm:ListCertificates"}
HEALTH = "elasticloadbalancing:DescribeTargetHealth"
UNLIMITED = {"acm:ListCertificates", "ec2:DescribeSubnets", HEALTH}
"""What AWS limits to no resource."""


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((PROJECT / f"access/{name}-policy.json").read_text())[
        "Statement"
    ]
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def granted(name: str) -> set[str]:
    return {action for each in statements(name) for action in listed(each["Action"])}


def test_the_tables_hold_what_the_program_uses_of_aws() -> None:
    files = [PROJECT / "__main__.py", *(PROJECT / "components").rglob("*.py")]
    used = {name for file in files for name in re.findall(r"\baws\.([a-z0-9]+\.\w+)\(", file.read_text())}
    assert {name for name in used if not name.endswith("Args")} == set(READS)
    assert {name for name in READS if name.partition(".")[2][0].isupper()} == set(WRITES)


def test_a_preview_may_read_what_the_program_asks_and_no_more() -> None:
    assert granted("preview") == {action for actions in READS.values() for action in actions} | BY_CLI
    assert all(re.match(r"\w+:(Describe|Get|List)", action) for action in granted("preview"))


def test_a_deployment_may_write_what_the_program_makes_and_no_more() -> None:
    assert granted("deploy") == {action for actions in WRITES.values() for action in actions} | {HEALTH}


@pytest.mark.parametrize("name", ["preview", "deploy"])
def test_everything_is_limited_to_this_stack_or_cluster(name: str) -> None:
    for each in statements(name):
        actions = set(listed(each["Action"]))
        for resource in listed(each["Resource"]):
            if resource == "*":
                assert actions <= UNLIMITED
                assert each["Condition"] == {"StringEquals": {"aws:RequestedRegion": "REGION"}}
            elif resource.startswith(("arn:aws:iam::ACCOUNT:role/", "arn:aws:iam::ACCOUNT:policy/")):
                assert resource.endswith("/mern.STACK.*")
            elif ":eks:" in resource:
                assert re.search(r"[:/]CLUSTER\b", resource)
            else:
                assert resource.startswith("arn:aws:") and ":ACCOUNT:" in resource


def test_roles_are_passed_to_eks_and_hold_policies_of_the_stack_alone() -> None:
    conditions = {
        action: each.get("Condition") for each in statements("deploy") for action in listed(each["Action"])
    }
    assert conditions["iam:PassRole"] == {"StringEquals": {"iam:PassedToService": "pods.eks.amazonaws.com"}}
    own = {"ArnLike": {"iam:PolicyARN": "arn:aws:iam::ACCOUNT:policy/mern.STACK.*"}}
    assert conditions["iam:AttachRolePolicy"] == conditions["iam:DetachRolePolicy"] == own
