"""When runbook 03 takes the pipeline, what it shows before, and what it says where workers could not reach a side."""

from __future__ import annotations

import pytest
from test_options import WORKERS, production

from orchestra_lib import settings
from orchestra_lib.database import connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.inventory import take_inventory
from orchestra_lib.memory.source import source_table
from orchestra_lib.move import Move
from orchestra_lib.phases import memory_at_scale
from orchestra_lib.phases.memory_at_scale import both_ways, copied_by_pipeline, wants_pipeline
from orchestra_lib.scale.attempts import TransferRun
from orchestra_lib.scale.extra import VARIABLE
from orchestra_lib.scale.health import Governor


@pytest.fixture
def taken(pair, transfer):
    with connect(pair.source) as source:
        return take_inventory(source, source_table(source, "memories", {}))


def local(**changes):
    loaded = settings.load("local")
    return loaded.model_copy(update={"scale": loaded.scale.model_copy(update=changes)})


def test_a_small_table_is_copied_by_one_process_and_nothing_is_said_of_another_way(pair, taken):
    assert both_ways(local(), taken) == ()
    assert copied_by_pipeline(local(), Move(local(), pair.source, pair.target), taken) == ()


def test_both_ways_are_shown_where_the_pipeline_is_taken(taken):
    one, piped = both_ways(local(pipeline_from_rows=1), taken)
    assert "the copy of one process" in one.claim
    assert "a pipeline of 2 cores here" in piped.claim
    assert one.value < piped.value  # 600 rows are there before a pipeline has begun
    _, there = both_ways(production(pipeline_from_rows=1, dataflow=WORKERS), taken)
    assert "a pipeline of 32 cores on Dataflow" in there.claim
    assert "USD" in there.note


def test_the_limit_of_all_workers_is_shared_by_as_many_as_dataflow_may_start(pair, taken, monkeypatch):
    asked = []
    done = TransferRun(ranges=1, ranges_before=0, attempts=(), seconds=0.0)
    monkeypatch.setattr(memory_at_scale, "run_transfer", lambda spec, *_: asked.append(spec) or done)
    wanted = local(pipeline_from_rows=1, rows_per_second=32_000, dataflow=WORKERS)
    copied_by_pipeline(wanted, Move(wanted, pair.source, pair.target), taken)
    here = local(pipeline_from_rows=1, rows_per_second=32_000)
    copied_by_pipeline(here, Move(here, pair.source, pair.target), taken)
    shares = [Governor(spec.pace, spec.workers).rows_per_second for spec in asked]
    assert shares == [32_000 / (8 * 4), 32_000 / 2], "eight machines of four cores, two processes here"


def test_a_store_that_stands_still_is_copied_by_one_process(taken):
    wanted = local(pipeline_from_rows=1)
    still = wanted.memory.model_copy(update={"stream": wanted.memory.stream.model_copy(update={"live": False})})
    assert not wants_pipeline(wanted.model_copy(update={"memory": still}), taken)


def test_without_beam_it_says_how_to_get_it(pair, taken, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    wanted = local(pipeline_from_rows=1)
    with pytest.raises(ParameterError, match=VARIABLE):
        copied_by_pipeline(wanted, Move(wanted, pair.source, pair.target), taken)


def test_a_side_behind_a_connector_of_this_process_is_refused(pair, taken):
    wanted = local(pipeline_from_rows=1)
    with pytest.raises(ParameterError, match="the target is reached through a connector of this process"):
        copied_by_pipeline(wanted, Move(wanted, pair.source, lambda **_: None), taken)
