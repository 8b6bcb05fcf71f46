"""Choosing the index by measurement: predicted for every number of lists at once, built once, certified.

Recall of an IVFFlat index depends only on how far down a query's order of lists its true neighbours lie. That is plain
counting on measured ranks, without a build. Only the latency needs a real index, and one is enough: it is linear in
the pages read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestra_lib.database import Address
from orchestra_lib.vectors.goals import Goals, Queries
from orchestra_lib.vectors.tuning import Tuning


@dataclass(frozen=True)
class Options:
    """How a tuning goes about it.

    ``methods`` and ``storages`` say which challengers are looked at; ``seeds`` how many times k-means is repeated for
    each number of lists, since a rebuild differs from the one before. ``available_mib`` is the memory of the machine
    that runs the server, None when that is not this machine. ``restart`` restarts that server, for cold figures; None
    where it is not ours. ``load_seconds`` is how long a load runs for the certificate.
    """

    methods: tuple[str, ...] = ("exact", "ivfflat", "hnsw", "scann")
    storages: tuple[str, ...] = ("vector", "halfvec", "bit")
    seeds: int = 2
    available_mib: int | None = None
    restart: Callable[[], None] | None = None
    load_seconds: float = 20.0
    seed: int = 0


def tune(
    address: Address,
    table: str,
    queries: Queries,
    goals: Goals,
    *,
    journal_path: Path | None,
    options: Options,
    progress: Callable[[str], None],
) -> Tuning:
    """Choose how ``table`` (columns id, embedding and those that are filtered by) is to be searched, and certify it.

    The table itself is only read: what is built is built on an unlogged copy that goes at the end. A run that was
    interrupted, or whose budget ended, returns what it knows; the next one goes on from the journal.
    Raises DataError for too few queries or an empty table, GateFailed when no build fits the memory.
    """
    raise NotImplementedError
