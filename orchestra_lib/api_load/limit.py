"""What one instance bears, and what it does with twice as much.

Where the saturation point is, the goals say: a moment in which the machine was busy with something else looks like it.
Twice of such a point is borne, next to nothing is refused, and nothing has been learnt. So it is looked for once more
then. A service that refuses nothing at all fails as before, after the second time. What went wrong the first time
counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.overload import FACTOR, FEWEST_REFUSED, Overload, overload
from orchestra_lib.api_load.saturation import Saturation, find_saturation
from orchestra_lib.api_load.workload import Workload

Say = Callable[[str], None]


def find_limit(workload: Workload, form: Form, progress: Say, note: Say) -> tuple[Saturation, Overload]:
    """The saturation point and the overload at twice of it; ``note`` hears of a first time that does not count.

    Raises GateFailed when not even the lowest rate was borne.
    """
    saturated, overloaded = _attempt(workload, form, progress)
    during, total = overloaded.during, overloaded.total
    wrong_answers = any(seen.wrong for step in saturated.steps for seen in step.kinds)
    went_wrong = wrong_answers or total.failed > total.shed or overloaded.recovery_seconds is None
    if went_wrong or during.shed >= FEWEST_REFUSED * during.requests:
        return saturated, overloaded
    note(
        f"at {overloaded.offered_per_second:.0f} requests a second, {FACTOR:g} times what was taken for the saturation "
        f"point, {during.shed:,} of {during.requests:,} were refused: it was looked for once more"
    )
    return _attempt(workload, form, progress)


def _attempt(workload: Workload, form: Form, progress: Say) -> tuple[Saturation, Overload]:
    progress("until one instance is saturated")
    saturated = find_saturation(workload, form)
    progress("twice of that")
    return saturated, overload(workload, _within_bracket(saturated), form)


def _within_bracket(found: Saturation) -> Saturation:
    """With the middle of its bracket, by ratio, as the saturation point: twice of the lower end may be borne."""
    if found.breaks_per_second is None:
        return found
    return replace(found, holds_per_second=math.sqrt(found.holds_per_second * found.breaks_per_second))
