"""What a sensible index would have cost: built beside the chosen one on a copy of the vectors, measured, dropped."""

from __future__ import annotations

from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.vectors.evaluate import Evaluation, QuerySet, evaluate
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.search import Searchable


def measured_alternative(
    address: Address, spec: IndexSpec, queries: QuerySet, recall_target: float, available_mib: int | None
) -> Evaluation:
    """Build ``spec`` on an unlogged copy of its table's ids and vectors, evaluate it, and drop the copy.

    A copy, because two IVFFlat indexes on one column share one probes setting and hide one another from the planner.
    """
    copy = f"{spec.table}_alternative"
    copied = IndexSpec(copy, spec.form, spec.opclass, spec.dimension)
    with connect(address, role="target") as connection:
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(copy))
        connection.execute(drop)
        try:
            connection.execute(
                sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT id, embedding FROM {}").format(
                    sql.Identifier(copy), sql.Identifier(spec.table)
                )
            )
            build_index(address, copied, available_mib, lambda _: None)
            k = queries.truth.k + (queries.truth.excluded is not None)
            target = Searchable(sql.Identifier(copy), spec.opclass, k, spec.form, dimension=spec.dimension)
            label = f"alternative: {spec.form.label}"
            return evaluate(connection, target, queries, spec.form.lists, recall_target, None, label)
        finally:
            connection.execute(drop)
