"""Organisation policies. https://cloud.google.com/resource-manager/docs/reference/orgpolicy/rest"""

from __future__ import annotations

from orchestra_lib.local.control import constraints
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Service

# Constraints that are either enforced or not, by the words that their names begin with.
_BOOLEAN = ("disable", "require", "skip", "enforce", "uniformBucketLevelAccess", "publicAccessPrevention", "automatic")


def _effective(call: Call) -> Body:
    """What holds at a project, folder or organisation after all that is inherited."""
    name = call.path.rsplit("/", 1)[1]
    policy = constraints.effective(call, call.project or "*", f"constraints/{name}")
    if name.partition(".")[2].startswith(_BOOLEAN):
        rules: list[Body] = [{"enforce": bool(policy and policy.enforced)}]
    elif policy is None or policy.allowed is None:
        rules = [{"allowAll": True}]
    else:
        rules = [{"values": {"allowedValues": policy.allowed}}] if policy.allowed else [{"denyAll": True}]
    return {"name": call.control.projects.numbered(call.path), "spec": {"rules": rules}}


SERVICE = Service(
    name="orgpolicy",
    methods={"policies.getEffectivePolicy": _effective},
    not_in_projects=True,
)
