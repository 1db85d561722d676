"""The HTTP client for the cluster of a kube config, connecting as kubectl does.

lightkube brings certificates and tokens, httpx the proxies. Here is what they leave out or do otherwise,
after client-go (transport, plugin/pkg/client/auth/exec) and Go's golang.org/x/net/http/httpproxy.
"""

import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Any, cast
from urllib.parse import quote

import httpx2 as httpx
from lightkube import KubeConfig
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

Entry = Mapping[str, Any]

EXEC_CONFIG = "client.authentication.k8s.io/exec"
"""The extension of a cluster that an exec plugin is given as its config."""
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
LETTERS_OF_A_HEADER = "!#$&'*+-.^_`|~"
PROXY_SCHEMES = ("http", "https", "socks5")

_OF_THE_CLUSTER = (
    *("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data"),
    *("proxy-url", "disable-compression"),
)


def open_client(kubeconfig: Mapping[str, Any], timeout: float) -> httpx.Client:
    """Return a client for the current context of `kubeconfig`, whose requests wait for `timeout` seconds.

    Raises:
        ValueError: a variable of the environment names no proxy.
    """
    config = cast(SingleConfig, KubeConfig.from_dict(dict(kubeconfig)).get())
    cluster = _entry(kubeconfig, "cluster", config.context.cluster)
    user = _entry(kubeconfig, "user", config.context.user)
    options = client_adapter.ConnectionParams(timeout=cast(Any, timeout)).httpx_params(config)
    tls: ssl.SSLContext = options["verify"]
    # As in Go: an authority without a key identifier serves (Python 3.13 refuses it), and one that is itself
    # signed by another is trusted without that.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if isinstance(options["auth"], client_adapter.ExecAuth):
        options["auth"] = ExecAuth(user["exec"], cluster, tls)
    proxy, _ = proxy_of(cluster)
    if proxy:
        # Go trusts a proxy by the same authorities as the server.
        to_proxy = tls if httpx.URL(proxy).scheme == "https" else None
        options["proxy"] = httpx.Proxy(proxy, ssl_context=to_proxy)
    options["trust_env"] = False  # httpx's reading of the proxy variables is not Go's
    options["headers"] = [(name.encode(), value.encode()) for name, value in _impersonation(user)]
    if cluster.get("disable-compression"):
        options["headers"].append((b"Accept-Encoding", b"identity"))
    if name := cluster.get("tls-server-name"):
        options["event_hooks"] = {"request": [lambda request: request.extensions.update(sni_hostname=name)]}
    return httpx.Client(**options)


def cluster_of(kubeconfig: Mapping[str, Any]) -> Entry:
    """Return the cluster of the current context."""
    contexts = {item["name"]: item["context"] for item in kubeconfig["contexts"]}
    return _entry(kubeconfig, "cluster", contexts[kubeconfig["current-context"]]["cluster"])


def _entry(kubeconfig: Mapping[str, Any], kind: str, name: str | None) -> Entry:
    items = kubeconfig.get(f"{kind}s") or ()
    return next((item[kind] or {} for item in items if item["name"] == name), {})


def _impersonation(user: Entry) -> Generator[tuple[str, str], None, None]:
    for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if user.get(key):
            yield header, user[key]
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", group
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values:
            yield f"Impersonate-Extra-{quote(key, safe=LETTERS_OF_A_HEADER)}", value


# ---- proxies


def proxy_of(cluster: Entry) -> tuple[str, str]:
    """Return the URL of the proxy to `cluster`, and the key or variable that names it; empty without one.

    Raises:
        ValueError: a variable of the environment names no proxy.
    """
    if url := cluster.get("proxy-url"):
        return url, "clusters[].cluster.proxy-url"
    server = httpx.URL(cluster.get("server", ""))
    for name in (f"{server.scheme}_proxy".upper(), f"{server.scheme}_proxy"):
        if url := os.environ.get(name):
            break
    else:
        return "", ""
    excepted = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    if not _is_proxied(server.host, server.port or {"http": 80}.get(server.scheme, 443), excepted):
        return "", ""
    url = url if "://" in url else f"http://{url}"
    if not is_proxy(url, (*PROXY_SCHEMES, "socks5h")):
        raise ValueError(f"{name} is no URL of a proxy")
    return url, name


def is_proxy(url: str, schemes: tuple[str, ...] = PROXY_SCHEMES) -> bool:
    """Return whether a proxy can be asked at `url`."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in schemes and bool(parsed.host)


def _is_proxied(host: str, port: int, excepted: str) -> bool:
    """Return whether Go would ask a proxy for this host, by the value of NO_PROXY."""
    host = host.lower()
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return False
    for item in filter(None, (part.strip().lower() for part in excepted.split(","))):
        if item == "*":
            return False
        if "/" in item:
            try:
                if address and address in ipaddress.ip_network(item, strict=False):
                    return False
            except ValueError:
                pass  # Go leaves out what it cannot read
            continue
        name, _, its_port = item.rpartition(":") if item.count(":") == 1 or "]:" in item else (item, "", "")
        if its_port and its_port != str(port):
            continue
        name = name.strip("[]") if its_port else name
        name = name[1:] if name.startswith("*.") else name
        if its := _address(name):
            if its == address:
                return False
        elif name and not address and (host == name or host.endswith(f".{name.removeprefix('.')}")):
            return False
    return True


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# ---- credentials


class ExecAuth(httpx.Auth):
    """The credentials that an exec plugin gives: a token, a client certificate, or both.

    lightkube's own knows no version v1, no cluster information and no certificates. A new certificate serves
    from the next connection on.
    """

    def __init__(self, plugin: Entry, cluster: Entry, tls: ssl.SSLContext) -> None:
        self._plugin = plugin
        self._cluster = cluster
        self._tls = tls
        self._lock = Lock()
        self._token = ""
        self._expires: datetime | None = None
        self._answers = 0

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask the plugin at first, when its answer has expired, and once more after a 401."""
        with self._lock:
            before = self._answers
            if not before or (self._expires and self._expires <= datetime.now(UTC)):
                self._ask()
            used = self._answers
        self._authorize(request)
        response = yield request
        if response.status_code == 401 and used == before:
            with self._lock:
                if self._answers == used:  # else another thread has asked
                    self._ask()
            self._authorize(request)
            yield request

    def _authorize(self, request: httpx.Request) -> None:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"

    def _ask(self) -> None:
        """Run the plugin, and keep what it answers.

        Raises:
            ConfigError: it is not there, fails, or answers something else. The text quotes no answer.
        """
        answer = self._run()
        version = self._plugin["apiVersion"]
        try:
            credential = json.loads(answer)
            answered, status = credential.get("apiVersion"), credential.get("status") or {}
            token = status.get("token") or ""
            certificate, key = (status.get(f"client{part}Data") or "" for part in ("Certificate", "Key"))
            until = status.get("expirationTimestamp")
            expires = datetime.fromisoformat(until) if until else None
            is_whole = token.isprintable() and bool(certificate) == bool(key) and bool(token or key)
        except (ValueError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            raise ConfigError(
                f"{self._plugin['command']} answers no ExecCredential with a token or certificate"
            )
        if answered != version:
            raise ConfigError(
                f"{self._plugin['command']} answers in version {answered}, but users[].user.exec.apiVersion "
                f"is {version}"
            )
        if key:
            try:
                load_client_certificate(self._tls, certificate.encode(), key.encode())
            except (ssl.SSLError, ValueError):
                raise ConfigError(
                    f"{self._plugin['command']} answers a certificate and a key that are no pair in PEM"
                ) from None
        self._token = token
        self._expires = expires and (expires if expires.tzinfo else expires.replace(tzinfo=UTC))
        self._answers += 1

    def _run(self) -> bytes:
        plugin = self._plugin
        spec: dict[str, Any] = {"interactive": False}
        if plugin.get("provideClusterInfo"):
            spec["cluster"] = {key: self._cluster[key] for key in _OF_THE_CLUSTER if key in self._cluster}
            for extension in self._cluster.get("extensions") or ():
                if extension["name"] == EXEC_CONFIG:
                    spec["cluster"]["config"] = extension["extension"]
        info = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}
        more = {item["name"]: item.get("value") or "" for item in plugin.get("env") or ()}
        # By this process's own PATH, as in Go, and not by one in `env`.
        program = shutil.which(plugin["command"])
        if program is None:
            raise ConfigError(
                ": ".join(filter(None, (f"{plugin['command']} is not there", plugin.get("installHint"))))
            )
        done = subprocess.run(
            [program, *(plugin.get("args") or ())],
            env={**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            lines = [
                line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()
            ]
            raise ConfigError(
                ": ".join((f"Exec {plugin['command']} returned {done.returncode}", *lines[-1:]))
            )
        return done.stdout


def load_client_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Have `tls` show a client certificate.

    Raises:
        ssl.SSLError: the two are no pair in PEM, or the key is encrypted.
    """
    with tempfile.NamedTemporaryFile() as file:  # the only form that ssl takes; readable by its owner alone
        file.write(certificate + b"\n" + key)
        file.flush()
        # Without a passphrase an encrypted key would be asked for at the terminal.
        tls.load_cert_chain(file.name, password="")
