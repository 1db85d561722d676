"""The Kubernetes API as plain dicts: any kind of object, and a manifest as it was rendered.

lightkube brings the credentials of a kube config (exec plugins among them) and the HTTP client; its
typed models are not used, because they drop fields they do not know.
"""

import json
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from threading import Lock
from typing import Any, cast

import httpx2 as httpx
from lightkube import KubeConfig
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError

Object = Mapping[str, Any]


class ApiError(Exception):
    """What the API server answered instead of yes."""

    def __init__(self, code: int, status: Object) -> None:
        self.code = code
        self.reason: str = status.get("reason", "")
        self.message: str = status.get("message", "")
        self.causes: list[Object] = (status.get("details") or {}).get("causes") or []
        super().__init__(self.message or f"HTTP {code}")


class UnreachableError(Exception):
    """The cluster cannot be asked anything now: why, in one line, and what may mend it."""


class UnknownKindError(Exception):
    """The API server does not serve this kind of object."""


class Api:
    """The API server of one cluster.

    Every call raises ApiError for an answer that is no success, and UnreachableError where there was
    none: no connection, no credentials, or such as are not accepted.
    """

    def __init__(self, kubeconfig: Mapping[str, Any], timeout: float = 10) -> None:
        config = cast(SingleConfig, KubeConfig.from_dict(dict(kubeconfig)).get())
        parameters = client_adapter.ConnectionParams(timeout=cast(Any, timeout))
        self._timeout = timeout
        self._http = client_adapter.Client(config, parameters)
        weakref.finalize(self, self._http.close)
        self._resources = lru_cache(self._read_resources)
        self._discovery = Lock()

    def get(self, path: str, accept: str = "application/json", **query: str) -> Object:
        return self._send("GET", path, query, {"Accept": accept})

    def create(self, path: str, item: Object, **query: str) -> Object:
        return self._send("POST", path, query, {"Content-Type": "application/json"}, item)

    def apply(self, path: str, item: Object, **query: str) -> Object:
        """A server-side apply; `fieldManager` has to be among `query`."""
        return self._send("PATCH", path, query, {"Content-Type": "application/apply-patch+yaml"}, item)

    def merge_patch(self, path: str, patch: Object, **query: str) -> Object:
        """A JSON merge patch (RFC 7386): null removes a key, a list is replaced whole."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._send("PATCH", path, query, headers, patch)

    def items(self, path: str, **query: str) -> list[Object]:
        """A list's items; empty where the namespace or the kind is not there."""
        try:
            return list(self.get(path, **query).get("items") or [])
        except ApiError as error:
            if error.code == 404:
                return []
            raise

    def text(self, path: str, **query: str) -> str:
        """An answer that is no JSON, as a container's log."""
        response = self._request("GET", path, params=query)
        return response.text if response.is_success else ""

    def now(self) -> datetime:
        """The time by the API server's own clock."""
        response = self._request("GET", "/version")
        date = response.headers.get("Date")
        return parsedate_to_datetime(date) if date else datetime.now(UTC)

    def collection(self, item: Object, namespace: str) -> str:
        """Path of the objects of `item`'s kind, in its namespace or else in `namespace`.

        Raises:
            UnknownKindError: the API server serves no such kind.
        """
        version, kind = item["apiVersion"], item["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        with self._discovery:  # many threads ask for the same few groups at once
            found = self._resources(root).get(kind)
        if found is None:
            raise UnknownKindError(f"the API server knows no {kind} in {version}")
        plural, namespaced = found
        where = f"/namespaces/{item['metadata'].get('namespace', namespace)}" if namespaced else ""
        return f"{root}{where}/{plural}"

    def _read_resources(self, root: str) -> dict[str, tuple[str, bool]]:
        try:
            listed = self.get(root).get("resources", [])
        except ApiError as error:
            if error.code == 404:
                return {}
            raise
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
            # Not the API server's; a part of it could be a part of a credential, which no mask finds.
            answer = {"message": f"HTTP {response.status_code} {response.reason_phrase}".strip()}
        if not response.is_success:
            raise ApiError(response.status_code, answer)
        return cast(Object, answer)

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        server = f"the API server at {str(self._http.base_url).rstrip('/')}"
        try:
            response = self._http.request(method, path, **more)
        except httpx.TimeoutException:
            raise UnreachableError(f"{server} does not answer: waited {self._timeout:g} s") from None
        except httpx.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise UnreachableError(
                    f"{server} shows a certificate that the kube config does not trust: it is of another "
                    "cluster, or of one that was made anew"
                ) from None
            raise UnreachableError(f"{server} does not answer: {error or type(error).__name__}") from None
        except (ConfigError, OSError) as error:  # of the program that gives the credentials
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UnreachableError(
                f"no credentials for {server}: {': '.join(dict.fromkeys((said[0].rstrip(':'), said[-1])))}"
            ) from None
        if response.status_code == 401:
            raise UnreachableError(
                f"{server} does not accept the credentials (401 Unauthorized): they have expired, or are of "
                "another cluster"
            )
        return response
