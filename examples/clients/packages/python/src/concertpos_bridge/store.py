"""Where payments of unknown outcome survive the end of a program."""

import hashlib
import json
import os
from pathlib import Path
from typing import Protocol

from .payments import Payment


class OtherSale(ValueError):
    """The key is in the store with another sale."""


class Store(Protocol):
    """Keeps payments until their outcome is known."""

    def begin(self, payment: Payment) -> Payment:
        """Keeps a payment, durably before it returns. One that is kept under this key already is returned; OtherSale where
        that is another sale."""

    def end(self, payment: Payment) -> None:
        """Its outcome is known. Nothing happens where it is not kept."""

    def open(self) -> list[Payment]:
        """What is kept, oldest first."""


class FileStore:
    """One file a payment, in a folder on a disk that honours fsync, for its owner's eyes only."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, instance: str, key: str) -> Path:
        return self._folder / (hashlib.sha256(f"{instance}\n{key}".encode()).hexdigest()[:40] + ".json")

    def begin(self, payment: Payment) -> Payment:
        path = self._path(payment.instance, payment.key)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(8).hex()}.draft")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(vars(payment), file)
                file.flush()
                os.fsync(file.fileno())
            try:
                # Fails where the key is taken, unlike a renaming.
                os.link(draft, path)
            except FileExistsError:
                kept = self._load(path)
                if not kept.same_sale(payment):
                    raise OtherSale(f"the key {payment.key!r} is in the store with another sale") from None
                payment = kept
            self._sync()
        finally:
            draft.unlink(missing_ok=True)
        return payment

    def end(self, payment: Payment) -> None:
        self._path(payment.instance, payment.key).unlink(missing_ok=True)
        self._sync()

    def open(self) -> list[Payment]:
        kept = []
        for path in self._folder.glob("*.json"):
            try:
                kept.append(self._load(path))
            except FileNotFoundError:
                pass  # Ended by another process meanwhile.
        return sorted(kept, key=lambda payment: payment.created_at)

    def _load(self, path: Path) -> Payment:
        try:
            return Payment(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as fault:
            raise ValueError(f"{path} is damaged: {fault}") from fault

    def _sync(self) -> None:
        """The names in the folder survive a loss of power."""
        if os.name != "posix":
            return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
