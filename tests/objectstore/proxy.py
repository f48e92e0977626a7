"""A proxy in front of the S3 server that fails as networks and servers do."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

# busy: 503 without asking the server. dropped: the connection is closed without asking it.
# lost: the server does what it is asked, but the connection is closed without its answer.
# lost_busy: it does what it is asked, but a gateway before it answers 503.
Fault = Literal["busy", "dropped", "lost", "lost_busy"]

Answer = tuple[int, list[tuple[str, str]], bytes]
BUSY: Answer = (503, [], b"<Error><Code>SlowDown</Code></Error>")


@dataclass
class Proxy:
    """`faults` says, for a request (method, path), how it fails; None: not at all."""

    url: str
    faults: Callable[[str, str], Fault | None] = lambda method, path: None
    seen: list[tuple[str, str, Fault | None]] = field(default_factory=list)

    def fail(
        self, fault: Fault, times: int | None = None, method: str = "", path: str = ""
    ) -> None:
        """Fail the next `times` requests (None: all) of this method to paths that hold `path`."""
        left = [times]
        lock = threading.Lock()

        def faults(asked: str, where: str) -> Fault | None:
            if (method and asked != method) or path not in where:
                return None
            with lock:
                if left[0] == 0:
                    return None
                left[0] = None if left[0] is None else left[0] - 1
            return fault

        self.faults = faults

    def failed(self) -> int:
        """How many requests have failed so far."""
        return sum(fault is not None for _, _, fault in self.seen)


@contextlib.contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """Run a proxy to `upstream`, a URL, on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    server.proxy, server.upstream = proxy, urlsplit(upstream).netloc  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body would wait 40 ms for the headers' acknowledgement
    server: Any

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.proxy.faults(self.command, self.path)
        self.server.proxy.seen.append((self.command, self.path, fault))
        answer = self._ask(body) if fault in (None, "lost", "lost_busy") else BUSY
        if fault in ("dropped", "lost"):
            self.close_connection = True
        else:
            self._answer(*(BUSY if fault else answer))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _ask(self, body: bytes) -> Answer:
        """Ask the server as the client did: the signature is over the Host header too."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(body)))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass
