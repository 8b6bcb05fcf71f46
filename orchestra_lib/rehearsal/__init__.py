"""The rehearsal's store of memories: real text of this Python's standard library, held-out questions, growth."""

from orchestra_lib.rehearsal.corpus import Corpus, build
from orchestra_lib.rehearsal.store import Seeded, seed_store

__all__ = ["Corpus", "Seeded", "build", "seed_store"]
