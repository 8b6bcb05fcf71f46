"""Following a source's log in tests: what a slot's stream brings, as events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from orchestra_lib.memory.replication import ReplicationSession, WalData
from orchestra_lib.memory.slot import mark
from orchestra_lib.memory.transactions import Committed, Event, Idle, Transactions

SLOT, PUBLICATION = "test_slot", "test_publication"


@dataclass
class Follower:
    """One reader of a slot. ``kinds`` counts the messages that came by their first letter."""

    session: ReplicationSession
    transactions: Transactions
    kinds: Counter[str] = field(default_factory=Counter)

    def until(self, lsn: int, timeout_seconds: float = 30.0) -> list[Event]:
        """The events up to the transaction whose commit lies at or behind that position, with it."""
        found: list[Event] = []
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            received = self.session.receive()
            if received is None:
                self.session.wait(0.1)
                continue
            if isinstance(received, WalData):
                self.kinds[chr(received.payload[0])] += 1
            for event in self.transactions.take(received):
                found.append(event)
                if isinstance(event, Committed) and event.commit_lsn >= lsn:
                    return found
        raise AssertionError(f"nothing was committed at {lsn} or later within {timeout_seconds} s: {self.kinds}")

    def up_to_now(self, connection: psycopg.Connection) -> list[Event]:
        """The events of everything that has been committed, without Idle and the commit that marks the end."""
        return [event for event in self.until(mark(connection)) if not isinstance(event, Idle)][:-1]


@contextmanager
def following(conninfo: str, spool: Path, lsn: int = 0, streaming: bool = True) -> Iterator[Follower]:
    """Read the slot from that position on."""
    with ReplicationSession.open(conninfo) as session, Transactions(spool) as transactions:
        session.start(SLOT, PUBLICATION, lsn, streaming)
        yield Follower(session, transactions)


def make_slot(conninfo: str) -> int:
    """Make the slot; returns where it begins."""
    with ReplicationSession.open(conninfo) as session:
        return session.create_slot(SLOT).consistent_lsn


def text_of(value: memoryview | None) -> str | None:
    """A field of type text; None when it was not sent."""
    return None if value is None else bytes(value[4:]).decode()
