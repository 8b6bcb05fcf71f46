"""Without Apache Beam: what it says, and that nothing else wants it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from orchestra_lib.errors import ParameterError
from orchestra_lib.scale.attempts import run_transfer
from orchestra_lib.scale.endpoint import address_of
from orchestra_lib.scale.extra import VARIABLE, beam_python, require_beam
from orchestra_lib.scale.spec import Pace, TransferSpec, read_spec
from orchestra_lib.settings import root

SPEC = TransferSpec("file:/a", "file:/b", "s", "s", "s", columns={"id": "key"}, pace=Pace(rows_per_second=5))


def test_this_python_has_no_beam_and_says_how_to_get_it():
    with pytest.raises(ParameterError, match=r"run scripts/scale_venv.sh"):
        require_beam()


def test_a_transfer_says_so_before_it_begins_anything(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    with pytest.raises(ParameterError, match=f"{VARIABLE}: there is no"):
        run_transfer(SPEC)
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("orchestra_lib.scale.extra.root", lambda: tmp_path)
    with pytest.raises(ParameterError, match=r"scripts/scale_venv.sh"):
        beam_python()


def test_the_command_ends_with_its_message_and_not_with_a_traceback(tmp_path):
    (tmp_path / "spec.json").write_text(SPEC.as_json())
    done = subprocess.run(
        [sys.executable, "-m", "orchestra_lib.scale", "transfer", str(tmp_path / "spec.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("Apache Beam is not installed here: run scripts/scale_venv.sh")


def test_a_spec_is_read_back_as_it_was_written(tmp_path):
    (tmp_path / "spec.json").write_text(SPEC.as_json())
    assert read_spec(tmp_path / "spec.json") == SPEC
    (tmp_path / "spec.json").write_text('{"from": 1}')
    with pytest.raises(ParameterError, match="describes no transfer"):
        read_spec(tmp_path / "spec.json")


@pytest.mark.parametrize("endpoint", ["host=a password=b", "ftp:x", "file:", ""])
def test_a_connection_string_is_no_endpoint(endpoint):
    with pytest.raises(ParameterError, match="this is no place of a database") as refused:
        address_of(endpoint)
    assert "password=b" not in str(refused.value)


def test_an_instance_needs_a_user_and_a_database():
    with pytest.raises(ParameterError, match="names no database and no user"):
        address_of("alloydb:projects/p/locations/l/clusters/c/instances/i")


def test_the_pins_are_beams_and_hold_all_that_a_worker_imports():
    lines = [line for line in (root() / "requirements-dataflow.txt").read_text().splitlines() if "==" in line]
    pins = dict(line.split(" ;")[0].split("==") for line in lines)
    assert pins["apache-beam"].startswith("2.77.")
    assert int(pins["protobuf"].split(".")[0]) < 7
    assert int(pins["google-cloud-aiplatform"].split(".")[0]) < 2
    project = tomllib.loads((root() / "pyproject.toml").read_text())
    wanted = {re.split(r"[\[>=]", name)[0] for name in project["dependency-groups"]["dataflow"]}
    assert wanted <= pins.keys()
    assert project["project"]["optional-dependencies"]["dataflow"] == ["apache-beam[gcp]==2.77.*"]
