"""What a whole local target is: its Google Cloud, and today's store. Two that are alike look alike."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "cloud"))

from planes import Plane
from portrait import portrait
from state_portrait import database_portrait

from orchestra_lib.local.control import process

PROJECT = "cherry-ai-project"
_STAYS = re.compile(
    r"/disks/workstations-|^\[\"monitoring/projects/[^/]+/(timeSeries|metricDescriptors)/"
    r"|^\[\"cloudbuild/projects/[^/]+/locations/[^/]+/builds/"
)


def target_portrait(url: str, state: Path, source: str) -> list[str]:
    """One line a resource, a role, an enabled API, an object of the store and a checksum of a table's rows.

    ``url`` is where the control plane listens, ``state`` its state directory, ``source`` the conninfo of today's store.
    Left out is what no rollback can or may take back: what Monitoring has been told and which builds there were, which
    nobody can delete, and the developers' home disks, which outlive their workstations.
    """
    directory = process.directory(state)
    plane = Plane(url, (directory / "token").read_text().strip(), directory)
    cloud = [line for line in portrait(plane, PROJECT) if not _STAYS.search(line)]
    return [*cloud, *(f"source {line}" for line in database_portrait(source))]
