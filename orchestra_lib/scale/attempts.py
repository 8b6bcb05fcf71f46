"""Running a pipeline to its end although its workers die: attempt after attempt, as long as one brings something.

The launcher needs no Beam: it starts the program of this package with the Python that has it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestra_lib import local_target
from orchestra_lib.errors import DataError
from orchestra_lib.memory.compare import Difference
from orchestra_lib.scale.backfill import begin, finish, held, ranges_there
from orchestra_lib.scale.checking import Checked, CheckedRange, together
from orchestra_lib.scale.extra import beam_python
from orchestra_lib.scale.runner import require_reachable_report
from orchestra_lib.scale.spec import EmbeddingSpec, TransferSpec
from orchestra_lib.settings import root

_FRUITLESS = 4
"""Attempts in a row that bring nothing, after which we give up: as often as Dataflow tries a bundle of a batch job."""
_SECONDS_BETWEEN_TICKS = 1.0
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
    spec: TransferSpec, flags: Sequence[str] = (), progress: Callable[[int, int], None] | None = None
) -> TransferRun:
    """Begin the transfer or go on with it, until every range is there.

    ``progress`` is called with ranges done and ranges in all. ``flags`` are Beam's. Raises DataError with what the last
    attempt said when four in a row bring nothing, ParameterError without Beam, TargetUnreachable, and LockHeld while
    somebody else copies or a stream runs.
    """
    began = time.monotonic()
    with _program("transfer", spec, flags) as attempt, held(spec):
        begun = begin(spec)
        ranges, missing = begun.ranges, len(begun.missing)
        attempts = _until_none_is_missing(
            lambda: attempt(_nothing if progress is None else lambda: progress(ranges_there(spec), ranges)),
            f"ranges of {spec.stream}",
            missing,
            lambda: ranges - ranges_there(spec),
        )
        if not begun.done:
            finish(spec)
    if progress is not None:
        progress(ranges, ranges)
    return TransferRun(ranges, ranges - missing, attempts, time.monotonic() - began)


def run_embedding(spec: EmbeddingSpec, flags: Sequence[str] = ()) -> tuple[Attempt, ...]:
    """Embed every memory anew into the table beside, or go on with it. Returns the attempts that it took.

    Raises DataError with what the last attempt said when four in a row bring nothing, ParameterError without Beam or
    without a model, TargetUnreachable.
    """
    from orchestra_lib.scale.embedding import begin_embedding, memories_left  # it takes a second, and models

    with _program("embed", spec, flags) as attempt:
        begin_embedding(spec)
        return _until_none_is_missing(
            lambda: attempt(_nothing), f"memories of {spec.memories}", memories_left(spec), lambda: memories_left(spec)
        )


def run_verification(spec: TransferSpec, report: str | None = None, flags: Sequence[str] = ()) -> Checked:
    """Compare both sides whole; reads only. ``report`` is a prefix of files that are kept: ``gs://…`` on Dataflow.

    Raises DataError when the pipeline does not come to its end in four attempts, or not every range was reported;
    ParameterError without Beam, or where workers elsewhere have no report that they can write to.
    """
    require_reachable_report(report, flags)
    python = beam_python()
    with tempfile.TemporaryDirectory(prefix="orchestra-scale-") as folder:
        spec_file = Path(folder) / "spec.json"
        spec_file.write_text(spec.as_json())
        written = f"--report={report or Path(folder) / 'report'}"
        for _ in range(_FRUITLESS):
            command = [str(python), "-m", "orchestra_lib.scale", "verify", str(spec_file), written, *flags]
            with _started(command) as started:
                attempt = started.ended(_nothing)
            if attempt.exit_code == 0:
                return together(map(_checked_range, attempt.result["ranges"]), attempt.result["made"])
    raise DataError(f"the verification did not come to its end in {_FRUITLESS} attempts: {attempt.said}")


def _until_none_is_missing(
    attempt: Callable[[], Attempt], what: str, missing: int, count_missing: Callable[[], int]
) -> tuple[Attempt, ...]:
    """Attempts until nothing is missing."""
    attempts, fruitless, of = list[Attempt](), 0, missing
    while missing:
        attempts.append(attempt())
        before, missing = missing, count_missing()
        fruitless = 0 if missing < before else fruitless + 1
        if missing and fruitless == _FRUITLESS:
            raise DataError(
                f"{missing} of {of} {what} are missing and {_FRUITLESS} attempts brought none of them; the last "
                f"one said: {attempts[-1].said}"
            )
    return tuple(attempts)


@contextmanager
def _program(
    pipeline: str, spec: TransferSpec | EmbeddingSpec, flags: Sequence[str]
) -> Iterator[Callable[[Callable[[], None]], Attempt]]:
    """What runs the program once, as often as it is called with what to do meanwhile.

    The first one comes up at once, and is held until it is called for: it imports Beam while its ranges are computed.
    Raises ParameterError without Beam.
    """
    python = beam_python()
    with tempfile.TemporaryDirectory(prefix="orchestra-scale-") as folder:
        spec_file = Path(folder) / "spec.json"
        spec_file.write_text(spec.as_json())
        command = [str(python), "-m", "orchestra_lib.scale", pipeline, str(spec_file), "--held", *flags]
        with _started(command) as first:
            coming_up = [first]

            def attempt(tick: Callable[[], None]) -> Attempt:
                if coming_up:
                    return coming_up.pop().ended(tick)
                with _started(command) as another:
                    return another.ended(tick)

            yield attempt


class _Running:
    """One run of the program, which is held until :meth:`ended` lets it begin."""

    def __init__(self, command: Sequence[str], output: IO[str], errors: IO[str]) -> None:
        self._began = time.monotonic()
        self._output, self._errors = output, errors
        path = os.pathsep.join(filter(None, [str(root()), os.getenv("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path, local_target.PYTHON_VARIABLE: sys.executable},
            # A session of its own, so that its workers can be found by its group.
            start_new_session=True,
        )
        self._is_over = False

    def ended(self, tick: Callable[[], None]) -> Attempt:
        """Let it begin, and wait until it has ended; ``tick`` is called once a second meanwhile."""
        self._say(b"begin\n")
        while not self._has_ended():
            tick()
        self.end()
        lines = [_lines(file) for file in (self._output, self._errors)]
        code = self._process.returncode
        result = json.loads(lines[0][-1]) if code == 0 and lines[0] else {}
        return Attempt(code, result, "; ".join(lines[1][-_LINES_TOLD:]), time.monotonic() - self._began)

    def _say(self, line: bytes) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError), self._process.stdin as pipe:  # it may have ended: its exit code says why
                pipe.write(line)

    def _has_ended(self) -> bool:
        try:
            self._process.wait(_SECONDS_BETWEEN_TICKS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kill whatever it started that is still there. Once only: later its number may be another's."""
        if self._is_over:
            return
        self._is_over = True
        self._say(b"")  # nothing more, if it was not let begin
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def _started(command: Sequence[str]) -> Iterator[_Running]:
    """A run of the program; what it started ends with the ``with`` block."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        running = _Running(command, output, errors)
        try:
            yield running
        finally:
            running.end()


def _nothing() -> None:
    """What there is to do meanwhile where nobody watches."""


def _lines(file: Any) -> list[str]:
    file.seek(0)
    return [line.strip() for line in file.read().splitlines() if line.strip()]


def _checked_range(values: dict[str, Any]) -> CheckedRange:
    return CheckedRange(**{**values, "named": tuple(Difference(**row) for row in values["named"])})
