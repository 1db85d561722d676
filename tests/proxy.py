"""A proxy on loopback, which leads to one server whatever host it is asked for."""

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A proxy that runs, and what it was asked for, as in `shop.invalid:443`."""

    port: int
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def run_proxy(
    to: int, kind: str = "http", password: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[Proxy]:
    """Run a proxy of `kind` http or socks5 to the server at the port `to`."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            wanted = self.by_socks() if kind == "socks5" else self.by_connect()
            if not wanted:
                return
            proxy.asked.append(wanted)
            with socket.create_connection(("127.0.0.1", to)) as server:
                back = threading.Thread(target=_pipe, args=(server, self.connection), daemon=True)
                back.start()
                _pipe(self.connection, server)
                back.join()

        def by_connect(self) -> str:
            line = self.rfile.readline().decode().split()
            headers = "".join(iter(lambda: self.rfile.readline().decode().strip(), ""))
            if not line:
                return ""
            if password and base64.b64encode(f"me:{password}".encode()).decode() not in headers:
                self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return ""
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            return line[1]

        def by_socks(self) -> str:
            _, methods = self.rfile.read(2)
            self.rfile.read(methods)
            self.wfile.write(b"\x05\x00")
            assert self.rfile.read(4) == b"\x05\x01\x00\x03"  # connect to a name, which the proxy resolves
            name = self.rfile.read(self.rfile.read(1)[0]).decode()
            port = int.from_bytes(self.rfile.read(2), "big")
            self.wfile.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            return f"{name}:{port}"

    class Tcp(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Tcp(("127.0.0.1", 0), Handler) as tcp:
        if tls:
            tcp.socket = tls.wrap_socket(tcp.socket, server_side=True)
        proxy = Proxy(tcp.server_address[1])
        threading.Thread(target=tcp.serve_forever, args=(0.01,), daemon=True).start()
        yield proxy
        tcp.shutdown()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
