"""Vertex AI Vector Search, asked the same questions as AlloyDB: its recall against the same truth, its latency alike.

An index that holds the same rows under the same ids has to be there and deployed; making one is not ours to do.
https://cloud.google.com/vertex-ai/docs/vector-search/query-index-public-endpoint
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestra_lib.bench.statistics import Estimate, mean, quantile
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.measured import recalls_of

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import MatchServiceClient

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class DeployedIndex:
    """A deployed index: ``endpoint`` is its index endpoint's full name, ``id`` that of the deployment."""

    endpoint: str
    id: str


@dataclass(frozen=True)
class Asked:
    """What it answered: recall@k over the queries, and latencies in milliseconds, one query after another, warm."""

    recall: Estimate
    p50_ms: Estimate
    p95_ms: Estimate


def match_client(target: Target, index: DeployedIndex) -> MatchServiceClient:
    """The official client at the address of the index's own public endpoint.

    Raises TargetUnreachable for an endpoint that is not there, or has no public address.
    """
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud import aiplatform_v1  # a second to import

    host = f"{index.endpoint.split('/')[3]}-aiplatform.googleapis.com"
    options: Any = {"api_endpoint": host}
    endpoints = aiplatform_v1.IndexEndpointServiceClient(credentials=target.credentials, client_options=options)
    try:
        domain = endpoints.get_index_endpoint(name=index.endpoint).public_endpoint_domain_name
    except GoogleAPICallError as error:
        raise TargetUnreachable(f"{index.endpoint} cannot be read: {error.message}") from error
    if not domain:
        raise TargetUnreachable(f"{index.endpoint} has no public address: ask it from inside its network")
    return aiplatform_v1.MatchServiceClient(credentials=target.credentials, client_options={"api_endpoint": domain})


def ask(client: MatchServiceClient, index: DeployedIndex, queries: QuerySet, k: int) -> Asked:
    """Search with every query, once to warm up and once to measure. Raises TargetUnreachable when it is refused."""
    from google.api_core.exceptions import GoogleAPICallError

    try:
        for vector in queries.vectors:
            _neighbours(client, index, vector, k)
        answers = [_neighbours(client, index, vector, k) for vector in queries.vectors]
    except GoogleAPICallError as error:
        raise TargetUnreachable(f"{index.endpoint}, {index.id} does not answer: {error.message}") from error
    milliseconds = np.asarray([taken for _, taken in answers])
    return Asked(
        mean(recalls_of([ids for ids, _ in answers], queries.truth)),
        quantile(milliseconds, 0.50),
        quantile(milliseconds, 0.95),
    )


def _neighbours(client: MatchServiceClient, index: DeployedIndex, vector: Any, k: int) -> tuple[tuple[str, ...], float]:
    """Ids, nearest first, and the milliseconds from sending to the answer."""
    from google.cloud import aiplatform_v1

    query = aiplatform_v1.FindNeighborsRequest.Query(
        datapoint=aiplatform_v1.IndexDatapoint(feature_vector=[float(number) for number in vector]), neighbor_count=k
    )
    request = aiplatform_v1.FindNeighborsRequest(
        index_endpoint=index.endpoint, deployed_index_id=index.id, queries=[query]
    )
    began = time.perf_counter()
    answer = client.find_neighbors(request, timeout=_TIMEOUT_SECONDS)
    taken = (time.perf_counter() - began) * 1e3
    found = answer.nearest_neighbors[0].neighbors if answer.nearest_neighbors else ()
    return tuple(str(one.datapoint.datapoint_id) for one in found), taken
