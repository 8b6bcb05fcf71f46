"""IAM: service accounts, roles, workload identity pools, deny policies. https://cloud.google.com/iam/docs/reference/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import below_target
from orchestra_lib.local.control.operations import Record, Style


def _metadata(_control: Any, record: Record) -> dict[str, Any]:
    name = "PolicyOperationMetadata" if record["version"] == "v2" else "WorkloadIdentityPoolOperationMetadata"
    return {
        "@type": f"type.googleapis.com/google.iam.{record['version']}.{name}",
        "createTime": timestamp(record["started"]),
    }


def _email(call: Call, _body: Body) -> str:
    return f"{call.body['accountId']}@{call.project}.iam.gserviceaccount.com"


SERVICE = Service(
    name="iam",
    kinds=(
        Kind(
            "serviceAccounts",
            new_id=_email,
            not_found="Unknown service account",
            exists="Service account {id} already exists within project projects/{project}.",
        ),
    ),
    operations=Style(below_target, _metadata),
)
