"""What was created: resources, operations and policies in one SQLite file. A write is durable when it returns.

A resource's key is its path behind the service's name, without the API version:
``alloydb/projects/p/locations/l/clusters/c``. Keys of compute hold the region or zone in the same way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
create table if not exists resources (
    key text primary key, collection text not null, parent text not null, body text not null, hidden text not null,
    deleted_at real);
create index if not exists resources_of on resources (collection, parent);
create table if not exists operations (
    key text primary key, target text not null, due_at real not null, done integer not null, record text not null);
create index if not exists operations_open on operations (done, due_at);
create index if not exists operations_on on operations (target, done);
create table if not exists policies (key text primary key, policy text not null);
create table if not exists requests (id text primary key, answer text not null);
create table if not exists counters (name text primary key, value integer not null);
"""

# Sorts behind every character that a key can hold: the upper end of "all keys that start with".
_LAST = "\U0010ffff"


@dataclass(frozen=True)
class Stored:
    """One resource: what callers see, what they do not (``hidden``), and when it was soft-deleted."""

    key: str
    body: dict[str, Any]
    hidden: dict[str, Any]
    deleted_at: float | None = None

    @property
    def parent(self) -> str:
        """The key of the collection's owner."""
        return split(self.key)[0]


def split(key: str) -> tuple[str, str, str]:
    """A key as parent, collection (``service/collection``) and id."""
    head, _, identifier = key.rpartition("/")
    parent, _, collection = head.rpartition("/")
    return parent, f"{key.split('/', 1)[0]}/{collection}", identifier


class Store:
    """The SQLite file. One connection; the caller holds a lock, so that a request is one transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # WAL with synchronous=NORMAL survives the death of the process; only a power cut may lose the last commits.
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.executescript(_SCHEMA)
        self._depth = 0

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def rows_written(self) -> int:
        """Rows inserted, changed or deleted since this store was opened, those of undone writes too."""
        return self._connection.total_changes

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: an exception undoes every write inside. One inside another undoes its own writes."""
        name = f"level_{self._depth}"
        self._connection.execute(f"savepoint {name}" if self._depth else "begin immediate")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth:
                self._connection.execute(f"rollback to {name}")
                self._connection.execute(f"release {name}")
            else:
                self._connection.execute("rollback")
            raise
        self._depth -= 1
        self._connection.execute(f"release {name}" if self._depth else "commit")

    # --- resources ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, even_deleted: bool = False) -> Stored | None:
        """The resource, or None; a soft-deleted one only when asked for."""
        row = self._connection.execute(
            "select key, body, hidden, deleted_at from resources where key = ?", (key,)
        ).fetchone()
        found = _stored(row) if row else None
        return found if found and (even_deleted or found.deleted_at is None) else None

    def put(self, key: str, body: Mapping[str, Any], hidden: Mapping[str, Any] | None = None) -> None:
        """Create or replace; ``hidden`` None keeps what is hidden."""
        parent, collection, _ = split(key)
        if hidden is None:
            before = self.get(key, even_deleted=True)
            hidden = before.hidden if before else {}
        self._connection.execute(
            "insert into resources (key, collection, parent, body, hidden) values (?, ?, ?, ?, ?) "
            "on conflict (key) do update set body = excluded.body, hidden = excluded.hidden, deleted_at = null",
            (key, collection, parent, json.dumps(body), json.dumps(hidden)),
        )

    def mark_deleted(self, key: str, at: float) -> None:
        """Soft delete: the row stays and can be brought back with :meth:`put`."""
        self._connection.execute("update resources set deleted_at = ? where key = ?", (at, key))

    def remove(self, key: str) -> None:
        """Delete a resource and everything below it."""
        for table in ("resources", "policies"):
            self._connection.execute(
                f"delete from {table} where key = ? or (key >= ? and key < ?)",  # noqa: S608 - names of ours
                (key, f"{key}/", f"{key}/{_LAST}"),
            )

    def children(self, parent: str, collection: str, *, even_deleted: bool = False) -> list[Stored]:
        """The live resources of one collection (``service/collection``) below a parent; ``-`` in it matches any."""
        where, values = ("parent = ?", (parent,))
        if "/-" in parent:
            where, values = ("parent glob ?", (parent.replace("[", "[[]").replace("/-", "/*"),))
        rows = self._connection.execute(
            f"select key, body, hidden, deleted_at from resources "  # noqa: S608 - fixed text, values are bound
            f"where collection = ? and {where} and (? or deleted_at is null) order by key",
            (collection, *values, even_deleted),
        ).fetchall()
        depth = parent.count("/")
        return [found for found in map(_stored, rows) if found.parent.count("/") == depth]

    def below(self, prefix: str, collection: str | None = None, *, even_deleted: bool = False) -> list[Stored]:
        """Every live resource whose key starts with the prefix, of one collection or of all."""
        rows = self._connection.execute(
            "select key, body, hidden, deleted_at from resources "
            "where key >= ? and key < ? and (? is null or collection = ?) and (? or deleted_at is null) order by key",
            (prefix, prefix + _LAST, collection, collection, even_deleted),
        ).fetchall()
        return [_stored(row) for row in rows]

    # --- operations -----------------------------------------------------------------------------------------------

    def put_operation(self, key: str, target: str, due_at: float, done: bool, record: Mapping[str, Any]) -> None:
        """Write an operation: when its work is due, whether it is done, and the rest of it."""
        self._connection.execute(
            "insert into operations (key, target, due_at, done, record) values (?, ?, ?, ?, ?) on conflict (key) do "
            "update set due_at = excluded.due_at, done = excluded.done, record = excluded.record",
            (key, target, due_at, done, json.dumps(record)),
        )

    def operation(self, key: str) -> dict[str, Any] | None:
        """The record of one operation."""
        row = self._connection.execute("select record from operations where key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def operations(self, prefix: str) -> list[dict[str, Any]]:
        """Every operation whose key starts with the prefix, newest last."""
        rows = self._connection.execute(
            "select record from operations where key >= ? and key < ? order by rowid", (prefix, prefix + _LAST)
        )
        return [json.loads(row[0]) for row in rows]

    def due(self, now: float) -> list[dict[str, Any]]:
        """Operations whose work is due and not done, in the order in which they fall due."""
        rows = self._connection.execute(
            "select record from operations where done = 0 and due_at <= ? order by due_at, rowid", (now,)
        )
        return [json.loads(row[0]) for row in rows]

    def open_operations(self, prefix: str) -> list[dict[str, Any]]:
        """Operations below a prefix that have not ended, oldest first."""
        rows = self._connection.execute(
            "select record from operations where done = 0 and key >= ? and key < ? order by rowid",
            (prefix, prefix + _LAST),
        )
        return [json.loads(row[0]) for row in rows]

    def open_operation_on(self, target: str) -> dict[str, Any] | None:
        """An operation on the resource that has not ended."""
        row = self._connection.execute(
            "select record from operations where target = ? and done = 0 order by rowid desc limit 1", (target,)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def remove_operation(self, key: str) -> None:
        """Forget an operation."""
        self._connection.execute("delete from operations where key = ?", (key,))

    # --- policies -------------------------------------------------------------------------------------------------

    def policy(self, key: str) -> dict[str, Any] | None:
        """The IAM policy of a resource, if one was set."""
        row = self._connection.execute("select policy from policies where key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put_policy(self, key: str, policy: Mapping[str, Any]) -> None:
        """Set the IAM policy of a resource."""
        self._connection.execute(
            "insert or replace into policies (key, policy) values (?, ?)", (key, json.dumps(policy))
        )

    # --- the rest -------------------------------------------------------------------------------------------------

    def answered(self, request_id: str) -> Any | None:
        """What was answered to a request id before."""
        row = self._connection.execute("select answer from requests where id = ?", (request_id,)).fetchone()
        return json.loads(row[0]) if row else None

    def remember(self, request_id: str, answer: Any) -> None:
        """Keep the answer to a request id, so that the same request is not carried out twice."""
        self._connection.execute(
            "insert or replace into requests (id, answer) values (?, ?)", (request_id, json.dumps(answer))
        )

    def next_number(self, name: str, first: int = 1) -> int:
        """1, 2, 3, ... for each name, without a gap that a crash could leave."""
        row = self._connection.execute(
            "insert into counters (name, value) values (?, ?) on conflict (name) do update set value = value + 1 "
            "returning value",
            (name, first),
        ).fetchone()
        return int(row[0])


def _stored(row: tuple[str, str, str, float | None]) -> Stored:
    return Stored(row[0], json.loads(row[1]), json.loads(row[2]), row[3])
