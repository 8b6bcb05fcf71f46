"""The cutover of runbook 03, there and back, and the judge of what became of every acknowledged write.

While it lasts the stream runs in this process, so that the cutover knows which rows it has just applied. Afterwards it
goes on as a process of its own; outside a rehearsal whatever became of the cutover, for its slot keeps the log.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from orchestra_lib.cloud import secret_values
from orchestra_lib.cloud.client import Client
from orchestra_lib.database import connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.errors import GateFailed, ParameterError, TargetUnreachable
from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.memory.cutover import Cutover, Rules
from orchestra_lib.memory.cutover_journal import CutoverJournal, Purpose
from orchestra_lib.memory.running_stream import RunningStream
from orchestra_lib.memory.sides import Direction, Side
from orchestra_lib.memory.slot import mark
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream import StreamSpec
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.memory.touched import Touched
from orchestra_lib.memory_target import api_user, writers
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.plan import Change, Verb
from orchestra_lib.validation.commands import command

SOURCE, TARGET = "source", "target"
_CATCH_UP_SECONDS = 120.0
_CLOSE_SECONDS = 1.0


class CutoverSteps:
    """One cutover and one return in a run; what a killed one has left is undone or completed by the next run."""

    def __init__(self, stores: Stores, load: RehearsalLoad, stream: StreamSteps) -> None:
        self._stores, self._load, self._stream = stores, load, stream
        self._settings, self._run = stores.memory, stores.run
        self._path = stores.journal("cutover")
        self._running: RunningStream | None = None
        self._touched = Touched()
        self._stack = ExitStack()
        self._writers_addresses: dict[str, str] = {}
        self._run.at_end(self._abandon)

    @property
    def live(self) -> str:
        """Which side the writers write on: ``source`` or ``target``."""
        return self._journal.live() or SOURCE

    @property
    def _journal(self) -> CutoverJournal:
        """As it is now: each cutover writes through a journal of its own."""
        return CutoverJournal(self._path)

    @property
    def _returns_first(self) -> bool:
        """Whether a run that applies brings the writers back before all else.

        A drill that was cut off has left them on the target; in a rehearsal whoever has, 07 too.
        """
        last = self._journal.last_done()
        if last is None or last.there != TARGET or not self._settings.drills.cutover:
            return False
        return self._run.rehearsal or last.purpose is Purpose.DRILL

    @property
    def _only_plans(self) -> bool:
        return self._run.settings.run.mode == "plan"

    def recover(self) -> None:
        """End what a cutover of an earlier run has left in its middle: undo it, or complete it after its switch.

        A run that applies then brings writers back that a drill has left on the target; in a rehearsal those of 07 too.
        """
        self.settle()
        if self._returns_first and not self._only_plans:
            self.bring_back("Return of an earlier run's cutover")
            self._run.note("an earlier run has left the writers on the target: they have been brought back")

    def settle(self) -> None:
        """End what a cutover of an earlier run has left in its middle: undo it, or complete it after its switch."""
        if self._journal.unfinished() is not None:
            with self._run.step("recover cutover"):
                self._stream.stop()
                found = self._cutover(self._direction(), Purpose.FOR_GOOD).recover(self._follow)
            self._run.note(f"an earlier run was cut off: {found.told}")
            self.go_on()

    @property
    def can_return(self) -> bool:
        """Whether there is a stream from the target back to the source: their tables have to be laid out alike."""
        return self._direction().back is not None

    def bring_back(self, caption: str) -> Table:
        """Switch the writers over to the source, with all that they wrote on the target.

        In a rehearsal no stream runs afterwards.
        """
        table = self._switch(self._direction().reversed(), caption, Purpose.FOR_GOOD)
        self._end_running()
        self.go_on()
        return table

    def checks(self) -> tuple[Evidence, ...]:
        """Nothing may be copied over a target that is written to."""
        claim = "the writers write on the source"
        on_source = self.live == SOURCE
        if on_source:
            return (yes_or_no(claim, Source.OBSERVED, on_source),)
        if self._returns_first and self._only_plans:
            note = "a run in mode apply brings them back before all else, and then makes its own plan"
            return (Evidence("the writers write on the", Source.OBSERVED, TARGET, note=note),)
        last, way = self._journal.last_done(), "drill_cutover"
        if not self._run.rehearsal and last is not None and last.purpose is not Purpose.DRILL:
            way = command("rollback --phase 07", self._run.settings.environment.name)
        note = f"they were switched over: bring them back first ({way}), or a copy would undo their work"
        return (yes_or_no(claim, Source.OBSERVED, on_source, note=note),)

    def changes(self) -> tuple[Change, ...]:
        """The way back of writers that an earlier run has left on the target, for a plan that is only looked at."""
        if not self._returns_first or not self._only_plans:
            return ()
        detail = "brought back before all else, with everything that they wrote on the target"
        return (Change(Verb.UPDATE, "writers", "of the memory", detail, TARGET, SOURCE),)

    def there(self) -> Table:
        """Switch the writers over to the target, if that drill is wanted."""
        reason = "" if self._settings.drills.cutover else "drills.cutover is false"
        reason = reason or self.obstacle
        if reason:
            row = Evidence("drill: cutover and return", Source.ASSUMED, "not carried out", note=reason)
            return self._stores.show((row,), "Left out")
        return self._over(Purpose.DRILL)

    def switch_over(self) -> Table:
        """Switch the writers over to the target for good. Raises GateFailed when something is in the way."""
        if self.obstacle:
            raise GateFailed(f"the writers cannot be switched over: {self.obstacle}")
        table, last = self._over(Purpose.FOR_GOOD), self._journal.last_done()
        if last is not None and last.purpose is not Purpose.FOR_GOOD:
            self._journal.keep(last)
        return table

    def back(self) -> Table:
        """Let the writers write on the target for a while, then bring them back to the source."""
        if self.live == SOURCE:
            row = Evidence("return", Source.ASSUMED, "not carried out", note="the writers write on the source")
            return self._stores.show((row,), "Left out")
        wanted = self._settings.load
        if self._load.is_running and wanted is not None:
            time.sleep(wanted.seconds)
        table = self._switch(self._direction().reversed(), "Return: from the target to the source", Purpose.DRILL)
        self._end_running()
        self._stream.go_on()
        return table

    def judge(self) -> Table:
        """Let the writer rest, let everything arrive, and hold both stores against its ledger."""
        if not self._load.is_wanted:
            row = Evidence("the judge", Source.ASSUMED, "nobody", note="only a rehearsal's writer keeps a ledger")
            return self._stores.show((row,), "The judge")
        with self._run.step("judge"):
            self._load.stop()
            self._stream.drain()
            target = self._stores.target()
            rows = [
                *self._load.report_evidence(),
                *self._load.evidence("the source", self._stores.source.address),
                *self._load.evidence("the target", target),
            ]
            cleared = self._load.clear()
            self._stream.drain()
        rows.append(
            Evidence("rows of the rehearsal's writer that were deleted again", Source.MEASURED, cleared, "rows")
        )
        return self._stores.show(rows, "Every acknowledged write, held against both stores")

    def drain_back(self) -> None:
        """Return once everything that is committed on the target now is on the source too.

        Raises GateFailed when no stream back runs in this process, TargetUnreachable when it does not catch up.
        """
        if self._running is None:
            raise GateFailed("no stream runs from the target back to the source: switch the writers over first")
        with connect(self._stores.target(), role=TARGET) as session:
            lsn = mark(session)
        if not self._running.wait_for(lsn, _CATCH_UP_SECONDS):
            raise TargetUnreachable(f"the stream back did not catch up within {_CATCH_UP_SECONDS:.0f} s")

    def hand_stream_over(self) -> None:
        """Let the stream that runs in this process go on as a process of its own."""
        self._end_running()
        self._stream.go_on()

    def go_on(self) -> None:
        """Outside a rehearsal, let the stream go on from the side that is live, as a process of its own.

        Not in the middle of a cutover: whoever ends that starts it.
        """
        if self._run.rehearsal:
            return
        self._end_failed()
        if self._journal.unfinished() is None:
            self._stream.resume()

    @property
    def obstacle(self) -> str:
        """Why the writers cannot be switched over; empty when they can."""
        if not self._settings.stream.live:
            return "the store stands still: nothing is streamed"
        if not self._settings.writers.source:
            return "memory.writers.source is open: nobody has named the roles that write today"
        return ""

    def _over(self, purpose: Purpose) -> Table:
        if self.live == TARGET:
            row = Evidence("the writers write on the", Source.OBSERVED, TARGET, note="an earlier run has switched them")
            return self._stores.show((row,), "Cut over already")
        return self._switch(self._direction(), "Cutover: from the source to the target", purpose)

    def _switch(self, direction: Direction, caption: str, purpose: Purpose) -> Table:
        progress = Progress("compare before the pause", "rows")
        try:
            running = self._followed(direction.stream)
            self._look_ahead(direction)
            with self._run.step(f"cut over to the {direction.there.role}"):
                found = self._cutover(direction, purpose).run(
                    running, self._touched, self._follow, lambda rows: progress.say(f"{rows:,} rows")
                )
        except BaseException:
            self.go_on()
            raise
        return self._stores.show((*found.evidence(), *self._pauses()), caption)

    def _pauses(self) -> tuple[Evidence, ...]:
        return self._load.pause_evidence() if self._load.is_running else ()

    def _cutover(self, direction: Direction, purpose: Purpose) -> Cutover:
        wanted, journal = self._settings.copy_, CutoverJournal(self._path, purpose)
        return Cutover(direction, journal, self._set_endpoint, Rules(ranges=wanted.ranges, workers=wanted.workers))

    def _followed(self, spec: StreamSpec) -> RunningStream:
        """The stream of a direction, in this process and caught up."""
        if self._running is None:
            self._stream.stop()
            self._follow(spec)
        running = self._running
        if running is None:
            raise GateFailed("the stream did not start")
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while not _is_close(running.status()):
            running.require_running()
            if time.monotonic() > deadline:
                raise GateFailed(f"the stream does not catch up: {running.status().sentence()}")
            time.sleep(0.05)
        return running

    def _follow(self, spec: StreamSpec) -> None:
        """Start the stream of a direction in this process, and end the other one."""
        self._end_running()
        self._touched = Touched()
        self._running = self._stack.enter_context(RunningStream(spec, self._touched))

    def _end_running(self) -> None:
        self._running = None
        self._stack.close()

    def _abandon(self) -> None:
        """End the stream that a run leaves behind in a kernel that lives on: the next run could not read the slot."""
        if self._running is not None:
            self._end_failed()
            self.go_on()

    def _end_failed(self) -> None:
        try:
            self._end_running()
        except Exception as error:  # noqa: BLE001 - the run is over, and the next one has to be able to begin
            self._run.note(f"the stream had ended before this run did: {error}")

    def _direction(self) -> Direction:
        target = self._stores.target()
        with connect(target, role=TARGET) as session:
            theirs = source_table(session, TARGET_TABLE, {})
        move = self._stores.move(target)
        forward = move.stream_spec()
        source = Side(
            SOURCE, move.source, forward.source_table, self._settings.writers.source or (), self.endpoint_of(SOURCE)
        )
        other = Side(TARGET, target, theirs, writers(self._stores.settings), self.endpoint_of(TARGET))
        return Direction(source, other, forward, move.return_spec())

    def endpoint_of(self, side: str) -> str:
        """What the connection secret says of a side: names, from which an application finds address and login."""
        settings = self._stores.settings
        if side == TARGET and self._stores.cloud is not None:
            return self._stores.primary
        if side == SOURCE and settings.secrets is not None and settings.project is not None:
            return f"projects/{settings.project.id}/secrets/{settings.secrets.source_dsn}"
        return side

    def endpoint(self) -> str | None:
        """What the connection secret says now; None where there is none."""
        secret = self._secret()
        return secret_values.current(*secret) if secret else None

    def _look_ahead(self, direction: Direction) -> None:
        """Find out before the pause what the switch needs: where the writers go, and how Secret Manager is called."""
        if self._load.is_running:
            for side in (direction.here, direction.there):
                self._writers_addresses[side.endpoint] = self._writers_address(side.endpoint)
        if secret := self._secret():
            secret_values.current(*secret)

    def _set_endpoint(self, endpoint: str) -> None:
        """Switch the connection secret; the rehearsal's writer is told what an application would read there."""
        if secret := self._secret():
            client, name = secret
            if secret_values.current(client, name) != endpoint:
                secret_values.add(client, name, endpoint)
        if self._load.is_running:
            self._load.point_at(self._writers_addresses.get(endpoint) or self._writers_address(endpoint))

    def _secret(self) -> tuple[Client, str] | None:
        """The connection secret, and who speaks to Secret Manager; None where there is no Google Cloud."""
        cloud, settings = self._stores.cloud, self._stores.settings
        if cloud is None or settings.secrets is None or settings.project is None:
            return None
        return cloud.client, f"projects/{settings.project.id}/secrets/{settings.secrets.memory_endpoint}"

    def _writers_address(self, endpoint: str) -> str:
        if endpoint == self.endpoint_of(SOURCE):
            return self._load.source_address()
        if self._stores.instances is None:
            raise ParameterError("the rehearsal's writer can follow to the local AlloyDB alone")
        return str(self._stores.instances.address(endpoint, api_user(self._stores.settings)))


def _is_close(status: StreamStatus) -> bool:
    """Whether a stream runs and is so little behind that a pause may begin soon."""
    return status.state == "streaming" and status.lag_seconds < _CLOSE_SECONDS and status.received_lsn > 0
