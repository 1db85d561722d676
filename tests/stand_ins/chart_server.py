"""A server of charts on loopback, over TLS: a Helm repository at `/charts`, an OCI registry at `/v2`.

The real `helm` pulls from it and logs in to it as well, so that it answers as real ones do: the registry
wants a token for each pull, gives one to whoever may have it, and sends its clients elsewhere for the
content.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from components.release.chart_files import metadata, unpacked
from tests.unit.test_kubernetes_api import Pair, pair

USER, PASSWORD = "deployer", "pull-canary"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TOKEN = "token-of-pull-canary"
IDENTITY_TOKEN = "identity-canary"
CANARIES = re.compile(rf"{PASSWORD}|{TOKEN}|{IDENTITY_TOKEN}|presigned-canary|{BASIC.split()[1]}")
"""What may be seen nowhere."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class ChartServer:
    """A server that runs."""

    port: int
    folder: Path
    """The packed charts that it serves; what is put there is served at once."""
    scheme: str
    authority: Path
    """File with what has signed its certificate."""
    is_private: bool = False
    """Whether it wants credentials."""
    asked: list[str] = field(default_factory=list)
    """The paths that were asked for."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path of an archive to the address that it stands at, in the index of the repository."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def repository(self) -> str:
        return f"{self.address}/charts"

    @property
    def registry(self) -> str:
        return f"oci://{self.host}/org"

    @property
    def downloads(self) -> list[str]:
        return [path for path in self.asked if path.endswith(".tgz") or "/elsewhere/" in path]

    def charts(self) -> dict[tuple[str, str], bytes]:
        """By name and version."""
        contents = [file.read_bytes() for file in sorted(self.folder.glob("*.tgz"))]
        about = [metadata(unpacked(content) or {}) for content in contents]
        return {(it["name"], it["version"]): content for it, content in zip(about, contents, strict=True)}

    def pack(self, helm: str, chart: Path, version: str) -> Path:
        """Have `helm` pack a chart as `version`; return the file."""
        command = [helm, "package", str(chart), "--version", version, "-d", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)
        return self.folder / f"{chart.name}-{version}.tgz"


@contextlib.contextmanager
def chart_server(folder: Path, *, tls: bool = True) -> Iterator[ChartServer]:
    """Serve the charts that are packed in `folder`; without `tls` over HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, given = urlsplit(self.path).path, self.headers["Authorization"]
            served.asked.append(path)
            if path == "/token":
                self.give_token(given == BASIC)
            elif path.startswith("/elsewhere/"):
                assert given is None, "what serves the content of a registry is sent no token of it"
                contents = {_digest(content): content for content in served.charts().values()}
                self.answer(contents.get(path.removeprefix("/elsewhere/")))
            elif path.startswith("/v2/"):
                self.ask_for_token(path) if given != f"Bearer {TOKEN}" else self.of_registry(path)
            elif served.is_private and given != BASIC:
                self.refuse('Basic realm="charts"')
            elif path == "/charts/index.yaml":
                self.answer(yaml.safe_dump(_index(served)).encode())
            else:
                file = served.folder / path.removeprefix("/charts/")
                self.answer(file.read_bytes() if file.is_file() else None)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.give_token(form.get("refresh_token") == [IDENTITY_TOKEN])

        def give_token(self, is_known: bool) -> None:
            if served.is_private and not is_known:
                self.refuse()
            else:
                self.answer(json.dumps({"token": TOKEN}).encode())

        def ask_for_token(self, path: str) -> None:
            name = path.removeprefix("/v2/").rpartition("/manifests/")[0]
            scope = f',scope="repository:{name}:pull"' if name else ""
            self.refuse(f'Bearer realm="{served.address}/token",service="charts"{scope}')

        def of_registry(self, path: str) -> None:
            """`/v2/`, and below `/v2/org/NAME` `tags/list`, `manifests/TAG` and `blobs/DIGEST`."""
            name, kind, wanted = (path.split("/") + [""] * 3)[3:6]
            charts = {tag.replace("+", "_"): it for (of, tag), it in served.charts().items() if of == name}
            manifests = {tag: _manifest(content) for tag, content in charts.items()}
            manifests |= {_digest(manifest): manifest for manifest in manifests.values()}
            if kind == "tags":
                self.answer(json.dumps({"name": name, "tags": list(charts)}).encode() if charts else None)
            elif kind == "manifests":
                self.answer(manifests.get(wanted))
            elif kind == "blobs" and wanted != _digest(b"{}"):
                place = f"{served.address.replace('127.0.0.1', 'localhost')}/elsewhere/{wanted}"
                self.answer(b"", 307, Location=f"{place}?signature=presigned-canary")
            else:
                self.answer(b"{}")

        def refuse(self, challenge: str = "") -> None:
            headers = {"WWW-Authenticate": challenge} if challenge else {}
            self.answer(b'{"errors": [{"code": "UNAUTHORIZED"}]}', 401, **headers)

        def answer(self, content: bytes | None, status: int = 200, **headers: str) -> None:
            """Send `content`, or that there is none."""
            self.send_response(404 if content is None else status)
            for name, value in {"Content-Length": str(len(content or b"")), **headers}.items():
                self.send_header(name, value)
            if content and "/manifests/" in self.path and status == 200:
                self.send_header("Content-Type", MANIFEST)
                self.send_header("Docker-Content-Digest", _digest(content))
            self.end_headers()
            if self.command != "HEAD" and content:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = ChartServer(
            port=server.server_port,
            folder=folder,
            scheme="https" if tls else "http",
            authority=folder / "authority.pem",
        )
        if tls:
            authority = pair("authority of charts", is_authority=True)
            served.authority.write_bytes(authority.certificate)
            server.socket = _tls(authority, folder).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def _tls(authority: Pair, folder: Path) -> ssl.SSLContext:
    """Return what shows a certificate for the address, and one for the name that a registry leads to."""
    contexts = []
    for host in ("127.0.0.1", "localhost"):
        shown, file = pair(host, authority), folder / f"{host}.pem"
        file.write_bytes(shown.certificate + shown.key)
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(file)
    by_address, by_name = contexts
    by_address.sni_callback = lambda socket, name, _: setattr(socket, "context", by_name) if name else None
    return by_address


def _index(served: ChartServer) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for (name, version), content in served.charts().items():
        file = f"{name}-{version}.tgz"
        entries.setdefault(name, []).append(
            {
                "name": name,
                "version": version,
                "digest": hashlib.sha256(content).hexdigest(),
                "urls": [served.moved.get(file, file)],
            }
        )
    return {"apiVersion": "v1", "entries": entries, "generated": "2026-01-01T00:00:00Z"}


def _manifest(content: bytes) -> bytes:
    def described(kind: str, blob: bytes) -> dict[str, Any]:
        return {"mediaType": f"application/vnd.cncf.helm.{kind}", "digest": _digest(blob), "size": len(blob)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described("config.v1+json", b"{}"),
        "layers": [described("chart.content.v1.tar+gzip", content)],
    }
    return json.dumps(manifest).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
