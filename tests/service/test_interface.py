"""The interface against its own document: schemathesis asks what it allows and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.serving import Api, token_of

_SECONDS = 7
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "ignored_auth",
)  # fmt: skip
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_schemathesis_finds_no_server_error_and_no_answer_that_is_not_in_the_document(api: Api, tmp_path: Path):
    api.store("ada")
    run = subprocess.run(
        [
            SCHEMATHESIS, "run", f"{api.url}/openapi.json", "--header", f"Authorization: Bearer {token_of('ada')}",
            "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", "20",
            "--max-time", str(_SECONDS), "--seed", "1", "--no-shrink", "--no-color", "--suppress-health-check", "all",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=_SECONDS * 8, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]


def test_the_document_states_the_dimension_and_the_problems(api: Api):
    document = api.as_user(None).get("/openapi.json").json()
    assert document["components"]["schemas"]["Numbers"]["minItems"] == 3
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert {one["operationId"] for one in operations} == {
        "store", "list", "get", "delete", "search", "history", "healthz", "readyz",
    }  # fmt: skip
    for one in operations:
        for status, answer in one["responses"].items():
            if not status.startswith("2"):
                assert list(answer["content"]) == ["application/problem+json"]
        if one["operationId"] not in ("healthz", "readyz"):
            assert one["security"] == [{"HTTPBearer": []}]
            assert {"401", "413", "422", "503"} <= one["responses"].keys()
