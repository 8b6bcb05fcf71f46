"""The file of questions, what Code Assist needs, and what a request costs."""

from __future__ import annotations

import fnmatch
import json
from datetime import date
from pathlib import Path

import pytest
from settings_content import with_values

from orchestra_lib.assistant.code_assist import editor_files, index_commands, open_points
from orchestra_lib.assistant.experiments import Experiment, log_run, run_name
from orchestra_lib.assistant.price import embedding_price_usd, request_price
from orchestra_lib.assistant.questions import Question, read_questions
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import ParameterError
from orchestra_lib.prices import list_prices


def test_questions_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"question": "Which merges?", "answer_id": "heapq:merge"}\n\n{"question": "b", "answer_id": "c"}\n'
    )
    assert read_questions(path) == (Question("Which merges?", "heapq:merge"), Question("b", "c"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "the line"),
        ('{"question": "a"}', "answer_id: Field required"),
        ('{"question": 1, "answer_id": "b"}', "question"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "a", "answer_id": "b"}\n' + line + "\n")
    with pytest.raises(ParameterError, match="line 2") as raised:
        read_questions(path)
    assert told in str(raised.value)
    with pytest.raises(ParameterError, match="cannot be read"):
        read_questions(tmp_path / "none")


def test_secrets_are_kept_out_of_the_models_sight() -> None:
    (aiexclude,) = [file for file in editor_files(with_values()) if file.path == ".aiexclude"]
    patterns = [line for line in aiexclude.text.splitlines() if line and not line.startswith("#")]
    for name in (".env", ".env.local", "server.key", "cert.pem", "my-credentials-1.json", "main.tfstate", ".pgpass"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    assert not any(fnmatch.fnmatch("main.py", pattern) for pattern in patterns)


def test_the_editor_knows_its_project_and_the_memory_once_there_is_one() -> None:
    files = {file.path: file.text for file in editor_files(with_values())}
    assert json.loads(files[".vscode/settings.json"])["geminicodeassist.project"] == "cherry-ai-project"
    assert ".gemini/settings.json" not in files
    address = "https://memory.example.com/mcp"
    served = {file.path: file.text for file in editor_files(with_values(assistant__code_assist__memory_server=address))}
    assert json.loads(served[".gemini/settings.json"])["mcpServers"]["orchestra-memory"]["httpUrl"] == address


def test_only_the_enterprise_edition_indexes_our_own_code_and_only_where_it_can() -> None:
    assert index_commands(with_values(usage__code_assist_edition="standard")) == ()
    index, group = index_commands(with_values(usage__code_assist_edition="enterprise"))
    assert index.startswith("gcloud gemini code-repository-indexes create orchestra --project=cherry-ai-project")
    assert "gitRepositoryLinks/" in group
    elsewhere = with_values(usage__code_assist_edition="enterprise", regions__primary="us-west4")
    with pytest.raises(ParameterError, match="us-west4"):
        index_commands(elsewhere)
    assert any(
        "consents in the browser" in point
        for point in open_points(with_values(usage__code_assist_edition="enterprise"))
    )
    assert any("Decide the edition" in point for point in open_points(with_values(usage__code_assist_edition=None)))


def test_a_request_costs_what_the_day_says() -> None:
    before, after = (request_price(list_prices(), "gemini-4-argon", date(2026, *day)) for day in ((11, 30), (12, 1)))
    assert before is not None
    assert after is not None
    assert before.of(1_000_000, 0) == 2.0
    assert after.of(1_000_000, 100_000) == 6.0
    assert request_price(list_prices(), "gemini-9-nobody", date(2026, 12, 1)) is None
    assert embedding_price_usd(list_prices(), "gemini-embedding-001", 2e6, date(2026, 12, 1)) == pytest.approx(0.30)


def test_nothing_is_logged_from_the_local_target() -> None:
    with pytest.raises(ParameterError, match="the local target has none"):
        log_run(Target("local", "http://127.0.0.1:9", None), Experiment("p", "us-central1"), "run", {}, {})
    assert run_name("20261125T201856Z-F412e6") == "run-20261125t201856z-f412e6"
