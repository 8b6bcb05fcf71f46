"""The guard of the parameters: what papermill put into the notebook is checked before anything else happens.

Papermill writes ``-p name value`` into a cell of its own that starts with ``# Parameters``. A misspelt name becomes a
new variable there, and the run would go on with the default; here it is refused.
"""

from __future__ import annotations

import ast
import builtins
import difflib
from collections.abc import Iterable, Mapping

from IPython.core.getipython import get_ipython

from orchestra_lib.errors import ParameterError

_INJECTED_CELL_STARTS_WITH = "# Parameters"


def overrides(runbook: str, known: Iterable[str], keywords: Mapping[str, object]) -> dict[str, object]:
    """The values that differ from the environment file's: injected ones, then the keyword arguments that are not None.

    Raises ParameterError for the first name that the runbook does not know, whether injected or passed.
    """
    names = {*known, "environment"}
    injected = injected_parameters()
    for name in (*injected, *keywords):
        if name not in names:
            raise ParameterError(_refusal(runbook, name, names))
    # None means "not given" in both: a keyword that the notebook left at None must not undo what was injected.
    return {name: value for given in (injected, keywords) for name, value in given.items() if value is not None}


def injected_parameters() -> dict[str, object]:
    """Names that papermill's cell assigns, with their values in the notebook now; empty outside IPython.

    Raises ParameterError when such a cell cannot be parsed.
    """
    shell = get_ipython()
    if shell is None:
        return {}
    names: list[str] = []
    for source in shell.history_manager.input_hist_raw:
        if source.startswith(_INJECTED_CELL_STARTS_WITH):
            names += assigned_names(source)
    return {name: shell.user_ns.get(name) for name in names}


def assigned_names(source: str) -> list[str]:
    """The names that a cell assigns at its top level, in order. Raises ParameterError when it is not Python."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(f"the cell that holds the parameters is not Python: line {error.lineno}") from error
    targets = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _refusal(runbook: str, name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(sorted(known))}"
    hidden = f" (in the notebook it also hides Python's own {name})" if hasattr(builtins, name) else ""
    return f"{runbook} has no parameter {name!r}{hidden}; {meant}"
