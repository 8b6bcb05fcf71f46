"""A small blueprint with one resource of nearly every kind, for the engine's tests."""

from __future__ import annotations

from orchestra_lib.cloud.resource import Ref, Resource, Text

ORGANIZATION = "organizations/873291114285"
ACCOUNT = "01A2B3-C4D5E6-F70819"
APIS = (
    "artifactregistry",
    "compute",
    "iam",
    "logging",
    "monitoring",
    "secretmanager",
    "servicenetworking",
)
HOLDING_DATA = ("audit", "dsn", "images")


def stack(
    project: str, *, threshold: float = 100.0, retention_days: int = 90, subnet: str = "10.0.0.0/20"
) -> list[Resource]:
    """The resources of a project that does not exist yet, in an order that is not the one they need."""
    home, region = f"projects/{project}", f"projects/{project}/regions/us-central1"
    root = Resource("project", ORGANIZATION, project, {"parent": ORGANIZATION, "displayName": "Engine test"})
    billing = Resource("billing", home, "account", {"billingAccountName": f"billingAccounts/{ACCOUNT}"}, (root.key,))
    apis = [Resource("service", home, f"{name}.googleapis.com", {}, (billing.key,)) for name in APIS]
    api = {name: resource.key for name, resource in zip(APIS, apis, strict=True)}
    network = Resource("network", f"{home}/global", "main", {"autoCreateSubnetworks": False}, (api["compute"],))
    path = f"{home}/global/networks/main"
    subnetwork = Resource(
        "subnetwork",
        region,
        "main-us",
        {"network": path, "ipCidrRange": subnet, "privateIpGoogleAccess": True},
        (network.key,),
    )
    nat = {
        "name": "nat",
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    router = Resource("router", region, "main-nat", {"network": path, "nats": [nat]}, (network.key,))
    firewall = Resource(
        "firewall",
        f"{home}/global",
        "iap",
        {
            "network": path,
            "direction": "INGRESS",
            "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
            "sourceRanges": ["35.235.240.0/20"],
        },
        (network.key,),
    )
    services_range = Resource(
        "global address",
        f"{home}/global",
        "services",
        {
            "purpose": "VPC_PEERING",
            "addressType": "INTERNAL",
            "address": "10.64.0.0",
            "prefixLength": 16,
            "network": path,
        },
        (network.key,),
    )
    number = Ref(root.key, "projectNumber")
    peering = Resource(
        "peering",
        "services/servicenetworking.googleapis.com",
        f"servicenetworking-{project}",
        {"network": Text("projects/{}/global/networks/main", (number,)), "reservedPeeringRanges": ["services"]},
        (services_range.key, api["servicenetworking"]),
    )
    account = Resource("service account", home, "runner", {"displayName": "Runner"}, (api["iam"],))
    member = f"serviceAccount:runner@{project}.iam.gserviceaccount.com"
    roles = Resource("roles", home, member, {"roles": ["roles/run.invoker", "roles/logging.logWriter"]}, (account.key,))
    audit = Resource("audit logs", home, "allServices", {"logTypes": ["ADMIN_READ", "DATA_WRITE"]}, (root.key,))
    channel = Resource(
        "notification channel",
        home,
        "operators",
        {"type": "email", "labels": {"email_address": "operators@example.com"}},
        (api["monitoring"],),
    )
    condition = {
        "displayName": "too slow",
        "conditionThreshold": {
            "filter": 'metric.type="run.googleapis.com/request_latencies" AND resource.type="cloud_run_revision"',
            "comparison": "COMPARISON_GT",
            "thresholdValue": threshold,
            "duration": "300s",
            "aggregations": [{"alignmentPeriod": "300s", "perSeriesAligner": "ALIGN_PERCENTILE_95"}],
        },
    }
    alert = Resource(
        "alert policy",
        home,
        "API too slow",
        {"combiner": "OR", "conditions": [condition], "notificationChannels": [Ref(channel.key)]},
    )
    bucket = Resource(
        "log bucket", f"{home}/locations/us-central1", "audit", {"retentionDays": retention_days}, (api["logging"],)
    )
    sink = Resource(
        "log sink",
        home,
        "audit",
        {
            "destination": f"logging.googleapis.com/{home}/locations/us-central1/buckets/audit",
            "filter": 'log_id("cloudaudit.googleapis.com/activity")',
        },
        (bucket.key,),
    )
    secret = Resource("secret", home, "dsn", {"replication": {"automatic": {}}}, (api["secretmanager"],))
    repository = Resource(
        "repository", f"{home}/locations/us-central1", "images", {"format": "DOCKER"}, (api["artifactregistry"],)
    )
    pool = Resource(
        "workload identity pool", f"{home}/locations/global", "github", {"displayName": "GitHub"}, (api["iam"],)
    )
    provider = Resource(
        "workload identity provider",
        f"{home}/locations/global/workloadIdentityPools/github",
        "main",
        {
            "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
            "attributeMapping": {"google.subject": "assertion.sub"},
            "attributeCondition": "assertion.repository_owner_id == '1'",
        },
        (pool.key,),
    )
    return [
        provider, pool, repository, secret, sink, bucket, alert, channel, audit, roles, account, peering,
        services_range, firewall, router, subnetwork, network, *apis, billing, root,
    ]  # fmt: skip
