"""Where faults are injected: two servers, a network before each, a writer with its ledger, and a mover between them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import psycopg
from mover_spec import TABLE, Spec
from network import Network
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.errors import OrchestraError
from orchestra_lib.local import postgres
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copy import checksum, target_rows
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.slot import mark
from orchestra_lib.rehearsal.judge import Verdict, judge
from orchestra_lib.rehearsal.writer import Load, WriterProcess, writer_process
from orchestra_lib.rehearsal.written import Mix

_EVERYTHING = KeyRange(1, None, None)
_POLL_SECONDS = 0.02
_SETTLE_SECONDS = 60.0
_SETTINGS = postgres.SETTINGS | {
    "shared_buffers": "64MB",
    "wal_level": "logical",
    "wal_sender_timeout": "5s",
    "logical_decoding_work_mem": "64kB",  # the least: what is larger is sent in blocks before its commit
    "autovacuum": "off",
}
# The store grows slowly, so that a long trial does not take longer and longer to check.
MIX = Mix(insert=0.06, reinsert=0.10, metadata=0.35, content=0.17, vector=0.17, delete=0.15)
TUNING = {
    "debounce_seconds": 0.05,
    "batch_size": 200,
    "failure_threshold": 3,
    "recovery_seconds": 0.5,
    "slow_seconds": 5.0,
    "silence_seconds": 1.5,
    "apply_seconds": 2.0,
    "busy_seconds": 8.0,
}


class NotSettled(Exception):
    """Source and target did not come to be the same, or something ended that should not have."""


class Server:
    """One PostgreSQL server that may be killed and started again."""

    def __init__(self, directory: Path, name: str) -> None:
        self._data, self.name = directory / name, name
        self.conninfo, self.pid, self.socket = "", 0, ""
        self.start()

    def start(self) -> None:
        """Start it if it does not run; after a kill its last processes may take a moment to notice."""
        running = patiently(lambda: postgres.start(self._data, f"the {self.name}", _SETTINGS), OrchestraError, 30)
        self.pid, self.socket, self.conninfo = running.pid, running.socket, running.conninfo()

    def kill(self) -> None:
        """SIGKILL to the postmaster: its children end by themselves."""
        postmaster = psutil.Process(self.pid)
        children = postmaster.children(recursive=True)
        postmaster.kill()
        psutil.wait_procs([postmaster, *children], timeout=10)

    def limit_files(self, size: int | None) -> None:
        """No file may grow beyond this many bytes, as if the disk were full; None: as far as it likes.

        Said to the postmaster, whose children inherit it, and to those children that serve a client.
        """
        postmaster = psutil.Process(self.pid)
        clients = (child for child in postmaster.children() if "postgres: postgres" in cmdline(child))
        soft = "unlimited" if size is None else size
        for process in (postmaster, *clients):
            # By the server's own user: root in a container may not change the limits of others.
            command = ["prlimit", "--pid", str(process.pid), f"--fsize={soft}:"]
            with contextlib.suppress(psutil.NoSuchProcess):
                user = process.uids().real
                done = subprocess.run(command, user=user, check=False, capture_output=True, text=True)
                if done.returncode and process.is_running():
                    raise NotSettled(f"{' '.join(command)}: {done.stderr.strip()}")

    def execute(self, statement: str, *values: object) -> list[tuple]:
        """Run one statement as superuser, past the network."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Stop it for good."""
        postgres.stop(self._data, f"the {self.name}")


class Mover:
    """The mover's process as it is now; started anew by the arena."""

    def __init__(self, spec: Spec, directory: Path, name: str = "mover") -> None:
        self.spec, self._state = spec, directory / f"{name}.state"
        spec_file, log = directory / f"{name}.spec", directory / f"{name}.log"
        spec_file.write_text(json.dumps(asdict(spec)))
        self._state.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("mover.py")), str(spec_file), str(self._state)]
        with log.open("ab") as output:
            # A session of its own: a Ctrl-C is for whoever injects the faults.
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    @property
    def state(self) -> dict:
        """What it last said of itself; empty before it has said anything."""
        try:
            return json.loads(self._state.read_text())
        except FileNotFoundError:
            return {}

    @property
    def applied_lsn(self) -> int:
        """Up to where it says that everything is on the target."""
        return self.state.get("status", {}).get("applied_lsn", 0)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        """The class and the words of the error that ended it."""
        state = self.state
        return f"{state.get('error')}: {state.get('said')}" if state.get("phase") == "ended" else ""

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if not self.ended:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, also if it is suspended."""
        self.process.kill()
        self.process.wait()


@dataclass
class Settled:
    """What was found once everything had come to rest, and how long that took."""

    seconds: float
    restarts: int
    verdict: Verdict
    source: Checksum
    target: Checksum
    quarantined: int

    @property
    def problems(self) -> list[str]:
        """What does not hold; empty if everything does."""
        found = [] if self.verdict.holds else [str(self.verdict)]
        if self.source != self.target:
            found.append(f"source and target differ: {self.source} and {self.target}")
        if self.quarantined:
            found.append(f"{self.quarantined} changes are in quarantine")
        return found


class Arena:
    """Everything of one trial, in one directory."""

    def __init__(self, directory: Path, rows: int, per_second: float, seed: int, stack: contextlib.ExitStack) -> None:
        """Start everything; ``stack`` gets what ends it again."""
        self.directory = directory
        self.source, self.target = (self._server(name, stack) for name in ("source", "target"))
        self._prepare(rows)
        self.source_network = stack.enter_context(Network(self.source.socket))
        self.target_network = stack.enter_context(Network(self.target.socket))
        self.spec = Spec(
            self.source_network.conninfo(self.source.conninfo),
            self.target_network.conninfo(self.target.conninfo),
            tuning=TUNING,
        )
        (directory / "route").write_text(self.source.conninfo)
        self.ledgers: list[Path] = []
        self._left: list[str] = []
        self._load, self._writing = Load(per_second, 3, seed, MIX, TABLE), stack.enter_context(contextlib.ExitStack())
        self.mover = Mover(self.spec, directory)
        stack.callback(lambda: self.mover.kill())
        self.begin_ledger()

    def _server(self, name: str, stack: contextlib.ExitStack) -> Server:
        server = Server(self.directory, name)
        stack.callback(server.stop)
        return server

    def _prepare(self, rows: int) -> None:
        for server in (self.source, self.target):
            server.execute("CREATE EXTENSION vector")
        fill(self.source.conninfo, rows, TABLE)
        self.source.execute("CREATE TABLE side (id int PRIMARY KEY, content text)")
        with psycopg.connect(self.target.conninfo) as connection:
            connection.execute(create_table(TABLE))

    def begin_ledger(self) -> None:
        """Have a new writer with a ledger of its own; the one before ends in order, and its rows stay as they are."""
        if self.ledgers:
            self.writer.stop()
            self._writing.close()
        load = replace(self._load, seed=self._load.seed * 1_000 + len(self.ledgers))
        ledger = self.directory / f"ledger-{len(self.ledgers)}"
        self.writer: WriterProcess = self._writing.enter_context(writer_process(load, self.directory / "route", ledger))
        self.until(lambda: ledger.exists() and ledger.stat().st_size > 10_000, "the writer writes")
        self.ledgers.append(ledger)

    def judge(self, ledger: Path) -> Verdict:
        """What the target has of a ledger."""
        return judge(ledger, self.target.conninfo, TABLE)

    def restart_mover(self, **changes: object) -> None:
        """Have a new mover, with other settings if need be; one that runs is killed."""
        if not self.mover.ended:
            self.mover.kill()
        self.mover = Mover(replace(self.spec, **changes), self.directory)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until it holds. Raises NotSettled when that takes too long."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise NotSettled(f"not within {seconds:.0f} s: {what}; the mover: {self.mover.state}")
            time.sleep(_POLL_SECONDS)

    def leave(self, prefix: str) -> None:
        """Note rows of a fault, by the beginning of their ids, that have to stay until both sides were compared."""
        self._left.append(prefix)

    def sweep(self) -> None:
        """Remove what the faults before have left."""
        while self._left:
            self.source.execute(f"DELETE FROM {TABLE} WHERE id LIKE %s", f"{self._left.pop()}:%")

    def streaming(self) -> None:
        """Wait until the mover streams."""
        self.until(lambda: self.mover.state.get("status", {}).get("state") == "streaming", "the mover streams")

    def settle(self, endings: tuple[str, ...] = (), *, writing: bool = True) -> Settled:
        """Wait until the target has everything, then have the writer wait for a lock, and judge.

        A mover that has ended is started again if it was killed, or ended with one of these errors; any other end is
        raised as NotSettled, and so is that of the writer while there has to be one.
        """
        began = time.monotonic()
        restarts = self._drain(endings)
        seconds = time.monotonic() - began
        with psycopg.connect(self.source.conninfo) as still:
            still.execute(f"LOCK TABLE {TABLE} IN SHARE MODE")
            restarts += self._drain(endings)
            sums = [self._checksum(server) for server in (self.source, self.target)]
            verdict = self.judge(self.ledgers[-1])
        ((quarantined,),) = self.target.execute(
            "SELECT count(*) FROM orchestra_stream.quarantine WHERE resolved_at IS NULL"
        )
        if writing and not self.writer.running:
            raise NotSettled("the writer ended by itself")
        return Settled(seconds, restarts, verdict, *sums, quarantined)

    def _drain(self, endings: tuple[str, ...]) -> int:
        """Wait until everything that is committed now is on the target; returns how often the mover was restarted."""
        deadline, restarts = time.monotonic() + _SETTLE_SECONDS, 0
        with connect(self.source.conninfo) as source:
            lsn = mark(source)
        while self.mover.applied_lsn < lsn:
            if self.mover.ended:
                self._accept(endings)
                restarts += 1
                self.restart_mover()
            if time.monotonic() > deadline:
                raise NotSettled(f"the target has not caught up within {_SETTLE_SECONDS:.0f} s: {self.mover.state}")
            time.sleep(_POLL_SECONDS)
        return restarts

    def _accept(self, endings: tuple[str, ...]) -> None:
        code, said = self.mover.process.returncode, self.mover.said
        if code != -signal.SIGKILL and not said.startswith(endings or ("-",)):
            raise NotSettled(f"the mover ended by itself with exit code {code}: {said or 'see its log'}")

    def _checksum(self, server: Server) -> Checksum:
        with connect(server.conninfo) as connection:
            return checksum(connection, target_rows(sql.Identifier(TABLE)), _EVERYTHING)


def patiently(work: Callable, errors: type[Exception] | tuple[type[Exception], ...], seconds: float):
    """The result of ``work``, tried again after these errors until the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def cmdline(process: psutil.Process) -> str:
    """What the process calls itself; empty if it has gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextlib.contextmanager
def arena(directory: Path, rows: int = 3_000, per_second: float = 300, seed: int = 1) -> Iterator[Arena]:
    """An arena whose servers end with the block."""
    directory.chmod(0o755)  # the servers' user has to enter it
    with contextlib.ExitStack() as stack:
        yield Arena(directory, rows, per_second, seed, stack)
