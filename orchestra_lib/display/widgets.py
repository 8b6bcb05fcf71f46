"""Controls for people who step through a runbook. A widget never carries a value that a parameter does not."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets


def approval_button(plan_digest: str, on_approve: Callable[[], None]) -> ipywidgets.Button:
    """A button that calls ``on_approve`` once and then shows that the plan is approved."""
    button = ipywidgets.Button(
        description=f"Approve plan {plan_digest[:12]}",
        button_style="warning",
        icon="check",
        layout=ipywidgets.Layout(width="max-content"),
    )

    def pressed(_: ipywidgets.Button) -> None:
        on_approve()
        button.disabled = True
        button.button_style = "success"
        button.description = f"Plan {plan_digest[:12]} approved"

    button.on_click(pressed)
    return button
