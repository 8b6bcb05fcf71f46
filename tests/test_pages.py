"""The book of executed runbooks: whole, offline, and never green about a run that is not as it was sealed."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import pytest

from orchestra_lib import audit, cli, ledger, paths, record
from orchestra_lib.display.renderer import PLOTLY, SVG
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict
from orchestra_lib.pages.difference import difference
from orchestra_lib.pages.notebook import body
from orchestra_lib.record import Outcome, Record
from orchestra_lib.settings import root

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "link": "href",
    "source": "src",
    "object": "data",
    "use": "href",
}
GREEN = (">PASS<", ">REHEARSED<")


class Loaded(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if LOADS.get(tag) == name or name == "srcset"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def sealed(home: Path, run_id: str = "run-one", **stated: Any) -> Path:
    """A sealed run in a project of its own: the path of its executed notebook, which shows a figure."""
    notebook = home / "runs" / run_id / "03_memory.ipynb"
    notebook.parent.mkdir(parents=True)
    bundle = go.Figure(go.Bar(y=[1, 2]), layout={"title": {"text": "Two </script> bars"}})._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell(
        "1 + 1",
        outputs=[nbformat.v4.new_output("stream", text="ran here"), nbformat.v4.new_output("display_data", bundle)],
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 03 Memory"), cell]), notebook)
    run = made(run_id, notebook, **stated)
    record.save(run, record.record_path(notebook))
    audit.seal(record.record_path(notebook), notebook)
    return notebook


def made(run_id: str = "run-one", notebook: Path | None = None, recall: float = 0.97, **stated: Any) -> Record:
    run = record.open_record("03_memory", notebook, None, run_id)
    run.outcome, run.verdict, run.exit_code, run.operator = Outcome.COMPLETED, Verdict.REHEARSED, 0, "ada <a@b.c>"
    run.rehearsal, run.end_marker = True, True
    run.environment, run.duration_seconds, run.ended = "local", 61.5, run.started + timedelta(seconds=61.5)
    run.evidence = [Evidence("recall & more", Source.MEASURED, recall, "", Bound(">=", 0.95)).as_json()]
    for name, value in stated.items():
        setattr(run, name, value)
    return run


def book(home: Path) -> str:
    assert cli.main(["runs", "--html", str(home / "book")]) == 0
    return (home / "book" / "index.html").read_text()


def page(home: Path, name: str) -> str:
    return (home / "book" / "pages" / name).read_text()


def test_the_index_leads_to_the_run_its_numbers_and_its_executed_notebook(home: Path) -> None:
    sealed(home)
    index = book(home)
    links = set(re.findall(r'href="([^"]+)"', index))
    assert links == {"pages/run-one-03_memory.html", "pages/run-one-03_memory.notebook.html"}
    for told in ("REHEARSED", "1:01 min", "0.97", "recall &amp; more", "every file as it was sealed", "the first"):
        assert told in index
    run = page(home, "run-one-03_memory.html")
    assert "ada &lt;a@b.c&gt;" in run
    assert run.count("<svg") == 1, "the figure"
    assert "ran here" in page(home, "run-one-03_memory.notebook.html")


def test_nothing_is_loaded_from_elsewhere(home: Path) -> None:
    sealed(home)
    book(home)
    pages = list((home / "book").rglob("*.html"))
    assert len(pages) == 3
    for path in pages:
        loaded = Loaded()
        loaded.feed(path.read_text())
        assert set(loaded.addresses) <= {"../plotly.min.js"}, path.name
        assert re.findall(r"""url\(|@import|fetch\(|XMLHttpRequest|sendBeacon|WebSocket""", path.read_text()) == []
        assert all((path.parent / address).is_file() for address in loaded.addresses)


def test_a_figure_is_still_without_plotly_and_its_data_cannot_end_its_script(home: Path) -> None:
    notebook = sealed(home)
    book(home)
    run = page(home, "run-one-03_memory.html")
    assert "Two </script>" not in run
    assert run.index('class="still"') < run.index("application/json")
    assert {PLOTLY, SVG} <= set(nbformat.read(notebook, 4).cells[1].outputs[1].data)


def test_a_control_of_the_live_notebook_brings_no_script_along(home: Path) -> None:
    view = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "Button(description='Approve')",
    }
    outputs = [nbformat.v4.new_output("display_data", data) for data in (view, {"text/plain": view["text/plain"]})]
    notebook = home / "controls.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("b", outputs=outputs)]), notebook)
    told = body(notebook)
    assert told.count("A control, for whoever") == 2
    assert "<script" not in told
    assert "Button(" not in told


def altered(notebook: Path) -> None:
    notebook.write_text(notebook.read_text() + "\n")


def removed(notebook: Path) -> None:
    notebook.unlink()


def verdict_edited(notebook: Path) -> None:
    path = record.record_path(notebook)
    path.write_text(path.read_text().replace("0.97", "0.99"))


def replaced_by_rubbish(notebook: Path) -> None:
    record.record_path(notebook).write_text("{}")


@pytest.mark.parametrize("harm", [altered, removed, verdict_edited, replaced_by_rubbish], ids=lambda one: one.__name__)
def test_a_run_that_is_not_as_it_was_sealed_is_tampered_and_never_green(home: Path, harm: Any) -> None:
    notebook = sealed(home)
    assert any(mark in book(home) for mark in GREEN)
    harm(notebook)
    index = book(home)
    run = page(home, "run-one-03_memory.html")
    for told in (index, run):
        assert "TAMPERED" in told
        assert not any(mark in told for mark in GREEN)
    assert "NOT as sealed" in index
    assert "0.97" not in run and "0.99" not in run  # noqa: PT018 - one thought
    assert not (home / "book" / "pages" / "run-one-03_memory.notebook.html").exists(), "the page of before is gone too"


def test_a_run_whose_ledger_line_is_gone_is_not_sealed_and_not_green(home: Path) -> None:
    sealed(home, "run-one")
    sealed(home, "run-two")
    path = paths.ledger_path()
    path.write_text(path.read_text().splitlines(keepends=True)[1])
    index = book(home)
    row = next(row for row in index.split("<tr>") if "run-one-03" in row)
    assert "NOT SEALED" in row
    assert not any(mark in row for mark in GREEN)
    assert "removed: entry 1 is missing" in index


def test_what_is_not_tampered_with_is_still_shown_beside_it(home: Path) -> None:
    altered(sealed(home, "run-one"))
    sealed(home, "run-two")
    rows = {name: row for row in book(home).split("<tr>") for name in ("run-one", "run-two") if f"{name}-03" in row}
    assert "TAMPERED" in rows["run-one"]
    assert ">REHEARSED<" in rows["run-two"]
    assert "the first" in rows["run-two"], "nothing is compared with a record that cannot be believed"


def test_an_empty_ledger_is_said(home: Path) -> None:
    assert "no run has been sealed yet" in book(home)


def test_a_superseded_run_claims_nothing_and_is_not_called_tampered(home: Path) -> None:
    notebook = sealed(home, "run-one")
    shutil.rmtree(notebook.parent)
    shutil.move(sealed(home, "run-two").parent, home / "aside")
    entries = audit.entries()
    assert [entry.run_id for entry in entries] == ["run-one", "run-two"]
    notebook.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), notebook)
    record.save(made("run-three", notebook), record.record_path(notebook))
    audit.seal(record.record_path(notebook), notebook)
    row = next(row for row in book(home).split("<tr>") if "run-one-03" in row)
    assert "was replaced by run run-three" in row
    assert "TAMPERED" not in row


def test_a_folder_that_cannot_be_made_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "file").touch()
    assert cli.main(["runs", "--html", str(home / "file" / "pages")]) == 1
    assert "cannot be made: Not a directory; choose another folder" in capsys.readouterr().err


SAMPLE = root() / "docs" / "sample-run"


@pytest.mark.skipif(
    not (SAMPLE / "index.html").exists(), reason="docs/sample-run has not been made: scripts/sample_run.sh"
)
def test_the_committed_sample_is_as_it_was_sealed_small_and_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_RUNS_DIR", str(SAMPLE / "runs"))
    found = audit.verify()
    assert [str(finding) for finding in found.findings if not finding.is_note] == []
    assert found.entries > 0
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    for path in SAMPLE.glob("**/*.html"):
        loaded = Loaded()
        loaded.feed(path.read_text())
        assert [one for one in loaded.addresses if "//" in one] == [], path.name


# --- two runs of one runbook ------------------------------------------------------------------------------------------

PLAN = [
    {"verb": "create", "kind": "index", "name": "one", "detail": "lists 400"},
    {"verb": "keep", "kind": "table", "name": "memories", "detail": ""},
]


def test_a_run_is_compared_with_the_one_before_it(home: Path) -> None:
    sealed(home, "run-one", parameters={"lists": 400}, plan=PLAN, plan_sha256="a" * 64)
    sealed(home, "run-two", recall=0.96, parameters={"lists": 800, "rows": 9}, plan=PLAN[:1], plan_sha256="b" * 64)
    index = book(home)
    assert "2 parameters, 1 planned change, 1 number" in index
    run = page(home, "run-two-03_memory.html")
    for told in ("-1.0 %", "table memories", "lists", "run-one-03_memory.html"):
        assert told in run


def test_two_equal_runs_differ_in_nothing() -> None:
    one = made(plan=PLAN, plan_sha256="a" * 64, parameters={"lists": 1})
    found = difference(one, one.model_copy())
    assert (found.words, found.parameters, found.plan, found.numbers) == ("nothing", (), (), ())


def test_a_verdict_that_changed_comes_first_and_a_claim_that_is_new_or_gone_is_named() -> None:
    old, new = made(recall=0.97), made(recall=0.9)
    old.evidence.append(Evidence("gone", Source.OBSERVED, 1).as_json())
    new.evidence.insert(0, Evidence("new", Source.OBSERVED, 1).as_json())
    rows = difference(old, new).numbers
    assert [row.name for row in rows] == ["recall & more", "new", "gone"]
    assert rows[0].note == "PASS → FAIL"
    assert [(row.before, row.now) for row in rows[1:]] == [("–", "1"), ("1", "–")]


def test_settings_are_compared_by_their_places_and_the_same_plan_from_another_state_is_said() -> None:
    old = made(settings={"memory": {"copy": {"workers": 2}}}, plan=PLAN, plan_sha256="a" * 64)
    new = made(settings={"memory": {"copy": {"workers": 4}}}, plan=PLAN, plan_sha256="b" * 64)
    found = difference(old, new)
    assert [(row.name, row.before, row.now) for row in found.parameters] == [("memory.copy.workers", "2", "4")]
    assert "the same changes" in found.plan[0].note


def test_a_ledger_that_ends_early_is_said_on_the_index(home: Path) -> None:
    sealed(home, "run-one")
    sealed(home, "run-two")
    path = paths.ledger_path()
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    index = book(home)
    assert "entry 2 is missing at the end" in index
    assert "NOT SEALED" in next(row for row in index.split("<tr>") if "run-two-03" in row)
    assert ledger.head_path(path).exists()
