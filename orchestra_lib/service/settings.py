"""What the service is told by its environment: variables ``ORCHESTRA_API_…`` and Cloud Run's ``PORT``.

One table of settings, each with its limits; a name that is none of them stops the start, because a limit that was
misspelt would be no limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.schema import DIMENSION
from orchestra_lib.secret import Secret

PREFIX = "ORCHESTRA_API_"
SHARE_OF_CONNECTIONS = 0.8
"""What all instances together may use of the server's connections: the rest is for who repairs it."""
_RESERVED_SECONDS = 2.0  # of Cloud Run's ten between SIGTERM and SIGKILL, for closing what is open

Instance = Annotated[str, StringConstraints(pattern=r"^projects/[^/]+/locations/[^/]+/clusters/[^/]+/instances/[^/]+$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]


class ServiceSettings(BaseModel):
    """Every setting of the service. Where the database is, is either a ``dsn`` or an ``instance`` of AlloyDB.

    Who calls is told by tokens of a file (``tokens_file``), or by signed tokens of an issuer (``jwt_…``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_080

    dsn: Secret | None = None
    instance: Instance | None = None
    database: str = "postgres"
    database_user: str | None = None
    role: Identifier = "orchestra_memory_api"
    table: Identifier = "memories"
    dimension: Annotated[int, Field(ge=1, le=16_000)] = DIMENSION

    pool_min: Annotated[int, Field(ge=1, le=200)] = 2
    pool_max: Annotated[int, Field(ge=1, le=200)] = 8
    max_instances: Annotated[int, Field(ge=1, le=1_000)] = 1
    pool_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    statement_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_recovery_seconds: Annotated[float, Field(gt=0)] = 2.0

    max_in_flight: Annotated[int, Field(ge=1, le=1_000)] = 72
    """Less than Cloud Run's concurrency, which is 80 where nobody says otherwise: an instance is never given more than
    that, so a limit that is as high refuses nobody, and what is too much waits in Cloud Run's queue instead."""
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 1 << 20
    retry_after_seconds: Annotated[int, Field(ge=1)] = 1
    shutdown_seconds: Annotated[float, Field(gt=0)] = 10.0 - _RESERVED_SECONDS

    tools: bool = False
    """Whether coding assistants find the memory's tools at ``/mcp``. Their protocol's package doubles a cold start."""

    tokens_file: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_certificates_url: Annotated[str, StringConstraints(pattern=r"^(https://|http://127\.0\.0\.1:)")] | None = None
    jwt_user_claim: str = "email"

    @model_validator(mode="after")
    def _one_database(self) -> ServiceSettings:
        if (self.dsn is None) == (self.instance is None):
            raise ValueError(f"name one database: {PREFIX}DSN or {PREFIX}INSTANCE")
        if self.instance and not self.database_user:
            raise ValueError(f"{PREFIX}INSTANCE needs {PREFIX}DATABASE_USER, who logs in by IAM")
        return self

    @model_validator(mode="after")
    def _one_way_to_know_callers(self) -> ServiceSettings:
        signed = (self.jwt_issuer, self.jwt_audience, self.jwt_certificates_url)
        if any(signed) and not all(signed):
            raise ValueError(f"signed tokens need {PREFIX}JWT_ISSUER, _JWT_AUDIENCE and _JWT_CERTIFICATES_URL")
        if self.tokens_file and any(signed):
            raise ValueError(f"name one way to know who calls: {PREFIX}TOKENS_FILE, or {PREFIX}JWT_ISSUER and the rest")
        return self

    @model_validator(mode="after")
    def _pool_in_order(self) -> ServiceSettings:
        if self.pool_min > self.pool_max:
            raise ValueError(f"pool_min {self.pool_min} is more than pool_max {self.pool_max}")
        return self


def from_environment(environment: Mapping[str, str]) -> ServiceSettings:
    """The settings that the environment states. Raises ParameterError with the variable and what is wrong with it."""
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    if "PORT" in environment:
        given["port"] = environment["PORT"]
    try:
        return ServiceSettings.model_validate(given)
    except ValidationError as error:
        raise ParameterError("; ".join(_told(one["loc"], one["msg"]) for one in error.errors())) from None


def _told(place: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ")
    if not place:
        return said
    name = "PORT" if place[0] == "port" else f"{PREFIX}{str(place[0]).upper()}"
    known = ", ".join(sorted(PREFIX + one.upper() for one in ServiceSettings.model_fields))
    return f"{name}: there is no such setting; there are {known}" if "Extra inputs" in said else f"{name}: {said}"
