"""Speaking to Google Cloud through google-api-python-client: one call, one operation, one error, retried by stamina."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import httplib2
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from orchestra_lib.cloud.discovery import Method, document, has_field, method, operation_method
from orchestra_lib.cloud.refusals import CloudRefused, failed_operation, refusal
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import TargetUnreachable

# It warns of every 403, which for us is often just the answer: what is wrong is raised, with more words.
logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)
_CALL_TIMEOUT_SECONDS = 60.0
# Operations of Google Cloud take from a second to a quarter of an hour. An eighth of the time so far between two looks
# bounds what is lost at the end to an eighth, and a second bounds it in long ones.
_SHORTEST_PAUSE_SECONDS, _PAUSE_FRACTION, _LONGEST_PAUSE_SECONDS = 0.05, 1 / 8, 1.0


class Unanswered(TargetUnreachable):
    """No answer came: the call may or may not have been carried out."""


class Interrupted(Exception):
    """Somebody asked to stop while an operation was being waited for; the operation itself goes on."""


class Client:
    """Calls of Google Cloud's REST interface by their ids, from any number of threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._services: dict[str, Any] = {}
        self._building = threading.Lock()
        self._per_thread = threading.local()

    def call(
        self,
        api: str,
        method_id: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request, once, and return the answer as JSON values.

        ``path`` is the resource's, without the API's version. Raises CloudRefused for an error answer, Unanswered when
        none came, TargetUnreachable when the credentials are refused or something else answers.
        """
        found = method(api, method_id)
        arguments = {**found.arguments(path), **(query or {}), **({} if body is None else {"body": dict(body)})}
        bound = self._service(api)
        *collections, verb = method_id.split(".")[1:]
        for collection in collections:
            bound = getattr(bound, collection)()
        what = f"{verb} {path}"
        try:
            answer = getattr(bound, verb)(**arguments).execute(http=self._http())
        except HttpError as error:
            raise refusal(what, int(error.resp.status), error.content) from None
        except GoogleAuthError as error:
            raise TargetUnreachable(f"{what}: the credentials are refused ({error}); log in again") from error
        except (OSError, requests.RequestException) as error:
            raise Unanswered(f"{what}: no answer from {self.target!r}: {error or type(error).__name__}") from error
        if not isinstance(answer, dict):
            return {}
        if found.reads_only and found.response:
            self._require_known(api, found.response, what, answer)
        return answer

    def finish(
        self,
        api: str,
        what: str,
        operation: Mapping[str, Any],
        timeout_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Wait until an operation has ended and return it.

        Raises CloudRefused when it failed, TargetUnreachable after ``timeout_seconds``, Interrupted when ``stopping``
        says so.
        """
        began = time.monotonic()
        current = dict(operation)
        while not _ended(current):
            if stopping():
                raise Interrupted(what)
            waited = time.monotonic() - began
            if waited > timeout_seconds:
                raise TargetUnreachable(
                    f"{what}: operation {operation['name']} did not end within {timeout_seconds:.0f} s; it goes on by "
                    "itself, run the notebook again later to find out how it ended"
                )
            time.sleep(min(max(waited * _PAUSE_FRACTION, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))
            current = self._look(api, current)
        if current.get("error"):
            raise failed_operation(what, current["error"])
        return current

    def _require_known(self, api: str, schema: str, what: str, answer: Mapping[str, Any]) -> None:
        """Refuse an answer that has nothing of what was asked for: what agrees to everything is no Google Cloud."""
        if answer and not any(has_field(api, schema, name) for name in answer):
            raise TargetUnreachable(
                f"{what}: {self.target!r} answered with {', '.join(sorted(answer))}, and a {schema} has none of these: "
                "what listens there is something else; check the endpoint"
            )

    def _look(self, api: str, operation: Mapping[str, Any]) -> dict[str, Any]:
        found, path = _reader(api, operation)
        try:
            return self.call(api, found.id, path)
        except (CloudRefused, Unanswered) as error:
            if isinstance(error, CloudRefused) and not error.transient:
                raise
            return dict(operation)  # asking again is harmless, and the deadline bounds it

    def _service(self, api: str) -> Any:
        with self._building:
            if api not in self._services:
                name, version = api.split(".")
                endpoint = self.target.endpoint(name, document(api)["servicePath"])
                self._services[api] = build(
                    name,
                    version,
                    http=self._http(),
                    static_discovery=True,
                    client_options={"api_endpoint": endpoint} if endpoint else None,
                )
            return self._services[api]

    def _http(self) -> _Http:
        if not hasattr(self._per_thread, "http"):
            self._per_thread.http = _Http(self.target.credentials)
        return self._per_thread.http  # type: ignore[no-any-return]


class _Http:
    """The transport of google-api-python-client over requests, one per thread.

    Its usual one, httplib2, sends a request a second time by itself when the connection drops, creations included.
    """

    def __init__(self, credentials: Any) -> None:
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
    ) -> tuple[httplib2.Response, bytes]:
        """Send once; the answer in the form that google-api-python-client expects."""
        answer = self._session.request(  # type: ignore[no-untyped-call]
            method, uri, data=body, headers=headers, timeout=_CALL_TIMEOUT_SECONDS
        )
        return httplib2.Response({**answer.headers, "status": str(answer.status_code)}), answer.content


class Snapshot:
    """A client for one look at everything: each read is sent once, whoever asks for it and however often."""

    def __init__(self, client: Client) -> None:
        self.target = client.target
        self._client = client
        self._answers: dict[tuple[str, str, str], Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def call(
        self,
        api: str,
        method_id: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """As :meth:`Client.call`, for reads only. Raises ValueError for a call that changes something."""
        if not method(api, method_id).reads_only:
            raise ValueError(f"{method_id} changes something: a snapshot only reads")
        key = (method_id, path, repr((body, sorted((query or {}).items()))))
        with self._lock:
            mine = key not in self._answers
            future = self._answers.setdefault(key, Future())
        if mine:
            try:
                future.set_result(self._client.call(api, method_id, path, body=body, query=query))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


def _ended(operation: Mapping[str, Any]) -> bool:
    return bool(operation.get("done")) or operation.get("status") == "DONE"


def _reader(api: str, operation: Mapping[str, Any]) -> tuple[Method, str]:
    """The method and the path that read an operation: compute's have a place in their link, others a full name."""
    name = str(operation["name"])
    if api.startswith("compute."):
        place = str(operation["selfLink"]).split("/compute/v1/", 1)[1]
        scope = "region" if "/regions/" in place else "zone" if "/zones/" in place else "global"
        return method(api, f"compute.{scope}Operations.get"), place
    return operation_method(api, name), name
