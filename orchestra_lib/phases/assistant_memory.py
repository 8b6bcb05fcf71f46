"""The memory that runbook 04 reads: phase 3's, or in a rehearsal without one today's store; and the questions to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestra_lib.assistant.questions import Question, read_questions
from orchestra_lib.assistant.retrieval import Holding, Vectors, holding
from orchestra_lib.assistant.support import questions_needed
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.database import Address, connect
from orchestra_lib.display import Progress
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory_target import primary_instance
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.rehearsal import Corpus, build, seed_store
from orchestra_lib.rehearsal.store import TABLE
from orchestra_lib.runbook import Runbook
from orchestra_lib.target import Instances, source_database

_READY = "READY"


@dataclass(frozen=True)
class OpenMemory:
    """A table of memories: where it is (never shown), how it is called for people, what it holds."""

    address: Address
    table: str
    name: str
    holds: Holding | None
    is_todays: bool = False


class AssistantMemory:
    """Finds the memory once, and says what it found. ``corpus`` is the rehearsal's, None where there is none."""

    def __init__(self, run: Runbook, work: CloudWork) -> None:
        self._run, self._settings, self._work = run, run.settings, work
        rehearses = work.is_local and self._settings.memory.source.dsn is None
        self.corpus = self._corpus() if rehearses else None
        self.found = self._find()

    def checks(self, embedding_model: str) -> tuple[Evidence, ...]:
        """Whether there is a memory with something in it, in the space in which questions are embedded."""
        holds = self.found.holds
        rows = 0 if holds is None else holds.rows
        needed = self.corpus.embedding_model if self.corpus else embedding_model
        models = ", ".join(f"{name} ({count:,})" for name, count in holds.models) if holds else "none"
        there = sum(count for name, count in holds.models if name == needed) if holds else 0
        note = self.found.name if rows else f"{self.found.name}: run 03_memory first"
        space = f"questions are embedded by {needed}, the rows by {models}"
        if rows and not there:
            space += "; vectors of two models cannot be compared: embed the memory anew, or name its model"
        return (
            Evidence("memories to answer from", Source.OBSERVED, rows, "rows", Bound(">", 0), note=note),
            yes_or_no("questions and memories are embedded by the same model", Source.OBSERVED, there > 0, note=space),
            self._questions_check(),
        )

    def questions(self) -> tuple[Question, ...]:
        """The questions, with the ids of their answers. Raises ParameterError for a file that is none."""
        path = self._settings.assistant.context.questions if self._settings.assistant else None
        if path is not None:
            return read_questions(Path(path).expanduser())
        if self.corpus is None:
            raise ParameterError(
                "there are no questions to judge a context by: name a file of them as assistant.context.questions, one "
                'line {"question": ..., "answer_id": ...} each'
            )
        return tuple(Question(query.text, query.answer_id) for query in self.corpus.queries)

    def vectors(self, questions: tuple[Question, ...], embed: Callable[[list[str]], Vectors]) -> Vectors:
        """The vectors of the questions, float32 (q, dimension): the rehearsal's own, or as the model embeds them."""
        if self.corpus is None:
            return embed([question.text for question in questions])
        own = {
            query.text: vector for query, vector in zip(self.corpus.queries, self.corpus.query_embeddings, strict=True)
        }
        unknown = next((question.text for question in questions if question.text not in own), None)
        if unknown is not None:
            raise ParameterError(
                f"the rehearsal's embedding is fitted to its own held-out questions, and {unknown!r} is none of them; "
                "leave assistant.context.questions empty"
            )
        return np.stack([own[question.text] for question in questions])

    def _questions_check(self) -> Evidence:
        wanted = self._settings.assistant
        margin = wanted.context.support_margin if wanted else 1.0
        needed = questions_needed(margin)
        count, note = None, f"fewer cannot show that packing loses less than {margin:.0%} of the answers"
        try:
            count = len(self.questions())
        except ParameterError as error:
            note = str(error)
        return Evidence("questions whose answers are known", Source.OBSERVED, count, "", Bound(">=", needed), note=note)

    def _corpus(self) -> Corpus:
        wanted = self._settings.memory
        with self._run.step("corpus"):
            Progress("corpus", "rows").say("reading and embedding the standard library, a minute the first time")
            return build(wanted.corpus.seed, wanted.corpus.queries, state_directory() / "corpus")

    def _find(self) -> OpenMemory:
        own = self._settings.memory.target.dsn
        if own is not None:
            return _opened(own.reveal(), TARGET_TABLE, "a database of your own")
        primary = primary_instance(self._settings)
        if self._serves(primary):
            found = _opened(Instances(self._work.client.target).address(primary), TARGET_TABLE, "AlloyDB, by phase 3")
            if self.corpus is None or (found.holds and found.holds.rows):
                return found
        if self.corpus is None:
            return OpenMemory("", TARGET_TABLE, f"AlloyDB: there is no instance {primary.rsplit('/', 1)[1]}", None)
        return self._todays_store(self.corpus)

    def _serves(self, instance: str) -> bool:
        try:
            live = self._work.client.call("alloydb.v1", "alloydb.projects.locations.clusters.instances.get", instance)
        except CloudRefused as error:
            if error.is_nothing_yet:
                return False
            raise
        return live.get("state") == _READY

    def _todays_store(self, corpus: Corpus) -> OpenMemory:
        wanted, progress = self._settings.memory, Progress("store", "rows")
        address = source_database(self._settings).address
        with self._run.step("store"):
            seeded = seed_store(str(address), corpus, wanted.corpus.rows, wanted.source.lists, progress, progress.say)
        self._run.note(f"phase 3 has moved nothing here: today's store is read instead; {seeded}")
        found = _opened(address, TABLE, "today's store of the rehearsal: phase 3 has moved nothing here")
        return replace(found, is_todays=True)


def _opened(address: Address, table: str, name: str) -> OpenMemory:
    with connect(address, role="memory") as session:
        return OpenMemory(address, table, name, holding(session, table))
