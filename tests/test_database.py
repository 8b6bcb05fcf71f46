"""The one way into a database, and what is said when it is closed."""

from __future__ import annotations

import pytest

from orchestra_lib.database import connect, connect_replication
from orchestra_lib.errors import TargetUnreachable


def test_a_server_that_does_not_answer_is_told_with_its_reason_in_one_line_and_without_the_password() -> None:
    with pytest.raises(TargetUnreachable) as refusal:
        connect("host=127.0.0.1 port=1 user=ada password=hunter2hunter2", role="source")
    said = str(refusal.value)
    assert said.startswith("the source database cannot be reached: ")
    assert "port 1 failed: Connection refused; check that it runs" in said
    assert "hunter2" not in said
    assert "\n" not in said


def test_a_session_speaks_utc_and_knows_vectors(pair) -> None:
    with connect(pair.source) as connection:
        row = connection.execute("SELECT current_setting('timezone'), '[1,2]'::vector").fetchone()
    assert row is not None
    assert (row[0], row[1].to_list()) == ("UTC", [1.0, 2.0])


def test_the_options_of_a_connection_string_count_beside_ours(pair) -> None:
    address = f"{pair.source} options='-c search_path=app -c timezone=Asia/Tokyo'"
    sessions = (connect(address), connect_replication(address, application_name="tests"))
    for session in sessions:
        with session:
            assert session.execute("SHOW search_path").fetchone() == ("app",)
            assert session.execute("SHOW timezone").fetchone() == ("UTC",)
