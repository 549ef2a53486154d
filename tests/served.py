"""A web server on loopback that does what it is told: ranges or none, refusals, cut answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer. Of `body` only `sent` bytes leave before the connection is cut."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    etag: str | None = None
    ranges: bool = True
    """Whether a Range header is honoured, and with If-Range only for the same ETag."""
    declared: int | None = None
    """What Content-Length says, if not the truth; -1 leaves it out."""
    hold: threading.Event | None = None
    """Waited for before answering."""


@dataclass
class Served:
    """What was asked, and what is answered: the next of `replies[path]`, the last one for ever."""

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    on_ask: Callable[[str], None] = lambda path: None

    def says(self, path: str, *replies: Reply) -> str:
        """The URL of that path."""
        self.replies[path] = list(replies)
        return self.url + path

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("range") for _, headers in self.asked]


def _answer(handler: BaseHTTPRequestHandler, served: Served) -> None:
    headers = {name.lower(): value for name, value in handler.headers.items()}
    served.asked.append((handler.path, headers))
    served.on_ask(handler.path)
    waiting = served.replies.get(handler.path) or [Reply(b"none", status=404)]
    reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
    if reply.hold:
        reply.hold.wait(5)
    body, status, told = reply.body, reply.status, dict(reply.headers)
    wanted = headers.get("range")
    same = headers.get("if-range") in (None, reply.etag)
    if wanted and reply.ranges and same and status == 200:
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(body):
            status, body = 416, b""
        else:
            told["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
    if reply.etag:
        told["ETag"] = reply.etag
    handler.send_response(status)
    for name, value in told.items():
        handler.send_header(name, value)
    if reply.declared != -1:
        size = len(body) if reply.declared is None else reply.declared
        handler.send_header("Content-Length", str(size))
    handler.end_headers()
    with suppress(ConnectionError):  # whoever asked has heard enough
        handler.wfile.write(body[: reply.sent])
    handler.close_connection = True


@contextmanager
def serving() -> Iterator[Served]:
    """A server for the block."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, served)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
