"""What the source is told to forget: never more than the target itself has noted, beside its rows.

The source forgets what is confirmed. A target that is set back, by a restore or by a failover to a copy that lagged,
would ask for what lies between, and the source would go on behind it without a word. So each position is noted on the
target first, and at the start of a stream the slot may not be further than the note.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import psycopg

from orchestra_lib.errors import LockHeld, OrchestraError, TargetUnreachable
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.hold import Hold
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.partitions import raise_if_hopeless
from orchestra_lib.memory.stream_errors import SlotLost

_EVERY_SECONDS = 1.0
_LAST_SECONDS = 2.0


class Confirming:
    """Notes, once a second and in a thread of its own, how far everything is on the target.

    Each note also proves that the stream's lock is held, or takes it again. The methods are for one thread, the reader.
    ``busy_seconds``: how long the lock may be in other hands, such as those of our own session that broke;
    ``timeout_seconds``: a target that does not answer in that time is cut off; ``told``: what keeps it from noting.
    """

    def __init__(self, hold: Hold, busy_seconds: float, timeout_seconds: float, told: Callable[[str], None]) -> None:
        self._hold, self._busy_seconds, self._timeout_seconds, self._told = hold, busy_seconds, timeout_seconds, told
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="confirm")
        self._under_way: Future[int] | None = None
        self._began_at = 0.0
        self._busy_since: float | None = None
        self._noted: int | None = None

    @property
    def position(self) -> int:
        """What the source may be told: everything before it is on the target, which has noted so."""
        return self._noted or 0

    def begin(self, session: psycopg.Connection, stream: str) -> None:
        """Read what was noted last. Raises DataError when nothing is known of the stream."""
        self._noted = state_tables.confirmed(session, stream)

    def require_no_gap(self, slot: str, told: int) -> None:
        """Raise SlotLost when the source has been told more than the target has noted.

        State that an earlier version left has no note: then what was told is taken for one. While this mover slept
        another one may have noted more; that is looked up under the lock. Raises LockHeld while that one has it, and
        TargetUnreachable.
        """
        if self._noted is None:
            self._noted = told
        if told > self._noted:
            self._noted = max(self._noted, self._hold.confirmed())
        if told > self._noted:
            raise SlotLost(
                f"slot {slot} has let go of what was committed before {lsn_text(told)}, and the target knows only that "
                f"everything before {lsn_text(self._noted)} is there: it was set back by a restore or a failover, or "
                "another reader has used the slot; what lies between is missing: run the copy again"
            )

    def step(self, applied: int) -> None:
        """Begin to note that everything before ``applied`` is on the target, if it is time to. Never waits.

        Raises LockHeld when somebody else has the stream, SlotLost when the target was set back, and DataError when it
        cannot note anything any more. While it is away nothing is noted.
        """
        now = time.monotonic()
        if self._under_way is not None:
            if self._under_way.done():
                self._take()
            elif now - self._began_at > self._timeout_seconds:
                self._hold.cut()
        if self._under_way is None and now - self._began_at >= _EVERY_SECONDS:
            self._begin_to_note(applied)

    def finish(self, applied: int) -> None:
        """Note the last position, if the target takes it soon."""
        with suppress(TimeoutError, OrchestraError, psycopg.Error):
            if self._under_way is not None:
                self._noted = self._under_way.result(_LAST_SECONDS)
            self._noted = self._begin_to_note(applied).result(_LAST_SECONDS)

    def close(self) -> None:
        """End the thread."""
        if self._under_way is not None and not self._under_way.done():
            self._hold.cut()
        self._pool.shutdown(wait=True)

    def _begin_to_note(self, applied: int) -> Future[int]:
        self._began_at = time.monotonic()
        self._under_way = self._pool.submit(self._hold.note_confirmed, self.position, applied)
        return self._under_way

    def _take(self) -> None:
        future, self._under_way = self._under_way, None
        if future is None:
            return
        try:
            self._noted = future.result()
            self._busy_since = None
        except LockHeld as error:
            self._told(str(error))
            self._busy_since = self._busy_since or time.monotonic()
            if time.monotonic() - self._busy_since > self._busy_seconds:
                raise
        except (TargetUnreachable, psycopg.Error) as error:
            raise_if_hopeless(error)
            self._told(f"the target does not note what the source may be told: {error}")
