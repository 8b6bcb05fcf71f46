"""What the name of a machine type says: series, shape and number of virtual CPUs.

https://cloud.google.com/compute/docs/machine-resource
"""

from __future__ import annotations

import re
from dataclasses import dataclass

N1_CPUS = (1, 2, 4, 8, 16, 32, 64, 96)
"""The sizes of N1: https://cloud.google.com/compute/docs/general-purpose-machines#n1_machines"""

# GB for each virtual CPU; what the other series have is not needed here.
_MEMORY_GB_PER_CPU = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
_NAME = re.compile(r"([a-z][a-z0-9]*)-([a-z]+)-([0-9]{1,4})(?:g|-[a-z0-9-]+)?")


@dataclass(frozen=True)
class MachineType:
    """``n2d-standard-32``: series n2d, shape standard, 32 virtual CPUs."""

    series: str
    shape: str
    cpus: int

    @property
    def n1_memory_gb(self) -> float | None:
        """The memory of an N1 machine in GB; None for another series."""
        per_cpu = _MEMORY_GB_PER_CPU.get(self.shape) if self.series == "n1" else None
        return None if per_cpu is None else self.cpus * per_cpu


def machine_type(name: str) -> MachineType | None:
    """What the name says; None for one that is not made this way, such as ``e2-micro``."""
    match = _NAME.fullmatch(name)
    return MachineType(match[1], match[2], int(match[3])) if match else None


def n1_with_as_many_cpus(cpus: int) -> str:
    """The N1 machine with that many virtual CPUs, or the next larger one; the largest when there is none."""
    return f"n1-standard-{next((size for size in N1_CPUS if size >= cpus), N1_CPUS[-1])}"
