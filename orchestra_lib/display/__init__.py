"""How the notebooks look: tables, figures, progress lines and buttons. Nothing here decides anything."""

from orchestra_lib.display import renderer as _renderer  # noqa: F401 - figures are drawn by it
from orchestra_lib.display.boxes import header_box, message_box, verdict_box
from orchestra_lib.display.failure import fold_tracebacks
from orchestra_lib.display.progress import Progress
from orchestra_lib.display.tables import Table, evidence_table, plan_table
from orchestra_lib.display.widgets import approval_button

__all__ = [
    "Progress",
    "Table",
    "approval_button",
    "evidence_table",
    "fold_tracebacks",
    "header_box",
    "message_box",
    "plan_table",
    "verdict_box",
]
