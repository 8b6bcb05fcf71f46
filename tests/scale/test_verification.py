"""A verification says that both sides are the same only where every range was compared, and by itself."""

from __future__ import annotations

import json
import sys

import pytest

from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.scale.attempts import run_verification
from orchestra_lib.scale.checking import CheckedRange, together
from orchestra_lib.scale.extra import VARIABLE
from orchestra_lib.scale.runner import runner_of
from orchestra_lib.scale.spec import TransferSpec

SPEC = TransferSpec("file:/a", "file:/b", "s", "s", "s")


def equal(number):
    return CheckedRange(number, 10, 10, 0, ())


def test_all_ranges_once_each_are_one_finding():
    found = together([equal(2), equal(1)], made=[1, 2])
    assert (found.ranges, found.source_rows, found.differing) == (2, 20, 0)


@pytest.mark.parametrize(
    ("found", "made", "words"),
    [
        ([], [], "0 ranges were made and 0 findings are there"),
        ([], [1, 2, 3], "3 ranges were made and 0 findings are there, of 0 ranges, the first without one is range 1"),
        ([equal(1), equal(3)], [1, 2, 3], "the first without one is range 2"),
        ([equal(1), equal(1)], [1, 2], "2 findings are there, of 1 ranges, the first without one is range 2"),
        ([equal(1), equal(2), equal(3)], [1, 2], "2 ranges were made and 3 findings are there"),
        ([equal(1), equal(1)], [1], "1 ranges were made and 2 findings are there"),
    ],
)
def test_what_was_not_compared_once_is_no_finding(found, made, words):
    with pytest.raises(DataError, match=words):
        together(found, made)


def test_a_pipeline_whose_reports_are_nowhere_to_be_read_is_no_pass(tmp_path, monkeypatch):
    """A program in the pipeline's place, which ended well and found no file of its workers."""
    program = tmp_path / "python"
    answer = json.dumps({"metrics": {}, "made": [1, 2], "ranges": []})
    program.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
    program.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(program))
    with pytest.raises(DataError, match="2 ranges were made and 0 findings are there"):
        run_verification(SPEC)


@pytest.mark.parametrize("report", [None, "/tmp/report"])
@pytest.mark.parametrize("flags", [["--runner=DataflowRunner"], ["--runner", "DataflowRunner"], ["-r=FlinkRunner"]])
def test_workers_elsewhere_have_to_report_where_it_can_be_read(report, flags):
    with pytest.raises(ParameterError, match="write to their own disks"):
        run_verification(SPEC, report, flags)


def test_workers_here_and_reports_in_a_bucket_are_let_through(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    for report, flags in ((None, ["--runner=FnApiRunner"]), ("gs://b/r", ["--runner=DataflowRunner"]), ("/r", [])):
        with pytest.raises(ParameterError, match=f"{VARIABLE}: there is no"):
            run_verification(SPEC, report, flags)


def test_a_runner_is_found_among_other_options():
    assert runner_of(["--project=p", "--runner=DataflowRunner", "--no_use_public_ips"]) == "DataflowRunner"
    assert runner_of(["--runner_v2_is_no_runner=1"]) is None
