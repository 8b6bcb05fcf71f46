"""AlloyDB: defaults, what is refused, secondary clusters and their roles, backups and restores, failovers, flags."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

PARENT = f"/alloydb/v1/projects/{PROJECT}/locations"
NETWORK = f"projects/{PROJECT}/global/networks/database"
CENTRAL, EAST = f"{PARENT}/us-central1", f"{PARENT}/us-east1"
_numbers = count(1)


def done(server, operation):
    assert operation.status == 200, operation.body
    polled = server.get(f"/alloydb/v1/{operation.body['name']}").body
    assert polled["done"], polled
    return polled


def response(server, operation):
    polled = done(server, operation)
    assert "response" in polled, polled
    return polled["response"]


def new_cluster(server, region=CENTRAL, **more):
    name = f"cluster-{next(_numbers)}"
    made = server.post(f"{region}/clusters?clusterId={name}", {"networkConfig": {"network": NETWORK}, **more})
    return f"/alloydb/v1/{response(server, made)['name']}"


def new_instance(server, cluster, name="primary", kind="PRIMARY", **more):
    body = {"instanceType": kind, "machineConfig": {"cpuCount": 4}, **more}
    verb = ":createsecondary" if kind == "SECONDARY" else ""
    return response(server, server.post(f"{cluster}/instances{verb}?instanceId={name}", body))


def new_secondary(server, primary, region=EAST, **query):
    name = f"secondary-{next(_numbers)}"
    body = {"secondaryConfig": {"primaryClusterName": path(primary)}, "networkConfig": {"network": NETWORK}}
    made = server.post(f"{region}/clusters:createsecondary?clusterId={name}", body)
    assert made.body["metadata"]["verb"] == "createsecondary"
    return f"/alloydb/v1/{response(server, made)['name']}"


def path(url):
    return url.removeprefix("/alloydb/v1/")


@pytest.fixture
def pair(server):
    primary = new_cluster(server, continuousBackupConfig={"recoveryWindowDays": 7})
    new_instance(server, primary, databaseFlags={"work_mem": "8192"})
    secondary = new_secondary(server, primary)
    new_instance(server, secondary, kind="SECONDARY")
    return primary, secondary


# --- clusters ---


def test_a_cluster_has_its_defaults(server):
    cluster = server.get(new_cluster(server, automatedBackupPolicy={"labels": {"a": "b"}})).body
    policy = cluster["automatedBackupPolicy"]
    assert (policy["enabled"], policy["location"], policy["labels"]) == (False, "us-central1", {"a": "b"})
    assert policy["timeBasedRetention"] == {"retentionPeriod": "1209600s"}
    assert cluster["continuousBackupConfig"] == {"enabled": True, "recoveryWindowDays": 14}
    number = server.control.projects.number(PROJECT)
    assert cluster["network"] == cluster["networkConfig"]["network"] == NETWORK.replace(PROJECT, number)
    assert (cluster["clusterType"], cluster["state"], cluster["reconciling"]) == ("PRIMARY", "READY", False)
    assert "etag" not in cluster
    assert "initialUser" not in cluster


def test_retention_by_quantity_is_not_also_by_time(server):
    cluster = new_cluster(server, automatedBackupPolicy={"quantityBasedRetention": {"count": 3}})
    assert "timeBasedRetention" not in server.get(cluster).body["automatedBackupPolicy"]


@pytest.mark.parametrize(
    "body",
    [
        {"networkConfig": {}},
        {"continuousBackupConfig": {"recoveryWindowDays": 36}},
        {"automatedBackupPolicy": {"backupWindow": "60s"}},
        {"databaseVersion": "POSTGRES_99"},
    ],
)
def test_a_cluster_that_the_service_would_not_make_is_refused(server, body):
    made = server.post(f"{CENTRAL}/clusters?clusterId=refused", {"networkConfig": {"network": NETWORK}, **body})
    assert made.status == 400
    assert server.get(f"{CENTRAL}/clusters/refused").status == 404


def test_turning_continuous_backup_off_ends_what_can_be_restored(server):
    cluster = new_cluster(server)
    assert "earliestRestorableTime" in server.get(cluster).body["continuousBackupInfo"]
    off = {"continuousBackupConfig": {"enabled": False}}
    done(server, server.patch(f"{cluster}?updateMask=continuousBackupConfig.enabled", off))
    assert "continuousBackupInfo" not in server.get(cluster).body


def test_a_cluster_with_instances_is_deleted_by_force_alone(server):
    cluster = new_cluster(server)
    new_instance(server, cluster)
    assert server.delete(cluster).status == 400
    done(server, server.delete(f"{cluster}?force=true"))
    assert server.get(f"{cluster}/instances/primary").status == 404


def test_users_do_not_keep_a_cluster(server):
    cluster = new_cluster(server)
    assert server.post(f"{cluster}/users?userId=app", {"password": "secret"}).status == 200
    done(server, server.delete(cluster))


# --- secondary clusters ---


def test_a_secondary_cluster_takes_over_what_its_primary_has(server, pair):
    primary, secondary = pair
    body = server.get(secondary).body
    assert body["clusterType"] == "SECONDARY"
    assert body["continuousBackupConfig"]["recoveryWindowDays"] == 7
    assert body["automatedBackupPolicy"]["location"] == "us-east1"
    assert server.get(primary).body["primaryConfig"] == {"secondaryClusterNames": [path(secondary)]}
    instance = server.get(f"{secondary}/instances/primary").body
    assert instance["databaseFlags"] == {"work_mem": "8192"}
    assert "writableNode" not in instance


def test_a_secondary_cluster_lies_in_another_region_and_follows_a_primary_one(server, pair):
    primary, secondary = pair
    body = {"secondaryConfig": {"primaryClusterName": path(primary)}, "networkConfig": {"network": NETWORK}}
    assert server.post(f"{CENTRAL}/clusters:createsecondary?clusterId=near", body).status == 400
    body["secondaryConfig"] = {"primaryClusterName": path(secondary)}
    assert server.post(f"{CENTRAL}/clusters:createsecondary?clusterId=far", body).status == 400
    assert server.post(f"{CENTRAL}/clusters:createsecondary?clusterId=none", {}).status == 400


def test_a_switchover_changes_both_roles(server, pair):
    primary, secondary = pair
    third = new_secondary(server, primary, f"{PARENT}/europe-west1")
    assert server.post(f"{primary}:switchover", {}).status == 400
    response(server, server.post(f"{secondary}:switchover", {}))
    new, old = server.get(secondary).body, server.get(primary).body
    assert (new["clusterType"], old["clusterType"]) == ("PRIMARY", "SECONDARY")
    assert set(new["primaryConfig"]["secondaryClusterNames"]) == {path(primary), path(third)}
    assert old["secondaryConfig"] == {"primaryClusterName": path(secondary)}
    assert "secondaryConfig" not in new
    assert "primaryConfig" not in old
    roles = [server.get(f"{cluster}/instances/primary").body for cluster in (secondary, primary)]
    assert [role["instanceType"] for role in roles] == ["PRIMARY", "SECONDARY"]
    assert ["writableNode" in role for role in roles] == [True, False]
    response(server, server.post(f"{primary}:switchover", {}))
    assert server.get(primary).body["clusterType"] == "PRIMARY"


def test_a_promotion_makes_a_cluster_of_its_own(server, pair):
    primary, secondary = pair
    promoted = response(server, server.post(f"{secondary}:promote", {}))
    assert (promoted["clusterType"], promoted["state"]) == ("PRIMARY", "READY")
    assert server.get(primary).body["clusterType"] == "PRIMARY"
    assert "primaryConfig" not in server.get(primary).body
    assert server.get(f"{secondary}/instances/primary").body["instanceType"] == "PRIMARY"
    assert server.post(f"{secondary}:promote", {}).status == 400


def test_a_promotion_with_failover_makes_the_old_primary_a_secondary(server, pair):
    primary, secondary = pair
    response(server, server.post(f"{secondary}:promote".replace("v1", "v1beta"), {"failover": True}))
    assert server.get(primary).body["secondaryConfig"] == {"primaryClusterName": path(secondary)}


@pytest.mark.parametrize("verb", ["promote", "switchover"])
def test_a_change_of_roles_that_is_only_validated_changes_nothing(server, pair, verb):
    _, secondary = pair
    before = [server.get(cluster).body["clusterType"] for cluster in pair]
    validated = server.post(f"{secondary}:{verb}", {"validateOnly": True}).body
    assert validated["done"]
    assert validated["response"]["clusterType"] == "PRIMARY"
    assert [server.get(cluster).body["clusterType"] for cluster in pair] == before


def test_a_promotion_that_fails_leaves_the_roles(server, pair):
    _, secondary = pair
    server.inject(faults=[{"method": "alloydb.*.clusters.promote", "answer": "operation", "message": "no"}])
    polled = done(server, server.post(f"{secondary}:promote", {}))
    server.inject()
    assert polled["error"]["message"] == "no"
    body = server.get(secondary).body
    assert (body["clusterType"], body["state"]) == ("SECONDARY", "READY")


def test_a_primary_cluster_is_not_deleted_while_others_follow_it(server, pair):
    primary, secondary = pair
    assert server.delete(f"{primary}?force=true").status == 400
    assert server.delete(f"{secondary}/instances/primary").status == 400
    done(server, server.delete(f"{secondary}?force=true"))
    done(server, server.delete(f"{primary}?force=true"))


def test_an_upgrade_goes_to_a_later_version_with_those_that_follow(server, pair):
    primary, secondary = pair
    assert server.patch(f"{primary}:upgrade", {"version": "POSTGRES_15"}).status == 400
    assert server.patch(f"{secondary}:upgrade", {"version": "POSTGRES_17"}).status == 400
    answer = response(server, server.patch(f"{primary}:upgrade", {"version": "POSTGRES_17"}))
    assert (answer["status"], len(answer["clusterUpgradeDetails"])) == ("SUCCESS", 2)
    for cluster in pair:
        assert server.get(cluster).body["databaseVersion"] == "POSTGRES_17"
    assert server.get(f"{primary}/instances/primary").body["maintenanceVersionName"].startswith("POSTGRES_17.")


# --- backups ---


def test_a_backup_is_restored_into_a_new_cluster(server):
    cluster = new_cluster(server, databaseVersion="POSTGRES_17")
    name = f"backup-{next(_numbers)}"
    backup = response(server, server.post(f"{CENTRAL}/backups?backupId={name}", {"clusterName": path(cluster)}))
    assert (backup["type"], backup["databaseVersion"]) == ("ON_DEMAND", "POSTGRES_17")
    assert backup["clusterUid"] == server.get(cluster).body["uid"]
    assert backup["expiryTime"] > backup["createTime"]
    done(server, server.delete(cluster))
    wanted = {"clusterId": f"{name}-restored", "cluster": {}, "backupSource": {"backupName": backup["name"]}}
    wanted["cluster"] = {"networkConfig": {"network": NETWORK}}
    made = server.post(f"{CENTRAL}/clusters:restore", wanted)
    assert made.body["metadata"]["verb"] == "create"
    restored = response(server, made)
    assert restored["backupSource"]["backupUid"] == backup["uid"]
    assert restored["databaseVersion"] == "POSTGRES_17"
    assert server.post(f"{CENTRAL}/clusters:restore", wanted).status == 409


def test_a_cluster_is_restored_at_a_point_in_time_that_its_backup_reaches(server):
    cluster = new_cluster(server)
    earliest = server.get(cluster).body["continuousBackupInfo"]["earliestRestorableTime"]
    wanted = {"clusterId": f"restored-{next(_numbers)}", "cluster": {}}
    wanted["continuousBackupSource"] = {"cluster": path(cluster), "pointInTime": "2020-01-01T00:00:00Z"}
    assert "between" in server.post(f"{CENTRAL}/clusters:restore", wanted).message
    wanted["continuousBackupSource"]["pointInTime"] = earliest
    validated = server.post(f"{CENTRAL}/clusters:restore", {**wanted, "validateOnly": True})
    assert validated.body["done"]
    assert server.get(f"{CENTRAL}/clusters/{wanted['clusterId']}").status == 404
    assert response(server, server.post(f"{CENTRAL}/clusters:restore", wanted))["network"].endswith("/database")


def test_a_restore_needs_one_source_that_exists(server):
    cluster = {"networkConfig": {"network": NETWORK}}
    assert server.post(f"{CENTRAL}/clusters:restore", {"clusterId": "r", "cluster": cluster}).status == 400
    source = {"backupName": path(f"{CENTRAL}/backups/none")}
    wanted = {"clusterId": "r", "cluster": cluster, "backupSource": source}
    assert server.post(f"{CENTRAL}/clusters:restore", wanted).status == 404


# --- instances ---


def test_an_instance_has_its_defaults(server):
    cluster = new_cluster(server)
    instance = new_instance(server, cluster, machineConfig={"machineType": "n2-highmem-8"})
    assert instance["machineConfig"] == {"machineType": "n2-highmem-8", "cpuCount": 8}
    assert instance["availabilityType"] == "REGIONAL"
    assert instance["clientConnectionConfig"] == {"sslConfig": {"sslMode": "ENCRYPTED_ONLY"}}
    assert instance["writableNode"]["zoneId"] != instance["nodes"][0]["zoneId"]


@pytest.mark.parametrize(
    "body",
    [
        {"machineConfig": {"cpuCount": 3}},
        {"machineConfig": {"cpuCount": 4, "machineType": "n2-highmem-8"}},
        {"gceZone": "us-central1-a"},
        {"gceZone": "us-east1-b", "availabilityType": "ZONAL"},
        {"databaseFlags": {"no.such_flag": "on"}},
        {"databaseFlags": {"max_connections": "many"}},
        {"databaseFlags": {"max_connections": "0"}},
        {"databaseFlags": {"alloydb.logical_decoding": "maybe"}},
        {"databaseFlags": {"transaction_timeout": "5"}},
        {"instanceType": "READ_POOL", "readPoolConfig": {"nodeCount": 1}},
        {"instanceType": "SECONDARY"},
    ],
)
def test_an_instance_that_the_service_would_not_make_is_refused(server, body):
    cluster = new_cluster(server)
    made = server.post(f"{cluster}/instances?instanceId=i", {"instanceType": "PRIMARY", **body})
    assert made.status == 400
    assert "instances" not in server.get(f"{cluster}/instances").body


def test_a_cluster_has_one_primary_instance_and_read_pools(server):
    cluster = new_cluster(server)
    new_instance(server, cluster)
    again = server.post(f"{cluster}/instances?instanceId=second", {"instanceType": "PRIMARY"})
    assert "already has a PRIMARY instance" in again.message
    assert server.post(f"{cluster}/instances?instanceId=pool", {"instanceType": "READ_POOL"}).status == 400
    pool = new_instance(server, cluster, "pool", "READ_POOL", readPoolConfig={"nodeCount": 3})
    assert len(pool["nodes"]) == 3
    assert "availabilityType" not in pool
    assert server.delete(f"{cluster}/instances/primary").status == 400
    bigger = {"readPoolConfig": {"nodeCount": 5}}
    changed = response(server, server.patch(f"{cluster}/instances/pool?updateMask=readPoolConfig.nodeCount", bigger))
    assert len(changed["nodes"]) == 5


def test_an_instance_needs_private_services_access_of_a_network_that_is_here(server):
    made = server.post(f"/compute/v1/projects/{PROJECT}/global/networks", {"name": "lonely"})
    assert made.status == 200, made.body
    network = f"projects/{PROJECT}/global/networks/lonely"
    cluster = new_cluster(server, networkConfig={"network": network})
    refused = server.post(f"{cluster}/instances?instanceId=i", {"instanceType": "PRIMARY"})
    assert "private services access" in refused.message
    cluster = new_cluster(server, networkConfig={}, pscConfig={"pscEnabled": True})
    assert new_instance(server, cluster)["pscInstanceConfig"]["pscDnsName"].endswith(".alloydb-psc.goog.")


def test_a_failover_puts_the_standby_in_the_primarys_place(server):
    cluster = new_cluster(server)
    before = new_instance(server, cluster)
    response(server, server.post(f"{cluster}/instances/primary:failover", {}))
    after = server.get(f"{cluster}/instances/primary").body
    assert after["writableNode"] == before["nodes"][0]
    assert after["nodes"] == [before["writableNode"]]
    response(server, server.post(f"{cluster}/instances/primary:injectFault", {"faultType": "STOP_VM"}))
    assert server.get(f"{cluster}/instances/primary").body["writableNode"] == before["writableNode"]


def test_only_an_instance_with_a_standby_fails_over(server):
    cluster = new_cluster(server)
    zonal = new_instance(server, cluster, availabilityType="ZONAL", gceZone="us-central1-f")
    assert zonal["writableNode"] == {"zoneId": "us-central1-f"}
    assert "nodes" not in zonal
    assert server.post(f"{cluster}/instances/primary:failover", {}).status == 400
    assert response(server, server.post(f"{cluster}/instances/primary:restart", {}))["state"] == "READY"


def test_an_instance_is_stopped_and_started_by_its_policy(server):
    cluster = new_cluster(server)
    new_instance(server, cluster)
    instance = f"{cluster}/instances/primary"
    for policy, state in (("NEVER", "STOPPED"), ("ALWAYS", "READY")):
        change = {"activationPolicy": policy}
        assert response(server, server.patch(f"{instance}?updateMask=activationPolicy", change))["state"] == state
    done(server, server.patch(f"{instance}?updateMask=activationPolicy", {"activationPolicy": "NEVER"}))
    assert server.post(f"{instance}:restart", {}).status == 400


def test_public_addresses_come_and_go_with_their_switches(server):
    cluster = new_cluster(server)
    network = {"enablePublicIp": True, "enableOutboundPublicIp": True}
    instance = new_instance(server, cluster, networkConfig=network)
    assert len(instance["outboundPublicIpAddresses"]) == 2
    url = f"{cluster}/instances/primary"
    assert server.get(f"{url}/connectionInfo").body["publicIpAddress"] == instance["publicIpAddress"]
    done(server, server.patch(f"{url}?updateMask=networkConfig", {"networkConfig": {}}))
    changed = server.get(url).body
    assert not {"publicIpAddress", "outboundPublicIpAddresses"} & set(changed)


# --- users and flags ---


def test_a_user_that_is_made_again_is_changed(server):
    cluster = new_cluster(server)
    url = f"{cluster}/users?userId=someone@example.com"
    first = server.post(url, {"userType": "ALLOYDB_IAM_USER"}).body
    assert first["databaseRoles"] == ["alloydbiamuser"]
    kept = server.post(url, {"userType": "ALLOYDB_IAM_USER", "databaseRoles": ["pg_monitor"], "keepExtraRoles": True})
    assert kept.body["databaseRoles"] == ["alloydbiamuser", "pg_monitor"]
    assert server.post(url, {"userType": "ALLOYDB_IAM_USER"}).body["databaseRoles"] == ["alloydbiamuser"]


def test_the_supported_flags_say_what_a_value_may_be_and_what_restarts(server):
    listed = server.get(f"{CENTRAL}/supportedDatabaseFlags?pageSize=1000").body["supportedDatabaseFlags"]
    flags = {flag["flagName"]: flag for flag in listed}
    assert flags["alloydb.logical_decoding"]["requiresDbRestart"]
    assert flags["alloydb.logical_decoding"]["stringRestrictions"]["allowedValues"] == ["on", "off"]
    assert flags["max_connections"]["integerRestrictions"]["minValue"] == "1"
    assert flags["transaction_timeout"]["supportedDbVersions"] == ["POSTGRES_17", "POSTGRES_18"]
    first = server.get(f"{CENTRAL}/supportedDatabaseFlags?pageSize=10").body
    assert len(first["supportedDatabaseFlags"]) == 10
    assert first["nextPageToken"]
    pool = server.get(f"{CENTRAL}/supportedDatabaseFlags?scope=CONNECTION_POOL").body["supportedDatabaseFlags"]
    assert {flag["scope"] for flag in pool} == {"CONNECTION_POOL"}
