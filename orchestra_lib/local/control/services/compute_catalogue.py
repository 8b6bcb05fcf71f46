"""What compute offers where: regions, zones, machine, disk and accelerator types, which nobody creates.

Machine series: https://cloud.google.com/compute/docs/general-purpose-machines
GPUs by zone: https://cloud.google.com/compute/docs/gpus/gpu-regions-zones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra_lib.local.control import places
from orchestra_lib.local.control.call import digits
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_PLATFORMS = ("Intel Broadwell", "Intel Haswell", "Intel Skylake", "Intel Cascade Lake", "Intel Ice Lake", "AMD Rome")
_BORN = "1969-12-31T16:00:00.000-08:00"  # what compute writes for its own catalogue


@dataclass(frozen=True)
class _Series:
    """Machine types of one shape: ``n2d-standard-32`` has 32 virtual CPUs with 4 GB each."""

    name: str
    memory_mb_per_cpu: float
    cpus: tuple[int, ...]


_N1 = (1, 2, 4, 8, 16, 32, 64, 96)
_N2 = (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)
_N2D = (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)
_E2 = (2, 4, 8, 16, 32)
_SERIES = (
    _Series("e2-standard", 4096, _E2),
    _Series("e2-highmem", 8192, _E2[:-1]),
    _Series("e2-highcpu", 1024, _E2),
    _Series("n1-standard", 3840, _N1),
    _Series("n1-highmem", 6656, _N1[1:]),
    _Series("n1-highcpu", 921.6, _N1[1:]),
    _Series("n2-standard", 4096, _N2),
    _Series("n2-highmem", 8192, _N2[:-1]),
    _Series("n2-highcpu", 1024, _N2[:-1]),
    _Series("n2d-standard", 4096, _N2D),
    _Series("n2d-highmem", 8192, _N2D[:-2]),
    _Series("n2d-highcpu", 1024, _N2D),
)
_SHARED = {
    "e2-micro": (2, 1024),
    "e2-small": (2, 2048),
    "e2-medium": (2, 4096),
    "f1-micro": (1, 614),
    "g1-small": (1, 1740),
}
"""Machine types that share a core: virtual CPUs and memory in MB."""


_SHAPES: Mapping[str, tuple[int, int]] = {
    **_SHARED,
    **{
        f"{series.name}-{cpus}": (cpus, round(cpus * series.memory_mb_per_cpu))
        for series in _SERIES
        for cpus in series.cpus
    },
}
"""Virtual CPUs and memory in MB of each machine type."""


@dataclass(frozen=True)
class _Accelerator:
    name: str
    description: str
    most_per_instance: int
    zones: frozenset[str]


_T4_ZONES = {"us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f", "us-east1-c", "us-east1-d"}
_ACCELERATORS = (
    _Accelerator("nvidia-tesla-t4", "NVIDIA T4", 4, frozenset(_T4_ZONES)),
    _Accelerator("nvidia-tesla-t4-vws", "NVIDIA Tesla T4 Virtual Workstation", 4, frozenset(_T4_ZONES)),
)
_DISK_TYPES = (
    ("pd-standard", "Standard Persistent Disk", "10GB-65536GB", "500"),
    ("pd-balanced", "Balanced Persistent Disk", "10GB-65536GB", "100"),
    ("pd-ssd", "SSD Persistent Disk", "10GB-65536GB", "100"),
    ("hyperdisk-balanced", "Hyperdisk Balanced", "4GB-65536GB", "100"),
)


def regions(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The regions by name, without their quotas."""
    return {
        name: {
            **_base(f"{parent}/regions/{name}", "compute#region"),
            "description": name,
            "status": "UP",
            "supportsPzs": False,
            "zones": [f"{_url(parent)}/zones/{zone}" for zone in places.zones(name)],
        }
        for name in places.REGIONS
    }


def zones(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The zones by name."""
    return {
        zone: {
            **_base(f"{parent}/zones/{zone}", "compute#zone"),
            "description": zone,
            "status": "UP",
            "region": f"{_url(parent)}/regions/{zone.rpartition('-')[0]}",
            "availableCpuPlatforms": list(_PLATFORMS),
            "supportsPzs": False,
        }
        for zone in sorted(places.ALL_ZONES)
    }


def machine_types(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The machine types of a zone (the parent) by name; nothing in a zone that there is not."""
    zone = parent.rsplit("/", 1)[1]
    if zone not in places.ALL_ZONES:
        return {}
    return {
        name: {
            **_base(f"{parent}/machineTypes/{name}", "compute#machineType"),
            "description": f"{cpus} vCPU{'s' if cpus > 1 else ''}, {memory_mb / 1024:g} GB RAM",
            "guestCpus": cpus,
            "memoryMb": memory_mb,
            "maximumPersistentDisks": 16 if name in _SHARED else 128,
            "maximumPersistentDisksSizeGb": "3072" if name in _SHARED else "263168",
            "isSharedCpu": name in _SHARED,
            "architecture": "X86_64",
            "zone": zone,
        }
        for name, (cpus, memory_mb) in _SHAPES.items()
    }


def shape_of(machine_type: str) -> tuple[int, int]:
    """The virtual CPUs and the memory (MB) of a machine type; nothing of either for one that is not known."""
    return _SHAPES.get(machine_type.rsplit("/", 1)[-1], (0, 0))


def accelerator_types(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The accelerator types of a zone (the parent) by name."""
    zone = parent.rsplit("/", 1)[1]
    return {
        kind.name: {
            **_base(f"{parent}/acceleratorTypes/{kind.name}", "compute#acceleratorType"),
            "description": kind.description,
            "maximumCardsPerInstance": kind.most_per_instance,
            "zone": _url(parent),
        }
        for kind in _ACCELERATORS
        if zone in kind.zones
    }


def disk_types(_control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The disk types of a zone (the parent) by name."""
    if parent.rsplit("/", 1)[1] not in places.ALL_ZONES:
        return {}
    return {
        name: {
            **_base(f"{parent}/diskTypes/{name}", "compute#diskType"),
            "description": description,
            "validDiskSize": sizes,
            "defaultDiskSizeGb": default,
            "zone": _url(parent),
        }
        for name, description, sizes, default in _DISK_TYPES
    }


def default_disk_gb(disk_type: str) -> str:
    """The size in GB of a disk of a type for which nobody gave one."""
    name = disk_type.rsplit("/", 1)[-1]
    return next((default for known, _, _, default in _DISK_TYPES if known == name), "500")


def _base(key: str, kind: str) -> Body:
    name = key.rsplit("/", 1)[1]
    identifier = digits(key.split("/", 3)[3], 4)
    return {"kind": kind, "id": identifier, "name": name, "creationTimestamp": _BORN, "selfLink": _url(key)}


def _url(key: str) -> str:
    return f"{COMPUTE_BASE}/{key.split('/', 1)[1]}"
