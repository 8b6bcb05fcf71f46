"""Errors as boxes: short, with a remedy, the traceback folded, and still an error to whoever runs the cells."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from orchestra_lib.display.failure import error_box
from orchestra_lib.errors import GateFailed

FOLD = "from IPython import get_ipython\nfrom orchestra_lib.display import fold_tracebacks\n"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_our_own_error_says_what_to_do_itself_and_nothing_is_added() -> None:
    box = error_box(raised(GateFailed("the plan is not approved: press <the> button\nrow one")), "frames")
    assert repr(box) == "GateFailed: the plan is not approved: press <the> button\nrow one"
    assert "press &lt;the&gt; button" in box.html
    assert box.html.index("<details") < box.html.index("frames")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NameError("name 'run' is not defined"), "run the notebook from its first cell"),
        (KeyboardInterrupt(), "Run this cell again to go on"),
        (ZeroDivisionError("division by zero"), "If it fails again, the traceback says where"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_another_error_comes_with_a_remedy(error: BaseException, remedy: str) -> None:
    assert remedy in repr(error_box(error, ""))


def test_a_message_of_many_lines_is_cut_and_says_so() -> None:
    told = repr(error_box(ValueError("\n".join(f"line {n}" for n in range(40))), ""))
    assert "line 11" in told
    assert "line 12" not in told
    assert "28 more lines stand in the traceback" in told


@pytest.mark.slow
def test_a_failing_cell_shows_one_box_and_fails_all_the_same(tmp_path: Path) -> None:
    cells = [FOLD + "fold_tracebacks(get_ipython())\nfold_tracebacks(get_ipython())", "def f():\n    1 / 0\nf()", "2"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    shown, error = notebook.cells[1].outputs
    assert (error.ename, error.evalue, error.traceback) == (
        "ZeroDivisionError",
        "division by zero",
        ["ZeroDivisionError: see above"],
    )
    assert "ZeroDivisionError: division by zero" in shown.data["text/plain"]
    assert "in f()" in shown.data["text/html"]
    assert "\\u001b" not in json.dumps(shown.data), "no terminal colours in a page"
    assert notebook.cells[2].outputs == []
