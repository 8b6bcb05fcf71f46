"""The probe of runbook 05: an account that asks the memory API as its users do, with synthetic memories of its own.

Its vectors lie between real ones, so an index answers them as it answers real ones, and nobody's memory is read. They
are put beside the others by SQL at the start of a run and deleted at its end; a run that was killed leaves them to the
next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql
from psycopg.types.json import Jsonb

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.rollout.comparison import Request, Requests

Vectors = NDArray[np.float32]

QUESTIONS = 40
_NEAR, _FAR = 0.8, 0.6  # shares of the two real vectors that a synthetic one lies between
_MEMORIES_A_SESSION = 25
_SEARCHED = 10
_PAGE = 20
_PERSONAS = ("Cherry", "Sophia")
_TOKEN_SECONDS = 3_000.0  # of the hour that one is good for
_LET_IN_SECONDS = (
    420.0  # a policy takes effect within seven minutes: https://cloud.google.com/iam/docs/access-change-propagation
)
_PAUSE_SECONDS = 0.25
_TIMEOUT_SECONDS = 30.0
_FORBIDDEN = 403
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # fixed: a page is the same page in every run


class Caller:
    """What the probe sends with a request: who it is, for Cloud Run and for the service. Tokens are kept a while."""

    def __init__(self, client: Client, email: str, audience: str) -> None:
        self._client, self._audience = client, audience
        self.email = email
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def headers(self, service_uri: str) -> Mapping[str, str]:
        """Straight to the service: Cloud Run's check reads the first, the service the second."""
        return {
            "X-Serverless-Authorization": f"Bearer {self.token(service_uri)}",
            "Authorization": f"Bearer {self.token(self._audience)}",
        }

    def gateway_headers(self) -> Mapping[str, str]:
        """Through the gateway, which has a token of its own for Cloud Run."""
        return {"Authorization": f"Bearer {self.token(self._audience)}"}

    def token(self, audience: str) -> str:
        """An identity token for an audience. Raises CloudRefused while we may not have one made."""
        with self._lock:
            token, until = self._tokens.get(audience, ("", 0.0))
            if until < time.monotonic():
                answer = self._client.call(
                    "iamcredentials.v1",
                    "iamcredentials.projects.serviceAccounts.generateIdToken",
                    f"projects/-/serviceAccounts/{self.email}:generateIdToken",
                    body={"audience": audience, "includeEmail": True},
                )
                token = str(answer["token"])
                self._tokens[audience] = (token, time.monotonic() + _TOKEN_SECONDS)
            return token

    def wait_until_let_in(self, service_uri: str) -> float:
        """Wait until policies that were just written are in effect; returns the seconds.

        Raises GateFailed when the service does not let the probe in, or is not ready.
        """
        began, told = time.monotonic(), ""
        with httpx.Client(base_url=service_uri, timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            while time.monotonic() - began < _LET_IN_SECONDS:
                try:
                    answer = http.get("/ready", headers=dict(self.headers(service_uri)))
                except CloudRefused as error:
                    if error.status != _FORBIDDEN:
                        raise
                    told = str(error)
                except httpx.HTTPError as error:
                    told = type(error).__name__
                else:
                    if answer.is_success:
                        return time.monotonic() - began
                    told = f"HTTP {answer.status_code} {answer.text[:200]}"
                time.sleep(_PAUSE_SECONDS)
        raise GateFailed(f"{service_uri}/ready does not answer the probe within {_LET_IN_SECONDS:.0f} s: {told}")


class ProbeMemories:
    """The probe's memories in a table, and what it asks."""

    def __init__(self, table: str, user: str, count: int) -> None:
        self._table, self._user, self._count = sql.Identifier(table), user, count
        self.questions: Vectors = np.empty((0, 0), np.float32)

    def put(self, session: psycopg.Connection) -> int:
        """Put them into the table, in the place of what an earlier run has left; returns how many.

        Raises DataError for a memory with too few rows to lie between.
        """
        real = self._real(session)
        memories, self.questions = self._between(real)
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            self._table,
            sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
            sql.SQL(", ").join([sql.Placeholder()] * len(COLUMNS)),
        )
        with session.transaction(), session.cursor() as cursor:
            self._delete(session)
            cursor.executemany(statement, [self._row(number, vector) for number, vector in enumerate(memories)])
        return len(memories)

    def clear(self, session: psycopg.Connection) -> int:
        """Delete them, and whatever else the probe has stored; returns how many there were."""
        with session.transaction():
            return self._delete(session)

    def left(self, session: psycopg.Connection) -> int:
        """How many there are."""
        row = session.execute(sql.SQL("SELECT count(*) FROM {} WHERE user_id = %s").format(self._table), [self._user])
        return int((row.fetchone() or (0,))[0])

    @property
    def searches(self) -> tuple[Request, ...]:
        """Searches by vector, every fourth among one session only."""
        return tuple(
            _search(vector, {"session_id": _session(number % self._sessions)} if number % 4 == 3 else {})
            for number, vector in enumerate(self.questions)
        )

    @property
    def retrievals(self) -> tuple[Request, ...]:
        """Memories by their id, conversations, and a page of the newest."""
        by_id = [{"method": "GET", "url": f"/v1/memories/{_id(number)}"} for number in range(0, self._count, 7)]
        spoken = [
            {"method": "GET", "url": f"/v1/sessions/{_session(number)}/history", "params": {"limit": _PAGE}}
            for number in range(self._sessions)
        ]
        return (*by_id, *spoken, {"method": "GET", "url": "/v1/memories", "params": {"limit": _PAGE}})

    def asked(self, headers: Any) -> Requests:
        """Both kinds in turn, for a comparison of two revisions."""
        both = [request for pair in zip(self.searches, self.retrievals, strict=False) for request in pair]
        return Requests(both, headers)

    @property
    def _sessions(self) -> int:
        return max(1, self._count // _MEMORIES_A_SESSION)

    def _real(self, session: psycopg.Connection) -> Vectors:
        """Real vectors, chosen by the hash of their id: the same in every run."""
        needed = self._count + QUESTIONS + 1
        statement = sql.SQL(
            "SELECT embedding FROM {table} JOIN (SELECT id FROM {table} WHERE user_id <> %s ORDER BY md5(id) LIMIT %s) "
            "chosen USING (id) ORDER BY md5(id)"
        ).format(table=self._table)
        found = [row[0].to_numpy() for row in session.execute(statement, [self._user, needed])]
        if len(found) < 2:
            raise DataError(
                f"the memory has {len(found)} rows of others: there is nothing that a probe could lie between"
            )
        return np.stack([found[place % len(found)] for place in range(needed)])

    def _between(self, real: Vectors) -> tuple[Vectors, Vectors]:
        mixed = _NEAR * real[:-1] + _FAR * real[1:]
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        return mixed[: self._count], mixed[self._count :]

    def _row(self, number: int, vector: Vectors) -> tuple[object, ...]:
        moment = _EPOCH + timedelta(seconds=number)
        content = f"Synthetic memory {number} of the API's probe; it lies between two others and says nothing."
        about = Jsonb({"synthetic": True, "probe": True})
        return (
            _id(number), "probe", self._user, _session(number // _MEMORIES_A_SESSION % self._sessions),
            _PERSONAS[number % len(_PERSONAS)], "probe", content, about, Vector(vector), "probe synthetic", 1, moment,
            moment, None,
        )  # fmt: skip

    def _delete(self, session: psycopg.Connection) -> int:
        statement = sql.SQL("DELETE FROM {} WHERE user_id = %s").format(self._table)
        return session.execute(statement, [self._user]).rowcount


def round_trip(http: httpx.Client, headers: Mapping[str, str], vector: Sequence[float]) -> str:
    """Store a memory, find it by its vector, read it and delete it; returns what went wrong, empty when nothing did."""
    body = {
        "agent_id": "probe", "session_id": "round-trip", "persona": "Cherry", "item_type": "probe",
        "content": "Synthetic memory of the API's probe, on its way there and back.", "metadata": {"synthetic": True},
        "embedding": list(vector), "embedding_model": "probe synthetic",
    }  # fmt: skip
    stored = http.post("/v1/memories", json=body, headers=dict(headers))
    if not stored.is_success:
        return f"store: HTTP {stored.status_code} {stored.text[:200]}"
    id_ = str(stored.json()["id"])
    search = {"embedding": list(vector), "k": 1, "filters": {"session_id": body["session_id"]}}
    found = http.post("/v1/search", json=search, headers=dict(headers))
    hits = [hit["memory"]["id"] for hit in found.json()["hits"]] if found.is_success else []
    deleted = http.delete(f"/v1/memories/{id_}", headers=dict(headers))
    gone = http.get(f"/v1/memories/{id_}", headers=dict(headers))
    if hits != [id_]:
        return f"search: HTTP {found.status_code}, found {hits} and not {id_}"
    wanted = (httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND)
    told = (deleted.status_code, gone.status_code)
    return "" if told == wanted else f"delete: HTTP {told[0]}, and then reading it HTTP {told[1]}"


def _search(vector: Vectors, filters: Mapping[str, str]) -> Request:
    return {
        "method": "POST",
        "url": "/v1/search",
        "json": {"embedding": vector.tolist(), "k": _SEARCHED, **({"filters": dict(filters)} if filters else {})},
    }


def _id(number: int) -> str:
    return f"probe:{number:05}"


def _session(number: int) -> str:
    return f"probe-{number:03}"
