"""The steps of a rollout and the rates of the load, as a parameter of papermill may give them."""

from __future__ import annotations

import pytest

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError


@pytest.mark.parametrize("given", ["5 25 100", "5,25,100", [5, 25, 100], (5, 25, 100)])
def test_shares_may_be_a_text_or_a_list(given: object) -> None:
    assert settings.load("local", "05_api", {"percents": given}).rollout.percents == (5, 25, 100)


@pytest.mark.parametrize("given", ["5 25", "25 5 100", "5 5 100", "0 100", "101", "", "all", 50, 2.5, []])
def test_shares_that_do_not_rise_to_everything_are_refused_with_the_parameter(given: object) -> None:
    with pytest.raises(ParameterError, match="parameter percents"):
        settings.load("local", "05_api", {"percents": given})


@pytest.mark.parametrize(("given", "wanted"), [("20 50", (20.0, 50.0)), (20, (20.0,)), ([7.5, 10], (7.5, 10.0))])
def test_rates_may_be_a_text_a_number_or_a_list(given: object, wanted: tuple[float, ...]) -> None:
    assert settings.load("local", "05_api", {"rates": given}).api_load.rates == wanted


@pytest.mark.parametrize("given", ["fast", "", 0, "20 -1", []])
def test_rates_that_cannot_be_offered_are_refused_with_the_parameter(given: object) -> None:
    with pytest.raises(ParameterError, match="parameter rates"):
        settings.load("local", "05_api", {"rates": given})
