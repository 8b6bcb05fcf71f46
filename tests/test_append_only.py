"""A journal is read line by line, and a line that cannot be believed is named."""

from __future__ import annotations

import pytest

from orchestra_lib.append_only import append_line, take_entries
from orchestra_lib.errors import RecordError


def test_entries_come_in_their_order_and_a_line_that_was_cut_off_does_not(tmp_path):
    path, taken = tmp_path / "journal.jsonl", []
    take_entries(path, taken.append)
    append_line(path, '{"n": 1}')
    append_line(path, '{"n": 2}')
    with path.open("a") as file:
        file.write('{"n": 3')
    take_entries(path, taken.append)
    assert taken == [{"n": 1}, {"n": 2}]
    append_line(path, '{"n": 4}')
    take_entries(path, taken.append)
    assert taken[-1] == {"n": 4}


def test_a_line_that_cannot_be_believed_is_named_with_its_number(tmp_path):
    path, numbers = tmp_path / "journal.jsonl", []
    append_line(path, '{"n": 1}')
    append_line(path, '{"m": 2}')
    with pytest.raises(RecordError, match=r"journal.jsonl, line 2 cannot be believed: 'n'; restore it from a copy"):
        take_entries(path, lambda entry: numbers.append(entry["n"]))
    path.write_text("[\n")
    with pytest.raises(RecordError, match=r"line 1 cannot be believed"):
        take_entries(path, lambda entry: None)
