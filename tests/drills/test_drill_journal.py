"""What a drill leaves when it is cut off is known to the next run, wherever in a line it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.errors import RecordError

DETAILS = {"cluster": "projects/p/locations/l/clusters/c-drill"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "local.03.drills.jsonl"


def test_a_drill_is_open_from_its_beginning_to_its_end_and_others_are_not(path: Path) -> None:
    assert DrillJournal(path).open("restore") is None
    DrillJournal(path).begin("restore", DETAILS)
    DrillJournal(path).begin("switchover", {"primary": "p"})
    assert DrillJournal(path).open("restore") == DETAILS
    DrillJournal(path).end("restore")
    assert DrillJournal(path).open("restore") is None
    assert DrillJournal(path).open("switchover") == {"primary": "p"}


def test_a_drill_that_is_begun_again_is_open_with_its_new_details(path: Path) -> None:
    journal = DrillJournal(path)
    journal.begin("restore", DETAILS)
    journal.end("restore")
    journal.begin("restore", {"cluster": "another"})
    assert journal.open("restore") == {"cluster": "another"}


def test_a_line_cut_off_anywhere_announces_nothing_and_swallows_no_line_after_it(path: Path) -> None:
    DrillJournal(path).begin("switchover", {"primary": "p"})
    before = path.read_bytes()
    DrillJournal(path).begin("restore", DETAILS)
    whole = path.read_bytes()
    for length in range(len(before), len(whole)):
        path.write_bytes(whole[:length])
        assert DrillJournal(path).open("restore") is None, f"cut off after {length} bytes"
        path.write_bytes(whole[:length])
        DrillJournal(path).begin("restore", DETAILS)
        assert DrillJournal(path).open("restore") == DETAILS, f"cut off after {length} bytes"
        assert DrillJournal(path).open("switchover") == {"primary": "p"}


def test_an_end_that_was_cut_off_leaves_the_drill_open(path: Path) -> None:
    DrillJournal(path).begin("restore", DETAILS)
    begun = path.read_bytes()
    DrillJournal(path).end("restore")
    path.write_bytes(path.read_bytes()[: len(begun) + 10])
    assert DrillJournal(path).open("restore") == DETAILS


def test_a_line_in_the_middle_that_cannot_be_read_is_not_passed_over(path: Path) -> None:
    DrillJournal(path).begin("restore", DETAILS)
    path.write_bytes(b'{"drill": "rest\n' + path.read_bytes())
    with pytest.raises(RecordError, match=r"line 1 cannot be read: .* look whether a drill has left a cluster"):
        DrillJournal(path).open("restore")
