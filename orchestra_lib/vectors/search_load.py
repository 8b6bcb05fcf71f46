"""Searches as a load: each session searches as the application does, by the index that was meant and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from orchestra_lib.bench.samples import Outcome, Worker
from orchestra_lib.database import Address, connect
from orchestra_lib.vectors.forms import Effort
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.search import Searchable, searching

_WARM_UPS = 6  # the server plans a prepared statement anew five times before it settles on one plan


@dataclass(frozen=True)
class Searches:
    """A ``make_worker`` for ``run_load``: request n searches with vector n, modulo how many there are.

    An answer with fewer than ``wanted_rows`` rows is short. Failures have the names of psycopg's error classes.
    """

    address: Address
    target: Searchable
    effort: Effort
    vectors: Matrix
    wanted_rows: int

    @contextmanager
    def __call__(self) -> Iterator[Worker]:
        """Open a session and prepare the search in it. Raises TargetUnreachable, and what the server refuses."""
        with (
            connect(self.address, application_name="orchestra-load") as connection,
            searching(connection, self.target, self.effort) as ask,
        ):

            def work(number: int) -> Outcome:
                try:
                    ids, _ = ask(self.vectors[number % len(self.vectors)])
                except psycopg.Error as error:
                    return Outcome(type(error).__name__)
                return Outcome(None, len(ids) < self.wanted_rows)

            for number in range(_WARM_UPS):
                work(number)
            yield work
