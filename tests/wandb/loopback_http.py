"""The loopback server's HTTP: GraphQL, the file stream, uploads and downloads, and the ways in which a server fails."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from loopback_backend import NotFoundError
from loopback_graphql import OPERATIONS

if TYPE_CHECKING:
    from loopback_backend import Backend

STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")
OPERATION_NAME = re.compile(r"\b(?:query|mutation)\s+([A-Za-z_]\w*)")
FAILURES = {"500": 500, "404": 404}


class Handler(BaseHTTPRequestHandler):
    """One connection. The server's `backend` has the state; nothing is kept here."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """The backend's request log has it."""

    def do_POST(self) -> None:
        body = self._body()
        if not self._behave():
            return
        path = urlsplit(self.path).path.rstrip("/")
        stream = STREAM.fullmatch(path)
        if path == "/graphql":
            self._graphql(json.loads(body))
        elif stream:
            self._stream(*map(unquote, stream.groups()), json.loads(body or b"{}"))
        else:
            self._unknown("POST")

    def do_PUT(self) -> None:
        body = self._body()
        if not self._behave():
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/storage/")
        self.server.backend.record("PUT", path, size=len(body))
        self.server.backend.store(path, body)
        self._send(200, b"")

    def do_GET(self) -> None:
        if not self._behave():
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/storage/")
        with self.server.backend.lock:
            content = self.server.backend.blobs.get(path)
        self.server.backend.record("GET", path, found=content is not None)
        if content is None:
            self._unknown("GET")
        else:
            self._send(200, content, "application/octet-stream")

    # --- the two conversations ------------------------------------------------------------------------------------

    def _graphql(self, request: dict[str, object]) -> None:
        backend, query = self.server.backend, str(request.get("query") or "")
        found = OPERATION_NAME.search(query)
        name = str(request.get("operationName") or (found and found[1]) or "?")
        variables = request.get("variables") or {}
        backend.record("graphql", name, variables=variables)
        answer = OPERATIONS.get(name)
        if answer is None:
            with backend.lock:
                backend.unhandled.append(name)
            backend.record("unhandled", name, query=query)
            self._json(200, {"data": None, "errors": [{"message": f"loopback: no operation {name}", "path": []}]})
            return
        try:
            with backend.lock:
                data = answer(backend, variables)
        except NotFoundError as error:
            self._json(200, {"data": None, "errors": [{"message": str(error), "path": []}]})
        else:
            self._json(200, {"data": data})

    def _stream(self, entity: str, project: str, run: str, body: dict[str, object]) -> None:
        backend = self.server.backend
        said = {key: body[key] for key in ("preempting", "complete", "exitcode", "uploaded") if key in body}
        files = {name: (chunk["offset"], len(chunk["content"])) for name, chunk in (body.get("files") or {}).items()}  # type: ignore[attr-defined]
        backend.record("stream", run, files=files, **said)
        answer = backend.stream(entity, project, run, body)
        if answer is None:
            self._json(404, {"error": "run not found"})
        else:
            self._json(200, answer)

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _behave(self) -> bool:
        """As the mode says; False when the request has been dealt with by that."""
        settings = self.server.backend.settings
        if not self.path.startswith(settings.mode_for):
            return True
        if settings.mode == "slow":
            time.sleep(settings.delay)
        elif settings.mode in FAILURES:
            self._json(FAILURES[settings.mode], {"error": "emulated"})
            return False
        while settings.mode == "hanging" and self.path.startswith(settings.mode_for):
            if self.server.closing.wait(0.05):
                self.close_connection = True
                return False
        return True

    def _unknown(self, method: str) -> None:
        backend = self.server.backend
        with backend.lock:
            backend.unhandled.append(f"{method} {self.path}")
        self._json(404, {"error": "not found"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = self._chunks()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _json(self, status: int, answer: object) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Knows its connections, so that it can be gone from one moment to the next."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, backend: Backend, port: int = 0) -> None:
        self.backend = backend
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request, client_address) -> None:
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address) -> None:
        """Clients that are killed reset their connections."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def go(self) -> None:
        """Close the port and every connection; what hangs is let go."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
