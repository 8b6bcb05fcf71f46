"""What a transfer at scale moves, from where to where: everything that a worker has to know, without a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.initial_copy import CopySpec
from orchestra_lib.memory.source import source_table
from orchestra_lib.scale.endpoint import address_of

MIB = 1 << 20


@dataclass(frozen=True)
class Pace:
    """How fast all workers together may write, and what of the target's health slows them down.

    ``rows_per_second`` None: no limit but the target's health. ``commit_ms``: a commit on the target that takes longer
    halves the rate; ``replica_lag_bytes``: so does a replica that is further behind.
    """

    rows_per_second: int | None = None
    commit_ms: float = 250.0
    replica_lag_bytes: int = 1 << 30


@dataclass(frozen=True)
class TransferSpec:
    """One transfer. ``source`` and ``target`` are endpoints (see ``endpoint``); ``columns`` maps ours to theirs.

    The table is cut into ranges of about ``range_bytes`` of rows; ``workers`` is how many work at once at most, and
    each takes that part of the pace (``options.most_at_once`` counts them).
    """

    source: str
    target: str
    stream: str
    slot: str
    publication: str
    source_table: str = "memories"
    columns: Mapping[str, str] = field(default_factory=dict)
    target_table: str = "memories"
    range_bytes: int = 64 * MIB
    workers: int = 2
    pace: Pace = Pace()

    def job(self, addresses: tuple[Address, Address] | None = None) -> CopyJob:
        """Source and target as they are now. Raises DataError, TargetUnreachable."""
        source, target = addresses or self.addresses()
        with connect(source, role="source") as session:
            table = source_table(session, self.source_table, self.columns)
        return CopyJob(source, table, target, sql.Identifier(*self.target_table.split(".")))

    def addresses(self) -> tuple[Address, Address]:
        """What opens sessions with the source and with the target."""
        return address_of(self.source), address_of(self.target)

    def copy_spec(self, job: CopyJob) -> CopySpec:
        """The same transfer as the memory phase names it, which shares its state on the target."""
        return CopySpec(job, self.stream, self.slot, self.publication, ranges=0, workers=self.workers)

    def as_json(self) -> str:
        """The text that :func:`read_spec` reads."""
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class EmbeddingSpec:
    """A change of model: the endpoint of the memories, their table and the one beside it for the new vectors.

    ``environment`` names the parameter file that has the model, its dimension and how many requests a minute all
    workers together may send; ``workers`` is how many work at once at most (``options.most_at_once``).
    """

    target: str
    environment: str
    memories: str
    fresh: str
    range_bytes: int = 64 * MIB
    workers: int = 2

    def as_json(self) -> str:
        """The text that :func:`read_embedding_spec` reads."""
        return json.dumps(asdict(self), indent=1)


def read_embedding_spec(path: Path) -> EmbeddingSpec:
    """The spec that a file holds. Raises ParameterError for what is none."""
    try:
        return EmbeddingSpec(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(f"{path} describes no change of model: {error}") from error


def read_spec(path: Path) -> TransferSpec:
    """The spec that a file holds. Raises ParameterError for what is none."""
    try:
        values = json.loads(path.read_text())
        return TransferSpec(**{**values, "pace": Pace(**values.get("pace", {}))})
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(f"{path} describes no transfer: {error}") from error
