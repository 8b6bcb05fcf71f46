"""Phase 4: who may use Code Assist, and what the assistant runs with, kept where every other part can read it.

What it runs with is not secret. It lies in Secret Manager as the annotations of a secret without a value: they are
meant for state that tools keep, can be changed in place and are journalled. So a rollback brings the old ones back.
https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra_lib.assistant.code_assist import USER_ROLES
from orchestra_lib.assistant.prompt import load_prompt
from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.foundation import foundation
from orchestra_lib.blueprint.specification import Specification, specification
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings
from orchestra_lib.settings.assistant import Assistant

KIND = "assistant settings"

_MOST_BYTES = 16_384  # of all annotations together, as the API's document says


@dataclass(frozen=True)
class Earned:
    """What the measurement chose for the context: its budget in tokens, and the order of its items."""

    context_tokens: int
    order: str


@dataclass(frozen=True)
class AssistantPlan:
    """What phase 4 wants, and what it stands on: ``foundation`` is phase 1's, as phase 1 wants it.

    ``access`` is known from the start, ``in_force`` once the context's budget is earned.
    """

    access: tuple[Resource, ...]
    in_force: tuple[Resource, ...]
    foundation: tuple[Resource, ...]

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that the phase makes."""
        return (*self.access, *self.in_force)


def assistant(settings: Settings, earned: Earned | None = None) -> AssistantPlan:
    """Everything that phase 4 wants to exist. Raises ParameterError for what the settings lack or leave open."""
    spec, wanted = specification(settings), section(settings)
    emails = settings.developers.emails if settings.developers else None
    if emails is None:
        raise ParameterError(
            f"environment {settings.environment.name} leaves open what only its owner can say: developers.emails (the "
            "addresses of those who use the assistant; [] for nobody)"
        )
    access = tuple(_grant(spec, f"user:{email}", role) for email in emails for role in USER_ROLES)
    kept = _settings_resource(spec, wanted, settings_in_force(wanted, earned))
    reads = spec.resource(
        "secret roles",
        f"{spec.project_path}/secrets/{kept.id}",
        identities.member(spec, identities.API),
        {"roles": ["roles/secretmanager.viewer"]},  # annotations, and no value of any secret
        (kept.key, identities.account(spec, identities.API).key),
    )
    services = [spec.service(f"{name}.googleapis.com").key for name in spec.services.assistant]
    return AssistantPlan(access, (kept, reads), foundation(settings, (*access, kept, reads), services))


def section(settings: Settings) -> Assistant:
    """The assistant's section. Raises ParameterError where there is none."""
    if settings.assistant is None:
        raise ParameterError(f"environment {settings.environment.name} has no section assistant")
    return settings.assistant


def settings_in_force(wanted: Assistant, earned: Earned | None) -> Mapping[str, str]:
    """What the assistant runs with, as it is kept. A setting that is not sent is not there."""
    values: dict[str, object] = {
        "model": wanted.model,
        "location": wanted.location,
        "temperature": wanted.temperature,
        "thinking-level": wanted.thinking_level,
        "max-output-tokens": wanted.max_output_tokens,
        "context-candidates": wanted.context.candidates,
        "context-tokens": earned.context_tokens if earned else wanted.context.tokens,
        "context-order": earned.order if earned else None,
        "prompt": load_prompt(wanted.prompt).version,
        "embedding-model": wanted.embedding_model,
        "embedding-dimension": wanted.embedding_dimension,
    }
    told = {name: str(value) for name, value in values.items() if value is not None}
    if sum(len(name.encode()) + len(value.encode()) for name, value in told.items()) > _MOST_BYTES:
        raise ParameterError(f"the assistant's settings have more than {_MOST_BYTES:,} bytes; shorten their texts")
    return told


def _grant(spec: Specification, member: str, role: str) -> Resource:
    """One role of a person. Which others they hold is their owner's business: they are left alone."""
    return spec.resource("grant", spec.project_path, f"{role} {member}", {"member": member, "role": role})


def _settings_resource(spec: Specification, wanted: Assistant, values: Mapping[str, str]) -> Resource:
    body = {"replication": {"automatic": {}}, "labels": dict(spec.labels), "annotations": dict(values)}
    return spec.resource(KIND, spec.project_path, wanted.settings_resource, body)
