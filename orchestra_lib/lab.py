"""JupyterLab on the notebooks: for this machine alone, behind a token, and asking nothing of the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import root


def command(phase: str | None, *, port: int, opens_browser: bool, folder: Path | None = None) -> list[str]:
    """The command that opens JupyterLab on the notebooks, or on that of a phase such as ``03``.

    Raises ParameterError for a phase without a notebook.
    """
    notebooks = folder or root() / "notebooks"
    there = {path.name[:2]: path.name for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if phase is not None and phase not in there:
        raise ParameterError(f"there is no notebook {phase!r}; there are {', '.join(there)}")
    options = [
        f"--ServerApp.root_dir={notebooks}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--ServerApp.open_browser={opens_browser}",
        # With the settings of jupyter_config, neither news nor updates nor extensions are asked for elsewhere.
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if os.getuid() == 0:
        options.append("--ServerApp.allow_root=True")
    if phase is not None:
        options.append(f"--LabApp.default_url=/lab/tree/{there[phase]}")
    # The project's own Python: its kernel has the library.
    return [sys.executable, "-m", "jupyterlab", *options]


def environment() -> dict[str, str]:
    """The environment that JupyterLab starts in: this one, with the few settings of ``jupyter_config``."""
    ours, theirs = str(Path(__file__).with_name("jupyter_config")), os.environ.get("JUPYTER_CONFIG_PATH")
    return {**os.environ, "JUPYTER_CONFIG_PATH": f"{ours}{os.pathsep}{theirs}" if theirs else ours}


def open_lab(phase: str | None, *, port: int, opens_browser: bool) -> None:
    """Become JupyterLab; does not return. Its token stands in the address that it prints."""
    words = command(phase, port=port, opens_browser=opens_browser)
    os.execve(words[0], words, environment())  # noqa: S606 - a fixed command, without a shell
