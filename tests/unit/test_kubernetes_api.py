"""The program's own client reaches what kubectl reaches: TLS servers and proxies on loopback, which keep what
they are asked."""

import base64
import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from components.release.connection import _is_proxied
from components.release.kubernetes_api import Api, UnreachableError
from tests.proxy import Proxy, run_proxy

PASSWORD = "a-password-that-nobody-sees"
Entry = dict[str, Any]


# ---- certificates


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes
    signer: tuple[x509.Name, ec.EllipticCurvePrivateKey]

    @property
    def data(self) -> str:
        return base64.b64encode(self.certificate).decode()

    @property
    def key_data(self) -> str:
        return base64.b64encode(self.key).decode()


def pair(name: str, by: Pair | None = None, ends: int = 1, *, is_authority: bool = False) -> Pair:
    """Make a certificate for a host, an address or a user, valid until in `ends` days. Without the key
    identifiers, as Kubernetes' own authorities are."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer, signing_key = by.signer if by else (subject, key)
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9 + ends))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    return Pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        (subject, key),
    )


@pytest.fixture(scope="module")
def authority() -> Pair:
    return pair("authority", is_authority=True)


# ---- servers


@dataclass
class Server:
    """An API server, and what it was asked."""

    port: int
    requests: list[dict[str, str]] = field(default_factory=list)
    """Headers; `user` is the name in the client's certificate, `sni` the name that it asked for."""
    accepted: str = ""
    """The one value of Authorization that is not answered by 401."""

    def url(self, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}"


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path, authority: Pair) -> Iterator[Serve]:
    """Start an API server with a certificate."""
    running: list[ThreadingHTTPServer] = []

    def start(certificate: Pair | None, address: str = "127.0.0.1") -> Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers: dict[str, str] = {}
                for name, value in self.headers.items():
                    headers[name] = f"{headers[name]},{value}" if name in headers else value
                shown = self.connection.getpeercert() if certificate else None
                names = dict(pair[0] for pair in (shown or {}).get("subject", ()))
                headers |= {"user": names.get("commonName", ""), "path": self.path}
                headers["sni"] = getattr(self.connection, "sni", "") or ""
                server.requests.append(headers)
                code = 401 if server.accepted not in ("", headers.get("Authorization")) else 200
                body = b'{"kind": "Thing"}'
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that does not trust this server

        http = Http((address, 0), Handler)
        if certificate:
            file = tmp_path / f"server-{len(running)}.pem"
            file.write_bytes(certificate.certificate + certificate.key)
            (tmp_path / "authority.pem").write_bytes(authority.certificate)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(file)
            tls.load_verify_locations(tmp_path / "authority.pem")
            tls.verify_mode = ssl.CERT_OPTIONAL
            tls.sni_callback = lambda connection, name, _: setattr(connection, "sni", name)
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        running.append(http)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        server = Server(http.server_address[1])
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture
def proxies(tmp_path: Path, authority: Pair) -> Iterator[Callable[..., Proxy]]:
    """Start a proxy of a kind to a server."""
    with contextlib.ExitStack() as running:

        def start(kind: str, to: Server, password: str = "") -> Proxy:
            tls = None
            if kind == "https":
                shown = pair("127.0.0.1", authority)
                (tmp_path / "proxy.pem").write_bytes(shown.certificate + shown.key)
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.load_cert_chain(tmp_path / "proxy.pem")
            return running.enter_context(run_proxy(to.port, kind, password, tls))

        yield start


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def config(cluster: Entry, user: Entry | None = None) -> Entry:
    return {
        "clusters": [{"name": "a", "cluster": cluster}],
        "users": [{"name": "b", "user": user or {}}],
        "contexts": [{"name": "laptop", "context": {"cluster": "a", "user": "b"}}],
        "current-context": "laptop",
    }


def asked(server: Server, cluster: Entry, user: Entry | None = None) -> dict[str, str]:
    """Return the headers of a request."""
    assert Api(config(cluster, user)).get("/version") == {"kind": "Thing"}
    return server.requests[-1]


def refusal(cluster: Entry, user: Entry | None = None) -> str:
    with pytest.raises(UnreachableError) as caught:
        Api(config(cluster, user), timeout=2).get("/version")
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


# ---- TLS


def test_a_certificate_for_another_name_serves_under_tls_server_name(serve: Serve, authority: Pair) -> None:
    server = serve(pair("shop.internal", authority))
    cluster = {"server": server.url(), "certificate-authority-data": authority.data}

    assert asked(server, cluster | {"tls-server-name": "shop.internal"})["sni"] == "shop.internal"
    assert refusal(cluster) == (
        f"the API server at {server.url()} shows a certificate that is not for 127.0.0.1: set "
        "clusters[].cluster.tls-server-name to a name that it is for"
    )
    assert "is not for desk.internal: set" in refusal(cluster | {"tls-server-name": "desk.internal"})


def test_another_authority_is_told_from_another_name_and_from_an_expired_certificate(
    serve: Serve, authority: Pair
) -> None:
    server = serve(pair("127.0.0.1", authority))
    old = serve(pair("127.0.0.1", authority, ends=-1))
    other = pair("authority", is_authority=True)

    shows = f"the API server at {server.url()} shows a certificate that "
    assert refusal({"server": server.url(), "certificate-authority-data": other.data}) == (
        f"{shows}the kube config does not trust: it is of another cluster, or of one that was made anew"
    )
    assert refusal({"server": server.url()}) == (
        f"{shows}this machine does not trust: name its signer by clusters[].cluster.certificate-authority"
    )
    assert refusal({"server": old.url(), "certificate-authority-data": authority.data}) == (
        f"the API server at {old.url()} shows a certificate that is not valid by the clock of this machine: "
        "certificate has expired"
    )


def test_insecure_skip_tls_verify_trusts_any_certificate(serve: Serve) -> None:
    server = serve(pair("elsewhere"))

    asked(server, {"server": server.url(), "insecure-skip-tls-verify": True})


def test_an_authority_that_another_one_signed_serves_without_that_one(serve: Serve, authority: Pair) -> None:
    between = pair("between", authority, is_authority=True)
    server = serve(pair("127.0.0.1", between))

    asked(server, {"server": server.url(), "certificate-authority-data": between.data})


def test_an_authority_without_a_key_identifier_serves_as_python_3_13_would_refuse_it(authority: Pair) -> None:
    """Python 3.13 was seen to refuse this one: Missing Authority Key Identifier."""
    api = Api(config({"server": "https://127.0.0.1:1", "certificate-authority-data": authority.data}))

    tls = api._http._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert not tls.verify_flags & ssl.VERIFY_X509_STRICT


def test_a_client_certificate_is_shown(serve: Serve, authority: Pair) -> None:
    server = serve(pair("127.0.0.1", authority))
    me = pair("me", authority)
    user = {"client-certificate-data": me.data, "client-key-data": me.key_data}

    assert (
        asked(server, {"server": server.url(), "certificate-authority-data": authority.data}, user)["user"]
        == "me"
    )


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_ipv6_serves(serve: Serve, authority: Pair) -> None:
    server = serve(pair("::1", authority), "::1")

    asked(server, {"server": server.url("[::1]"), "certificate-authority-data": authority.data})


def test_a_server_below_a_path_serves(serve: Serve, authority: Pair) -> None:
    server = serve(pair("127.0.0.1", authority))
    url = f"{server.url()}/k8s/clusters/c-1/"

    assert asked(server, {"server": url, "certificate-authority-data": authority.data})["path"] == (
        "/k8s/clusters/c-1/version"
    )


# ---- proxies


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_proxy_url_leads_to_a_server_that_only_the_proxy_knows(
    serve: Serve, proxies: Callable[..., Proxy], authority: Pair, kind: str
) -> None:
    server = serve(pair("shop.internal", authority))
    proxy = proxies(kind, server)

    asked(
        server,
        {
            "server": "https://api.invalid:6443",
            "certificate-authority-data": authority.data,
            "tls-server-name": "shop.internal",
            "proxy-url": f"{kind}://127.0.0.1:{proxy.port}",
        },
    )

    assert proxy.asked == ["api.invalid:6443"]


def test_the_variable_leads_there_too_but_proxy_url_goes_before_it(
    serve: Serve, proxies: Callable[..., Proxy], authority: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(pair("api.invalid", authority))
    proxy = proxies("http", server)
    cluster = {"server": "https://api.invalid", "certificate-authority-data": authority.data}
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")

    asked(server, cluster)
    assert proxy.asked == ["api.invalid:443"]
    at_the_end = "does not answer through the proxy 127.0.0.1 (clusters[].cluster.proxy-url): "
    assert at_the_end in refusal(cluster | {"proxy-url": f"http://me:{PASSWORD}@127.0.0.1:1"})
    monkeypatch.setenv("NO_PROXY", ".invalid")
    assert " through " not in refusal(cluster)


def test_a_proxy_that_wants_a_password_gets_it_and_is_named_without_it(
    serve: Serve, proxies: Callable[..., Proxy], authority: Pair
) -> None:
    server = serve(pair("api.invalid", authority))
    proxy = proxies("http", server, PASSWORD)
    cluster = {"server": "https://api.invalid", "certificate-authority-data": authority.data}

    asked(server, cluster | {"proxy-url": f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"})
    assert refusal(cluster | {"proxy-url": f"http://127.0.0.1:{proxy.port}"}) == (
        "the API server at https://api.invalid does not answer through the proxy 127.0.0.1 "
        "(clusters[].cluster.proxy-url): 407 Proxy Authentication Required"
    )


def test_a_proxy_that_shows_a_certificate_of_its_own_is_among_the_causes(
    serve: Serve, proxies: Callable[..., Proxy], authority: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(pair("api.invalid"))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxies('http', server).port}")

    message = refusal({"server": "https://api.invalid", "certificate-authority-data": authority.data})

    assert message.endswith("or of one that was made anew, or of the proxy 127.0.0.1 (https_proxy)")


def test_a_variable_that_names_no_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://me:{PASSWORD}@proxy:21")

    assert refusal({"server": "https://api.invalid"}) == "HTTPS_PROXY is no URL of a proxy"


@pytest.mark.parametrize(
    ("host", "excepted", "is_proxied"),
    [
        ("localhost", "", False),
        ("127.0.0.1", "", False),
        ("::1", "", False),
        ("shop.example", "", True),
        ("shop.example", "*", False),
        ("shop.example", "example", False),
        ("shop.example", "shop.example, other", False),
        ("shop.example", "SHOP.example.", True),
        ("shop.example", ".shop.example", True),
        ("api.shop.example", ".shop.example", False),
        ("api.shop.example", "*.shop.example", False),
        ("api.shop.example", "shop.example:6443", False),
        ("api.shop.example", "shop.example:443", True),
        ("workshop.example", "shop.example", True),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "11.0.0.0/8,10.1.2.3", False),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "2.3", True),
        ("fd00::5", "fd00::/16", False),
        ("fd00::5", "[fd00::5]:6443", False),
        ("fd00::5", "fd00::6,10.0.0.0/8,not/one,", True),
    ],
)
def test_no_proxy_excepts_what_it_does_in_go(host: str, excepted: str, is_proxied: bool) -> None:
    assert _is_proxied(host, 6443, excepted) == is_proxied


# ---- credentials


def plugin(folder: Path, script: str, **more: Any) -> Entry:
    """An exec plugin: a program that keeps each call in `calls`."""
    file = folder / "plugin"
    file.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/calls"\n{script}\n')
    file.chmod(0o755)
    version = more.pop("apiVersion", "client.authentication.k8s.io/v1")
    return {"exec": {"apiVersion": version, "command": str(file), "interactiveMode": "Never", **more}}


def answer(status: Entry, version: str = "client.authentication.k8s.io/v1") -> str:
    return f"echo '{json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status})}'"


@pytest.fixture
def place(serve: Serve, authority: Pair) -> tuple[Server, Entry]:
    """A server, and the cluster of a kube config that names it."""
    server = serve(pair("127.0.0.1", authority))
    return server, {"server": server.url(), "certificate-authority-data": authority.data}


def test_an_exec_plugin_gets_its_arguments_its_variables_and_the_cluster(
    place: tuple[Server, Entry], tmp_path: Path
) -> None:
    server, cluster = place
    cluster = cluster | {
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "shop"}}]
    }
    script = (
        f'echo "$KUBERNETES_EXEC_INFO" >"{tmp_path}/info"\n{answer({"token": "TOKEN"})} | sed s/TOKEN/$TOKEN/'
    )
    user = plugin(tmp_path, script, args=["get", "it"], env=[{"name": "TOKEN", "value": PASSWORD}])

    assert asked(server, cluster, user)["Authorization"] == f"Bearer {PASSWORD}"
    assert (tmp_path / "calls").read_text() == "get it\n"
    info = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    assert json.loads((tmp_path / "info").read_text()) == info | {"spec": {"interactive": False}}
    user["exec"]["provideClusterInfo"] = True
    asked(server, cluster, user)
    given = {"server": server.url(), "certificate-authority-data": cluster["certificate-authority-data"]}
    assert json.loads((tmp_path / "info").read_text()) == info | {
        "spec": {"interactive": False, "cluster": given | {"config": {"audience": "shop"}}}
    }


def test_an_exec_plugin_may_answer_a_client_certificate(
    place: tuple[Server, Entry], tmp_path: Path, authority: Pair
) -> None:
    server, cluster = place
    me = pair("me", authority)
    status = {"clientCertificateData": me.certificate.decode(), "clientKeyData": me.key.decode()}
    (tmp_path / "answer").write_text(answer(status).removeprefix("echo '").removesuffix("'"))

    assert asked(server, cluster, plugin(tmp_path, f'cat "{tmp_path}/answer"'))["user"] == "me"


def test_a_plugin_is_asked_once_then_when_it_has_expired_and_once_more_after_a_401(
    place: tuple[Server, Entry], tmp_path: Path
) -> None:
    server, cluster = place

    def calls() -> int:
        return len((tmp_path / "calls").read_text().splitlines())

    api = Api(config(cluster, plugin(tmp_path, answer({"token": "a"}))))
    api.get("/version")
    api.get("/version")
    assert calls() == 1
    server.accepted = "Bearer b"
    plugin(tmp_path, answer({"token": "b", "expirationTimestamp": "2020-01-01T00:00:00Z"}))
    api.get("/version")
    assert calls() == 2
    api.get("/version")
    assert calls() == 3
    server.accepted = "Bearer c"
    with pytest.raises(UnreachableError, match="401 Unauthorized"):
        api.get("/version")
    assert calls() == 4


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "Exec {} returned 3"),
        ("echo; echo first >&2; echo last >&2; exit 3", "Exec {} returned 3: last"),
        ("echo not JSON", "{} answers no ExecCredential with a token or certificate"),
        ("echo 5", "{} answers no ExecCredential with a token or certificate"),
        (answer({"token": 5}), "{} answers no ExecCredential with a token or certificate"),
        (answer({"clientKeyData": PASSWORD}), "{} answers no ExecCredential with a token or certificate"),
        (answer({"token": f"{PASSWORD}\\n"}), "{} answers no ExecCredential with a token or certificate"),
        (
            answer({"clientKeyData": PASSWORD, "clientCertificateData": "a"}),
            "{} answers a certificate and a key that are no pair in PEM",
        ),
        (
            answer({"token": PASSWORD}, "client.authentication.k8s.io/v1beta1"),
            "{} answers in version client.authentication.k8s.io/v1beta1, but users[].user.exec.apiVersion is "
            "client.authentication.k8s.io/v1",
        ),
    ],
)
def test_a_plugin_that_gives_no_credentials_is_named(
    place: tuple[Server, Entry], tmp_path: Path, script: str, message: str
) -> None:
    server, cluster = place

    said = refusal(cluster, plugin(tmp_path, script))

    reason = message.replace("{}", f"{tmp_path}/plugin")
    assert said == f"no credentials for the API server at {server.url()}: {reason}"
    assert server.requests == []


def test_a_plugin_that_is_not_there_is_named_with_its_hint(
    place: tuple[Server, Entry], tmp_path: Path
) -> None:
    user = plugin(tmp_path, "", command="kubelogin-of-nobody", installHint="brew install kubelogin")

    assert refusal(place[1], user).endswith(": kubelogin-of-nobody is not there: brew install kubelogin")


def test_a_token_file_is_read_again_when_its_token_has_changed(
    place: tuple[Server, Entry], tmp_path: Path
) -> None:
    server, cluster = place
    file = tmp_path / "token"
    file.write_text("a\n")
    api = Api(config(cluster, {"tokenFile": str(file), "token": "old"}))

    api.get("/version")
    assert server.requests[-1]["Authorization"] == "Bearer a"
    server.accepted = "Bearer b"
    file.write_text("b\n")
    api.get("/version")
    file.unlink()
    server.accepted = "Bearer c"
    with pytest.raises(UnreachableError, match=f"Token file {file} not found"):
        api.get("/version")


def test_a_username_and_a_password_are_sent(place: tuple[Server, Entry]) -> None:
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()

    assert asked(*place, {"username": "me", "password": PASSWORD})["Authorization"] == f"Basic {basic}"


def test_a_token_that_no_header_can_hold_is_not_quoted(place: tuple[Server, Entry]) -> None:
    assert "that no header can hold" in refusal(place[1], {"token": f"{PASSWORD}\n"})


def test_it_asks_as_the_one_whom_the_user_impersonates(place: tuple[Server, Entry]) -> None:
    server, cluster = place
    user = {
        "as": "déployer",
        "as-uid": "5",
        "as-groups": ["system:masters", "shop"],
        "as-user-extra": {"example.com/why": ["a", "b"]},
    }

    headers = asked(server, cluster, user)

    assert headers["Impersonate-User"].encode("latin-1").decode() == "déployer"
    assert headers["Impersonate-Uid"] == "5"
    assert headers["Impersonate-Group"] == "system:masters,shop"
    assert headers["Impersonate-Extra-example.com%2Fwhy"] == "a,b"
    assert "Impersonate-User" not in asked(server, cluster)


def test_compression_can_be_disabled(place: tuple[Server, Entry]) -> None:
    server, cluster = place

    assert "gzip" in asked(server, cluster)["Accept-Encoding"]
    assert asked(server, cluster | {"disable-compression": True})["Accept-Encoding"] == "identity"
