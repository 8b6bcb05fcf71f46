"""The settings of the development machines: who has one, what it is, what becomes of its disks. Limits as the API's.

https://cloud.google.com/workstations/docs/reference/rest/v1/projects.locations.workstationClusters.workstationConfigs
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from orchestra_lib.settings.base import Address, FromList, Model

Zone = Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z]+[0-9]+-[a-z]$")]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
Extension = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*\.[A-Za-z0-9][A-Za-z0-9-]*(@[0-9][0-9A-Za-z.-]*)?$")
]
ImageTag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]

LONGEST_WORKSTATION_ID = 30
"""Of our own ids: names that are made of them stay below the 63 characters that Google takes."""

_NO_ID = re.compile(r"[^a-z0-9]+")


def workstation_id(email: str) -> str:
    """The id of a developer's workstation: the part of the address before the @, in the letters that ids have."""
    plain = _NO_ID.sub("-", email.partition("@")[0].lower()).strip("-")
    named = plain if plain[:1].isalpha() else f"w-{plain}"
    return named[:LONGEST_WORKSTATION_ID].strip("-")


class Developers(Model):
    """Who gets a workstation. None until an owner names them: phase 2 asks for it."""

    emails: Annotated[tuple[Address, ...], FromList] | None

    @field_validator("emails")
    @classmethod
    def _told_apart(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen: dict[str, str] = {}
        for email in value or ():
            other = seen.setdefault(workstation_id(email), email)
            if other is not email:
                raise ValueError(f"{other} and {email} would both have the workstation {workstation_id(email)}")
        return value


class Restore(Model):
    """Whose home is brought back into a new workstation, and from which snapshot; None: from one taken now."""

    developer: str | None = None
    snapshot: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = None


class Machine(Model):
    """A workstation's machine. GPUs of type T4 attach to N1 machines only."""

    machine_type: Annotated[str, StringConstraints(pattern=r"^[a-z][0-9][a-z]?-[a-z]+-[0-9]+$")]
    accelerator_type: str | None = None
    accelerator_count: Literal[1, 2, 4] | None = None

    @model_validator(mode="after")
    def _accelerator_fits(self) -> Machine:
        if (self.accelerator_type is None) != (self.accelerator_count is None):
            raise ValueError("accelerator_type and accelerator_count go together")
        if self.accelerator_type == "nvidia-tesla-t4" and not self.machine_type.startswith("n1-"):
            raise ValueError(
                f"nvidia-tesla-t4 cannot be attached to {self.machine_type}: of all series only N1 takes it; "
                "n1-standard-32 has as many vCPUs as n2d-standard-32"
            )
        return self


class Image(Model):
    """The container image in the project's registry. Without a tag Google's own image is used as it is."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
    tag: ImageTag | None
    extensions: Annotated[tuple[Extension, ...], FromList]


class Snapshots(Model):
    """When home disks are snapshotted, and how long that is kept. Compute takes every fourth hour."""

    start_hour_utc: Literal[0, 4, 8, 12, 16, 20]
    retention_days: int = Field(ge=1, le=365)


class Workstations(Model):
    """The development machines. The boot disk is thrown away at every stop; the home disk stays.

    ``boost`` is the machine that a developer may start with instead. ``pool_size`` and ``boost_pool_size`` are machines
    of each that stand ready. ``measured_starts`` is how often a start is timed on each of the
    two: the median of fewer than six has no 95 % interval.
    """

    cluster: Id
    configuration: Id
    private_endpoint: bool
    development: Machine
    boost: Machine
    replica_zones: Annotated[tuple[Zone, Zone], FromList]
    boot_disk_gb: int = Field(ge=30)
    home_disk_gb: Literal[10, 50, 100, 200, 500, 1000]
    home_disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd"]
    home_disk_reclaim: Literal["RETAIN", "DELETE"]
    snapshots: Snapshots
    idle_timeout_seconds: int = Field(ge=0)
    running_timeout_seconds: int = Field(ge=0)
    pool_size: int = Field(ge=0)
    boost_pool_size: int = Field(ge=0)
    ide: Literal["codeoss"]
    image: Image
    measured_starts: int = Field(ge=6, le=50)
    repository_host: Literal["GitHub"]

    @model_validator(mode="after")
    def _fits(self) -> Workstations:
        if self.home_disk_gb < 200 and self.home_disk_type == "pd-standard":
            raise ValueError(
                f"a home disk of {self.home_disk_gb} GB cannot be pd-standard: below 200 GB take pd-balanced"
            )
        if self.replica_zones[0] == self.replica_zones[1]:
            raise ValueError(f"replica_zones are both {self.replica_zones[0]}: the API wants two")
        return self
