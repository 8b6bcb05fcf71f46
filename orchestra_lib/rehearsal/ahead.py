"""Making the rehearsal's corpus ahead: beside the runbooks before 03, which leave a core to spare.

A chain is shorter by the twenty seconds that the corpus takes. What 03 finds is the same: it would have made it itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError

_WANTED_BY = "03_memory"
_NICENESS = 10  # what a runbook measures meanwhile goes before it


@contextmanager
def corpus_ahead(notebooks: Sequence[Path], parameters: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile a process makes the corpus if these notebooks come to want it; it ends with the block at the latest."""
    wanted = command(notebooks, parameters)
    if wanted is None:
        yield
        return
    process = subprocess.Popen(
        wanted,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # where this fails, so does the runbook that makes the corpus then, and says why
        start_new_session=True,  # a terminal's signals are the chain's to answer
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def command(notebooks: Sequence[Path], parameters: Mapping[str, str]) -> list[str] | None:
    """What makes the corpus; None where no runbook of these wants one, or none comes before the one that does."""
    if not notebooks[0].stem < _WANTED_BY <= notebooks[-1].stem or "source_dsn" in parameters:
        return None
    try:
        loaded = settings.load(parameters["environment"])
    except ParameterError:
        return None  # the first runbook says what is wrong
    if loaded.environment.kind != "local" or loaded.memory.source.dsn is not None:
        return None
    corpus = loaded.memory.corpus
    return [sys.executable, "-m", __name__, str(corpus.seed), parameters.get("queries", str(corpus.queries))]


def main(arguments: Sequence[str]) -> None:
    """Make the corpus of a seed and a number of questions, in this process."""
    from orchestra_lib.paths import state_directory
    from orchestra_lib.rehearsal.corpus import build

    os.nice(_NICENESS)
    seed, queries = map(int, arguments)
    build(seed, queries, state_directory() / "corpus")


if __name__ == "__main__":
    main(sys.argv[1:])
