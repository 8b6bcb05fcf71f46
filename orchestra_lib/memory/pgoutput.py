"""The messages of PostgreSQL's pgoutput plugin, protocol versions 1 and 2, taken apart; no I/O.

https://www.postgresql.org/docs/16/protocol-logicalrep-message-formats.html
A value stays where it is: a field is a view of the message, and exactly a field of COPY BINARY, so it can be handed to
COPY untouched. What is malformed or cut short raises StreamError with what was expected and the offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct

from orchestra_lib.memory.stream_errors import StreamError

NULL_FIELD = memoryview(b"\xff\xff\xff\xff")
"""NULL as a field of COPY BINARY: the length -1 and no bytes."""
MICROSECONDS_1970_TO_2000 = 946_684_800_000_000
"""PostgreSQL counts time from 2000-01-01."""

Row = tuple[memoryview | None, ...]
"""Fields in the relation's column order; None is a large value that did not change and was not sent."""

_INT16, _INT32 = Struct(">H"), Struct(">I")
_CHANGE, _STREAMED_CHANGE = Struct(">xIB"), Struct(">xIIB")
_BINARY, _NULL, _UNCHANGED, _TEXT = b"bnut"
_NEW, _KEY, _OLD = b"NKO"
_REPLICA_IDENTITIES = b"dnfi"


@dataclass(frozen=True, slots=True)
class Column:
    """A published column. ``in_key``: it belongs to what identifies a row to the subscriber."""

    name: str
    type_oid: int
    type_modifier: int
    in_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A published table. ``replica_identity`` is pg_class.relreplident: d(efault), n(othing), f(ull), i(ndex)."""

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction's changes follow. ``commit_time`` is in seconds since 1970 by the source's clock."""

    commit_lsn: int
    commit_time: float
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction's changes are complete. ``end_lsn`` is the position behind its commit record."""

    commit_lsn: int
    end_lsn: int
    commit_time: float


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row. ``xid``, here and below, is the (sub)transaction inside a streamed block, else None."""

    xid: int | None
    relation_oid: int
    new: Row


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row. ``old_kind`` is "K" when ``old`` holds the old key alone, "O" for all of the old row."""

    xid: int | None
    relation_oid: int
    old_kind: str | None
    old: Row | None
    new: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that went; ``old_kind`` and ``old`` as in Update, always sent."""

    xid: int | None
    relation_oid: int
    old_kind: str
    old: Row


@dataclass(frozen=True, slots=True)
class Truncate:
    """Emptied tables. ``options``: 1 for CASCADE, 2 for RESTART IDENTITY, or their sum."""

    xid: int | None
    relation_oids: tuple[int, ...]
    options: int


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """What a table looks like from here on."""

    xid: int | None
    relation: Relation


@dataclass(frozen=True, slots=True)
class TypeMessage:
    """The name of a type that is not built in."""

    xid: int | None
    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from elsewhere, where it was committed at ``commit_lsn``."""

    commit_lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What pg_logical_emit_message wrote."""

    xid: int | None
    transactional: bool
    lsn: int
    prefix: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A block of a transaction that is still open follows, its first or a further one."""

    xid: int
    first_segment: bool


@dataclass(frozen=True, slots=True)
class StreamStop:
    """The block ends."""


@dataclass(frozen=True, slots=True)
class StreamCommit:
    """A transaction that came in blocks is committed."""

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_time: float


@dataclass(frozen=True, slots=True)
class StreamAbort:
    """A subtransaction of ``xid`` was rolled back, or all of it when ``subxid`` is the same."""

    xid: int
    subxid: int


Message = (
    Begin
    | Commit
    | Insert
    | Update
    | Delete
    | Truncate
    | RelationMessage
    | TypeMessage
    | Origin
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
)


def decode(payload: memoryview, in_stream: bool) -> Message:
    """The message. ``in_stream``: between StreamStart and StreamStop, where changes carry their xid.

    Raises StreamError for what is no message of the protocol.
    """
    try:
        read = _READERS[payload[0]]
    except IndexError:
        raise StreamError("a message of the stream is empty; its kind was expected") from None
    except KeyError:
        raise StreamError(
            f"a message of the stream is of the kind {bytes(payload[:1])!r}; protocol version 2 has "
            f"{', '.join(map(chr, _READERS))}"
        ) from None
    return read(payload, in_stream)


def streamed_xid(payload: memoryview) -> int:
    """The (sub)transaction of a change inside a streamed block, without reading the rest. Raises StreamError."""
    return int(_Reader(payload).take(_INT32, "the transaction")[0])


def seconds_since_1970(microseconds_since_2000: int) -> float:
    """A time of the protocol as Python counts it."""
    return (microseconds_since_2000 + MICROSECONDS_1970_TO_2000) / 1e6


def _insert(payload: memoryview, in_stream: bool) -> Insert:
    xid, oid, kind, at = _change(payload, in_stream)
    if kind != _NEW:
        raise _malformed("N before a new row", at - 1, payload)
    new, at = _row(payload, at)
    _require_end(payload, at)
    return Insert(xid, oid, new)


def _update(payload: memoryview, in_stream: bool) -> Update:
    xid, oid, kind, at = _change(payload, in_stream)
    old_kind, old = None, None
    if kind in (_KEY, _OLD):
        old_kind = chr(kind)
        old, at = _row(payload, at)
        kind = payload[at] if at < len(payload) else 0
        at += 1
    if kind != _NEW:
        raise _malformed("N before a new row", at - 1, payload)
    new, at = _row(payload, at)
    _require_end(payload, at)
    return Update(xid, oid, old_kind, old, new)


def _delete(payload: memoryview, in_stream: bool) -> Delete:
    xid, oid, kind, at = _change(payload, in_stream)
    if kind not in (_KEY, _OLD):
        raise _malformed("K or O before an old row", at - 1, payload)
    old, at = _row(payload, at)
    _require_end(payload, at)
    return Delete(xid, oid, chr(kind), old)


def _change(payload: memoryview, in_stream: bool) -> tuple[int | None, int, int, int]:
    """How a change begins: transaction, relation, the kind of the row that comes first, and where that begins."""
    try:
        if in_stream:
            return *_STREAMED_CHANGE.unpack_from(payload), _STREAMED_CHANGE.size
        return None, *_CHANGE.unpack_from(payload), _CHANGE.size
    except struct.error:
        raise _malformed("relation and kind of a row", 1, payload) from None


def _row(payload: memoryview, at: int) -> tuple[Row, int]:
    """The fields from there on, and where they end. Nearly all of the time that a stream takes is spent here."""
    fields: list[memoryview | None] = []
    add, length_at = fields.append, _INT32.unpack_from
    try:
        (count,) = _INT16.unpack_from(payload, at)
        at += 2
        for _ in range(count):
            kind = payload[at]
            at += 1
            if kind == _BINARY:
                end = at + 4 + length_at(payload, at)[0]
                add(payload[at:end])
                at = end
            elif kind == _NULL:
                add(NULL_FIELD)
            elif kind == _UNCHANGED:
                add(None)
            else:
                raise _not_binary(kind, len(fields) + 1, at - 1, payload)
    except (IndexError, struct.error):
        raise _malformed(f"column {len(fields) + 1} of a row", at, payload) from None
    if at > len(payload):
        raise _malformed(f"the end of a row of {len(fields)} columns", at, payload)
    return tuple(fields), at


def _not_binary(kind: int, position: int, at: int, payload: memoryview) -> StreamError:
    if kind != _TEXT:
        return _malformed(f"b, n, t or u before column {position} of a row", at, payload)
    return StreamError(
        f"column {position} of a change (offset {at}) came as text: its type has no binary form on the source; "
        "leave it out of the publication's columns or give it a type that has one"
    )


def _require_end(payload: memoryview, at: int) -> None:
    if at != len(payload):
        raise _malformed("the end", at, payload)


def _malformed(expected: str, at: int, payload: memoryview) -> StreamError:
    return StreamError(
        f"a message of the stream is malformed: {expected} was expected at offset {at}, of {len(payload)} bytes: "
        f"{bytes(payload[:40])!r}; PostgreSQL 14 or newer speaks this protocol, and nothing may stand between"
    )


class _Reader:
    """Takes a message apart from behind its kind on; what is not there is named with its offset."""

    def __init__(self, payload: memoryview) -> None:
        self._payload = payload
        self._at = 1

    def xid(self, in_stream: bool) -> int | None:
        return int(self.take(_INT32, "the transaction")[0]) if in_stream else None

    def take(self, layout: Struct, what: str) -> tuple[int, ...]:
        try:
            values = layout.unpack_from(self._payload, self._at)
        except struct.error:
            raise _malformed(what, self._at, self._payload) from None
        self._at += layout.size
        return values

    def bytes(self, count: int, what: str) -> bytes:
        taken = bytes(self._payload[self._at : self._at + count])
        if len(taken) != count:
            raise _malformed(f"{what} of {count} bytes", self._at, self._payload)
        self._at += count
        return taken

    def text(self, what: str) -> str:
        rest = bytes(self._payload[self._at :])
        try:
            text = rest[: rest.index(0)]
            decoded = text.decode()
        except ValueError:
            raise _malformed(f"{what} in UTF-8 and a null byte", self._at, self._payload) from None
        self._at += len(text) + 1
        return decoded

    def schema(self) -> str:
        return self.text("a schema") or "pg_catalog"  # sent as an empty string

    def refuse(self, expected: str, back: int) -> StreamError:
        return _malformed(expected, self._at - back, self._payload)

    def end(self) -> None:
        _require_end(self._payload, self._at)


_BEGIN = Struct(">QqI")
_COMMIT = Struct(">BQQq")
_STREAM_COMMIT = Struct(">IBQQq")
_MESSAGE = Struct(">BQ")
_IDENTITY_AND_COUNT = Struct(">BH")
_KEY_FLAG = Struct(">B")
_TYPE_AND_MODIFIER = Struct(">Ii")
_COUNT_AND_OPTIONS = Struct(">IB")
_LSN = Struct(">Q")
_STREAM_START = Struct(">IB")
_TWO_XIDS = Struct(">II")


def _begin(payload: memoryview, _in_stream: bool) -> Begin:
    reader = _Reader(payload)
    commit_lsn, moment, xid = reader.take(_BEGIN, "position, time and transaction of a begin")
    reader.end()
    return Begin(commit_lsn, seconds_since_1970(moment), xid)


def _commit(payload: memoryview, _in_stream: bool) -> Commit:
    reader = _Reader(payload)
    _, commit_lsn, end_lsn, moment = reader.take(_COMMIT, "flags, positions and time of a commit")
    reader.end()
    return Commit(commit_lsn, end_lsn, seconds_since_1970(moment))


def _truncate(payload: memoryview, in_stream: bool) -> Truncate:
    reader = _Reader(payload)
    xid = reader.xid(in_stream)
    count, options = reader.take(_COUNT_AND_OPTIONS, "the number of emptied tables")
    oids = reader.bytes(count * _INT32.size, "the emptied tables")
    reader.end()
    return Truncate(xid, tuple(oid for (oid,) in _INT32.iter_unpack(oids)), options)


def _relation(payload: memoryview, in_stream: bool) -> RelationMessage:
    reader = _Reader(payload)
    xid = reader.xid(in_stream)
    (oid,) = reader.take(_INT32, "the oid of a relation")
    schema, name = reader.schema(), reader.text("the name of a relation")
    identity, count = reader.take(_IDENTITY_AND_COUNT, "replica identity and number of columns")
    if identity not in _REPLICA_IDENTITIES:
        raise reader.refuse("a replica identity (d, n, f or i)", _IDENTITY_AND_COUNT.size)
    columns = tuple(_column(reader) for _ in range(count))
    reader.end()
    return RelationMessage(xid, Relation(oid, schema, name, chr(identity), columns))


def _column(reader: _Reader) -> Column:
    (flags,) = reader.take(_KEY_FLAG, "the flags of a column")
    name = reader.text("the name of a column")
    type_oid, type_modifier = reader.take(_TYPE_AND_MODIFIER, "the type of a column")
    return Column(name, type_oid, type_modifier, bool(flags & 1))


def _type(payload: memoryview, in_stream: bool) -> TypeMessage:
    reader = _Reader(payload)
    xid = reader.xid(in_stream)
    (oid,) = reader.take(_INT32, "the oid of a type")
    message = TypeMessage(xid, oid, reader.schema(), reader.text("the name of a type"))
    reader.end()
    return message


def _origin(payload: memoryview, _in_stream: bool) -> Origin:
    reader = _Reader(payload)
    (commit_lsn,) = reader.take(_LSN, "the position at the origin")
    message = Origin(commit_lsn, reader.text("the name of the origin"))
    reader.end()
    return message


def _logical_message(payload: memoryview, in_stream: bool) -> LogicalMessage:
    reader = _Reader(payload)
    xid = reader.xid(in_stream)
    flags, lsn = reader.take(_MESSAGE, "flags and position of a logical message")
    prefix = reader.text("the prefix of a logical message")
    (length,) = reader.take(_INT32, "the length of a logical message")
    content = reader.bytes(length, "the content of a logical message")
    reader.end()
    return LogicalMessage(xid, bool(flags & 1), lsn, prefix, content)


def _stream_start(payload: memoryview, _in_stream: bool) -> StreamStart:
    reader = _Reader(payload)
    xid, first = reader.take(_STREAM_START, "transaction and number of a streamed block")
    reader.end()
    return StreamStart(xid, bool(first))


def _stream_stop(payload: memoryview, _in_stream: bool) -> StreamStop:
    _require_end(payload, 1)
    return StreamStop()


def _stream_commit(payload: memoryview, _in_stream: bool) -> StreamCommit:
    reader = _Reader(payload)
    xid, _, commit_lsn, end_lsn, moment = reader.take(_STREAM_COMMIT, "positions and time of a streamed commit")
    reader.end()
    return StreamCommit(xid, commit_lsn, end_lsn, seconds_since_1970(moment))


def _stream_abort(payload: memoryview, _in_stream: bool) -> StreamAbort:
    reader = _Reader(payload)
    xid, subxid = reader.take(_TWO_XIDS, "transaction and subtransaction of an abort")
    reader.end()
    return StreamAbort(xid, subxid)


_READERS: Mapping[int, Callable[[memoryview, bool], Message]] = {
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("B"): _begin,
    ord("C"): _commit,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("O"): _origin,
    ord("M"): _logical_message,
    ord("S"): _stream_start,
    ord("E"): _stream_stop,
    ord("c"): _stream_commit,
    ord("A"): _stream_abort,
}
