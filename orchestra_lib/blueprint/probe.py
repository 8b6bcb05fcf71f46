"""Phase 5: the account that asks the memory API as its users do, so that a revision can be judged before they see it.

Whoever runs the phase may have identity tokens made for it, and nobody has its key.
https://cloud.google.com/iam/docs/create-short-lived-credentials-direct#sa-credentials-oidc
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.blueprint.api import path_of
from orchestra_lib.blueprint.foundation import foundation
from orchestra_lib.blueprint.identities import member
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.settings import Settings

PROBE = "orchestra-probe"
"""The account's id; its address is the user whose memories the API then shows."""

_PURPOSE = "Asks the memory API as its users do; what it remembers is synthetic"
_INVOKER = "roles/run.invoker"
_TOKENS = "roles/iam.serviceAccountOpenIdTokenCreator"
_CREDENTIALS = "iamcredentials.googleapis.com"
_SERVICE_ACCOUNT_END = ".gserviceaccount.com"


@dataclass(frozen=True)
class ProbePlan:
    """The account with its roles, and what of phase 1 it stands on."""

    resources: tuple[Resource, ...]
    foundation: tuple[Resource, ...]


def probe(settings: Settings, service: Resource, operator: str) -> ProbePlan:
    """The probe of a Run service. ``operator`` is the address of who runs the phase.

    Raises ParameterError for what the settings lack or leave open.
    """
    spec = specification(settings)
    body = {"displayName": "Orchestra probe", "description": _PURPOSE}
    account = spec.resource("service account", spec.project_path, PROBE, body)
    resources = (
        account,
        spec.resource(
            "run service roles",
            path_of(service),
            member(spec, PROBE),
            {"roles": [_INVOKER]},
            (service.key, account.key),
        ),
        spec.resource(
            "service account roles",
            spec.account_path(PROBE),
            _principal(operator),
            {"roles": [_TOKENS]},
            (account.key, spec.service(_CREDENTIALS).key),
        ),
    )
    return ProbePlan(resources, foundation(settings, resources))


def _principal(email: str) -> str:
    """How a policy names somebody by their address."""
    return f"{'serviceAccount' if email.endswith(_SERVICE_ACCOUNT_END) else 'user'}:{email}"
