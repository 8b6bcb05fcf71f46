"""What rules may know of Google Cloud beyond the document: read by whoever runs them, and handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.rules.constraints import Policy


@dataclass(frozen=True)
class LiveFacts:
    """Facts by name; None: not read, and the rules that need it are not judged.

    Bodies are in the JSON of Google's REST interface. An empty body says that there is no such resource yet.
    """

    accelerator_types: Mapping[str, frozenset[str]] | None = None
    """Zone -> names of accelerator types: compute.v1 ``acceleratorTypes.aggregatedList``."""
    machine_types: Mapping[str, frozenset[str]] | None = None
    """Zone -> names of machine types: compute.v1 ``machineTypes.aggregatedList``."""
    quota_left: Mapping[str, float] | None = None
    """Metric -> limit less usage, of ``regions.primary`` and project-wide: compute.v1 ``regions``, ``projects.get``."""
    policies: Mapping[str, Policy] | None = None
    """Constraint without ``constraints/`` -> effective policy: orgpolicy.v2 ``policies.getEffectivePolicy``."""
    database_flags: Mapping[str, Mapping[str, Any]] | None = None
    """Flag -> SupportedDatabaseFlag, for the version planned: alloydb.v1 ``supportedDatabaseFlags.list``."""
    max_connections: int | None = None
    """``SHOW max_connections`` of the database."""
    workstation_cluster: Mapping[str, Any] | None = None
    """The cluster ``workstations.cluster`` as it is."""
    workstation_configuration: Mapping[str, Any] | None = None
    """The configuration ``workstations.configuration`` as it is."""
    gateway: Mapping[str, Any] | None = None
    """The API Gateway as it is."""
    api_configuration: Mapping[str, Any] | None = None
    """The configuration that the gateway serves."""
