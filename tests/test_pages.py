"""The pages of executed runbooks: whole, offline, and only of what is as it was sealed."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from orchestra_lib import audit, cli, record
from orchestra_lib.evidence import Verdict
from orchestra_lib.record import Outcome

REMOTE = re.compile(r"""(?:src|href)=["'](?:https?:)?//""")


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One sealed run, with its executed notebook, in a project of its own."""
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    notebook = tmp_path / "runs" / "one" / "03_memory.ipynb"
    notebook.parent.mkdir(parents=True)
    cell = nbformat.v4.new_code_cell("1 + 1", outputs=[nbformat.v4.new_output("stream", text="ran here")])
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 03 Memory"), cell]), notebook)
    run = record.open_record("03_memory", notebook, None, "run-one")
    run.outcome, run.verdict, run.exit_code, run.operator = Outcome.COMPLETED, Verdict.REHEARSED, 0, "ada <a@b.c>"
    record.save(run, record.record_path(notebook))
    audit.seal(record.record_path(notebook), notebook)
    return notebook


def pages(directory: Path) -> str:
    assert cli.main(["runs", "--html", str(directory)]) == 0
    return (directory / "index.html").read_text()


def test_the_index_leads_to_a_page_with_what_the_notebook_showed(sealed: Path, tmp_path: Path) -> None:
    index = pages(tmp_path / "pages")
    (name,) = re.findall(r'href="([^"]+)"', index)
    assert name == "run-one-03_memory.html"
    page = (tmp_path / "pages" / name).read_text()
    assert "ran here" in page
    assert "REHEARSED" in index
    assert "ada &lt;a@b.c&gt;" in index


def test_nothing_is_loaded_from_elsewhere(sealed: Path, tmp_path: Path) -> None:
    pages(tmp_path / "pages")
    for page in (tmp_path / "pages").glob("*.html"):
        assert REMOTE.findall(page.read_text()) == [], page.name


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_text(path.read_text() + "\n"), "the notebook is not the one that was sealed"),
        (lambda path: path.unlink(), "the notebook is missing"),
    ],
    ids=["altered", "removed"],
)
def test_no_page_is_made_of_a_notebook_that_is_not_as_it_was_sealed(sealed: Path, tmp_path: Path, harm, said) -> None:
    harm(sealed)
    assert said in pages(tmp_path / "pages")
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["index.html"]


def test_a_folder_that_cannot_be_made_is_said(sealed: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["runs", "--html", str(tmp_path / "file" / "pages")]) == 1
    assert "cannot be made: Not a directory; choose another folder" in capsys.readouterr().err
