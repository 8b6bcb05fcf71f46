"""The settings of the preflight: whether it asks Google Cloud, and which findings are planted for it to find."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, model_validator

from orchestra_lib.settings.base import Model, split_names

FindingName = Literal[
    "billing",
    "permission",
    "policy_accounts",
    "policy_issuers",
    "policy_locations",
    "policy_members",
    "policy_peering",
    "policy_services",
    "quota",
    "service",
    "vertex",
]
FINDING_NAMES: tuple[FindingName, ...] = get_args(FindingName)
"""What can be planted on the local target; ``orchestra_lib.preflight.planted`` says what each of them is."""


class Preflight(Model):
    """``offline``: judge the parameter file alone, without credentials. ``findings``: planted on the local target."""

    offline: bool = False
    findings: Annotated[tuple[FindingName, ...], BeforeValidator(split_names)] = ()

    @model_validator(mode="after")
    def _asks_whom_it_plants_on(self) -> Preflight:
        if self.offline and self.findings:
            raise ValueError(
                f"findings {', '.join(self.findings)} are planted on the local target, and offline asks nobody: "
                "give one or the other"
            )
        return self
