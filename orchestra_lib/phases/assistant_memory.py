"""What runbook 04 reads of the memory, and the questions to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestra_lib.assistant.questions import Question, read_questions
from orchestra_lib.assistant.retrieval import Vectors
from orchestra_lib.assistant.support import questions_needed
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.found_memory import find_memory, rehearsal_corpus, rehearses_store
from orchestra_lib.runbook import Runbook


class AssistantMemory:
    """Finds the memory once, and says what it found. ``corpus`` is the rehearsal's, None where there is none."""

    def __init__(self, run: Runbook, work: CloudWork) -> None:
        self._settings = run.settings
        self.corpus = rehearsal_corpus(run) if rehearses_store(run.settings, work) else None
        self.found = find_memory(run, work, lambda: self.corpus or rehearsal_corpus(run))

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
