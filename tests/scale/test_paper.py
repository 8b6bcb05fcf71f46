"""The paper plan: what the document says is what the program computes, and that agrees with what was measured."""

from __future__ import annotations

from itertools import pairwise

import pytest

from orchestra_lib.scale.paper import SIZES, plan, table
from orchestra_lib.settings import root


def test_the_document_has_the_table_that_the_program_prints():
    text = (root() / "docs" / "scale.md").read_text()
    assert text.partition("<!-- table -->")[2].partition("<!-- end -->")[0].strip() == table()


def test_a_search_at_200_000_rows_is_what_was_measured_there():
    """894 lists: measured were 2.45 ms at 1,000 lists and 4.85 to 6.95 at 447 (p50 to p95)."""
    assert plan(200_000).search_ms == pytest.approx(3, abs=1)
    assert plan(200_000).exact_ms == pytest.approx(668, rel=0.05)


def test_what_grows_with_the_rows_grows():
    plans = [plan(rows) for rows in SIZES]
    for smaller, larger in pairwise(plans):
        assert larger.index_gb > smaller.index_gb
        assert larger.search_ms > smaller.search_ms
        assert larger.build_gb >= smaller.build_gb
    assert plans[0].vcpus == 2
    assert plans[-1].vcpus is None
