"""A whole copy with its checks in a process of its own, which prints the most memory that it ever held, in bytes.

.venv/bin/python tests/memory/copying.py SOURCE TARGET
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.memory.copy import CopyJob, copy, exported_snapshot
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.verify import verify

WORKERS, RANGES = 2, 16


def main() -> None:
    """Copy, read everything back, and print the peak."""
    source, target = sys.argv[1:]
    with connect(source) as session:
        table = source_table(session, "memories", {})
        job = CopyJob(source, table, target, sql.Identifier("memories"))
        with exported_snapshot(session) as snapshot:
            copied = copy(job, snapshot, key_ranges(session, table, RANGES), WORKERS, lambda done: None)
    found = verify(job, copied.ranges, WORKERS, lambda done: None)
    if found.differing_ranges:
        raise SystemExit(f"the copy is wrong in ranges {found.differing_ranges}")
    # Not getrusage: its peak begins with that of the process that started this one.
    print(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)


if __name__ == "__main__":
    main()
