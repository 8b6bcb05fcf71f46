"""The forecast of a build's memory, held against pgvector's own refusal."""

from __future__ import annotations

import re

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searched_table import DIMENSION, make_table
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.vectors.forms import EXACT, Storage, hnsw, ivfflat, scann
from orchestra_lib.vectors.index import IndexSpec, build_index, planned_memory
from orchestra_lib.vectors.memory import build_memory, hnsw_build_memory, ivfflat_build_memory


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
        wanted = IndexSpec("memories", ivfflat(lists), "vector_cosine_ops", 1536)
        assert least_setting_that_builds(connection, wanted) == planned_memory(connection, wanted).required_mib


def least_setting_that_builds(connection, wanted):
    """Climb from refusal to refusal: each names what the next stage of the build would need."""
    mib = 1
    while True:
        connection.execute(f"SET maintenance_work_mem = '{mib}MB'")
        try:
            connection.execute(wanted.create_statement(concurrently=False))
        except psycopg.errors.ProgramLimitExceeded as refusal:
            mib = int(re.search(r"memory required is (\d+) MB", str(refusal)).group(1))
        else:
            return mib


@given(st.integers(1, 32768), st.integers(0, 10**8), st.integers(1, 2000), st.integers(1, 10**7))
def test_the_forecast_is_positive_and_touched_memory_is_part_of_it(lists, rows, dimension, blocks):
    memory = ivfflat_build_memory(lists, rows, dimension, blocks)
    assert 0 < memory.resident_mib <= memory.required_mib <= memory.setting_mib


@pytest.mark.parametrize("storage", Storage)
def test_the_forecast_for_ivfflat_holds_for_every_storage(pair, storage):
    fill(pair.target, 600)
    with connect(pair.target) as connection:
        wanted = IndexSpec("memories", ivfflat(300, storage), "vector_cosine_ops", 1536)
        forecast = planned_memory(connection, wanted).required_mib
        assert least_setting_that_builds(connection, wanted) == forecast


@pytest.mark.parametrize(("m", "storage"), [(4, Storage.VECTOR), (16, Storage.HALFVEC), (48, Storage.BIT)])
def test_an_hnsw_graph_fits_into_the_forecast_and_not_into_much_less(pair, m, storage):
    """The server says after how many rows the graph no longer fits; below 3 MiB it keeps nothing back."""
    setting_mib, notices, form = 2, [], hnsw(m, 2 * m, storage)
    per_row = hnsw_build_memory(m, 10**6, DIMENSION, storage).resident_mib * 2**20 / 10**6
    make_table(pair.target, int(1.04 * setting_mib * 2**20 / per_row))  # each row that does not fit takes its time
    with connect(pair.target) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        connection.execute(f"SET maintenance_work_mem = '{setting_mib}MB'")
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute(form.create_statement("memories", "embedding", DIMENSION, "vector_cosine_ops"))
    fitting = int(re.search(r"no longer fits into maintenance_work_mem after (\d+) tuples", " ".join(notices)).group(1))
    assert fitting * per_row == pytest.approx(setting_mib * 2**20, rel=0.02)


def test_known_needs_of_hnsw_per_million_rows_of_1536_dimensions():
    assert hnsw_build_memory(16, 10**6, 1536).resident_mib == pytest.approx(6_541, abs=2)
    assert hnsw_build_memory(16, 10**6, 1536, Storage.HALFVEC).resident_mib == pytest.approx(3_611, abs=2)
    assert hnsw_build_memory(16, 10**6, 1536, Storage.BIT).resident_mib == pytest.approx(865, abs=2)


def test_an_hnsw_build_that_would_go_on_on_the_disk_is_refused_before_it_starts(pair):
    fill(pair.target, 300)
    wanted = IndexSpec("memories", hnsw(), "vector_cosine_ops", 1536, maintenance_work_mem_mib=2)
    with pytest.raises(GateFailed, match=r"HNSW with m 16, ef_construction 64 needs maintenance_work_mem of 6 MiB.*2"):
        build_index(pair.target, wanted, None, lambda _: None)


@pytest.mark.parametrize("form", [EXACT, ivfflat()], ids=lambda form: form.label)
def test_what_a_form_needs_that_is_not_built_here_is_not_known(form):
    with pytest.raises(ParameterError, match="is not known"):
        build_memory(form, 1_000, 1536, 100)


def test_alloydb_does_not_say_what_scann_needs_and_neither_do_we():
    assert not build_memory(scann(100), 10**6, 1536, 10**6).is_known
