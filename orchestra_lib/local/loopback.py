"""Loopback addresses: all of 127.0.0.0/8 belongs to the machine itself, and each control plane has a network in it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

FIRST_HOST, LAST_HOST = 10, 254
# Loopback networks that other programs listen in: 127.0.0.1 itself, the resolver at 127.0.0.53, Debian's 127.0.1.1.
_NETWORKS_OF_OTHERS = 2


def network(directory: Path) -> str:
    """``127.a.b``: the network of the control plane of that directory, so that two on one machine do not meet."""
    digest = hashlib.sha256(str(directory.absolute()).encode()).digest()
    number = _NETWORKS_OF_OTHERS + int.from_bytes(digest[:4]) % (2**16 - _NETWORKS_OF_OTHERS)
    return f"127.{number >> 8}.{number & 0xFF}"


def free_address(directory: Path, taken: Collection[str]) -> str | None:
    """An address of the network that is not taken; None when all are."""
    prefix = network(directory)
    return next(
        (address for host in range(FIRST_HOST, LAST_HOST + 1) if (address := f"{prefix}.{host}") not in taken),
        None,
    )
