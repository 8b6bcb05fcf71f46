"""What is handed over can be copied as it stands: each command is whole, and acts on the environment that is meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml

from orchestra_lib import cli, record, settings
from orchestra_lib.cloud.place import Place
from orchestra_lib.evidence import Source
from orchestra_lib.phases.finalization_handover import HandOver
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.retirement import retirement

ENVIRONMENT = "production"
PROGRAM = "python -m orchestra_lib "
OWNERS = {
    "billing": {"account": "012345-6789AB-CDEF01"},
    "notifications": {"email": "ada@example.org"},
    "github": {"owner_id": "1", "repository_id": "2"},
}
"""What the file leaves for its owner to say."""


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The hand-over of an environment that is not the local one; nothing of it is asked of Google Cloud."""
    content = yaml.safe_load((settings.root() / "parameters" / f"{ENVIRONMENT}.yaml").read_text())
    for section, values in OWNERS.items():
        content[section].update(values)
    (tmp_path / "notebooks").symlink_to(settings.root() / "notebooks")
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters" / f"{ENVIRONMENT}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    run = Runbook.open("07_finalization", environment=ENVIRONMENT)
    place = Place("cherry-ai-project", "873291114285", None, Source.OBSERVED)
    plan = retirement(date(2027, 1, 16), 30, "orchestra_return", "projects/p/secrets/orchestra-source-dsn", ENVIRONMENT)
    yield HandOver(run, place, {}, plan).texts()
    lock = run._replaced()
    assert lock is not None
    lock.release()


def quoted(texts: dict[str, str]) -> list[str]:
    """Everything in code quotes."""
    return [found for text in texts.values() for found in re.findall(r"`([^`]+)`", text)]


def test_every_command_of_a_hand_over_is_one_of_ours_and_for_its_environment(texts: dict[str, str]) -> None:
    commands = [one for one in quoted(texts) if one.startswith(PROGRAM)]
    whole = "\n".join(texts.values())
    assert len(commands) == whole.count(PROGRAM), "one that is not quoted would not be copied whole"
    for command in commands:
        options = cli._parser().parse_args(shlex.split(command.removeprefix(PROGRAM)))
        asked_of_all = command.split()[3] in ("audit", "runs")
        assert asked_of_all or f"--environment {ENVIRONMENT}" in command, command
        assert getattr(options, "environment", ENVIRONMENT) == ENVIRONMENT, command
    for command in (one for one in quoted(texts) if one.startswith("papermill ")):
        assert f"-p environment {ENVIRONMENT} " in command


def test_every_change_of_a_hand_over_is_planned_and_then_applied_by_that_plan(texts: dict[str, str]) -> None:
    changing = [one for one in quoted(texts) if one.startswith((f"{PROGRAM}rollback", f"{PROGRAM}migrate"))]
    assert {" ".join(one.split()[3:6]) for one in changing} == {
        *(f"rollback --phase 0{number}" for number in (1, 2, 3, 4, 5, 7, 8)), "migrate --only 06", "migrate --only 07",
    }  # fmt: skip
    plans, applied = changing[::2], changing[1::2]
    for plan, then in zip(plans, applied, strict=True):
        start = plan.removesuffix(" --mode plan")
        assert start != plan
        assert then.startswith(f"{start} --mode apply ")
        assert re.search(r"approved.plan DIGEST$", then)


def test_no_command_stands_in_words_alone(texts: dict[str, str]) -> None:
    prose = re.sub(r"`[^`]+`", "", texts["OLD-SYSTEM.md"])
    assert not re.search(r"--\w|stream stop|gcloud|SELECT", prose.replace("pg_dump --format", ""))
