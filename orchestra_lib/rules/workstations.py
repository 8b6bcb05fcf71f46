"""Rules of the development machines: what a machine takes, disks, time-outs, image, ports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestra_lib.machine_types import machine_type, n1_with_as_many_cpus
from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import FLAG, MAPPING, TEXT, TEXTS, WHOLE
from orchestra_lib.rules.rule import Input, Level, Rule, Values, in_document, may, needs, on_page, used

MACHINES = ("workstations.development", "workstations.boost")
"""Where the settings have a machine."""

T4 = "nvidia-tesla-t4"
T4_ZONES: Mapping[str, tuple[str, ...]] = {
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"),
    "us-east1": ("us-east1-c", "us-east1-d"),
}
"""Where T4s are: https://cloud.google.com/compute/docs/gpus/gpu-regions-zones"""

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "a2": ("nvidia-tesla-a100", "nvidia-a100-80gb"),
    "a3": ("nvidia-h100-80gb", "nvidia-h100-mega-80gb", "nvidia-h200-141gb"),
    "a4": ("nvidia-b200",),
    "g2": ("nvidia-l4", "nvidia-l4-vws"),
    "g4": ("nvidia-rtx-pro-6000", "nvidia-rtx-pro-6000-vws"),
}
"""Series that bring their GPUs, and which: https://cloud.google.com/compute/docs/gpus"""

_GPUS = on_page("https://cloud.google.com/compute/docs/gpus")
_RECALLED = on_page("https://cloud.google.com/compute/docs/gpus", confirmed=False)
_T4_MAXIMUM_CPUS, _T4_MAXIMUM_MEMORY_GB = 48, 312  # of a machine with one or two
_T4_COUNTS = (1, 2, 4)
_PREDEFINED = "/cloud-workstations-images/predefined/"


def _series(name: str) -> str:
    return name.split("-", maxsplit=1)[0]


def _carrier(accelerator: str) -> str | None:
    """The series that alone carries an accelerator; None for one that is attached to N1."""
    return next((series for series, own in BUILT_IN.items() if accelerator in own), None)


def _machine_reads(place: str) -> dict[str, Input]:
    return {
        "machine": needs(f"{place}.machine_type", TEXT),
        "accelerator": may(f"{place}.accelerator_type", TEXT),
        "count": may(f"{place}.accelerator_count", WHOLE, 1),
    }


def _without_accelerator(place: str) -> dict[str, Any]:
    return {f"{place}.accelerator_type": None, f"{place}.accelerator_count": None}


def _attached(place: str) -> Rule:
    def holds(v: Values) -> bool:
        attached = v.accelerator is not None and v.accelerator.startswith("nvidia-tesla-")
        # The series that bring their own are judged by the next rule.
        return not attached or _series(v.machine) in ("n1", *BUILT_IN) or _carrier(v.accelerator) is not None

    def nearest(v: Values) -> Mapping[str, Any]:
        machine = machine_type(v.machine)
        return {f"{place}.machine_type": n1_with_as_many_cpus(machine.cpus if machine else 1)}

    return Rule(
        "R-WS-01",
        Level.FAIL,
        "GPUs are attached to N1 machines only",
        _machine_reads(place),
        holds,
        lambda v: (
            f"{v.accelerator} cannot be attached to {v.machine}: of all series only N1 takes it; or keep the machine "
            "and give the GPU a boost configuration of its own"
        ),
        _GPUS,
        nearest,
    )


def _brought(place: str) -> Rule:
    def holds(v: Values) -> bool:
        if v.accelerator is None:
            return True
        series, carrier = _series(v.machine), _carrier(v.accelerator)
        return series == carrier if carrier else series not in BUILT_IN

    return Rule(
        "R-WS-02",
        Level.FAIL,
        "a machine that brings its GPUs has no others",
        _machine_reads(place),
        holds,
        lambda v: f"{v.machine} with {v.accelerator}: that series has no such GPU, and takes no other than its own",
        _GPUS,
        lambda _: _without_accelerator(place),
    )


def _t4_count(place: str) -> Rule:
    return Rule(
        "R-WS-03",
        Level.WARN,
        "T4s come in ones, twos and fours",
        _machine_reads(place),
        lambda v: v.accelerator != T4 or v.count in _T4_COUNTS,
        lambda v: f"{v.count} T4s: a machine has 1, 2 or 4",
        _RECALLED,
        lambda v: {f"{place}.accelerator_count": next((n for n in _T4_COUNTS if n >= v.count), _T4_COUNTS[-1])},
    )


def _t4_machine(place: str) -> Rule:
    def holds(v: Values) -> bool:
        machine = machine_type(v.machine)
        if v.accelerator != T4 or v.count > 2 or machine is None or machine.series != "n1":
            return True
        return machine.cpus <= _T4_MAXIMUM_CPUS and (machine.n1_memory_gb or 0) <= _T4_MAXIMUM_MEMORY_GB

    return Rule(
        "R-WS-03",
        Level.WARN,
        "a machine with one or two T4s has at most 48 vCPUs and 312 GB",
        _machine_reads(place),
        holds,
        lambda v: f"{v.machine} with {v.count} T4s: more than {_T4_MAXIMUM_CPUS} vCPUs or {_T4_MAXIMUM_MEMORY_GB} GB",
        _RECALLED,
        lambda _: {f"{place}.machine_type": "n1-standard-32"},
    )


def _nested(place: str) -> Rule:
    return Rule(
        "R-WS-14",
        Level.FAIL,
        "nested virtualisation only on N1 and N2",
        {
            "nested": used("workstations.nested_virtualization", FLAG),
            "machine": needs(f"{place}.machine_type", TEXT),
        },
        lambda v: not v.nested or _series(v.machine) in ("n1", "n2"),
        lambda v: f"nested virtualisation on {v.machine}: only N1 and N2 machines can",
        in_document(known.WORKSTATIONS, "GceInstance.enableNestedVirtualization"),
        lambda _: {"workstations.nested_virtualization": False},
    )


_ACCELERATORS = {
    "development": may("workstations.development.accelerator_type", TEXT),
    "boost": may("workstations.boost.accelerator_type", TEXT),
}


def _has_gpu(v: Values) -> bool:
    return bool(v.development or v.boost)


def _two_zones(v: Values) -> bool:
    return not v.zones or (
        len(set(v.zones)) == len(v.zones) == 2 and all(_region(zone) == v.region for zone in v.zones)
    )


def _region(zone: str) -> str:
    return zone.rpartition("-")[0]


def _pair(v: Values) -> Mapping[str, Any]:
    zones = T4_ZONES.get(v.region)
    return {"workstations.replica_zones": list(zones[:2])} if zones else {}


def _next_home_disk(v: Values) -> Mapping[str, Any]:
    sizes = sorted(known.home_disk_sizes_gb())
    return {"workstations.home_disk_gb": next((size for size in sizes if size >= v.size), sizes[-1])}


def _home_disk_type(v: Values) -> bool:
    limit, types = known.small_home_disk()
    return bool(v.size >= limit or (v.type or known.home_disk_default_type()) in types)


def _is_custom(image: str) -> bool:
    return _PREDEFINED not in image


def _ports_open(v: Values) -> bool:
    single, many = known.workstation_ports()
    return all(re.fullmatch(r"\d{1,5}", port) and (int(port) in single or int(port) in many) for port in _ends(v.ports))


def _ends(ports: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(end for port in ports for end in port.split("-", maxsplit=1))


_CONFIG, _INSTANCE, _DISK = "WorkstationConfig", "GceInstance", "GceRegionalPersistentDisk"

RULES = (
    *(rule(place) for place in MACHINES for rule in (_attached, _brought, _t4_count, _t4_machine, _nested)),
    Rule(
        "R-WS-05",
        Level.FAIL,
        "two different zones of the region, or none",
        {"zones": needs("workstations.replica_zones", TEXTS), "region": needs("regions.primary", TEXT)},
        _two_zones,
        lambda v: f"{', '.join(v.zones)}: exactly two different zones of {v.region} are possible",
        in_document(known.WORKSTATIONS, f"{_CONFIG}.replicaZones"),
        _pair,
    ),
    Rule(
        "R-WS-05",
        Level.WARN,
        "zones are named where GPUs are wanted",
        {
            "zones": may("workstations.replica_zones", TEXTS, ()),
            "region": needs("regions.primary", TEXT),
            **_ACCELERATORS,
        },
        lambda v: bool(v.zones) or not _has_gpu(v),
        lambda v: f"no zones are named: two of {v.region} are then taken, with GPUs in them or not, for ever",
        in_document(known.WORKSTATIONS, f"{_CONFIG}.replicaZones"),
        _pair,
    ),
    Rule(
        "R-WS-06",
        Level.FAIL,
        "the boot disk has the least size or more",
        {"size": needs("workstations.boot_disk_gb", WHOLE)},
        lambda v: v.size >= known.boot_disk_minimum_gb(),
        lambda v: f"a boot disk of {v.size} GB: the least is {known.boot_disk_minimum_gb()}",
        in_document(known.WORKSTATIONS, f"{_INSTANCE}.bootDiskSizeGb"),
        lambda _: {"workstations.boot_disk_gb": known.boot_disk_default_gb()},
    ),
    Rule(
        "R-WS-07",
        Level.WARN,
        "there is a home disk",
        {
            "size": may("workstations.home_disk_gb", WHOLE),
            "boot": needs("workstations.boot_disk_gb", WHOLE),
            "snapshot": may("workstations.home_source_snapshot", TEXT),
        },
        lambda v: v.size is not None or bool(v.snapshot),
        lambda v: f"no home disk: the boot disk of {v.boot} GB is thrown away at every stop, with all that is on it",
        on_page("https://cloud.google.com/workstations/docs/overview"),
        lambda _: {"workstations.home_disk_gb": 200, "workstations.home_disk_type": "pd-balanced"},
    ),
    Rule(
        "R-WS-07",
        Level.FAIL,
        "the home disk has one of the sizes that there are",
        {"size": needs("workstations.home_disk_gb", WHOLE)},
        lambda v: v.size in known.home_disk_sizes_gb(),
        lambda v: f"a home disk of {v.size} GB: there are {', '.join(map(str, known.home_disk_sizes_gb()))}",
        in_document(known.WORKSTATIONS, f"{_DISK}.sizeGb"),
        _next_home_disk,
    ),
    Rule(
        "R-WS-07",
        Level.FAIL,
        "a small home disk has a type that comes so small",
        {"size": needs("workstations.home_disk_gb", WHOLE), "type": may("workstations.home_disk_type", TEXT)},
        _home_disk_type,
        lambda v: (
            f"a home disk of {v.size} GB as {v.type or known.home_disk_default_type()}: below "
            f"{known.small_home_disk()[0]} GB it has to be {' or '.join(known.small_home_disk()[1])}"
        ),
        in_document(known.WORKSTATIONS, f"{_DISK}.sizeGb"),
        lambda _: {"workstations.home_disk_type": known.small_home_disk()[1][0]},
    ),
    Rule(
        "R-WS-08",
        Level.FAIL,
        "a home disk from a snapshot has no size and file system of its own",
        {
            "snapshot": used("workstations.home_source_snapshot", TEXT),
            "size": may("workstations.home_disk_gb", WHOLE),
            "file_system": may("workstations.home_file_system", TEXT),
        },
        lambda v: not v.snapshot or (v.size is None and v.file_system is None),
        lambda v: f"the home disk comes from {v.snapshot}: it brings its size and file system",
        in_document(known.WORKSTATIONS, f"{_DISK}.sourceSnapshot"),
        lambda _: {"workstations.home_disk_gb": None, "workstations.home_file_system": None},
    ),
    Rule(
        "R-WS-09",
        Level.WARN,
        "home disks outlive their workstations",
        {
            "policy": may("workstations.home_disk_reclaim", TEXT),
            "boot": needs("workstations.boot_disk_gb", WHOLE),
        },
        lambda v: (v.policy or known.reclaim_default()) != "DELETE",
        lambda v: (
            f"{'DELETE' if v.policy else 'not stated, so the default DELETE'}: a home disk goes with its workstation"
        ),
        in_document(known.WORKSTATIONS, f"{_DISK}.reclaimPolicy"),
        lambda _: {"workstations.home_disk_reclaim": "RETAIN"},
    ),
    Rule(
        "R-WS-10",
        Level.FAIL,
        "machines with GPUs are stopped, not suspended",
        {"action": used("workstations.idle_action", TEXT), **_ACCELERATORS},
        lambda v: v.action != "SUSPEND" or not _has_gpu(v),
        lambda v: f"idle_action {v.action}: Compute Engine cannot suspend a machine with GPUs",
        on_page("https://cloud.google.com/compute/docs/instances/suspend-resume-instance", confirmed=False),
        lambda _: {"workstations.idle_action": "STOP"},
    ),
    Rule(
        "R-WS-11",
        Level.WARN,
        "an idle workstation stops",
        {"idle": needs("workstations.idle_timeout_seconds", WHOLE)},
        lambda v: v.idle != 0,
        lambda _: "0 s: an idle workstation runs, and is paid, until somebody stops it",
        in_document(known.WORKSTATIONS, f"{_CONFIG}.idleTimeout"),
        lambda _: {"workstations.idle_timeout_seconds": 1800},
    ),
    Rule(
        "R-WS-11",
        Level.FAIL,
        "with a key of one's own, a workstation runs for less than a day",
        {
            "running": needs("workstations.running_timeout_seconds", WHOLE),
            "key": used("workstations.encryption_key", TEXT),
        },
        lambda v: not v.key or 0 < v.running < known.encrypted_running_timeout_seconds(),
        lambda v: (
            f"{v.running} s with the key {v.key}: it has to be more than 0 and less than "
            f"{known.encrypted_running_timeout_seconds()}"
        ),
        in_document(known.WORKSTATIONS, f"{_CONFIG}.runningTimeout"),
        lambda _: {"workstations.running_timeout_seconds": 43_200},
    ),
    Rule(
        "R-WS-12",
        Level.FAIL,
        "an image of one's own is pulled by an account",
        {
            "image": needs("workstations.container_image", TEXT),
            "account": may("workstations.service_account", TEXT),
        },
        lambda v: not _is_custom(v.image) or bool(v.account),
        lambda v: f"{v.image} without workstations.service_account: nobody may pull it, so no workstation starts",
        in_document(known.WORKSTATIONS, "Container.image"),
    ),
    Rule(
        "R-WS-12",
        Level.WARN,
        "a machine with GPUs has an image with CUDA",
        {"image": needs("workstations.container_image", TEXT), **_ACCELERATORS},
        lambda v: not _has_gpu(v) or _is_custom(v.image) or "cuda" in v.image,
        lambda v: f"{v.image} has no CUDA: the GPUs stand idle",
        on_page("https://cloud.google.com/workstations/docs/preconfigured-base-images"),
        lambda v: {
            "workstations.container_image": f"{v.image.partition(_PREDEFINED)[0]}{_PREDEFINED}codeoss-cuda:latest"
        },
    ),
    Rule(
        "R-WS-13",
        Level.FAIL,
        "machines without public addresses have another way out",
        {
            "private": needs("workstations.disable_public_ip_addresses", FLAG),
            "nat": may("network.nat", MAPPING),
            "access": may("network.private_google_access", FLAG),
        },
        lambda v: not v.private or v.nat is not None or bool(v.access),
        lambda _: "no public addresses, and neither address translation nor Private Google Access: nothing is pulled",
        in_document(known.WORKSTATIONS, f"{_INSTANCE}.disablePublicIpAddresses"),
        lambda _: {"network.private_google_access": True},
    ),
    Rule(
        "R-WS-16",
        Level.FAIL,
        "only ports that may be opened are opened",
        {"ports": used("workstations.allowed_ports", TEXTS)},
        _ports_open,
        lambda v: f"{', '.join(v.ports)}: only 22, 80 and 1024 to 65535 can be opened",
        in_document(known.WORKSTATIONS, f"{_CONFIG}.allowedPorts"),
    ),
)
