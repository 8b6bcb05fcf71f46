"""One page of a list. https://google.aip.dev/158"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TypeVar

from orchestra_lib.local.control.faults import bad_field

_DEFAULT_SIZE = 500
_LARGEST = 1000
Item = TypeVar("Item")


def page(
    items: Sequence[Item], query: Mapping[str, str], *, usual: int = _DEFAULT_SIZE, largest: int = _LARGEST
) -> tuple[list[Item], str]:
    """The items that the query's ``pageSize``/``maxResults`` and ``pageToken`` ask for, and the next page's token.

    The token is empty on the last page. ``usual`` is the size when none is asked for. Raises Fault (400) for a size or
    token that is none.
    """
    size = min(_size(query) or usual, largest)
    start = _start(query.get("pageToken", ""))
    rest = start + size
    return list(items[start:rest]), _token(rest) if rest < len(items) else ""


def _size(query: Mapping[str, str]) -> int:
    name = "maxResults" if "maxResults" in query else "pageSize"
    text = query.get(name, "0")
    if not text.lstrip("-").isdigit() or int(text) < 0:
        raise bad_field(name, f"Invalid value at '{name}' (TYPE_INT32), \"{text}\": page size cannot be negative.")
    return int(text)


def _token(start: int) -> str:
    return base64.urlsafe_b64encode(f"from {start}".encode()).decode()


def _start(token: str) -> int:
    if not token:
        return 0
    try:
        word, _, start = base64.urlsafe_b64decode(token).decode().partition(" ")
    except (binascii.Error, ValueError):
        word, start = "", ""
    if word != "from" or not start.isdigit():
        raise bad_field("page_token", f'Invalid page token "{token}".')
    return int(start)
