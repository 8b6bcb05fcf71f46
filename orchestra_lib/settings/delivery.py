"""The settings of how code gets to Google Cloud: the repository on GitHub, images, and the names of secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints, model_validator

from orchestra_lib.settings.base import Model

# Workload Identity Federation refuses a longer subject (descriptor of iam.v1, attributeMapping).
_LONGEST_SUBJECT_BYTES = 127

NumericId = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,18}$")]
SecretId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,255}$")]


class GitHub(Model):
    """The repository whose workflow may deploy, by number: a name can be taken over, its number cannot.

    The numbers are texts, and None until they are looked up: phase 1 asks for them. ``connected_repository`` is the
    name that the repository has in Cloud Build once a person has connected it there.
    """

    owner: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](-?[A-Za-z0-9]){0,38}$")]
    owner_id: NumericId | None
    repository: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    repository_id: NumericId | None
    branch: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,100}$")]
    connected_repository: (
        Annotated[
            str, StringConstraints(pattern=r"^projects/[^/]+/locations/[^/]+/connections/[^/]+/repositories/[^/]+$")
        ]
        | None
    )

    @model_validator(mode="after")
    def _subject_fits(self) -> GitHub:
        subject = f"repo:{self.owner}/{self.repository}:ref:refs/heads/{self.branch}"
        if len(subject) > _LONGEST_SUBJECT_BYTES:
            raise ValueError(
                f"the token's subject {subject} has {len(subject)} bytes, the federation takes "
                f"{_LONGEST_SUBJECT_BYTES}: choose a shorter branch or repository name"
            )
        return self


class Registry(Model):
    """The repository of container images."""

    repository: Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Secrets(Model):
    """The names of the secrets. Their values are set by people and stand nowhere in this project."""

    source_dsn: SecretId
    memory_endpoint: SecretId
