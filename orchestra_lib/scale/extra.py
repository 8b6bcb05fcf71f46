"""The environment that Apache Beam needs for itself, and what to say where it is missing.

Beam 2.77 wants protobuf below 7 and google-cloud-aiplatform below 2, the runbooks want both newer: one Python cannot
have the two. So a pipeline runs in an environment of its own, started from here as a program.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import root

VARIABLE = "ORCHESTRA_DATAFLOW_PYTHON"
"""Names another Python with the extra than that of scripts/scale_venv.sh."""
HOW_TO_GET_IT = (
    "Apache Beam is not installed here: run scripts/scale_venv.sh, which makes .venv-dataflow with its own pins, "
    f"or name a Python that has it in {VARIABLE}. Everything but scale/'s pipelines works without"
)


def require_beam() -> None:
    """Return if this Python has Apache Beam. Raises ParameterError that says how to get it."""
    if importlib.util.find_spec("apache_beam") is None:
        raise ParameterError(HOW_TO_GET_IT)


def beam_python() -> Path:
    """The Python that pipelines run in. Raises ParameterError that says how to get one."""
    python = Path(os.environ.get(VARIABLE) or root() / ".venv-dataflow" / "bin" / "python")
    if not python.exists():
        raise ParameterError(HOW_TO_GET_IT if VARIABLE not in os.environ else f"{VARIABLE}: there is no {python}")
    return python
