"""The forecast of a build's memory, held against pgvector's own refusal."""

from __future__ import annotations

import re

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.vectors.forms import ivfflat
from orchestra_lib.vectors.index import IndexSpec, planned_memory
from orchestra_lib.vectors.memory import ivfflat_build_memory


@pytest.mark.parametrize(
    ("lists", "rows", "mib"),
    [(100, 10**6, 65), (300, 10**6, 112), (500, 10**6, 205), (1000, 10**6, 507), (2000, 10**6, 1402),
     (4000, 10**6, 4359), (8000, 10**6, 14943), (4000, 10**5, 2832)],
)  # fmt: skip
def test_known_requirements_of_1536_dimensions(lists, rows, mib):
    assert ivfflat_build_memory(lists, rows, 1536, heap_blocks=10**6).required_mib == pytest.approx(mib, abs=1)


@pytest.mark.parametrize("lists", [150, 400])
def test_the_forecast_is_the_least_setting_with_which_the_server_builds(pair, lists):
    fill(pair.target, 600)
    with connect(pair.target) as connection:
        forecast = planned_memory(connection, IndexSpec("memories", ivfflat(lists), "vector_cosine_ops", 1536))
        assert least_setting_that_builds(connection, lists) == forecast.required_mib


def least_setting_that_builds(connection, lists):
    """Climb from refusal to refusal: each names what the next stage of the build would need."""
    mib = 1
    while True:
        connection.execute(f"SET maintenance_work_mem = '{mib}MB'")
        try:
            connection.execute(
                f"CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = {lists})"
            )
        except psycopg.errors.ProgramLimitExceeded as refusal:
            mib = int(re.search(r"memory required is (\d+) MB", str(refusal)).group(1))
        else:
            return mib


@given(st.integers(1, 32768), st.integers(0, 10**8), st.integers(1, 2000), st.integers(1, 10**7))
def test_the_forecast_is_positive_and_touched_memory_is_part_of_it(lists, rows, dimension, blocks):
    memory = ivfflat_build_memory(lists, rows, dimension, blocks)
    assert 0 < memory.resident_mib <= memory.required_mib <= memory.setting_mib
