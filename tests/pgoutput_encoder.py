"""The source's side of pgoutput, written from the documentation alone, and any message for hypothesis to draw."""

from __future__ import annotations

from hypothesis import strategies as st

from orchestra_lib.memory import pgoutput as p

SECONDS_1970_TO_2000 = 946_684_800


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big", signed=value < 0)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def moment(seconds: float) -> bytes:
    return round((seconds - SECONDS_1970_TO_2000) * 1_000_000).to_bytes(8, "big", signed=True)


def schema(name: str) -> bytes:
    return text("" if name == "pg_catalog" else name)


def row(fields: p.Row) -> bytes:
    def sent(field: memoryview | None) -> bytes:
        if field is None:
            return b"u"
        return b"n" if field == b"\xff\xff\xff\xff" else b"b" + field

    return number(len(fields), 2) + b"".join(map(sent, fields))


def encode(message: p.Message) -> bytes:
    """What the source sends; a message with an xid is one inside a streamed block."""
    xid = getattr(message, "xid", None)
    within = b"" if xid is None else number(xid, 4)
    match message:
        case p.Begin():
            return b"B" + number(message.commit_lsn, 8) + moment(message.commit_time) + number(xid, 4)
        case p.Commit(commit_lsn, end_lsn, seconds):
            return b"C\0" + number(commit_lsn, 8) + number(end_lsn, 8) + moment(seconds)
        case p.Origin(commit_lsn, name):
            return b"O" + number(commit_lsn, 8) + text(name)
        case p.RelationMessage(_, relation):
            columns = b"".join(
                number(column.in_key, 1) + text(column.name)
                + number(column.type_oid, 4) + number(column.type_modifier, 4)
                for column in relation.columns
            )  # fmt: skip
            return (
                b"R" + within + number(relation.oid, 4) + schema(relation.schema) + text(relation.name)
                + relation.replica_identity.encode() + number(len(relation.columns), 2) + columns
            )  # fmt: skip
        case p.TypeMessage(_, oid, namespace, name):
            return b"Y" + within + number(oid, 4) + schema(namespace) + text(name)
        case p.Insert(_, oid, new):
            return b"I" + within + number(oid, 4) + b"N" + row(new)
        case p.Update(_, oid, kind, old, new):
            before = b"" if old is None else kind.encode() + row(old)
            return b"U" + within + number(oid, 4) + before + b"N" + row(new)
        case p.Delete(_, oid, kind, old):
            return b"D" + within + number(oid, 4) + kind.encode() + row(old)
        case p.Truncate(_, oids, options):
            listed = b"".join(number(oid, 4) for oid in oids)
            return b"T" + within + number(len(oids), 4) + number(options, 1) + listed
        case p.LogicalMessage(_, transactional, lsn, prefix, content):
            return (
                b"M" + within + number(transactional, 1) + number(lsn, 8) + text(prefix)
                + number(len(content), 4) + content
            )  # fmt: skip
        case p.StreamStart(_, first):
            return b"S" + number(xid, 4) + number(first, 1)
        case p.StreamStop():
            return b"E"
        case p.StreamCommit(_, commit_lsn, end_lsn, seconds):
            return b"c" + number(xid, 4) + b"\0" + number(commit_lsn, 8) + number(end_lsn, 8) + moment(seconds)
        case p.StreamAbort(_, subxid):
            return b"A" + number(xid, 4) + number(subxid, 4)


def field(value: bytes) -> memoryview:
    """A value as a field of COPY BINARY."""
    return memoryview(number(len(value), 4) + value)


_XIDS = st.integers(1, 2**32 - 1)
_OIDS = st.integers(0, 2**32 - 1)
_LSNS = st.integers(0, 2**64 - 1)
_TIMES = st.integers(-(2**50), 2**50).map(lambda microseconds: (microseconds + SECONDS_1970_TO_2000 * 10**6) / 1e6)
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_FIELDS = st.one_of(st.none(), st.just(p.NULL_FIELD), st.binary(max_size=300).map(field))
_ROWS = st.lists(_FIELDS, max_size=16).map(tuple)
_COLUMNS = st.builds(p.Column, _NAMES, _OIDS, st.integers(-(2**31), 2**31 - 1), st.booleans())
_RELATIONS = st.builds(
    p.Relation, _OIDS, _NAMES, _NAMES, st.sampled_from("dnfi"), st.lists(_COLUMNS, max_size=6).map(tuple)
)


def kinds(in_stream: bool) -> dict[str, st.SearchStrategy[p.Message]]:
    """Every kind of message, as it looks inside or outside a streamed block."""
    xids = _XIDS if in_stream else st.none()
    return {
        "begin": st.builds(p.Begin, _LSNS, _TIMES, _XIDS),
        "commit": st.builds(p.Commit, _LSNS, _LSNS, _TIMES),
        "insert": st.builds(p.Insert, xids, _OIDS, _ROWS),
        "update": st.builds(p.Update, xids, _OIDS, st.none(), st.none(), _ROWS),
        "update with an old row": st.builds(p.Update, xids, _OIDS, st.sampled_from("KO"), _ROWS, _ROWS),
        "delete": st.builds(p.Delete, xids, _OIDS, st.sampled_from("KO"), _ROWS),
        "truncate": st.builds(p.Truncate, xids, st.lists(_OIDS, max_size=5).map(tuple), st.integers(0, 3)),
        "relation": st.builds(p.RelationMessage, xids, _RELATIONS),
        "type": st.builds(p.TypeMessage, xids, _OIDS, _NAMES | st.just("pg_catalog"), _NAMES),
        "origin": st.builds(p.Origin, _LSNS, _NAMES),
        "logical message": st.builds(p.LogicalMessage, xids, st.booleans(), _LSNS, _NAMES, st.binary(max_size=50)),
        "stream start": st.builds(p.StreamStart, _XIDS, st.booleans()),
        "stream stop": st.builds(p.StreamStop),
        "stream commit": st.builds(p.StreamCommit, _XIDS, _LSNS, _LSNS, _TIMES),
        "stream abort": st.builds(p.StreamAbort, _XIDS, _XIDS),
    }


def messages(in_stream: bool) -> st.SearchStrategy[p.Message]:
    """Any message."""
    return st.one_of(*kinds(in_stream).values())
