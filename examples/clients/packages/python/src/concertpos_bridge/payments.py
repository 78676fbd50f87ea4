"""What a payment is, and how it may end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .http import Problem

# Refusals of the sale. Any other error concerns one request: an earlier request with the same key may have booked the sale.
NOT_BOOKED = frozenset(
    {
        "gateway-rejected-parameters",
        "pos-password-rejected",
        "gateway-credentials-rejected",
        "license-invalid",
        "gateway-error",
        "idempotency-key-reused",
    }
)


@dataclass(frozen=True)
class Payment:
    """A sale and its key. `sale` is the JSON that is sent, `created_at` in seconds since 1970."""

    instance: str
    pos_id: int
    key: str
    sale: str
    created_at: float

    def same_sale(self, other: "Payment") -> bool:
        """Whether the other one is the same sale as far as its spelling tells."""
        same_place = (self.instance, self.pos_id) == (other.instance, other.pos_id)
        return same_place and bool(json.loads(self.sale) == json.loads(other.sale))


@dataclass(frozen=True)
class Booked:
    """The sale is booked. `text` is the gateway's reply as it came, `replayed` whether an earlier request booked it."""

    payment: Payment
    reply: Mapping[str, Any]
    text: str
    replayed: bool


@dataclass(frozen=True)
class NotBooked:
    """The sale is certainly not booked."""

    payment: Payment
    problem: Problem


@dataclass(frozen=True)
class Unknown:
    """The sale may be booked or not. Never sell it with another key; resume it, or ask the operator.

    `too_old`: nothing was sent, since the bridge may have forgotten the key.
    """

    payment: Payment
    problem: Problem | None
    too_old: bool = False


Outcome = Booked | NotBooked | Unknown
