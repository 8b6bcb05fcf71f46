"""What papermill injects is checked by name, in a real IPython shell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from orchestra_lib.errors import ParameterError
from orchestra_lib.guard import assigned_names, injected_parameters, overrides

KNOWN = frozenset({"lists", "mode", "approved_plan"})


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
    yield shell
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, *cells: str) -> None:
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()


def test_injected_values_override_and_none_does_not(shell: InteractiveShell) -> None:
    run(shell, "lists = None\nmode = None", '# Parameters\nlists = 4000\nmode = "apply"\napproved_plan = None\n')
    found = overrides("03_memory", KNOWN, {"environment": "local", "lists": 4000, "mode": "apply"})
    assert found == {"environment": "local", "lists": 4000, "mode": "apply"}


def test_an_injected_value_that_the_notebook_forgot_to_pass_counts(shell: InteractiveShell) -> None:
    run(shell, "# Parameters\nlists = 4000\n")
    assert overrides("03_memory", KNOWN, {"lists": None}) == {"lists": 4000}


def test_a_misspelt_name_is_refused_with_the_nearest_and_says_what_it_hides(shell: InteractiveShell) -> None:
    run(shell, "lists = None", "# Parameters\nlist = 4000\n")
    with pytest.raises(ParameterError) as refused:
        overrides("03_memory", KNOWN, {"lists": None})
    assert str(refused.value) == (
        "03_memory has no parameter 'list' (in the notebook it also hides Python's own list); did you mean 'lists'?"
    )


@pytest.mark.parametrize("value", ["None", "'x'", "[1, 2]"])
def test_an_unknown_name_is_refused_whatever_its_value(shell: InteractiveShell, value: str) -> None:
    run(shell, f"# Parameters\nspeed = {value}\n")
    with pytest.raises(ParameterError, match="no parameter 'speed'; it knows approved_plan, environment, lists, mode"):
        overrides("03_memory", KNOWN, {})


def test_the_environment_can_be_injected(shell: InteractiveShell) -> None:
    run(shell, '# Parameters\nenvironment = "production"\n')
    assert overrides("03_memory", KNOWN, {}) == {"environment": "production"}


def test_a_name_hidden_in_the_notebook_does_not_break_the_guard(shell: InteractiveShell) -> None:
    run(shell, "# Parameters\nsorted = 1\nset = 2\nhasattr = 3\n")
    with pytest.raises(ParameterError, match="'sorted'"):
        overrides("03_memory", KNOWN, {})


def test_ordinary_cells_are_not_parameters(shell: InteractiveShell) -> None:
    run(shell, "unknown = 1", "# About parameters\nother = 2")
    assert injected_parameters() == {}


def test_unknown_keyword_arguments_are_refused_outside_ipython_too() -> None:
    assert injected_parameters() == {}
    assert overrides("03_memory", KNOWN, {"lists": 5, "mode": None}) == {"lists": 5}
    with pytest.raises(ParameterError, match="did you mean 'mode'"):
        overrides("03_memory", KNOWN, {"modes": None})


def test_names_are_read_from_every_kind_of_assignment() -> None:
    assert assigned_names("# Parameters\na = b = 1\nc: int = 2\nprint(3)\nd.e = 4\n") == ["a", "b", "c"]
    with pytest.raises(ParameterError, match="line 1"):
        assigned_names("a = = 1")
