"""A change of model as an Apache Beam pipeline. Apart from the others, whose workers need no client of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import apache_beam as beam
import psycopg
from apache_beam.metrics import Metrics

from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.scale.embedding import Reembedder
from orchestra_lib.scale.pipelines import NAMESPACE, WithSessions
from orchestra_lib.scale.spec import EmbeddingSpec


class EmbedRange(WithSessions[Reembedder]):
    """Gives the memories of a range their new vectors; yields its number."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__(partial(Reembedder, spec))
        self._counters = {
            name: Metrics.counter(NAMESPACE, told)
            for name, told in (
                ("memories", "memories embedded"),
                ("reused", "reused"),
                ("asked", "texts asked for"),
                ("blank", "blank, without a vector"),
            )
        }

    def process(self, element: KeyRange) -> Iterator[int]:
        """One range."""
        try:
            found = self.sessions().embed(element)
        except psycopg.Error:
            self.lose()
            raise
        for name, counter in self._counters.items():
            counter.inc(getattr(found, name))
        yield found.number


def embedding_pipeline(pipeline: beam.Pipeline, spec: EmbeddingSpec, ranges: Sequence[KeyRange]) -> None:
    """Put a change of model over these ranges into a pipeline."""
    _ = (
        pipeline
        | "ranges" >> beam.Create(ranges, reshuffle=False)
        | "share out" >> beam.Reshuffle()
        | "embed" >> beam.ParDo(EmbedRange(spec))
    )
