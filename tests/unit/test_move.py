"""Values files of the old Helm chart become the config of a stack."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operations.__main__ import main
from operations.migration.old_values import OldValuesError, read, translate

PASSWORD = "pw-of-the-old-chart"  # in every credential of these files
HEADER = "# Ours.\nconfig:\n  # the cluster\n  mern:cluster:\n    eksClusterName: shop # in Frankfurt\n"
STACK = f'{HEADER}  mern:aws: {{accountId: "111111111111", region: eu-central-1}}\n'
STACK += "  mern:namespace:\n    name: shop\n# the end\n"


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without helm: what the chart says to the values is for the test on the engine."""
    monkeypatch.setattr("operations.migration.move.shutil.which", lambda *_, **__: None)
    (project / "Pulumi.staging.yaml").write_text(STACK)
    return project


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["operations", "move", *arguments])
    return main()


def old(text: str, tmp_path: Path) -> Any:
    file = tmp_path / "old.yaml"
    file.write_text(text)
    return read([file], [])


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split("|")):
        value = {key: value}
    return dict(value)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("mern-client|replicaCount", 2, "mernClient|replicas"),
        ("mernClient|replicas", 2, "mernClient|replicas"),
        ("frontend|Replicas", "2", "mernClient|replicas"),
        ("mern-server|hpa|minReplicas", 2, "mernServer|autoscaling|minReplicas"),
        ("mern-server|hpa|cpu", 70, "mernServer|autoscaling|targetCPUUtilizationPercentage"),
        ("mern-server|service|port", 80, "mernServer|service|port"),
        ("mern-server|service|targetPort", 5000, "mernServer|containerPort"),
        ("mern-server|livenessProbe|httpGet|path", "/up", "mernServer|probes|liveness|path"),
        ("mern-server|image|pullPolicy", "Always", "mernServer|image|pullPolicy"),
        ("mern-server|resources|limits|cpu", "1", "mernServer|resources|limits|cpu"),
        ("python-script|cronjob|schedule", "@daily", "pythonScript|schedule"),
        ("python_script|env|AWS_REGION", "eu-central-1", "pythonScript|awsRegion"),
        ("ingress|className", "alb", "ingress|className"),
        ("podSecurity", "baseline", "podSecurity"),
    ],
)
def test_a_value_gets_the_name_it_has_here(before: str, value: Any, after: str) -> None:
    moved = translate(nested(before, value))

    wanted = int(value) if after.endswith("replicas") else value
    assert moved.values == nested(after, wanted)
    assert not moved.unknown
    assert not moved.credentials


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"image": "host:5000/app:1.0"}, {"image": {"repository": "host:5000/app", "tag": "1.0"}}),
        ({"image": {"repository": "host:5000/app"}}, {"image": {"repository": "host:5000/app"}}),
        (
            {"image": f"app@sha256:{'a' * 64}"},
            {"image": {"repository": "app", "digest": f"sha256:{'a' * 64}"}},
        ),
        ({"image": {"tag": ""}}, {}),
        ({"imagePullSecrets": [{"name": "a"}]}, {"image": {"pullSecrets": ["a"]}}),
        ({"env": [{"name": "A", "value": "b"}]}, {"env": {"A": "b"}}),
        ({"env": {"PORT": 5000, "DEBUG": False}}, {"env": {"PORT": "5000", "DEBUG": "false"}}),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c"}}}]},
            {"extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c"}}}]},
        ),
    ],
)
def test_a_value_gets_the_form_it_has_here(given: Any, expected: Any) -> None:
    assert translate({"mern-server": given}).values.get("mernServer", {}) == expected


def test_the_ingress_is_described_by_values_instead_of_annotations() -> None:
    prefix = "alb.ingress.kubernetes.io"
    moved = translate(
        {
            "ingress": {
                "hosts": [{"host": "a.example.com", "paths": ["/"]}],
                "annotations": {
                    "kubernetes.io/ingress.class": "alb",
                    f"{prefix}/healthcheck-interval-seconds": "20",
                    f"{prefix}/certificate-arn": "arn:1, arn:2",
                    f"{prefix}/load-balancer-attributes": "idle_timeout.timeout_seconds=60,a=b",
                    f"{prefix}/listen-ports": "[]",
                    "team": "web",
                },
            }
        }
    )

    assert moved.values["ingress"] == {
        "hosts": ["a.example.com"],
        "className": "alb",
        "healthCheck": {"intervalSeconds": 20},
        "tls": {"certificateArns": ["arn:1", "arn:2"], "enabled": True},
        "loadBalancerAttributes": {"idle_timeout.timeout_seconds": "60", "a": "b"},
        "annotations": {"team": "web"},
    }
    assert set(moved.unknown) == {"ingress.hosts[0].paths", f"ingress.annotations.{prefix}/listen-ports"}


@pytest.mark.parametrize(
    ("tags", "common", "left"),
    [
        (("1.0", "1.0", "1.0"), "1.0", []),
        (("1.0", "1.0", "2.0"), None, ["1.0", "1.0", "2.0"]),
        (("1.0", "1.0", ""), None, ["1.0", "1.0"]),
    ],
)
def test_one_tag_of_all_images_is_the_stacks(
    tags: tuple[str, ...], common: str | None, left: list[str]
) -> None:
    parts = ("mern-client", "mern-server", "python-script")
    moved = translate({part: {"image": {"tag": tag}} for part, tag in zip(parts, tags, strict=True)})

    assert moved.image_tag == common
    assert [part["image"]["tag"] for part in moved.values.values()] == left


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("mern-server|mongodbUri", "mongodbUri"),
        ("mern-server|secret|MONGODB_URI", "mongodbUri"),
        ("mern-server|jwtSecret", "serverSecrets.JWT_SECRET"),
        ("mern-server|secrets|stripe", "serverSecrets.STRIPE"),
        ("mern-server|env|SESSION_TOKEN", "serverSecrets.SESSION_TOKEN"),
        ("mern-server|env|ATLAS_URI", "serverSecrets.ATLAS_URI"),
        ("python-script|aws|accessKeyId", "awsAccessKeyId"),
        ("python-script|env|AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey"),
        ("python-script|env|MONGODB_URI", "mongodbUri"),
        ("aws|secretAccessKey", "awsSecretAccessKey"),
        ("secrets|mongoUri", "mongodbUri"),
        ("mern-server|env|STRIPE_KEY", "serverSecrets.STRIPE_KEY"),
        ("mern-client|env|API_TOKEN", None),
        ("ingress|annotations|example.com/api-key", None),
    ],
)
@pytest.mark.parametrize("text", [f"https://me:{PASSWORD}@host/path", None])
def test_a_credential_is_named_and_not_moved(path: str, key: str | None, text: str | None) -> None:
    moved = translate(nested(path, text))

    assert moved.credentials == {path.replace("|", "."): key}
    assert PASSWORD not in str(moved)
    assert not moved.values


def test_two_credentials_for_one_key_are_no_secret_choice() -> None:
    both = {part: {"mongodbUri": f"mongodb://{part}:{PASSWORD}@host"} for part in ("server", "script")}

    [remark] = translate(both).remarks

    assert (
        remark == "script.mongodbUri is another one than the first for mern:mongodbUri, which takes only one"
    )


def test_what_names_a_secret_is_none() -> None:
    given = {
        "existingSecret": "shop",
        "image": {"pullSecrets": ["registry"]},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "volumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
        "env": {"POLICY": "ELBSecurityPolicy-TLS13-1-2-2021-06"},
    }

    assert translate({"server": given}).values["mernServer"] == given


@pytest.mark.parametrize(
    "text",
    [
        *("mongodb+srv://host/db", "redis://:pw@host", "https://me:pw@host/path", "AKIAIOSFODNN7EXAMPLE"),
        *("-----BEGIN PRIVATE KEY-----", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "sk_live_abc"),
        *(f"ghp_{'a' * 36}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ],
)
def test_a_credential_is_known_by_its_looks(text: str) -> None:
    moved = translate({"mern-server": {"env": {"HARMLESS": text}, "volumes": [{"name": text}]}})

    assert not moved.values
    assert set(moved.credentials) == {"mern-server.env.HARMLESS", "mern-server.volumes"}


NAMES = "mern-client mernServer python-script ingress image tag hpa env secrets hosts annotations global"
NAMES += " replicaCount min password service cronjob a.b name value host livenessProbe httpGet path"
OLD = st.recursive(
    st.sampled_from(["", 1, 1.5, True, None, f"https://me:{PASSWORD}@host"])
    | st.integers(10_000, 10_000_000).map("leaf{}".format),
    lambda below: (
        st.dictionaries(st.sampled_from(NAMES.split()), below, max_size=3) | st.lists(below, max_size=2)
    ),
    max_leaves=10,
)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path, as far as it leads through mappings, and text of each leaf that can be told from others."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for below in value:
            yield from ((path, text) for _, text in leaves(below))
    elif str(value).startswith("leaf"):
        yield path, value


@example({"ingress": {"hosts": [f"https://me:{PASSWORD}@host"]}})
@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES.split()), OLD, max_size=4))
def test_nothing_is_lost_silently_and_no_credential_is_moved(values: dict[str, Any]) -> None:
    moved = translate(values)

    assert PASSWORD not in str(moved)
    said = [*moved.unknown, *moved.credentials, *moved.conflicts]
    for path, text in leaves(values):
        placed = text in f"{moved.values} {moved.image_tag}"
        assert placed or [line for line in said if line.startswith(path)], path


def test_later_files_win_as_in_helm(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("client: {env: {A: a, B: b}, tolerations: [1, 2]}")
    second.write_text("client: {env: {B: c}, tolerations: [3]}")

    assert read([first, second], []) == {"client": {"env": {"A": "a", "B": "c"}, "tolerations": [3]}}


PITFALLS = """
a: [yes, no, on, off, y, n, Y, N, True, FALSE, ~, null, "yes"]
b: [1e3, 1E+2, .5, 1., 1.10, 010, 08, 0x1F, 0b11, 0o17, 1_000, 111111111111, 012345678901, -1, +1, 1:30]
c: [2024-01-01, 2024-01-01T10:00:00Z, 12:30:45, .inf2, 1.2.3, -, 1e, 0x, 5m, "1", 1e999, !vault x, =]
d: &d {x: 1, y: 2}
e: {<<: *d, x: 3}
f: {8080: a, true: b, 1.5: c}
g: |
  two
  lines
h:
"""


def test_values_are_read_as_helm_reads_them(tmp_path: Path, helm: str) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: show, version: 0.1.0}")
    (chart / "templates/show.yaml").write_text("all: {{ .Values | toJson }}\n")
    done = subprocess.run(
        [helm, "template", chart, "-f", "-"], input=PITFALLS, text=True, capture_output=True, check=True
    )

    assert old(PITFALLS, tmp_path) == yaml.safe_load(done.stdout)["all"] | {"h": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: {PASSWORD}\na: 2", "line 2: the key a stands twice in one mapping"),
        (f"a: [{PASSWORD}", "line 2: did not find expected ',' or ']'"),
        (f"- {PASSWORD}", ": holds no keys and values"),
        ("a: {{ .Values.b }}", "line 1: a key that is a mapping, a list or null"),
        ("a: &a [*a]", "line 1: an alias of an anchor that is not there, or contains it"),
        ("a: .inf", "line 1: a number without end, which JSON does not have"),
        (f"a: !!int {PASSWORD}", "line 1: a value that is no int, as its tag says"),
        (f"a: !!binary {PASSWORD}", ": is not a YAML file that Helm could read"),
    ],
)
def test_a_file_that_helm_could_not_read_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(OldValuesError) as caught:
        old(text, tmp_path)
    assert said in str(caught.value)
    assert PASSWORD not in str(caught.value)


VALUES = f"""
mern-client: {{replicaCount: 2, image: {{tag: 1.4.2}}}}
mern-server: {{image: {{tag: 1.4.2}}, mongodbUri: "mongodb://app:{PASSWORD}@host/db", replicaCnt: 3}}
python-script: {{image: {{tag: 1.4.2}}}}
"""


def test_without_write_it_says_what_it_would_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.yaml").write_text(VALUES)

    assert run(monkeypatch, "old.yaml", "--stack", "staging") == 0

    said = capsys.readouterr().out
    assert "mern:imageTag: 1.4.2" in said
    assert "mern-client.replicaCount → mernClient.replicas" in said
    assert "mern-server.replicaCnt (nearest: mernServer.replicas)" in said
    assert "pulumi config set --secret mern:mongodbUri --stack staging" in said
    assert "pulumi config set --secret mern:awsAccessKeyId --stack staging" in said  # what --set gave
    assert PASSWORD not in said
    assert (folder / "Pulumi.staging.yaml").read_text() == STACK


def test_what_is_written_leaves_all_else_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "old.yaml").write_text(VALUES)

    assert run(monkeypatch, "-f", "old.yaml", "--stack", "organization/mern/staging", "--write") == 0

    text = (folder / "Pulumi.staging.yaml").read_text()
    added = "  mern:imageTag: 1.4.2\n  mern:values:\n    mernClient:\n      replicas: 2\n"
    assert text == STACK.replace("# the end\n", f"{added}# the end\n")
    assert run(monkeypatch, "old.yaml", "--stack", "staging", "--write") == 0
    assert (folder / "Pulumi.staging.yaml").read_text() == text


def test_values_that_are_there_are_replaced_only_on_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.yaml").write_text("mern-client: {replicaCount: 2}")
    rest = '  # more\n  mern:imageTag: "1"\n'
    before = f"{HEADER}  mern:values:\n    ingress:\n      hosts: [a.example.com]\n{rest}"
    file = folder / "Pulumi.staging.yaml"
    file.write_text(before)

    assert run(monkeypatch, "old.yaml", "--stack", "staging", "--write") == 1
    assert "mern:values.ingress.hosts" in capsys.readouterr().err
    assert file.read_text() == before
    assert run(monkeypatch, "old.yaml", "--stack", "staging", "--write", "--replace") == 0
    assert file.read_text() == (f"{HEADER}  mern:values:\n    mernClient:\n      replicas: 2\n{rest}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("old.yaml", "--stack", "stagin"), "did you mean Pulumi.staging.yaml?"),
        (("--stack", "staging"), "which values file?"),
        (("missing.yaml", "--stack", "staging"), "missing.yaml: No such file or directory"),
        (("twice.yaml", "--stack", "staging"), "both mean mernClient.replicas"),
    ],
)
def test_what_stands_against_it_is_said_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    (folder / "old.yaml").write_text(VALUES)
    (folder / "twice.yaml").write_text("client: {replicas: 1, replicaCount: 2}")

    assert run(monkeypatch, *arguments, "--write") == 1

    assert said in capsys.readouterr().err
    assert (folder / "Pulumi.staging.yaml").read_text() == STACK


@pytest.mark.parametrize(
    ("path", "stack", "said"),
    [
        ("/nowhere", "staging", "there is no `pulumi` on PATH"),
        (
            None,
            "other",
            "stack other cannot be opened: no stack named 'other' found\n    pulumi stack init other",
        ),
    ],
)
def test_without_the_engine_or_a_stack_nothing_is_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    path: str | None,
    stack: str,
    said: str,
) -> None:
    (folder / "old.yaml").write_text(VALUES)
    file = folder / f"Pulumi.{stack}.yaml"
    file.write_text(STACK)
    if path:
        monkeypatch.setenv("PATH", path)

    assert run(monkeypatch, "old.yaml", "--stack", stack) == 0  # which only prints
    assert run(monkeypatch, "old.yaml", "--stack", stack, "--write") == 1

    assert said in capsys.readouterr().err
    assert file.read_text() == STACK


def test_helm_is_given_values_by_standard_input_and_no_credential(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helm = folder / "helm"
    helm.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments; cat > {folder}/input; echo no >&2; exit 1\n')
    helm.chmod(helm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("operations.migration.move.shutil.which", lambda *_, **__: os.fspath(helm))
    (folder / "old.yaml").write_text(VALUES)

    assert run(monkeypatch, "old.yaml", "--stack", "staging", "--write") == 1

    assert "the chart refuses these values:\nno" in capsys.readouterr().err
    assert PASSWORD not in (folder / "arguments").read_text() + (folder / "input").read_text()
    assert (folder / "Pulumi.staging.yaml").read_text() == STACK
