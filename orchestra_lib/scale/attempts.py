"""Running a pipeline to its end although its workers die: attempt after attempt, as long as one brings something.

The launcher needs no Beam: it starts the program of this package with the Python that has it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_lib.errors import DataError
from orchestra_lib.memory.compare import Difference
from orchestra_lib.scale.backfill import begin, finish, ranges_there
from orchestra_lib.scale.checking import Checked, CheckedRange, together
from orchestra_lib.scale.extra import beam_python
from orchestra_lib.scale.spec import EmbeddingSpec, TransferSpec
from orchestra_lib.settings import root

_FRUITLESS = 4
"""Attempts in a row that bring nothing, after which we give up: as often as Dataflow tries a bundle of a batch job."""
_POLL_SECONDS = 0.5
_LINES_TOLD = 5


@dataclass(frozen=True)
class Attempt:
    """One run of the program: how it ended and what it said of that; its result if it came to its end."""

    exit_code: int
    result: dict[str, Any]
    said: str
    seconds: float


@dataclass(frozen=True)
class TransferRun:
    """A transfer that is complete. ``ranges_before`` were there when it was started."""

    ranges: int
    ranges_before: int
    attempts: tuple[Attempt, ...]
    seconds: float


def run_transfer(
    spec: TransferSpec,
    flags: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _ranges: None,
) -> TransferRun:
    """Begin the transfer or go on with it, until every range is there.

    ``progress`` is called with ranges done and ranges in all. ``flags`` are Beam's. Raises DataError with what the last
    attempt said when four in a row bring nothing, ParameterError without Beam, TargetUnreachable.
    """
    began = time.monotonic()
    beam_python()
    begun = begin(spec)
    ranges, missing = begun.ranges, len(begun.missing)
    attempts = _until_none_is_missing(
        ["transfer", spec.as_json(), *flags],
        f"ranges of {spec.stream}",
        missing,
        lambda: ranges - ranges_there(spec),
        lambda: progress(ranges_there(spec), ranges),
    )
    if missing:
        finish(spec)
    return TransferRun(ranges, ranges - missing, attempts, time.monotonic() - began)


def run_embedding(spec: EmbeddingSpec, flags: Sequence[str] = ()) -> tuple[Attempt, ...]:
    """Embed every memory anew into the table beside, or go on with it. Returns the attempts that it took.

    Raises DataError with what the last attempt said when four in a row bring nothing, ParameterError without Beam or
    without a model, TargetUnreachable.
    """
    from orchestra_lib.scale.embedding import begin_embedding, memories_left  # it takes a second, and models

    beam_python()
    begin_embedding(spec)
    missing = memories_left(spec)
    what = f"memories of {spec.memories}"
    return _until_none_is_missing(
        ["embed", spec.as_json(), *flags], what, missing, lambda: memories_left(spec), lambda: None
    )


def run_verification(spec: TransferSpec, report: str | None = None, flags: Sequence[str] = ()) -> Checked:
    """Compare both sides whole; reads only. ``report`` is a prefix of files that are kept: ``gs://…`` on Dataflow.

    Raises DataError when the pipeline does not come to its end in four attempts, ParameterError without Beam.
    """
    python = beam_python()
    with tempfile.TemporaryDirectory(prefix="orchestra-scale-") as folder:
        spec_file = Path(folder) / "spec.json"
        spec_file.write_text(spec.as_json())
        for number in range(_FRUITLESS):
            written = f"{report or Path(folder) / 'report'}-{number}"
            command = [str(python), "-m", "orchestra_lib.scale", "verify", str(spec_file)]
            attempt = _attempt([*command, f"--report={written}", *flags], lambda: None)
            if attempt.exit_code == 0:
                return together(map(_checked_range, attempt.result["ranges"]))
    raise DataError(f"the verification did not come to its end in {_FRUITLESS} attempts: {attempt.said}")


def _until_none_is_missing(
    arguments: Sequence[str], what: str, missing: int, count_missing: Callable[[], int], tick: Callable[[], None]
) -> tuple[Attempt, ...]:
    """Attempts until nothing is missing. ``arguments``: the pipeline, its spec as JSON, Beam's flags."""
    pipeline, spec, *flags = arguments
    attempts, fruitless, of = list[Attempt](), 0, missing
    with tempfile.TemporaryDirectory(prefix="orchestra-scale-") as folder:
        spec_file = Path(folder) / "spec.json"
        spec_file.write_text(spec)
        command = [str(beam_python()), "-m", "orchestra_lib.scale", pipeline, str(spec_file), *flags]
        while missing:
            attempts.append(_attempt(command, tick))
            before, missing = missing, count_missing()
            fruitless = 0 if missing < before else fruitless + 1
            if missing and fruitless == _FRUITLESS:
                raise DataError(
                    f"{missing} of {of} {what} are missing and {_FRUITLESS} attempts brought none of them; the last "
                    f"one said: {attempts[-1].said}"
                )
    return tuple(attempts)


def _attempt(command: Sequence[str], tick: Callable[[], None]) -> Attempt:
    """Run the program once; whatever it started ends with it."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root()), os.getenv("PYTHONPATH")]))}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        # A session of its own, so that its workers can be found by its group.
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                tick()
                time.sleep(_POLL_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = [_lines(file) for file in (output, errors)]
    result = json.loads(lines[0][-1]) if process.returncode == 0 and lines[0] else {}
    return Attempt(process.returncode, result, "; ".join(lines[1][-_LINES_TOLD:]), time.monotonic() - began)


def _lines(file: Any) -> list[str]:
    file.seek(0)
    return [line.strip() for line in file.read().splitlines() if line.strip()]


def _checked_range(values: dict[str, Any]) -> CheckedRange:
    return CheckedRange(**{**values, "named": tuple(Difference(**row) for row in values["named"])})
