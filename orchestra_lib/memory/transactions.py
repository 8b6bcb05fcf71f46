"""Messages of the log become events: the changes of whole transactions, in the order of their commits.

The source sends a large transaction in blocks before it is committed, perhaps several of them in turn. Such blocks are
put on disk as they come and read back at the commit, so memory stays bounded however large a transaction is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    RelationMessage,
    Row,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    TypeMessage,
    Update,
    decode,
    streamed_xid,
)
from orchestra_lib.memory.replication import Keepalive, WalData
from orchestra_lib.memory.spool import Described, Spool
from orchestra_lib.memory.stream_errors import StreamError

DataMessage = Insert | Update | Delete | Truncate
Verb = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Change:
    """A changed row. ``old`` of an update is there when its key changed or the replica identity is full."""

    verb: Verb
    relation: Relation
    old: Row | None
    new: Row | None
    commit_lsn: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """Tables that were emptied."""

    relations: tuple[Relation, ...]
    commit_lsn: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction is complete, even one that changed nothing here. What is before ``end_lsn`` may be confirmed."""

    commit_lsn: int
    end_lsn: int
    commit_time: float


@dataclass(frozen=True, slots=True)
class Idle:
    """There is nothing before ``lsn`` that has not been told."""

    lsn: int


Event = Change | Truncated | Committed | Idle

_NOTHING: tuple[Event, ...] = ()
_SPOOLED = frozenset(b"IUDT")


class Transactions:
    """Turns what one replication session receives into events; a new session begins with a new one of these.

    ``spool_directory`` must exist; files in it have no names and go with the process, however that ends.
    """

    def __init__(self, spool_directory: Path) -> None:
        self._spool_directory = spool_directory
        self._relations = _Relations()
        self._described_so_far = 0
        self._begin: Begin | None = None
        self._streamed: dict[int, Spool] = {}
        self._block: Spool | None = None
        self._take: Mapping[type[Message], Callable[[Any], Iterable[Event]]] = {
            Begin: self._begun,
            Commit: self._committed,
            Insert: self._changed,
            Update: self._changed,
            Delete: self._changed,
            Truncate: self._changed,
            RelationMessage: self._described,
            StreamStart: self._block_started,
            StreamStop: self._block_stopped,
            StreamCommit: self._streamed_committed,
            StreamAbort: self._streamed_aborted,
            TypeMessage: self._ignored,
            Origin: self._ignored,
            LogicalMessage: self._ignored,
        }

    def __enter__(self) -> Transactions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the transactions that are still open on the source."""
        for spool in self._streamed.values():
            spool.close()
        self._streamed.clear()
        self._block = None

    def take(self, received: WalData | Keepalive) -> Iterator[Event]:
        """The events that this completes; exhaust them before the next call.

        Raises StreamError for what is no message, comes out of turn, or finds no room on the disk.
        """
        if isinstance(received, Keepalive):
            between = self._begin is None and self._block is None
            return iter((Idle(received.end_lsn),) if between else _NOTHING)
        payload = received.payload
        if self._block is not None and payload and payload[0] in _SPOOLED:
            self._block.add(streamed_xid(payload), payload)
            return iter(_NOTHING)
        message = decode(payload, self._block is not None)
        return iter(self._take[type(message)](message))

    def _begun(self, begin: Begin) -> Iterable[Event]:
        self._require(self._begin is None and self._block is None, begin)
        self._begin = begin
        return _NOTHING

    def _committed(self, commit: Commit) -> Iterable[Event]:
        self._require(self._begin is not None and self._begin.commit_lsn == commit.commit_lsn, commit)
        self._begin = None
        return (Committed(commit.commit_lsn, commit.end_lsn, commit.commit_time),)

    def _changed(self, message: DataMessage) -> Iterable[Event]:
        if self._begin is None:
            raise self._out_of_turn(message)
        return (self._relations.event(message, self._begin.commit_lsn),)

    def _described(self, message: RelationMessage) -> Iterable[Event]:
        self._described_so_far += 1
        if self._block is None:
            self._relations.learn(message.relation, self._described_so_far)
        else:
            self._block.describe(message.relation, self._described_so_far)
        return _NOTHING

    def _ignored(self, _message: TypeMessage | Origin | LogicalMessage) -> Iterable[Event]:
        return _NOTHING

    def _block_started(self, start: StreamStart) -> Iterable[Event]:
        new = start.xid not in self._streamed
        self._require(self._begin is None and self._block is None and start.first_segment == new, start)
        if new:
            self._streamed[start.xid] = Spool(start.xid, self._spool_directory)
        self._block = self._streamed[start.xid]
        return _NOTHING

    def _block_stopped(self, stop: StreamStop) -> Iterable[Event]:
        self._require(self._block is not None, stop)
        self._block = None
        return _NOTHING

    def _streamed_committed(self, commit: StreamCommit) -> Iterable[Event]:
        self._require(self._begin is None and self._block is None and commit.xid in self._streamed, commit)
        spool = self._streamed.pop(commit.xid)
        for described in spool.described:
            self._relations.learn(described.relation, described.number)
        return _replayed(spool, commit)

    def _streamed_aborted(self, abort: StreamAbort) -> Iterable[Event]:
        self._require(self._begin is None and self._block is None, abort)
        if abort.xid not in self._streamed:
            return _NOTHING
        if abort.subxid == abort.xid:
            self._streamed.pop(abort.xid).close()
        else:
            self._streamed[abort.xid].roll_back(abort.subxid)
        return _NOTHING

    def _require(self, in_turn: bool, message: Message) -> None:
        if not in_turn:
            raise self._out_of_turn(message)

    def _out_of_turn(self, message: Message) -> StreamError:
        if self._begin is not None:
            place = f"in the transaction that commits at {lsn_text(self._begin.commit_lsn)}"
        elif self._block is not None:
            place = f"in a block of transaction {self._block.xid}"
        else:
            place = "between transactions"
        streamed = ", ".join(map(str, self._streamed)) or "none"
        return StreamError(
            f"the source sent a {type(message).__name__} out of turn, {place} (sent in blocks and open: {streamed}); "
            "every message of a session has to come here, from its first on"
        )


class _Relations:
    """What the source said last about each of its tables."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._numbers: dict[int, int] = {}

    def learn(self, relation: Relation, number: int) -> None:
        """Believe it unless something was said later: ``number`` counts what is said, whenever it is learnt."""
        if number > self._numbers.get(relation.oid, 0):
            self._relations[relation.oid] = relation
            self._numbers[relation.oid] = number

    def event(self, message: DataMessage, commit_lsn: int) -> Event:
        """What a message about changes means. Raises StreamError if it does not fit its table."""
        if isinstance(message, Truncate):
            return Truncated(tuple(map(self._known, message.relation_oids)), commit_lsn)
        relation = self._known(message.relation_oid)
        columns = len(relation.columns)
        if isinstance(message, Insert):
            if len(message.new) == columns:
                return Change("insert", relation, None, message.new, commit_lsn)
        elif isinstance(message, Update):
            if len(message.new) == columns and (message.old is None or len(message.old) == columns):
                return Change("update", relation, message.old, message.new, commit_lsn)
        elif len(message.old) == columns:
            return Change("delete", relation, message.old, None, commit_lsn)
        raise StreamError(
            f"the source sent a {type(message).__name__} of {relation.schema}.{relation.name} that has not the "
            f"{columns} columns it had said"
        )

    def _known(self, oid: int) -> Relation:
        try:
            return self._relations[oid]
        except KeyError:
            raise StreamError(f"the source sent a change of table {oid} and has not said what that is") from None


def _replayed(spool: Spool, commit: StreamCommit) -> Iterator[Event]:
    relations = _Relations()
    with closing(spool):
        for item in spool.read():
            if isinstance(item, Described):
                relations.learn(item.relation, item.number)
                continue
            message = decode(item, in_stream=True)
            if not isinstance(message, DataMessage):
                raise StreamError(f"the spool of transaction {commit.xid} holds a {type(message).__name__}")
            yield relations.event(message, commit.commit_lsn)
    yield Committed(commit.commit_lsn, commit.end_lsn, commit.commit_time)
