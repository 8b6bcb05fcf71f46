"""The numbers of enum values, which the discovery documents leave out.

A document lists an enum's values in the order of the protocol buffer, so that mostly the place is the number. The
table holds the enums with gaps or another order, as the generated Python clients have them. Tests compare them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache


def numbers(names: Sequence[str]) -> Mapping[str, int]:
    """The number of each value of an enum, given its values as a document lists them."""
    return _numbers(tuple(names))


@cache
def _numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    special = next((table for table in _SPECIAL if next(iter(table)) in names and table.keys() >= set(names)), None)
    return special or {name: place for place, name in enumerate(names)}


def _enum(prefix: str, zero: str, values: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    return {zero: 0, **{prefix + name: number for name, number in values}}


def _words(text: str, first: int) -> list[tuple[str, int]]:
    return [(name, number) for number, name in enumerate(text.split(), first)]


_SPECIAL: tuple[Mapping[str, int], ...] = (
    # google.api.LaunchStage
    _enum(
        "",
        "LAUNCH_STAGE_UNSPECIFIED",
        _words("EARLY_ACCESS ALPHA BETA GA DEPRECATED UNIMPLEMENTED PRELAUNCH", 1),
    ),
    # google.monitoring.v3.Aggregation.Aligner
    _enum(
        "ALIGN_",
        "ALIGN_NONE",
        [
            *_words("DELTA RATE INTERPOLATE NEXT_OLDER", 1),
            *_words("MIN MAX MEAN COUNT SUM STDDEV COUNT_TRUE FRACTION_TRUE", 10),
            *_words("PERCENTILE_99 PERCENTILE_95 PERCENTILE_50 PERCENTILE_05", 18),
            *_words("PERCENT_CHANGE COUNT_FALSE", 23),
        ],
    ),
    # google.monitoring.v3.Aggregation.Reducer
    _enum(
        "REDUCE_",
        "REDUCE_NONE",
        [
            *_words("MEAN MIN MAX SUM STDDEV COUNT COUNT_TRUE FRACTION_TRUE", 1),
            *_words("PERCENTILE_99 PERCENTILE_95 PERCENTILE_50 PERCENTILE_05", 9),
            ("COUNT_FALSE", 15),
        ],
    ),
    # google.monitoring.v3: status classes, checkers, notification prompts; google.monitoring.dashboard.v1: colours
    _enum(
        "STATUS_CLASS_",
        "STATUS_CLASS_UNSPECIFIED",
        [("1XX", 100), ("2XX", 200), ("3XX", 300), ("4XX", 400), ("5XX", 500), ("ANY", 1000)],
    ),
    _enum("", "CHECKER_TYPE_UNSPECIFIED", [("STATIC_IP_CHECKERS", 1), ("VPC_CHECKERS", 3)]),
    _enum("", "NOTIFICATION_PROMPT_UNSPECIFIED", [("OPENED", 1), ("CLOSED", 3)]),
    _enum("", "COLOR_UNSPECIFIED", [("YELLOW", 4), ("RED", 6)]),
    # google.devtools.cloudbuild: build, approval, logging, machine, verification; connection
    _enum(
        "",
        "STATUS_UNKNOWN",
        [
            *_words("QUEUED WORKING SUCCESS FAILURE INTERNAL_ERROR TIMEOUT CANCELLED", 1),
            *_words("EXPIRED PENDING", 9),
        ],
    ),
    _enum("", "STATE_UNSPECIFIED", [*_words("PENDING APPROVED REJECTED", 1), ("CANCELLED", 5)]),
    _enum("", "LOGGING_UNSPECIFIED", _words("LEGACY GCS_ONLY STACKDRIVER_ONLY NONE CLOUD_LOGGING_ONLY", 1)),
    _enum(
        "",
        "UNSPECIFIED",
        [
            *_words("N1_HIGHCPU_8 N1_HIGHCPU_32", 1),
            *_words("E2_HIGHCPU_8 E2_HIGHCPU_32 E2_MEDIUM", 5),
            ("E2_STANDARD_2", 11),
        ],
    ),
    _enum("", "NOT_VERIFIED", [("VERIFIED", 1), ("BEST_EFFORT", 3)]),
    _enum(
        "",
        "STAGE_UNSPECIFIED",
        [*_words("PENDING_CREATE_APP PENDING_USER_OAUTH PENDING_INSTALL_APP", 1), ("COMPLETE", 10)],
    ),
    # google.cloud.run.v2.Condition.CommonReason
    _enum(
        "",
        "COMMON_REASON_UNDEFINED",
        [
            ("UNKNOWN", 1),
            *_words("REVISION_FAILED PROGRESS_DEADLINE_EXCEEDED", 3),
            *_words(
                "CONTAINER_MISSING CONTAINER_PERMISSION_DENIED CONTAINER_IMAGE_UNAUTHORIZED "
                "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED ENCRYPTION_KEY_PERMISSION_DENIED "
                "ENCRYPTION_KEY_CHECK_FAILED SECRETS_ACCESS_CHECK_FAILED WAITING_FOR_OPERATION IMMEDIATE_RETRY "
                "POSTPONED_RETRY INTERNAL VPC_NETWORK_NOT_FOUND",
                6,
            ),
        ],
    ),
    # google.cloud.alloydb.v1.UpgradeClusterResponse.Status
    _enum(
        "",
        "STATUS_UNSPECIFIED",
        _words("SUCCESS FAILED PARTIAL_SUCCESS NOT_STARTED IN_PROGRESS CANCEL_IN_PROGRESS CANCELLED", 1),
    ),
)
