"""One request to the bridge, within a deadline."""

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

# What http.client raises where an answer does not come, or not whole.
FAILURES = (OSError, ValueError, http.client.HTTPException)
VISIBLE = re.compile(r"[!-~]+")
MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True)
class Problem:
    """An error of the bridge (RFC 9457). A later version may have other codes: go by `status` and `retryable` then."""

    code: str
    status: int
    retryable: bool
    title: str
    detail: str
    retry_after: int | None
    request_id: str | None
    document: Mapping[str, Any]


class Refused(Exception):
    """The bridge, or what answers at its address, refuses, and a repetition would not help."""

    def __init__(self, status: int, problem: Problem | None) -> None:
        super().__init__(f"{problem.code}: {problem.detail}" if problem else f"not an answer of the bridge: status {status}")
        self.status = status
        self.problem = problem


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def object(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object. Prices are exact."""
        try:
            value = json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def problem(self) -> Problem | None:
        """The bridge's problem document. None for an answer of a proxy."""
        document = self.object()
        if self.status < 400 or document is None:
            return None
        code, retryable = document.get("code"), document.get("retryable")
        if not isinstance(code, str) or not isinstance(retryable, bool):
            return None
        after, request_id = document.get("retry_after"), document.get("request_id")
        return Problem(
            code=code,
            status=self.status,
            retryable=retryable,
            title=str(document.get("title", "")),
            detail=str(document.get("detail", "")),
            retry_after=after if type(after) is int and after >= 0 else None,
            request_id=request_id if isinstance(request_id, str) else None,
            document=document,
        )

    def retry_after(self) -> int | None:
        """Seconds to wait, as the bridge or a proxy asks for."""
        value = self.headers.get("Retry-After", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 7 else None


def shut(sock: socket.socket) -> None:
    """Ends what another thread reads from or writes to a socket."""
    try:
        # Of the socket below TLS, whose state belongs to the other thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass


@contextmanager
def deadline(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Bounds all that is done with a socket, not only each read."""
    timer = threading.Timer(seconds, shut, [sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Endpoint:
    """Where the bridge is, and what every request carries."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not the address of a bridge: {url!r}")
        self._secure = parts.scheme == "https"
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        if not VISIBLE.fullmatch(token):
            raise ValueError("a token is visible ASCII")
        self._tls = tls
        self._token = token

    def connect(self, timeout: float) -> tuple[http.client.HTTPConnection, socket.socket]:
        """An open connection, and its socket, which the connection itself forgets after some answers."""
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        connection.connect()
        return connection, connection.sock

    def send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        """The head of the answer. Redirections are not followed: the token is for the bridge alone."""
        sent = {"Authorization": f"Bearer {self._token}", **headers}
        connection.request(method, self._prefix + path, body=body, headers=sent)
        return connection.getresponse()

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer | None:
        """The whole answer. None where it did not come, or not whole, in time: the request may have been executed."""
        try:
            connection, sock = self.connect(timeout)
            try:
                with deadline(sock, timeout):
                    response = self.send(connection, method, path, headers, body)
                    return Answer(response.status, response.headers, read(response))
            finally:
                connection.close()
        except FAILURES:
            return None


def read(response: http.client.HTTPResponse) -> bytes:
    """The whole body, or an error."""
    parts: list[bytes] = []
    size = 0
    while part := response.read(65536):
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise ValueError("the body is too large")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)
