"""What Google's discovery documents state as numbers, choices and defaults, taken out of the documents themselves.

A newer package brings newer limits. Where a document's words have changed so that a limit is no longer found in them,
:class:`NotStated` is raised, and the rule that asked counts as not judged.
"""

from __future__ import annotations

import re
from datetime import date, datetime

from orchestra_lib.cloud.discovery import document, immutable_fields

WORKSTATIONS, ALLOYDB, RUN, MONITORING, AIPLATFORM, IAM = (
    "workstations.v1",
    "alloydb.v1",
    "run.v2",
    "monitoring.v3",
    "aiplatform.v1",
    "iam.v1",
)
_RUN = "GoogleCloudRunV2"


class NotStated(Exception):
    """A discovery document does not state what a rule asks it; the text says which and where."""


def revision(api: str) -> date:
    """The day of an API's document."""
    return datetime.strptime(document(api)["revision"], "%Y%m%d").date()


def _description(api: str, schema: str, field: str) -> str:
    try:
        return str(document(api)["schemas"][schema]["properties"][field]["description"])
    except KeyError:
        raise NotStated(f"{api} of {revision(api)} has no {schema}.{field}") from None


def _stated(api: str, schema: str, field: str, pattern: str) -> tuple[str, ...]:
    """The groups of a pattern in the description of a field."""
    match = re.search(pattern, _description(api, schema, field))
    if not match:
        raise NotStated(f"{api} of {revision(api)} no longer states this of {schema}.{field}")
    return match.groups()


def _choices(api: str, schema: str, field: str) -> tuple[str, ...]:
    try:
        values = document(api)["schemas"][schema]["properties"][field]["enum"]
    except KeyError:
        raise NotStated(f"{api} of {revision(api)} has no choices for {schema}.{field}") from None
    return tuple(value for value in values if not value.endswith("_UNSPECIFIED"))


def is_immutable(api: str, schema: str, field: str) -> bool:
    """Whether the document says that a field can never be changed."""
    return field in immutable_fields(api, schema)


# --- workstations -----------------------------------------------------------------------------------------------------


def boot_disk_minimum_gb() -> int:
    """The smallest boot disk."""
    return int(_stated(WORKSTATIONS, "GceInstance", "bootDiskSizeGb", r"minimum boot disk size is `(\d+)`")[0])


def boot_disk_default_gb() -> int:
    """The boot disk that is made where none is asked for."""
    return int(_stated(WORKSTATIONS, "GceInstance", "bootDiskSizeGb", r"Defaults to `(\d+)`")[0])


def home_disk_sizes_gb() -> tuple[int, ...]:
    """The sizes of a home disk that there are."""
    words = _stated(
        WORKSTATIONS, "GceRegionalPersistentDisk", "sizeGb", r"Valid values are ((?:`\d+`(?:, or |, | or )?)+)"
    )
    return tuple(int(size) for size in re.findall(r"\d+", words[0]))


def small_home_disk() -> tuple[int, tuple[str, ...]]:
    """Below which size a home disk has to be of one of these types."""
    limit, *types = _stated(
        WORKSTATIONS,
        "GceRegionalPersistentDisk",
        "sizeGb",
        r'less than `(\d+)` GB, the disk_type must be `"([a-z-]+)"` or `"([a-z-]+)"`',
    )
    return int(limit), tuple(types)


def home_disk_default_type() -> str:
    """The type of a home disk where none is asked for."""
    return _stated(WORKSTATIONS, "GceRegionalPersistentDisk", "diskType", r'Defaults to `"([a-z-]+)"`')[0]


def reclaim_default() -> str:
    """What happens to a home disk when its workstation is deleted and nothing else was asked for."""
    return _stated(WORKSTATIONS, "GceRegionalPersistentDisk", "reclaimPolicy", r"Defaults to `([A-Z]+)`")[0]


def encrypted_running_timeout_seconds() -> int:
    """Below which the running time-out has to be where a key of one's own is used."""
    return int(
        _stated(WORKSTATIONS, "WorkstationConfig", "runningTimeout", r'`"0s"` and less than `"(\d+)s"`')[0],
    )


def workstation_ports() -> tuple[frozenset[int], range]:
    """The single ports that may be opened, and the range."""
    one, other, first, last = _stated(
        WORKSTATIONS, "WorkstationConfig", "allowedPorts", r"one of (\d+), (\d+), or within range (\d+)-(\d+)"
    )
    return frozenset((int(one), int(other))), range(int(first), int(last) + 1)


# --- AlloyDB ----------------------------------------------------------------------------------------------------------


def database_versions() -> tuple[str, ...]:
    """The versions that the API names, the oldest first."""
    return _choices(ALLOYDB, "Cluster", "databaseVersion")


def query_insights(field: str) -> tuple[int, int, int]:
    """Least, most and default of ``queryPlansPerMinute`` or ``queryStringLength``."""
    default, least, most = _stated(
        ALLOYDB,
        "QueryInsightsInstanceConfig",
        field,
        r"default value is (\d+)\. Any integer between (\d+) and (\d+)",
    )
    return int(least), int(most), int(default)


def backup_window_minimum_seconds() -> int:
    """The shortest window for a backup."""
    return 60 * int(_stated(ALLOYDB, "AutomatedBackupPolicy", "backupWindow", r"at least (\d+) minutes long")[0])


# --- Cloud Run --------------------------------------------------------------------------------------------------------


def run_cpus() -> tuple[int, ...]:
    """The numbers of CPUs that the API supports."""
    words = _stated(RUN, f"{_RUN}ResourceRequirements", "limits", r"values for CPU are ((?:'\d+'(?:, and |, )?)+)")
    return tuple(int(cpu) for cpu in re.findall(r"\d+", words[0]))


def run_memory_minimum() -> tuple[int, int]:
    """From how many CPUs on how much memory is needed, in GiB."""
    cpus, gib = _stated(RUN, f"{_RUN}ResourceRequirements", "limits", r"Setting (\d+) CPU requires at least (\d+)Gi")
    return int(cpus), int(gib)


def run_default_concurrency() -> int:
    """The requests at once in an instance with a whole CPU, where none are asked for."""
    return int(
        _stated(RUN, f"{_RUN}RevisionTemplate", "maxInstanceRequestConcurrency", r"defaults to (\d+) when requested")[0]
    )


def startup_probe_maximum_seconds(field: str) -> int:
    """The most of ``initialDelaySeconds`` or ``periodSeconds`` of a startup probe."""
    return int(_stated(RUN, f"{_RUN}Probe", field, r"Maximum value for startup probe is (\d+)")[0])


def scaling_utilization(field: str) -> tuple[float, float]:
    """Least and most of ``cpuUtilization`` or ``concurrencyUtilization``; 0 switches it off."""
    least, most = _stated(RUN, f"{_RUN}RevisionScaling", field, r"between `([\d.]+)` and `([\d.]+)`")
    return float(least), float(most)


# --- the rest ---------------------------------------------------------------------------------------------------------


def slo_goal_maximum() -> float:
    """The highest goal of an objective."""
    return float(_stated(MONITORING, "ServiceLevelObjective", "goal", r"goal <= ([\d.]*\d)")[0])


def slo_rolling_days_maximum() -> int:
    """The longest rolling period of an objective, in days."""
    return int(_stated(MONITORING, "ServiceLevelObjective", "rollingPeriod", r"no larger than (\d+) days")[0])


def temperature_range() -> tuple[float, float]:
    """Above which and up to which the temperature of a model may be."""
    least, most = _stated(
        AIPLATFORM, "GoogleCloudAiplatformV1GenerationConfig", "temperature", r"range is \(([\d.]+), ([\d.]+)\]"
    )
    return float(least), float(most)


def thinking_levels() -> tuple[str, ...]:
    """How much a model may be asked to think."""
    return _choices(AIPLATFORM, "GoogleCloudAiplatformV1GenerationConfigThinkingConfig", "thinkingLevel")


def federated_subject_maximum_bytes() -> int:
    """The longest subject of a federated identity."""
    field = "attributeMapping"
    return int(
        _stated(IAM, "WorkloadIdentityPoolProvider", field, r"google\.subject`[^*]*Cannot exceed (\d+) bytes")[0]
    )
