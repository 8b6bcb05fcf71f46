"""The keys that a stream applies while somebody listens: what has to be compared again after everything was."""

from __future__ import annotations

import threading
from collections.abc import Collection

from orchestra_lib.errors import DataError


class Touched:
    """Give it to a stream as what it calls for each batch. It keeps nothing until :meth:`listen` is called."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()
        self._listening = self._emptied = False
        self._lock = threading.Lock()
        self.last_lsn = 0
        """The position of the last commit that changed something."""

    def __call__(self, keys: Collection[bytes] | None, last_lsn: int) -> None:
        """Take note of a batch; ``keys`` None: the whole table was emptied."""
        with self._lock:
            self.last_lsn = max(self.last_lsn, last_lsn)
            if not self._listening:
                return
            self._emptied |= keys is None
            self._keys.update(keys or ())

    def listen(self) -> None:
        """Keep the keys from now on; those of before are forgotten."""
        with self._lock:
            self._listening, self._emptied = True, False
            self._keys.clear()

    def forget(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._listening = False
            self._keys.clear()

    def take(self) -> frozenset[str]:
        """The keys since the last call. Raises DataError when the table was emptied: then none is left to name."""
        with self._lock:
            keys, self._keys = self._keys, set()
            if self._emptied:
                raise DataError("the table was emptied (TRUNCATE) while it was being compared: begin again")
        return frozenset(key.decode() for key in keys)
