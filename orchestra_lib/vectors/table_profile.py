"""The table that is tuned for, in the numbers that bear on the choice of an index."""

from __future__ import annotations

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.bench.fingerprint import TableFingerprint
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.tuning import Profile

_ROWS_FOR_SPECTRUM = 2_000
_MIB = 1 << 20


def profile(connection: psycopg.Connection, table: str, fingerprint: TableFingerprint, sample: Matrix) -> Profile:
    """Read the server's settings and what the vectors are like; ``sample`` is float32 (s, d), random rows."""
    row = connection.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE embedding IS NULL), count(*) FILTER (WHERE vector_norm(embedding) = 0), "
            "(SELECT setting::bigint * 8 FROM pg_settings WHERE name = 'shared_buffers'), "
            "(SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'), "
            "(SELECT setting::bigint FROM pg_settings WHERE name = 'work_mem'), "
            "current_setting('server_version'), "
            "(SELECT extversion FROM pg_extension WHERE extname = 'vector') FROM {}"
        ).format(sql.Identifier(table))
    ).fetchone()
    if row is None:
        raise DataError(f"the table {table} cannot be read")
    nulls, zeros, buffers_kib, maintenance_kib, work_kib, server, extension = row
    return Profile(
        table=table,
        rows=fingerprint.rows,
        dimension=sample.shape[1],
        fingerprint=fingerprint.digest,
        table_mib=fingerprint.total_bytes / _MIB,
        shared_buffers_mib=buffers_kib / 1024,
        maintenance_work_mem_mib=maintenance_kib / 1024,
        work_mem_mib=work_kib / 1024,
        duplicates_share=duplicates_share(sample),
        zero_vectors=zeros,
        null_vectors=nulls,
        effective_dimension=effective_dimension(sample),
        server=f"PostgreSQL {server}, pgvector {extension}",
    )


def duplicates_share(sample: Matrix) -> float:
    """The share of rows that repeat another one of the sample, bit for bit: a lower bound for the table's."""
    # Their hashes have 64 bits: of a million rows two that differ share one in 1 of 37 million tables.
    return 1 - len({hash(row.tobytes()) for row in sample}) / len(sample)


def effective_dimension(sample: Matrix) -> float:
    """The participation ratio of the covariance: how many directions the vectors really spread over."""
    some = sample[:: max(1, len(sample) // _ROWS_FOR_SPECTRUM)][:_ROWS_FOR_SPECTRUM]
    centred = some - some.mean(axis=0, dtype=np.float64)
    # The products between rows have the same eigenvalues as the covariance, and there may be fewer of them.
    products = centred @ centred.T if len(some) < some.shape[1] else centred.T @ centred
    total = float(np.trace(products))
    return total**2 / float(np.square(products).sum()) if total else 0.0
