"""Beam's worker processes on this machine: forked from the launcher once it has imported everything.

Beam's own way (``direct_running_mode=multi_processing``) starts a new Python for each worker, which imports Beam for
one or two seconds while nothing else goes on. A fork has it all at once. It has to be made before gRPC or any other
thread is at work, so workers are forked early and wait until the runner asks for them.

FnApiRunner does not look after its workers: one that dies leaves it waiting for ever. We end instead, at once, and
``attempts`` starts what is missing anew, as Dataflow does with a bundle.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import text_format

from orchestra_lib.errors import ParameterError

WORKER_DIED = 75
"""EX_TEMPFAIL: what is missing can be done by another attempt."""


@dataclass(frozen=True)
class _Waiting:
    """A worker that waits for the variables that say whose it is; ``pipe`` is the descriptor to write them to."""

    pid: int
    pipe: int

    def begin(self, variables: Mapping[str, str]) -> None:
        # It may have died while it waited: who watches it finds that out and ends the launcher.
        with suppress(BrokenPipeError), os.fdopen(self.pipe, "w") as pipe:
            print(json.dumps(variables), file=pipe)


_waiting: list[_Waiting] = []


def fork_workers(count: int) -> None:
    """Fork so many workers, for the runner to take. Call it when all is imported, and before anything is connected."""
    sys.stdout.flush()
    sys.stderr.flush()
    _waiting.extend(_forked() for _ in range(count))


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class ForkedWorkerHandler(GrpcWorkerHandler):  # type: ignore[misc]
    """Takes a worker that waits, in the place of Beam's handler that would start a program."""

    def __init__(self, _command_line: bytes, *of_the_runner: object) -> None:
        super().__init__(*of_the_runner)

    def start_worker(self) -> None:
        """Let a worker begin. Raises ParameterError when more are asked for than were forked."""
        if not _waiting:
            raise ParameterError("direct_num_workers is more than the workers of the spec: change it there")
        worker = _waiting.pop()
        control = text_format.MessageToString(self.control_api_service_descriptor())
        worker.begin({"CONTROL_API_SERVICE_DESCRIPTOR": control, "WORKER_ID": self.worker_id})
        self._watch = threading.Thread(target=_end_with, args=[worker.pid], daemon=True)
        self._watch.start()

    def stop_worker(self) -> None:
        """Wait until the worker, whose connection was closed, has ended."""
        self._watch.join()


def _forked() -> _Waiting:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        _work(reading)
    os.close(reading)
    return _Waiting(pid, writing)


def _work(pipe: int) -> NoReturn:
    """A worker's life, which ends with its process: what the launcher would do at its end is not a worker's to do."""
    exit_code = 1
    try:
        with os.fdopen(pipe) as variables:
            told = variables.readline()  # not to its end: workers that were forked later have this pipe too
        if told:  # nothing, when the launcher has gone
            os.environ.update(json.loads(told))
            sdk_worker_main.main([])
        exit_code = 0
    except BaseException:  # noqa: BLE001 - it ends here, with what happened told
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


def _end_with(pid: int) -> None:
    """End the launcher as soon as a worker dies; return when it ends as it should."""
    _, status = os.waitpid(pid, 0)
    if status:
        print(f"a worker died: {os.waitstatus_to_exitcode(status)}", file=sys.stderr, flush=True)
        os._exit(WORKER_DIED)
