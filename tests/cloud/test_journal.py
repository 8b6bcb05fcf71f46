"""The journal keeps what was there before, survives a killed process and is never believed when it cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra_lib.cloud.journal import Event, Journal
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.errors import RecordError
from orchestra_lib.plan import Verb
from orchestra_lib.secret import Secret

NETWORK = Resource("network", "projects/p/global", "main", {"autoCreateSubnetworks": False})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "local.01.jsonl"


def test_a_change_is_read_back_as_it_was_written(path: Path) -> None:
    journal = Journal(path)
    change = journal.begin("run-1", Verb.UPDATE, NETWORK, Live("n", {"mtu": 1460}), ("mtu",))
    journal.sent(change, {"name": "operation-1", "selfLink": "https://x/compute/v1/projects/p/global/operations/o"})
    journal.done(change, Live("n", {"mtu": 1500}))
    (read,) = Journal(path).changes
    assert (read.run_id, read.verb, read.wanted, read.before, read.fields, read.after) == (
        "run-1",
        Verb.UPDATE,
        NETWORK,
        {"mtu": 1460},
        ("mtu",),
        {"mtu": 1500},
    )
    assert read.event is Event.DONE
    assert read.operation == {
        "name": "operation-1",
        "selfLink": "https://x/compute/v1/projects/p/global/operations/o",
    }


def test_a_change_without_an_end_is_open(path: Path) -> None:
    journal = Journal(path)
    journal.begin("run-1", Verb.CREATE, NETWORK, None)
    assert [change.wanted.key for change in Journal(path).open_changes()] == [NETWORK.key]


def test_applied_is_what_was_done_last_without_what_was_deleted_or_failed(path: Path) -> None:
    journal = Journal(path)
    other, gone, failed = (Resource("network", "projects/p/global", name, {"a": name}) for name in ("o", "g", "f"))
    for wanted in (NETWORK, other, gone):
        journal.done(journal.begin("r", Verb.CREATE, wanted, None), Live("n", {}))
    journal.done(journal.begin("r", Verb.DELETE, gone, Live("n", {})), None)
    journal.failed(journal.begin("r", Verb.CREATE, failed, None), "refused")
    assert Journal(path).applied() == {NETWORK.key: NETWORK.body, other.key: other.body}


def test_a_torn_last_line_is_cut_off_and_the_next_entry_follows(path: Path) -> None:
    journal = Journal(path)
    journal.done(journal.begin("r", Verb.CREATE, NETWORK, None), Live("n", {}))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"sequence": 2, "ev')
    again = Journal(path)
    assert path.read_bytes() == whole
    again.begin("r2", Verb.DELETE, NETWORK, Live("n", {}))
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: ["not json", *lines[1:]],
        lambda lines: [lines[0].replace('"create"', '"explode"'), *lines[1:]],
    ],
    ids=["removed", "reordered", "garbled", "unknown verb"],
)
def test_a_damaged_journal_is_refused_with_the_line(path: Path, damage) -> None:
    journal = Journal(path)
    for _ in range(2):
        journal.done(journal.begin("r", Verb.CREATE, NETWORK, None), Live("n", {}))
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    with pytest.raises(RecordError, match=r"line \d"):
        Journal(path)


def test_a_secret_in_a_body_does_not_reach_the_file(path: Path) -> None:
    secret = Secret("canary-of-the-journal")
    journal = Journal(path)
    journal.begin("r", Verb.CREATE, Resource("secret", "projects/p", "s", {"note": secret.reveal()}), None)
    assert secret.reveal() not in path.read_text()


def test_what_was_begun_is_on_the_disk_when_begin_returns(path: Path) -> None:
    """Killed right after begin, by SIGKILL, in a process of its own."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from orchestra_lib.cloud.journal import Journal; from orchestra_lib.cloud.resource import Resource\n"
        "from orchestra_lib.plan import Verb\n"
        "Journal(Path(sys.argv[1])).begin('r', Verb.CREATE, Resource('network', 'projects/p/global', 'main'), None)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert [change.wanted.id for change in Journal(path).open_changes()] == ["main"]
