"""The metadata server: gives a container the tokens of its service account, as Compute Engine's does.

Each revision has a secret path of its own, so that no other program gets its tokens by calling the port.
https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass

from aiohttp import web

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.control_calls import ControlFault
from orchestra_lib.local.run.control_client import ControlClient, Revision
from orchestra_lib.local.run.probes import HOST

_FLAVOR = {"Metadata-Flavor": "Google"}
_ROOT = "computeMetadata/v1"
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_RENEWED_SECONDS = 300
"""A token that is good for less is not given out any more."""


@dataclass(frozen=True)
class _Tenant:
    """Who asks: what a revision runs as, and where."""

    email: str
    project: str
    project_number: str
    region: str


class MetadataServer:
    """One listener for all revisions; :meth:`host_for` gives what a container calls."""

    def __init__(self, control: ControlClient) -> None:
        self._control = control
        self._tenants: dict[str, _Tenant] = {}
        self._secrets: dict[_Tenant, str] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self._runner: web.ServerRunner | None = None
        self._port = 0

    async def open(self) -> None:
        """Listen on a free port."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    def host_for(self, revision: Revision, project_number: str) -> str:
        """What ``GCE_METADATA_HOST`` is for the instances of a revision."""
        parts = revision.service.split("/")
        tenant = _Tenant(revision.service_account, parts[1], project_number, parts[3])
        path = self._secrets.setdefault(tenant, secrets.token_urlsafe(24))
        self._tenants[path] = tenant
        return f"{HOST}:{self._port}/{path}"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, rest = request.path.lstrip("/").partition("/")
        tenant = self._tenants.get(path)
        if tenant is None:
            return web.Response(status=404)
        if rest.strip("/") == "":
            return web.Response(headers=_FLAVOR)
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, text="Missing Metadata-Flavor:Google header.", headers=_FLAVOR)
        try:
            found = await self._found(tenant, rest.strip("/").removeprefix(_ROOT).strip("/"), request)
        except (ControlFault, TargetUnreachable) as error:
            return web.Response(status=404, text=str(error), headers=_FLAVOR)
        if found is None:
            return web.Response(status=404, headers=_FLAVOR)
        kind = "application/json" if found.startswith("{") else "application/text"
        return web.Response(text=found, content_type=kind, headers=_FLAVOR)

    async def _found(self, tenant: _Tenant, what: str, request: web.BaseRequest) -> str | None:
        plain = {
            "": "instance/\nproject/\n",
            "project/project-id": tenant.project,
            "project/numeric-project-id": tenant.project_number,
            "instance/region": f"projects/{tenant.project_number}/regions/{tenant.region}",
            "instance/zone": f"projects/{tenant.project_number}/zones/{tenant.region}-1",
            "universe/universe-domain": "googleapis.com",
            "instance/service-accounts": f"default/\n{tenant.email}/\n",
        }
        if what in plain:
            return plain[what]
        account, _, asked = what.removeprefix("instance/service-accounts/").partition("/")
        if account not in ("default", tenant.email):
            return None
        if asked == "":
            return json.dumps({"aliases": ["default"], "email": tenant.email, "scopes": list(_SCOPES)})
        if asked in ("email", "scopes"):
            return tenant.email if asked == "email" else "\n".join(_SCOPES)
        if asked == "token":
            token, seconds = await self._access_token(tenant.email)
            return json.dumps({"access_token": token, "expires_in": seconds, "token_type": "Bearer"})
        audience = request.query.get("audience", "")
        if asked == "identity" and audience:
            return await asyncio.to_thread(self._control.id_token, tenant.email, audience)
        return None

    async def _access_token(self, email: str) -> tuple[str, int]:
        token, until = self._tokens.get(email, ("", 0.0))
        if until - time.time() < _RENEWED_SECONDS:
            token, seconds = await asyncio.to_thread(self._control.access_token, email)
            until = time.time() + seconds
            self._tokens[email] = (token, until)
        return token, int(until - time.time())
