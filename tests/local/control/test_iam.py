"""IAM: accounts that go and come back, keys that nobody gets, roles, federation, deny policies."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

from orchestra_lib.local.control.services.iam_roles import ROLES

ACCOUNTS = f"/iam/v1/projects/{PROJECT}/serviceAccounts"
ROLES_PATH = f"/iam/v1/projects/{PROJECT}/roles"
POOLS = f"/iam/v1/projects/{PROJECT}/locations/global/workloadIdentityPools"
GITHUB = "https://token.actions.githubusercontent.com"
_numbers = count(1)


def new_account(server, **body):
    made = server.post(ACCOUNTS, {"accountId": f"account-{next(_numbers)}", "serviceAccount": body})
    assert made.status == 200, made.body
    return made.body


def done(server, operation):
    assert operation.status == 200, operation.body
    polled = server.get(f"/iam/v1/{operation.body['name']}").body
    assert polled["done"], polled
    return polled


# --- service accounts ---


def test_an_account_is_its_address_and_has_a_number(server):
    account = new_account(server, displayName="Deployer")
    assert account["email"] == account["name"].rsplit("/", 1)[1]
    assert account["email"].endswith(f"@{PROJECT}.iam.gserviceaccount.com")
    assert len(account["uniqueId"]) == 21
    assert account["oauth2ClientId"] == account["uniqueId"]


@pytest.mark.parametrize("path", ["projects/-/serviceAccounts/{email}", "projects/-/serviceAccounts/{uniqueId}"])
def test_an_account_is_found_in_any_project_by_address_and_number(server, path):
    account = new_account(server)
    assert server.get("/iam/v1/" + path.format(**account)).body == account
    assert server.get(f"{ACCOUNTS}/{account['uniqueId']}").body == account


@pytest.mark.parametrize("account_id", ["short", "a" * 31, "Capital-letters", "ends-in-hyphen-", "1-starts-wrong"])
def test_an_account_id_that_is_none_is_refused(server, account_id):
    refused = server.post(ACCOUNTS, {"accountId": account_id, "serviceAccount": {}})
    assert refused.status == 400
    assert account_id in refused.message


def test_the_same_address_twice_is_refused(server):
    account = new_account(server)
    refused = server.post(ACCOUNTS, {"accountId": account["email"].split("@")[0]})
    words = f"Service account {account['email']} already exists within project projects/{PROJECT}."
    assert (refused.status, refused.message) == (409, words)


def test_an_account_is_disabled_and_enabled(server):
    account = new_account(server)
    assert server.post(f"{ACCOUNTS}/{account['email']}:disable").body == {}
    assert server.get(f"{ACCOUNTS}/{account['email']}").body["disabled"] is True
    assert server.post(f"{ACCOUNTS}/{account['email']}:enable").body == {}
    assert server.get(f"{ACCOUNTS}/{account['email']}").body == account


def test_a_patch_touches_what_its_mask_names(server):
    account = new_account(server, displayName="a", description="b")
    body = {"serviceAccount": {"displayName": "c", "description": "d"}, "updateMask": "display_name"}
    assert server.patch(f"{ACCOUNTS}/{account['email']}", body).status == 200
    changed = server.get(f"{ACCOUNTS}/{account['email']}").body
    assert (changed["displayName"], changed["description"]) == ("c", "b")
    assert changed["uniqueId"] == account["uniqueId"]


def test_a_deleted_account_comes_back_by_its_number(server):
    account = new_account(server, description="back")
    path = f"{ACCOUNTS}/{account['email']}"
    assert server.get(f"{ACCOUNTS}/nobody@{PROJECT}.iam.gserviceaccount.com").message == "Unknown service account"
    assert server.delete(path).body == {}
    gone = server.get(path)
    assert (gone.status, gone.message) == (404, f"Service account {account['name']} does not exist.")
    assert account not in server.get(ACCOUNTS).body["accounts"]
    restored = server.post(f"{ACCOUNTS}/{account['uniqueId']}:undelete")
    assert restored.body == {"restoredAccount": account}
    assert server.get(path).body == account


def test_an_address_that_was_taken_again_keeps_the_old_account_away(server):
    account = new_account(server)
    server.delete(f"{ACCOUNTS}/{account['email']}")
    again = server.post(ACCOUNTS, {"accountId": account["email"].split("@")[0]}).body
    assert again["uniqueId"] != account["uniqueId"]
    assert server.post(f"{ACCOUNTS}/{account['uniqueId']}:undelete").status == 409


def test_compute_engine_has_made_its_account(server):
    number = server.control.projects.number(PROJECT)
    path = f"/iam/v1/projects/-/serviceAccounts/{number}-compute@developer.gserviceaccount.com"
    assert server.get(path).body["projectId"] == PROJECT
    emails = [account["email"] for account in server.get(ACCOUNTS).body["accounts"]]
    assert f"{number}-compute@developer.gserviceaccount.com" in emails


def test_the_policy_of_an_account_is_kept(server):
    path = f"{ACCOUNTS}/{new_account(server)['email']}"
    binding = {"role": "roles/iam.workloadIdentityUser", "members": ["principalSet://iam.googleapis.com/x"]}
    current = server.post(f"{path}:getIamPolicy").body
    server.post(f"{path}:setIamPolicy", {"policy": {"etag": current["etag"], "bindings": [binding]}})
    assert server.post(f"{path}:getIamPolicy").body["bindings"] == [binding]
    asked = {"permissions": ["iam.serviceAccounts.actAs"]}
    assert server.post(f"{path}:testIamPermissions", asked).body == asked


# --- keys ---


@pytest.mark.parametrize(
    ("path", "constraint"),
    [
        ("keys", "constraints/iam.disableServiceAccountKeyCreation"),
        ("keys:upload", "constraints/iam.disableServiceAccountKeyUpload"),
    ],
)
def test_nobody_gets_a_key(server, path, constraint):
    account = new_account(server)
    refused = server.post(f"{ACCOUNTS}/{account['email']}/{path}", {})
    error = refused.body["error"]
    assert (refused.status, error["status"]) == (400, "FAILED_PRECONDITION")
    violation = error["details"][0]["violations"][0]
    assert violation["type"] == constraint
    assert violation["subject"] == f"{account['name']}?configvalue={account['email'].replace('@', '%40')}"


def test_the_only_key_is_googles_and_stays(server):
    path = f"{ACCOUNTS}/{new_account(server)['email']}/keys"
    (key,) = server.get(path).body["keys"]
    assert (key["keyType"], key["keyOrigin"]) == ("SYSTEM_MANAGED", "GOOGLE_PROVIDED")
    assert server.get(f"{path}?keyTypes=USER_MANAGED").body == {}
    assert server.get(f"/iam/v1/{key['name']}").body == key
    assert server.delete(f"/iam/v1/{key['name']}").status == 400


# --- roles ---


def test_predefined_roles_say_what_they_include(server):
    role = server.get("/iam/v1/roles/alloydb.client").body
    assert role["stage"] == "GA"
    assert "alloydb.instances.connect" in role["includedPermissions"]
    listed = server.get("/iam/v1/roles?pageSize=1000").body["roles"]
    assert {entry["name"] for entry in listed} == {f"roles/{role.id}" for role in ROLES}
    assert all("includedPermissions" not in entry for entry in listed)
    assert server.get("/iam/v1/roles/no.such").message == "The role named roles/no.such was not found."


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.id)
def test_every_role_includes_something(server, role):
    included = server.get(f"/iam/v1/roles/{role.id}").body["includedPermissions"]
    assert included
    assert not any("*" in permission for permission in included)


def test_a_viewer_reads_and_does_not_write(server):
    included = server.get("/iam/v1/roles/run.viewer").body["includedPermissions"]
    assert "run.services.get" in included
    assert "run.services.create" not in included
    assert "resourcemanager.projects.delete" not in server.get("/iam/v1/roles/editor").body["includedPermissions"]


def test_a_custom_role_is_deleted_softly(server):
    role = {"title": "Small", "includedPermissions": ["run.services.get"], "stage": "ALPHA"}
    name = f"small{next(_numbers)}"
    made = server.post(ROLES_PATH, {"roleId": name, "role": role}).body
    assert made["name"] == f"projects/{PROJECT}/roles/{name}"
    assert "stage" not in made
    assert server.delete(f"{ROLES_PATH}/{name}").body["deleted"] is True
    assert made["name"] not in [entry["name"] for entry in server.get(ROLES_PATH).body.get("roles", [])]
    shown = server.get(f"{ROLES_PATH}?showDeleted=true&view=FULL").body["roles"]
    assert ["run.services.get"] in [entry["includedPermissions"] for entry in shown if entry["name"] == made["name"]]
    assert server.post(ROLES_PATH, {"roleId": name, "role": role}).status == 409
    assert "deleted" not in server.post(f"{ROLES_PATH}/{name}:undelete").body
    assert "deleted" not in server.get(f"{ROLES_PATH}/{name}").body


def test_roles_and_permissions_can_be_asked_for_a_resource(server):
    resource = {"fullResourceName": f"//cloudresourcemanager.googleapis.com/projects/{PROJECT}", "pageSize": 5}
    first = server.post("/iam/v1/roles:queryGrantableRoles", resource).body
    assert len(first["roles"]) == 5
    assert first["nextPageToken"]
    found = server.post("/iam/v1/permissions:queryTestablePermissions", {**resource, "pageSize": 1000}).body
    assert {"name", "stage"} <= set(found["permissions"][0])


# --- workload identity federation ---


@pytest.fixture
def pool(server):
    name = f"pool-{next(_numbers)}"
    done(server, server.post(f"{POOLS}?workloadIdentityPoolId={name}", {"displayName": "GitHub"}))
    return f"{POOLS}/{name}"


def provider(**more):
    return {
        "oidc": {"issuerUri": GITHUB},
        "attributeMapping": {"google.subject": "assertion.sub"},
        "attributeCondition": "assertion.repository_owner_id == '1'",
        **more,
    }


def test_a_pool_is_named_by_the_projects_number(server, pool):
    shown = server.get(pool).body
    assert shown["name"] == server.control.projects.numbered(pool.removeprefix("/iam/v1/"))
    assert shown["state"] == "ACTIVE"


def test_a_deleted_pool_is_seen_for_thirty_days_and_comes_back(server, pool):
    deleted = done(server, server.delete(pool))["response"]
    assert deleted["state"] == "DELETED"
    assert deleted["expireTime"]
    assert server.get(pool).body["state"] == "DELETED"
    name = pool.rsplit("/", 1)[1]
    assert server.post(f"{POOLS}?workloadIdentityPoolId={name}", {}).status == 409
    done(server, server.post(f"{pool}:undelete"))
    assert server.get(pool).body["state"] == "ACTIVE"
    assert "expireTime" not in server.get(pool).body


def test_a_provider_for_github_is_made_below_its_pool(server, pool):
    made = done(server, server.post(f"{pool}/providers?workloadIdentityPoolProviderId=github", provider()))["response"]
    assert made["state"] == "ACTIVE"
    assert made["oidc"] == {"issuerUri": GITHUB}
    done(server, server.patch(f"{pool}/providers/github?updateMask=disabled", {"disabled": True}))
    assert server.get(f"{pool}/providers/github").body["disabled"] is True


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (provider(attributeCondition=""), "must reference one of the provider's claims"),
        (provider(attributeCondition="true"), "must reference one of the provider's claims"),
        (provider(attributeMapping={"attribute.actor": "assertion.actor"}), "google.subject"),
        (provider(oidc={"issuerUri": "http://issuer.example"}), "https://"),
        (provider(aws={"accountId": "1"}), "Exactly one of"),
        (provider(displayName="x" * 33), "cannot exceed 32 characters"),
    ],
)
def test_a_provider_that_would_let_in_anybody_or_nobody_is_refused(server, pool, body, words):
    refused = server.post(f"{pool}/providers?workloadIdentityPoolProviderId=github", body)
    assert refused.status == 400
    assert words in refused.message


# --- deny policies ---


def test_a_deny_policy_is_done_at_once_and_attached_to_the_project(server):
    number = server.control.projects.number(PROJECT)
    attached = "/iam/v2/policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{}/denypolicies"
    rule = {"denyRule": {"deniedPrincipals": ["principalSet://goog/public:all"], "deniedPermissions": ["x/y.z"]}}
    made = server.post(f"{attached.format(PROJECT)}?policyId=no", {"displayName": "No", "rules": [rule]}).body
    assert made["done"] is True
    policy = made["response"]
    name = f"policies/cloudresourcemanager.googleapis.com%2Fprojects%2F{number}/denypolicies/no"
    assert (policy["name"], policy["kind"]) == (name, "DenyPolicy")
    by_number = f"{attached.format(number)}/no"
    assert server.get(by_number).body["rules"] == [rule]
    quoted_again = attached.format(PROJECT).replace("%2F", "%252F")
    assert server.get(f"{quoted_again}/no").body["uid"] == policy["uid"]
    listed = server.get(attached.format(PROJECT)).body["policies"]
    assert [("rules" in entry, entry["name"]) for entry in listed] == [(False, name)]
    changed = server.send("PUT", by_number, {**server.get(by_number).body, "displayName": "Never"}).body
    assert changed["response"]["displayName"] == "Never"
    assert server.delete(by_number).body["response"]["deleteTime"]
    assert server.get(by_number).message == f'Policy "{name}" not found.'
