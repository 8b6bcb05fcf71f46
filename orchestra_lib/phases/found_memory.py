"""The memory that phases 4 and 5 stand on: phase 3's, or in a rehearsal without one today's store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestra_lib.assistant.retrieval import Holding, holding
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.database import Address, connect
from orchestra_lib.display import Progress
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.rehearsal import Corpus, build, seed_store
from orchestra_lib.rehearsal.store import TABLE
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings
from orchestra_lib.target import Instances, source_database

READY = "READY"


@dataclass(frozen=True)
class OpenMemory:
    """A table of memories: where it is (never shown), how it is called for people, what it holds.

    ``instance`` is the full name of the AlloyDB instance that has it; None for any other database.
    """

    address: Address
    table: str
    name: str
    holds: Holding | None
    instance: str | None = None
    is_todays: bool = False


def rehearses_store(settings: Settings, work: CloudWork) -> bool:
    """Whether today's store is the rehearsal's own."""
    return work.is_local and settings.memory.source.dsn is None


def rehearsal_corpus(run: Runbook) -> Corpus:
    """What the rehearsal's store is made of; the first time it takes a minute."""
    wanted = run.settings.memory
    with run.step("corpus"):
        Progress("corpus", "rows").say("reading and embedding the standard library, a minute the first time")
        return build(wanted.corpus.seed, wanted.corpus.queries, state_directory() / "corpus")


def rehearsal_questions(run: Runbook) -> Corpus | None:
    """The corpus whose held-out questions judge the rehearsal's own store; None for another, or with logged queries."""
    memory = run.settings.memory
    if run.settings.environment.kind != "local" or memory.target.dsn or memory.tuning.replay:
        return None
    return rehearsal_corpus(run)


def find_memory(run: Runbook, work: CloudWork, corpus: Callable[[], Corpus]) -> OpenMemory:
    """The memory of an environment. Where phase 3 has moved nothing, a rehearsal makes today's store of ``corpus``.

    On Google Cloud an absent memory is found as one that holds nothing. Raises TargetUnreachable.
    """
    settings = run.settings
    own = settings.memory.target.dsn
    if own is not None:
        return _opened(own.reveal(), TARGET_TABLE, "a database of your own")
    primary, rehearses = primary_instance(settings), rehearses_store(settings, work)
    if serves(work.client, primary):
        found = _opened(Instances(work.client.target).address(primary), TARGET_TABLE, "AlloyDB, by phase 3")
        if not rehearses or (found.holds and found.holds.rows):
            return replace(found, instance=primary)
    if not rehearses:
        return OpenMemory("", TARGET_TABLE, f"AlloyDB: there is no instance {primary.rsplit('/', 1)[1]}", None, primary)
    return _todays_store(run, corpus())


def serves(client: Client, instance: str) -> bool:
    """Whether an AlloyDB instance is there and ready."""
    return instance_state(client, instance) == READY


def instance_state(client: Client, instance: str) -> str | None:
    """The state of an AlloyDB instance, of which only READY answers; None where there is no such instance.

    https://cloud.google.com/alloydb/docs/reference/rest/v1/projects.locations.clusters.instances#State
    """
    try:
        live = client.call("alloydb.v1", "alloydb.projects.locations.clusters.instances.get", instance)
    except CloudRefused as error:
        if error.is_nothing_yet:
            return None
        raise
    return str(live.get("state", ""))


def _todays_store(run: Runbook, corpus: Corpus) -> OpenMemory:
    wanted, progress = run.settings.memory, Progress("store", "rows")
    address = source_database(run.settings).address
    with run.step("store"):
        seeded = seed_store(str(address), corpus, wanted.corpus.rows, wanted.source.lists, progress, progress.say)
    run.note(f"phase 3 has moved nothing here: today's store is read instead; {seeded}")
    found = _opened(address, TABLE, "today's store of the rehearsal: phase 3 has moved nothing here")
    return replace(found, is_todays=True)


def _opened(address: Address, table: str, name: str) -> OpenMemory:
    with connect(address, role="memory") as session:
        return OpenMemory(address, table, name, holding(session, table))
