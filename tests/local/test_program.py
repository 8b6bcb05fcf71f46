"""`local up | status | env | instance | down | reset`: the control plane is found again, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from control_plane import send

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.control import process

pytestmark = pytest.mark.slow


def local(home, *arguments):
    command = [sys.executable, "-m", "orchestra_lib", "local", *arguments]
    environment = {**os.environ, "ORCHESTRA_STATE_DIR": str(home)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    local(tmp_path, "down")


def up(home, *arguments):
    done = local(home, "up", "--only", "control", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_outlives_its_starter_is_found_again_and_stopped(home):
    state = up(home)
    assert {"url", "token_file", "port", "pid", "state_dir", "databases"} <= set(state)
    token = Path(state["token_file"]).read_text()
    assert send(state["url"], "GET", "/_local/state", token=token).status == 200
    assert up(home)["pid"] == state["pid"]
    assert json.loads(local(home, "status", "--json").stdout)["url"] == state["url"]
    stopped = local(home, "down")
    assert "control" in stopped.stdout
    assert not psutil.pid_exists(state["pid"])
    assert "url" not in json.loads(local(home, "status", "--json").stdout)
    again = up(home)
    assert (again["port"], Path(again["token_file"]).read_text()) == (state["port"], token)


def test_the_organisation_can_be_chosen(home):
    state = up(home, "--organization", "123456789012")
    token = Path(state["token_file"]).read_text()
    found = send(state["url"], "GET", "/cloudresourcemanager/v3/organizations/123456789012", token=token)
    assert found.body["name"] == "organizations/123456789012"


def test_a_pid_of_somebody_else_is_not_taken_for_it(home):
    state = up(home)
    os.kill(state["pid"], signal.SIGKILL)
    file = home / "local" / "control.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "pid": os.getpid()}))
    assert "url" not in json.loads(local(home, "status", "--json").stdout)


def test_reset_removes_everything(home):
    up(home)
    assert local(home, "reset").returncode == 0
    assert not (home / "local").exists()


def test_a_port_that_is_taken_is_said_in_one_line(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = local(home, "up", "--only", "control", "--port", str(port))
    assert refused.returncode == 3
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_another_port_than_the_one_it_runs_on_is_refused(home):
    port = up(home)["port"]
    refused = local(home, "up", "--only", "control", "--port", "1")
    assert refused.returncode == 3
    assert f"runs on port {port}, not on 1" in refused.stderr


def test_env_prints_what_gcloud_needs_and_starts_nothing(home):
    refused = local(home, "env")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "python -m orchestra_lib local up" in refused.stderr
    state = up(home)
    variables = json.loads(local(home, "env", "--json").stdout)
    endpoint = variables["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"]
    assert endpoint == f"{state['url']}/_token/{Path(state['token_file']).read_text()}/compute/compute/v1/"
    own = Path(variables["CLOUDSDK_CONFIG"])
    assert (own.is_relative_to(home), stat.S_IMODE(own.stat().st_mode)) == (True, 0o700)
    shell = f'set -u\n{local(home, "env").stdout}printf %s "$CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"'
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout == endpoint


def test_instance_wants_a_name_and_a_data_plane(home):
    refused = local(home, "instance")
    assert (refused.returncode, "takes the full name of an AlloyDB instance" in refused.stderr) == (2, True)
    refused = local(home, "instance", "projects/p/locations/l/clusters/c/instances/i")
    assert (refused.returncode, "python -m orchestra_lib local up" in refused.stderr) == (3, True)


def test_a_wrong_latency_is_wrong_usage(home):
    refused = local(home, "up", "--latency", "slow")
    assert (refused.returncode, "got 'slow'" in refused.stderr) == (2, True)


def test_no_room_is_said_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_FREE_BYTES_NEEDED", 1 << 60)
    with pytest.raises(TargetUnreachable, match=r"needs 1099511627776 MiB of disk"):
        process.up(tmp_path)
