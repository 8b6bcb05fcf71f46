"""A rollout in a process of its own that is killed where it is told: before a step, or right after the decision.

Arguments: the control plane's address and token, the service, the journal, the template as JSON, where to die.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from google.oauth2.credentials import Credentials

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.evidence import Source
from orchestra_lib.rollout.blue_green import Gate, roll_out
from orchestra_lib.rollout.comparison import Requests
from orchestra_lib.rollout.journal import RolloutJournal
from orchestra_lib.rollout.service import RunService

url, token, name, path, template, dies = sys.argv[1:]


def die() -> None:
    """End without a chance to clear anything away."""
    os.kill(os.getpid(), signal.SIGKILL)


class Journal(RolloutJournal):
    """Dies with the decision on the disk."""

    def decide(self, rollout):
        super().decide(rollout)
        if dies == "decided":
            die()


roll_out(
    RunService(Client(Target("local", url, Credentials(token))), name),
    json.loads(template),
    Requests(({"method": "GET", "url": "/"},), dict, {"answered_by": "it names the revision"}),
    Gate(warm_requests=1, requests=20, latency_ratio=1_000),
    Journal(Path(path)),
    Source.REHEARSED,
    lambda told: die() if told.startswith(dies) else None,
)
