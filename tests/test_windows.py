"""When a phase may run: by the clock on the wall there, over midnight, over both ends of summer time, in every zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from settings_content import with_values

from orchestra_lib import record, settings
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.record import Outcome
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings.windows import WEEKDAYS, Window
from orchestra_lib.windows import admit, closes, is_open, opens

CHICAGO, MINUTE = ZoneInfo("America/Chicago"), timedelta(minutes=1)
# In 2027 Chicago's summer time begins on 14 March (02:00 becomes 03:00) and ends on 7 November (02:00 becomes 01:00).


def window(begins: str = "22:00", ends: str = "06:00", **values: Any) -> Window:
    given_ = {"name": "night", "purpose": "feature_freeze", "phases": ["03"], "timezone": "America/Chicago", **values}
    return Window.model_validate({**given_, "begins": begins, "ends": ends})


def there(text: str, fold: int = 0, zone: ZoneInfo = CHICAGO) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2027-01-16 21:59:59.999999", False),
        ("2027-01-16 22:00", True),
        ("2027-01-16 23:59:59", True),
        ("2027-01-17 00:00", True),
        ("2027-01-17 05:59:59.999999", True),
        ("2027-01-17 06:00", False),
    ],
)
def test_a_window_over_midnight_begins_with_its_first_moment_and_ends_before_its_last(
    moment: str, expected: bool
) -> None:
    assert is_open(window(), there(moment)) is expected


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    saturday = window(days=["SATURDAY"])
    assert [is_open(saturday, there(f"2027-01-{day} 05:00")) for day in (16, 17, 18)] == [False, True, False]
    bounded = window(first_day=date(2027, 1, 16), last_day=date(2027, 1, 16))
    assert not is_open(bounded, there("2027-01-16 05:00"))
    assert is_open(bounded, there("2027-01-17 05:00"))
    assert not is_open(bounded, there("2027-01-17 22:00"))


def test_the_same_moment_is_judged_by_the_clock_of_the_windows_own_zone() -> None:
    moment = datetime(2027, 1, 16, 23, 30, tzinfo=UTC)  # 17:30 in Chicago, 05:00 of the next day in Kolkata
    assert not is_open(window(), moment)
    assert is_open(window(timezone="Asia/Kolkata"), moment)
    assert is_open(window(timezone="UTC"), moment)
    assert is_open(window(timezone="UTC"), moment.astimezone(ZoneInfo("Pacific/Auckland")))


def test_an_hour_that_summer_time_leaves_out_is_never_shown_so_a_window_in_it_does_not_open() -> None:
    gap = window("02:00", "03:00", first_day=date(2027, 3, 14), last_day=date(2027, 3, 14))
    before = there("2027-03-14 01:00")
    assert not any(is_open(gap, before.astimezone(UTC) + minutes * MINUTE) for minutes in range(180))
    assert opens(gap, before) is None


def test_a_window_that_begins_in_the_hour_left_out_opens_when_it_is_jumped_over() -> None:
    night = window("02:30", "05:00")
    jump = datetime(2027, 3, 14, 8, tzinfo=UTC)  # 02:00 CST, which is 03:00 CDT
    assert not is_open(night, jump - MINUTE)
    assert is_open(night, jump)
    assert opens(night, jump - timedelta(hours=2)) == jump


def test_a_window_that_ends_in_the_hour_left_out_closes_when_it_is_jumped_over() -> None:
    night = window("22:00", "02:30")
    assert closes(night, there("2027-03-14 01:30")) == datetime(2027, 3, 14, 8, tzinfo=UTC)


def test_an_hour_that_comes_twice_is_in_the_window_both_times() -> None:
    hour = window("01:00", "01:30", days=["SUNDAY"])
    first, second = there("2027-11-07 01:15", fold=0), there("2027-11-07 01:15", fold=1)
    assert (second.astimezone(UTC) - first.astimezone(UTC)) == timedelta(hours=1)
    assert is_open(hour, first)
    assert not is_open(hour, there("2027-11-07 01:45"))
    assert is_open(hour, second)
    assert closes(hour, second) == there("2027-11-07 01:30", fold=1).astimezone(UTC)
    assert opens(hour, there("2027-11-07 01:45")) == there("2027-11-07 01:00", fold=1).astimezone(UTC)


def test_a_freeze_of_whole_days_closes_at_the_end_of_the_last() -> None:
    freeze = window("00:00", "24:00", first_day=date(2027, 1, 11), last_day=date(2027, 1, 13))
    assert not is_open(freeze, there("2027-01-10 23:59:59"))
    assert closes(freeze, there("2027-01-11 00:00")) == there("2027-01-14 00:00").astimezone(UTC)
    assert opens(freeze, there("2027-01-14 00:00")) is None


def test_equal_times_are_the_whole_day_round_from_that_time() -> None:
    round_ = window("18:00", "18:00", days=["FRIDAY"])
    friday = there("2027-01-15 18:00")
    assert is_open(round_, friday)
    assert is_open(round_, there("2027-01-16 17:59"))
    assert closes(round_, friday) == there("2027-01-16 18:00").astimezone(UTC)


zones = st.sampled_from(["UTC", "America/Chicago", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"])
clocks = st.integers(0, 24 * 60 - 1).map(lambda minutes: f"{minutes // 60:02d}:{minutes % 60:02d}")
days = st.none() | st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=6, unique=True)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda naive: naive.replace(tzinfo=UTC))


@given(zones, clocks, clocks, days, moments)
def test_it_opens_and_closes_at_the_first_moment_at_which_that_is_so(
    zone: str, begins: str, ends: str, on: list[str] | None, moment: datetime
) -> None:
    found = window(begins, ends, timezone=zone, days=on, first_day=date(2020, 1, 1))
    change = closes(found, moment) if is_open(found, moment) else opens(found, moment)
    if change is None:
        assert begins == ends, "only a window of all days has no end"
        return
    assert change > moment
    assert is_open(found, change) is not is_open(found, moment)
    assert is_open(found, change - timedelta(microseconds=1)) is is_open(found, moment)


# --- who may run ------------------------------------------------------------------------------------------------------


def test_a_phase_without_a_window_may_run_at_any_time() -> None:
    now = there("2027-01-16 12:00")
    assert admit([], "03", None, now).open == ()
    assert admit([window(phases=["02"])], "03", None, now).overridden is None


def test_outside_all_of_its_windows_a_phase_is_refused_with_the_next_opening_and_what_to_do() -> None:
    noon = there("2027-01-16 12:00")
    testing = window("09:00", "11:00", name="try", purpose="testing")
    with pytest.raises(GateFailed) as refused:
        admit([window(), testing], "03", None, noon)
    said = str(refused.value)
    assert "night opens at 2027-01-16 22:00 CST" in said
    assert "-p override_window night" in said
    assert admit([window(), testing], "03", None, there("2027-01-16 10:00")).open == (testing,)


def test_a_window_is_overridden_by_its_own_name_and_by_no_other() -> None:
    noon, other = there("2027-01-16 12:00"), window(name="other", phases=["04"])
    assert admit([window(), other], "03", "night", noon).overridden == window()
    with pytest.raises(GateFailed, match="other is none of its windows \\(night\\)"):
        admit([window(), other], "03", "other", noon)
    assert admit([window()], "03", "night", there("2027-01-16 23:00")).overridden is None, "it is open"


def test_a_window_that_is_over_says_so() -> None:
    with pytest.raises(GateFailed, match="does not open again"):
        admit([window(last_day=date(2026, 1, 1))], "03", None, there("2027-01-16 12:00"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"begins": 1320}, 'put it in quotes, "22:00"'),
        ({"begins": "24:00"}, "a day begins at 00:00"),
        ({"begins": "7:00"}, "begins"),
        ({"timezone": "EST"}, "is no place"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone"),
        ({"phases": ["00"]}, "changes nothing"),
        ({"phases": []}, "phases"),
        ({"first_day": "2027-02-01", "last_day": "2027-01-01"}, "is after last_day"),
        ({"begins": "00:00", "ends": "24:00"}, "is always open"),
        ({"name": "Night"}, "name"),
    ],
)
def test_a_window_that_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        window(**{"begins": "22:00", "ends": "06:00", **values})
    assert words in str(refused.value)


def test_the_examples_in_the_parameter_file_are_windows() -> None:
    lines = (settings.root() / "parameters" / "production.yaml").read_text().splitlines()
    examples = "\n".join(line.removeprefix("# ") for line in lines if line.startswith(("#   - {", "#      ")))
    found = [Window.model_validate(one) for one in yaml.safe_load(examples)]
    assert [window.name for window in found] == ["memory-freeze", "memory-test"]
    assert is_open(found[0], there("2027-01-31 05:59")), "the last night ends on the day after"
    assert not is_open(found[0], there("2027-02-06 23:00"))


def test_two_windows_of_one_name_are_refused_because_one_is_overridden_by_its_name() -> None:
    twice = [window().model_dump(mode="json")] * 2
    with pytest.raises(ValidationError, match="two windows are called night"):
        with_values(windows=twice)


# --- a run and its window ---------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the parameters, and a freeze of phase 3 that is over."""
    parameters = tmp_path / "parameters"
    parameters.mkdir()
    for path in (settings.root() / "parameters").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        if path.stem == "local":
            over = {"name": "freeze", "purpose": "feature_freeze", "phases": ["03"], "timezone": "UTC"}
            content["windows"] = [{**over, "last_day": date(2026, 1, 1)}]
        (parameters / path.name).write_text(yaml.safe_dump(content))
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def records(home: Path) -> list[record.Record]:
    return [record.load(path) for path in sorted((home / "runs").rglob("*.record.json"))]


def test_a_run_outside_its_window_is_refused_and_its_record_says_why(home: Path) -> None:
    with pytest.raises(GateFailed, match="phase 03 is outside its windows: freeze does not open again"):
        Runbook.open("03_memory", environment="local")
    (refused,) = records(home)
    assert (refused.outcome, refused.exit_code) == (Outcome.REFUSED, 1)


def test_outside_its_window_a_run_may_plan_and_another_phase_may_run(home: Path) -> None:
    for run in (
        Runbook.open("03_memory", environment="local", mode="plan"),
        Runbook.open("02_workstations", environment="local"),
    ):
        lock = run._replaced()
        assert lock is not None
        lock.release()
    assert len(records(home)) == 2


def test_an_override_by_name_lets_the_run_pass_and_stands_in_its_record(home: Path) -> None:
    run = Runbook.open("03_memory", environment="local", override_window="freeze")
    run._require_window()
    (row,) = run.record.evidence
    assert (row["claim"], row["value"]) == ("window that was overridden", "freeze")
    (note,) = [note for note in run.record.notes if "overridden" in note]
    assert note.startswith(f"window freeze was overridden by {run.record.operator}")
    assert run.record.parameters["override_window"] == "freeze"
    lock = run._replaced()
    assert lock is not None
    lock.release()


def test_an_override_of_a_window_that_there_is_not_is_refused_before_anything(home: Path) -> None:
    with pytest.raises(ParameterError, match="override_window frezze is no window; there is freeze"):
        Runbook.open("03_memory", environment="local", override_window="frezze")
