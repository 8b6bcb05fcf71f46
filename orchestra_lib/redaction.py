"""Taking secrets out of what is shown, logged or kept.

Two nets: the values that are known to be secret (every :class:`Secret` made in this process, and the environment
variables that are named like one), in every form in which text carries them; and the shapes that secrets have wherever
they come from.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeVar, cast

from orchestra_lib.secret import MASK, register, registered

Json = TypeVar("Json")

_SECRET_VARIABLE = re.compile(r"PGPASSWORD|.*_(TOKEN|PASSWORD|SECRET|API_KEY)", re.IGNORECASE)

# Group 1 stays, group 2 is masked. No pattern crosses a quote or a backslash, so JSON text stays JSON.
_SHAPES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(://[^\s:/@\"'\\<>]*:)([^\s@\"'\\<>]+)(?=@)",  # the password of a URL
        r"(?i)(\b(?:password|passwd|pgpassword|sslpassword)\s*=\s*)([^\s\"'\\&;<>]+)",  # of a DSN, of a command line
        r"(?i)(\b(?:password|passwd|pgpassword|sslpassword)\s*=\s*')([^'\"\\]+)",  # the same, quoted
        r"(?i)(\bauthorization\s*:\s*(?:bearer|basic)\s+)([\w.~+/=-]+)",
        r"()(\bya29\.[\w-]{20,})",  # Google's access tokens
        r"()(\bAIza[\w-]{35})",  # and API keys
        r"()(\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)",  # signed JSON web tokens
        r"()(-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"<]*?-----END [A-Z ]*PRIVATE KEY-----)",
    )
)


def redact(text: str) -> str:
    """The text with every secret replaced by ``***``."""
    return _without(text, _forms())


def redact_json(value: Json) -> Json:
    """A copy of a JSON value with every text in it redacted, the keys of mappings too."""
    return cast("Json", _redacted(value))


def survivors(text: str) -> int:
    """How many secrets are still to be seen in a text that was redacted; 0 is what it has to be."""
    known = sum(form in text for form in _forms())
    return known + sum(MASK not in match[2] for shape in _SHAPES for match in shape.finditer(text))


def learn_environment() -> None:
    """Make the secrets among this process's environment variables known, by the names that they have."""
    for name, value in os.environ.items():
        if value and _SECRET_VARIABLE.fullmatch(name):
            register(value)


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key) if isinstance(key, str) else key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value


# A notebook is saved at every cell, and most of its text (plotly's own code alone is 5 MB) has been judged before.
@lru_cache(maxsize=4096)
def _without(text: str, forms: tuple[str, ...]) -> str:
    for form in forms:
        text = text.replace(form, MASK)
    for shape in _SHAPES:
        text = shape.sub(rf"\1{MASK}", text)
    return text


def _forms() -> tuple[str, ...]:
    return _forms_of(registered())


@lru_cache(maxsize=8)
def _forms_of(values: frozenset[str]) -> tuple[str, ...]:
    """Secrets as text may carry them, the longest first so that none hides behind a shorter one."""
    return tuple(sorted({form for value in values for form in _written(value)}, key=len, reverse=True))


def _written(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield urllib.parse.quote(value, safe="")
    yield base64.b64encode(value.encode()).decode().rstrip("=")
