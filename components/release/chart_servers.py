"""Servers of charts, Helm repositories and OCI registries, asked as Helm asks them."""

import base64
import bisect
import difflib
import ipaddress
import re
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import yaml

from . import helm_config
from .chart_source import OCI, VERSION, digest_of
from .errors import ChartError
from .helm_config import Login, Repository
from .kubernetes_api import rejected_certificate

TIMEOUT = 30
"""Seconds without an answer."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONTENT = ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/tar+gzip")
"""Media types of a packed chart; the second is of old clients."""
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
ECR = re.compile(r"\d+\.dkr\.ecr\.([\w-]+)\.amazonaws\.(com|com\.cn|eu)")

_Texts: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # for which the version 1.10 is no number


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A packed chart that a server has."""

    download: Callable[[], bytes]
    """Raises ChartError."""
    digest: str
    """Of its content; empty where a repository gives none."""
    manifest: str = ""
    """Digest of the manifest that names it in a registry."""


def in_repository(address: str, name: str, version: str, subject: str) -> Archive:
    """Find a chart in a Helm repository.

    Args:
        address: of the repository.
        name: of the chart.
        version: of the chart.
        subject: of the sentences on faults.

    Raises:
        ChartError: it is not there, or the server does not say.
    """
    known, url = helm_config.repository(address), httpx.URL(address.rstrip("/") + "/")
    server = _Server(subject, httpx.URL(address), known, _basic_auth(known.login))
    index = server.get(str(url.join("index.yaml"))).text
    try:
        entries = _entries(index, name)
        if name not in entries:
            raise ChartError(f"{subject}: there is no such chart.{_nearest(name, entries)}")
        versions = {item["version"].removeprefix("v"): item for item in entries[name]}
        if version.removeprefix("v") not in versions:
            raise ChartError(f"{subject}: there is no such version.{_nearest(version, versions)}")
        item = versions[version.removeprefix("v")]
        place, digest = item["urls"][0], item.get("digest")
    except (yaml.YAMLError, TypeError, KeyError, IndexError, AttributeError):
        raise ChartError(f"{subject}: {url}index.yaml is not the index of a Helm repository") from None
    if place.startswith(OCI):
        return in_registry(place.rpartition(":")[0], version, subject)
    at = url.join(place)
    if (at.scheme, at.netloc) != (url.scheme, url.netloc) and not known.for_all_hosts:
        server = _Server(subject, at)  # without the credentials
    return Archive(download=lambda: server.get(str(at)).content, digest=f"sha256:{digest}" if digest else "")


def in_registry(address: str, version: str, subject: str) -> Archive:
    """Find a chart in an OCI registry.

    Args:
        address: of the chart, `oci://…`, without a tag.
        version: of the chart.
        subject: of the sentences on faults.

    Raises:
        ChartError: it is not there, or the server does not say.
    """
    host, _, name = address.removeprefix(OCI).partition("/")
    host = "registry-1.docker.io" if host == "docker.io" else host
    login = helm_config.registry_login(host)
    server = _Server(subject, httpx.URL(f"{OCI}{host}"), auth=_RegistryAuth(login), problem=login.problem)
    root = f"https://{host}/v2/{name}"
    response = server.find(f"{root}/manifests/{version.replace('+', '_')}", MANIFEST)
    if response is None:
        tags = _tags(server.find(f"{root}/tags/list"))
        raise ChartError(f"{subject}: there is no such version.{_nearest(version, tags)}")
    try:
        layers = response.json()["layers"]
        [digest] = [layer["digest"] for layer in layers if layer["mediaType"] in CONTENT]
    except (ValueError, KeyError, TypeError):
        raise ChartError(f"{subject}: what has that name there is no Helm chart") from None
    return Archive(
        download=lambda: server.get(f"{root}/blobs/{digest}").content,
        digest=digest,
        manifest=digest_of(response.content),
    )


def _tags(listed: httpx.Response | None) -> list[str]:
    try:
        return [tag.replace("_", "+") for tag in listed.json()["tags"]] if listed else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def login_command(url: httpx.URL) -> str:
    """Return how a user gives Helm the credentials for a repository, or for a registry as `oci://HOST`."""
    if ecr := ECR.fullmatch(url.host):
        login = f"helm registry login {url.host} --username AWS --password-stdin"
        return f"    aws ecr get-login-password --region {ecr[1]} | {login}"
    if url.scheme == "oci":
        return f"    helm registry login {_host(url)} --username USER --password-stdin < FILE"
    return f"    helm repo add NAME {url} --username USER --password-stdin < FILE"


def _entries(index: str, name: str) -> Any:
    """Return the charts of an index; of a large one, which takes a parser many seconds, `name` alone."""
    if start := re.search(r"^entries:[ \t]*\r?\n( +)", index, re.MULTILINE):
        indent = start[1]
        key, end = rf"{indent}[\"']?{re.escape(name)}[\"']?:[ \t]*\r?\n", rf"{indent}[^\s-]|\S"
        only = re.compile(rf"^{key}(?:(?!{end}).*\n?)*", re.MULTILINE)
        if block := only.search(index, start.end() - len(indent)):
            index = f"entries:\n{block[0]}"
    return yaml.load(index, Loader=_Texts)["entries"]  # noqa: S506


def _nearest(wanted: str, names: Iterable[str]) -> str:
    """Return a sentence with the names or versions that are nearest to one that is not there."""
    if VERSION.fullmatch(wanted):
        ordered = sorted((name for name in names if VERSION.fullmatch(name)), key=_numbers)
        place = bisect.bisect(ordered, _numbers(wanted), key=_numbers)
        near = ordered[max(place - 3, 0) : place + 2]
    else:
        near = difflib.get_close_matches(wanted, list(names))
    return f" The nearest: {', '.join(near)}" if near else ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


def _host(url: httpx.URL) -> str:
    return url.netloc.decode()


class _Server:
    """A host that has charts; what goes wrong with it is said as a user can mend it."""

    def __init__(
        self,
        subject: str,
        url: httpx.URL,
        known: Repository | None = None,
        auth: httpx.Auth | None = None,
        problem: str = "",
    ) -> None:
        """Prepare for requests, and ask nothing.

        Args:
            subject: of the sentences on faults.
            url: of the repository, or `oci://HOST`.
            known: what Helm knows of the repository.
            auth: the credentials.
            problem: why there are none.
        """
        self._subject, self._url, self._problem = subject, url, problem
        known = known or Repository()
        try:
            tls = httpx.create_ssl_context(verify=not known.is_insecure)
            if known.ca_file:
                tls.load_verify_locations(known.ca_file)
            if known.cert_file:
                tls.load_cert_chain(known.cert_file, known.key_file)
        except OSError as error:  # of the file, or of what is in it
            raise ChartError(
                f"{subject}: a certificate cannot be read that repositories.yaml or SSL_CERT_FILE names: "
                f"{error.strerror or error}"
            ) from None
        hooks = {"request": [self._require_tls]}
        try:
            self._client = httpx.Client(
                verify=tls, auth=auth, timeout=TIMEOUT, follow_redirects=True, event_hooks=hooks
            )
        except ValueError:  # whose text quotes the proxy, which can have a password
            raise ChartError(f"{subject}: HTTPS_PROXY or ALL_PROXY names no proxy that can be used") from None
        weakref.finalize(self, self._client.close)

    def get(self, url: str) -> httpx.Response:
        """Return what stands at `url`.

        Raises:
            ChartError: nothing stands there, or as `find`.
        """
        if (response := self.find(url)) is None:
            raise ChartError(f"{self._subject}: there is no {url}")
        return response

    def find(self, url: str, accept: str = "*/*") -> httpx.Response | None:
        """Return what stands at `url`, None where nothing does.

        Raises:
            ChartError: the server does not answer, or refuses.
        """
        host = _host(httpx.URL(url))
        try:
            response = self._client.get(url, headers={"Accept": accept})
        except httpx.TimeoutException:
            raise ChartError(f"{self._subject}: {host} does not answer: waited {TIMEOUT} s") from None
        except httpx.LocalProtocolError:  # its text quotes the header
            raise ChartError(
                f"{self._subject}: {host} cannot be sent the credentials that Helm has"
            ) from None
        except httpx.RequestError as error:
            if rejected := rejected_certificate(error):
                raise self._not_trusted(host, rejected.verify_message) from None
            reason = error or type(error).__name__
            raise ChartError(f"{self._subject}: {host} does not answer: {reason}") from None
        status = f"{response.status_code} {response.reason_phrase}"
        if response.status_code in (401, 403):
            because = f" {self._problem}." if self._problem else ""
            raise ChartError(
                f"{self._subject}: {host} does not give it to everybody ({status}).{because} Log in by\n"
                f"{login_command(self._url)}"
            )
        if response.status_code == 404:
            return None
        if not response.is_success:
            raise ChartError(f"{self._subject}: {host} answers {status}")
        return response

    def _require_tls(self, request: httpx.Request) -> None:
        if request.url.scheme != "https" and not _is_loopback(request.url.host):
            raise ChartError(
                f"{self._subject}: {_host(request.url)} is not asked without TLS: the answer could be of "
                "anybody. Use https"
            )

    def _not_trusted(self, host: str, reason: str) -> ChartError:
        by_helm = (
            f", or\n    helm repo add NAME {self._url} --ca-file FILE" if self._url.scheme != "oci" else ""
        )
        return ChartError(
            f"{self._subject}: the certificate of {host} is not trusted: {reason}. If its authority is your "
            f"own, set the variable SSL_CERT_FILE to a file with that authority{by_helm}"
        )


def _basic_auth(login: Login) -> httpx.Auth | None:
    return httpx.BasicAuth(login.username, login.password) if login.username else None


class _RegistryAuth(httpx.Auth):
    """The credentials of a registry, or the token that it wants in their place."""

    requires_response_body = True

    def __init__(self, login: Login) -> None:
        self._login = login
        self._header = ""
        """What the registry has accepted."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask, and where that is refused once more with what the answer demands."""
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != 401:
            return
        kind, _, text = response.headers.get("WWW-Authenticate", "").partition(" ")
        asked = dict(CHALLENGE.findall(text))
        if kind.lower() == "bearer" and "realm" in asked:
            answer = yield self._token_request(asked)
            if not answer.is_success:
                return
            with suppress(ValueError, AttributeError):  # then it goes on without a token
                tokens = answer.json()
                self._header = f"Bearer {tokens.get('token') or tokens.get('access_token')}"
        elif self._login.username:
            self._header = _basic(self._login)
        else:
            return
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _token_request(self, asked: Mapping[str, str]) -> httpx.Request:
        wanted = {key: asked[key] for key in ("service", "scope") if key in asked}
        if token := self._login.identity_token:
            given = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "helm"}
            return httpx.Request("POST", asked["realm"], data=wanted | given)
        headers = {"Authorization": _basic(self._login)} if self._login.username else {}
        return httpx.Request("GET", asked["realm"], params=wanted, headers=headers)


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.username}:{login.password}'.encode()).decode()}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
