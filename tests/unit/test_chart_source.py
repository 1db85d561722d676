"""Charts from repositories and registries, from a server on loopback that the real `helm` pulls from too."""

import base64
import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from components.release import ChartError, chart, chart_servers
from components.release.chart_source import digest_of, pull
from sandbox.engine import PROJECT
from tests import remedies
from tests.proxy import run_proxy
from tests.stand_ins.chart_server import (
    CANARIES,
    IDENTITY_TOKEN,
    PASSWORD,
    USER,
    ChartServer,
    chart_server,
)


@pytest.fixture(scope="module")
def running(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartServer]:
    """A server with four versions of a chart that has a sub-chart."""
    folder = tmp_path_factory.mktemp("charts")
    source = Path(shutil.copytree(PROJECT / "tests/charts/web", folder / "web"))
    shutil.copytree(PROJECT / "tests/charts/other", source / "charts/other")
    with chart_server(folder) as served:
        for version in ("1.2.2", "1.2.3", "1.10.0", "2.0.0+build.1"):
            served.pack(helm, source, version)
        yield served


@pytest.fixture
def server(running: ChartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChartServer]:
    """The server, and a machine that trusts it and has no credentials; the project is the current folder."""
    running.asked.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(running.authority))
    monkeypatch.setenv("HELM_CONFIG_HOME", str(tmp_path / "helm"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    yield running
    running.is_private = False
    running.moved.clear()


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def refusal(*args: str, **more: str) -> str:
    with pytest.raises(ChartError) as caught:
        pull(*args, **more)
    assert not CANARIES.search(str(caught.value))
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", str(caught.value))


def args_of(kind: str, server: ChartServer) -> tuple[str, str]:
    """`chart` and `repository` of each way to say where the chart is."""
    return {
        "https": ("web", server.repository),
        "oci": (f"{server.registry}/web", ""),
        "oci in two": ("web", server.registry),
    }[kind]


@pytest.mark.parametrize("kind", ["https", "oci", "oci in two"])
def test_a_chart_is_pulled_once_to_a_path_that_is_the_same_everywhere(
    server: ChartServer, kind: str, tmp_path: Path
) -> None:
    packed = (server.folder / "web-1.2.3.tgz").read_bytes()

    path, note = pull(*args_of(kind, server), "1.2.3")

    digest = digest_of(packed)
    assert path == f".charts/web-1.2.3-{digest[7:19]}.tgz"
    assert Path(path).read_bytes() == packed
    assert note.endswith(f" was pulled: {digest}. Its provenance (who made it) is not checked")
    assert chart.load(path).description.startswith("web 1.2.3 (files ")
    assert Path(".charts/.gitignore").read_text() == "*\n"
    assert len(server.downloads) == 1
    server.asked.clear()
    assert pull(*args_of(kind, server), "1.2.3") == (path, "")
    assert server.downloads == []
    server.asked.clear()
    assert pull(*args_of(kind, server), "1.2.3", digest) == (path, "")
    assert server.asked == []
    Path(path).write_bytes(b"something else")
    assert pull(*args_of(kind, server), "1.2.3", digest)[0] == path
    assert Path(path).read_bytes() == packed


def test_helm_pulls_the_same_from_the_server(server: ChartServer, helm: str, tmp_path: Path) -> None:
    server.is_private = True
    login = ["--username", USER, "--password", PASSWORD]
    subprocess.run([helm, "registry", "login", server.host, *login], check=True, capture_output=True)
    subprocess.run([helm, "repo", "add", "a", server.repository, *login], check=True, capture_output=True)
    for where, kind in (([f"{server.registry}/web"], "oci"), (["a/web"], "https")):
        folder = tmp_path / kind
        command = [helm, "pull", *where, "--version", "1.2.3", "-d", str(folder)]
        folder.mkdir()
        subprocess.run(command, check=True, capture_output=True)
        path, _ = pull(*args_of(kind, server), "1.2.3")
        assert (folder / "web-1.2.3.tgz").read_bytes() == Path(path).read_bytes()
    # And a tag has no plus sign.
    assert pull(f"{server.registry}/web", "", "2.0.0+build.1")[0].startswith(".charts/web-2.0.0+build.1-")


@pytest.mark.parametrize("kind", ["https", "oci"])
def test_who_has_no_credentials_is_told_the_command_that_gives_helm_some(
    server: ChartServer, kind: str, helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.is_private = True
    place = {"https": "https://HOST/charts", "oci": "oci://HOST/org/web"}[kind]
    command = {
        "https": "helm repo add NAME https://HOST/charts --username USER --password-stdin < FILE",
        "oci": "helm registry login HOST --username USER --password-stdin < FILE",
    }[kind]
    text = refusal(*args_of(kind, server), "1.2.3")
    assert text == (
        f"chart web 1.2.3 of {place}: HOST does not give it to everybody (401 Unauthorized). Log in by\n"
        f"    {command}"
    )
    (tmp_path / "password").write_text(PASSWORD)
    monkeypatch.setenv("PATH", str(Path(helm).parent), prepend=":")
    printed = command.replace("HOST", server.host)
    remedies.run(printed, folder=tmp_path, NAME="ours", USER=USER, FILE="password")
    path, note = pull(*args_of(kind, server), "1.2.3")
    assert Path(path).exists()
    assert not CANARIES.search(note)


HELPER = """#!/bin/sh
read -r server
echo "$1 $server" >> {asked}
{answer}
"""


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("auths", ""),
        ("old auths", ""),
        ("identity token", ""),
        ("credHelpers", json.dumps({"Username": USER, "Secret": PASSWORD})),
        ("credsStore", json.dumps({"Username": "<token>", "Secret": IDENTITY_TOKEN})),
    ],
)
@pytest.mark.parametrize("whose", ["helm", "docker"])
def test_credentials_come_from_where_helm_takes_them(
    server: ChartServer, kind: str, answer: str, whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.is_private = True
    file = {"helm": tmp_path / "helm/registry/config.json", "docker": tmp_path / "docker/config.json"}[whose]
    auth = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    contents = {
        "auths": {"auths": {server.host: auth}},
        "old auths": {"auths": {f"https://{server.host}/v1/": auth}},
        "identity token": {"auths": {server.host: {"identitytoken": IDENTITY_TOKEN}}},
        "credHelpers": {"credHelpers": {server.host: "ours"}},
        "credsStore": {"credsStore": "ours"},
    }
    write(file, contents[kind])
    program, asked = tmp_path / "docker-credential-ours", tmp_path / "asked"
    program.write_text(HELPER.format(asked=asked, answer=f"echo '{answer}'" if answer else "exit 1"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert pull(f"{server.registry}/web", "", "1.2.3")[0]

    assert not answer or asked.read_text() == f"get {server.host}\n"


def test_what_helm_knows_and_cannot_be_used_is_said_without_its_content(
    server: ChartServer, tmp_path: Path
) -> None:
    server.is_private = True
    config = tmp_path / "helm/registry/config.json"
    write(config, {"credsStore": "none-such"})
    login = "helm registry login HOST --username USER --password-stdin < FILE"
    assert refusal(f"{server.registry}/web", "", "1.2.3").endswith(
        "(401 Unauthorized). docker-credential-none-such could not be asked for credentials. Log in by\n"
        f"    {login}"
    )
    write(config, {"auths": {server.host: {"auth": f"{PASSWORD}="}}})
    assert "what Helm has stored for it is no user name and password" in refusal(
        f"{server.registry}/web", "", "1.2.3"
    )
    config.write_text(f"{{{PASSWORD}: [")
    text = refusal(f"{server.registry}/web", "", "1.2.3")
    assert text == f"{config}, in which Helm keeps credentials, cannot be read"


def test_the_credentials_of_a_repository_do_not_go_to_another_host(
    server: ChartServer, tmp_path: Path
) -> None:
    server.is_private = True
    entry: dict[str, Any] = {
        "name": "a",
        "url": f"{server.repository}/",
        "username": USER,
        "password": PASSWORD,
    }
    write(tmp_path / "helm/repositories.yaml", {"repositories": [entry]})
    server.moved["web-1.2.3.tgz"] = f"https://localhost:{server.port}/charts/web-1.2.3.tgz"

    assert "localhost:" in refusal("web", server.repository, "1.2.3")
    write(tmp_path / "helm/repositories.yaml", {"repositories": [entry | {"pass_credentials_all": True}]})
    assert pull("web", server.repository, "1.2.3")
    # As that of Bitnami, whose index leads into a registry.
    write(
        tmp_path / "helm/registry/config.json",
        {"auths": {server.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}},
    )
    server.moved["web-1.2.2.tgz"] = f"{server.registry}/web:1.2.2"
    assert pull("web", server.repository, "1.2.2")


def test_an_authority_of_ones_own_is_trusted_by_a_variable_or_by_helms_file(
    server: ChartServer,
    helm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    by_variable = (
        "the certificate of HOST is not trusted: unable to get local issuer certificate. If its authority is "
        "your own, set the variable SSL_CERT_FILE to a file with that authority"
    )
    assert refusal(f"{server.registry}/web", "", "1.2.3").endswith(by_variable)
    command = "helm repo add NAME https://HOST/charts --ca-file FILE"
    assert refusal("web", server.repository, "1.2.3").endswith(f"{by_variable}, or\n    {command}")
    monkeypatch.setenv("PATH", str(Path(helm).parent), prepend=":")
    remedies.run(command.replace("HOST", server.host), NAME="ours", FILE=str(server.authority))
    assert pull("web", server.repository, "1.2.3")
    entry = {"name": "ours", "url": server.repository}
    entry |= {"caFile": str(tmp_path / "none.pem")}
    write(tmp_path / "helm/repositories.yaml", {"repositories": [entry]})
    assert "a certificate cannot be read that repositories.yaml or SSL_CERT_FILE names: No such" in refusal(
        "web", server.repository, "1.2.3"
    )
    entry = {"name": "a", "url": server.repository, "insecure_skip_tls_verify": True}  # type: ignore[dict-item]
    write(tmp_path / "helm/repositories.yaml", {"repositories": [entry]})
    assert pull("web", server.repository, "1.2.2")


def test_a_proxy_is_used(server: ChartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = {"name": "a", "url": "https://charts.invalid/charts", "insecure_skip_tls_verify": True}
    write(tmp_path / "helm/repositories.yaml", {"repositories": [entry]})
    with run_proxy(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert pull("web", "https://charts.invalid/charts", "1.2.3")
    assert set(proxy.asked) == {"charts.invalid:443"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("web", "https://HOST/charts", "1.2.4"),
            "there is no such version. The nearest: 1.2.2, 1.2.3, 1.10.0, 2.0.0+build.1",
        ),
        (
            ("oci://HOST/org/web", "", "3.0.0"),
            "there is no such version. The nearest: 1.2.3, 1.10.0, 2.0.0+build.1",
        ),
        (
            ("oci://HOST/org/none", "", "3.0.0"),
            "chart none 3.0.0 of oci://HOST/org/none: there is no such version.",
        ),
        (("webb", "https://HOST/charts", "1.2.3"), "there is no such chart. The nearest: web"),
        (("web", "https://HOST/other", "1.2.3"), "there is no https://HOST/other/index.yaml"),
        (
            ("web", "https://HOST/charts", ""),
            "chart web of https://HOST/charts: no version is pinned: each run could deploy another chart. "
            'Set version="1.2.3"',
        ),
        (("web", "https://HOST/charts", ">=1.2"), ">=1.2 can be several versions: each run could"),
        (("oci://HOST/org/web", "", "latest"), "latest can be several versions"),
        (
            ("oci://HOST/org/web:1.2.3", "", ""),
            'give the tag as version="1.2.3", and a digest as digest="sha',
        ),
        (
            ("web", "https://me:pull-canary@HOST/charts", "1.2.3"),
            "chart web of https://HOST/charts: credentials in",
        ),
        (("web", "https://HOST/charts", "1.2.3", "sha256:abc"), "sha256:abc is no digest"),
        (("https://HOST/charts/web", "", "1.2.3"), "Helm repositories are given apart from the chart's name"),
        (
            ("web", "bitnami", "1.2.3"),
            "chart web: its repository is no address, as in https://charts.example.com or",
        ),
        (("web", "https://", "1.2.3"), "chart web: its repository is no address"),
        (("./web", "", "1.2.3"), "chart ./web is in the project, where its own Chart.yaml says its version"),
        (("web", "http://charts.example", "1.2.3"), "charts.example is not asked without TLS"),
        (("web", "https://127.0.0.1:1/charts", "1.2.3"), "HOST does not answer: "),
        (("web", "https://HOST/charts", "1.2.3", f"sha256:{'0' * 64}"), "not sha256:000"),
        (("oci://HOST/org/web", "", "1.2.3", f"sha256:{'0' * 64}"), "somebody has replaced it, there or on"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_to_do(
    server: ChartServer, args: tuple[str, ...], message: str
) -> None:
    assert message in refusal(*(text.replace("HOST", server.host) for text in args))
    assert not Path(".charts").exists()


def test_other_content_than_the_index_or_the_manifest_names_is_refused(
    server: ChartServer, helm: str
) -> None:
    server.moved["web-1.2.3.tgz"] = "web-1.2.2.tgz"
    assert "somebody has replaced it" in refusal("web", server.repository, "1.2.3")
    # A manifest's digest, as `helm pull` prints it, is as good as that of the packed chart.
    show = [helm, "pull", f"{server.registry}/web", "--version", "1.2.3", "-d", str(server.folder.parent)]
    printed = subprocess.run(show, check=True, capture_output=True, text=True)
    digest = re.search(r"Digest: (\S+)", printed.stdout + printed.stderr)
    assert digest
    assert pull(f"{server.registry}/web", "", "1.2.3", digest[1])


def test_a_version_whose_content_changes_is_another_path(
    server: ChartServer, helm: str, tmp_path: Path
) -> None:
    before, _ = pull(f"{server.registry}/web", "", "1.2.3")
    packed = (server.folder / "web-1.2.3.tgz").read_bytes()
    try:
        shutil.copy(server.folder / "web/values.yaml", tmp_path / "values.yaml")
        with (server.folder / "web/values.yaml").open("a") as file:
            file.write("more: 1\n")
        server.pack(helm, server.folder / "web", "1.2.3")
        after, note = pull(f"{server.registry}/web", "", "1.2.3")
        assert note
        assert after != before
        assert chart.load(after).description != chart.load(before).description
        assert "somebody has replaced it" in refusal(
            f"{server.registry}/web", "", "1.2.3", digest_of(packed[:-1])
        )
    finally:
        shutil.copy(tmp_path / "values.yaml", server.folder / "web/values.yaml")
        (server.folder / "web-1.2.3.tgz").write_bytes(packed)


BEARER = {"WWW-Authenticate": 'Bearer realm="https://registry.example/token"'}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        # A captive portal, and a registry that does not say where its tokens are.
        ([(401, BEARER, ""), (200, {}, "<html>Sign in</html>")], "what has that name there is no Helm chart"),
        ([(401, {"WWW-Authenticate": "Bearer"}, "")], "does not give it to everybody (401 Unauthorized)"),
        ([(401, {"WWW-Authenticate": "Basic"}, "")], "does not give it to everybody (401 Unauthorized)"),
        (
            [(403, {}, "")],
            "does not give it to everybody (403 Forbidden). Log in by\n    helm registry login",
        ),
        ([(0, {}, "Illegal header value b'Bearer canary'")], "cannot be sent the credentials that Helm has"),
        ([(429, {}, "")], "registry.example answers 429 Too Many Requests"),
        (
            [(302, {"Location": "https://registry.example/v2/"}, "")] * 30,
            "Exceeded maximum allowed redirects",
        ),
        ([(302, {"Location": "http://other.example/"}, "")], "other.example is not asked without TLS"),
        ([(200, {}, "[]")], "what has that name there is no Helm chart"),
        ([(404, {}, ""), (200, {}, "{}")], "there is no such version"),
    ],
)
def test_strange_answers_of_a_registry_are_no_trace(
    answers: list[tuple[int, dict[str, str], str]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    left = iter(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        status, headers, text = next(left)
        if not status:
            raise httpx.LocalProtocolError(text)
        return httpx.Response(status, headers=headers, text=text)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELM_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with_answers = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "Client", with_answers)
    text = refusal("oci://registry.example/org/web", "", "1.2.3")
    assert message in text
    assert "canary" not in text


def test_a_proxy_that_is_none_is_said_without_its_password(
    server: ChartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"gopher://me:{PASSWORD}@proxy.example")
    assert "HTTPS_PROXY or ALL_PROXY names no proxy" in refusal("web", server.repository, "1.2.3")


@pytest.mark.parametrize(
    ("host", "command"),
    [
        ("ghcr.io", "    helm registry login ghcr.io --username USER --password-stdin < FILE"),
        (
            "111111111111.dkr.ecr.eu-central-1.amazonaws.com",
            "    aws ecr get-login-password --region eu-central-1 | helm registry login "
            "111111111111.dkr.ecr.eu-central-1.amazonaws.com --username AWS --password-stdin",
        ),
    ],
)
def test_the_command_to_log_in_is_the_one_of_the_registry(host: str, command: str) -> None:
    assert chart_servers.login_command(httpx.URL(f"oci://{host}")) == command


def test_http_is_enough_on_loopback(helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "charts").mkdir()
    with chart_server(tmp_path / "charts", tls=False) as served:
        served.pack(helm, PROJECT / "tests/charts/web", "1.2.3")
        assert pull("web", served.repository, "1.2.3")


def test_a_folder_that_cannot_be_written_is_named(server: ChartServer, tmp_path: Path) -> None:
    (tmp_path / ".charts").write_text("a file")
    assert "cannot be written: " in refusal("web", server.repository, "1.2.3")


def test_of_a_large_index_only_the_chart_is_read() -> None:
    """As Helm writes it, and as others do; what is deeper is no chart."""
    index = yaml.safe_dump(
        {
            "apiVersion": "v1",
            "entries": {
                "aa": [
                    {"name": "aa", "version": "1.0.0", "web": [{"name": "no"}], "description": "a\n  web:\n"}
                ],
                "web": [{"name": "web", "version": "1.10", "urls": ["a"]}],
                "web-2": [{"name": "web-2", "version": "2.0.0"}],
            },
            "generated": "x",
        }
    )
    for text in (index, index.replace("\n", "\r\n"), json.dumps(yaml.safe_load(index))):
        assert chart_servers._entries(text, "web")["web"] == [
            {"name": "web", "version": "1.10", "urls": ["a"]}
        ]
    assert chart_servers._entries(index, "web").keys() == {"web"}
    assert chart_servers._entries(index, "we").keys() == {"aa", "web", "web-2"}
    indented = "entries:\n    web:\n      - name: web\n        version: 1.10\n    x: []\n"
    assert chart_servers._entries(indented, "web") == {"web": [{"name": "web", "version": "1.10"}]}
