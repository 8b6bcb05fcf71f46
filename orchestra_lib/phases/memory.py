"""The steps of runbook 03: take stock, provision, copy, index, stream, drill, cut over and back, measure."""

from __future__ import annotations

import plotly.graph_objects as go
import psycopg
from psycopg import sql

from orchestra_lib import stream_process
from orchestra_lib.database import connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory import initial_copy as initial
from orchestra_lib.memory.compare import compare_live
from orchestra_lib.memory.copy import CopiedRange, CopyResult, copy, exported_snapshot
from orchestra_lib.memory.initial_copy import initial_copy, standing
from orchestra_lib.memory.inventory import Inventory, inventory_checks, inventory_readings, take_inventory
from orchestra_lib.memory.layout import layout_of
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.verify import verify
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.memory_at_scale import both_ways, copied_by_pipeline
from orchestra_lib.phases.memory_cutover import CutoverSteps
from orchestra_lib.phases.memory_drills import DrillSteps
from orchestra_lib.phases.memory_index import IndexSteps
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.rehearsal import Corpus, build, seed_store
from orchestra_lib.runbook import Runbook
from orchestra_lib.vectors.goals import FEWEST_QUERIES
from orchestra_lib.vectors.index import LiveIndex, serving_index

_LOGICAL = "logical"


class MemoryPhase:
    """One run of the memory phase. Methods are called in the order of the runbook's cells and may be called again.

    A source that stands still (``live`` false) is copied and measured; the stream and everything after it is left out.
    """

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings.memory
        self._stores = Stores(run)
        self._corpus = self._rehearsal_store() if self._stores.source.is_rehearsal else None
        with connect(self._stores.source.address, role="source") as session:
            self._source = source_table(session, self._settings.source.table, self._settings.source.columns)
        self._load = RehearsalLoad(self._stores)
        self.index = IndexSteps(self._stores, self._corpus)
        self._drills = DrillSteps(self._stores)
        self.stream = StreamSteps(self._stores, self._load, self._corpus)
        self.cutover = CutoverSteps(self._stores, self._load, self.stream)
        self._inventory: Inventory | None = None
        self._copied: tuple[CopiedRange, ...] | None = None
        if stream_process.running(run.settings.environment.name) is not None:
            run.at_end(self.cutover.go_on)  # a drill stops it, and may be cut off
        self._drills.clear()
        self.cutover.recover()

    # --- check and plan -----------------------------------------------------------------------------------------------

    def inventory(self) -> Table:
        """Read the source once and show what it holds."""
        with self._run.step("inventory"), connect(self._stores.source.address, role="source") as session:
            self._inventory = take_inventory(session, self._source)
        rows = list(inventory_readings(self._inventory))
        if self._source.defaulted:
            rows.append(
                Evidence(
                    "columns that the source has nothing for",
                    Source.OBSERVED,
                    ", ".join(self._source.defaulted),
                    note="they get constants; map them with source_columns if the table has them under another name",
                )
            )
        return self._stores.show(rows, f"The source table {self._settings.source.table}")

    def checks(self) -> tuple[Evidence, ...]:
        """What must hold before anything is changed."""
        taken = self._taken_inventory()
        rows = list(inventory_checks(taken, self._settings.dimension))
        if self._corpus is None:
            enough = Bound(">=", FEWEST_QUERIES)
            rows.append(Evidence("rows to search with", Source.OBSERVED, taken.rows, "rows", enough))
        rows += self.cutover.checks()
        if self._settings.stream.live:
            rows += self._stream_checks()
        rows += self.index.checks(taken)
        rows += both_ways(self._run.settings, taken)
        if self._stores.cloud is not None:
            rows += self._stores.cloud.checks(self._stores.cloud.look())
        return tuple(rows)

    def plan(self) -> Plan:
        """What applying would change: AlloyDB, the target database, and the source's publication and slot."""
        cloud = self._stores.cloud.plan() if self._stores.cloud else Plan(())
        changes, live = self._database_plan()
        return Plan((*self.cutover.changes(), *cloud.changes, *changes), {**cloud.live_state, **live})

    # --- apply --------------------------------------------------------------------------------------------------------

    def provision(self) -> Table:
        """Make AlloyDB's cluster, instances and users, and our database in it."""
        if self._stores.cloud is None:
            row = Evidence("target", Source.OBSERVED, "a database of your own", note="nothing is provisioned for it")
            return self._stores.show((row,), "The target")
        table = self._stores.cloud.apply()
        with self._run.step("database"):
            self._stores.make_database()
        return table

    def provisioning(self) -> go.Figure | None:
        """When each change ran; None where nothing was changed."""
        cloud = self._stores.cloud
        return cloud.figure() if cloud and cloud.has_changed else None

    def start_load(self) -> Table:
        """Let the rehearsal's application write from now on, through everything that follows."""
        self._load.start()
        wanted = self._settings.load
        what = f"{wanted.writes_per_second:,} writes/s" if self._load.is_running and wanted else "the application's own"
        note = "inserts, updates and deletes, each in a ledger" if self._load.is_running else "no rehearsal's writer"
        return self._stores.show((Evidence("load on the source", Source.ASSUMED, what, note=note),), "The load")

    def copy(self) -> Table:
        """Make the table if it is missing and copy the rows; a copy that was cut off goes on."""
        with self._run.step("copy"):
            with connect(self._stores.target(), role="target") as target:
                target.execute("CREATE EXTENSION IF NOT EXISTS vector")
                target.execute(create_table(TARGET_TABLE, self._settings.dimension))
            rows = self._copy_live() if self._settings.stream.live else self._copy_still()
        return self._stores.show(rows, "The copy")

    def verify(self) -> Table:
        """Read the target back and compare it with what the source sent, range by range."""
        if self._copied is None:
            raise GateFailed("there is no copy to check yet: run the cell that copies first")
        if not self._copied:
            row = Evidence("the copy is older than this run", Source.OBSERVED, "compared while the stream runs")
            return self._stores.show((row,), "Source and target")
        progress, total = Progress("check", "rows"), sum(one.source.rows for one in self._copied)
        job = self._stores.move(self._stores.target()).copy_job()
        with self._run.step("check"):
            found = verify(job, self._copied, self._settings.copy_.workers, lambda done: progress(done, total))
        table = self._stores.show(found.evidence(), "Source and target compared")
        if found.differing_ranges:
            named = "; ".join(f"{row.id} is {row.kind}" for row in found.differences[:5])
            raise DataError(
                f"{len(found.differing_ranges)} of {found.ranges} key ranges differ from the source: {named}. "
                "Run the copy again: it sends those ranges anew"
            )
        return table

    def drill_point_in_time(self) -> Table:
        """Restore AlloyDB to a moment, and count."""
        return self._drills.point_in_time()

    def drill_switchover(self) -> Table:
        """Let the other region take over and give back."""
        return self._drills.switchover()

    def measure(self) -> Table:
        """The certificate of the index, and before (source) against after (target)."""
        return self.index.measure(self._source)

    def read_back(self) -> Table:
        """Everything once more: AlloyDB as wanted, the rows alike, the quarantine empty, the slot within its limit."""
        rows: list[Evidence] = []
        with self._run.step("read back"):
            if self._stores.cloud is not None:
                rows += self._stores.cloud.read_back()
            rows.append(self._alike_at_the_end())
            if self._settings.stream.live:
                rows += self.stream.standing()
        return self._stores.show(rows, "Read back")

    def leave(self) -> Table:
        """What stays: on Google Cloud the stream goes on beside today's store, a rehearsal's rests."""
        self._load.close()
        local = self._run.settings.environment.kind == "local"
        stopped = self.stream.stop() if local else False
        state = "rests; run this notebook again and it goes on" if stopped or local else "goes on"
        return self._stores.show((Evidence("the stream", Source.OBSERVED, state),), "What stays")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _rehearsal_store(self) -> Corpus:
        wanted = self._settings.corpus
        with self._run.step("rehearsal store"):
            progress = Progress("rehearsal store", "rows")
            progress.say("reading and embedding the standard library, a minute the first time")
            corpus = build(wanted.seed, wanted.queries, state_directory() / "corpus")
            address = str(self._stores.source.address)
            seeded = seed_store(address, corpus, wanted.rows, self._settings.source.lists, progress, progress.say)
            progress.say(str(seeded))
        self._run.note(str(seeded))
        return corpus

    def _stream_checks(self) -> list[Evidence]:
        """Whether the source's changes can be followed."""
        claim = "the source's changes can be followed"
        with connect(self._stores.source.address, role="source") as session:
            row = session.execute("SELECT current_setting('wal_level')").fetchone()
            level = row[0] if row else ""
            if level != _LOGICAL:
                remedy = "set wal_level = logical and restart it, or copy a store that stands still: live = False"
                return [yes_or_no(claim, Source.OBSERVED, False, note=f"its wal_level is {level}; {remedy}")]
            try:
                layout_of(session, self._source)
            except DataError as error:
                return [yes_or_no(claim, Source.OBSERVED, False, note=f"{error}; or live = False")]
        note = "wal_level is logical, and every change carries the id"
        return [yes_or_no(claim, Source.OBSERVED, level == _LOGICAL, note=note)]

    def _database_plan(self) -> tuple[tuple[Change, ...], dict[str, object]]:
        taken = self._taken_inventory()
        address = self._stores.target_now()
        rows: int | None = None
        present: LiveIndex | None = None
        place, left = "not there yet", None
        if address is not None:
            with connect(address, role="target") as target:
                rows = _rows_in(target, TARGET_TABLE)
                present = serving_index(target, sql.Identifier(TARGET_TABLE)) if rows is not None else None
                place = f"{target.info.host}:{target.info.port}/{target.info.dbname}"
            if self._settings.stream.live and rows is not None:
                left = standing(self._stores.move(address).copy_spec())
        changes = [
            Change(
                Verb.KEEP if rows is not None else Verb.CREATE, "table", TARGET_TABLE, "the memory table, 14 columns"
            ),
            self._rows_change(taken, rows, left),
            *self.index.changes(present),
        ]
        if self._settings.stream.live:
            changes += self._source_changes(left)
        live: dict[str, object] = {
            "environment": self._run.settings.environment.name,
            "target": place,
            "source_rows": taken.rows,
            "target_rows": rows,
            "index": present.name if present else None,
            "copy": left.state if left else None,
        }
        return tuple(changes), live

    def _rows_change(self, taken: Inventory, rows: int | None, left: initial.Standing | None) -> Change:
        if left is not None and left.state != initial.NEW:
            verb = Verb.KEEP if left.state == initial.DONE else Verb.UPDATE
            return Change(verb, "rows", TARGET_TABLE, f"goes on where it was: {left.reason}", rows, taken.rows)
        there = f"{rows:,} there now: key ranges that agree stay, all rows of the others are replaced" if rows else ""
        detail = f"{taken.rows:,} from the source{'; ' if there else ''}{there}"
        return Change(Verb.UPDATE if rows else Verb.CREATE, "rows", TARGET_TABLE, detail, rows, taken.rows)

    def _source_changes(self, left: initial.Standing | None) -> tuple[Change, ...]:
        there = left is not None and left.state != initial.NEW
        verb = Verb.KEEP if there else Verb.CREATE
        stream = self._settings.stream
        return (
            Change(verb, "publication on the source", stream.publication, f"of {self._settings.source.table} alone"),
            Change(verb, "slot on the source", stream.slot, "keeps the source's log for the stream, within its limit"),
        )

    def _copy_live(self) -> tuple[Evidence, ...]:
        progress = Progress("copy", "rows")
        move = self._stores.move(self._stores.target())
        by_pipeline = copied_by_pipeline(self._run.settings, move, self._taken_inventory())
        done = initial_copy(move.copy_spec(), progress)
        # Once the stream has run, the target is no longer what was copied: both are compared while it runs.
        self._copied = () if done.before.state == initial.DONE else done.ranges
        if done.before.state == initial.UNFINISHED:
            self._run.note(f"an earlier run was cut off in its copy: {done.before.reason}; the rest has been copied")
        begun = {initial.NEW: "begun", initial.UNFINISHED: "gone on with", initial.DONE: "found complete"}
        copied = Evidence("the copy was", Source.OBSERVED, begun[done.before.state], note=done.before.reason)
        rows = (*by_pipeline, copied)
        return rows if done.before.state == initial.DONE else (*rows, *self._copy_evidence(done.sent))

    def _copy_still(self) -> tuple[Evidence, ...]:
        progress, total = Progress("copy", "rows"), self._taken_inventory().rows
        job, wanted = self._stores.move(self._stores.target()).copy_job(), self._settings.copy_
        with connect(self._stores.source.address, role="source") as session:
            ranges = key_ranges(session, job.source, wanted.ranges)
            with exported_snapshot(session) as snapshot:
                done = copy(
                    job,
                    snapshot,
                    ranges,
                    wanted.workers,
                    lambda rows: progress(rows, total),
                    rows_per_second=wanted.rows_per_second,
                )
        self._copied = done.ranges
        return self._copy_evidence(done)

    def _copy_evidence(self, copied: CopyResult) -> tuple[Evidence, ...]:
        return (
            Evidence(
                "rows sent",
                Source.MEASURED,
                copied.rows,
                "rows",
                note=f"{copied.rows_kept:,} were there already, proven by their checksums",
            ),
            Evidence(
                "rate of the copy",
                Source.MEASURED,
                round(copied.rows_per_second),
                "rows/s",
                note=f"{copied.bytes / 2**20:,.0f} MiB in {copied.seconds:.1f} s, "
                f"{self._settings.copy_.workers} workers, snapshot at LSN {copied.lsn}",
            ),
        )

    def _alike_at_the_end(self) -> Evidence:
        """Both stores once more: what was compared before may have been changed since."""
        claim, none, workers = "rows that differ at the end of the run", Bound("==", 0), self._settings.copy_.workers
        if not self._settings.stream.live:
            self._stores.need(self._copied, "copy the rows")
            job = self._stores.move(self._stores.target()).copy_job()
            again = verify(job, self._copied or (), workers, lambda _: None)
            named = ", ".join(f"{row.id} is {row.kind}" for row in again.differences[:3])
            differing = len(again.differences) or len(again.differing_ranges)
            return Evidence(claim, Source.MEASURED, differing, "rows", none, note=named)
        source, target = self.stream.stores_compared()
        with connect(source.address, role="source") as session:
            cut = key_ranges(session, source.table, self._settings.copy_.ranges)
        found = compare_live(source, target, cut, workers, self.stream.wait_for, lambda _: None)
        told = [f"{row.id} is {row.kind}" for row in found.differences[:3]]
        if found.unsettled:
            told.append(f"{len(found.unsettled):,} were written all along and could not be judged: run this cell again")
        differing = len(found.differences) + len(found.unsettled)
        return Evidence(claim, Source.MEASURED, differing, "rows", none, note=", ".join(told))

    def _taken_inventory(self) -> Inventory:
        if self._inventory is None:
            raise GateFailed("the source was not read yet: run the cell that takes the inventory first")
        return self._inventory


def _rows_in(connection: psycopg.Connection, table: str) -> int | None:
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0
