"""List filters in the two common grammars: https://google.aip.dev/160 and compute's ``(name eq pattern)``.

A filter is compiled into a predicate over a resource's body. A field that the resource does not have is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestra_lib.local.control.faults import bad_field

Predicate = Callable[[Mapping[str, Any]], bool]
_TOKEN = re.compile(
    r"""\s*(?:(\(|\))|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(<=|>=|!=|=~|!~|=|<|>|:)|([^\s()=<>!:"']+(?:"[^"]*")?))"""
)
_WORD_OPERATORS = {"eq": "eq", "ne": "ne"}


def compiled(text: str) -> Predicate:
    """The predicate of a filter; an empty one lets everything through. Raises Fault (400) for what is no filter."""
    if not text.strip():
        return lambda _: True
    parser = _Parser(_tokens(text), text)
    result = parser.alternatives()
    if parser.rest():
        raise parser.refuse()
    return result


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise bad_field("filter", f'Invalid list filter: "{text}".')
        tokens.append(found.group().strip())
        at = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str], text: str) -> None:
        self._tokens, self._at, self._text = tokens, 0, text

    def rest(self) -> bool:
        return self._at < len(self._tokens)

    def refuse(self) -> Exception:
        return bad_field("filter", f'Invalid list filter: "{self._text}".')

    def _peek(self) -> str:
        return self._tokens[self._at] if self.rest() else ""

    def _take(self) -> str:
        token = self._peek()
        if token == "":
            raise self.refuse()
        self._at += 1
        return token

    def alternatives(self) -> Predicate:
        parts = [self._conjunction()]
        while self._peek() == "OR":
            self._take()
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else lambda body: any(part(body) for part in parts)

    def _conjunction(self) -> Predicate:
        parts = [self._term()]
        while self.rest() and self._peek() not in ("OR", ")"):
            if self._peek() == "AND":
                self._take()
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else lambda body: all(part(body) for part in parts)

    def _term(self) -> Predicate:
        if self._peek() in ("NOT", "-"):
            self._take()
            inner = self._term()
            return lambda body: not inner(body)
        if self._peek() == "(":
            self._take()
            inner = self.alternatives()
            if self._take() != ")":
                raise self.refuse()
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        field = self._take()
        negated = field.startswith("-") and len(field) > 1
        operator = self._take()
        operator = _WORD_OPERATORS.get(operator, operator)
        if operator not in _COMPARE:
            raise self.refuse()
        wanted = _unquoted(self._take())
        compare, path = _COMPARE[operator], field.removeprefix("-").replace('"', "").split(".")
        return lambda body: compare(_at(body, path), wanted) != negated


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token[:1] in "\"'" and len(token) > 1 else token


def _at(body: Mapping[str, Any], path: list[str]) -> Any:
    found: Any = body
    for index, step in enumerate(path):
        if not isinstance(found, Mapping):
            return None
        rest = ".".join(path[index:])
        if rest in found:  # a label whose key holds dots
            return found[rest]
        camel = re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), step)
        found = found.get(step, found.get(camel))
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _equal(value: Any, wanted: str) -> bool:
    if isinstance(value, list):
        return any(_equal(item, wanted) for item in value)
    if "*" in wanted:
        pattern = ".*".join(re.escape(part) for part in wanted.split("*"))
        return re.fullmatch(pattern, _text(value), re.DOTALL) is not None
    return _text(value) == wanted or (isinstance(value, int | float) and _number(wanted) == value)


def _has(value: Any, wanted: str) -> bool:
    if wanted == "*":
        return value not in (None, "", [], {})
    if isinstance(value, Mapping):
        return wanted in value
    if isinstance(value, list):
        return any(_has(item, wanted) for item in value)
    return wanted.strip("*").lower() in _text(value).lower()


def _matches(value: Any, pattern: str) -> bool:
    try:
        return re.fullmatch(pattern, _text(value)) is not None
    except re.error as error:
        raise bad_field("filter", f'Invalid list filter: "{pattern}" is no regular expression: {error}.') from None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _less(value: Any, wanted: str) -> bool:
    left, right = _number(_text(value)), _number(wanted)
    return left < right if left is not None and right is not None else value is not None and _text(value) < wanted


_COMPARE: Mapping[str, Callable[[Any, str], bool]] = {
    "=": _equal,
    "!=": lambda value, wanted: not _equal(value, wanted),
    ":": _has,
    "<": _less,
    "<=": lambda value, wanted: _less(value, wanted) or _equal(value, wanted),
    ">": lambda value, wanted: value is not None and not _less(value, wanted) and not _equal(value, wanted),
    ">=": lambda value, wanted: value is not None and not _less(value, wanted),
    "eq": _matches,
    "ne": lambda value, wanted: not _matches(value, wanted),
    "=~": lambda value, wanted: re.search(wanted, _text(value)) is not None,
    "!~": lambda value, wanted: re.search(wanted, _text(value)) is None,
}
