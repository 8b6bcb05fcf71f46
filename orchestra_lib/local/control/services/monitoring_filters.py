"""Cloud Monitoring's filters, turned into the common grammar: selectors, and functions of strings.

https://cloud.google.com/monitoring/api/v3/filters
"""

from __future__ import annotations

import re
from collections.abc import Callable

from orchestra_lib.local.control.faults import Fault, bad_field

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_FUNCTION = re.compile(
    rf"(!?=)\s*(starts_with|ends_with|has_substring|monitoring\.regex\.full_match)\(\s*({_QUOTED})\s*\)"
)
_PATTERNS = {"starts_with": "^{}", "ends_with": "{}$", "has_substring": "{}"}
_ANY_FUNCTION = re.compile(r"\b(?!(?:AND|OR|NOT)\()[A-Za-z_.]+\(")
_NOT_DONE = re.compile(r"\b(?:group|metadata|project)\b")
_METRIC_TYPE = re.compile(rf"\bmetric\.type\s*=\s*({_QUOTED})")


def for_series(text: str) -> tuple[str, str]:
    """The one metric type that a filter over time series names, and the filter in the common grammar.

    Raises Fault: 400 for a filter that names no type or several, 501 for what is not served here.
    """
    named = {found[1:-1] for found in _METRIC_TYPE.findall(text)}
    if len(named) != 1:
        words = "The filter must specify a single metric type."
        raise bad_field("filter", f'Field filter had an invalid value of "{text}": {words}')
    return named.pop(), _common(text)


def for_descriptors(text: str) -> str:
    """A filter over metric descriptors in the common grammar, in which ``metric.type`` is the descriptor's type."""
    return _outside_quotes(_common(text), lambda part: re.sub(r"\bmetric\.type\b", "type", part))


def _common(text: str) -> str:
    common = _FUNCTION.sub(_as_pattern, text)
    bare = re.sub(_QUOTED, '""', common)
    for unserved in (_ANY_FUNCTION, _NOT_DONE):
        found = unserved.search(bare)
        if found:
            raise Fault("UNIMPLEMENTED", f"The local Google Cloud does not serve '{found[0]}' in a monitoring filter.")
    return _outside_quotes(common, lambda part: re.sub(r"\b(metric|resource)\.label\.", r"\1.labels.", part))


def _as_pattern(found: re.Match[str]) -> str:
    operator, function, quoted = found.groups()
    text = re.sub(r"\\(.)", r"\1", quoted[1:-1])
    pattern = _PATTERNS[function].format(re.escape(text)) if function in _PATTERNS else f"^(?:{text})$"
    try:
        re.compile(pattern)
    except re.error as error:
        words = f"is no regular expression: {error}."
        raise bad_field("filter", f'Field filter had an invalid value of "{text}": It {words}') from None
    escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
    return f'{"!~" if operator == "!=" else "=~"} "{escaped}"'


def _outside_quotes(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(f"({_QUOTED})", text)
    return "".join(part if place % 2 else change(part) for place, part in enumerate(parts))
