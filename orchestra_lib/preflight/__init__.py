"""Everything that can be known before anything is changed. Reads only."""

from orchestra_lib.preflight.check import Check, guarded, judged, missing, noted, warned
from orchestra_lib.preflight.cloud import cloud_checks
from orchestra_lib.preflight.identity import surroundings_checks
from orchestra_lib.preflight.machine import machine_checks
from orchestra_lib.preflight.parameters import open_checks, rule_checks, strategy_checks
from orchestra_lib.preflight.planted import FINDINGS, found_checks, planted
from orchestra_lib.preflight.source import source_checks

__all__ = [
    "FINDINGS",
    "Check",
    "cloud_checks",
    "found_checks",
    "guarded",
    "judged",
    "machine_checks",
    "missing",
    "noted",
    "open_checks",
    "planted",
    "rule_checks",
    "source_checks",
    "strategy_checks",
    "surroundings_checks",
    "warned",
]
