"""The phase lock: one run at a time for a phase of an environment, however the run was started.

The lock proper is the kernel's flock, which dies with its process. Beside it lies a small JSON file that says who holds
it; that file is for people, and for telling a takeover from a fresh start.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import filelock
import psutil

from orchestra_lib import paths, record
from orchestra_lib.errors import LockHeld, ParameterError, RecordError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

# psutil adds the boot time to a start given in clock ticks, and both are rounded: two readings of the same process may
# differ by a fraction of a second. A pid that comes round again within two seconds of its own start does not happen.
_SAME_START_SECONDS = 2.0

# Between winning the flock and having written its sidecar a holder is anonymous for a few milliseconds.
_WAIT_FOR_A_NAME_SECONDS = 1.0


def process_start(pid: int | None = None) -> float | None:
    """When a process (this one by default) started, in seconds since the epoch; None when there is no such process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def is_alive(pid: int, started: float) -> bool:
    """Whether the process that had this pid and this start time still runs: a pid used again does not count."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) <= _SAME_START_SECONDS
        # A zombie has ended; only its parent has not yet asked how.
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. ``process_started`` tells a pid from the same number used again; ``since`` is ISO 8601, UTC."""

    operator: str
    host: str
    pid: int
    process_started: float
    run_id: str
    started_by: str
    since: str

    @classmethod
    def of_this_process(cls, operator: str, run_id: str, started_by: str) -> Holder:
        """This process as a holder, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(operator, platform.node(), os.getpid(), process_start() or 0.0, run_id, started_by, since)

    def __str__(self) -> str:
        return (
            f"{self.operator} on {self.host} (pid {self.pid}, {self.started_by}, run {self.run_id}) since {self.since}"
        )


class PhaseLock:
    """The lock of one phase in one environment, held by a process from ``acquire`` to ``release`` or its death.

    Raises ParameterError when the environment or the phase cannot be part of a file name.
    """

    def __init__(self, environment: str, phase: str, holder: Holder) -> None:
        for word in (environment, phase):
            if not _SAFE_NAME.fullmatch(word):
                raise ParameterError(f"{word!r} cannot name a lock: use letters, digits, - and _")
        self.environment = environment
        self.phase = phase
        self.holder = holder
        directory = paths.state_directory() / "locks"
        self._sidecar = directory / f"{environment}.{phase}.json"
        # thread_local off: a notebook's cells and its exit hook may run in different threads. No soft fallback: a lock
        # that is a mere file outlives its process. The descriptor is closed on exec, and filelock closes it in forks.
        self._lock = filelock.FileLock(
            directory / f"{environment}.{phase}.lock", thread_local=False, fallback_to_soft=False
        )

    def acquire(self) -> str | None:
        """Take the lock, or raise.

        Returns a sentence when the last holder ended without releasing it, else None. Raises LockHeld when another
        process holds the lock, RecordError when the state directory cannot hold locks.
        """
        deadline = time.monotonic() + _WAIT_FOR_A_NAME_SECONDS
        while not self._try():
            other = self._read_sidecar()
            if other is not None or time.monotonic() > deadline:
                raise LockHeld(self._refusal(other))
            time.sleep(0.02)
        left_behind = self._read_sidecar()
        if left_behind is not None and self._still_at_work(left_behind):
            # The flock is free but its holder lives: somebody removed the lock file under it. Believe the holder.
            self._lock.release()
            raise LockHeld(self._refusal(left_behind))
        self._write_sidecar()
        if left_behind is None or self._is_this_process(left_behind):
            return None
        return (
            f"phase {self.phase} in {self.environment} was locked by {left_behind}; that process has ended without "
            "releasing the lock, so it was taken over: look at what its run left half done before you apply"
        )

    def hand_over(self, holder: Holder) -> None:
        """Keep the lock for the next run of this same process. Raises RecordError when the lock is not held."""
        if not self.is_held:
            raise RecordError(f"the lock of phase {self.phase} in {self.environment} is not held, acquire it first")
        self.holder = holder
        self._write_sidecar()

    def release(self) -> None:
        """Give the lock back and remove the sidecar; nothing happens when the lock is not held."""
        if not self.is_held:
            return
        # The sidecar first: should we die between the two, a free lock without a name is simply free.
        self._sidecar.unlink(missing_ok=True)
        self._lock.release()

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return bool(self._lock.is_locked)

    def _try(self) -> bool:
        try:
            self._sidecar.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        except OSError as error:
            raise RecordError(
                f"no lock can be taken in {self._sidecar.parent}: {error.strerror or error}; set ORCHESTRA_STATE_DIR "
                "to a folder of yours on a local disk"
            ) from error
        return True

    def _still_at_work(self, other: Holder) -> bool:
        here = other.host == self.holder.host
        return here and not self._is_this_process(other) and is_alive(other.pid, other.process_started)

    def _is_this_process(self, other: Holder) -> bool:
        mine = (self.holder.host, self.holder.pid, self.holder.process_started)
        return (other.host, other.pid, other.process_started) == mine

    def _refusal(self, other: Holder | None) -> str:
        who = str(other) if other else "a process that has not yet said who it is"
        remedy = (
            f"wait for that run, or ask {other.operator} to close it; if its process {other.pid} is stuck, end it on "
            f"{other.host} and open the runbook again: the lock dies with the process"
            if other
            else "try again in a moment"
        )
        return f"phase {self.phase} in {self.environment} is already being run by {who}; {remedy}"

    def _write_sidecar(self) -> None:
        record.write_atomically(self._sidecar, (json.dumps(asdict(self.holder), indent=1) + "\n").encode())

    def _read_sidecar(self) -> Holder | None:
        try:
            return Holder(**json.loads(self._sidecar.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None  # absent, or not one of ours: the flock alone decides then
