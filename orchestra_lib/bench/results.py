"""Result files: what was offered, what came of it, where and in which state, as JSON that can be read back.

The JSON is complete without the raw samples: it holds the histogram of all latencies. With the extra ``bench`` the
samples themselves are kept beside it as Parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestra_lib.bench.environment import Environment
from orchestra_lib.bench.histogram import Histogram
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.bench.states import Prepared
from orchestra_lib.bench.statistics import Estimate, quantile_of_series
from orchestra_lib.errors import ParameterError, RecordError
from orchestra_lib.record import write_atomically

_QUANTILES: Mapping[str, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_COLUMNS = ("intended", "free", "sent", "done", "server_ms", "failure", "short")
"""Of the Parquet file: the arrays of a ``LoadRun``, one row a request."""


class Result(BaseModel):
    """One measured load. Times in milliseconds, rates in requests a second; an infinite number is a text in JSON.

    ``latency_ms`` counts from the intended starts and knows failures as infinitely long; ``service_ms`` counts from
    sending; ``server_ms`` is what the server says of itself, ``client_ms`` what is beside it, both empty where it did
    not tell. Each maps p50, p95 and p99 to an estimate. ``generator_lag_ms`` is how late requests were sent although a
    worker was free: far below the latencies, or the generator was the bottleneck.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    name: str
    environment: Environment
    state: Prepared | None
    load: Load
    requests: int
    offered_per_second: float
    achieved_per_second: float
    within_limit: float | None
    failures: dict[str, int]
    short_answers: int
    latency_ms: dict[str, Estimate]
    service_ms: dict[str, Estimate]
    server_ms: dict[str, Estimate]
    client_ms: dict[str, Estimate]
    generator_lag_ms: dict[str, Estimate]
    histogram: Histogram
    samples_file: str | None = None


def result(name: str, load: Load, run: LoadRun, environment: Environment, state: Prepared | None = None) -> Result:
    """Put together what a run amounts to."""
    return Result(
        name=name,
        environment=environment,
        state=state,
        load=load,
        requests=run.requests,
        offered_per_second=run.offered_per_second,
        achieved_per_second=run.achieved_per_second,
        within_limit=run.within_limit,
        failures=run.failures,
        short_answers=run.short_answers,
        latency_ms=_estimates(run.latency_ms),
        service_ms=_estimates(run.service_ms),
        server_ms=_estimates(run.server_ms),
        client_ms=_estimates(run.client_ms),
        generator_lag_ms=_estimates(run.generator_lag_ms),
        histogram=run.histogram,
    )


def write_result(found: Result, path: Path, run: LoadRun | None = None) -> Result:
    """Write the result, and the samples of ``run`` beside it as ``<name>.parquet``; returns what was written.

    Raises ParameterError when samples are to be kept and pyarrow is not installed, RecordError when the disk refuses.
    """
    if run is not None:
        samples = path.with_suffix(".parquet")
        _write_samples(run, samples)
        found = found.model_copy(update={"samples_file": samples.name})
    write_atomically(path, (found.model_dump_json(indent=1) + "\n").encode())
    return found


def read_result(path: Path) -> Result:
    """Read a result. Raises RecordError when it is missing, cut off, of another schema or not a result at all."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecordError(f"the result {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RecordError(
            f"the result {path} is none of this schema: {where}: {first['msg']}; measure again, or read it "
            "with the version that wrote it"
        ) from error


def read_samples(found: Result, path: Path) -> LoadRun:
    """The run whose result was read from ``path``. Raises RecordError when its samples were not kept or are not there.

    Raises ParameterError when pyarrow is not installed.
    """
    parquet = _parquet()
    if found.samples_file is None:
        raise RecordError(f"the result {path} was written without its samples; its histogram is in it")
    file = path.with_name(found.samples_file)
    try:
        table = parquet.read_table(file, columns=[*_COLUMNS])
    except (OSError, ValueError) as error:
        raise RecordError(f"the samples {file} cannot be read: {error}") from error
    arrays: dict[str, Any] = {name: table[name].to_numpy() for name in _COLUMNS}
    return LoadRun(
        found.load.seconds, found.load.time_limit_ms, **{**arrays, "failure": arrays["failure"].astype(np.str_)}
    )


def _estimates(values: NDArray[np.float64]) -> dict[str, Estimate]:
    told = values[~np.isnan(values)]
    return {name: quantile_of_series(told, share) for name, share in _QUANTILES.items()} if told.size else {}


def _write_samples(run: LoadRun, path: Path) -> None:
    parquet = _parquet()
    import pyarrow

    table = pyarrow.table({name: getattr(run, name) for name in _COLUMNS})
    temporary = path.with_suffix(".parquet.part")
    try:
        parquet.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"the samples {path} cannot be written: {error}") from error


def _parquet() -> Any:
    if find_spec("pyarrow") is None:
        raise ParameterError("raw samples are kept as Parquet, which wants pyarrow: pip install 'orchestra-lib[bench]'")
    from pyarrow import parquet

    return parquet
