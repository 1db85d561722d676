"""The IAM policies in access/: what the program asks of AWS is granted, and nothing besides."""

import json
import re
from typing import Any

import pytest

from sandbox.engine import PROJECT

HEALTH = "elasticloadbalancing:DescribeTargetHealth"
QUESTIONS: dict[str, set[str]] = {
    "sts.get_caller_identity": set(),  # needs no permission
    "eks.describe_cluster": {"eks:DescribeCluster"},
    "eks.describe_addon": {"eks:DescribeAddon"},
    "ec2.describe_subnets": {"ec2:DescribeSubnets"},
    "iam.get_open_id_connect_provider": {"iam:GetOpenIDConnectProvider"},
    "acm.list_certificates": {"acm:ListCertificates"},
    "elbv2.describe_target_health": {HEALTH},  # after a deployment
    "s3.delete_object": set(),  # of the state's bucket, see docs/ci.md
}
"""What `components/aws.py` asks, and the actions behind it."""
# The resources that the program makes, and the actions behind them: of a refresh, and of a creation, an
# update and a deletion.
READS = {
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
        "iam:PutRolePermissionsBoundary",
        "iam:DeleteRolePermissionsBoundary",
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
    source = (PROJECT / "components/aws.py").read_text()
    asked = re.findall(r'self\._(?:ask|list)\("(\w+)", "(\w+)"', source)
    assert {".".join(each) for each in asked} == QUESTIONS.keys()
    files = [PROJECT / "__main__.py", *(PROJECT / "components").rglob("*.py")]
    made = {name for file in files for name in re.findall(r"\baws\.([a-z0-9]+\.\w+)\(", file.read_text())}
    assert made == READS.keys() == WRITES.keys()


def test_a_preview_may_read_what_the_program_asks_and_no_more() -> None:
    asked = {action for actions in QUESTIONS.values() for action in actions} - {HEALTH}
    assert granted("preview") == asked | {action for actions in READS.values() for action in actions}
    assert all(re.match(r"\w+:(Describe|Get|List)", action) for action in granted("preview"))


def test_a_deployment_may_write_what_the_program_makes_and_no_more() -> None:
    assert granted("deploy") == {action for actions in WRITES.values() for action in actions} | {HEALTH}


def test_an_environment_may_make_nothing_in_aws() -> None:
    """A role whose policies it may write would give the code of a pull request all of the account."""
    asked = {action for actions in QUESTIONS.values() for action in actions}
    assert granted("environments") == asked


@pytest.mark.parametrize("name", ["preview", "deploy", "environments"])
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
