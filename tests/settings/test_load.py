"""Parameter files and overrides: what is read, and the one line that says what is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError

DIRECTORY = settings.root() / "parameters"
LOCAL = (DIRECTORY / "local.yaml").read_text()
PRODUCTION = (DIRECTORY / "production.yaml").read_text()


def refused(**overrides: object) -> str:
    with pytest.raises(ParameterError) as caught:
        settings.load("local", "03_memory", overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_file(tmp_path: Path, content: str, name: str = "local", loaded: str | None = None) -> str:
    """The refusal of an environment, which has to begin with the file ``name``; the other files are as they are."""
    for other, text in (("local", LOCAL), ("production", PRODUCTION), (name, content)):
        (tmp_path / f"{other}.yaml").write_text(text)
    with pytest.raises(ParameterError) as caught:
        settings.load(loaded or name, directory=tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    return str(caught.value).removeprefix(f"{tmp_path}/")


# --- the two files ----------------------------------------------------------------------------------------------------


def test_the_rehearsal_holds_the_strategys_targets_and_assumes_its_baseline() -> None:
    found = settings.load("local")
    assert found.environment.kind == "local"
    assert (found.targets.vector_search_p95_ms, found.targets.sync_records_per_second) == (30, 1500)
    assert {value.source for _, value in found.baseline} == {"ASSUMED"}


def test_production_holds_the_strategys_technical_numbers() -> None:
    found = settings.load("production")
    assert found.project is not None
    assert found.organization is not None
    assert found.regions is not None
    assert found.workstations is not None
    assert found.api is not None
    assert found.assistant is not None
    assert found.cost is not None
    assert (found.project.id, found.organization.id) == ("cherry-ai-project", "873291114285")
    assert (found.regions.primary, found.regions.secondary) == ("us-central1", "us-east1")
    assert found.workstations.development.machine_type == "n2d-standard-32"
    assert (found.workstations.boost.accelerator_type, found.workstations.boost.accelerator_count) == (
        "nvidia-tesla-t4",
        2,
    )
    assert found.workstations.boot_disk_gb == 200
    assert (found.memory.index.lists, found.memory.dimension) == (4000, 1536)
    assert (found.memory.sync.debounce_seconds, found.memory.sync.batch_size) == (0.1, 500)
    assert (found.api.cpu, found.api.memory, found.api.concurrency, found.api.min_instances) == (4, "2Gi", 80, 1)
    assert (found.cost.total.low_usd, found.cost.total.high_usd) == (2200, 3300)
    assert found.timeline is not None
    assert max(phase.last_week for phase in found.timeline) == 6
    assert found.run.mode == "plan"


def test_every_correction_of_the_strategy_says_why() -> None:
    lines = (DIRECTORY / "production.yaml").read_text().splitlines()
    corrected = [line for line in lines if "Strategy:" in line and not line.startswith("#")]
    assert len(corrected) >= 12
    assert all(len(line.split("Strategy:", 1)[1]) > 20 for line in corrected)


@pytest.mark.parametrize("environment", settings.environments())
def test_settings_are_frozen_and_their_digest_changes_with_them(environment: str) -> None:
    found = settings.load(environment)
    with pytest.raises(ValueError, match="frozen"):
        found.memory.index.lists = 5  # type: ignore[misc]
    assert found.digest() == settings.load(environment).digest()
    assert found.digest() != settings.load(environment, "03_memory", {"lists": 77}).digest()


# --- overrides --------------------------------------------------------------------------------------------------------


def test_an_override_wins_and_none_leaves_the_files_value() -> None:
    found = settings.load("local", "03_memory", {"lists": 4000, "workers": None, "source_columns": '{"id": "key"}'})
    assert (found.memory.index.lists, found.memory.copy_.workers) == (4000, 2)
    assert found.memory.source.columns == {"id": "key"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lists": "banana"}, ["parameter lists is 'banana', a text", "a whole number from 1 to 32768"]),
        ({"lists": 0}, ["parameter lists is 0", "from 1 to 32768", "memory.index.lists"]),
        ({"lists": 40_000}, ["parameter lists is 40000", "from 1 to 32768"]),
        ({"lists": True}, ["parameter lists is True"]),
        ({"list": 4_000}, ["'list' is no parameter of 03_memory", "lists"]),
        ({"mode": "false"}, ["parameter mode is 'false'", "one of plan, apply"]),
        ({"rows": 3.5}, ["parameter rows is 3.5", "a whole number from 100 to 10000000"]),
        ({"approved_plan": float("inf")}, ["parameter approved_plan is inf"]),
        ({"lists": 100, "probes": 200}, ["probes 200 are more than the 100 lists"]),
        ({"probes": 20}, ["probes 20 are of no use while the lists are chosen"]),
        ({"source_columns": {"idx": "a"}}, ["source_columns is 'idx'", "id, agent_id"]),
        ({"source_columns": "id=key"}, ['{"id": "external_id"}']),
        ({"source_table": "a; DROP TABLE b"}, ["parameter source_table is 'a; DROP TABLE b'"]),
    ],
)
def test_a_parameter_is_refused_by_its_name_value_and_what_is_allowed(
    overrides: dict[str, object], words: list[str]
) -> None:
    message = refused(**overrides)
    assert [word for word in words if word not in message] == []


def test_a_secret_is_never_in_a_refusal() -> None:
    assert "hunter2" not in refused(source_dsn=["postgresql://ada:hunter2@db/orchestra"])
    assert "hunter2" not in refused(source_dsn="postgresql://ada:hunter2@db/orchestra", lists=0)


def test_an_unknown_environment_names_those_that_there_are() -> None:
    with pytest.raises(ParameterError, match=r"no environment 'nowhere'; .* has local, production"):
        settings.load("nowhere")


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()), st.just("../parameters/local")))
def test_no_value_but_a_files_name_is_an_environment(environment: object) -> None:
    if environment in settings.environments():
        return
    with pytest.raises(ParameterError):
        settings.load(environment)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  k: 10\n", "  k: ten\n", "memory.search.k is 'ten', a text; allowed: a whole number from 1 to 1000"),
        ("  search:\n    k: 10\n", "  search:\n", "memory.search.k is missing; a whole number from 1 to 1000"),
        ("    workers: 2\n", "    wrokers: 2\n", "memory.copy.wrokers is no setting; did you mean workers?"),
        ("    workers: 2\n", "", "memory.copy.workers is missing; a whole number from 1 to 64"),
        ("kind: local", "kind: aws", "environment.kind is 'aws', a text; allowed: one of local, gcp"),
        ("kind: local", "kind: gcp", "an environment of kind gcp rehearses nothing, and this one names production"),
        ("name: local", "name: other", "environment.name is 'other'; it has to be the file's own, 'local'"),
        ("debounce_seconds: 0.1", "debounce_seconds: 100ms", "memory.sync.debounce_seconds is '100ms', a text"),
        ("recall_target: 0.95", "recall_target: 95", "memory.search.recall_target is 95, a whole number"),
        ("recall_target: 0.95", "recall_target: .nan", "memory.search.recall_target is nan"),
        ("connections: 2", "connections: 33", "memory.sync.connections is 33, a whole number; allowed: a whole number"),
        ("slot: orchestra_memory", "slot: Orchestra", "memory.stream.slot is 'Orchestra'"),
        ("slot_alert_ratio: 0.8", "slot_alert_ratio: 1.0", "memory.stream.slot_alert_ratio is 1.0"),
        ("source: [orchestra_writer]", "source: []", "memory.writers.source"),
        ("cutover: true", "cutover: 1", "memory.drills.cutover is 1"),
        ("    queries: 400", "    queries: 400\n    queries: 700", "the key 'queries' stands here twice"),
        ("run:", "run: [", "line "),
    ],
)  # fmt: skip
def test_a_file_is_refused_with_the_path_of_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in LOCAL
    assert words in refused_file(tmp_path, LOCAL.replace(old, new, 1))


@pytest.mark.parametrize("content", ["", "null", "- a\n- b\n", "text", "\ttab: 1"])
def test_a_file_without_settings_is_refused(tmp_path: Path, content: str) -> None:
    refused_file(tmp_path, content)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("machine_type: n1-standard-32", "machine_type: n2d-standard-32", "only N1 takes it"),
        ("memory: 2Gi", "memory: 2G", "binary units"),
        ("memory: 2Gi", "memory: 1Gi", "4 CPUs need at least 2Gi"),
        ("model: gemini-4-argon", "model: gemini-pro-latest", "is an alias"),
        ("secondary: us-east1", "secondary: us-central1", "survives nothing"),
        ("home_disk_gb: 200", "home_disk_gb: 250", "one of 10, 50, 100, 200, 500, 1000"),
        ("machine_type: n2-highmem-4", "machine_type: n2-highmem-8", "has not 4 vCPUs"),
        ("recovery_window_days: 14", "recovery_window_days: 90", "from 1 to 35"),
        ('alloydb.iam_authentication: "on"', 'alloydb.iam_authentication: "off"', "nobody could log in"),
        ('      alloydb.logical_decoding: "on"', '      work_mem: "64"', "no way back after the cutover"),
        (
            'iam_authentication: "on"',
            "iam_authentication: on",
            "memory.alloydb.flags: alloydb.iam_authentication is True; put it in quotes",
        ),
        (
            "    max_connections: 1000",
            '      max_connections: "9"\n    max_connections: 1000',
            "say it as max_connections",
        ),
        ('["03:00"]', '["03:30"]', "memory.alloydb.backup_start_times"),
        ("backup_window_seconds: 3600", "backup_window_seconds: 60", "memory.alloydb.backup_window_seconds is 60"),
        ("day: SUNDAY", "day: Sunday", "memory.alloydb.maintenance_window.day is 'Sunday'"),
        ("dimension: 1536", "dimension: 3072", "a whole number from 1 to 2000"),
        ('id: "873291114285"', "id: 873291114285", "organization.id is 873291114285, a whole number"),
        ("{low_usd: 1200.0, high_usd: 1500.0}", "{low_usd: 1600.0, high_usd: 1500.0}", "is more than high_usd"),
        ("account: null", "account: 12-34", "billing.account is '12-34'"),
        ("owner_id: null", "owner_id: 1001", "github.owner_id is 1001, a whole number"),
        ("owner_id: null", "owner_id: ai-cherry", "github.owner_id is 'ai-cherry'"),
        ("  branch: main", f"  branch: {'b' * 90}", "choose a shorter branch"),
        ("primary_subnet: 10.10.0.0/20", "primary_subnet: 10.10.0.1/20", "10.10.0.1/20 is no range of addresses"),
        ("primary_subnet: 10.10.0.0/20", "primary_subnet: 10.10.0.0/27", "is too small: Cloud Run"),
        ("primary_subnet: 10.10.0.0/20", "primary_subnet: 8.8.0.0/20", "8.8.0.0/20 is not a private range"),
        ("primary_subnet: 10.10.0.0/20", "primary_subnet: 10.20.8.0/24", "overlap"),
        ("service_range: 10.64.0.0/16", "service_range: 10.64.0.0/25", "is too small: private services access"),
        ("application: ai-orchestra", "Application: ai-orchestra", "labels is 'Application'"),
        ("email: null", "email: nobody", "notifications.email is 'nobody'"),
        ("window_seconds: 300", "window_seconds: 90", "alerting.window_seconds is 90"),
    ],
)
def test_what_google_cloud_cannot_do_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PRODUCTION
    assert words in refused_file(tmp_path, PRODUCTION.replace(old, new, 1), "production")


# --- a rehearsal ------------------------------------------------------------------------------------------------------


def test_the_rehearsal_has_productions_cloud_and_remembers_what_it_took() -> None:
    local, production = settings.load("local"), settings.load("production")
    assert local.network == production.network
    assert local.api == production.api
    assert local.memory.alloydb == production.memory.alloydb is not None
    assert {"network", "memory.alloydb", "timeline"} <= set(local.taken)
    assert production.taken == ()
    assert local.public()["taken"] == list(local.taken)


def test_the_rehearsals_own_sections_win() -> None:
    local, production = settings.load("local"), settings.load("production")
    assert local.billing is not None
    assert local.billing.account == "01A2B3-C4D5E6-F70819"
    assert production.billing is not None
    assert production.billing.account is None
    assert not {"billing", "github", "notifications"} & set(local.taken)
    assert (local.memory.index.lists, production.memory.index.lists) == (None, 4000)


def test_a_changed_number_of_the_rehearsed_environment_is_the_rehearsals_too(tmp_path: Path) -> None:
    for name, text in (("local", LOCAL), ("production", PRODUCTION.replace("concurrency: 80", "concurrency: 40", 1))):
        (tmp_path / f"{name}.yaml").write_text(text)
    found = settings.load("local", directory=tmp_path)
    assert found.api is not None
    assert found.api.concurrency == 40
    assert found.digest() != settings.load("local").digest()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("concurrency: 80", "concurrency: eighty", "production.yaml: api.concurrency is 'eighty', a text"),
        (
            "recovery_window_days: 14",
            "recovery_window_days: 90",
            "production.yaml: memory.alloydb.recovery_window_days",
        ),
        ("secondary: us-east1", "secondary: us-central1", "production.yaml: regions: primary and secondary are both"),
        (
            "concurrency: 80",
            "concurency: 80",
            "production.yaml: api.concurency is no setting; did you mean concurrency?",
        ),
        ("api:\n", "api: [\n", "production.yaml, line "),
    ],
)
def test_a_wrong_value_is_looked_for_in_the_file_that_it_stands_in(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in PRODUCTION
    assert refused_file(tmp_path, PRODUCTION.replace(old, new, 1), "production", "local").startswith(words)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("rehearses: nowhere", "rehearses is 'nowhere'; allowed: the name of another file beside it, and there is"),
        ("rehearses: local", "rehearses is 'local'; allowed: the name of another file beside it"),
        ("rehearses: 7", "rehearses is 7; allowed: the name of another file"),
        ("rehearses: [production]", "rehearses is ['production']; allowed"),
        ("rehearses: copy", "copy.yaml is not on Google Cloud; only an environment of kind gcp"),
    ],
)
def test_only_another_environment_on_google_cloud_is_rehearsed(tmp_path: Path, new: str, words: str) -> None:
    (tmp_path / "copy.yaml").write_text(LOCAL.replace("name: local", "name: copy", 1))
    assert words in refused_file(tmp_path, LOCAL.replace("rehearses: production", new, 1))


def test_two_environments_that_rehearse_each_other_are_refused(tmp_path: Path) -> None:
    circle = PRODUCTION.replace("run:\n", "rehearses: local\nrun:\n", 1)
    (tmp_path / "production.yaml").write_text(circle)
    assert "production.yaml is not on Google Cloud" in refused_circle(tmp_path, "local")
    assert "rehearses is 'local', and" in refused_circle(tmp_path, "production")


def refused_circle(tmp_path: Path, name: str) -> str:
    (tmp_path / "local.yaml").write_text(LOCAL)
    with pytest.raises(ParameterError) as caught:
        settings.load(name, directory=tmp_path)
    return str(caught.value)


def test_a_rehearsal_names_the_sections_that_neither_file_has(tmp_path: Path) -> None:
    content = PRODUCTION.replace("registry:\n  repository: orchestra", "# registry:\n#  repository: orchestra", 1)
    (tmp_path / "production.yaml").write_text(content)
    assert "neither has the sections registry; add them there" in refused_circle(tmp_path, "local")


def test_an_environment_of_google_cloud_needs_all_its_sections(tmp_path: Path) -> None:
    content = PRODUCTION.replace("registry:\n  repository: orchestra", "# registry:\n#  repository: orchestra", 1)
    assert "an environment of kind gcp needs the sections registry" in refused_file(tmp_path, content, "production")


def test_nobody_writes_into_a_file_what_was_taken(tmp_path: Path) -> None:
    assert "taken is no setting" in refused_file(tmp_path, f"{LOCAL}taken: [api]\n")


def _paths(content: object, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(content, dict):
        return [prefix]
    return [prefix, *(path for key, value in content.items() for path in _paths(value, (*prefix, key)))]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


_FILES = {"local": LOCAL, "production": PRODUCTION}
_PLACES = [(name, path) for name, text in _FILES.items() for path in _paths(yaml.safe_load(text))[1:]]


@given(place=st.sampled_from(_PLACES), value=_VALUES)
def test_any_value_at_any_key_is_read_or_refused_in_one_line(place: tuple[str, tuple[str, ...]], value: object) -> None:
    name, path = place
    texts = dict(_FILES)
    changed = yaml.safe_load(texts[name])
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    texts[name] = yaml.safe_dump(changed)
    with tempfile.TemporaryDirectory() as directory:
        for file, text in texts.items():
            (Path(directory) / f"{file}.yaml").write_text(text)
        words = ""
        try:
            settings.load("local", directory=Path(directory))
        except ParameterError as error:
            words = str(error)
        assert "\n" not in words


def test_a_parameter_arrives_though_its_section_is_not_in_the_file() -> None:
    assert settings.load("local", "99_rollback", {"phase": 1, "may_destroy": "a, b"}).rollback.phase == "01"
    assert settings.load("local", "99_rollback", {"may_destroy": "a, b"}).run.may_destroy == ("a", "b")
    with pytest.raises(ParameterError, match="phase"):
        settings.load("local", "99_rollback", {"phase": "banana"})
