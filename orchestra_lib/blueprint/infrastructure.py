"""Phase 1: project, identities, network, logging, monitoring, alerting, and the way in for GitHub's workflow."""

from __future__ import annotations

from orchestra_lib.blueprint.delivery import delivery
from orchestra_lib.blueprint.identities import identities
from orchestra_lib.blueprint.network import network
from orchestra_lib.blueprint.observability import observability
from orchestra_lib.blueprint.specification import Specification, specification
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.settings import Settings


def infrastructure(settings: Settings) -> list[Resource]:
    """Everything that phase 1 wants to exist, in an order that can be read; ``needs`` say what has to come first.

    Raises ParameterError, in one line, for what the settings lack or leave open.
    """
    spec = specification(settings)
    return [
        spec.project_resource,
        spec.billing_resource,
        *_services(spec),
        *network(spec),
        *identities(spec),
        *delivery(spec),
        *observability(spec),
    ]


def _services(spec: Specification) -> list[Resource]:
    """The APIs of all phases. They cost nothing until they are called, and may take minutes to come up."""
    services = spec.services
    names = (
        *services.infrastructure,
        *services.workstations,
        *services.memory,
        *services.assistant,
        *services.api,
        *services.validation,
    )
    return [spec.service(f"{name}.googleapis.com") for name in dict.fromkeys(names)]
