"""The Kubernetes API as plain dicts: any kind of object, and a manifest as it was rendered.

lightkube's typed models are not used, because they drop fields they do not know.
"""

import json
import ssl
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Any, cast

import httpx2 as httpx
from lightkube.core.exceptions import ConfigError

from .connection import cluster_of, open_client, proxy_of

Object = Mapping[str, Any]

OTHER_NAME = (62, 64)
OUT_OF_TIME = (9, 10)
"""X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH, _CERT_NOT_YET_VALID and _CERT_HAS_EXPIRED."""


class ClusterError(Exception):
    """The cluster could not be asked, or refused. The text is the reason, for the user."""


class ApiError(ClusterError):
    """An HTTP error of the API server."""

    def __init__(self, code: int, status: Object) -> None:
        self.code: int = code
        """The HTTP status."""
        self.reason: str = status.get("reason", "")
        """A word of the API server for it, as `Invalid`; empty where it gives none."""
        self.message: str = status.get("message", "")
        """What the API server says."""
        self.causes: list[Object] = (status.get("details") or {}).get("causes") or []
        """What is wrong with which field: `details.causes` of Kubernetes' `Status`."""
        super().__init__(self.message or f"HTTP {code}")


class UnreachableError(ClusterError):
    """An API server that does not answer, or not to these credentials."""


class UnknownKindError(ClusterError):
    """A kind of object that the API server does not serve."""


class Api:
    """The API server of one cluster.

    Objects are mappings, as in a manifest. A path is that of the API, as `/api/v1/namespaces/shop`; `query`
    holds the parameters after it, as `labelSelector`.

    Every method raises ClusterError: ApiError for an answer that is no success, and UnreachableError where
    there was none: no connection, no credentials, or such as are not accepted.
    """

    def __init__(self, kubeconfig: Mapping[str, Any], timeout: float = 10) -> None:
        """Prepare to ask the cluster of a kube config's current context, as kubectl does.

        Args:
            kubeconfig: a kube config, parsed.
            timeout: seconds that an answer may take.

        Raises:
            UnreachableError: its proxy cannot be used.
        """
        self._timeout = timeout
        self._cluster = cluster_of(kubeconfig)
        try:
            self._http = open_client(kubeconfig, timeout)
            proxy, source = proxy_of(self._cluster)
        except (ValueError, ImportError) as error:  # ImportError: of the package for socks5
            raise UnreachableError(str(error)) from None
        self._server = f"the API server at {str(self._http.base_url).rstrip('/')}"
        # Only its place: a proxy's URL can hold a password.
        self._proxy = f"the proxy {httpx.URL(proxy).host} ({source})" if proxy else ""
        weakref.finalize(self, self._http.close)
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}
        self._discovery: dict[str, Lock] = {}

    def get(self, path: str, accept: str = "application/json", **query: str) -> Object:
        """Return what stands at `path`, in the media type `accept`, which has to be one of JSON."""
        return self._send("GET", path, query, {"Accept": accept})

    def find(self, path: str, **query: str) -> Object | None:
        """Return what stands at `path`, None where that, its namespace or its kind is not there."""
        try:
            return self.get(path, **query)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def create(self, path: str, item: Object, **query: str) -> Object:
        """Create `item` in the collection at `path`, and return it as stored."""
        return self._send("POST", path, query, {"Content-Type": "application/json"}, item)

    def apply(self, path: str, item: Object, **query: str) -> Object:
        """Apply `item` on the server's side; `fieldManager` has to be among `query`."""
        return self._send("PATCH", path, query, {"Content-Type": "application/apply-patch+yaml"}, item)

    def merge_patch(self, path: str, patch: Object, **query: str) -> Object:
        """Send a JSON merge patch (RFC 7386): null removes a key, a list is replaced whole."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._send("PATCH", path, query, headers, patch)

    def delete(self, path: str) -> Object:
        """Delete what stands at `path`; what depends on it goes with it, later."""
        return self._send("DELETE", path, {}, {})

    def items(self, path: str, **query: str) -> list[Object]:
        """Return the items of the list at `path`; empty where the namespace or the kind is not there."""
        listed = self.find(path, **query)
        return list((listed or {}).get("items") or [])

    def text(self, path: str, **query: str) -> str:
        """Return an answer that is no JSON, as a container's log; empty where there is none."""
        response = self._request("GET", path, params=query)
        return response.text if response.is_success else ""

    def now(self) -> datetime:
        """Return the time by the API server's own clock."""
        response = self._request("GET", "/version")
        date = response.headers.get("Date")
        return parsedate_to_datetime(date) if date else datetime.now(UTC)

    def collection(self, item: Object, namespace: str) -> str:
        """Return the path of the objects of `item`'s kind, in its namespace or else in `namespace`.

        Raises:
            UnknownKindError: the API server serves no such kind.
        """
        version, kind = item["apiVersion"], item["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        with self._discovery.setdefault(root, Lock()):  # many threads ask for the same few groups at once
            if root not in self._resources:
                self._resources[root] = self._read_resources(root)
        resource = self._resources[root].get(kind)
        if resource is None:
            raise UnknownKindError(f"the API server knows no {kind} in {version}")
        plural, namespaced = resource
        where = f"/namespaces/{item['metadata'].get('namespace', namespace)}" if namespaced else ""
        return f"{root}{where}/{plural}"

    def path(self, item: Object, namespace: str) -> str:
        """Return the path of `item` itself.

        Raises:
            UnknownKindError: as `collection`.
        """
        return f"{self.collection(item, namespace)}/{item['metadata'].get('name', '')}"

    def _read_resources(self, root: str) -> dict[str, tuple[str, bool]]:
        listed = (self.find(root) or {}).get("resources", [])
        return {
            item["kind"]: (item["name"], item["namespaced"]) for item in listed if "/" not in item["name"]
        }

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Object | None = None,
    ) -> Object:
        content = None if body is None else json.dumps(body).encode()
        response = self._request(method, path, params=dict(query), headers=dict(headers), content=content)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        # No other answer is quoted: a part of it could be a part of a credential, which no mask finds.
        is_object = isinstance(answer, Mapping)
        if not response.is_success:
            line = {"message": f"HTTP {response.status_code} {response.reason_phrase}".strip()}
            raise ApiError(response.status_code, answer if is_object else line)
        if not is_object:
            raise UnreachableError(f"{self._server} answers no JSON: it is no API server of Kubernetes")
        return cast(Object, answer)

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        server = self._server
        via = f" through {self._proxy}" if self._proxy else ""
        try:
            response = self._http.request(method, path, **more)
        except httpx.TimeoutException:
            raise UnreachableError(f"{server} does not answer{via}: waited {self._timeout:g} s") from None
        except httpx.LocalProtocolError:  # its text quotes the header
            raise UnreachableError(
                f"no credentials for {server}: they hold a character that no header can hold"
            ) from None
        except httpx.TransportError as error:
            if (rejected := rejected_certificate(error)) is not None:
                raise UnreachableError(
                    f"{server} shows a certificate that {self._reason(rejected)}"
                ) from None
            raise UnreachableError(
                f"{server} does not answer{via}: {error or type(error).__name__}"
            ) from None
        except (ConfigError, OSError, ValueError) as error:  # of what gives the credentials
            raise UnreachableError(f"no credentials for {server}: {error}") from None
        if response.status_code == 401:
            raise UnreachableError(
                f"{server} does not accept the credentials (401 Unauthorized): they have expired, or are of "
                "another cluster"
            )
        return response

    def _reason(self, rejected: ssl.SSLCertVerificationError) -> str:
        """Return why a certificate is not accepted, as the end of a sentence about it."""
        if rejected.verify_code in OTHER_NAME:
            name = self._cluster.get("tls-server-name") or self._http.base_url.host
            return f"is not for {name}: set clusters[].cluster.tls-server-name to a name that it is for"
        if rejected.verify_code in OUT_OF_TIME:
            return f"is not valid by the clock of this machine: {rejected.verify_message}"
        if not self._cluster.keys() & {"certificate-authority", "certificate-authority-data"}:
            return "this machine does not trust: name its signer by clusters[].cluster.certificate-authority"
        proxy = f", or of {self._proxy}" if self._proxy else ""
        return (
            f"the kube config does not trust: it is of another cluster, or of one that was made anew{proxy}"
        )


def lacks_namespace(api: Api, name: str) -> bool:
    """Return whether namespace `name` is surely not there; not so where that may not be asked.

    Who may use a namespace of its own alone gets a 403 in one that is not there, as in one of others.
    """
    try:
        return api.find(f"/api/v1/namespaces/{name}") is None
    except ClusterError:
        return False


def rejected_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the refusal of a server's certificate that is behind `error`, None where it is another."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
