"""One read of each service of the plan: what is switched off or closed to us is found here and not in the middle."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.preflight.check import Check, judged, none_of, noted

AREA = "services"
_AT_ONCE = 8

_READS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "aiplatform": ("aiplatform.v1", "projects.locations.endpoints.list", "{project}/locations/{region}/endpoints"),
        "alloydb": ("alloydb.v1", "projects.locations.clusters.list", "{project}/locations/{region}/clusters"),
        "apigateway": ("apigateway.v1", "projects.locations.gateways.list", "{project}/locations/{region}/gateways"),
        "artifactregistry": (
            "artifactregistry.v1",
            "projects.locations.repositories.list",
            "{project}/locations/{region}/repositories",
        ),
        "cloudbilling": ("cloudbilling.v1", "projects.getBillingInfo", "{project}/billingInfo"),
        "cloudbuild": ("cloudbuild.v1", "projects.locations.triggers.list", "{project}/locations/{region}/triggers"),
        "cloudresourcemanager": ("cloudresourcemanager.v3", "projects.get", "{project}"),
        "compute": ("compute.v1", "networks.list", "{project}/global/networks"),
        "iam": ("iam.v1", "projects.serviceAccounts.list", "{project}/serviceAccounts"),
        "logging": ("logging.v2", "projects.sinks.list", "{project}/sinks"),
        "monitoring": ("monitoring.v3", "projects.alertPolicies.list", "{project}/alertPolicies"),
        "orgpolicy": ("orgpolicy.v2", "projects.policies.list", "{project}/policies"),
        "run": ("run.v2", "projects.locations.services.list", "{project}/locations/{region}/services"),
        "secretmanager": ("secretmanager.v1", "projects.secrets.list", "{project}/secrets"),
        "serviceusage": ("serviceusage.v1", "services.list", "{project}/services"),
        "workstations": (
            "workstations.v1",
            "projects.locations.workstationClusters.list",
            "{project}/locations/{region}/workstationClusters",
        ),
    }
)
"""Service -> API, method and path of a cheap read. Services without one are named in the row that counts."""


def service_checks(
    client: Client, place: Place, region: str, planned: Collection[str], enabled: Collection[str]
) -> Iterator[Check]:
    """One read of each planned service that is enabled in the project, which exists. Names without ``.googleapis.com``.

    A service that is not enabled yet is named and not asked: its phase enables it.
    """
    asked = [name for name in planned if name in _READS and name in enabled]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda name: _refusal(client, place, region, name), asked))
    refused = [(name, words) for name, words in zip(asked, answers, strict=True) if words]
    for name, words in refused:
        yield judged(AREA, f"{name} answers a read", place.source, False, words)
    without = [name for name in planned if name in enabled and name not in _READS]
    unknown = f"; no read is known of {', '.join(without)}" if without else ""
    yield none_of(
        AREA, "services that refuse a read", place.source, [name for name, _ in refused], f"{len(asked)} asked{unknown}"
    )
    later = [name for name in planned if name not in enabled]
    if later:
        note = f"{', '.join(later)}: enabled by the phase that needs them"
        yield noted(AREA, "services of the plan that are not enabled yet", place.source, len(later), note=note)


def _refusal(client: Client, place: Place, region: str, name: str) -> str:
    api, method_id, path = _READS[name]
    try:
        client.call(api, f"{name}.{method_id}", path.format(project=f"projects/{place.project}", region=region))
    except CloudRefused as error:
        return str(error)
    return ""
