"""A stream in a thread of this process, for whoever has to wait for it and stop it: the cutover, and tests."""

from __future__ import annotations

import threading
from types import TracebackType

from orchestra_lib.memory.stream import OnApplied, Stream, StreamSpec
from orchestra_lib.memory.stream_errors import StreamBroken
from orchestra_lib.memory.stream_status import StreamStatus


class RunningStream:
    """A stream that runs from entering the block to its end. What ended it before is raised by whoever asks next."""

    def __init__(self, spec: StreamSpec, applied: OnApplied = lambda _keys, _lsn: None) -> None:
        self._stream = Stream(spec, applied)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __enter__(self) -> RunningStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if error is None:
            self.require_running()

    def status(self) -> StreamStatus:
        """How it stands now."""
        return self._stream.status()

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Whether everything before ``lsn`` is on the target, once waited for. Raises what ended the stream."""
        there = self._stream.wait_for(lsn, timeout_seconds)
        if not there:
            self.require_running()
        return there

    def stop(self) -> None:
        """End the stream in order; nothing that is confirmed is lost, nothing else was. Raises what ended it before."""
        self._end()
        self.require_running()

    def require_running(self) -> None:
        """Raise what ended the stream before it was asked to end, StreamBroken where nobody knows what it was."""
        failure = self._failure
        if failure is not None:
            raise failure
        if not self._thread.is_alive() and not self._stop.is_set():
            raise StreamBroken("the stream has ended without being asked to")

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._stream.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asks
            self._failure = error
