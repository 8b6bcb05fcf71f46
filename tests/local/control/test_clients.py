"""Google's own clients, unmodified, against the control plane."""

from __future__ import annotations

import pytest
from control_plane import PROJECT, TOKEN
from google.api_core import exceptions
from google.cloud import alloydb_v1, resourcemanager_v3, run_v2, workstations_v1
from google.oauth2.credentials import Credentials
from googleapiclient.errors import HttpError

REGION = f"projects/{PROJECT}/locations/us-central1"
NETWORK = f"projects/{PROJECT}/global/networks/clients-net"
TIMEOUT_SECONDS = 20


def typed(client, server, service):
    options = {"api_endpoint": f"{server.url}/{service}"}
    return client(transport="rest", credentials=Credentials(TOKEN), client_options=options)


@pytest.fixture(scope="module")
def network(server):
    body = {"name": "clients-net", "autoCreateSubnetworks": False}
    server.client("compute", "v1").networks().insert(project=PROJECT, body=body).execute()
    return NETWORK


def test_the_discovery_client_creates_finds_and_deletes(server):
    networks = server.client("compute", "v1").networks()
    started = networks.insert(project=PROJECT, body={"name": "other-net", "autoCreateSubnetworks": False}).execute()
    operations = server.client("compute", "v1").globalOperations()
    assert operations.wait(project=PROJECT, operation=started["name"]).execute()["status"] == "DONE"
    assert networks.get(project=PROJECT, network="other-net").execute()["id"] == started["targetId"]
    listed = networks.list(project=PROJECT, filter="name=other-net").execute()["items"]
    assert [item["name"] for item in listed] == ["other-net"]
    networks.delete(project=PROJECT, network="other-net").execute()
    with pytest.raises(HttpError) as caught:
        networks.get(project=PROJECT, network="other-net").execute()
    assert caught.value.status_code == 404
    assert "was not found" in caught.value.reason


def test_the_discovery_client_follows_pages(fresh):
    secrets = fresh.client("secretmanager", "v1").projects().secrets()
    for number in range(5):
        body = {"replication": {"automatic": {}}}
        secrets.create(parent=f"projects/{PROJECT}", secretId=f"s{number}", body=body).execute()
    request, seen = secrets.list(parent=f"projects/{PROJECT}", pageSize=2), []
    while request is not None:
        answer = request.execute()
        seen += [secret["name"].rsplit("/", 1)[1] for secret in answer["secrets"]]
        request = secrets.list_next(request, answer)
    assert seen == [f"s{number}" for number in range(5)]


def test_alloydb(server, network):
    client = typed(alloydb_v1.AlloyDBAdminClient, server, "alloydb")
    wanted = alloydb_v1.Cluster(
        network_config={"network": network}, database_version=alloydb_v1.DatabaseVersion.POSTGRES_16
    )
    made = client.create_cluster(parent=REGION, cluster_id="typed", cluster=wanted).result(timeout=TIMEOUT_SECONDS)
    assert made.state == alloydb_v1.Cluster.State.READY
    assert made.database_version == alloydb_v1.DatabaseVersion.POSTGRES_16
    assert made.name in [cluster.name for cluster in client.list_clusters(parent=f"projects/{PROJECT}/locations/-")]
    made.labels["team"] = "memory"
    changed = client.update_cluster(cluster=made, update_mask="labels").result(timeout=TIMEOUT_SECONDS)
    assert changed.labels == {"team": "memory"}
    with pytest.raises(exceptions.Conflict):
        client.create_cluster(parent=REGION, cluster_id="typed", cluster=wanted)
    client.delete_cluster(name=made.name).result(timeout=TIMEOUT_SECONDS)
    with pytest.raises(exceptions.NotFound):
        client.get_cluster(name=made.name)


def test_workstations(server, network):
    client = typed(workstations_v1.WorkstationsClient, server, "workstations")
    wanted = workstations_v1.WorkstationCluster(network=network, subnetwork="any")
    parent = client.create_workstation_cluster(
        parent=REGION, workstation_cluster_id="typed", workstation_cluster=wanted
    ).result(timeout=TIMEOUT_SECONDS)
    config = workstations_v1.WorkstationConfig(idle_timeout="1200s")
    made = client.create_workstation_config(
        parent=parent.name, workstation_config_id="typed", workstation_config=config
    ).result(timeout=TIMEOUT_SECONDS)
    assert made.name == f"{parent.name}/workstationConfigs/typed"
    assert made.idle_timeout.total_seconds() == 1200
    assert [found.name for found in client.list_workstation_configs(parent=parent.name)] == [made.name]


def test_run(server):
    client = typed(run_v2.ServicesClient, server, "run")
    wanted = run_v2.Service(template={"containers": [{"image": "us-docker.pkg.dev/cloudrun/container/hello"}]})
    started = client.create_service(parent=REGION, service_id="typed", service=wanted)
    assert started.metadata.name == f"{REGION}/services/typed"
    made = started.result(timeout=TIMEOUT_SECONDS)
    assert made.generation == 1
    gone = client.delete_service(name=made.name).result(timeout=TIMEOUT_SECONDS)
    assert gone.delete_time
    with pytest.raises(exceptions.NotFound):
        client.get_service(name=made.name)


def test_resource_manager(server):
    client = typed(resourcemanager_v3.ProjectsClient, server, "cloudresourcemanager")
    found = client.get_project(name=f"projects/{PROJECT}")
    assert (found.project_id, found.state) == (PROJECT, resourcemanager_v3.Project.State.ACTIVE)
    with pytest.raises(exceptions.Forbidden):
        client.get_project(name="projects/unknown-project")


def test_faults_arrive_as_the_exceptions_of_the_client(server):
    client = typed(alloydb_v1.AlloyDBAdminClient, server, "alloydb")
    bad = alloydb_v1.Cluster(name="x")
    server.inject(missing_permissions=[{"permissions": ["alloydb.clusters.create"]}])
    with pytest.raises(exceptions.Forbidden) as caught:
        client.create_cluster(parent=REGION, cluster_id="denied", cluster=bad)
    assert caught.value.reason == "IAM_PERMISSION_DENIED"
    server.inject(faults=[{"method": "alloydb.*.clusters.get", "answer": 429}])
    with pytest.raises(exceptions.TooManyRequests):
        client.get_cluster(name=f"{REGION}/clusters/any", retry=None)
