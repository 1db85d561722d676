"""Credentials: where they go, where they never go, and when they restart a pod."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from components.release.values import merged
from tests.chart.rendering import CREDENTIALS, Chart, decoded, leaves

CHECKSUM = "checksum/secret"
URI = "mongodb://mongo.example/other"


def test_the_server_reads_its_database_and_other_secrets_from_a_secret(chart: Chart) -> None:
    rendered = chart.render()
    (container,) = rendered.pod("Deployment", "mern-server")["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "mern-server"}}]
    assert decoded(rendered.one("Secret", "mern-server")) == {
        "MONGODB_URI": CREDENTIALS["mernServer"]["mongodbUri"],
        "JWT_SECRET": "value-of-jwt-secret",
    }


def test_the_script_has_a_secret_of_its_own(chart: Chart) -> None:
    rendered = chart.render()
    (container,) = rendered.pod("CronJob", "mern-python-script")["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "mern-python-script"}}]
    assert decoded(rendered.one("Secret", "mern-python-script")) == {
        "MONGODB_URI": CREDENTIALS["pythonScript"]["mongodbUri"],
        "AWS_ACCESS_KEY_ID": "value-of-key-id",
        "AWS_SECRET_ACCESS_KEY": "value-of-secret-key",
    }


def test_the_client_knows_no_secret(chart: Chart) -> None:
    pod = chart.render().pod("Deployment", "mern-client")
    assert "envFrom" not in pod["spec"]["containers"][0]
    assert "annotations" not in pod["metadata"]


def test_secret_values_stand_in_secrets_and_nowhere_else(chart: Chart) -> None:
    def secret_strings(value: Any) -> set[str]:
        return {leaf for leaf in leaves(value) if leaf.startswith(("mongodb://", "value-of-"))}

    plain = secret_strings(CREDENTIALS)
    assert len(plain) == 5
    forms = plain | {base64.b64encode(value.encode()).decode() for value in plain}
    for found in chart.render().objects:
        text = " ".join(map(str, leaves(found)))
        assert any(form in text for form in forms) == (found["kind"] == "Secret"), found["kind"]


def test_any_text_survives_as_a_secret(chart: Chart) -> None:
    odd = {
        "PEM": "-----BEGIN-----\nline: 'two'\n",
        "CRLF": "-----BEGIN-----\r\ntwo\r\n-----END-----\r\n",
        "BLANKS": " a\t b  c \n\n d ",
        "UMLAUT": "pässwörd",
        "JOINED": "👩\u200d💻 a\u00a0b",
        "YAML": "{{ no }} # 1",
        "NUMBER": "0123",
        "WORD": "true",
    }
    rendered = chart.render({"mernServer": {"secrets": odd}})
    assert odd.items() <= decoded(rendered.one("Secret", "mern-server")).items()


def checksums(chart: Chart, values: dict[str, Any], *flags: str) -> dict[str, str | None]:
    rendered = chart.render(values, *flags)
    return {
        name: rendered.pod("Deployment", name)["metadata"].get("annotations", {}).get(CHECKSUM)
        for name in ("mern-client", "mern-server")
    }


@pytest.mark.parametrize(
    "change",
    [
        {"mernServer": {"mongodbUri": URI}},
        {"mernServer": {"secrets": {"JWT_SECRET": "another"}}},
        {"mernServer": {"secrets": {"SESSION_KEY": "one more"}}},
    ],
)
def test_the_server_restarts_when_its_secrets_change(chart: Chart, change: dict[str, Any]) -> None:
    before, after = checksums(chart, {}), checksums(chart, change)
    assert before["mern-server"] != after["mern-server"]
    assert before["mern-client"] is after["mern-client"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"pythonScript": {"mongodbUri": URI}},
        {"mernServer": {"image": {"tag": "v9"}, "replicas": 7}},
        {"mernClient": {"env": {"A": "b"}}},
        {"ingress": {"enabled": False}},
    ],
)
def test_nothing_else_restarts_the_server(chart: Chart, change: dict[str, Any]) -> None:
    assert checksums(chart, {}) == checksums(chart, change)


def test_the_order_in_which_secrets_are_given_does_not_matter(chart: Chart) -> None:
    one = {"mernServer": {"secrets": {"A": "1", "Z": "2"}}}
    other = {"mernServer": {"secrets": {"Z": "2", "A": "1"}}}
    assert checksums(chart, one) == checksums(chart, other)


def test_pods_do_not_restart_with_the_scripts_credentials(chart: Chart) -> None:
    keys = {"awsAccessKeyId": "another", "awsSecretAccessKey": "another"}
    before, after = chart.render(), chart.render({"pythonScript": keys})
    assert before.pods() == after.pods()


def test_missing_credentials_are_named_together(chart: Chart) -> None:
    refusal = chart.refusal(credentials=False)
    assert "mernServer.mongodbUri is missing" in refusal
    assert "pythonScript.mongodbUri is missing" in refusal


@pytest.mark.parametrize(
    "uri", ["mongo.example/mern", "mongodb://pw-in-the-open@host/ ", "mongodb://pw-in-the-open\n"]
)
def test_a_broken_connection_string_is_refused_without_quoting_it(chart: Chart, uri: str) -> None:
    refusal = chart.refusal({"mernServer": {"mongodbUri": uri}})
    assert "mernServer.mongodbUri is no MongoDB connection string" in refusal
    assert uri.strip() not in refusal


@pytest.mark.parametrize("wrong", [["pw-in-the-open"], {"pw": "pw-in-the-open"}, 4711])
@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("mernServer", "mongodbUri"),
        ("mernServer", "secrets"),
        ("pythonScript", "mongodbUri"),
        ("pythonScript", "awsAccessKeyId"),
        ("pythonScript", "awsSecretAccessKey"),
    ],
)
def test_the_schema_quotes_no_secret_of_a_wrong_type(chart: Chart, key: str, name: str, wrong: Any) -> None:
    given = {"A": wrong} if name == "secrets" else wrong
    refusal = chart.refusal({key: {name: given}})
    assert name in refusal
    assert "pw-in-the-open" not in refusal
    assert "4711" not in refusal


def test_an_empty_secret_is_refused_as_a_variable_that_was_not_set(chart: Chart) -> None:
    assert "JWT_SECRET" in chart.refusal({"mernServer": {"secrets": {"JWT_SECRET": ""}}})


def test_half_an_access_key_is_refused(chart: Chart) -> None:
    refusal = chart.refusal({"pythonScript": {"awsSecretAccessKey": ""}})
    assert "awsAccessKeyId and pythonScript.awsSecretAccessKey belong together" in refusal


def test_a_script_with_a_role_needs_no_access_key(chart: Chart) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/etl"}
    values = merged(
        CREDENTIALS,
        {
            "pythonScript": {
                "awsAccessKeyId": "",
                "awsSecretAccessKey": "",
                "serviceAccount": {"annotations": role},
            }
        },
    )
    rendered = chart.render(values)
    assert set(decoded(rendered.one("Secret", "mern-python-script"))) == {"MONGODB_URI"}
    account = rendered.one("ServiceAccount", "mern-python-script")
    assert account["metadata"]["annotations"] == role


@pytest.mark.parametrize(("name", "source"), [("MONGODB_URI", "mongodbUri"), ("JWT_SECRET", "secrets")])
def test_a_plain_variable_cannot_hide_a_secret(chart: Chart, name: str, source: str) -> None:
    refusal = chart.refusal({"mernServer": {"env": {name: "plain"}}})
    assert f"mernServer.env.{name} is what mernServer.{source} is for" in refusal


def test_the_database_is_given_once(chart: Chart) -> None:
    refusal = chart.refusal({"mernServer": {"secrets": {"MONGODB_URI": "mongodb://twice"}}})
    assert "mernServer.secrets.MONGODB_URI is what mernServer.mongodbUri is for" in refusal
    assert "mongodb://twice" not in refusal


@pytest.mark.parametrize(
    ("key", "kind", "name"),
    [
        ("mernServer", "Deployment", "mern-server"),
        ("pythonScript", "CronJob", "mern-python-script"),
    ],
)
def test_a_secret_somebody_else_fills_is_used_by_its_name(
    chart: Chart, key: str, kind: str, name: str
) -> None:
    others = {k: v for k, v in CREDENTIALS.items() if k != key}
    rendered = chart.render(merged(others, {key: {"existingSecret": "from-vault"}}), credentials=False)
    pod = rendered.pod(kind, name)
    assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "from-vault"}}]
    assert CHECKSUM not in pod["metadata"].get("annotations", {})
    assert rendered.find("Secret", name) is None


def test_a_checksum_of_somebody_elses_secret_restarts_the_server(chart: Chart) -> None:
    def annotations(checksum: str) -> Any:
        server = {"existingSecret": "from-vault", "existingSecretChecksum": checksum}
        given = {"pythonScript": CREDENTIALS["pythonScript"], "mernServer": server}
        rendered = chart.render(given, credentials=False)
        return rendered.pod("Deployment", "mern-server")["metadata"]["annotations"]

    assert annotations("12345678") == {CHECKSUM: "12345678"}
    refusal = chart.refusal({"mernServer": {"existingSecretChecksum": "1"}})
    assert "mernServer.existingSecretChecksum is of no Secret" in refusal


@pytest.mark.parametrize("key", ["mernServer", "pythonScript"])
def test_a_secret_by_name_beside_credentials_is_refused(chart: Chart, key: str) -> None:
    refusal = chart.refusal({key: {"existingSecret": "from-vault"}})
    assert f"{key}.existingSecret names a Secret that somebody else fills" in refusal


def test_an_access_key_beside_a_role_is_refused(chart: Chart) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/etl"}
    refusal = chart.refusal({"pythonScript": {"serviceAccount": {"annotations": role}}})
    assert "pythonScript has an access key and a role" in refusal
