"""Every rule finds what it is about and nothing else; findings are read, counted and put right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rules.rule_cases import CASES, Case

from orchestra_lib.evidence import Verdict
from orchestra_lib.rules import ALL, LIVE, OFFLINE, Finding, Level, LiveFacts, Policy, Rule, fix, judge, known, summary
from orchestra_lib.settings import STRATEGY, root
from orchestra_lib.settings.document import read, value_at, with_values
from orchestra_lib.vectors.memory import ivfflat_build_memory

PARAMETERS = root() / "parameters"
PRODUCTION = read(PARAMETERS / "production.yaml")
WRITTEN = read(PARAMETERS / f"{STRATEGY}.yaml")


def broken(case: Case) -> list[Rule]:
    """The rules of the case's id that its bad document breaks."""
    bad, _ = case.documents()
    rules = [rule for rule in ALL if rule.id == case.id]
    return [one.rule for one in judge(bad, rules, facts=case.facts) if one.level is one.rule.severity]


# --- one by one -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id} {', '.join(case.bad)}"[:60])
def test_a_rule_finds_what_breaks_it_and_is_silent_when_it_holds(case: Case) -> None:
    found = broken(case)
    assert found
    _, good = case.documents()
    assert judge(good, found, facts=case.good_facts or case.facts) == ()


def test_every_rule_has_been_broken_and_met() -> None:
    seen = {id(rule) for case in CASES for rule in broken(case)}
    assert [f"{rule.id} {rule.place} {rule.claim}" for rule in ALL if id(rule) not in seen] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_finding_is_one_line_with_its_place_its_source_and_its_day(case: Case) -> None:
    bad, _ = case.documents()
    for finding in judge(bad, broken(case), "some.yaml", case.facts):
        line = str(finding)
        assert "\n" not in line
        assert line.startswith(f"{finding.level} {case.id} {finding.rule.place}: ")
        assert "known on 20" in line
        row = finding.evidence()
        assert row.command == "some.yaml"
        assert row.verdict is (Verdict.FAIL if finding.level is Level.FAIL else Verdict.NOTED)
        assert finding.message in row.note


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_nearest_setting_is_ready_for_a_parameter_file_and_ends_the_finding(case: Case) -> None:
    bad, _ = case.documents()
    for finding in judge(bad, broken(case), facts=case.facts):
        for parameter in finding.nearest:
            place, _, text = str(parameter).partition(": ")
            assert place == parameter.place
            assert yaml.safe_load(text) == parameter.value
        if finding.nearest:
            again = judge(fix(bad, [finding]), [finding.rule], facts=case.facts)
            assert [one for one in again if one.level in (Level.FAIL, Level.WARN)] == []


# --- the two files ----------------------------------------------------------------------------------------------------


def findings(document: Mapping[str, Any], level: Level) -> dict[tuple[str, str], Finding]:
    return {(one.rule.id, one.rule.place): one for one in judge(document, OFFLINE) if one.level is level}


def test_production_breaks_no_rule() -> None:
    assert findings(PRODUCTION, Level.FAIL) == {}
    assert summary(judge(PRODUCTION, OFFLINE), OFFLINE).verdict is Verdict.PASS


def test_production_is_warned_of_its_bill_and_its_budget() -> None:
    warned = findings(PRODUCTION, Level.WARN)
    assert {("R-BG-02", "cost.total.high_usd"), ("R-BG-03", "cost.budget_usd")} <= set(warned)


@pytest.mark.parametrize(
    ("level", "id", "place", "words"),
    [
        (Level.FAIL, "R-WS-01", "workstations.development.machine_type", "cannot be attached to n2d-standard-32"),
        (Level.FAIL, "R-RN-02", "api.memory", "2G (2,000,000,000 bytes)"),
        (Level.FAIL, "R-AI-01", "assistant.model", "'Gemini Pro Latest' is an alias"),
        (Level.FAIL, "R-AI-03", "assistant.temperature", "temperature 0.2"),
        (Level.WARN, "R-AI-04", "assistant.max_output_tokens", "8192 tokens: thinking tokens count as output"),
        (Level.WARN, "R-VX-03", "memory.index.default_lists", "pgvector's is 100"),
        (Level.WARN, "R-RN-03", "api.default_concurrency", "so 320 here"),
        (Level.FAIL, "R-PJ-02", "organization.create", "no call does that"),
        (Level.FAIL, "R-DR-01", "regions.secondary", "nothing is declared there"),
        (Level.FAIL, "R-BG-02", "cost.workstations.high_usd", "the estimate ends at 1,500 USD"),
        (Level.INFO, "R-VX-02", "memory.index.lists", "4,000 lists need 4,359 MiB"),
        (Level.WARN, "R-RB-01", "rollback.infrastructure", "changes nothing in the cloud"),
        (Level.WARN, "R-CI-03", "delivery.deployers", "each undoes what the other deploys"),
        (Level.WARN, "R-RN-12", "api.cold_starts", "start cold"),
        (Level.WARN, "R-WS-07", "workstations.home_disk_gb", "thrown away at every stop"),
        (Level.UNJUDGED, "R-BG-02", "cost.total.high_usd", "MISSING"),
    ],
)
def test_what_is_wrong_with_the_strategy_is_named(level: Level, id: str, place: str, words: str) -> None:
    assert words in findings(WRITTEN, level)[id, place].message


def test_the_strategy_is_priced_with_productions_assumptions() -> None:
    assert WRITTEN["usage"] == PRODUCTION["usage"]


def test_the_strategy_put_right_has_the_shape_that_can_be_bought() -> None:
    document = put_right(WRITTEN)
    assert value_at(document, "workstations.development.machine_type") == "n1-standard-32"
    assert value_at(document, "api.memory") == "2Gi"
    assert value_at(document, "assistant.model") == "gemini-4-argon"
    assert value_at(document, "assistant.temperature") is None
    assert [one for one in judge(document, OFFLINE) if one.level is Level.FAIL] == []


# --- what cannot be judged --------------------------------------------------------------------------------------------


def test_nothing_passes_in_silence_for_want_of_a_setting() -> None:
    judged = {id(one.rule): one for one in judge({}, ALL)}
    required = [rule for rule in ALL if any(one.absent == "UNJUDGED" and not one.live for one in rule.reads.values())]
    assert required
    for rule in required:
        # A rule whose subject is not used at all holds before anything else is asked for.
        if all(one.absent != "MET" for one in rule.reads.values()):
            assert judged[id(rule)].level is Level.UNJUDGED
            assert "is not stated" in judged[id(rule)].message


def test_a_live_rule_without_facts_says_what_was_not_read() -> None:
    quotas = [rule for rule in LIVE if rule.id == "L-QU-01"]
    said = [one.message for one in judge(PRODUCTION, quotas)]
    assert len(said) == len(quotas)
    assert "quota left NVIDIA_T4_GPUS was not read from Google Cloud" in said[0]


def test_a_value_of_the_wrong_type_fails_a_rule_that_would() -> None:
    found = judge({"workstations": {"boot_disk_gb": "big"}}, [rule for rule in ALL if rule.id == "R-WS-06"])
    assert [(one.level, one.message) for one in found] == [
        (Level.FAIL, "workstations.boot_disk_gb is 'big'; it has to be a whole number")
    ]


# --- what a discovery document says -----------------------------------------------------------------------------------


def test_a_limit_moves_with_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [rule for rule in ALL if rule.id == "R-WS-06"]
    document = {"workstations": {"boot_disk_gb": 35}}
    assert judge(document, rules) == ()
    newer = with_values(
        known.document(known.WORKSTATIONS),
        {
            "revision": "20270101",
            "schemas.GceInstance.properties.bootDiskSizeGb.description": "The minimum boot disk size is `40` GB. "
            "Defaults to `60` GB.",
        },
    )
    monkeypatch.setattr(known, "document", lambda api: newer)
    line = str(judge(document, rules)[0])
    assert "the least is 40" in line
    assert "workstations.boot_disk_gb: 60" in line
    assert "known on 2027-01-01, workstations.v1" in line


def test_a_document_that_no_longer_states_it_leaves_the_rule_unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = with_values(
        known.document(known.WORKSTATIONS), {"schemas.GceInstance.properties.bootDiskSizeGb.description": "A size."}
    )
    monkeypatch.setattr(known, "document", lambda api: silent)
    found = judge({"workstations": {"boot_disk_gb": 5}}, [rule for rule in ALL if rule.id == "R-WS-06"])
    assert [one.level for one in found] == [Level.UNJUDGED]
    assert "no longer states this of GceInstance.bootDiskSizeGb" in found[0].message


def test_what_the_documents_state_is_found_in_them() -> None:
    assert known.boot_disk_minimum_gb() == 30
    assert known.home_disk_sizes_gb() == (10, 50, 100, 200, 500, 1000)
    assert known.small_home_disk() == (200, ("pd-balanced", "pd-ssd"))
    assert known.run_cpus() == (1, 2, 4, 8)
    assert known.run_memory_minimum() == (4, 2)
    assert known.scaling_utilization("cpuUtilization") == (0.1, 0.9)
    assert known.slo_goal_maximum() == 0.9999
    assert known.temperature_range() == (0, 2)
    assert known.workstation_ports() == (frozenset({22, 80}), range(1024, 65536))
    assert known.federated_subject_maximum_bytes() == 127
    assert known.database_versions()[-1] == "POSTGRES_18"
    assert known.revision("run.v2") >= date(2026, 1, 1)
    assert known.is_immutable(known.WORKSTATIONS, "WorkstationConfig", "replicaZones")


def test_the_memory_of_a_build_is_the_same_formula_as_the_builds_own() -> None:
    needed = ivfflat_build_memory(4000, 10**6, 1536, 10**6).required_mib
    document = {"memory": {"dimension": 1536, "index": {"lists": 4000, "maintenance_work_mem_mib": needed - 1}}}
    found = [one for one in judge(document, OFFLINE) if one.rule.id == "R-VX-02" and one.level is Level.FAIL]
    assert [parameter.value for one in found for parameter in one.nearest] == [needed]


# --- any document -----------------------------------------------------------------------------------------------------

_PLACES = sorted({one.place for rule in ALL for one in rule.reads.values() if not one.live} - {"memory.alloydb"})
_KNOWN_VALUES = sorted(
    {value for case in CASES for values in (case.bad, case.good) for value in values.values() if isinstance(value, str)}
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 100_000),
    st.integers(),
    st.floats(),
    st.sampled_from(_KNOWN_VALUES),
    st.text(max_size=12),
    st.lists(st.sampled_from(_KNOWN_VALUES) | st.text(max_size=5), max_size=6),
    st.lists(st.dictionaries(st.sampled_from(["percent", "tag"]), st.integers(0, 100) | st.none()), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
_SETTINGS = st.one_of(
    st.tuples(st.sampled_from(_PLACES), _VALUES),
    # Values that belong there: otherwise hardly any rule would get as far as its predicate.
    st.sampled_from(
        [(place, value) for case in CASES for part in (case.bad, case.good) for place, value in part.items()]
    ),
)
DOCUMENTS = st.lists(_SETTINGS, max_size=25).map(lambda pairs: with_values({}, dict(pairs)))
NO_FACTS = LiveFacts()
FACTS = LiveFacts(
    accelerator_types={
        "us-central1-a": frozenset({"nvidia-tesla-t4"}),
        "us-central1-c": frozenset({"nvidia-tesla-t4"}),
    },
    machine_types={"us-central1-a": frozenset({"n1-standard-32"}), "us-central1-c": frozenset({"n1-standard-32"})},
    quota_left={"CPUS": 24.0, "NVIDIA_T4_GPUS": 0.0},
    policies={"gcp.resourceLocations": Policy(allowed=frozenset({"in:us-locations"}))},
    database_flags={"work": {"integerRestrictions": {"minValue": "1"}}},
    max_connections=100,
    workstation_cluster={},
    workstation_configuration={"replicaZones": ["us-central1-a", "us-central1-c"]},
    gateway={},
    api_configuration={},
)


def put_right(document: Mapping[str, Any], facts: LiveFacts = NO_FACTS) -> dict[str, Any]:
    """Every nearest setting put in, again and again until there is none left to put in."""
    current = dict(document)
    for _ in range(8):
        proposed = [one for one in judge(current, ALL, facts=facts) if one.nearest]
        if not proposed:
            return current
        current = fix(current, proposed)
    raise AssertionError(f"no rest after 8 rounds: {[str(one) for one in proposed]}")


@settings(max_examples=300)
@given(DOCUMENTS)
def test_any_document_is_judged_worst_first_and_a_rule_has_at_most_one_finding(document: dict[str, Any]) -> None:
    before = repr(document)
    found = judge(document, ALL, facts=FACTS)
    assert [one.rank for one in found] == sorted(one.rank for one in found)
    assert max(Counter(id(one.rule) for one in found).values(), default=0) <= 1
    assert all("\n" not in str(one) + one.evidence().note for one in found)
    assert repr(document) == before


@settings(max_examples=300)
@given(DOCUMENTS)
def test_putting_in_every_nearest_setting_comes_to_rest_and_leaves_no_fail_that_could_be_put_right(
    document: dict[str, Any],
) -> None:
    rested = put_right(document, FACTS)
    left = judge(rested, ALL, facts=FACTS)
    assert [str(one) for one in left if one.nearest] == []
    assert fix(rested, left) == rested


@settings(max_examples=100)
@given(DOCUMENTS)
def test_facts_that_were_not_read_never_make_a_live_rule_pass_or_fail(document: dict[str, Any]) -> None:
    for finding in judge(document, LIVE):
        assert finding.level is Level.UNJUDGED or "it has to be" in finding.message
