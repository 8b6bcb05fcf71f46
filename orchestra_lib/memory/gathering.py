"""The batch that is being gathered: net changes by partition of the keys, and where in the log they end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestra_lib.memory.coalesce import Coalesced, Rekey, effects, partition_of
from orchestra_lib.memory.layout import Layout
from orchestra_lib.memory.partitions import Barrier, Batch
from orchestra_lib.memory.transactions import Change, Committed, Truncated


class Gathering:
    """Changes since the last batch was taken. ``checkpoints`` are the partitions': what lies before one is there.

    A barrier is a change that has to be applied alone, after everything before it: while there is one, nothing more may
    be added.
    """

    def __init__(self, checkpoints: Sequence[int]) -> None:
        self._checkpoints = tuple(checkpoints)
        self._begin()

    def _begin(self) -> None:
        self._shares = [Coalesced() for _ in self._checkpoints]
        self.barrier: Barrier | None = None
        self.changes = 0
        self.commit_times: list[float] = []
        self._last_lsn = 0
        self._end_lsn: int | None = None
        self._first_at: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to apply."""
        return self.changes == 0 and self.barrier is None

    def add(self, change: Change, layout: Layout) -> None:
        """Add a change of a relation that ``layout`` has checked."""
        made = effects(change, layout)
        if isinstance(made, Rekey):
            if change.commit_lsn >= min(self._checkpoints):
                self.barrier = made
            return
        for net in made:
            partition = partition_of(net.key, len(self._shares))
            if change.commit_lsn >= self._checkpoints[partition]:
                self._shares[partition].add(net)
                self._count(change.commit_lsn)

    def truncate(self, event: Truncated) -> None:
        """Add that the table was emptied."""
        if event.commit_lsn >= min(self._checkpoints):
            self.barrier = event

    def commit(self, event: Committed) -> None:
        """Note that a transaction is complete: a batch may end here and be a checkpoint."""
        self._end_lsn = event.end_lsn
        if self.changes:
            self.commit_times.append(event.commit_time)

    def due_at(self, debounce_seconds: float) -> float | None:
        """When the batch has to go, by the monotonic clock; None while no transaction in it is complete."""
        if self._first_at is None or not self.commit_times:
            return None
        return self._first_at + debounce_seconds

    def take(self) -> Batch:
        """The batch, and begin anew; a barrier stays."""
        batch = Batch(
            {number: tuple(share) for number, share in enumerate(self._shares) if len(share)},
            self._end_lsn,
            self._last_lsn,
            tuple(self.commit_times),
            self.changes,
        )
        barrier = self.barrier
        self._begin()
        self.barrier = barrier
        return batch

    def take_barrier(self) -> Barrier:
        """The barrier, once everything before it has been applied."""
        barrier, self.barrier = self.barrier, None
        if barrier is None:
            raise ValueError("there is no barrier")
        return barrier

    def _count(self, commit_lsn: int) -> None:
        self.changes += 1
        self._last_lsn = commit_lsn
        if self._first_at is None:
            self._first_at = time.monotonic()
