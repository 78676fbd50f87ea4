"""Payments that are booked at most once, and broadcasts without loss, through the ConcertPOS bridge."""

from .bridge import Bridge
from .events import Broadcast, Event, Events, FetchAgain
from .http import Problem, Refused
from .payments import NOT_BOOKED, Booked, NotBooked, Outcome, Payment, Unknown
from .store import FileStore, OtherSale, Store

__all__ = [
    "NOT_BOOKED",
    "Booked",
    "Bridge",
    "Broadcast",
    "Event",
    "Events",
    "FetchAgain",
    "FileStore",
    "NotBooked",
    "OtherSale",
    "Outcome",
    "Payment",
    "Problem",
    "Refused",
    "Store",
    "Unknown",
]
