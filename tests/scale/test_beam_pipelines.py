"""The pipelines in Beam's own worker processes: whole, killed on the way, and naming what differs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
from memory_stores import local_down, server_directory
from stores import fill
from test_choice import local
from test_options import WORKERS, production
from transfers import RANGE_BYTES, execute, prepare, spec_of, workers_of_beam

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import connect as cloud
from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.initial_copy import DONE, standing
from orchestra_lib.memory.inventory import take_inventory
from orchestra_lib.memory.source import source_table
from orchestra_lib.move import Move
from orchestra_lib.phases.memory_at_scale import copied_by_pipeline
from orchestra_lib.scale.attempts import run_embedding, run_transfer, run_verification
from orchestra_lib.scale.backfill import begin
from orchestra_lib.scale.extra import beam_python
from orchestra_lib.scale.options import dataflow_flags
from orchestra_lib.scale.spec import EmbeddingSpec, Pace
from orchestra_lib.settings import load, root

WORKER_DIED = 75


def kill_a_worker_when(reached):
    """SIGKILL to one worker as soon as ``reached()``; returns what was killed."""
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            if reached() and (workers := workers_of_beam()):
                workers[-1].send_signal(signal.SIGKILL)
                killed.append(workers[-1].pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread, killed


def ranges_there(pair):
    return execute(pair.target, "SELECT count(*) FROM orchestra_stream.copied_range WHERE copied_at IS NOT NULL")[0][0]


def test_a_transfer_and_its_verification(pair, transfer):
    seen = []
    run = run_transfer(transfer, progress=lambda done, ranges: seen.append((done, ranges)))
    (attempt,) = run.attempts
    metrics = attempt.result["metrics"]
    assert (metrics["rows"], metrics["ranges sent"]) == (600, run.ranges)
    assert metrics["range ms"]["count"] == run.ranges
    assert seen[-1] == (run.ranges, run.ranges)
    found = run_verification(transfer)
    assert (found.differing, found.source_rows, found.target_rows) == (0, 600, 600)
    # Once more: nothing is begun.
    assert run_transfer(transfer).attempts == ()


def test_every_planted_difference_is_named(pair, transfer):
    run_transfer(transfer)
    execute(pair.target, "UPDATE memories SET version = 99 WHERE id IN ('id-00000005', 'id-00000400')")
    execute(pair.target, "DELETE FROM memories WHERE id = 'id-00000599'")
    found = run_verification(transfer)
    assert {row.id: row.kind for row in found.named} == {
        "id-00000005": "changed", "id-00000400": "changed", "id-00000599": "missing",
    }  # fmt: skip


def test_a_worker_that_is_killed_costs_an_attempt_and_no_row(pair, transfer):
    slow = replace(transfer, pace=Pace(rows_per_second=200))
    begin(slow)
    thread, killed = kill_a_worker_when(lambda: ranges_there(pair) >= 2)
    run = run_transfer(slow)
    thread.join()
    assert killed
    assert run.attempts[0].exit_code == WORKER_DIED
    assert run.attempts[-1].exit_code == 0
    assert run.attempts[-1].result["metrics"]["rows"] < 600
    assert run_verification(transfer).differing == 0


def test_a_worker_that_dies_while_it_waits_ends_the_launcher_as_one_that_dies_at_work(transfer, tmp_path):
    begin(transfer)
    (tmp_path / "spec.json").write_text(transfer.as_json())
    command = [str(beam_python()), "-m", "orchestra_lib.scale", "transfer", str(tmp_path / "spec.json"), "--held"]
    with subprocess.Popen(command, cwd=root(), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as launcher:
        deadline = time.monotonic() + 60
        while len(waiting := workers_of_beam()) < transfer.workers and time.monotonic() < deadline:
            time.sleep(0.05)
        waiting[-1].kill()
        _, said = launcher.communicate(b"begin\n", timeout=60)
    assert launcher.returncode == WORKER_DIED, said.decode()
    assert b"a worker died: -9" in said


def test_a_verification_reads_its_own_findings_and_no_earlier_ones(pair, transfer, tmp_path):
    run_transfer(transfer)
    kept = str(tmp_path / "kept" / "report")
    first = run_verification(transfer, kept)
    second = run_verification(replace(transfer, range_bytes=RANGE_BYTES * 3), kept)
    assert second.ranges < first.ranges
    assert first.source_rows == second.source_rows == 600
    assert len({file.name.rsplit("-", 3)[0] for file in (tmp_path / "kept").iterdir()}) == 2


def test_workers_that_wait_go_with_a_launcher_that_is_killed(transfer, tmp_path):
    (tmp_path / "spec.json").write_text(transfer.as_json())
    command = [str(beam_python()), "-m", "orchestra_lib.scale", "transfer", str(tmp_path / "spec.json"), "--held"]
    with subprocess.Popen(command, cwd=root(), stdin=subprocess.PIPE) as launcher:
        deadline = time.monotonic() + 60
        while len(waiting := workers_of_beam()) < transfer.workers and time.monotonic() < deadline:
            time.sleep(0.05)
        launcher.kill()
    assert len(waiting) == transfer.workers
    assert psutil.wait_procs(waiting, timeout=10)[1] == []


def test_a_target_without_its_table_is_told_and_given_up(pair, transfer):
    execute(pair.target, "DROP TABLE memories")
    with pytest.raises(DataError, match=r"4 attempts brought none of them; the last one said: .*memories"):
        run_transfer(transfer)
    prepare(pair, 0)


def test_dataflow_knows_every_option():
    flags = dataflow_flags(production(dataflow=WORKERS), "memory-transfer")
    program = (
        "import sys; from apache_beam.options.pipeline_options import *; o = PipelineOptions(sys.argv[1:]); "
        "w = o.view_as(WorkerOptions); g = o.view_as(GoogleCloudOptions); "
        "print(w.machine_type, w.subnetwork, w.use_public_ips, w.max_num_workers, w.disk_size_gb, g.region, g.labels, "
        "w.sdk_container_image, g.service_account_email)"
    )
    done = subprocess.run([beam_python(), "-c", program, *flags], capture_output=True, text=True, check=True)
    assert "unparseable" not in done.stderr
    assert done.stdout.split()[:6] == [
        "n2-standard-4", "regions/us-central1/subnetworks/orchestra-us-central1", "False", "8", "30", "us-central1",
    ]  # fmt: skip


def test_the_runbooks_own_python_is_not_the_one_that_has_beam():
    assert str(beam_python()) != sys.executable


def prepare_model(settings):
    """The environment's project on the local target, with the models' service enabled."""
    client, name = Client(cloud(settings)), settings.project.id
    client.call("cloudresourcemanager.v3", "cloudresourcemanager.projects.create", "projects", body={"projectId": name})
    account = {"billingAccountName": f"billingAccounts/{settings.billing.account}"}
    client.call(
        "cloudbilling.v1", "cloudbilling.projects.updateBillingInfo", f"projects/{name}/billingInfo", body=account
    )
    client.call(
        "serviceusage.v1", "serviceusage.services.enable", f"projects/{name}/services/aiplatform.googleapis.com:enable"
    )


def test_a_change_of_model_reaches_every_memory(pair, tmp_path, monkeypatch):
    """The local target's stand-in embeds, over its socket, as Google's models would."""
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(server_directory()))
    prepare(pair, 0)
    fill(pair.target, 300)
    try:
        prepare_model(load("local"))
        spec = EmbeddingSpec(
            spec_of(pair, tmp_path).target, "local", "memories", "memories_next", range_bytes=RANGE_BYTES
        )
        (attempt,) = run_embedding(spec)
        assert attempt.result["metrics"]["memories embedded"] == 300
        assert run_embedding(spec) == ()
    finally:
        local_down()


def test_runbook_03_finds_what_the_pipeline_brought_complete(pair, transfer):
    wanted = local(pipeline_from_rows=1)
    with connect(pair.source) as source:
        taken = take_inventory(source, source_table(source, "memories", {}))
    slot = {"slot": transfer.slot, "publication": transfer.publication}
    memory = wanted.memory.model_copy(update={"stream": wanted.memory.stream.model_copy(update=slot)})
    wanted = wanted.model_copy(update={"memory": memory})
    move = Move(wanted, pair.source, pair.target)
    (brought,) = copied_by_pipeline(wanted, move, taken)
    assert brought.value >= 1
    assert standing(move.copy_spec()).state == DONE
