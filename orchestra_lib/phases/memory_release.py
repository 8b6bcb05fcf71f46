"""What runbook 03 has put on today's store, taken away again: the stream's slot, its publication, its tables.

In a rehearsal also its writer, as a role, and the rows of one that was cut off.
"""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
from psycopg import sql

from orchestra_lib import stream_process
from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.slot import drop_slot
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.index_journals import swap_journal
from orchestra_lib.phases.memory_load import WRITTEN_BY_A_REHEARSAL
from orchestra_lib.plan import Change, Verb
from orchestra_lib.settings import Settings
from orchestra_lib.target import source_database

PHASE = "03"
_SCHEMA = "orchestra_stream"
_THERE = """
SELECT 'slot on the source', slot_name::text FROM pg_replication_slots WHERE slot_name = %(slot)s
UNION ALL SELECT 'publication on the source', pubname::text FROM pg_publication WHERE pubname = %(publication)s
UNION ALL SELECT 'schema on the source', nspname::text FROM pg_namespace WHERE nspname = %(schema)s
UNION ALL SELECT 'role on the source', rolname::text FROM pg_roles WHERE rolname = ANY(%(roles)s)
"""
_DETAILS = {
    "slot on the source": "what it keeps of the log is given free; a later run copies anew",
    "publication on the source": "",
    "schema on the source": "the checkpoints of a stream back",
    "role on the source": "the rehearsal's writer",
    "rows on the source": "what a rehearsal's writer that was cut off has left",
}
_INDEX_PHASES = ("03", "08")


class SourceRelease:
    """The source of one environment. None of it is touched but what carries the stream's names."""

    def __init__(self, settings: Settings) -> None:
        self._environment = settings.environment.name
        stream = settings.memory.stream
        local = settings.environment.kind == "local"
        self._is_rehearsal = local and settings.memory.source.dsn is None
        roles = list(settings.memory.writers.source or ()) if self._is_rehearsal else []
        self._slot, self._publication, self._roles = stream.slot, stream.publication, roles
        self._table = sql.Identifier(*settings.memory.source.table.split("."))
        self._path = move_journal_path(self._environment, "cutover", local=local)
        self._swaps = [] if settings.memory.target.dsn else [swap_journal(settings, one) for one in _INDEX_PHASES]
        self._source = source_database(settings).address if local or settings.memory.source.dsn else None

    @property
    def journalled(self) -> int:
        """What is there: it is looked for by its names, no journal knows it."""
        return len(self._there())

    def check(self) -> Evidence:
        """What the source keeps for the stream has to be within reach, or it keeps its log for ever."""
        note = "" if self._source is not None else "memory.source.dsn is open: give it, the stream's slot is there"
        return yes_or_no("today's store is named", Source.OBSERVED, self._source is not None, note=note)

    def changes(self) -> tuple[Change, ...]:
        """What is there and would be taken away."""
        return tuple(Change(Verb.DELETE, kind, name, _DETAILS[kind]) for kind, name in self._there())

    def apply(self) -> int:
        """Stop the stream and take away what is there; returns how many things that were.

        Raises GateFailed when the application writes on the target.
        """
        if CutoverJournal(self._path).live() == "target":
            raise GateFailed("the application writes on the target: what it wrote since the cutover would be lost")
        stream_process.stop(self._environment)
        # What a later cutover or swap does is judged by its own target, not by the one that goes now.
        for path in (self._path, *self._swaps):
            if path.exists():
                path.rename(path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"))
        found = self._there()
        if self._source is not None and found:
            with connect(self._source, role="source") as session:
                drop_slot(session, self._slot)
                session.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self._publication)))
                session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_SCHEMA)))
                self._clear_rehearsal(session, [name for kind, name in found if kind == "role on the source"])
        return len(found)

    def evidence(self) -> tuple[Evidence, ...]:
        """Nothing of the stream may be left; what cannot be looked at is not claimed."""
        if self._source is None:
            note = "memory.source.dsn is open: drop the slot there by hand, or it keeps the log for ever"
            return (Evidence("things of the stream left on the source", Source.MISSING, None, "", note=note),)
        left = self._there()
        note = ", ".join(f"{kind} {name}" for kind, name in left)
        claim = "things of the stream left on the source"
        return (Evidence(claim, Source.OBSERVED, len(left), "", Bound("==", 0), note=note),)

    def _there(self) -> list[tuple[str, str]]:
        if self._source is None:
            return []
        names = {"slot": self._slot, "publication": self._publication, "schema": _SCHEMA, "roles": self._roles}
        with connect(self._source, role="source") as session:
            found: list[tuple[str, str]] = session.execute(_THERE, names).fetchall()
            rows = self._rehearsal_rows(session)
        return [*found, ("rows on the source", f"{rows:,} rows")] if rows else found

    def _rehearsal_rows(self, session: psycopg.Connection) -> int:
        there = session.execute("SELECT to_regclass(%s)", [self._table.as_string(session)]).fetchone() != (None,)
        if not self._is_rehearsal or not there:
            return 0
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._table, WRITTEN_BY_A_REHEARSAL)
        row = session.execute(statement).fetchone()
        return int(row[0]) if row else 0

    def _clear_rehearsal(self, session: psycopg.Connection, roles: list[str]) -> None:
        if self._rehearsal_rows(session):
            session.execute(sql.SQL("DELETE FROM {} WHERE {}").format(self._table, WRITTEN_BY_A_REHEARSAL))
        for role in roles:
            session.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
