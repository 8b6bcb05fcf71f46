"""What phase 2 needs and a plan does not say: quotas of running machines, GPUs in the zones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.evidence import Bound, Evidence
from orchestra_lib.machine_types import machine_type
from orchestra_lib.plan import Verb
from orchestra_lib.settings.workstations import Machine, Workstations

_PLAIN_CPUS = ("n1", "e2")  # counted as CPUS; newer series have a metric of their own
_NO_SUCH_ZONE, _NO_SUCH_TYPE = 400, 404
_REPLICAS = 2  # of a regional disk; counted as often as it is paid


def capacity_checks(
    client: Client, place: Place, region: str, wanted: Workstations, desks: int, plan: CloudPlan
) -> Iterator[Evidence]:
    """Quotas against every developer's machine running, and machine types and GPUs in both zones. Reads only.

    What may not be read is a row without a value.
    """
    project = f"projects/{place.project}"
    try:
        quotas = _quotas(client, "compute.regions.get", f"{project}/regions/{region}")
        quotas |= _quotas(client, "compute.projects.get", project)
        lacking = list(_lacking(client, project, wanted))
    except CloudRefused as error:
        yield Evidence("quotas and machine types", place.source, None, "", Bound(">=", 0), note=str(error))
        return
    for metric, needed in sorted(needed_quotas(wanted, desks).items()):
        if metric in quotas:
            limit, _ = quotas[metric]
            note = "" if limit >= needed else f"ask for {needed} in {region}: {desks} developers at once, and the pools"
            yield Evidence(f"quota {metric}", place.source, limit, "", Bound(">=", needed), note=note)
    new = sum(step.verb is Verb.CREATE and step.wanted.kind == "workstation" for step in plan.steps)
    metric, needed = _disk_metric(wanted.home_disk_type), new * wanted.home_disk_gb * _REPLICAS
    if new and metric in quotas:
        limit, used = quotas[metric]
        note = f"{new} home disks of {wanted.home_disk_gb} GB in two zones"
        yield Evidence(f"quota {metric} left", place.source, limit - used, "GB", Bound(">=", needed), note=note)
    yield Evidence(
        "machine types and GPUs that a replica zone lacks",
        place.source,
        len(lacking),
        "",
        Bound("==", 0),
        note="; ".join(lacking) or ", ".join(wanted.replica_zones),
    )


def needed_quotas(wanted: Workstations, desks: int) -> Mapping[str, int]:
    """Compute's metrics and what is needed of each when every developer works at once, on either machine."""
    needed: Counter[str] = Counter()
    everywhere: list[int] = []
    for machine, pool in ((wanted.development, wanted.pool_size), (wanted.boost, wanted.boost_pool_size)):
        known = machine_type(machine.machine_type)
        cpus = known.cpus * (desks + pool) if known else 0
        metric = _cpu_metric(machine)
        needed[metric] = max(needed[metric], cpus)
        everywhere.append(cpus)
        if machine.accelerator_type and machine.accelerator_count:
            cards = machine.accelerator_count * (desks + pool)
            name = machine.accelerator_type.removeprefix("nvidia-tesla-").removeprefix("nvidia-")
            needed[f"NVIDIA_{name.upper()}_GPUS"] += cards
            needed["GPUS_ALL_REGIONS"] += cards
    needed["CPUS_ALL_REGIONS"] = max(everywhere)
    return {metric: count for metric, count in needed.items() if count}


def _cpu_metric(machine: Machine) -> str:
    series = machine.machine_type.partition("-")[0]
    return "CPUS" if series in _PLAIN_CPUS else f"{series.upper()}_CPUS"


def _disk_metric(disk_type: str) -> str:
    return "DISKS_TOTAL_GB" if disk_type == "pd-standard" else "SSD_TOTAL_GB"


def _quotas(client: Client, method_id: str, path: str) -> dict[str, tuple[float, float]]:
    """Limit and usage by metric."""
    answer = client.call("compute.v1", method_id, path)
    return {row["metric"]: (row["limit"], row["usage"]) for row in answer.get("quotas", ())}


def _lacking(client: Client, project: str, wanted: Workstations) -> Iterator[str]:
    machines = (wanted.development, wanted.boost)
    types = [("machineTypes", one.machine_type) for one in machines]
    types += [("acceleratorTypes", one.accelerator_type) for one in machines if one.accelerator_type]
    for zone in wanted.replica_zones:
        for collection, name in types:
            path = f"{project}/zones/{zone}/{collection}/{name}"
            try:
                client.call("compute.v1", f"compute.{collection}.get", path)
            except CloudRefused as error:
                if error.status not in (_NO_SUCH_ZONE, _NO_SUCH_TYPE):
                    raise
                yield f"{zone} has no {name}"
