"""Short-lived credentials of service accounts. https://cloud.google.com/iam/docs/reference/credentials/rest"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local import id_tokens
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Service
from orchestra_lib.local.control.services import iam_accounts

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

_LONGEST_SECONDS = 3600


def access_token(control: ControlPlane, email: str, seconds: float, now: float) -> str:
    """A token with which a service account calls services. Raises Fault (404) without such an account."""
    _account(control, email)
    return control.tokens.issue(email, now + seconds)


def id_token(control: ControlPlane, email: str, audience: str, now: float) -> str:
    """A token that tells an audience who the service account is. Raises Fault (404) without such an account."""
    account = _account(control, email)
    return id_tokens.issue(control.directory, email, account.body["uniqueId"], audience, now)


def _account(control: ControlPlane, named: str) -> Stored:
    project, email = iam_accounts.address(control, "-", named)
    row = control.find(f"iam/projects/{project}/serviceAccounts/{email}")
    if row is None or row.body.get("disabled"):
        raise Fault("NOT_FOUND", f"Not found; Gaia id not found for email {named}")
    return row


def _generate_access_token(call: Call) -> Body:
    if not call.body.get("scope"):
        raise bad_field("scope", "The scope list must not be empty.")
    seconds = float(call.body.get("lifetime", f"{_LONGEST_SECONDS}s").removesuffix("s"))
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise bad_field("lifetime", f"The token lifetime must be at most {_LONGEST_SECONDS}s, not {seconds:g}s.")
    token = access_token(call.control, call.segments[-1], seconds, call.now)
    return {"accessToken": token, "expireTime": timestamp(call.now + seconds)}


def _generate_id_token(call: Call) -> Body:
    if not call.body.get("audience"):
        raise bad_field("audience", "The audience of an identity token must not be empty.")
    return {"token": id_token(call.control, call.segments[-1], call.body["audience"], call.now)}


SERVICE = Service(
    name="iamcredentials",
    methods={
        "serviceAccounts.generateAccessToken": _generate_access_token,
        "serviceAccounts.generateIdToken": _generate_id_token,
    },
    permissions={
        "serviceAccounts.generateAccessToken": "iam.serviceAccounts.getAccessToken",
        "serviceAccounts.generateIdToken": "iam.serviceAccounts.getOpenIdToken",
    },
)
