"""Two databases of one's own for the memory phase: their parameter file, their writer, and clearing them up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import yaml
from stores import Pair

from orchestra_lib import settings, stream_process
from orchestra_lib.local import databases
from orchestra_lib.local.alloydb import program
from orchestra_lib.local.control import process
from orchestra_lib.memory.slot import drop_slot
from orchestra_lib.paths import state_directory

_TABLES = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"


def name_of(pair: Pair) -> str:
    """The name of the pair's databases; slots and roles belong to whole servers, so they are called by it."""
    return pair.source.rpartition("dbname=")[2]


def writer_of(pair: Pair) -> str:
    """The role that the application logs in as, on both sides."""
    return f"{name_of(pair)}_writer"


def write_parameters(
    folder: Path, pair: Pair, environment: str = "local", kind: str = "local", **memory: dict[str, Any]
) -> None:
    """Write the parameter file of an environment whose source and target are the pair; ``memory`` is laid over it.

    ``kind`` gcp: nothing of it is a rehearsal, and what the local file lacks is as in production.
    """
    content = _content("local")
    if kind != "local":
        content = {**_content("production"), **content}
        del content["rehearses"]
    content["environment"].update(name=environment, kind=kind)
    own: dict[str, dict[str, Any]] = {
        "source": {"dsn": pair.source},
        "target": {"dsn": pair.target},
        "corpus": {"queries": 40},
        "tuning": {"budget_seconds": 20.0, "offered_per_second": None, "methods": ["ivfflat"], "storages": ["vector"]},
        "stream": {"slot": name_of(pair), "publication": name_of(pair)},
        "writers": {"source": [writer_of(pair)], "target": [writer_of(pair)]},
    }
    # What a machine that is busy with tests delivers is nothing that they are about.
    content["targets"]["vector_search_p95_ms"] = 1_000.0
    for values in (own, memory):
        for section, wanted in values.items():
            content["memory"][section].update(wanted)
    (folder / f"{environment}.yaml").write_text(yaml.safe_dump(content))


def _content(environment: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((settings.root() / "parameters" / f"{environment}.yaml").read_text())
    return content


def make_writer(pair: Pair) -> str:
    """Make the application's role on both servers, with its rights on the source; returns its name."""
    role = writer_of(pair)
    for conninfo in (pair.source, pair.target):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN")
    with psycopg.connect(pair.source, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON memories TO {role}")
    return role


def clear(pair: Pair, environments: Iterable[str] = ("local",)) -> None:
    """End the streams, and give back what belongs to the servers and not to the databases."""
    for environment in environments:
        stream_process.stop(environment)
    local_down()
    for conninfo in (pair.source, pair.target):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                "WHERE database = current_database() AND active_pid IS NOT NULL"
            )
            for slot in (name_of(pair), f"{name_of(pair)}_return"):
                drop_slot(connection, slot)
            for (table,) in connection.execute(_TABLES).fetchall():
                connection.execute(f"DROP TABLE {table}")
            connection.execute(f"DROP ROLE IF EXISTS {writer_of(pair)}")


def local_down() -> None:
    """Stop the local target of the state directory, which outlives whoever has started it."""
    state = state_directory()
    program.down(process.directory(state))
    process.down(state)
    databases.down(state)


def server_directory() -> Path:
    """A folder for a server's data. Not under pytest's: the server's user must be able to enter every folder above."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-tests-"))
    directory.chmod(0o755)
    return directory
