"""A stack's config becomes settings, or one message with all its faults."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from settings import KEYS, Settings
from tests.bad_input import path_in

# What no stack goes without.
LEAST: dict[str, Any] = {
    "cluster": {"kubeconfig": "~/.kube/config", "context": "laptop"},
    "namespace": {"name": "mern"},
    "mongodbUri": "mongodb://app:pw-of-mongodb@mongo.example/mern",
    "awsAccessKeyId": "value-of-key-id",
    "awsSecretAccessKey": "value-of-secret-key",
}
ENCRYPTED = {"mongodbUri", "serverSecrets", "awsAccessKeyId", "awsSecretAccessKey"}
HIDDEN = ("pw-of-mongodb", "value-of-key-id", "value-of-secret-key", "value-of-jwt-secret")

EKS = {
    "cluster": {"eksClusterName": "shop"},
    "aws": {"accountId": "111111111111", "region": "eu-central-1"},
}
ROLE = {"roleArn": "arn:aws:iam::111111111111:role/etl"}
NO_KEYS = {"awsAccessKeyId": None, "awsSecretAccessKey": None}


def in_aws(**more: Any) -> dict[str, Any]:
    return {"aws": {**EKS["aws"], **more}}


def parse(change: Mapping[str, Any], encrypted: set[str] = ENCRYPTED) -> Settings:
    """The settings of `LEAST` with these keys changed, and those that are None left out."""
    config = {key: value for key, value in {**LEAST, **change}.items() if value is not None}
    return Settings.parse(as_text(config), encrypted, "staging")


def as_text(config: Mapping[str, Any]) -> dict[str, str]:
    """The config as the engine hands it over."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def faults(change: Mapping[str, Any], encrypted: set[str] = ENCRYPTED) -> dict[str, str]:
    """What the message says: the fault, by the command that mends it."""
    with pytest.raises(pulumi.RunError) as caught:
        parse(change, encrypted)
    text = str(caught.value)
    assert not [hidden for hidden in HIDDEN if hidden in text]
    title, *lines = text.splitlines()
    said = [line.strip() for line in lines[::2]]
    mends = [line.strip().removesuffix(" --stack staging") for line in lines[1::2]]
    count = "1 fault" if len(said) == 1 else f"{len(said)} faults"
    assert title == f"{count} in the config of stack staging (Pulumi.staging.yaml):"
    return dict(zip(said, mends, strict=True))


@pytest.mark.parametrize("region", ["eu-central-1", "us-gov-west-1", "eusc-de-east-1", "ap-southeast-12"])
def test_a_region_can_be_in_every_partition_of_aws(region: str) -> None:
    assert parse({"aws": {**EKS["aws"], "region": region}}).aws


def test_roles_can_have_a_boundary_a_path_and_tags() -> None:
    boundary = "arn:aws:iam::aws:policy/PowerUserAccess"  # one of AWS is of every account
    given = in_aws(
        roles={"permissionsBoundary": boundary, "path": "/teams/shop/"},
        tags={"cost centre": "", "Größe": "4+1"},
    )

    found = parse(given).aws

    assert found
    assert (found.roles.permissions_boundary, found.roles.path) == (boundary, "/teams/shop/")
    assert found.tags == {"cost centre": "", "Größe": "4+1"}


def test_a_stack_needs_no_more_than_a_cluster_a_namespace_and_its_credentials() -> None:
    done = parse({})

    assert done.cluster.context == "laptop"
    assert done.namespace.name == "mern"
    assert done.mongodb_uri is not None
    assert done.mongodb_uri.get_secret_value() == LEAST["mongodbUri"]
    assert done.image_tag is None
    assert done.load_balancer_controller.mode == "none"
    assert done.release.timeout == 300


def test_everything_that_can_be_set_arrives() -> None:
    done = parse(
        {
            **EKS,
            **NO_KEYS,
            "namespace": {"name": "shop", "mode": "existing", "protect": True},
            "values": {"mernClient": {"replicas": 3}},
            "imageTag": "1.2.3",
            "serverSecrets": {"JWT_SECRET": "value-of-jwt-secret"},
            "pythonScript": ROLE,
            "loadBalancerController": {
                "mode": "install",
                "identity": "pod-identity",
                "chartRepository": "https://charts.example",
            },
            "release": {"timeout": 60, "showObjects": False},
        }
    )

    assert done.cluster.eks_cluster_name == "shop"
    assert done.aws is not None
    assert (done.aws.account_id, done.aws.region) == ("111111111111", "eu-central-1")
    assert (done.namespace.mode, done.namespace.protect) == ("existing", True)
    assert done.values == {"mernClient": {"replicas": 3}}
    assert done.image_tag == "1.2.3"
    assert done.server_secrets["JWT_SECRET"].get_secret_value() == "value-of-jwt-secret"
    assert done.aws_access_key_id is None
    assert done.python_script is not None
    assert done.python_script.role_arn == ROLE["roleArn"]
    assert done.load_balancer_controller.mode == "install"
    assert done.load_balancer_controller.identity == "pod-identity"
    assert done.load_balancer_controller.chart_repository == "https://charts.example"
    assert (done.release.timeout, done.release.show_objects) == (60, False)


def test_zero_and_false_are_values() -> None:
    done = parse(
        {
            "values": {"mernServer": {"replicas": 0, "autoscaling": {"enabled": False}}},
            "release": {"showObjects": False},
        }
    )

    assert done.values == {"mernServer": {"replicas": 0, "autoscaling": {"enabled": False}}}
    assert done.release.show_objects is False


def test_a_tag_of_digits_is_a_tag() -> None:
    assert parse({"imageTag": "7"}).image_tag == "7"


def test_credentials_do_not_show_when_settings_are_printed() -> None:
    done = parse({"serverSecrets": {"JWT_SECRET": "value-of-jwt-secret"}})

    assert not [hidden for hidden in HIDDEN if hidden in f"{done} {done!r}"]


@pytest.mark.parametrize(
    ("change", "fault", "mend"),
    [
        (
            {"mongodbUri": None},
            "mern:mongodbUri is missing",
            "pulumi config set --secret mern:mongodbUri",
        ),
        (
            {"cluster": None},
            "mern:cluster is missing",
            "pulumi config set --path 'mern:cluster.KEY' VALUE",
        ),
        (
            {"namespace": {}},
            "mern:namespace.name is missing",
            "pulumi config set --path 'mern:namespace.name' VALUE",
        ),
        (
            {"mongodbUri": ""},
            "mern:mongodbUri is empty",
            "pulumi config set --secret mern:mongodbUri",
        ),
    ],
)
def test_what_is_missing_is_named(change: dict[str, Any], fault: str, mend: str) -> None:
    assert faults(change) == {fault: mend}


@pytest.mark.parametrize(
    ("change", "fault", "mend"),
    [
        (
            {"imagetag": "1"},
            "mern:imagetag is not a key of this project; did you mean mern:imageTag?",
            "pulumi config rm mern:imagetag",
        ),
        (
            {"mongodbUrl": LEAST["mongodbUri"]},
            "mern:mongodbUrl is not a key of this project; did you mean mern:mongodbUri?",
            "pulumi config rm mern:mongodbUrl",
        ),
        (
            {"zzz": "1"},
            "mern:zzz is not a key of this project",
            "pulumi config rm mern:zzz",
        ),
        (
            {"release": {"timout": 60}},
            "mern:release.timout is not a key here; did you mean timeout?",
            "pulumi config rm --path 'mern:release.timout'",
        ),
        (
            {"release": {"zzz": 60}},
            "mern:release.zzz is not a key here; known are timeout, showObjects, dryRun, drift, leave, "
            "adopt, unlockRevision",
            "pulumi config rm --path 'mern:release.zzz'",
        ),
    ],
)
def test_a_key_that_does_not_exist_is_named_with_the_one_that_was_meant(
    change: dict[str, Any], fault: str, mend: str
) -> None:
    assert faults(change) == {fault: mend}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"release": {"timeout": "60"}}, "mern:release.timeout should be a whole number"),
        ({"release": {"timeout": True}}, "mern:release.timeout should be a whole number"),
        ({"release": {"timeout": 0}}, "mern:release.timeout should be greater than or equal to 1"),
        ({"release": {"showObjects": 0}}, "mern:release.showObjects should be true or false"),
        ({"release": "60"}, "mern:release is not an object"),
        ({"release": "long"}, "mern:release is not an object"),
        ({"values": [1]}, "mern:values is not an object"),
        (
            {"namespace": {"name": "My_Shop"}},
            "mern:namespace.name is not a name of at most 63 lower-case letters, digits and -",
        ),
        (
            {"namespace": {"name": "shop", "mode": "crate"}},
            "mern:namespace.mode is not one of 'create' or 'existing'",
        ),
        ({"imageTag": "a b"}, "mern:imageTag is not a tag of a container image"),
        (
            {"aws": {"accountId": "111111111111", "region": "Frankfurt"}},
            "mern:aws.region is not an AWS region, as in eu-central-1",
        ),
        (
            {**NO_KEYS, "pythonScript": {"roleArn": "etl"}},
            "mern:pythonScript.roleArn is not the ARN of an IAM role",
        ),
        *(
            (
                in_aws(roles={"path": path}),
                "mern:aws.roles.path is not a path of IAM, as in /teams/shop/, of at most 512 characters",
            )
            for path in ("", "teams", "/teams", "teams/", "//", "/of teams/", f"/{'a' * 511}/")
        ),
        (
            in_aws(roles={"permissionsBoundary": "arn:aws:iam::111111111111:role/limit"}),
            "mern:aws.roles.permissionsBoundary is not the ARN of an IAM policy",
        ),
        (
            in_aws(roles={"permissionsBoundary": "arn:aws:iam::222222222222:policy/limit"}),
            "mern:aws.roles.permissionsBoundary is of another account than mern:aws.accountId, and a role "
            "takes policies of its own",
        ),
        (
            in_aws(tags={"Aws:team": "shop"}),
            'mern:aws.tags["Aws:team"] is not a tag\'s key for AWS: at most 128 letters, digits, blanks and '
            "_.:/=+-@, and no aws: before them",
        ),
        (
            in_aws(tags={"team": "shop, web"}),
            "mern:aws.tags.team is not a tag's value for AWS: at most 256 letters, digits, blanks and "
            "_.:/=+-@",
        ),
        (in_aws(tags={"team": "shop", "Team": "web"}), "mern:aws.tags.Team is the same key as team to IAM"),
        (in_aws(tags={"team": 1}), "mern:aws.tags.team should be text: put it in quotes"),
        (
            {"loadBalancerController": {"chartRepository": ""}},
            "mern:loadBalancerController.chartRepository is not the address of a chart repository, as in "
            "https://aws.github.io/eks-charts",
        ),
        (
            {"serverSecrets": {"JWT-SECRET": "value-of-jwt-secret"}},
            "mern:serverSecrets.JWT-SECRET is not the name of an environment variable",
        ),
        (
            {"serverSecrets": {"JWT_SECRET": 5}},
            "mern:serverSecrets.JWT_SECRET should be text: put it in quotes",
        ),
        ({"serverSecrets": "value-of-jwt-secret"}, "mern:serverSecrets is not an object"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(change: dict[str, Any], fault: str) -> None:
    assert list(faults(change)) == [fault]


@pytest.mark.parametrize("text", ["value-of-jwt-secret", '"value-of-jwt-secret"'])
def test_what_mends_a_credential_encrypts_it(text: str) -> None:
    assert faults({"serverSecrets": text}) == {
        "mern:serverSecrets is not an object": ("pulumi config set --secret --path 'mern:serverSecrets.NAME'")
    }


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        # YAML takes an account id without quotes for a number, and leading zeros for octal.
        (
            111111111111,
            'mern:aws.accountId should be text: put it in quotes, as in accountId: "012345678901"',
        ),
        ("1111", "mern:aws.accountId is not an AWS account id, 12 digits"),
    ],
)
def test_what_mends_an_account_id_does_not_make_it_a_number(written: Any, fault: str) -> None:
    # With --path, Pulumi writes digits as a number unless it is told the type.
    assert faults({**EKS, "aws": {"accountId": written, "region": "eu-central-1"}}) == {
        fault: "pulumi config set --path 'mern:aws.accountId' --type string VALUE"
    }


def test_credentials_must_be_encrypted() -> None:
    given = {"serverSecrets": {"JWT_SECRET": "value-of-jwt-secret"}}

    assert faults(given, encrypted=set()) == {
        "mern:awsAccessKeyId is not encrypted in the stack file": (
            "pulumi config set --secret mern:awsAccessKeyId"
        ),
        "mern:awsSecretAccessKey is not encrypted in the stack file": (
            "pulumi config set --secret mern:awsSecretAccessKey"
        ),
        "mern:mongodbUri is not encrypted in the stack file": ("pulumi config set --secret mern:mongodbUri"),
        "mern:serverSecrets is not encrypted in the stack file": (
            "pulumi config set --secret --path 'mern:serverSecrets.NAME'"
        ),
    }


def test_where_there_is_no_credential_nothing_has_to_be_encrypted() -> None:
    # What is left when the last one is removed.
    assert parse({"serverSecrets": {}}, encrypted=ENCRYPTED - {"serverSecrets"}).server_secrets == {}


def test_a_secret_inside_the_values_is_refused_because_it_would_hide_all_of_them() -> None:
    given = {"values": {"mernClient": {"replicas": 2}, "mernServer": {"env": {"A": "value"}}}}

    [fault] = faults(given, encrypted={*ENCRYPTED, "values"})

    assert fault.startswith("mern:values holds a secret, which would hide all of it")
    for key in ENCRYPTED:
        assert f"mern:{key}" in fault


def test_values_of_the_controllers_chart_that_are_the_programs_own_are_refused_all_at_once() -> None:
    role = "eks.amazonaws.com/role-arn"
    given = {
        "clusterName": "other",
        "vpcId": "vpc-2",
        "serviceAccount": {"create": False, "annotations": {role: "arn", "team": "shop"}},
        "podAnnotations": "none",
        "replicaCount": 1,
        "nameOverride": "",
    }
    start, rm = "mern:loadBalancerController.values", "pulumi config rm --path"
    own = "is set by this program, and cannot be another"
    assert faults({**EKS, "loadBalancerController": {"mode": "install", "values": given}}) == {
        f"{start}.clusterName {own}": f"{rm} '{start}.clusterName'",
        f"{start}.nameOverride {own}": f"{rm} '{start}.nameOverride'",
        f"{start}.podAnnotations is no object, and this program sets values in it": (
            f"{rm} '{start}.podAnnotations'"
        ),
        f'{start}.serviceAccount.annotations["{role}"] {own}': (
            f"{rm} '{start}.serviceAccount.annotations[\"{role}\"]'"
        ),
        f"{start}.serviceAccount.create {own}": f"{rm} '{start}.serviceAccount.create'",
        f"{start}.vpcId {own}": f"{rm} '{start}.vpcId'",
    }


def test_a_secret_among_the_values_of_the_controllers_chart_hides_the_texts_there() -> None:
    """The engine says of the whole key that it is secret, and not of which leaf."""
    given = {"webhookTLS": {"key": "value-of-key"}, "replicaCount": 1, "enableWaf": False}
    key = {"loadBalancerController": {"mode": "install", "identity": "irsa", "values": given}}

    hidden = parse({**EKS, **key}, encrypted={*ENCRYPTED, "loadBalancerController"})

    values = hidden.load_balancer_controller.values
    assert values == {**given, "webhookTLS": {"key": SecretStr("value-of-key")}}
    assert "value-of-key" not in repr(hidden)
    assert parse({**EKS, **key}).load_balancer_controller.values == given
    # And nothing else there is a secret.
    without = {"loadBalancerController": {"mode": "none"}}
    assert list(faults(without, encrypted={*ENCRYPTED, "loadBalancerController"})) == [
        "mern:loadBalancerController is encrypted, but is no secret"
    ]


@pytest.mark.parametrize("key", ["imageTag", "release"])
def test_what_is_no_credential_is_not_encrypted(key: str) -> None:
    given = {"imageTag": "1.0.0", "release": {"timeout": 60}}

    assert list(faults(given, encrypted={*ENCRYPTED, key})) == [f"mern:{key} is encrypted, but is no secret"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("mernServer.mongodbUri", "mongodbUri"),
        ("mernServer.secrets", "serverSecrets"),
        ("pythonScript.mongodbUri", "mongodbUri"),
        ("pythonScript.awsAccessKeyId", "awsAccessKeyId"),
        ("pythonScript.awsSecretAccessKey", "awsSecretAccessKey"),
    ],
)
def test_a_credential_among_the_values_is_refused_and_its_own_key_named(path: str, key: str) -> None:
    part, name = path.split(".")
    value = {"JWT_SECRET": "value-of-jwt-secret"} if name == "secrets" else "value-of-jwt-secret"

    assert faults({"values": {part: {name: value}}}) == {
        f"mern:values.{path} is a secret: it comes from mern:{key}": (
            f"pulumi config rm --path 'mern:values.{path}'"
        )
    }


@pytest.mark.parametrize(
    "cluster",
    [
        {},
        {"kubeconfig": "~/.kube/config"},
        {"context": "laptop"},
        {"eksClusterName": "shop", "kubeconfig": "~/.kube/config"},
        {"eksClusterName": "shop", "kubeconfig": "~/.kube/config", "context": "laptop"},
    ],
)
def test_a_cluster_is_named_in_one_way(cluster: dict[str, str]) -> None:
    [fault] = faults({"aws": EKS["aws"], "cluster": cluster})

    assert fault == ("mern:cluster needs either eksClusterName, or kubeconfig together with context")


def test_an_eks_cluster_needs_an_account_and_a_region() -> None:
    assert faults({"cluster": EKS["cluster"]}) == {
        "mern:aws.accountId is missing: an EKS cluster needs it": (
            "pulumi config set --path 'mern:aws.accountId' --type string VALUE"
        ),
        "mern:aws.region is missing: an EKS cluster needs it": (
            "pulumi config set --path 'mern:aws.region' VALUE"
        ),
    }


def test_the_load_balancer_controller_needs_an_eks_cluster() -> None:
    assert faults({"loadBalancerController": {"mode": "install"}}) == {
        "mern:loadBalancerController.mode is install, which needs an EKS cluster: set "
        "mern:cluster.eksClusterName, or mode none": (
            "pulumi config set --path 'mern:loadBalancerController.mode' none"
        )
    }


def test_the_script_runs_under_a_role_or_with_keys() -> None:
    assert faults({"pythonScript": ROLE}) == {
        f"mern:{key} and mern:pythonScript exclude each other: a role or keys": (
            f"pulumi config rm mern:{key}"
        )
        for key in NO_KEYS
    }


@pytest.mark.parametrize("left_out", [{"awsAccessKeyId"}, {"awsSecretAccessKey"}, {*NO_KEYS}])
def test_without_a_role_the_script_needs_both_keys(left_out: set[str]) -> None:
    assert faults(dict.fromkeys(left_out)) == {
        f"mern:{key} is missing (or give a role: mern:pythonScript.roleArn)": (
            f"pulumi config set --secret mern:{key}"
        )
        for key in left_out
    }


VARIABLE = "pulumi config set --secret --path 'mern:serverSecrets.JWT_SECRET'"
PIPED = ": of what comes through a pipe, Pulumi takes off one line feed at the end and nothing else"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{}\r", f"a carriage return at its end, which cannot be right{PIPED}"),
        ("{}\n", f"a line feed at its end, which cannot be right{PIPED}"),
        ("{}\r\n", f"a carriage return at its end and a line feed at its end, which cannot be right{PIPED}"),
        ("{0}\n{0}", f"a line feed in it, which cannot be right{PIPED}"),
        (" {}", "a blank at its start, which cannot be right"),
        ("{}\t", "a tab at its end, which cannot be right"),
        ("{0} {0}", "a blank in it, which cannot be right"),
        ("{}\0", "a NUL at its end, which cannot be right"),
        ("\ufeff{}", "a byte order mark at its start, which cannot be right"),
        ("{0}\u200b{0}", "a zero-width blank in it, which cannot be right"),
        ("{}\u00a0", "a non-breaking blank at its end, which cannot be right"),
        ("{}\u00ad", "the character U+00AD (soft hyphen) at its end, which cannot be right"),
        ("\u202e{}", "the character U+202E (right-to-left override) at its start, which cannot be right"),
        ("{}\x85", "the character U+0085 at its end, which cannot be right"),
        ("{}\ufffd", "a character that could not be decoded at its end, which cannot be right"),
        ("\x1b[200~{}", "an escape character at its start, which cannot be right"),
    ],
)
@pytest.mark.parametrize("key", ["awsAccessKeyId", "awsSecretAccessKey", "mongodbUri"])
def test_a_character_that_nobody_sees_in_a_key_is_named_and_the_key_is_not(
    key: str, form: str, said: str
) -> None:
    assert faults({key: form.format("value-of-key-id")}) == {
        f"mern:{key} has {said}": f"pulumi config set --secret mern:{key}"
    }


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{}\n", f"a line feed at its end, which cannot be right{PIPED}"),
        ("{}\r\n", f"a carriage return at its end and a line feed at its end, which cannot be right{PIPED}"),
        ("\n\n{}", f"a line feed at its start, which cannot be right{PIPED}"),
        ("{}\r", f"a carriage return at its end, which cannot be right{PIPED}"),
        ("{0}\r{0}\n", f"a carriage return in it and a line feed at its end, which cannot be right{PIPED}"),
        ("{0}\0{0}", "a NUL in it, which cannot be right"),
        ("{0}\u200b{0}", "a zero-width blank in it, which cannot be right"),
        ("\ufeff{0}\n{0}", "a byte order mark at its start, which cannot be right"),
        ("{0}\n{0}\u00a0", "a non-breaking blank at its end, which cannot be right"),
        ("{}\u200d", "the character U+200D (zero width joiner) at its end, which cannot be right"),
        ("{}\x07", "the character U+0007 at its end, which cannot be right"),
        ("{0}\ud800{0}", "the character U+D800 in it, which cannot be right"),
        (
            "\x1b[200~{}\x1b[201~",
            "an escape character at its start and an escape character in it, which cannot be right",
        ),
    ],
)
def test_a_character_that_no_variable_has_is_named(form: str, said: str) -> None:
    given = {
        "serverSecrets": {"JWT_SECRET": form.format("value-of-jwt-secret"), "OTHER": "value-of-jwt-secret"}
    }
    assert faults(given) == {f"mern:serverSecrets.JWT_SECRET has {said}": VARIABLE}


@pytest.mark.parametrize("text", [" ", "\t", "\n", "\r\n", " \u00a0\u3000"])
def test_a_credential_of_blanks_alone_is_refused(text: str) -> None:
    assert faults({"awsAccessKeyId": text, "serverSecrets": {"JWT_SECRET": text}}) == {
        "mern:awsAccessKeyId holds nothing but blanks": "pulumi config set --secret mern:awsAccessKeyId",
        "mern:serverSecrets.JWT_SECRET holds nothing but blanks": VARIABLE,
    }


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
        "-----BEGIN KEY-----\r\nabc\r\n-----END KEY-----\r\n",
        '\n{\n\t"a": 1\n}\n\n',
        " correct horse\tbattery  staple ",
        "a\u00a0b",
        "\U0001f469\u200d\U0001f4bb",
        "\U0010fffd",
        "\U0001faea",
        "p\u00e4ssw\u00f6rd\\n'\"$(x)`",
        "x",
    ],
)
def test_what_may_be_right_in_a_variable_is_kept_to_the_byte(text: str) -> None:
    assert parse({"serverSecrets": {"A": text}}).server_secrets["A"].get_secret_value() == text


def test_all_faults_are_reported_together_and_each_once() -> None:
    found = faults(
        {
            "mongodbUri": None,
            "mongodbUrl": "mongodb://app:pw-of-mongodb@mongo.example/mern",
            "aws": {"accountId": 111111111111},
            "release": {"timeout": "long", "timout": 5},
            "values": {"mernServer": {"secrets": {"JWT_SECRET": "value-of-jwt-secret"}}},
        },
        encrypted={"awsAccessKeyId"},
    )

    assert [fault.split(" ")[0] for fault in found] == [
        "mern:aws.accountId",
        "mern:aws.region",
        "mern:awsSecretAccessKey",
        "mern:mongodbUri",
        "mern:mongodbUrl",
        "mern:release.timeout",
        "mern:release.timout",
        "mern:values.mernServer.secrets",
    ]


WORDS = sorted(
    {*KEYS, "mongodbUrl", "eksClusterName", "kubeconfig", "context", "accountId", "region", "name"}
    | {"mode", "timeout", "roleArn", "mernServer", "secrets", "identity", "JWT_SECRET", "image"}
)
LEAVES = st.sampled_from(["value-of-jwt-secret", 0, 1.5, True, False, None, ""])
TREES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(WORDS), below),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    config=st.dictionaries(st.sampled_from(WORDS), TREES | st.just("{value-of-jwt-secret")),
    encrypted=st.sets(st.sampled_from(WORDS)),
)
def test_no_config_makes_it_fail_in_another_way_or_show_a_value(
    config: dict[str, Any], encrypted: set[str]
) -> None:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    try:
        Settings.parse(texts, encrypted, "staging")
    except pulumi.RunError as error:
        assert "value-of-jwt-secret" not in str(error)


def test_credentials_in_secrets_of_somebody_else_are_not_asked_for_and_not_taken() -> None:
    server, script = {"mernServer": {"existingSecret": "a"}}, {"pythonScript": {"existingSecret": "b"}}
    nothing = {**NO_KEYS, "mongodbUri": None}

    assert parse({**nothing, "values": {**server, **script}}).mongodb_uri is None
    assert parse({**NO_KEYS, "values": script}).mongodb_uri is not None
    assert list(faults({**nothing, "values": script})) == ["mern:mongodbUri is missing"]
    unused = "is used by nothing: mern:values names an existingSecret instead"
    assert set(faults({"serverSecrets": {"A": "b"}, "values": {**server, **script}})) == {
        f"mern:{key} {unused}" for key in ENCRYPTED
    }


def test_the_tag_of_one_run_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        f"mern:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in {**LEAST, "imageTag": "1.0.0"}.items()
    }
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps(config))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps([f"mern:{key}" for key in ENCRYPTED]))
    monkeypatch.setattr(pulumi, "get_stack", lambda: "staging")
    for tag, used in (("", "1.0.0"), ("2.0.0", "2.0.0")):
        monkeypatch.setenv("MERN_IMAGE_TAG", tag)
        assert Settings.load().image_tag == used
    monkeypatch.setenv("MERN_IMAGE_TAG", "not a tag")
    with pytest.raises(pulumi.RunError, match="mern:imageTag is not a tag of a container image"):
        Settings.load()


DATE = "2024-11-24 00:00:00 +0000 UTC"
"""What the engine makes of `2024-11-24` without quotes."""


@pytest.mark.parametrize(
    "keys",
    [
        ("ingress", "annotations", "example.com/since"),
        ("mernServer", "env", "RELEASED"),
        ("a b", "it's", 'say "so"'),
        ("a[0]", "[1]", "]"),
        ("1", "-", "-a", ""),
        ("a", 0, "b.c", 1),
        (".", "a.[", "*"),
        ("x:y", "mern:z", "ä"),
    ],
)
def test_what_mends_a_value_writes_to_the_key_that_it_stands_at(keys: tuple[str | int, ...]) -> None:
    value: Any = DATE
    for key in reversed(keys[1:]):
        value = {key: value} if isinstance(key, str) else [*["filler"] * key, value]

    [(fault, command)] = faults({"values": {keys[0]: value}}).items()

    assert fault.endswith(" is a date to YAML: put it in quotes")
    assert path_in(command) == ("values", *keys)
    assert "--type string" in command


@pytest.mark.parametrize("key", ["back\\slash", "line\nbreak", "\x00", "a\\"])
def test_no_command_is_printed_for_a_key_that_no_command_can_name(key: str) -> None:
    [(_, remedy)] = faults({"values": {"env": {key: DATE}}}).items()

    assert remedy == "edit the stack file: no command can name this key"


@pytest.mark.parametrize(
    "key", ["cluster.eksClusterName", "a.b", 'a["b"]', "a[0]", "[", "", "release {timeout"]
)
@pytest.mark.parametrize("value", [DATE, "1"])
def test_a_top_level_key_that_looks_like_a_path_is_removed_as_a_key(key: str, value: str) -> None:
    [(fault, command)] = faults({key: value}).items()

    assert fault.startswith(f"mern:{key} is not a key of this project")
    assert shlex.split(command) == ["pulumi", "config", "rm", f"mern:{key}"]


def test_a_key_that_looks_like_a_path_hides_no_fault_at_that_path() -> None:
    given = {**EKS, "aws": {"region": "eu-central-1"}, "aws.accountId": "111111111111"}
    assert [fault.partition(":")[2][:24] for fault in faults(given)] == [
        "aws.accountId is missing",
        "aws.accountId is not a k",
    ]


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        # `config set` adds to an object, and turns text at the top into one; a list or what is inside stays.
        ({"cluster": "shop"}, "pulumi config set --path 'mern:cluster.KEY' VALUE"),
        ({"cluster": ["shop"]}, "pulumi config rm mern:cluster"),
        ({"cluster": "null"}, "pulumi config set --path 'mern:cluster.KEY' VALUE"),
        ({"serverSecrets": ["a"]}, "pulumi config rm mern:serverSecrets"),
        (
            {**NO_KEYS, **EKS, "pythonScript": {"policy": "*"}},
            "pulumi config rm --path 'mern:pythonScript.policy'",
        ),
        (
            {**NO_KEYS, **EKS, "pythonScript": {"policy": [1]}},
            "pulumi config rm --path 'mern:pythonScript.policy'",
        ),
        ({"release": {"leave": "a"}}, "pulumi config rm --path 'mern:release.leave'"),
        ({"release": {"leave": [1]}}, "pulumi config set --path 'mern:release.leave[0]' --type string VALUE"),
        ({"release": {"zz.top": 1}}, """pulumi config rm --path 'mern:release["zz.top"]'"""),
        # Of two that exclude each other, one goes.
        ({"cluster": {**EKS["cluster"], "context": "a"}}, "pulumi config rm --path 'mern:cluster.context'"),
        (
            {"cluster": {**EKS["cluster"], "kubeconfig": "a"}},
            "pulumi config rm --path 'mern:cluster.kubeconfig'",
        ),
        (
            {"cluster": {**EKS["cluster"], **LEAST["cluster"]}},
            "pulumi config rm --path 'mern:cluster.eksClusterName'",
        ),
        ({"cluster": {"kubeconfig": "a"}}, "pulumi config set --path 'mern:cluster.context' VALUE"),
        ({"cluster": {"context": "a"}}, "pulumi config set --path 'mern:cluster.kubeconfig' VALUE"),
        (
            {**NO_KEYS, **EKS, "pythonScript": {**ROLE, "policy": {}}},
            "pulumi config rm --path 'mern:pythonScript.policy'",
        ),
        (
            {**NO_KEYS, "pythonScript": {**ROLE, "identity": "pod-identity"}},
            "pulumi config set --path 'mern:pythonScript.identity' irsa",
        ),
        # The credential that is wrong, not another.
        (
            {"serverSecrets": {"JWT-SECRET": "value-of-jwt-secret"}},
            "pulumi config rm --path 'mern:serverSecrets.JWT-SECRET'",
        ),
        (
            {"serverSecrets": {"JWT_SECRET": ""}},
            "pulumi config set --secret --path 'mern:serverSecrets.JWT_SECRET'",
        ),
        # Not a key: how it is written does not matter.
        ({"release": {"since": DATE}}, "pulumi config rm --path 'mern:release.since'"),
        (
            {"values": {"mernServer": {"mongodbUri": DATE}}},
            "pulumi config rm --path 'mern:values.mernServer.mongodbUri'",
        ),
    ],
)
def test_the_command_mends_the_fault(change: dict[str, Any], mend: str) -> None:
    aws = {} if "aws" in change else {"aws": EKS["aws"]}
    assert list(faults({**aws, **change}).values()) == [mend]


def test_an_object_that_is_null_is_not_taken_for_one_that_is_left_out() -> None:
    assert set(faults({"cluster": EKS["cluster"], "aws": "null"})) == {"mern:aws is not an object"}


@pytest.mark.parametrize(("depth", "levels"), [(101, 100), (100_000, 100)])
def test_a_value_that_is_nested_too_deep_is_called_that(depth: int, levels: int) -> None:
    assert faults({"values": '{"a":' * depth + "1" + "}" * depth}) == {
        f"mern:values is nested more than {levels} levels deep": "pulumi config rm mern:values"
    }


@pytest.mark.parametrize(("written", "read"), [("-01", "-1"), ("+1", "1"), ("1.e+3", "1000")])
def test_a_number_that_is_no_tag_does_not_become_one_by_quotes(written: str, read: str) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        Settings.parse(as_text({**LEAST, "imageTag": read}), ENCRYPTED, "staging", written)

    assert str(caught.value).splitlines()[1:] == [
        "  mern:imageTag is not a tag of a container image",
        "      pulumi config set mern:imageTag VALUE --stack staging",
    ]


def test_a_wrong_tag_of_one_run_is_mended_where_it_comes_from() -> None:
    with pytest.raises(pulumi.RunError) as caught:
        Settings.parse(as_text(LEAST), ENCRYPTED, "staging", run_tag="not a tag")

    assert str(caught.value).splitlines()[1:] == [
        "  mern:imageTag is not a tag of a container image (it comes from the variable MERN_IMAGE_TAG)",
        "      export MERN_IMAGE_TAG=VALUE",
    ]
