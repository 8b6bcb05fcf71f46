"""Where services, tags and gateways answer while a data plane serves them: a loopback address for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local import loopback
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.run import places

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_COLLECTION = "_local/run_addresses"
_TAG = "@"


def address_of(control: ControlPlane, key: str, tag: str = "") -> str:
    """The address of a service or gateway (a key), or of a tag of it; given at the first call."""
    name = f"{_COLLECTION}/{key.replace('/', '.')}{_TAG}{tag}"
    found = control.store.get(name)
    if found is not None:
        return str(found.body["address"])
    taken = {str(row.body["address"]) for row in control.store.below(f"{_COLLECTION}/")}
    address = loopback.free_address(control.directory, taken)
    if address is None:
        raise Fault("RESOURCE_EXHAUSTED", "Every loopback address of the local Cloud Run is taken; delete a service.")
    control.store.put(name, {"address": address, "key": key})
    return address


def show_in(control: ControlPlane, key: str, body: Body) -> None:
    """Write the addresses of a service and its tags into its body, in the place of those on the Internet."""
    if "uri" not in body:
        return
    body["uri"] = url_of(control, key)
    body["urls"] = [body["uri"]]
    for status in body.get("trafficStatuses", ()):
        if status.get("tag"):
            status["uri"] = url_of(control, key, status["tag"])


def url_of(control: ControlPlane, key: str, tag: str = "") -> str:
    """Where it answers."""
    return places.url(address_of(control, key, tag))


def forget_gone(control: ControlPlane) -> None:
    """Take back the addresses of what does not exist any more."""
    for row in control.store.below(f"{_COLLECTION}/"):
        if control.find(row.body["key"]) is None:
            control.store.remove(row.key)
