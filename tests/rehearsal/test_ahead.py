"""The corpus made ahead: where a runbook of the chain will want it, and no longer than the chain lasts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from orchestra_lib.paths import state_directory
from orchestra_lib.rehearsal import ahead, corpus
from orchestra_lib.rehearsal.docstrings import standard_library

CHAIN = [Path(f"{name}.ipynb") for name in ("00_preflight", "01_infrastructure", "03_memory", "06_validation")]
LOCAL = {"environment": "local"}


def test_a_chain_that_comes_to_the_memory_has_the_corpus_of_its_settings_made() -> None:
    wanted = ahead.command(CHAIN, LOCAL)
    assert wanted is not None
    assert wanted[1:] == ["-m", "orchestra_lib.rehearsal.ahead", "20260101", "400"]
    asked = ahead.command(CHAIN, {**LOCAL, "queries": "50"})
    assert asked is not None
    assert asked[-1] == "50"


@pytest.mark.parametrize(
    ("notebooks", "parameters"),
    [
        (CHAIN[2:], LOCAL),
        (CHAIN[:2], LOCAL),
        (CHAIN, {**LOCAL, "source_dsn": "postgresql://somewhere"}),
        (CHAIN, {"environment": "production"}),
        (CHAIN, {"environment": "nowhere"}),
    ],
    ids=["it begins there", "it ends before", "a store of one's own", "google cloud", "no such environment"],
)
def test_where_nobody_wants_it_or_nothing_comes_before_none_is_made(
    notebooks: list[Path], parameters: Mapping[str, str]
) -> None:
    assert ahead.command(notebooks, parameters) is None


@pytest.mark.slow
def test_what_is_made_lies_where_the_runbook_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(corpus, "standard_library", lambda: standard_library() / "asyncio")
    monkeypatch.setattr(os, "nice", lambda _: 0)  # of this process it could not be taken back
    monkeypatch.setitem(corpus.build.__kwdefaults__, "dimension", 64)
    ahead.main(["3", "20"])
    kept = corpus.build(3, 20, state_directory() / "corpus", dimension=64)
    assert len(kept.queries) == 20
    assert len([path for path in (state_directory() / "corpus").iterdir() if path.is_dir()]) == 1


def test_it_ends_with_the_chain_however_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path))
    before, begun = set(psutil.Process().children()), []

    def interrupted() -> None:
        with ahead.corpus_ahead(CHAIN, LOCAL):
            begun.extend(set(psutil.Process().children()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) == 1
    assert not begun[0].is_running()
