"""What each service does beyond the standard methods."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra_lib.local.control.kinds import Service
from orchestra_lib.local.control.services import (
    aiplatform,
    alloydb,
    apigateway,
    artifactregistry,
    billingbudgets,
    cloudbilling,
    cloudbuild,
    cloudresourcemanager,
    compute,
    iam,
    iamcredentials,
    logging,
    monitoring,
    networkconnectivity,
    orgpolicy,
    run,
    secretmanager,
    servicenetworking,
    serviceusage,
    workstations,
)

_MODULES = (
    aiplatform,
    alloydb,
    apigateway,
    artifactregistry,
    billingbudgets,
    cloudbilling,
    cloudbuild,
    cloudresourcemanager,
    compute,
    iam,
    iamcredentials,
    logging,
    monitoring,
    networkconnectivity,
    orgpolicy,
    run,
    secretmanager,
    servicenetworking,
    serviceusage,
    workstations,
)
SERVICES: Mapping[str, Service] = {module.SERVICE.name: module.SERVICE for module in _MODULES}
"""The services by name (``alloydb``)."""

__all__ = ["SERVICES"]
