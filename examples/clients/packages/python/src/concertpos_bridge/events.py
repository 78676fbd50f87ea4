"""Broadcasts, over restarts of the bridge and of what is in between."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from .http import FAILURES, Answer, Endpoint, Refused, deadline, read, shut

MAX_EVENT = 16 * 1024 * 1024
CONNECT_S = 10.0
FIRST_PAUSE_S = 3.0


@dataclass(frozen=True)
class Broadcast:
    """What the gateway broadcast. `maybe_duplicate`: it may repeat an earlier one."""

    id: str
    message: str
    parameters: Any
    received_at: str
    maybe_duplicate: bool


@dataclass(frozen=True)
class FetchAgain:
    """Fetch all data that you keep: broadcasts may be missing (`gap`, `reset`), or the stream has just begun (`start`)."""

    id: str
    why: str
    detail: Mapping[str, Any]


Event = Broadcast | FetchAgain


@dataclass
class _Fields:
    """One event of the stream, as its lines build it up."""

    event: str = "message"
    id: str | None = None
    data: str | None = None
    size: int = 0

    def take(self, name: str, value: str) -> None:
        self.size += len(name) + len(value)
        if self.size > MAX_EVENT:
            raise ValueError("an event is too large")
        if name == "event":
            self.event = value or "message"
        elif name == "id" and "\0" not in value:
            self.id = value
        elif name == "data":
            self.data = value if self.data is None else f"{self.data}\n{value}"


class Events:
    """Iterate over it in one thread; `close` it from any. `last_id` is the last event that was dealt with."""

    def __init__(self, endpoint: Endpoint, path: str, message: str | None, last_id: str | None, silence: float) -> None:
        self.last_id = last_id
        self._endpoint = endpoint
        self._path = f"{path}?{urlencode({'message': message})}" if message is not None else path
        self._silence = silence
        self._pause = FIRST_PAUSE_S
        self._begun = last_id is not None
        self._closed = threading.Event()
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Ends the iteration."""
        self._closed.set()
        if self._socket is not None:
            shut(self._socket)

    def __iter__(self) -> Iterator[Event]:
        """Every broadcast, and when to fetch again. Connects anew after every end; raises Refused where that cannot help."""
        while not self._closed.is_set():
            pause = None
            try:
                connection, self._socket = self._endpoint.connect(CONNECT_S)
                try:
                    # Whoever closes this after the check finds the socket.
                    if self._closed.is_set():
                        return
                    response, pause = self._open(connection, self._socket)
                    if response is not None:
                        yield from self._events(response)
                finally:
                    connection.close()
            except FAILURES:
                pass
            self._closed.wait(self._pause if pause is None else max(pause, self._pause))

    def _open(
        self, connection: http.client.HTTPConnection, sock: socket.socket
    ) -> tuple[http.client.HTTPResponse | None, float | None]:
        """The stream; or, where it has to be asked for again, when at the earliest."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        sock.settimeout(self._silence)
        with deadline(sock, self._silence):
            response = self._endpoint.send(connection, "GET", self._path, headers)
            if response.status == 200 and response.headers.get_content_type() == "text/event-stream":
                return response, None
            answer = Answer(response.status, response.headers, read(response))
        problem = answer.problem()
        # What a proxy answers while the bridge restarts passes, and so does a limit of the caller.
        if answer.status >= 500 or answer.status == 429:
            return None, (problem.retry_after if problem else None) or answer.retry_after()
        raise Refused(answer.status, problem)

    def _events(self, response: http.client.HTTPResponse) -> Iterator[Event]:
        fields = _Fields()
        while line := response.readline(MAX_EVENT):
            if self._closed.is_set():
                return
            text = line.decode(errors="replace").rstrip("\r\n")
            if text:
                name, _, value = text.partition(":")
                value = value.removeprefix(" ")
                if name == "retry" and value.isascii() and value.isdigit() and len(value) < 8:
                    self._pause = int(value) / 1000
                fields.take(name, value)
                continue
            if fields.data is not None:
                event = self._event(fields, fields.data)
                if event is not None:
                    yield event
            if fields.id is not None:
                self.last_id = fields.id
            fields = _Fields()

    def _event(self, fields: _Fields, text: str) -> Event | None:
        data: Any = json.loads(text, parse_float=Decimal)
        if not isinstance(data, dict):
            raise ValueError("the data of an event is no object")
        position = fields.id or self.last_id or ""
        if fields.event == "message":
            return Broadcast(
                position,
                str(data.get("message")),
                data.get("parameters"),
                str(data.get("received_at", "")),
                data.get("maybe_duplicate") is True,
            )
        if fields.event in ("gap", "reset"):
            self._begun = True
            return FetchAgain(position, fields.event, data)
        if fields.event == "ready" and not self._begun:
            self._begun = True
            return FetchAgain(position, "start", data)
        return None
