"""The plan of the application's search, as the record tells it."""

from __future__ import annotations

from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.evidence import Verdict
from orchestra_lib.phases.search_plan import search_plan
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.search import Searchable

TARGET = Searchable(sql.Identifier("memories"), "vector_cosine_ops", 10, ivfflat(20))


def test_what_answers_is_told_with_the_reason_and_the_remedy(pair):
    fill(pair.target, 0)
    with connect(pair.target) as session:
        assert search_plan(session, TARGET, Effort(3)) == ()
    fill(pair.target, 400)
    with connect(pair.target) as session:
        (none,) = search_plan(session, TARGET, Effort(3))
        session.execute("CREATE INDEX wide ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)")
        session.execute("ANALYZE memories")
        session.execute("SET ivfflat.probes = 12")
        (read,) = search_plan(session, TARGET, Effort(12))
        session.execute("SET enable_seqscan = off")
        (searched,) = search_plan(session, TARGET, Effort(12))
    assert [row.value for row in (none, read, searched)] == ["reading the table", "reading the table", "wide"]
    assert none.note == "There is no vector index on embedding. Build one."
    assert "cheaper than wide with 12 probes" in read.note
    assert "SET enable_seqscan = off" in read.note
    assert searched.note == ""
    assert read.verdict is Verdict.NOTED, "it is a reading, not a claim"
