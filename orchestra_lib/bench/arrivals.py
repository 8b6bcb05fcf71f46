"""When requests are due: intended starts that do not depend on how fast anything answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def poisson(rate_per_second: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Intended starts of independent users, float64 (n,), ascending seconds in [0, seconds).

    The number of arrivals is random, too: on average ``rate_per_second * seconds``. The same seed gives the same
    arrivals. Raises ValueError for a rate or a duration that is not positive.
    """
    _check(rate_per_second, seconds)
    rng = np.random.default_rng(seed)
    # Given their number, the arrivals of a Poisson process are uniform order statistics (Kingman 1993, 2.4).
    return np.sort(rng.uniform(0.0, seconds, size=rng.poisson(rate_per_second * seconds)))


def evenly(rate_per_second: float, seconds: float) -> NDArray[np.float64]:
    """Intended starts at equal distances, the first at 0, float64 (n,): a metronome, kinder than any real traffic.

    Raises ValueError for a rate or a duration that is not positive.
    """
    _check(rate_per_second, seconds)
    # The small allowance keeps a product such as 3 * 0.1 * 10, which is a hair above 3, from making one too many.
    return np.arange(np.ceil(rate_per_second * seconds * (1 - 1e-12))) / rate_per_second


def _check(rate_per_second: float, seconds: float) -> None:
    if not (0 < rate_per_second < np.inf and 0 < seconds < np.inf):
        raise ValueError(
            f"{rate_per_second} requests a second for {seconds} s: both have to be positive and finite numbers"
        )
