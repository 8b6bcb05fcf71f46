"""Nothing in the library states a number as measured that stands in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from orchestra_lib.settings import root

_FOUND_OUT = ("MEASURED", "OBSERVED", "REHEARSED")
_MAKERS = {"Evidence": 2, "yes_or_no": 2}
"""What makes a row, and which of its arguments is the value."""


def literals(source: str) -> Iterator[int]:
    """The lines in which a row is made whose value is a literal number, though it claims to have been found out."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS):
            continue
        place = _MAKERS[node.func.id]
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        value = node.args[place] if len(node.args) > place else named.get("value", named.get("holds"))
        stated = node.args[1] if len(node.args) > 1 else named.get("source")
        is_number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
        admits_failure = is_number and node.func.id == "yes_or_no" and not value.value
        if is_number and not admits_failure and isinstance(stated, ast.Attribute) and stated.attr in _FOUND_OUT:
            yield node.lineno


@pytest.mark.parametrize(
    ("row", "is_lie"),
    [
        ('Evidence("p95", Source.MEASURED, 3.2, "ms", Bound("<", 30))', True),
        ('Evidence("p95", source=Source.OBSERVED, value=3)', True),
        ('yes_or_no("rows are equal", Source.MEASURED, True)', True),
        ('yes_or_no("rows are equal", Source.MEASURED, False)', False),
        ('Evidence("p95", Source.MEASURED, found.p95, "ms")', False),
        ('Evidence("p95", Source.ASSUMED, 120.0, "ms")', False),
        ('Evidence("the stream", Source.OBSERVED, "rests")', False),
    ],
)
def test_a_literal_that_claims_to_be_found_out_is_seen(row: str, is_lie: bool) -> None:
    assert bool(list(literals(row))) is is_lie


def test_no_row_of_the_library_has_a_literal_for_a_finding() -> None:
    found = [
        f"{path.relative_to(root())}:{line}"
        for path in sorted((root() / "orchestra_lib").rglob("*.py"))
        for line in literals(path.read_text())
    ]
    assert found == []
