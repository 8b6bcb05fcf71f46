"""Vertex AI Vector Search through Google's own client, over a real socket: a server that finds what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import psycopg
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import MatchServiceClient
from google.cloud.aiplatform_v1.services.match_service.transports import MatchServiceRestTransport
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from stores import Pair

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.validation.vertex_search import DeployedIndex, ask
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import exact_neighbours

ROWS, QUERIES, DIMENSION, K = 300, 40, 16, 5
INDEX = DeployedIndex("projects/p/locations/us-central1/indexEndpoints/7", "orchestra")


@dataclass
class Store:
    """Rows that a server searches; of each query it leaves ``blind`` nearest out, as an index that misses them."""

    vectors: Matrix
    blind: int = 0
    refuses: bool = False
    asked: int = 0

    def neighbours(self, query: list[float], count: int) -> list[dict[str, Any]]:
        scores = self.vectors @ np.asarray(query, np.float32)
        order = np.argsort(-scores)[self.blind : self.blind + count]
        return [{"datapoint": {"datapointId": f"row-{place}"}, "distance": float(scores[place])} for place in order]


@contextmanager
def serving(store: Store) -> Iterator[MatchServiceClient]:
    """The client of a server on loopback that answers ``findNeighbors``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            store.asked += 1
            assert self.path.split("?")[0] == f"/v1/{INDEX.endpoint}:findNeighbors"
            assert body["deployedIndexId"] == INDEX.id
            (query,) = body["queries"]
            found = store.neighbours(query["datapoint"]["featureVector"], query["neighborCount"])
            refusal = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no role for this index"}}
            self._answer(403 if store.refuses else 200, refusal if store.refuses else
                         {"nearestNeighbors": [{"id": "0", "neighbors": found}]})  # fmt: skip

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host = f"127.0.0.1:{server.server_address[1]}"
    transport = MatchServiceRestTransport(host=host, credentials=AnonymousCredentials(), url_scheme="http")
    try:
        yield MatchServiceClient(transport=transport)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def rows() -> Matrix:
    found = np.random.default_rng(7).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def queries(pair: Pair, rows: Matrix) -> QuerySet:
    """Questions with their exact neighbours, as PostgreSQL's rows have them."""
    found = np.random.default_rng(8).normal(size=(QUERIES, DIMENSION)).astype(np.float32)
    vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    with psycopg.connect(pair.target, autocommit=True) as session:
        register_vector(session)
        session.execute(f"CREATE TABLE kept (id text PRIMARY KEY, embedding vector({DIMENSION}))")
        with session.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO kept VALUES (%s, %s)",
                [(f"row-{place}", Vector(vector)) for place, vector in enumerate(rows)],
            )
        truth = exact_neighbours(session, sql.Identifier("kept"), vectors, K, "vector_cosine_ops")
    return QuerySet(vectors, None, truth)


def test_an_index_that_finds_everything_has_the_recall_of_the_truth_itself(rows: Matrix, queries: QuerySet) -> None:
    store = Store(rows)
    with serving(store) as client:
        found = ask(client, INDEX, queries, K)
    assert found.recall.value == 1.0
    assert found.recall.samples == QUERIES
    assert 0 < found.p50_ms.value <= found.p95_ms.value
    assert store.asked == 2 * QUERIES, "once to warm up, once to measure"


def test_what_an_index_misses_is_counted_against_the_same_truth_as_alloydbs(rows: Matrix, queries: QuerySet) -> None:
    with serving(Store(rows, blind=1)) as client:
        found = ask(client, INDEX, queries, K)
    assert found.recall.value == pytest.approx((K - 1) / K)


def test_a_refusal_is_said_with_its_words_and_is_no_recall_of_zero(rows: Matrix, queries: QuerySet) -> None:
    with (
        serving(Store(rows, refuses=True)) as client,
        pytest.raises(TargetUnreachable, match="no role for this index"),
    ):
        ask(client, INDEX, queries, K)
