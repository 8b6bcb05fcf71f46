"""The thread that does the data plane's part of operations, one after another, outside the requests' transactions.

What is to be done stands in the store, so that a killed server goes on where it was: a piece of work may run twice.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from orchestra_lib.local.control import operations
from orchestra_lib.local.control.faults import Fault

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane


class Worker:
    """Runs the ``works`` of the services. Started with the first piece of work."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Say that there is work. It begins when the transaction that calls this has ended."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="data-plane", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """End the thread after the piece of work that it is at."""
        self._ended = True
        if self._thread:
            self._wake.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait()
            self._wake.clear()
            while not self._ended and (record := self._next()):
                self._work(record)

    def _next(self) -> operations.Record | None:
        with self._control.writing():
            waiting = self._control.store.working()
        return waiting[0] if waiting else None

    def _work(self, record: operations.Record) -> None:
        work = self._control.services[record["service"]].works[record["short_id"]]
        failure: Fault | None = None
        try:
            work(self._control, record)
        except Fault as fault:
            failure = fault
        except Exception as error:  # noqa: BLE001 - whatever went wrong has to end the operation, in words
            failure = Fault("INTERNAL", f"{type(error).__name__}: {error}")
        with self._control.writing():
            operations.worked(self._control, record, failure)
