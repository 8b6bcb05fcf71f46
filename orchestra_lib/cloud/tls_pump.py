"""Between a TLS connection and a plain socket: one thread that alone touches the TLS connection.

The connector moves psycopg's bytes with two threads that read, write and close one ``ssl.SSLSocket`` at the same time,
which OpenSSL does not allow. Sessions hang, and a thread that finds the connection cut sends its TLS alert to a file
descriptor that another has closed and a third may have opened again: the alert lands in somebody else's connection.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

_CHUNK_BYTES = 1 << 16
_T = TypeVar("_T")
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def plain_end(tls: ssl.SSLSocket) -> socket.socket:
    """A plain socket that is, from now on, the TLS connection: what is written here is sent there, and back.

    The connection is the pump's; closing the socket closes it.
    """
    inner, outer = socket.socketpair()
    inner.setblocking(False)
    tls.setblocking(False)
    threading.Thread(target=_pump, args=(inner, tls), name="TLS pump", daemon=True).start()
    return outer


@dataclass
class _Way:
    """One direction: what was read and not yet written, and whether the reading end is at its end."""

    source: socket.socket
    sink: socket.socket
    waiting: memoryview = field(default_factory=lambda: memoryview(b""))
    ended: bool = False

    def step(self, waits: dict[socket.socket, int]) -> bool:
        """Move what can be moved without waiting, and note in ``waits`` what to wait for. False: nothing moved."""
        if self.waiting:
            sent = _tried(lambda: self.sink.send(self.waiting), self.sink, _WRITE, waits)
            self.waiting = self.waiting[sent or 0 :]
            return bool(sent)
        if self.ended:
            return False
        read = _tried(lambda: self.source.recv(_CHUNK_BYTES), self.source, _READ, waits)
        if read is None:
            return False
        self.waiting, self.ended = memoryview(read), not read
        return True


def _tried(call: Callable[[], _T], on: socket.socket, wants: int, waits: dict[socket.socket, int]) -> _T | None:
    """The call's result; None when it would have had to wait. TLS may have to write in order to read, and back."""
    try:
        return call()
    except ssl.SSLWantReadError:
        wants = _READ
    except ssl.SSLWantWriteError:
        wants = _WRITE
    except BlockingIOError:
        pass
    waits[on] = waits.get(on, 0) | wants
    return None


def _pump(plain: socket.socket, tls: ssl.SSLSocket) -> None:
    """Move bytes both ways until one end has said its last and the other has been told all of it."""
    ways = _Way(plain, tls), _Way(tls, plain)
    with plain, tls, suppress(OSError):  # whoever is cut off sees its own end closed
        while not any(way.ended and not way.waiting for way in ways):
            waits: dict[socket.socket, int] = {}
            moved = [way.step(waits) for way in ways]  # both, or one could keep the other waiting
            if not any(moved):
                _wait(waits)


def _wait(waits: dict[socket.socket, int]) -> None:
    with selectors.DefaultSelector() as selector:
        for one, events in waits.items():
            selector.register(one, events)
        selector.select()
