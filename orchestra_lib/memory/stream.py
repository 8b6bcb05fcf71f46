"""The stream: changes of the source, read from its replication slot, gathered for a moment, and applied to the target.

One thread reads and gathers the next batch while the partitions apply the one before. Nothing is confirmed to the
source before it is committed on the target together with its checkpoint, so a crash anywhere is followed by a replay,
and a replay changes nothing. While the target is away nothing is read: the slot keeps it.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import LockHeld, TargetUnreachable
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.apply import Applied, Applier
from orchestra_lib.memory.breaker import Breaker
from orchestra_lib.memory.confirming import Confirming
from orchestra_lib.memory.gathering import Gathering
from orchestra_lib.memory.hold import Hold
from orchestra_lib.memory.layout import Layout, layout_of
from orchestra_lib.memory.partitions import Batch, Partitions, Stopped
from orchestra_lib.memory.replication import Keepalive, ReplicationSession
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.memory.stream_errors import SlotBusy, StreamBroken
from orchestra_lib.memory.stream_status import Freshness, Rate, SourceClock, StreamStatus
from orchestra_lib.memory.transactions import Change, Committed, Event, Idle, Transactions, Truncated

_APPLICATION = "orchestra stream"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0
_CONFIRM_SECONDS = 1.0
"""At least as often the source hears of us; it gives a silent reader up after wal_sender_timeout, 60 s by default."""
_IDLE_SECONDS = 0.1
"""How long it sleeps when nothing comes: so long a stop may go unnoticed."""
_MESSAGES_AT_ONCE = 512
_BATCHES_READY = 3
"""So many wait while one is being applied: otherwise the source and the reader stand still at the end of each."""
OnApplied = Callable[[Collection[bytes] | None, int], None]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Tuning:
    """How changes are gathered and applied. ``silence_seconds``: a source that says nothing for as long is gone;
    ``apply_seconds``: a target that does not finish a batch in that time is cut off; ``busy_seconds``: how long a slot
    may be in the hands of another process (our own that died, whose session the source has not given up yet).
    """

    debounce_seconds: float = 0.1
    batch_size: int = 500
    connections: int = 2
    failure_threshold: int = 5
    recovery_seconds: float = 10.0
    slow_seconds: float = 5.0
    silence_seconds: float = 30.0
    apply_seconds: float = 60.0
    busy_seconds: float = 60.0


@dataclass(frozen=True)
class StreamSpec:
    """Which stream: from the source's slot to the target's table. Connection strings are used, never shown."""

    name: str
    source: Address
    source_table: SourceTable
    target: Address
    target_table: sql.Identifier
    slot: str
    publication: str
    tuning: Tuning = field(default_factory=Tuning)


class Stream:
    """One mover. :meth:`run` reads until it is told to stop; :meth:`status` may be asked from any thread.

    ``applied`` is called, in the reading thread, for each batch that has been committed: with its keys, None when it
    emptied the table, and with the position of the last commit that changed something in it.
    """

    def __init__(self, spec: StreamSpec, applied: OnApplied = lambda _keys, _lsn: None) -> None:
        self._spec, self._applied = spec, applied
        self._clock, self._freshness, self._rate = SourceClock(), Freshness(), Rate()
        self._state, self._trouble = "starting", ""
        self._received = self._confirmed = self._written = 0
        self._rows = self._batches = self._stale = self._quarantined = self._reconnects = 0
        self._breaker_opened = 0
        tuning = spec.tuning
        self._breaker = Breaker(
            tuning.failure_threshold, tuning.recovery_seconds, tuning.slow_seconds, self._breaker_changed
        )
        self._flight: _Flight | None = None
        self._gathering = Gathering([0] * tuning.connections)
        self._ready: deque[Batch] = deque()
        self._changed = threading.Condition()

    def run(self, stop: threading.Event) -> None:
        """Stream until ``stop`` is set.

        Raises SlotLost, SlotBusy, SchemaChanged, Superseded, DataError: what no waiting heals. A source or a target
        that cannot be reached is waited for.
        """
        try:
            with ExitStack() as stack:
                layout = self._look_at_source(stop)
                hold = Hold(self._spec.target, self._spec.name, _APPLICATION)
                stack.callback(hold.release)
                spool = Path(stack.enter_context(TemporaryDirectory(prefix="orchestra-stream-")))
                waker = stack.enter_context(closing(_Waker()))
                tuning = self._spec.tuning
                confirming = Confirming(hold, tuning.busy_seconds, tuning.apply_seconds, self._tell)
                stack.callback(confirming.close)
                partitions = stack.enter_context(self._partitions(hold, confirming, layout, stop))
                # Left last, so that a batch under way is told to give up before anybody waits for it.
                conductor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="batch"))
                stack.callback(stop.set)
                self._confirmed = max(min(partitions.checkpoints), confirming.position)
                self._read_for_ever(_Run(layout, partitions, confirming, spool, stop, waker, conductor))
        except Stopped:
            pass
        except Exception as error:
            self._trouble = str(error)
            raise
        finally:
            self._become("stopped", self._trouble)

    def status(self) -> StreamStatus:
        """How it stands now."""
        p50, p95, p99 = self._freshness.quantiles((0.5, 0.95, 0.99))
        flight = self._flight
        batches = ((flight.batch,) if flight else ()) + tuple(self._ready)
        waiting = sum(batch.changes for batch in batches) + self._gathering.changes
        oldest = next(chain(*(batch.commit_times for batch in batches), self._gathering.commit_times), None)
        now = self._clock.now()
        return StreamStatus(
            state=self._state,
            received_lsn=self._received,
            applied_lsn=self._confirmed,
            lag_bytes=max(0, self._written - self._confirmed),
            lag_rows=waiting,
            lag_seconds=max(0.0, now - oldest) if waiting and oldest and now else 0.0,
            rows_applied=self._rows,
            rows_per_second=self._rate.now(),
            batches=self._batches,
            stale=self._stale,
            quarantined=self._quarantined,
            breaker=self._breaker.state,
            breaker_opened=self._breaker_opened,
            reconnects=self._reconnects,
            freshness_p50=p50,
            freshness_p95=p95,
            freshness_p99=p99,
            trouble=self._trouble,
            at=time.time(),
        )

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Return whether everything before ``lsn`` is on the target, waiting for it if need be."""
        with self._changed:
            self._changed.wait_for(lambda: self._confirmed >= lsn or self._state == "stopped", timeout_seconds)
            return self._confirmed >= lsn

    # --- opening ------------------------------------------------------------------------------------------------------

    def _look_at_source(self, stop: threading.Event) -> Layout:
        def look() -> Layout:
            with connect(self._spec.source, role="source") as source:
                return layout_of(source, self._spec.source_table)

        return self._patiently(look, stop)

    @contextmanager
    def _partitions(
        self, hold: Hold, confirming: Confirming, layout: Layout, stop: threading.Event
    ) -> Iterator[Partitions]:
        spec, tuning = self._spec, self._spec.tuning
        numbers = range(tuning.connections)
        appliers = [Applier(spec.target, spec.name, number, layout, spec.target_table) for number in numbers]
        partitions = Partitions(appliers, self._breaker, tuning.apply_seconds, stop, self._tell, hold.again)

        def open_all() -> None:
            session = hold.again()
            state_tables.create(session)  # an earlier version's tables may lack a column
            state_tables.prepare_checkpoints(session, spec.name, tuning.connections)
            confirming.begin(session, spec.name)
            self._quarantined = state_tables.unresolved(session, spec.name)
            partitions.open()

        try:
            self._patiently(open_all, stop)
            yield partitions
        finally:
            partitions.close()

    def _patiently(self, work: Callable[[], _Result], stop: threading.Event) -> _Result:
        """Call ``work`` until it succeeds. A lock whose holder has just died is free soon; another one is not."""
        pause, began = _FIRST_PAUSE_SECONDS, time.monotonic()
        while True:
            try:
                return work()
            except LockHeld as error:
                if time.monotonic() - began > self._spec.tuning.busy_seconds:
                    raise
                self._become("waiting", str(error))
            except (TargetUnreachable, psycopg.OperationalError) as error:
                self._become("waiting", str(error))
            if stop.wait(pause):
                raise Stopped
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read_for_ever(self, run: _Run) -> None:
        pause = _FIRST_PAUSE_SECONDS
        busy_since: float | None = None
        while not run.stop.is_set():
            try:
                with self._reading(run) as reading:
                    pause, busy_since = _FIRST_PAUSE_SECONDS, None
                    self._pump(run, reading)
            except SlotBusy as error:
                busy_since = busy_since or time.monotonic()
                if time.monotonic() - busy_since > self._spec.tuning.busy_seconds:
                    raise
                self._become("waiting", str(error))
            except (StreamBroken, TargetUnreachable) as error:
                self._reconnects += 1
                self._become("waiting", str(error))
            self._land(wait=True)
            if run.stop.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @contextmanager
    def _reading(self, run: _Run) -> Iterator[_Reading]:
        """The slot, read from the checkpoint on. What was gathered before is forgotten: it comes again."""
        spec = self._spec
        self._gathering = Gathering(run.partitions.checkpoints)
        self._ready.clear()
        run.partitions.expect_replay()
        with (
            ReplicationSession.open(spec.source, role="source") as session,
            Transactions(run.spool) as transactions,
        ):
            try:
                run.confirming.require_no_gap(spec.slot, session.confirmed_lsn(spec.slot))
            except LockHeld as error:  # by a mover that reads the slot next, or has just died: as good as a busy slot
                raise SlotBusy(str(error)) from error
            session.start(spec.slot, spec.publication, max(self._confirmed, min(run.partitions.checkpoints)))
            self._become("streaming")
            yield _Reading(session, transactions)

    def _pump(self, run: _Run, reading: _Reading) -> None:
        tuning, confirming = self._spec.tuning, run.confirming
        told, heard = 0, time.monotonic()
        told_at = heard
        while not run.stop.is_set():
            came, is_drained = self._take(run, reading)
            now = time.monotonic()
            if came or self._has_no_room():
                heard = now
            self._land()
            confirming.step(self._confirmed)
            if confirming.position > told or reading.reply_wanted or now - told_at > _CONFIRM_SECONDS:
                told, told_at = confirming.position, now
                reading.session.confirm(told, want_reply=now - heard > tuning.silence_seconds / 3)
                reading.reply_wanted = False
            self._launch(run)
            if now - heard > tuning.silence_seconds:
                raise StreamBroken(f"the source has said nothing for {now - heard:.0f} s, not even when asked")
            if is_drained or self._has_no_room():
                self._wait(run, reading)
        confirming.finish(self._confirmed)
        reading.session.confirm(confirming.position)

    def _take(self, run: _Run, reading: _Reading) -> tuple[int, bool]:
        """Take what has come and has room; returns how many messages that were, and whether those were all.

        A large transaction comes all at once, at its commit: what has no room of it waits for the next call.
        """
        taken = 0
        while taken < _MESSAGES_AT_ONCE and not self._has_no_room():
            event = next(reading.events, None)
            if event is not None:
                self._gather(run, event)
                continue
            received = reading.session.receive()
            if received is None:
                return taken, True
            taken += 1
            self._clock.hear(received.sent_at)
            self._written = max(self._written, received.end_lsn)
            if isinstance(received, Keepalive):
                reading.reply_wanted |= received.reply_wanted
            reading.events = reading.transactions.take(received)
        return taken, False

    def _gather(self, run: _Run, event: Event) -> None:
        gathering, batch_size = self._gathering, self._spec.tuning.batch_size
        match event:
            case Change():
                run.layout.check(event.relation)
                gathering.add(event, run.layout)
                if gathering.changes >= 2 * batch_size:  # a transaction that does not end soon
                    self._ready.append(gathering.take())
            case Truncated():
                for relation in event.relations:
                    run.layout.check(relation)
                gathering.truncate(event)
            case Committed():
                self._received = event.end_lsn
                gathering.commit(event)
                if gathering.changes >= batch_size:
                    self._ready.append(gathering.take())
                self._confirm_if_idle(event.end_lsn)
            case Idle():
                self._received = event.lsn
                self._confirm_if_idle(event.lsn)

    def _confirm_if_idle(self, lsn: int) -> None:
        if self._gathering.is_empty and not self._ready and self._flight is None:
            self._confirm(lsn)

    def _has_no_room(self) -> bool:
        return len(self._ready) >= _BATCHES_READY or self._gathering.barrier is not None

    def _wait(self, run: _Run, reading: _Reading) -> None:
        """Sleep until something has come, a batch has landed, or one is due."""
        due = self._gathering.due_at(self._spec.tuning.debounce_seconds)
        seconds = _IDLE_SECONDS if due is None or self._flight else due - time.monotonic()
        if self._has_no_room():
            run.waker.wait(seconds)
        else:
            reading.session.wait(max(0.0, seconds), run.waker.fileno())
        run.waker.clear()

    # --- applying -----------------------------------------------------------------------------------------------------

    def _launch(self, run: _Run) -> None:
        """Hand a batch that is due to the partitions, if they have none."""
        if self._flight is not None:
            return
        gathering = self._gathering
        if not self._ready and gathering.changes:
            due = gathering.due_at(self._spec.tuning.debounce_seconds)
            if gathering.barrier is not None or (due is not None and due <= time.monotonic()):
                self._ready.append(gathering.take())
        if self._ready:
            batch = self._ready.popleft()
            self._flight = run.send(batch, lambda: run.partitions.apply(batch))
        elif gathering.barrier is not None:
            barrier = gathering.take_barrier()
            alone = Batch.alone(barrier)
            self._flight = run.send(alone, lambda: run.partitions.apply_barrier(barrier))

    def _land(self, *, wait: bool = False) -> bool:
        """Take note of a batch that has been applied; returns whether one was. Raises what ended it for good."""
        flight = self._flight
        if flight is None or not (wait or flight.future.done()):
            return False
        results = flight.future.result()
        self._flight = None
        self._batches += 1
        for result in results:
            self._rows += result.rows
            self._stale += result.stale
            self._quarantined += result.quarantined
        self._rate.add(sum(result.rows for result in results))
        now = self._clock.now()
        if now is not None:
            self._freshness.add([max(0.0, now - moment) for moment in flight.batch.commit_times])
        self._applied(flight.batch.keys(), flight.batch.last_lsn)
        if flight.batch.end_lsn is not None:
            self._confirm(flight.batch.end_lsn)
        return True

    def _confirm(self, lsn: int) -> None:
        with self._changed:
            self._confirmed = max(self._confirmed, lsn)
            self._changed.notify_all()

    def _become(self, state: str, trouble: str = "") -> None:
        with self._changed:
            self._state, self._trouble = state, trouble
            self._changed.notify_all()

    def _tell(self, trouble: str) -> None:
        self._trouble = trouble

    def _breaker_changed(self, state: str) -> None:
        self._breaker_opened += state == "open"


class _Waker:
    """Wakes the reading thread when a batch has landed: a pipe, because it sleeps in select."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor that can be read once somebody has called."""
        return self._read

    def wake(self) -> None:
        """Call; a full pipe says the same."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def wait(self, seconds: float) -> None:
        """Sleep until called, at most that long."""
        select.select([self._read], [], [], max(0.0, seconds))

    def clear(self) -> None:
        """Forget the calls so far."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self._write)


@dataclass(frozen=True)
class _Flight:
    """A batch that is being applied."""

    batch: Batch
    future: Future[list[Applied]]


@dataclass
class _Run:
    """What lasts for as long as a stream runs."""

    layout: Layout
    partitions: Partitions
    confirming: Confirming
    spool: Path
    stop: threading.Event
    waker: _Waker
    conductor: ThreadPoolExecutor

    def send(self, batch: Batch, work: Callable[[], list[Applied]]) -> _Flight:
        """Begin to apply."""
        future = self.conductor.submit(work)
        future.add_done_callback(lambda _: self.waker.wake())
        return _Flight(batch, future)


@dataclass
class _Reading:
    """What lasts for as long as one connection to the source."""

    session: ReplicationSession
    transactions: Transactions
    events: Iterator[Event] = field(default_factory=lambda: iter(()))
    reply_wanted: bool = False
