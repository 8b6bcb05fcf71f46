"""The operating system's cache of a file: how much of it is there, and letting go of it. Linux only."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


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
    """The share of the files' pages that are in memory; None where it cannot be told, or where there is no page.

    Raises OSError when a file cannot be opened.
    """
    pages, cached = 0, 0
    for file in files:
        resident = _resident(file)
        if resident is None:
            return None
        pages += resident.size
        cached += int(np.count_nonzero(resident & 1))
    return cached / pages if pages else None


def _resident(file: Path) -> np.ndarray[tuple[int], np.dtype[np.uint8]] | None:
    """For each page whether it is in memory (mincore(2): the lowest bit); None where the kernel does not tell us."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        # To anybody else the kernel answers that all of it is (Linux 5.2, against side channels).
        if os.geteuid() not in (0, status.st_uid) and not os.access(file, os.W_OK):
            return None
        resident = np.zeros(-(-status.st_size // mmap.PAGESIZE), dtype=np.uint8)
        if not resident.size:
            return resident
        with mmap.mmap(descriptor, status.st_size, prot=mmap.PROT_READ) as mapped:
            # Looking at a page by reading it would bring it in; a mapping that nobody touches does not.
            view = np.frombuffer(mapped, dtype=np.uint8)
            failed = _libc.mincore(view.ctypes.data, status.st_size, resident.ctypes.data)
            del view  # a mapping that is looked at cannot be closed
        return None if failed else resident
    finally:
        os.close(descriptor)
