"""How each kind of resource is said in Terraform: one row or more for each, as data.

Import ids: the section "Import" of each resource's page in
https://registry.terraform.io/providers/hashicorp/google/latest/docs
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orchestra_lib.cloud.terraform.schema import BETA, GA
from orchestra_lib.secret import MASK

Body = Mapping[str, Any]
Templates = Mapping[str, str]


def _as_it_is(body: Body, _live: Body) -> Body:
    return body


@dataclass(frozen=True)
class Row:
    """One type of Terraform resource that a kind becomes.

    ``topic`` names the file. Templates know ``{parent}``, ``{id}``, ``{name}`` (what the service calls it),
    ``{short_name}`` (the last part of that), the ids of the collections in the parent (``{projects}``, ``{regions}``,
    …), ``{member}``, ``{who}`` (the member's short name), ``{on}`` (the parent's short name) and ``{each}`` (below).

    With ``each`` the kind becomes one resource for every item of that field: the item is the body, or a text. Fields
    of the body become the argument of the same name in snake case, unless ``renamed`` says otherwise by their path.
    ``reshape`` gets the body and the live body and returns the body as the provider groups it. ``provider`` is the one
    that has the type.
    """

    type: str
    topic: str
    import_id: str
    arguments: Templates = field(default_factory=dict)
    label: str = "{id}"
    each: str | None = None
    renamed: Templates = field(default_factory=dict)
    reshape: Callable[[Body, Body], Body] = _as_it_is
    constants: Mapping[str, Any] = field(default_factory=dict)
    ignored_changes: tuple[str, ...] = ()
    provider: str = GA
    bookkeeping: tuple[str, ...] = ()  # arguments that no read fills in: the first plan may show them as changed


def _without_switch(body: Body, field_name: str = "logConfig") -> Body:
    """The block's presence says ``enable: true``."""
    if field_name not in body:
        return body
    message = dict(body[field_name])
    rest = {name: value for name, value in body.items() if name != field_name}
    return {**rest, field_name: message} if message.pop("enable", False) else rest


def _network(body: Body, _live: Body) -> Body:
    rest = {name: value for name, value in body.items() if name != "routingConfig"}
    return {**rest, **body.get("routingConfig", {})}


def _subnetwork(body: Body, _live: Body) -> Body:
    return _without_switch(body)


def _firewall(body: Body, live: Body) -> Body:
    shaped = dict(_without_switch(body))
    if "logConfig" in shaped:
        metadata = live.get("logConfig", {}).get("metadata", "INCLUDE_ALL_METADATA")
        shaped["logConfig"] = {"metadata": metadata, **shaped["logConfig"]}
    return shaped


def _project(body: Body, live: Body) -> Body:
    rest = {name: value for name, value in body.items() if name != "parent"}
    collection, _, number = str(body.get("parent") or live.get("parent", "")).partition("/")
    owner = {"organizations": "orgId", "folders": "folderId"}.get(collection)
    named = {} if "displayName" in rest or "displayName" not in live else {"displayName": live["displayName"]}
    return {**rest, **named, **({owner: number} if owner else {})}


def _billing(body: Body, _live: Body) -> Body:
    account = str(body.get("billingAccountName") or "").removeprefix("billingAccounts/")
    rest = {name: value for name, value in body.items() if name != "billingAccountName"}
    return {**rest, "billingAccount": account}


def _audit_logs(body: Body, _live: Body) -> Body:
    rest = {name: value for name, value in body.items() if name != "logTypes"}
    return {**rest, "auditLogConfig": [{"logType": name} for name in body.get("logTypes", ())]}


def _dashboard(body: Body, _live: Body) -> Body:
    return {"dashboardJson": json.dumps(body, ensure_ascii=False, sort_keys=True)}


def _repository(body: Body, _live: Body) -> Body:
    policies = body.get("cleanupPolicies")
    if policies is None:
        return body
    return {**body, "cleanupPolicies": [{**policy, "id": name} for name, policy in sorted(policies.items())]}


def _channel(body: Body, _live: Body) -> Body:
    labels = body.get("labels", {})
    secret = {name: MASK for name in ("auth_token", "password", "service_key") if name in labels}
    return {**body, "labels": {**labels, **secret}} if secret else body


def _uptime_check(body: Body, _live: Body) -> Body:
    http = dict(body.get("httpCheck", {}))
    if "password" in http.get("authInfo", {}):
        http["authInfo"] = {**http["authInfo"], "password": MASK}
    if http.get("maskHeaders"):
        http["headers"] = dict.fromkeys(http.get("headers", {}), MASK)
    return {**body, "httpCheck": http} if http else body


def _gateway_config(body: Body, _live: Body) -> Body:
    rest = {name: value for name, value in body.items() if name != "gatewayServiceAccount"}
    account = str(body.get("gatewayServiceAccount", "")).rpartition("/")[2]
    return {**rest, "gatewayConfig": {"backendConfig": {"googleServiceAccount": account}}} if account else rest


_IN_PROJECT = {"project": "{projects}"}
_NAMED = {"name": "{id}", **_IN_PROJECT}
_IN_REGION = {**_NAMED, "region": "{regions}"}
_IN_LOCATION = {**_IN_PROJECT, "location": "{locations}"}
_IN_CLUSTER = {**_IN_LOCATION, "workstation_cluster_id": "{workstationClusters}"}
_IN_CONFIGURATION = {**_IN_CLUSTER, "workstation_config_id": "{workstationConfigs}"}
_LABELS = ("labels", "terraform_labels")
_GUARDS = ("deletion_policy", "deletion_protection")  # the provider's own, against a cluster that is deleted by mistake


def _member(type_: str, topic: str, arguments: Templates, import_id: str, label: str = "{on}_{who}_{each}") -> Row:
    return Row(
        type_,
        topic,
        import_id,
        {**arguments, "role": "{each}", "member": "{member}"},
        label,
        each="roles",
    )


_TABLE: Mapping[str, tuple[Row, ...]] = {
    "project": (
        Row(
            "google_project",
            "project",
            "{id}",
            {"project_id": "{id}", "name": "{id}"},
            renamed={"displayName": "name"},
            reshape=_project,
            ignored_changes=("billing_account",),  # google_billing_project_info has it
            bookkeeping=(*_LABELS, "auto_create_network", "deletion_policy"),
        ),
    ),
    "billing": (
        Row(
            "google_billing_project_info",
            "project",
            "{parent}",
            _IN_PROJECT,
            label="{projects}",
            reshape=_billing,
        ),
    ),
    "service": (
        Row(
            "google_project_service",
            "project",
            "{projects}/{id}",
            {**_IN_PROJECT, "service": "{id}"},
            label="{service}",
            constants={"disable_on_destroy": False},
            bookkeeping=("disable_on_destroy",),
        ),
    ),
    "audit logs": (
        Row(
            "google_project_iam_audit_config",
            "project",
            "{projects} {id}",
            {**_IN_PROJECT, "service": "{id}"},
            reshape=_audit_logs,
        ),
    ),
    "network": (
        Row(
            "google_compute_network",
            "network",
            "{parent}/networks/{id}",
            _NAMED,
            reshape=_network,
            bookkeeping=("delete_default_routes_on_create",),
        ),
    ),
    "subnetwork": (
        Row(
            "google_compute_subnetwork",
            "network",
            "{parent}/subnetworks/{id}",
            _IN_REGION,
            renamed={"secondaryIpRanges": "secondary_ip_range"},
            reshape=_subnetwork,
        ),
    ),
    "router": (
        Row("google_compute_router", "network", "{parent}/routers/{id}", _IN_REGION),
        Row(
            "google_compute_router_nat",
            "network",
            "{parent}/routers/{id}/{each}",
            {"router": "{id}", "region": "{regions}", **_IN_PROJECT},
            label="{each}",
            each="nats",
            renamed={"subnetworks": "subnetwork", "nat64Subnetworks": "nat64_subnetwork"},
        ),
    ),
    "firewall": (
        Row(
            "google_compute_firewall",
            "network",
            "{parent}/firewalls/{id}",
            _NAMED,
            renamed={
                "allowed": "allow",
                "allowed.IPProtocol": "protocol",
                "denied": "deny",
                "denied.IPProtocol": "protocol",
            },
            reshape=_firewall,
        ),
    ),
    "global address": (Row("google_compute_global_address", "network", "{parent}/addresses/{id}", _NAMED),),
    "peering": (
        Row(
            "google_service_networking_connection",
            "network",
            "{network}:{services}",
            {"service": "{services}", "network": "{network}"},
            bookkeeping=("deletion_policy", "update_on_creation_fail"),
        ),
    ),
    "service account": (
        Row(
            "google_service_account",
            "identities",
            "{parent}/serviceAccounts/{id}@{projects}.iam.gserviceaccount.com",
            {"account_id": "{id}", **_IN_PROJECT},
            bookkeeping=("create_ignore_already_exists",),
        ),
    ),
    "roles": (
        _member("google_project_iam_member", "identities", _IN_PROJECT, "{projects} {each} {member}", "{who}_{each}"),
    ),
    "grant": (Row("google_project_iam_member", "identities", "{projects} {id}", _IN_PROJECT),),
    "service account roles": (
        _member(
            "google_service_account_iam_member",
            "identities",
            {"service_account_id": "{parent}"},
            "{parent} {each} {member}",
        ),
    ),
    "repository roles": (
        _member(
            "google_artifact_registry_repository_iam_member",
            "delivery",
            {**_IN_LOCATION, "repository": "{repositories}"},
            "{parent} {each} {member}",
        ),
    ),
    "secret roles": (
        _member(
            "google_secret_manager_secret_iam_member",
            "delivery",
            {**_IN_PROJECT, "secret_id": "{secrets}"},
            "{parent} {each} {member}",
        ),
    ),
    "workload identity pool": (
        Row(
            "google_iam_workload_identity_pool",
            "delivery",
            "{parent}/workloadIdentityPools/{id}",
            {**_IN_PROJECT, "workload_identity_pool_id": "{id}"},
        ),
    ),
    "workload identity provider": (
        Row(
            "google_iam_workload_identity_pool_provider",
            "delivery",
            "{parent}/providers/{id}",
            {
                **_IN_PROJECT,
                "workload_identity_pool_id": "{workloadIdentityPools}",
                "workload_identity_pool_provider_id": "{id}",
            },
        ),
    ),
    "secret": (
        Row(
            "google_secret_manager_secret",
            "delivery",
            "{parent}/secrets/{id}",
            {**_IN_PROJECT, "secret_id": "{id}"},
            renamed={"replication.automatic": "auto"},
            bookkeeping=(*_LABELS, "deletion_protection"),
        ),
    ),
    "assistant settings": (
        Row(
            "google_secret_manager_secret",
            "delivery",
            "{parent}/secrets/{id}",
            {**_IN_PROJECT, "secret_id": "{id}"},
            renamed={"replication.automatic": "auto"},
            bookkeeping=(*_LABELS, "deletion_protection"),
        ),
    ),
    "repository": (
        Row(
            "google_artifact_registry_repository",
            "delivery",
            "{parent}/repositories/{id}",
            {**_IN_LOCATION, "repository_id": "{id}"},
            reshape=_repository,
            bookkeeping=_LABELS,
        ),
    ),
    "build trigger": (
        Row(
            "google_cloudbuild_trigger",
            "delivery",
            "{name}",
            {"name": "{id}", **_IN_LOCATION},
            renamed={"build.steps": "step", "build.secrets": "secret"},
        ),
    ),
    "snapshot schedule": (
        Row("google_compute_resource_policy", "workstations", "{parent}/resourcePolicies/{id}", _IN_REGION),
    ),
    "snapshot": (
        Row(
            "google_compute_snapshot",
            "workstations",
            "{parent}/snapshots/{id}",
            _NAMED,
            bookkeeping=_LABELS,
        ),
    ),
    "home schedule": (
        Row(
            "google_compute_region_disk_resource_policy_attachment",
            "workstations",
            "{name}/{each}",
            {"name": "{each}", "disk": "{short_name}", "region": "{regions}", **_IN_PROJECT},
            label="{id}_{each}",
            each="schedules",
        ),
    ),
    "workstation cluster": (
        Row(
            "google_workstations_workstation_cluster",
            "workstations",
            "{parent}/workstationClusters/{id}",
            {**_IN_LOCATION, "workstation_cluster_id": "{id}"},
            bookkeeping=_LABELS,
        ),
    ),
    "workstation configuration": (
        Row(
            "google_workstations_workstation_config",
            "workstations",
            "{parent}/workstationConfigs/{id}",
            {**_IN_CLUSTER, "workstation_config_id": "{id}"},
            bookkeeping=_LABELS,
        ),
    ),
    "workstation": (
        Row(
            "google_workstations_workstation",
            "workstations",
            "{parent}/workstations/{id}",
            {**_IN_CONFIGURATION, "workstation_id": "{id}"},
            bookkeeping=_LABELS,
        ),
    ),
    "workstation roles": (
        _member(
            "google_workstations_workstation_iam_member",
            "workstations",
            {**_IN_CONFIGURATION, "workstation_id": "{workstations}"},
            "{parent} {each} {member}",
        ),
    ),
    "database cluster": (
        Row(
            "google_alloydb_cluster",
            "memory",
            "{parent}/clusters/{id}",
            {**_IN_LOCATION, "cluster_id": "{id}"},
            bookkeeping=(*_LABELS, *_GUARDS),
        ),
    ),
    "secondary database cluster": (
        Row(
            "google_alloydb_cluster",
            "memory",
            "{parent}/clusters/{id}",
            {**_IN_LOCATION, "cluster_id": "{id}"},
            # Its instance cannot be deleted by itself, and would be left behind.
            constants={"cluster_type": "SECONDARY", "deletion_policy": "FORCE"},
            bookkeeping=(*_LABELS, *_GUARDS),
        ),
    ),
    **dict.fromkeys(
        ("database instance", "secondary database instance"),
        (
            Row(
                "google_alloydb_instance",
                "memory",
                "{parent}/instances/{id}",
                {"cluster": "{parent}", "instance_id": "{id}"},
                bookkeeping=_LABELS,
            ),
        ),
    ),
    "database user": (
        Row(
            "google_alloydb_user",
            "memory",
            "{parent}/users/{id}",
            {"cluster": "{parent}", "user_id": "{id}"},
            label="{who}",
        ),
    ),
    "run service": (
        Row(
            "google_cloud_run_v2_service",
            "api",
            "{parent}/services/{id}",
            {"name": "{id}", **_IN_LOCATION},
            ignored_changes=("template", "traffic"),  # revisions come and go by rollouts
            bookkeeping=(*_LABELS, "deletion_protection"),
        ),
    ),
    "run service roles": (
        _member(
            "google_cloud_run_v2_service_iam_member",
            "api",
            {"name": "{services}", **_IN_LOCATION},
            "{parent} {each} {member}",
        ),
    ),
    "gateway api": (
        Row(
            "google_api_gateway_api",
            "api",
            "{parent}/apis/{id}",
            {"api_id": "{id}", **_IN_PROJECT},
            provider=BETA,
            bookkeeping=_LABELS,
        ),
    ),
    "gateway config": (
        Row(
            "google_api_gateway_api_config",
            "api",
            "{parent}/configs/{id}",
            {"api": "{apis}", "api_config_id": "{id}", **_IN_PROJECT},
            reshape=_gateway_config,
            # The provider does not read it back, and a config whose account differs is made anew.
            ignored_changes=("gateway_config",),
            provider=BETA,
            bookkeeping=_LABELS,
        ),
    ),
    "gateway": (
        Row(
            "google_api_gateway_gateway",
            "api",
            "{parent}/gateways/{id}",
            {"gateway_id": "{id}", "region": "{locations}", **_IN_PROJECT},
            provider=BETA,
            bookkeeping=_LABELS,
        ),
    ),
    "log bucket": (
        Row(
            "google_logging_project_bucket_config",
            "observability",
            "{parent}/buckets/{id}",
            {**_IN_LOCATION, "bucket_id": "{id}"},
            renamed={"analyticsEnabled": "enable_analytics"},
        ),
    ),
    "log sink": (
        Row(
            "google_logging_project_sink",
            "observability",
            "{parent}/sinks/{id}",
            _NAMED,
            constants={"unique_writer_identity": True},  # the row of the kind asks for one
        ),
    ),
    "notification channel": (
        Row(
            "google_monitoring_notification_channel",
            "observability",
            "{name}",
            {"display_name": "{id}", **_IN_PROJECT},
            reshape=_channel,
            bookkeeping=("force_delete",),
        ),
    ),
    "alert policy": (
        Row("google_monitoring_alert_policy", "observability", "{name}", {"display_name": "{id}", **_IN_PROJECT}),
    ),
    "uptime check": (
        Row(
            "google_monitoring_uptime_check_config",
            "observability",
            "{name}",
            {"display_name": "{id}", **_IN_PROJECT},
            reshape=_uptime_check,
        ),
    ),
    "dashboard": (
        Row(
            "google_monitoring_dashboard",
            "observability",
            "{parent}/dashboards/{id}",
            _IN_PROJECT,
            reshape=_dashboard,
        ),
    ),
    "budget": (
        Row(
            "google_billing_budget",
            "observability",
            "{name}",
            {"billing_account": "{billingAccounts}", "display_name": "{id}"},
            renamed={"notificationsRule": "all_updates_rule"},
        ),
    ),
}

ROWS: Mapping[str, tuple[Row, ...]] = MappingProxyType(_TABLE)
"""The rows of each kind. The first that has no ``each`` takes the fields that none of the others goes through."""
