"""How long a transfer takes and what it costs, one process against a pipeline, before either is begun.

A row costs each part its own processor time; whichever part has the least of it for its rows decides. More workers help
until then and no further, so the two ways differ only where the client is what is scarce, or where hours of work must
not hang on one process.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.evidence import Evidence, Source

# CPU microseconds of a row of 6.5 kB, measured on two cores of an AMD EPYC on 2026-11-25 (tests/bench/bulk_copy.py,
# tests/scale/large.py): checks on, no vector index on the target.
_MEASURED_ROW_BYTES = 6_500
_SOURCE_US, _CLIENT_US, _TARGET_US = 20.0, 10.0, 35.0
_LOG_BYTES_PER_ROW_BYTE = 7_200 / 6_500
_PROCESS_THREADS = 2.0  # cores that one Python process with its threads uses at most: the rest waits for its lock
_PIPELINE_CPU = 1.1  # what Beam adds to the client
PIPELINE_START_SECONDS = {"here": 3.0, "dataflow": 240.0}
"""Of 300,000 rows 1.8 to 4.2 s were not copying here, on a busy machine; on Dataflow workers take three to four minutes
to come up (recalled, not measured)."""

# US dollars in us-central1, batch workers; recalled, nobody has confirmed them: https://cloud.google.com/dataflow/pricing
DATAFLOW_VCPU_HOUR_USD, DATAFLOW_GIB_HOUR_USD = 0.056, 0.003557
_GIB_PER_VCPU = 4
VCPU_HOUR_WITH_4_GIB_USD = DATAFLOW_VCPU_HOUR_USD + _GIB_PER_VCPU * DATAFLOW_GIB_HOUR_USD


@dataclass(frozen=True)
class Machines:
    """What there is to compute with: cores of the source and the target, and the log that the target can write.

    On one machine all parts share its cores: ``shared_cpus`` says how many, None where each has its own.
    """

    source_cpus: float
    target_cpus: float
    log_bytes_per_second: float
    shared_cpus: float | None = None


@dataclass(frozen=True)
class Way:
    """One way to move a table: its seconds, its dollars for the client's machines, and what it waits for."""

    name: str
    seconds: float
    usd: float
    bound_by: str

    def evidence(self) -> Evidence:
        """The forecast; ASSUMED, because it is computed from what a row cost elsewhere, and judged by nothing."""
        return Evidence(
            f"time that {self.name} would take",
            Source.ASSUMED,
            round(self.seconds, 1),
            "s",
            note=f"bound by {self.bound_by}; {self.usd:,.2f} USD for its own machines",
        )


def one_process(rows: int, row_bytes: float, machines: Machines, index_us: float = 0.0) -> Way:
    """The memory phase's own copy, on a machine that is there. ``index_us``: what the index adds to a row's insert."""
    rate, bound = _rate(row_bytes, machines, _PROCESS_THREADS, 1.0, index_us)
    return Way("the copy of one process", rows / rate, 0.0, bound)


def pipeline(
    rows: int, row_bytes: float, machines: Machines, worker_cpus: float, where: str, index_us: float = 0.0
) -> Way:
    """The pipeline with so many cores in all its workers; ``where`` is ``here`` or ``dataflow``."""
    rate, bound = _rate(row_bytes, machines, worker_cpus, _PIPELINE_CPU, index_us)
    seconds = PIPELINE_START_SECONDS[where] + rows / rate
    usd = worker_cpus * VCPU_HOUR_WITH_4_GIB_USD * seconds / 3_600 if where == "dataflow" else 0.0
    name = f"a pipeline of {worker_cpus:g} cores {'on Dataflow' if where == 'dataflow' else 'here'}"
    return Way(name, seconds, usd, bound)


def _rate(
    row_bytes: float, machines: Machines, client_cpus: float, client_factor: float, index_us: float
) -> tuple[float, str]:
    """Rows a second, and what bounds them."""
    size = row_bytes / _MEASURED_ROW_BYTES
    costs_us = {
        "the source's processors": _SOURCE_US * size,
        "the client's processors": _CLIENT_US * client_factor * size,
        "the target's processors": _TARGET_US * size + index_us,
    }
    cpus = dict(zip(costs_us, (machines.source_cpus, client_cpus, machines.target_cpus), strict=True))
    rates = {part: cpus[part] * 1e6 / cost for part, cost in costs_us.items()}
    rates["the target's log"] = machines.log_bytes_per_second / (row_bytes * _LOG_BYTES_PER_ROW_BYTE)
    if machines.shared_cpus is not None:
        rates["the processors that all parts share"] = machines.shared_cpus * 1e6 / sum(costs_us.values())
    bound = min(rates, key=lambda part: rates[part])
    return rates[bound], bound
