"""What a tuning came to: every candidate, the chosen one and why, and what it cost to find out."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate
from orchestra_lib.vectors.cost import CostModel
from orchestra_lib.vectors.goals import Goals


@dataclass(frozen=True)
class Profile:
    """The table as it was tuned for. ``fingerprint`` names its content; sizes in MiB."""

    table: str
    rows: int
    dimension: int
    fingerprint: str
    table_mib: float
    shared_buffers_mib: float
    maintenance_work_mem_mib: float
    work_mem_mib: float
    duplicates_share: float
    zero_vectors: int
    null_vectors: int
    effective_dimension: float
    server: str


@dataclass(frozen=True)
class PagePoint:
    """What one number of lists reads for a query at the fewest probes that reach the target, on average.

    ``rows`` is how many the table is taken to have: as it is, or ten times as many. ``list_pages`` and
    ``centroid_pages`` are pages of 8 kB; ``p95_ms`` is predicted.
    """

    rows: int
    lists: int
    probes: int
    centroid_pages: float
    list_pages: float
    p95_ms: float
    recall_low: float
    reaches: bool


@dataclass(frozen=True)
class Step:
    """A part of the tuning and the seconds that it took; ``resumed`` when an earlier run had done it."""

    name: str
    seconds: float
    resumed: bool


@dataclass(frozen=True)
class Tuning:
    """The outcome of ``tune``.

    ``chosen`` is None only when it was interrupted, or the budget ended, before anything could be chosen. ``asked``
    are the candidates with the lists that somebody asked for. ``model_error`` is the held-out relative error of the
    predicted latencies; ``growth`` the pages over the lists at this row count and at ten times as many. ``skipped``
    says in sentences what was not tried and why. ``no_index_needed`` is true when the exact scan is quick enough.
    """

    goals: Goals
    profile: Profile
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    reason: str
    asked: tuple[Candidate, ...]
    before: Candidate | None
    model: CostModel | None
    model_error: float | None
    growth: tuple[PagePoint, ...]
    certificate: Certificate | None
    no_index_needed: bool
    skipped: tuple[str, ...]
    steps: tuple[Step, ...]
    interrupted: bool

    @property
    def seconds(self) -> float:
        """How long this run worked; steps that an earlier run had done count nothing."""
        return sum(step.seconds for step in self.steps if not step.resumed)
