"""From an HTTP request to a call and back: which service is meant, what the body holds, how the answer is written."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from orchestra_lib.local import id_tokens
from orchestra_lib.local.control import checks, injected, masks
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.catalog import Method
from orchestra_lib.local.control.control import ControlPlane
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.injected import Injected

# alloydb.googleapis.com, alloydb.mtls.googleapis.com, us-central1-aiplatform.googleapis.com,
# aiplatform.us-central1.rep.googleapis.com
_HOST = re.compile(r"^(?:[a-z]+-[a-z]+\d+-)?([a-z]+)(?:\.mtls|\.[a-z]+-[a-z]+\d+\.rep)?\.googleapis\.com(?::\d+)?$")
_LOCAL = "_local"
_CERTIFICATES = "/oauth2/v1/certs"
"""Where whoever checks identity tokens finds what verifies them, as at www.googleapis.com: public, without a token."""
# The generated REST client of AI Platform asks for operations below /ui/ instead of /v1/.
_PREFIX_ALIASES = {("aiplatform", "ui"): "v1"}
_SYSTEM_PARAMETERS = frozenset({"$alt", "$.xgafv", "$prettyPrint", "$fields", "$key", "$userProject", "userProject"})


class ConnectionDropped(Exception):
    """The test wants this connection to end without an answer."""


@dataclass(frozen=True)
class Request:
    """One HTTP request. ``path`` as it came, percent-encoded; header names in lower case."""

    http_method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: JSON."""

    status: int
    body: dict[str, Any]


def answer(control: ControlPlane, request: Request) -> Answer:
    """Serve one request. Raises ConnectionDropped when a test wants that."""
    service = ""
    request = _as_meant(request)
    try:
        if (request.http_method, request.path) == ("GET", _CERTIFICATES):
            return Answer(200, dict(id_tokens.certificates(control.directory)))
        now = control.clock()
        caller = control.tokens.caller(request.headers.get("authorization"), now)
        if request.path.startswith(f"/{_LOCAL}/"):
            return _local(control, request, caller)
        service, method, path = _routed(control, request)
        return Answer(200, _served(control, request, service, method, path, caller, now))
    except Fault as fault:
        return Answer(fault.http_status, fault.body(service))


def _as_meant(request: Request) -> Request:
    """A GET whose query was too long for a URL comes as a POST that says so, the query in its body."""
    meant = request.headers.get("x-http-method-override")
    if meant is None:
        return request
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return replace(request, http_method=meant, query=request.body.decode("latin-1"), body=b"")
    return replace(request, http_method=meant)


def _served(
    control: ControlPlane, request: Request, service: str, method: Method, path: str, caller: str, now: float
) -> dict[str, Any]:
    injected_fault = control.take_fault(method.id, service)
    if isinstance(injected_fault, Fault):
        raise injected_fault
    if injected_fault == injected.DROP_BEFORE:
        raise ConnectionDropped
    repeated, fields = _query(method, request.query)
    call = Call(
        method=method,
        path=path,
        query={name: values[-1] for name, values in repeated.items()},
        body=_body(control, method, request.body, fields),
        caller=caller,
        control=control,
        now=now,
        repeated=repeated,
    )
    control.settle(now)
    result = control.run(call)
    if injected_fault == injected.DROP_AFTER:
        raise ConnectionDropped
    return result


# --- routing ------------------------------------------------------------------------------------------------------


def _routed(control: ControlPlane, request: Request) -> tuple[str, Method, str]:
    """The service, the method and the resource path. Raises Fault (404) for what is no method."""
    segments = tuple(urllib.parse.unquote(part) for part in request.path.split("/") if part)
    for service, own in _candidates(control, request.headers.get("host", ""), segments):
        alias = _PREFIX_ALIASES.get((service, own[0])) if own else None
        found = control.catalog.find(service, request.http_method, (alias, *own[1:]) if alias else own)
        if found:
            method, path = found
            # Compute writes its verbs as the last segment: what they are about is what stands before.
            if method.template[-1:] == (method.name,) and len(method.template) > 1:
                path = path.rpartition("/")[0]
            return service, method, path
    raise Fault("NOT_FOUND", "Method not found.")


def _candidates(control: ControlPlane, host: str, segments: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """(service, its path) as the host says it, or as a prefix of the path says it."""
    named = _HOST.match(host)
    if named:
        if named[1] in control.catalog.services:
            return [(named[1], segments)]
        if named[1] != "www":
            raise Fault("NOT_FOUND", f"The local Google Cloud does not serve {host}.")
    if not segments or segments[0] not in control.catalog.services:
        return []
    # Compute's own paths begin with the service's name, so a prefix may stand before it or not.
    return [(segments[0], segments[1:]), (segments[0], segments)]


# --- query and body -----------------------------------------------------------------------------------------------


def _query(method: Method, text: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The query by parameter, and what in it are fields of the request message.

    Raises Fault (400) for a parameter that the method does not have, or lacks.
    """
    result: dict[str, list[str]] = {}
    fields: dict[str, str] = {}
    message = method.api.schema(method.request).properties if method.request else {}
    known = method.query_parameters | method.api.parameters | _SYSTEM_PARAMETERS
    for name, value in urllib.parse.parse_qsl(text, keep_blank_values=True):
        own = name if name in known else masks.camel(name)
        if own not in known and message.get(own) and message[own].schema.get("type") == "string":
            fields[own] = value
            continue
        if own not in known:
            words = f"Cannot bind query parameter. Field '{name}' could not be found in request message."
            raise bad_field("", f'Invalid JSON payload received. Unknown name "{name}": {words}')
        checks.check_parameter(method, own, value)
        result.setdefault(own, []).append(value)
    for name in method.query_parameters:
        if method.parameters[name].get("required") and name not in result:
            raise bad_field(name, f"Required parameter '{name}' is missing from the request.")
    return result, fields


def _body(control: ControlPlane, method: Method, raw: bytes, in_query: Mapping[str, str]) -> Any:
    """The body in normal form, with fields of the message that stand in the query; bytes where any content is taken."""
    if method.request is None:
        return None
    if method.request.endswith("HttpBody"):
        return raw
    try:
        given = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise bad_field("", f"Invalid JSON payload received. {error}") from None
    if isinstance(given, dict):
        # The front end takes the fields that the path holds in the body, too.
        own = method.api.schema(method.request).by_camel_name
        given = {name: value for name, value in given.items() if name in own or name not in method.path_parameters}
    keep_null = control.services[method.api.service].merge_patch and method.http_method == "PATCH"
    return {**checks.clean(method.api, method.request, given, keep_null=keep_null), **in_query}


# --- the endpoints that Google Cloud does not have ----------------------------------------------------------------


def _local(control: ControlPlane, request: Request, caller: str) -> Answer:
    """``GET /_local/caller``: whose token this is. For the operator: ``GET /_local/state``, what there is,
    ``POST /_local/faults``, what is to go wrong from now on, and ``/_local/<service>`` for its data plane."""
    what = (request.http_method, request.path.removeprefix(f"/{_LOCAL}/"))
    if what == ("GET", "caller"):
        return Answer(200, {"email": caller})
    if caller != control.organization.operator:
        raise Fault("PERMISSION_DENIED", f"The caller {caller} is not the operator of the local Google Cloud.")
    if what == ("GET", "state"):
        return Answer(200, control.state())
    if what == ("POST", "faults"):
        try:
            wanted = Injected.model_validate_json(request.body or b"{}")
        except ValidationError as error:
            raise bad_field("", f"These faults cannot be set: {error}") from None
        control.inject(wanted)
        return Answer(200, wanted.model_dump())
    told = control.exchange(what[1], what[0], json.loads(request.body or b"{}"))
    if told is not None:
        return Answer(200, told)
    raise Fault("NOT_FOUND", f"There is no {request.http_method} {request.path}.")
