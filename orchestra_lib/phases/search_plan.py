"""What the server makes of the application's search in a session that sets nothing, told with what to do about it."""

from __future__ import annotations

import psycopg
from psycopg import sql

from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.vectors.explain_plan import why_not
from orchestra_lib.vectors.forms import Effort
from orchestra_lib.vectors.search import Searchable


def search_plan(session: psycopg.Connection, target: Searchable, effort: Effort) -> tuple[Evidence, ...]:
    """One row: which index answers, and every trap that the search stands in. None for a table without vectors."""
    vector = sql.Identifier(target.embedding_column)
    row = session.execute(
        sql.SQL("SELECT {vector} FROM {table} WHERE {vector} IS NOT NULL LIMIT 1").format(
            vector=vector, table=target.table
        )
    ).fetchone()
    if row is None:
        return ()
    explained = why_not(
        session,
        target.statement(effort),
        target.parameters(row[0].to_numpy()),
        target.table,
        target.embedding_column,
        run=True,
    )
    return (
        Evidence(
            "a search in a session that sets nothing is answered by",
            Source.OBSERVED,
            explained.uses or "reading the table",
            note=" ".join(str(finding) for finding in explained.findings),
        ),
    )
