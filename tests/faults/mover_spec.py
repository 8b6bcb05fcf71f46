"""What a mover that is to be killed is told: shared by its process and by whoever starts it."""

from __future__ import annotations

from dataclasses import dataclass, field

STREAM, SLOT, PUBLICATION, TABLE = "tested", "orchestra_tested", "orchestra_tested", "memories"


@dataclass(frozen=True)
class Spec:
    """Both ends as the mover reaches them, and how it works. ``copy_rows_per_second`` None: as fast as it goes."""

    source: str
    target: str
    ranges: int = 8
    copy_rows_per_second: int | None = None
    clock_jump_seconds: float = 0.0
    tuning: dict[str, float] = field(default_factory=dict)
