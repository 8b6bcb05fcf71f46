"""For every rule a document that breaks it and one that does not; for live rules the facts beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.rules import LiveFacts, Policy
from orchestra_lib.settings.document import with_values

T4 = "nvidia-tesla-t4"
WS, AT = "workstations", "memory.alloydb"
DEVELOPMENT, BOOST = f"{WS}.development", f"{WS}.boost"
PREDEFINED = "us-central1-docker.pkg.dev/cloud-workstations-images/predefined"

USAGE = {
    "developers": 3, "developer_hours": 160.0, "boost_ratio": 0.2, "pool_hours": 730.0, "alloydb_storage_gb": 100.0,
    "api_requests": 10_000_000, "api_request_seconds": 0.1, "api_requests_at_once": 10.0, "model_calls": 20_000,
    "input_tokens_per_call": 8000, "output_tokens_per_call": 3000, "embedded_tokens": 0, "code_assist_seats": 5,
    "nat_gb": 500.0, "logs_gib": 150.0, "custom_metrics_mib": 97.0, "snapshots_gb": 1000.0, "images_gb": 64.0,
    "secret_versions": 6, "secret_accesses": 0, "private_endpoint_gb": 250.0, "replicated_gb": 250.0,
}  # fmt: skip
PRICED = {
    "usage": USAGE,
    DEVELOPMENT: {"machine_type": "n2d-standard-32"},
    f"{WS}.boot_disk_gb": 50,
    f"{WS}.home_disk_gb": 200,
    AT: {"cpu_count": 4, "availability": "REGIONAL"},
    "assistant": {"model": "gemini-3.8-flash", "embedding_model": "gemini-embedding-001"},
    "api": {"cpu": 4, "memory": "2Gi", "min_instances": 1, "cpu_idle": False},
}


_NONE = LiveFacts()


@dataclass(frozen=True)
class Case:
    """``bad`` and ``good`` are values at dotted places; ``good_facts`` are the facts where they differ."""

    id: str
    bad: Mapping[str, Any]
    good: Mapping[str, Any]
    facts: LiveFacts = _NONE
    good_facts: LiveFacts | None = None

    def documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The document that breaks the rule, and the same with what makes it good put in."""
        bad = with_values({}, self.bad)
        return bad, with_values(bad, self.good)


def _of_machine(place: str) -> list[Case]:
    machine, kind, count = f"{place}.machine_type", f"{place}.accelerator_type", f"{place}.accelerator_count"
    zones = {f"{WS}.replica_zones": ["us-central1-a", "us-central1-d"], "regions.primary": "us-central1"}
    names = {zone: frozenset({T4, "n1-standard-32"}) for zone in ("us-central1-a", "us-central1-b")}
    return [
        Case("R-WS-01", {machine: "n2d-standard-32", kind: T4, count: 2}, {machine: "n1-standard-32"}),
        Case("R-WS-02", {machine: "g2-standard-24", kind: T4, count: 2}, {kind: "nvidia-l4"}),
        Case("R-WS-02", {machine: "n1-standard-8", kind: "nvidia-l4"}, {machine: "g2-standard-8"}),
        Case("R-WS-03", {machine: "n1-standard-32", kind: T4, count: 3}, {count: 4}),
        Case("R-WS-03", {machine: "n1-standard-64", kind: T4, count: 2}, {machine: "n1-standard-32"}),
        Case("R-WS-14", {machine: "n2d-standard-8", f"{WS}.nested_virtualization": True}, {machine: "n2-standard-8"}),
        Case(
            "L-WS-04",
            {**zones, kind: T4},
            {f"{WS}.replica_zones": ["us-central1-b", "us-central1-a"]},
            LiveFacts(accelerator_types=names),
        ),
        Case(
            "L-WS-04",
            {**zones, machine: "n1-standard-32"},
            {f"{WS}.replica_zones": ["us-central1-b", "us-central1-a"]},
            LiveFacts(machine_types=names),
        ),
    ]


def _quota(metric: str, machine: Mapping[str, Any]) -> Case:
    plan = {DEVELOPMENT: dict(machine), f"{WS}.home_disk_gb": 200, "usage.developers": 3}
    return Case(
        "L-QU-01",
        {**plan, "regions.primary": "us-central1"},
        {},
        LiveFacts(quota_left={metric: 1.0}),
        LiveFacts(quota_left={metric: 100_000.0}),
    )


def _policy(constraint: str, policy: Policy, bad: Mapping[str, Any], good: Mapping[str, Any]) -> Case:
    return Case("L-OP-01", bad, good, LiveFacts(policies={constraint: policy}))


def _estimate(component: str) -> list[Case]:
    low = {**PRICED, f"cost.{component}.high_usd": 1.0}
    enough = {f"cost.{component}.high_usd": 100_000.0}
    return [Case("R-BG-02", low, enough), Case("R-BG-02", {**low, "cost.budget_usd": 3300.0}, enough)]


_N1 = {"machine_type": "n1-standard-32", "accelerator_type": T4, "accelerator_count": 2}
_CAP = {"thresholds": [0.5, 0.8, 1.0], "projects": ["one"], "services": ["aiplatform.googleapis.com"]}
_FLAG = {
    "valueType": "INTEGER",
    "integerRestrictions": {"minValue": "10", "maxValue": "100"},
    "requiresDbRestart": True,
}
_ARGON = "gemini-4-argon"

CASES: list[Case] = [
    *_of_machine(DEVELOPMENT),
    *_of_machine(BOOST),
    Case("R-PJ-01", {"project.id": "Cherry_AI"}, {"project.id": "cherry-ai-project"}),
    Case("R-PJ-02", {"organization.create": True}, {"organization.create": False}),
    Case("R-DR-01", {"regions.secondary": "us-east1"}, {f"{AT}.secondary_cluster": "dr"}),
    Case(
        "R-DR-02",
        {"regions.secondary": "us-east1", f"{AT}.secondary_cluster": "dr"},
        {"api.secondary_service": "dr", f"{WS}.secondary_cluster": "dr"},
    ),
    Case("R-RB-01", {"rollback.infrastructure": "Terraform state"}, {"rollback.infrastructure": "apply again"}),
    Case(
        "R-CI-01",
        {"github.attribute_condition": "true"},
        {"github.attribute_condition": "assertion.repository_id=='7'"},
    ),
    Case("R-CI-01", {"github.owner_id": "ai-cherry", "github.repository_id": "2"}, {"github.owner_id": "1"}),
    Case(
        "R-CI-01",
        {"github.owner": "ai-cherry", "github.repository": "main", "github.branch": "x" * 100},
        {"github.branch": "main"},
    ),
    Case(
        "R-CI-02",
        {"github.provider": "projects/cherry-ai/locations/global/workloadIdentityPools/p/providers/g"},
        {"github.provider": "projects/123/locations/global/workloadIdentityPools/p/providers/g"},
    ),
    Case("R-CI-03", {"delivery.deployers": ["Cloud Build", "GitHub Actions"]}, {"delivery.deployers": ["Cloud Build"]}),
    Case("R-OB-01", {"slo.goal": 1.0}, {"slo.goal": 0.9999}),
    Case("R-OB-01", {"slo.rolling_days": 31}, {"slo.rolling_days": 30}),
    # --- workstations
    Case(
        "R-WS-05",
        {f"{WS}.replica_zones": ["us-central1-a"], "regions.primary": "us-central1"},
        {f"{WS}.replica_zones": ["us-central1-a", "us-central1-f"]},
    ),
    Case(
        "R-WS-05",
        {"regions.primary": "us-central1", BOOST: _N1},
        {f"{WS}.replica_zones": ["us-central1-a", "us-central1-b"]},
    ),
    Case("R-WS-06", {f"{WS}.boot_disk_gb": 29}, {f"{WS}.boot_disk_gb": 30}),
    Case("R-WS-07", {f"{WS}.boot_disk_gb": 200}, {f"{WS}.home_disk_gb": 200}),
    Case("R-WS-07", {f"{WS}.home_disk_gb": 300}, {f"{WS}.home_disk_gb": 500}),
    Case("R-WS-07", {f"{WS}.home_disk_gb": 100}, {f"{WS}.home_disk_type": "pd-ssd"}),
    Case("R-WS-08", {f"{WS}.home_source_snapshot": "s", f"{WS}.home_disk_gb": 200}, {f"{WS}.home_disk_gb": None}),
    Case("R-WS-09", {f"{WS}.boot_disk_gb": 50}, {f"{WS}.home_disk_reclaim": "RETAIN"}),
    Case("R-WS-10", {f"{WS}.idle_action": "SUSPEND", BOOST: _N1}, {f"{WS}.idle_action": "STOP"}),
    Case("R-WS-11", {f"{WS}.idle_timeout_seconds": 0}, {f"{WS}.idle_timeout_seconds": 1800}),
    Case(
        "R-WS-11",
        {f"{WS}.running_timeout_seconds": 86_400, f"{WS}.encryption_key": "k"},
        {f"{WS}.running_timeout_seconds": 86_399},
    ),
    Case("R-WS-12", {f"{WS}.container_image": "own/image:1"}, {f"{WS}.service_account": "a@b"}),
    Case(
        "R-WS-12",
        {f"{WS}.container_image": f"{PREDEFINED}/code-oss:latest", BOOST: _N1},
        {f"{WS}.container_image": f"{PREDEFINED}/codeoss-cuda:latest"},
    ),
    Case("R-WS-13", {f"{WS}.disable_public_ip_addresses": True}, {"network.nat": {"log_filter": "ALL"}}),
    Case("R-WS-16", {f"{WS}.allowed_ports": ["22", "443"]}, {f"{WS}.allowed_ports": ["22", "8000-9000"]}),
    # --- AlloyDB
    Case("R-AD-01", {f"{AT}.machine_type": "n2-highmem-4", f"{AT}.cpu_count": 8}, {f"{AT}.cpu_count": 4}),
    Case(
        "R-AD-01",
        {f"{AT}.machine_type": "n2-highmem-48", f"{AT}.cpu_count": 48},
        {f"{AT}.machine_type": "c4-highmem-48"},
    ),
    Case("R-AD-02", {f"{AT}.cluster": "c"}, {f"{AT}.database_version": "POSTGRES_16"}),
    Case("R-AD-02", {f"{AT}.database_version": "POSTGRES_13"}, {f"{AT}.database_version": "POSTGRES_18"}),
    Case("R-AD-03", {f"{AT}.recovery_window_days": 36}, {f"{AT}.recovery_window_days": 35}),
    Case(
        "R-AD-04",
        {
            f"{AT}.restore_cluster": "c",
            f"{AT}.cluster": "c",
            "regions.primary": "us-central1",
            "secrets.memory_endpoint": "e",
        },
        {f"{AT}.restore_cluster": "d"},
    ),
    Case("R-AD-04", {f"{AT}.cluster": "c"}, {"secrets.memory_endpoint": "endpoint"}),
    Case(
        "R-AD-05",
        {"regions.primary": "us-east1", "regions.secondary": "us-east1"},
        {"regions.secondary": "us-central1"},
    ),
    Case("R-AD-05", {f"{AT}.secondary_cluster": list("abcdef")}, {f"{AT}.secondary_cluster": list("abcde")}),
    Case("R-AD-05", {f"{AT}.secondary_cpu_count": 2, f"{AT}.cpu_count": 4}, {f"{AT}.secondary_cpu_count": 4}),
    Case("R-AD-06", {f"{AT}.instance": "1st"}, {f"{AT}.instance": "first"}),
    Case("R-AD-06", {f"{AT}.cluster": "Memory"}, {f"{AT}.cluster": "1-memory"}),
    Case("R-AD-07", {f"{AT}.zone": "us-central1-a"}, {f"{AT}.availability": "ZONAL"}),
    Case("R-AD-08", {f"{AT}.query_plans_per_minute": 21}, {f"{AT}.query_plans_per_minute": 20}),
    Case("R-AD-08", {f"{AT}.query_string_length": 255}, {f"{AT}.query_string_length": 4500}),
    Case("R-AD-09", {f"{AT}.backup_window_seconds": 299}, {f"{AT}.backup_window_seconds": 300}),
    Case("R-AD-09", {f"{AT}.backup_start_times": ["04:30"]}, {f"{AT}.backup_start_times": ["04:00", "23:00"]}),
    Case(
        "R-AD-11",
        {f"{AT}.authorized_external_networks": ["0.0.0.0/0"]},
        {f"{AT}.authorized_external_networks": ["192.0.2.0/24"]},
    ),
    Case(
        "L-AD-10",
        {f"{AT}.flags": {"work": 101}},
        {f"{AT}.flags": {"work": "100"}},
        LiveFacts(database_flags={"work": {**_FLAG, "requiresDbRestart": False}}),
    ),
    Case("L-AD-10", {f"{AT}.flags": {"work": 50}}, {f"{AT}.flags": {}}, LiveFacts(database_flags={"work": _FLAG})),
    # --- vectors and embeddings
    Case("R-VX-01", {"memory.dimension": 2001, "memory.index.method": "hnsw"}, {"memory.index.method": "ivf"}),
    Case("R-VX-02", {"memory.index.lists": 32_769}, {"memory.index.lists": 32_768}),
    Case(
        "R-VX-02",
        {"memory.index.lists": 4000, "memory.dimension": 1536, "memory.index.maintenance_work_mem_mib": 4358},
        {"memory.index.maintenance_work_mem_mib": 4359},
    ),
    Case("R-VX-02", {"memory.index.lists": 4000, "memory.dimension": 1536}, {"memory.index.lists": 10}),
    Case("R-VX-03", {"memory.index.default_lists": 2000}, {"memory.index.default_lists": 100}),
    Case(
        "R-EM-01",
        {"assistant.embedding_model": "text-embedding-005", "assistant.embedding_dimension": 1536},
        {"assistant.embedding_dimension": 768},
    ),
    Case(
        "R-EM-01",
        {"assistant.embedding_dimension": 768, "memory.dimension": 1536},
        {"assistant.embedding_dimension": 1536},
    ),
    Case(
        "R-EM-02",
        {"assistant.embedding_model": "gemini-embedding-001", "assistant.embedding_dimension": 1536},
        {"memory.index.opclass": "vector_cosine_ops"},
    ),
    # --- models
    Case("R-AI-01", {"assistant.model": "Gemini Pro Latest"}, {"assistant.model": _ARGON}),
    Case("R-AI-01", {"assistant.model": "gemini-pro-latest"}, {"assistant.model": _ARGON}),
    Case("R-AI-01", {"assistant.model": "gemini-2.5-pro"}, {"assistant.model": "gemini-3.6-flash"}),
    Case("R-AI-01", {"assistant.model": "gemini-3.1-pro-preview"}, {"assistant.model": _ARGON}),
    Case("R-AI-02", {"assistant.model": _ARGON, "assistant.location": "us-central1"}, {"assistant.location": "eu"}),
    *(
        Case(
            "R-AI-03",
            {f"assistant.{field}": 1.0, "assistant.model": "gemini-3.6-flash"},
            {"assistant.model": "gemini-3.1-pro"},
        )
        for field in ("temperature", "top_p", "top_k")
    ),
    Case("R-AI-03", {"assistant.temperature": 2.5}, {"assistant.temperature": 2}),
    Case(
        "R-AI-03", {"assistant.temperature": 0.2, "assistant.model": "gemini-3.1-pro"}, {"assistant.temperature": 1.0}
    ),
    Case(
        "R-AI-04",
        {"assistant.max_output_tokens": 8192, "assistant.model": _ARGON},
        {"assistant.max_output_tokens": 32_768},
    ),
    Case("R-AI-04", {"assistant.max_output_tokens": 65_537}, {"assistant.max_output_tokens": 65_536}),
    Case(
        "R-AI-04",
        {"assistant.max_output_tokens": 32_769, "assistant.streaming": False},
        {"assistant.streaming": True},
    ),
    Case(
        "R-AI-05",
        {"assistant.thinking_budget_tokens": 1024, "assistant.model": _ARGON},
        {"assistant.model": "gemini-3.1-pro"},
    ),
    Case("R-AI-05", {"assistant.thinking_level": "low"}, {"assistant.thinking_level": "LOW"}),
    Case(
        "R-AI-06",
        {"assistant.explicit_caching": True, "assistant.model": _ARGON},
        {"assistant.model": "gemini-3.8-flash"},
    ),
    Case("R-AI-07", {"assistant.last_turn": "model", "assistant.model": _ARGON}, {"assistant.last_turn": "user"}),
    # --- Cloud Run
    Case("R-RN-01", {"api.cpu": 3}, {"api.cpu": 4}),
    Case("R-RN-01", {"api.cpu": 0.5, "api.concurrency": 80}, {"api.concurrency": 1}),
    Case("R-RN-02", {"api.cpu": 4, "api.memory": "2G"}, {"api.memory": "2Gi"}),
    Case("R-RN-02", {"api.cpu": 8, "api.memory": "2Gi"}, {"api.memory": "4Gi"}),
    Case("R-RN-03", {"api.concurrency": 1001}, {"api.concurrency": 1000}),
    Case("R-RN-03", {"api.default_concurrency": 30}, {"api.default_concurrency": 80}),
    Case("R-RN-04", {"api.cpu": 4}, {"api.cpu_idle": True}),
    Case("R-RN-04", {"api.cpu_idle": True, "api.background_work": True}, {"api.cpu_idle": False}),
    Case("R-RN-05", {"api.startup_probe.initial_delay_seconds": 241}, {"api.startup_probe.initial_delay_seconds": 240}),
    Case("R-RN-05", {"api.startup_probe.period_seconds": 0}, {"api.startup_probe.period_seconds": 1}),
    Case("R-RN-05", {"api.startup_probe.timeout_seconds": 10}, {"api.startup_probe.period_seconds": 11}),
    Case("R-RN-06", {"network.primary_subnet": "10.0.0.0/27"}, {"network.primary_subnet": "10.0.0.0/26"}),
    Case("R-RN-06", {"api.startup_probe.opens_database": False}, {"api.startup_probe.opens_database": True}),
    Case("R-RN-06", {"api.network_interfaces": 2}, {"api.network_interfaces": 1}),
    Case("R-RN-07", {"api.traffic": [{"percent": 90}, {"tag": "candidate"}]}, {"api.traffic": [{"percent": 100}, {}]}),
    Case("R-RN-07", {"api.previous_revision_min_instances": 0}, {"api.previous_revision_min_instances": 1}),
    Case("R-RN-08", {"api.scaling.cpu_utilization": 0.95}, {"api.scaling.cpu_utilization": 0.9}),
    Case("R-RN-08", {"api.scaling.concurrency_utilization": 0.05}, {"api.scaling.concurrency_utilization": 0}),
    Case(
        "R-RN-08",
        {"api.scaling.cpu_utilization": 0, "api.scaling.concurrency_utilization": 0.0},
        {"api.scaling.cpu_utilization": 0.6},
    ),
    Case("R-RN-09", {"api.service_account": "1-compute@developer.gserviceaccount.com"}, {"api.service_account": "a@b"}),
    Case("R-RN-10", {"api.invokers": ["allUsers"]}, {"api.invokers": ["serviceAccount:a@b"]}),
    Case(
        "R-RN-11",
        {"api.connections_per_instance": 9, "api.max_instances": 10, f"{AT}.max_connections": 100},
        {"api.connections_per_instance": 8},
    ),
    Case(
        "R-RN-11",
        {"api.connections_per_instance": 9, "api.max_instances": 10},
        {"api.connections_per_instance": 8},
        LiveFacts(max_connections=100),
    ),
    Case("R-RN-12", {"api.cold_starts": "eliminated"}, {"api.cold_starts": "fewer"}),
    # --- money
    *(
        case
        for part in ("workstations", "alloydb", "cloud_run", "vertex_ai", "other", "total")
        for case in _estimate(part)
    ),
    Case("R-BG-03", {**PRICED, "cost.budget_usd": 3300.0}, {"cost.budget_usd": 33_000.0}),
    Case("R-BG-01", {"cost.spend_cap": {**_CAP, "thresholds": [1.0]}}, {"cost.spend_cap": _CAP}),
    # --- live
    _quota("NVIDIA_T4_GPUS", _N1),
    _quota("GPUS_ALL_REGIONS", _N1),
    _quota("CPUS", _N1),
    _quota("CPUS_ALL_REGIONS", _N1),
    _quota("SSD_TOTAL_GB", _N1),
    _quota("N2D_CPUS", {"machine_type": "n2d-standard-32"}),
    _quota(
        "NVIDIA_L4_GPUS", {"machine_type": "g2-standard-24", "accelerator_type": "nvidia-l4", "accelerator_count": 2}
    ),
    _policy(
        "compute.vmExternalIpAccess",
        Policy(denies_all=True),
        {f"{WS}.disable_public_ip_addresses": False},
        {f"{WS}.disable_public_ip_addresses": True},
    ),
    _policy(
        "compute.disableNestedVirtualization",
        Policy(enforced=True),
        {f"{WS}.nested_virtualization": True},
        {f"{WS}.nested_virtualization": False},
    ),
    _policy("compute.requireShieldedVm", Policy(enforced=True), {f"{WS}.shielded": False}, {f"{WS}.shielded": True}),
    _policy(
        "gcp.resourceLocations",
        Policy(allowed=frozenset({"in:us-central1-locations"})),
        {"regions.primary": "us-central1", "regions.secondary": "us-east1"},
        {"regions.secondary": None},
    ),
    _policy(
        "gcp.restrictServiceUsage",
        Policy(denied=frozenset({"run.googleapis.com"})),
        {"services": {"api": ["run"], "memory": ["alloydb"]}},
        {"services": {"memory": ["alloydb"]}},
    ),
    _policy(
        "iam.allowedPolicyMemberDomains",
        Policy(allowed=frozenset({"C01"})),
        {"api.invokers": ["allUsers"]},
        {"api.invokers": []},
    ),
    Case(
        "L-OP-01",
        {"network.service_range": "10.0.0.0/16"},
        {},
        LiveFacts(policies={"compute.restrictVpcPeering": Policy(denies_all=True)}),
        LiveFacts(policies={"compute.restrictVpcPeering": Policy()}),
    ),
    Case(
        "R-WS-15",
        {f"{WS}.replica_zones": ["us-central1-a", "us-central1-b"]},
        {f"{WS}.replica_zones": ["us-central1-a", "us-central1-f"]},
        LiveFacts(workstation_configuration={"replicaZones": ["us-central1-a", "us-central1-f"]}),
    ),
    Case(
        "R-WS-15",
        {f"{WS}.encryption_key": "mine"},
        {f"{WS}.encryption_key": "theirs"},
        LiveFacts(workstation_configuration={"encryptionKey": {"kmsKey": "theirs"}}),
    ),
    Case(
        "R-WS-15",
        {f"{WS}.private_endpoint": True},
        {f"{WS}.private_endpoint": False},
        LiveFacts(workstation_cluster={"privateClusterConfig": {"enablePrivateEndpoint": False}}),
        LiveFacts(workstation_cluster={}),
    ),
    Case(
        "R-WS-15",
        {f"{WS}.domain": "a.example"},
        {f"{WS}.domain": "b.example"},
        LiveFacts(workstation_cluster={"domainConfig": {"domain": "b.example"}}),
    ),
    Case(
        "R-GW-01",
        {"api.gateway_service_account": "a@b"},
        {"api.gateway_service_account": "c@d"},
        LiveFacts(api_configuration={"gatewayServiceAccount": "c@d"}),
    ),
    Case(
        "R-GW-01",
        {"api.gateway_streaming_mode": "STREAMING_MODE_ENABLED"},
        {},
        LiveFacts(gateway={"streamingMode": "OTHER"}),
        LiveFacts(gateway={}),
    ),
]
