"""What a table holds, as a few numbers: measurements are comparable where these are equal."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError


@dataclass(frozen=True)
class TableFingerprint:
    """A table's content in short. Sizes in bytes: ``heap_bytes`` without, ``total_bytes`` with TOAST and indexes.

    ``checksum`` covers the id of every row and its version, so rows that were added, removed or changed change it.
    ``version_column`` says what stood for a row's version: ``version``, or ``xmin``, the transaction that wrote it,
    where the table has no such column; then an identical copy has another checksum.
    """

    table: str
    rows: int
    heap_bytes: int
    total_bytes: int
    checksum: str
    version_column: str

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the content: rows and checksum, not where or how tightly they are stored."""
        return hashlib.sha256(f"{self.rows} {self.checksum}".encode()).hexdigest()[:16]

    def as_document(self) -> dict[str, object]:
        """The fingerprint as a JSON object."""
        return asdict(self)


def table_fingerprint(connection: psycopg.Connection, table: sql.Composable, id_column: str = "id") -> TableFingerprint:
    """Read the fingerprint of a table: one scan that leaves the vectors alone, about a second a million rows.

    Raises DataError when there is no such table.
    """
    name = table.as_string(connection)
    row = connection.execute(
        "SELECT c.oid::regclass::text, pg_relation_size(c.oid), pg_total_relation_size(c.oid), "
        "(SELECT true FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'version' AND NOT a.attisdropped) "
        "FROM pg_class c WHERE c.oid = to_regclass(%s)",
        [name],
    ).fetchone()
    if row is None:
        raise DataError(f"there is no table {name} to take the fingerprint of; check its name and the search path")
    full_name, heap_bytes, total_bytes, has_version = row
    version = "version" if has_version else "xmin"
    # A sum does not depend on the order of the rows, and a pair of 64-bit hashes hardly ever adds up by chance.
    counted = connection.execute(
        sql.SQL(
            "SELECT count(*), coalesce(sum(hashtextextended({row}, 0)), 0)::text, "
            "coalesce(sum(hashtextextended({row}, 1)), 0)::text FROM {table}"
        ).format(
            row=sql.SQL("concat_ws('|', {}, {})").format(sql.Identifier(id_column), sql.Identifier(version)),
            table=table,
        )
    ).fetchone()
    if counted is None:
        raise DataError(f"the table {full_name} cannot be counted")
    rows, *sums = counted
    checksum = hashlib.sha256(" ".join(sums).encode()).hexdigest()[:32]
    return TableFingerprint(full_name, rows, heap_bytes, total_bytes, checksum, version)
