"""The one way into a database, and what is said when it is closed."""

from __future__ import annotations

import psycopg
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


def test_a_session_that_is_lost_while_it_is_being_opened_is_told_as_one_that_cannot_be_opened(pair) -> None:
    opened: list[psycopg.Connection] = []

    def dial(**parameters: object) -> psycopg.Connection:
        session = psycopg.connect(pair.source, autocommit=True, **parameters)
        opened.append(session)
        with psycopg.connect(pair.source) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [session.info.backend_pid])
        return session

    with pytest.raises(TargetUnreachable, match="the source database cannot be reached: "):
        connect(dial, role="source")
    assert opened[0].closed
