"""The door of the connector's admin client: gRPC over TLS, two methods, each answered by the REST control plane.

The connector asks AlloyDB's admin service for an instance's address and for a client certificate, and its client
speaks gRPC only. The door keeps nothing: it passes on the call with the caller's own token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.cloud.alloydb_v1beta.types import (
    ConnectionInfo,
    GenerateClientCertificateRequest,
    GenerateClientCertificateResponse,
    GetConnectionInfoRequest,
)

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb.authority import ServerCertificate
from orchestra_lib.local.alloydb.control_client import API, ControlClient
from orchestra_lib.local.control_calls import ControlFault

HOST = "127.0.0.1"
_SERVICE = "google.cloud.alloydb.v1beta.AlloyDBAdmin"
"""The version that the connector speaks."""
_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class _Method:
    """One gRPC method and its REST form; what stands in ``path`` comes after the request's parent."""

    request: Any
    response: Any
    http_method: str
    path: str
    leads_to_listener: bool = False
    """Whether the caller connects next, so that somebody has to listen when it has the answer."""


_METHODS = {
    "GetConnectionInfo": _Method(
        GetConnectionInfoRequest, ConnectionInfo, "GET", "/connectionInfo", leads_to_listener=True
    ),
    "GenerateClientCertificate": _Method(
        GenerateClientCertificateRequest, GenerateClientCertificateResponse, "POST", ":generateClientCertificate"
    ),
}


class AdminDoor:
    """The listening door. ``listen`` is awaited with the name of the instance that a caller connects to next."""

    def __init__(
        self, control: ControlClient, certificate: ServerCertificate, listen: Callable[[str], Awaitable[None]]
    ) -> None:
        self._control = control
        self._listen = listen
        self._server = grpc.aio.server()
        handlers = {name: self._handler(method) for name, method in _METHODS.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        pair = (certificate.key.read_bytes(), certificate.certificate.read_bytes())
        self._credentials = grpc.ssl_server_credentials([pair])

    async def open(self, port: int) -> int:
        """Listen on that port, or on any free one if it is 0 or taken; returns the port."""
        found = self._bind(port) or self._bind(0)
        await self._server.start()
        return found

    async def close(self) -> None:
        """Stop listening; calls under way may end."""
        await self._server.stop(_GRACE_SECONDS)

    def _bind(self, port: int) -> int:
        try:
            return int(self._server.add_secure_port(f"{HOST}:{port}", self._credentials))
        except RuntimeError:
            if port == 0:
                raise
            return 0

    def _handler(self, method: _Method) -> grpc.RpcMethodHandler:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await self._answer(method, request, _authorization(context))
            except ControlFault as fault:
                await context.abort(grpc.StatusCode[fault.status], fault.message)
            except TargetUnreachable as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=method.request.deserialize,
            response_serializer=method.response.serialize,
        )

    async def _answer(self, method: _Method, request: Any, token: str) -> Any:
        body = json.loads(method.request.to_json(request, including_default_value_fields=False))
        parent = body.pop("parent", "")
        answer = await asyncio.to_thread(
            self._control.call,
            method.http_method,
            f"{API}/{parent}{method.path}",
            body=None if method.http_method == "GET" else body,
            token=token,
        )
        if method.leads_to_listener:
            await self._listen(parent)
        return method.response.from_json(json.dumps(answer), ignore_unknown_fields=True)


def _authorization(context: grpc.aio.ServicerContext) -> str:
    """The caller's own token; empty when it sent none."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return str(value).removeprefix("Bearer ")
    return ""
