"""Positions in the write-ahead log: numbers in code, ``16/B374D848`` in SQL and for people."""

from __future__ import annotations

from orchestra_lib.errors import DataError

_HALF_BITS = 32


def lsn_text(lsn: int) -> str:
    """The position as PostgreSQL writes it: the two halves in hexadecimal digits.

    https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """
    return f"{lsn >> _HALF_BITS:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """The number of bytes from the log's beginning. Raises DataError for what is no position."""
    high, _, low = text.partition("/")
    try:
        return (int(high, 16) << _HALF_BITS) + int(low, 16)
    except ValueError as error:
        raise DataError(f"{text!r} is no position of a write-ahead log; one looks like 16/B374D848") from error
