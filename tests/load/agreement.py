"""Whether the Locust file and the in-process generator measure the same: one service, one rate, on this machine.

.venv/bin/python tests/load/agreement.py --locust /path/of/locust [--rate 40] [--seconds 30] [--pairs 3]

The service (tests/api_load/app.py) answers two requests at once, each in 20 ms, so at 40 a second some wait: what is
compared is also how both count a wait. They take turns. They agree where the intervals of a quantile overlap. Ends with
1 where they do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from orchestra_lib.bench.http_load import HttpRequests
from orchestra_lib.bench.load import Load, run_load_async
from orchestra_lib.bench.statistics import Estimate, quantile_of_series

HERE = Path(__file__).resolve().parent
QUANTILES = (0.5, 0.95)
_WARM_SECONDS = 2.0


def main() -> int:
    """Print both sides' quantiles with their intervals, and whether they overlap."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locust", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    ours, theirs = list[float](), list[float]()
    with _service() as url:
        for seed in range(options.pairs):
            load = Load(options.rate, options.seconds, seed, workers=200)
            run = asyncio.run(run_load_async(load, HttpRequests(url, [{"method": "GET", "url": "/"}])))
            ours += run.latency_ms.tolist()
            theirs += _by_locust(options, url)
    agree = True
    print(f"{len(ours)} and {len(theirs)} requests; load of the machine {os.getloadavg()[0]:.1f}")
    for share in QUANTILES:
        one, other = (quantile_of_series(values, share) for values in (ours, theirs))
        overlap = _overlap(one, other)
        agree &= overlap
        print(f"p{100 * share:.0f}: in-process {one} ms, Locust {other} ms: {'agree' if overlap else 'DIFFER'}")
    return 0 if agree and abs(len(theirs) / len(ours) - 1) < 0.1 else 1


def _overlap(one: Estimate, other: Estimate) -> bool:
    return one.low <= other.high and other.low <= one.high


def _by_locust(options: argparse.Namespace, url: str) -> list[float]:
    callers = round(2 * options.rate)
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        subprocess.run(
            [
                options.locust, "-f", HERE / "locustfile.py", "--headless", "-H", url, "-u", str(callers),
                "-r", str(callers), "-t", f"{options.seconds + _WARM_SECONDS:.0f}s", "--rate-per-caller", "0.5",
                "--samples", samples, "--only-summary",
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return np.loadtxt(samples).tolist()


@contextmanager
def _service() -> Iterator[str]:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--lifespan", "off", "--log-level", "warning",
         "--no-access-log"],
        env={**os.environ, "AT_ONCE": "2", "SECONDS": "0.02"},
        cwd=HERE.parent / "api_load",
    )  # fmt: skip
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                httpx.get(url, trust_env=False)
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
