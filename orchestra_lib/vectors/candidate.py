"""What was learnt about one way to search: an index and its effort, what it finds, what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.vectors.forms import Effort, Form

Knowledge = Literal["predicted", "measured"]


@dataclass(frozen=True)
class Candidate:
    """An index form at one effort.

    ``source`` says whether recall and latency were predicted, from a virtual index and the cost model, or measured on
    an index that was built. ``recall`` is over the validation queries, measured or predicted. ``predicted_p95_ms`` is
    the server's own time; ``p95_ms`` is measured at the client, one query after another, warm. ``made_seconds`` is how
    long it took to have an index to measure, None where none was made; ``index_bytes`` is a forecast then.
    ``build_seconds`` is what CREATE INDEX took, None where that was not run; an index from given centroids is made
    without, and ``create_seconds`` says from how much to how much it is to take. ``build_memory_mib`` is what CREATE
    INDEX needs in any case. ``reaches`` says whether the lower bound of the recall clears the target; ``note`` is one
    plain remark, or empty.
    """

    form: Form
    effort: Effort
    source: Knowledge
    recall: Estimate
    predicted_p95_ms: float | None
    p95_ms: Estimate | None
    reaches: bool
    build_seconds: float | None = None
    index_bytes: int | None = None
    build_memory_mib: int | None = None
    note: str = ""
    made_seconds: float | None = None
    create_seconds: tuple[float, float] | None = None

    @property
    def best_p95_ms(self) -> float:
        """The measured p95 where there is one, else the predicted one; infinite without either."""
        if self.p95_ms is not None:
            return self.p95_ms.value
        return float("inf") if self.predicted_p95_ms is None else self.predicted_p95_ms

    @property
    def create_text(self) -> str:
        """What CREATE INDEX took, or from how much to how much it is to take; empty where neither is known."""
        if self.build_seconds is not None:
            return f"{self.build_seconds:,.1f} s"
        if self.create_seconds is None:
            return ""
        least, most = (f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:,.1f}" for seconds in self.create_seconds)
        return f"{least} to {most} s"
