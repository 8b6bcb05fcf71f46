"""Resource Manager over HTTP: projects in both versions, folders, liens, tags, policies."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

API = "/cloudresourcemanager"
_numbers = count(1)


def project_id():
    return f"project-{next(_numbers):04d}"


def done(server, reply):
    assert reply.status == 200, reply.body
    operation = server.get(f"{API}/v3/{reply.body['name']}").body
    assert operation["done"] is True
    return operation


def organization(server):
    return f"organizations/{server.control.organization.id}"


def folder(server, parent=None, name=None):
    """The name of a new folder."""
    body = {"parent": parent or organization(server), "displayName": name or f"Folder {next(_numbers)}"}
    return done(server, server.post(f"{API}/v3/folders", body))["response"]["name"]


def project(server, **body):
    """The id of a new project."""
    identifier = project_id()
    done(server, server.post(f"{API}/v3/projects", {"projectId": identifier, **body}))
    return identifier


def test_both_versions_show_one_project(server):
    identifier = project(server, displayName="Mine", labels={"a": "b"})
    three, one = (server.get(f"{API}/{version}/projects/{identifier}").body for version in ("v3", "v1"))
    assert three["name"] == f"projects/{one['projectNumber']}"
    assert (three["displayName"], three["state"], three["labels"]) == ("Mine", "ACTIVE", {"a": "b"})
    assert (one["name"], one["lifecycleState"], one["labels"]) == ("Mine", "ACTIVE", {"a": "b"})
    assert f"{one['parent']['type']}s/{one['parent']['id']}" == three["parent"] == organization(server)
    assert server.get(f"{API}/v1/projects/{one['projectNumber']}").body == one


def test_the_first_answer_to_a_create_is_the_name_of_its_operation(server):
    reply = server.post(f"{API}/v1/projects", {"projectId": project_id(), "name": "x"})
    assert set(reply.body) == {"name"}
    operation = server.get(f"{API}/v1/{reply.body['name']}").body
    assert operation["metadata"]["gettable"] is operation["metadata"]["ready"] is True
    assert operation["response"]["lifecycleState"] == "ACTIVE"


def test_who_creates_a_project_owns_it(server):
    policy = server.post(f"{API}/v3/projects/{project(server)}:getIamPolicy").body
    owner = f"user:{server.control.organization.operator}"
    assert policy["bindings"] == [{"role": "roles/owner", "members": [owner]}]


@pytest.mark.parametrize(
    "path", ["v1/projects/unknown-x", "v3/projects/unknown-x", "v3/folders/1", "v3/organizations/1"]
)
def test_what_does_not_exist_is_denied(server, path):
    reply = server.get(f"{API}/{path}")
    assert (reply.status, reply.message) == (403, "The caller does not have permission")


def test_a_project_below_a_parent_that_is_not_there_is_denied(server):
    reply = server.post(f"{API}/v3/projects", {"projectId": project_id(), "parent": "folders/1"})
    assert reply.status == 403


@pytest.mark.parametrize("wrong", ["short", "Capital-letters", "1-starts-with-a-digit", "ends-with-dash-", "x" * 31])
def test_an_id_that_is_none_is_refused(server, wrong):
    assert server.post(f"{API}/v3/projects", {"projectId": wrong}).status == 400


def test_version_1_replaces_name_and_labels(server):
    identifier = project(server, displayName="Old", labels={"a": "b"})
    changed = server.send("PUT", f"{API}/v1/projects/{identifier}", {"name": "New"}).body
    assert changed["name"] == "New"
    assert "labels" not in changed


def test_a_deleted_project_is_still_seen_and_comes_back(server):
    identifier = project(server)
    operation = server.delete(f"{API}/v3/projects/{identifier}").body
    assert operation["done"] is True
    assert operation["response"]["state"] == "DELETE_REQUESTED"
    assert server.get(f"{API}/v1/projects/{identifier}").body["lifecycleState"] == "DELETE_REQUESTED"
    assert server.delete(f"{API}/v3/projects/{identifier}").status == 400
    done(server, server.post(f"{API}/v3/projects/{identifier}:undelete"))
    shown = server.get(f"{API}/v3/projects/{identifier}").body
    assert shown["state"] == "ACTIVE"
    assert "deleteTime" not in shown


def test_a_lien_holds_a_project(server):
    identifier = project(server)
    body = {"parent": f"projects/{identifier}", "restrictions": ["resourcemanager.projects.delete"], "origin": "audit"}
    lien = server.post(f"{API}/v3/liens", body).body
    assert lien["name"].startswith("liens/p")
    assert server.get(f"{API}/v3/liens?parent=projects/{identifier}").body["liens"] == [lien]
    refused = server.delete(f"{API}/v3/projects/{identifier}")
    assert refused.body["error"]["status"] == "FAILED_PRECONDITION"
    assert "placed on the project by [audit]" in refused.message
    assert server.delete(f"{API}/v3/{lien['name']}").status == 200
    assert server.delete(f"{API}/v3/projects/{identifier}").status == 200


def test_folders_are_found_by_their_parent_and_their_name(server):
    top = folder(server)
    below = folder(server, top, "Below it")
    query = f'state=ACTIVE AND parent={top} AND displayName="Below it"'.replace(" ", "+").replace('"', "%22")
    found = server.get(f"{API}/v3/folders:search?query={query}").body["folders"]
    assert [row["name"] for row in found] == [below]
    assert [row["name"] for row in server.get(f"{API}/v3/folders?parent={top}").body["folders"]] == [below]
    assert server.get(f"{API}/v3/folders?parent={below}").body == {}
    assert server.get(f"{API}/v3/folders").status == 400


def test_siblings_have_different_names(server):
    top = folder(server)
    folder(server, top, "Twins")
    refused = server.post(f"{API}/v3/folders", {"parent": top, "displayName": "Twins"})
    assert refused.body["error"]["status"] == "FAILED_PRECONDITION"


def test_a_folder_with_something_in_it_stays(server):
    top = folder(server)
    identifier = project(server, parent=top)
    assert server.delete(f"{API}/v3/{top}").status == 400
    elsewhere = folder(server)
    done(server, server.post(f"{API}/v3/projects/{identifier}:move", {"destinationParent": elsewhere}))
    assert server.get(f"{API}/v3/projects/{identifier}").body["parent"] == elsewhere
    operation = server.delete(f"{API}/v3/{top}").body
    assert operation["response"]["state"] == "DELETE_REQUESTED"


def test_a_folder_does_not_move_below_itself(server):
    top = folder(server)
    below = folder(server, top)
    refused = server.post(f"{API}/v3/{top}:move", {"destinationParent": below})
    assert refused.body["error"]["status"] == "FAILED_PRECONDITION"


def test_the_ancestry_of_a_project_ends_at_the_organisation(server):
    top = folder(server)
    identifier = project(server, parent=top)
    found = server.post(f"{API}/v1/projects/{identifier}:getAncestry").body["ancestor"]
    names = [f"{row['resourceId']['type']}s/{row['resourceId']['id']}" for row in found]
    assert names == [f"projects/{identifier}", top, organization(server)]


def test_projects_are_listed_by_filter_and_by_parent(server):
    top = folder(server)
    identifier = project(server, parent=top, labels={"only": "here"})
    project(server, parent=top)
    by_label = server.get(f"{API}/v1/projects?filter=labels.only:here").body["projects"]
    assert [row["projectId"] for row in by_label] == [identifier]
    assert len(server.get(f"{API}/v3/projects?parent={top}").body["projects"]) == 2
    found = server.get(f"{API}/v3/projects:search?query=parent:{top}").body["projects"]
    assert len(found) == 2


def test_the_organisation_is_found(server):
    name = organization(server)
    assert server.get(f"{API}/v3/organizations:search").body["organizations"][0]["name"] == name
    assert server.post(f"{API}/v1/organizations:search").body["organizations"][0]["lifecycleState"] == "ACTIVE"
    assert server.get(f"{API}/v3/{name}").body["displayName"] == server.control.organization.display_name


def test_tags_are_named_below_their_owner(server):
    owner = organization(server)
    key = done(server, server.post(f"{API}/v3/tagKeys", {"parent": owner, "shortName": "env"}))["response"]
    assert key.pop("@type").endswith(".v3.TagKey")
    assert key["namespacedName"] == f"{owner.split('/')[1]}/env"
    body = {"parent": key["name"], "shortName": "prod"}
    value = done(server, server.post(f"{API}/v3/tagValues", body))["response"]
    assert value.pop("@type").endswith(".v3.TagValue")
    assert value["namespacedName"] == f"{key['namespacedName']}/prod"
    assert server.post(f"{API}/v3/tagValues", body).status == 409
    assert server.get(f"{API}/v3/tagValues?parent={key['name']}").body["tagValues"] == [value]
    assert server.get(f"{API}/v3/tagKeys/namespaced?name={key['namespacedName']}").body == key
    assert server.delete(f"{API}/v3/{key['name']}").status == 400
    done(server, server.delete(f"{API}/v3/{value['name']}"))
    done(server, server.delete(f"{API}/v3/{key['name']}"))


def test_a_policy_has_version_3_only_with_conditions(server):
    path = f"{API}/v3/projects/{PROJECT}"
    binding = {"role": "roles/viewer", "members": ["user:a@example.com"]}
    plain = server.post(f"{path}:setIamPolicy", {"policy": {"version": 3, "bindings": [binding]}}).body
    assert plain["version"] == 1
    condition = {"title": "t", "expression": "true"}
    policy = {"version": 3, "bindings": [{**binding, "condition": condition}], "etag": plain["etag"]}
    assert server.post(f"{path}:setIamPolicy", {"policy": policy}).body["version"] == 3
