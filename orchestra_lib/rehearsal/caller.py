"""One caller of the store under load: it sends a write at a time and stays with it until its outcome is known."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from orchestra_lib.database import Address
from orchestra_lib.errors import DataError, OrchestraError, TargetUnreachable
from orchestra_lib.rehearsal.ledger import Event, Ledger, Standing
from orchestra_lib.rehearsal.writing_session import ConnectionLost, Refused, WritingSession
from orchestra_lib.rehearsal.written import Lives, Mix, State

Route = Callable[[], Address]
"""Where to write now. Raises TargetUnreachable while there is no such place."""

_RETRY_SECONDS = 0.02
# A caller that was kept waiting this long has gone: its write is not sent any more, and counted as skipped.
_PATIENCE_SECONDS = 5.0
_HOT_KEYS = 16
# The SQLSTATEs of class 42 (the statement is wrong) that only say "not here" or "not now".
_MAY_PASS = frozenset({"42501"})
_UNIQUE_VIOLATION = "23505"


@dataclass(frozen=True)
class Load:
    """How much is written: intended writes a second over all sessions, and in which proportions."""

    per_second: float = 1_000
    sessions: int = 3
    seed: int = 1
    mix: Mix = field(default_factory=Mix)
    table: str = "memories"


class _Outcome(Enum):
    """What is known of a write. CONTRADICTED: it was answered as if the row were not as it was acknowledged."""

    DONE = auto()
    NOT_DONE = auto()
    UNKNOWN = auto()
    CONTRADICTED = auto()
    WRONG = auto()


class Places:
    """Numbers the places that are written to, in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._lock = ledger, threading.Lock()
        self._numbers: dict[str, int] = {}

    def number(self, label: str) -> int:
        """The number of a place, noted the first time."""
        with self._lock:
            if label not in self._numbers:
                self._numbers[label] = len(self._numbers)
                self._ledger.note(Event.PLACE, key=self._numbers[label], detail=label)
            return self._numbers[label]


class Keys:
    """The keys of one session: which exist, which were deleted, which is next to be made."""

    def __init__(self, lives: Lives, load: Load, session: int, known: Standing) -> None:
        self._mix, self._sessions = load.mix, load.sessions
        self._live: list[State] = []
        self._dead: list[State] = []
        self._place: tuple[list[State], int] | None = None
        self.in_doubt: list[State] = []
        mine = {key for key in known.written() if key % load.sessions == session}
        for key in sorted(mine - known.wrong):
            state = lives.at(key, known.acknowledged.get(key, 0))
            if key in known.in_doubt:
                self.in_doubt.append(state)
            else:
                self.put_back(state)
        self._next = max(mine, default=session - load.sessions) + load.sessions

    def take(self, draw: random.Random) -> State:
        """Choose the key of the next write; it has to be put back or dropped before another is taken."""
        kind = draw.random()
        if self._dead and kind < self._mix.reinsert:
            self._place = self._dead, draw.randrange(len(self._dead))
        elif self._live and kind >= self._mix.reinsert + self._mix.insert:
            hot = min(_HOT_KEYS, len(self._live)) if draw.random() < self._mix.hot else len(self._live)
            self._place = self._live, draw.randrange(hot)
        else:
            self._next += self._sessions
            return State(self._next - self._sessions)
        states, index = self._place
        return states[index]

    def put_back(self, state: State) -> None:
        """The key as it is now. It stays where it was, so that the first few remain the hot ones."""
        if self._place and state.present and self._place[0] is self._live:
            self._live[self._place[1]] = state
            self._place = None
            return
        self.drop()
        if state.step:
            (self._live if state.present else self._dead).append(state)

    def drop(self) -> None:
        """Never choose the key again."""
        if self._place:
            states, index = self._place
            states[index] = states[-1]
            states.pop()
            self._place = None


class Caller:
    """A session's thread. ``error`` is what ended it before its time."""

    def __init__(
        self, number: int, load: Load, lives: Lives, keys: Keys, route: Route, ledger: Ledger, places: Places
    ) -> None:
        self._number, self._load, self._lives, self._keys = number, load, lives, keys
        self._route, self._ledger, self._places = route, ledger, places
        self._session: WritingSession | None = None
        self._opened = 0
        self._place = -1
        self._address: Address = ""
        self.error: OrchestraError | None = None

    def run(self, stop: threading.Event) -> None:
        """Write until told to stop."""
        try:
            for state in self._keys.in_doubt:
                self._recover(state, stop)
            self._write_on_time(stop)
        except OrchestraError as error:
            self.error = error
        finally:
            if self._session is not None:
                self._session.close()

    def _write_on_time(self, stop: threading.Event) -> None:
        draw = random.Random(f"{self._lives.seed} {self._number} {time.time()}")  # noqa: S311 - a load, not a secret
        interval = self._load.sessions / self._load.per_second
        planned = time.monotonic() + interval * self._number / self._load.sessions
        while not stop.is_set():
            late = time.monotonic() - planned
            if late < 0:
                stop.wait(-late)
                continue
            if late > _PATIENCE_SECONDS:
                skipped = int((late - _PATIENCE_SECONDS) / interval) + 1
                self._ledger.note(Event.SKIPPED, session=self._number, detail=skipped)
                planned += skipped * interval
                continue
            self._carry_out(self._keys.take(draw), planned, stop)
            planned += interval

    def _recover(self, state: State, stop: threading.Event) -> None:
        """Look up a key that an earlier run left in doubt."""
        following = self._lives.after(state)
        outcome = self._look_up(state, following, stop, contradicted=False)
        if outcome in (_Outcome.DONE, _Outcome.NOT_DONE):
            self._keys.put_back(following if outcome is _Outcome.DONE else state)

    def _carry_out(self, state: State, planned: float, stop: threading.Event) -> None:
        """Do the key's next step, however often it takes; told to stop, leave it as it is, in doubt if need be."""
        following = self._lives.after(state)
        while session := self._open(stop):
            self._note(Event.INTENT, following, [round(planned, 6), self._lives.verb(state)])
            outcome = self._send(session, state, following, stop)
            if outcome in (_Outcome.UNKNOWN, _Outcome.CONTRADICTED):
                outcome = self._look_up(state, following, stop, contradicted=outcome is _Outcome.CONTRADICTED)
            if outcome is not _Outcome.NOT_DONE:
                return self._keep(following, outcome)
        return self._keys.put_back(state)

    def _keep(self, following: State, outcome: _Outcome) -> None:
        if outcome is _Outcome.DONE:
            self._keys.put_back(following)
        else:
            self._keys.drop()  # wrong, or told to stop while it is in doubt

    def _send(self, session: WritingSession, state: State, following: State, stop: threading.Event) -> _Outcome:
        try:
            if session.write(self._lives.verb(state), state, following):
                self._note(Event.ACKNOWLEDGED, following, self._place)
                return _Outcome.DONE
        except Refused as error:
            self._note(Event.REFUSED, following, error.sqlstate)
            if error.sqlstate == _UNIQUE_VIOLATION:
                return _Outcome.CONTRADICTED
            self._heed(error, stop)
            return _Outcome.NOT_DONE
        except ConnectionLost as error:
            self._note(Event.LOST, following, str(error))
            self._hang_up()
            return _Outcome.UNKNOWN
        self._note(Event.REFUSED, following, "no row")
        return _Outcome.CONTRADICTED

    def _look_up(self, state: State, following: State, stop: threading.Event, *, contradicted: bool) -> _Outcome:
        """Find out whether a write happened. After a contradiction a row that is as it was before is wrong too."""
        while session := self._open(stop):
            try:
                step = session.step_of(state.key)
            except Refused as error:
                self._heed(error, stop)
            except ConnectionLost:
                self._hang_up()
            else:
                if step == _step_told(following):
                    self._note(Event.FOUND, following, self._place)
                    return _Outcome.DONE
                if step == _step_told(state) and not contradicted:
                    self._note(Event.MISSING, following, self._place)
                    return _Outcome.NOT_DONE
                wanted = f"{_step_told(state)}, or {_step_told(following)} if the last write happened"
                self._note(Event.WRONG, following, f"{self._lives.id(state.key)} is at step {step}, wanted {wanted}")
                return _Outcome.WRONG
        return _Outcome.UNKNOWN

    def _open(self, stop: threading.Event) -> WritingSession | None:
        """The session, opened where the route says if there is none; None when told to stop."""
        while not stop.is_set():
            if self._session is not None:
                return self._session
            try:
                self._dial()
            except Refused as error:
                self._heed(error, stop)
            except (TargetUnreachable, ConnectionLost):
                stop.wait(_RETRY_SECONDS)
        return None

    def _dial(self) -> None:
        self._opened += 1
        mine = f"orchestra writer {self._lives.seed}/{self._number}/"
        self._address = self._route()
        session = WritingSession(self._address, self._load.table, self._lives, f"{mine}{self._opened}")
        try:
            session.end_others(mine)
        except (Refused, ConnectionLost):
            session.close()
            raise
        self._session, self._place = session, self._places.number(session.place)

    def _heed(self, error: Refused, stop: threading.Event) -> None:
        """After a refusal ask the route again. Raises DataError when the statement itself is refused."""
        if error.sqlstate.startswith("42") and error.sqlstate not in _MAY_PASS:
            raise DataError(f"the writer cannot write to {self._load.table}: {error}") from error
        with suppress(TargetUnreachable):
            if self._route() != self._address:
                self._hang_up()
        stop.wait(_RETRY_SECONDS)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _note(self, event: Event, state: State, detail: object) -> None:
        self._ledger.note(event, state.key, state.step, self._number, detail)


def _step_told(state: State) -> str | None:
    """What a look-up of the key gives."""
    return str(state.step) if state.present else None
