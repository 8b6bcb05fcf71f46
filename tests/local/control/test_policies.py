"""IAM policies of resources: etag, version, conditions."""

from __future__ import annotations

import pytest
from control_plane import PROJECT

MEMBER = "user:somebody@example.com"
CONDITION = {"title": "until", "expression": "request.time < timestamp('2027-01-01T00:00:00Z')"}


@pytest.fixture
def secret(fresh):
    path = f"/secretmanager/v1/projects/{PROJECT}/secrets"
    assert fresh.post(f"{path}?secretId=s", {"replication": {"automatic": {}}}).status == 200
    return f"{path}/s"


def bindings(role="roles/secretmanager.viewer", **more):
    return [{"role": role, "members": [MEMBER], **more}]


def test_what_was_set_is_got(fresh, secret):
    assert fresh.get(f"{secret}:getIamPolicy").body == {"etag": "ACAB"}
    given = fresh.post(f"{secret}:setIamPolicy", {"policy": {"bindings": bindings()}}).body
    assert given["bindings"] == bindings()
    assert fresh.get(f"{secret}:getIamPolicy").body == given


def test_a_policy_that_changed_meanwhile_is_not_overwritten(fresh, secret):
    read = fresh.get(f"{secret}:getIamPolicy").body
    assert fresh.post(f"{secret}:setIamPolicy", {"policy": {**read, "bindings": bindings()}}).status == 200
    stale = fresh.post(f"{secret}:setIamPolicy", {"policy": {**read, "bindings": []}})
    assert (stale.status, stale.body["error"]["status"]) == (409, "ABORTED")
    assert "concurrent policy changes" in stale.message
    again = fresh.get(f"{secret}:getIamPolicy").body
    assert fresh.post(f"{secret}:setIamPolicy", {"policy": {**again, "bindings": []}}).status == 200


def test_conditions_want_version_3(fresh, secret):
    policy = {"bindings": bindings(condition=CONDITION)}
    assert fresh.post(f"{secret}:setIamPolicy", {"policy": policy}).status == 400
    assert fresh.post(f"{secret}:setIamPolicy", {"policy": {**policy, "version": 3}}).status == 200
    whole = fresh.get(f"{secret}:getIamPolicy?options.requestedPolicyVersion=3").body
    assert (whole["version"], whole["bindings"][0]["condition"]) == (3, CONDITION)
    old = fresh.get(f"{secret}:getIamPolicy").body
    assert old["version"] == 1
    assert "_withcond_" in old["bindings"][0]["role"]
    assert "condition" not in old["bindings"][0]


def test_a_binding_needs_a_role(fresh, secret):
    assert fresh.post(f"{secret}:setIamPolicy", {"policy": {"bindings": [{"members": [MEMBER]}]}}).status == 400


def test_of_what_does_not_exist_there_is_no_policy(fresh, secret):
    missing = secret.replace("/s", "/s", 1).rsplit("/", 1)[0] + "/none"
    assert fresh.get(f"{missing}:getIamPolicy").status == 404
    assert fresh.post(f"{missing}:setIamPolicy", {"policy": {}}).status == 404


def test_a_policy_goes_with_its_resource(fresh, secret):
    fresh.post(f"{secret}:setIamPolicy", {"policy": {"bindings": bindings()}})
    fresh.delete(secret)
    fresh.post(f"{secret.rsplit('/', 1)[0]}?secretId=s", {"replication": {"automatic": {}}})
    assert fresh.get(f"{secret}:getIamPolicy").body == {"etag": "ACAB"}


def test_projects_have_one_too(fresh):
    path = f"/cloudresourcemanager/v1/projects/{PROJECT}"
    read = fresh.post(f"{path}:getIamPolicy", {"options": {"requestedPolicyVersion": 3}}).body
    given = fresh.post(f"{path}:setIamPolicy", {"policy": {"bindings": bindings("roles/viewer"), "etag": read["etag"]}})
    assert given.status == 200
    number = fresh.get(path).body["projectNumber"]
    by_number = fresh.post(f"/cloudresourcemanager/v3/projects/{number}:getIamPolicy").body
    assert by_number["bindings"] == bindings("roles/viewer")
