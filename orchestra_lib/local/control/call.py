"""One request on its way through the control plane."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control.catalog import Api, Method

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.kinds import Kind, Service

_PACIFIC = timezone(timedelta(hours=-8))


@dataclass
class Call:
    """A request that was matched to a method. ``path`` has the project's id wherever the caller gave its number.

    ``body`` is in normal form (see ``checks.clean``), ``caller`` an e-mail address, ``now`` seconds since 1970.
    """

    method: Method
    path: str
    query: dict[str, str]
    body: Any
    caller: str
    control: ControlPlane
    now: float
    repeated: Mapping[str, list[str]] = field(default_factory=dict)
    """Every value of each query parameter."""

    @property
    def api(self) -> Api:
        """The document that the method is from."""
        return self.method.api

    @property
    def service(self) -> str:
        """``alloydb``."""
        return self.method.api.service

    @property
    def rows(self) -> Service:
        """What the service does beyond the standard methods."""
        return self.control.services[self.service]

    @property
    def key(self) -> str:
        """The store's key of the path."""
        return f"{self.service}/{self.path}"

    @property
    def kind(self) -> Kind:
        """The row of the resource that the path names."""
        return self.control.kind(self.key)

    @property
    def segments(self) -> list[str]:
        """The path's parts."""
        return self.path.split("/")

    @property
    def project(self) -> str | None:
        """The id of the project in the path, if there is one."""
        return project_in(self.path)

    @property
    def location(self) -> str:
        """The region, zone or location in the path; ``global`` if there is none."""
        return self._after("locations") or self._after("regions") or self._after("zones") or "global"

    def _after(self, word: str) -> str | None:
        parts = self.segments
        return parts[parts.index(word) + 1] if word in parts[:-1] else None

    @property
    def project_number(self) -> str:
        """The number of the path's project, as text; empty without one."""
        return self.control.projects.number(self.project) if self.project else ""

    @property
    def time(self) -> str:
        """Now, as the API writes it."""
        return timestamp(self.now)

    def flag(self, name: str) -> bool:
        """A boolean that stands in the query or in a request message."""
        in_body = self.body.get(name) if isinstance(self.body, dict) else None
        return self.query.get(name, "").lower() in ("true", "1") or in_body is True

    @cached_property
    def validate_only(self) -> bool:
        """Whether the call asks to be checked and not carried out."""
        return self.flag("validateOnly")

    @property
    def enums_as_numbers(self) -> bool:
        """Whether the client asked for enums as numbers, as the generated REST clients do."""
        return "enum-encoding=int" in self.query.get("$alt", "")


def project_position(parts: list[str]) -> int | None:
    """Where in a path's parts the project stands; None if none owns the resource."""
    # A metrics scope lists projects that it does not own: locations/global/metricsScopes/s/projects/p.
    if "projects" not in parts[:-1] or parts[0] in ("locations", "billingAccounts"):
        return None
    return parts.index("projects") + 1


def project_in(path: str) -> str | None:
    """The project in a path, as it stands there; None without one or with ``-`` for any."""
    parts = path.split("/")
    position = project_position(parts)
    return parts[position] if position and parts[position] != "-" else None


def timestamp(at: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def compute_timestamp(at: float) -> str:
    """As compute writes it: with milliseconds and the offset of its home."""
    return datetime.fromtimestamp(at, _PACIFIC).isoformat(timespec="milliseconds")


def digits(text: str, length: int) -> str:
    """A number of that many digits that depends on the text alone and does not start with zero."""
    value = zlib.crc32(text.encode()) * 2654435761 + zlib.crc32(text[::-1].encode())
    return str(10 ** (length - 1) + value % (9 * 10 ** (length - 1)))
