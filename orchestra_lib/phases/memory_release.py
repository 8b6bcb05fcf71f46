"""What runbook 03 has put on today's store, taken away again: the stream's slot, its publication, its tables."""

from __future__ import annotations

from datetime import UTC, datetime

from psycopg import sql

from orchestra_lib import stream_process
from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.slot import drop_slot
from orchestra_lib.paths import move_journal_path
from orchestra_lib.plan import Change, Verb
from orchestra_lib.settings import Settings
from orchestra_lib.target import source_database

PHASE = "03"
_SCHEMA = "orchestra_stream"
_THERE = """
SELECT 'slot on the source', slot_name::text FROM pg_replication_slots WHERE slot_name = %(slot)s
UNION ALL SELECT 'publication on the source', pubname::text FROM pg_publication WHERE pubname = %(publication)s
UNION ALL SELECT 'schema on the source', nspname::text FROM pg_namespace WHERE nspname = %(schema)s
"""
_DETAILS = {
    "slot on the source": "what it keeps of the log is given free; a later run copies anew",
    "publication on the source": "",
    "schema on the source": "the checkpoints of a stream back",
}


class SourceRelease:
    """The source of one environment. None of it is touched but what carries the stream's names."""

    def __init__(self, settings: Settings) -> None:
        self._environment = settings.environment.name
        stream = settings.memory.stream
        self._names = {"slot": stream.slot, "publication": stream.publication, "schema": _SCHEMA}
        local = settings.environment.kind == "local"
        self._path = move_journal_path(self._environment, "cutover", local=local)
        self._journal = CutoverJournal(self._path)
        self._source = source_database(settings).address if local or settings.memory.source.dsn else None

    @property
    def journalled(self) -> int:
        """Changes that a journal of its own knows: what is there is looked for by its names instead."""
        return 0

    def check(self) -> Evidence:
        """Data that was written since a cutover must not go with the target that holds it."""
        home = self._journal.live() != "target"
        note = "" if home else "bring the writers back first, with 03_memory: what they wrote since would be lost"
        return yes_or_no("the application writes on the source", Source.OBSERVED, home, note=note)

    def changes(self) -> tuple[Change, ...]:
        """What is there and would be taken away."""
        return tuple(Change(Verb.DELETE, kind, name, _DETAILS[kind]) for kind, name in self._there())

    def apply(self) -> int:
        """Stop the stream and take away what is there; returns how many things that were.

        Raises GateFailed when the application writes on the target.
        """
        if self._journal.live() == "target":
            raise GateFailed("the application writes on the target: what it wrote since the cutover would be lost")
        stream_process.stop(self._environment)
        # What a later cutover does is judged by its own target, not by the one that goes now.
        if self._path.exists():
            self._path.rename(self._path.with_suffix(f".{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"))
        found = self._there()
        if self._source is not None and found:
            with connect(self._source, role="source") as session:
                drop_slot(session, self._names["slot"])
                session.execute(
                    sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self._names["publication"]))
                )
                session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_SCHEMA)))
        return len(found)

    def evidence(self) -> Evidence:
        """Nothing of the stream may be left; what cannot be looked at is not claimed."""
        if self._source is None:
            note = "memory.source.dsn is open: drop the slot there by hand, or it keeps the log for ever"
            return Evidence("things of the stream left on the source", Source.MISSING, None, "", note=note)
        left = self._there()
        note = ", ".join(f"{kind} {name}" for kind, name in left)
        return Evidence(
            "things of the stream left on the source", Source.OBSERVED, len(left), "", Bound("==", 0), note=note
        )

    def _there(self) -> list[tuple[str, str]]:
        if self._source is None:
            return []
        with connect(self._source, role="source") as session:
            return session.execute(_THERE, self._names).fetchall()
