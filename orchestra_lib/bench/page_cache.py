"""The operating system's cache of a file: how much of it is there, and letting go of it. Linux only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

_PROBES = 256
"""Of a file, spread evenly: the share that is cached is then known to a few per cent."""


def drop(files: Iterable[Path]) -> None:
    """Let the operating system forget what it caches of the files. What is not on the disk yet is written first.

    Raises OSError when a file cannot be opened.
    """
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only pages that are on the disk are forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_share(files: Iterable[Path]) -> float | None:
    """The share of the files' bytes that a read would find in memory, from samples; None where it cannot be told.

    Raises OSError when a file cannot be opened.
    """
    total, cached = 0, 0.0
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            offsets = range(0, size, max(1, size // _PROBES))
            found = [_is_cached(descriptor, offset) for offset in offsets]
        finally:
            os.close(descriptor)
        if None in found:
            return None
        total += size
        cached += size * sum(map(bool, found)) / max(1, len(found))
    return cached / total if total else None


def _is_cached(descriptor: int, offset: int) -> bool | None:
    try:
        # A read that may not wait for the disk is refused where it would have to (preadv2(2), RWF_NOWAIT).
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None  # this file system does not know it
        raise
    return True
