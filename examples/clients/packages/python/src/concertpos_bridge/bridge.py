"""The bridge, for one instance."""

import json
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from .events import Events
from .http import VISIBLE, Answer, Endpoint
from .payments import NOT_BOOKED, Booked, NotBooked, Outcome, Payment, Unknown
from .store import Store

LEAST_PAUSE_S = 0.25


class Bridge:
    """Sells, and listens to broadcasts. Threads may share one.

    `store` keeps payments over the end of the program. `pos_passwords` are those of points of sale that have one.
    `timeout` is for one request, in seconds, and has to be longer than the bridge's `server.deadline` (15 s). A payment that
    was begun longer than `max_age` ago is not sent again: it has to be shorter than the bridge's `payments.keep` (30 days),
    after which a key is new.
    """

    def __init__(
        self,
        url: str,
        token: str,
        instance: str,
        *,
        store: Store | None = None,
        pos_passwords: Mapping[int, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 20.0,
        max_age: float = 7 * 86400.0,
    ) -> None:
        self._endpoint = Endpoint(url, token, tls)
        self._instance = instance
        self._root = f"/v1/instances/{quote(instance, safe='')}"
        self._store = store
        self._pos_passwords = dict(pos_passwords or {})
        if not all(VISIBLE.fullmatch(password) for password in self._pos_passwords.values()):
            raise ValueError("a password with other than visible ASCII goes into the sale, as `posPassword`")
        self._timeout = timeout
        self._max_age = max_age

    def pay(self, pos_id: int, sale: Mapping[str, Any], *, key: str | None = None, patience: float = 60.0) -> Outcome:
        """Books a sale, at most once.

        Without `key` a new one is made. A caller that keeps books gives its own, one for each sale, written down before: the
        same call then gives the same outcome. No request begins later than `patience` seconds after the call.
        """
        if key is None:
            key = str(uuid.uuid4())
        if len(key) > 255 or not VISIBLE.fullmatch(key) or '"' in key:
            raise ValueError("a key has 1 to 255 characters of visible ASCII, and no quotation mark")
        payment = Payment(self._instance, pos_id, key, json.dumps(sale, allow_nan=False), time.time())
        if self._store:
            payment = self._store.begin(payment)
        return self.repeat(payment, patience=patience)

    def resume(self, *, patience: float = 60.0) -> Iterator[Outcome]:
        """Repeats each payment in the store, oldest first: what the program did not finish before it ended."""
        for payment in self._store.open() if self._store else []:
            if payment.instance == self._instance:
                yield self.repeat(payment, patience=patience)

    def repeat(self, payment: Payment, *, patience: float = 60.0) -> Outcome:
        """Sends a payment with its key until its outcome is known."""
        give_up = time.monotonic() + patience
        while True:
            # A clock that was set back may make it look younger than it is, by as much.
            if time.time() - payment.created_at > self._max_age:
                return Unknown(payment, None, too_old=True)
            answer = self._send(payment)
            outcome = outcome_of(payment, answer)
            if not isinstance(outcome, Unknown):
                if self._store:
                    self._store.end(payment)
                return outcome
            if outcome.problem and not outcome.problem.retryable:
                return outcome
            pause = pause_after(answer, outcome)
            if time.monotonic() + pause > give_up:
                return outcome
            time.sleep(pause)

    def events(self, *, message: str | None = None, last_id: str | None = None, silence: float = 35.0) -> Events:
        """Broadcasts of the gateway, all of them or those with one `message`, after `last_id` or from now on.

        A connection that is silent for `silence` seconds, which is longer than two heartbeats of the bridge
        (`events.heartbeat`, 15 s), counts as broken.
        """
        return Events(self._endpoint, f"{self._root}/events", message, last_id, silence)

    def _send(self, payment: Payment) -> Answer | None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": payment.key}
        password = self._pos_passwords.get(payment.pos_id)
        if password is not None:
            headers["X-POS-Password"] = password
        path = f"{self._root}/points-of-sale/{payment.pos_id}/payments"
        return self._endpoint.exchange("POST", path, headers, payment.sale.encode(), self._timeout)


def outcome_of(payment: Payment, answer: Answer | None) -> Outcome:
    """What one answer says about the sale."""
    if answer is None:
        return Unknown(payment, None)
    if answer.status == 201:
        reply = answer.object()
        if reply is None:
            return Unknown(payment, None)
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        return Booked(payment, reply, answer.body.decode(), replayed)
    problem = answer.problem()
    if problem and not problem.retryable and problem.code in NOT_BOOKED:
        return NotBooked(payment, problem)
    return Unknown(payment, problem)


def pause_after(answer: Answer | None, outcome: Unknown) -> float:
    """Seconds until the next request: as asked for, else one."""
    asked = outcome.problem.retry_after if outcome.problem else None
    if asked is None and answer is not None:
        asked = answer.retry_after()
    return 1.0 if asked is None else max(float(asked), LEAST_PAUSE_S)
