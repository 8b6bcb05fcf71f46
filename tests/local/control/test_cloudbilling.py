"""Cloud Billing: which project is billed to which account."""

from __future__ import annotations

from control_plane import PROJECT

ACCOUNTS = "/cloudbilling/v1/billingAccounts"


def test_an_account_lists_the_projects_that_are_billed_to_it(fresh):
    account = fresh.get(ACCOUNTS).body["billingAccounts"][0]["name"]
    path = f"/cloudbilling/v1/{account}/projects"
    assert fresh.get(path).body == {}
    info = f"/cloudbilling/v1/projects/{PROJECT}/billingInfo"
    billed = fresh.send("PUT", info, {"billingAccountName": account}).body
    assert (billed["billingAccountName"], billed["billingEnabled"]) == (account, True)
    assert fresh.get(path).body == {"projectBillingInfo": [billed]}
    assert fresh.send("PUT", info, {"billingAccountName": ""}).body["billingEnabled"] is False
    assert fresh.get(path).body == {}


def test_an_account_that_there_is_not_tells_nothing(fresh):
    assert fresh.get(f"{ACCOUNTS}/000000-000000-000000/projects").status == 403
