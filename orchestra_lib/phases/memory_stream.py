"""The stream of runbook 03: started as a process of its own, timed while it catches up, asked beside the source."""

from __future__ import annotations

import time
from typing import Any

import plotly.graph_objects as go
from psycopg import sql

from orchestra_lib import settings, stream_process
from orchestra_lib.database import Address, connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.boxes import Box, message_box
from orchestra_lib.display.lag import LagPoint, lag_figure
from orchestra_lib.errors import DataError, GateFailed, OrchestraError, TargetUnreachable
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.compare import Store, compare_live
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.shadow import ShadowSide, index_opclass, shadow
from orchestra_lib.memory.slot import mark, slot_state
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.move import STREAM, TARGET_TABLE
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.queries import corpus_queries, sampled_queries
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.secret import Secret
from orchestra_lib.settings.overrides import OVERRIDES
from orchestra_lib.validation.commands import command
from orchestra_lib.vectors.forms import EXACT, Effort
from orchestra_lib.vectors.index import serving_index
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.search import Searchable

CATCH_UP_RATE = "rows applied a second while catching up"
PILED_ROWS = 4_000
_ENOUGH_TO_TIME = 2_000
_FRESH_SECONDS = 0.1
"""What a change may take beyond the debounce: the freshness that is promised."""
_CATCH_UP_SECONDS = 600.0
_SETTLE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_PASSED_ON = ("memory.source.", "memory.sync.")


class StreamSteps:
    """The stream from the source to the target, in the order of the runbook's cells."""

    def __init__(self, stores: Stores, load: RehearsalLoad, corpus: Corpus | None) -> None:
        self._stores, self._load, self._corpus = stores, load, corpus
        self._settings, self._run = stores.memory, stores.run
        self._environment = stores.settings.environment.name
        self._points: list[LagPoint] = []
        self._started: StreamStatus | None = None

    def start(self) -> Table | Box:
        """Start the stream's process, or find it running; in a rehearsal with a backlog to catch up with."""
        if not self._settings.stream.live:
            return self._left_out()
        was_there = stream_process.running(self._environment) is not None
        with self._run.step("stream"):
            written, piled = self._backlog() if self._load.is_wanted and not was_there else (0, 0)
            found = stream_process.start(self._environment, self._overrides())
            self._points, self._started = [], found.status
        how = "found running" if was_there else "started; it goes on when this kernel ends"
        note = f"{how}; {written:,} writes were acknowledged since the load began" if written else how
        note = f"{note}; {piled:,} rows were piled up for it to catch up with" if piled else note
        return self._stores.show(
            (Evidence("process of the stream", Source.OBSERVED, found.pid, "", note=note),), "The stream"
        )

    def go_on(self) -> None:
        """Start the stream's process again, unless it runs."""
        stream_process.start(self._environment, self._overrides())

    def resume(self) -> None:
        """As :meth:`go_on`, after something else has failed: that is what is raised, a stream that stays out is noted.

        The note says what to do, for the slot keeps the log meanwhile.
        """
        try:
            self.go_on()
        except OrchestraError as error:
            remedy = command("stream run", self._environment)
            self._run.note(f"the stream does not go on: {error}; until {remedy} its slot keeps the log")

    def catch_up(self) -> Table | Box:
        """Wait until the stream has brought what was written before; then watch it keep up for a while."""
        if not self._settings.stream.live:
            return self._left_out()
        with self._run.step("catch up"):
            rows = self._timed()
            rows += self._watched()
        return self._stores.show((*rows, *self.standing()), "Catching up and keeping up")

    def figure(self) -> go.Figure | Box:
        """How far behind it was, and what it applied, over time."""
        if not self._settings.stream.live:
            return self._left_out()
        if not self._points:
            raise GateFailed("nothing was watched yet: run the cell that catches up first")
        host, sync = self._run.record.host, self._settings.sync
        subject = (
            f"{sync.debounce_seconds} s or {sync.batch_size} changes a batch, {sync.connections} sessions · "
            f"{host['cores']} cores, {host['cpu']}"
        )
        return lag_figure(self._points, self._run.settings.targets.sync_records_per_second, subject)

    def compare(self) -> Table | Box:
        """Compare every row of both stores while the stream runs."""
        if not self._settings.stream.live:
            return self._left_out()
        progress = Progress("compare", "rows")
        source, target = self.stores_compared()
        with self._run.step("compare live"):
            with connect(source.address, role="source") as session:
                ranges = key_ranges(session, source.table, self._settings.copy_.ranges)
                row = session.execute(sql.SQL("SELECT count(*) FROM {}").format(source.table.table)).fetchone()
            total = row[0] if row else 0
            found = compare_live(
                source,
                target,
                ranges,
                self._settings.copy_.workers,
                self.wait_for,
                lambda done: progress(done, max(done, total)),
            )
        table = self._stores.show(found.evidence(), "Both stores compared while they are written to")
        if found.differences:
            raise DataError(
                f"{len(found.differences)} rows differ and stay so, such as {found.differences[0].id}; look at the "
                "quarantine, then compare again"
            )
        return table

    def shadow(self) -> Table | Box:
        """Ask both stores the same questions and explain every difference."""
        if not self._settings.stream.live:
            return self._left_out()
        source, target = self.stores_compared()
        sides = [self._side(store) for store in (source, target)]
        progress = Progress("shadow reads", "queries")
        with self._run.step("shadow"):
            queries = self._queries(target.address)
            found = shadow(sides[0], sides[1], queries, self.wait_for, lambda done: progress(done, len(queries)))
        return self._stores.show(found.evidence(), "The same questions to both stores")

    def stop(self) -> bool:
        """Stop the stream's process; the slot keeps what comes meanwhile. Returns whether one ran."""
        return stream_process.stop(self._environment)

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Whether the stream has brought everything before ``lsn``, once waited for."""
        return stream_process.wait_for(self._environment, lsn, timeout_seconds)

    def drain(self) -> None:
        """Return once everything that is committed on the source now is on the target. Raises TargetUnreachable."""
        with connect(self._stores.source.address, role="source") as session:
            lsn = mark(session)
        if not self.wait_for(lsn, _CATCH_UP_SECONDS):
            raise TargetUnreachable(f"the stream did not catch up within {_CATCH_UP_SECONDS:.0f} s: look at its lag")

    def stores_compared(self) -> tuple[Store, Store]:
        """Both sides, as comparisons want them."""
        address, store = self._stores.target(), self._settings.source
        with connect(self._stores.source.address, role="source") as session:
            theirs = source_table(session, store.table, store.columns)
        with connect(address, role="target") as session:
            ours = source_table(session, TARGET_TABLE, {})
        return Store("source", self._stores.source.address, theirs), Store("target", address, ours)

    def _left_out(self) -> Box:
        return message_box("The store stands still (live = False): nothing is streamed, and this step is left out.")

    def _backlog(self) -> tuple[int, int]:
        """Enough for the stream to be timed on: what the writer has written so far, and piled up what lacks."""
        written = self._load.acknowledged()
        return written, self._load.pile_up(PILED_ROWS - written) if written < PILED_ROWS else 0

    def _timed(self) -> list[Evidence]:
        """Watch until what is written by now has come; the rate if there was enough of it."""
        progress = Progress("catch up", "rows")
        with connect(self._stores.source.address, role="source") as session:
            lsn = mark(session)
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while (now := self._status()).applied_lsn < lsn:
            if time.monotonic() > deadline:
                raise TargetUnreachable(f"the stream is still behind after {_CATCH_UP_SECONDS:.0f} s: {now.sentence()}")
            self._note(now)
            progress.say(now.sentence())
            time.sleep(_PAUSE_SECONDS)
        self._note(now)
        progress.say(now.sentence())
        began = self._started or now
        rows, seconds = now.rows_applied - began.rows_applied, now.at - began.at
        if rows < _ENOUGH_TO_TIME or seconds <= 0:
            note = f"{rows:,} rows were to be caught up with: too few to time"
            return [Evidence(CATCH_UP_RATE, Source.MEASURED, None, "rows/s", note=note)]
        return [self._rate(rows, seconds)]

    @property
    def _is_rehearsal(self) -> bool:
        return self._run.settings.environment.kind == "local"

    def _rate(self, rows: int, seconds: float) -> Evidence:
        """The rate against its target; a reading in a rehearsal, and where another index than its own was asked for.

        Every insert reads every list's centroid, so the target is one of the environment's own index; and a rehearsal
        shares its cores with both databases and the writer, which no target speaks of.
        """
        asked, target = self._settings.index.lists, self._run.settings.targets.sync_records_per_second
        own = settings.load(self._environment).memory.index.lists
        is_own = asked is None or (own is not None and asked <= own)
        rate = round(rows / seconds)
        note = f"{rows:,} rows in {seconds:.1f} s, into {self._index_now()}"
        if is_own and not self._is_rehearsal:
            return Evidence(CATCH_UP_RATE, Source.MEASURED, rate, "rows/s", Bound(">=", target), note=note)
        if rate < target and not is_own and asked is not None:
            fewer = f" With {own:,} lists it reads {own:,}." if own else ""
            self._run.note(
                f"With {asked:,} lists the stream applies {rate:,} rows a second here, less than the {target:,.0f} "
                f"that are wanted: every insert first reads {asked:,} centroid pages.{fewer} A machine with more cores "
                "applies over more connections."
            )
        wanted = f"{target:,.0f} are wanted on Google Cloud, of {f'{own:,} lists' if own else 'the index chosen there'}"
        return Evidence(CATCH_UP_RATE, Source.MEASURED, rate, "rows/s", note=f"{note}; {wanted}")

    def _index_now(self) -> str:
        """What the rows go into, in words."""
        with connect(self._stores.target(), role="target") as session:
            index = serving_index(session, sql.Identifier(TARGET_TABLE))
        return f"an index, {index.form.label}" if index else "a table without an index"

    def _watched(self) -> list[Evidence]:
        """Watch the stream keep up with what is written; how fresh the target is."""
        wanted = self._settings.load
        if not self._load.is_running or wanted is None:
            return []
        limit = self._settings.sync.debounce_seconds + _FRESH_SECONDS
        # What was written while it caught up is still on its way, and says nothing of how it keeps up.
        settled = time.monotonic() + _SETTLE_SECONDS
        while (now := self._status()).lag_seconds > limit and time.monotonic() < settled:
            self._note(now)
            time.sleep(_PAUSE_SECONDS)
        ends = time.monotonic() + wanted.seconds
        while time.monotonic() < ends:
            now = self._status()
            self._note(now)
            time.sleep(_PAUSE_SECONDS)
        note = f"of the last five seconds, {wanted.writes_per_second:,} writes a second; at most {limit:g} s are wanted"
        freshness = (
            ("p50", now.freshness_p50, None),
            ("p95", now.freshness_p95, limit),
            ("p99", now.freshness_p99, None),
        )
        return [
            Evidence(
                f"{name} from the commit on the source to the commit on the target",
                Source.MEASURED,
                None if value is None else round(value, 3),
                "s",
                None if bound is None or self._is_rehearsal else Bound("<=", round(bound, 3)),
                note=note,
            )
            for name, value, bound in freshness
        ]

    def standing(self) -> list[Evidence]:
        """What the slot keeps, and what lies in quarantine."""
        stream = self._settings.stream
        with connect(self._stores.source.address, role="source") as session:
            slot = slot_state(session, stream.slot)
        with connect(self._stores.target(), role="target") as session:
            aside = state_tables.unresolved(session, STREAM)
        rows = [Evidence("changes in quarantine", Source.OBSERVED, aside, "rows", Bound("==", 0))]
        if slot is not None:
            rows.append(slot.evidence(stream.slot_alert_ratio))
        return rows

    def _status(self) -> StreamStatus:
        found = stream_process.report(self._environment)
        if found is None or not found.is_running:
            raise TargetUnreachable(f"the stream does not run: {(found and found.ended) or 'it was never started'}")
        return found.status

    def _note(self, status: StreamStatus) -> None:
        began = self._started or status
        moment = status.at - began.at
        if not self._points or moment > self._points[-1].seconds:
            self._points.append(LagPoint(moment, status.lag_bytes, status.lag_seconds, status.rows_per_second))

    def _side(self, store: Store) -> ShadowSide:
        wanted = self._settings
        with connect(store.address, role=store.role) as session:
            opclass = index_opclass(session, store.table.table, store.table.embedding_column) or wanted.index.opclass
            present = serving_index(session, store.table.table, store.table.embedding_column)
        form = present.form if present else EXACT
        probes = wanted.index.probes if store.role == "target" else None
        searchable = Searchable(
            store.table.table,
            opclass,
            wanted.search.k,
            form,
            store.table.id_column,
            store.table.embedding_column,
            wanted.dimension,
        )
        return ShadowSide(store, searchable, Effort(probes) if probes else form.usual_effort(wanted.search.k))

    def _queries(self, address: Address) -> Matrix:
        count = self._settings.shadow.queries
        if self._corpus is not None:
            return corpus_queries(self._corpus)[0][:count]
        with connect(address, role="target") as session:
            return sampled_queries(session, sql.Identifier(TARGET_TABLE), count, self._settings.dimension)[1]

    def _overrides(self) -> dict[str, Any]:
        """The parameters of this run that the stream depends on, as its process takes them."""
        given: dict[str, Any] = {}
        for name, place in OVERRIDES["03_memory"].items():
            if place.startswith(_PASSED_ON):
                value: Any = self._run.settings
                for part in place.split("."):
                    value = getattr(value, part)
                given[name] = value.reveal() if isinstance(value, Secret) else value
        return given
