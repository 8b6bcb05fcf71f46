"""Compute's addresses and forwarding rules: which address a new one gets, and who uses it.

External addresses come from 198.18.0.0/15, the range for tests of network devices, which nobody routes (RFC 2544).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from orchestra_lib.local.control import references
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, worded
from orchestra_lib.local.control.services.compute_identity import invalid, key_of_url, url
from orchestra_lib.local.control.services.compute_networks import taken_ranges

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

_EXTERNAL = ipaddress.IPv4Network("198.18.0.0/15")
_PRODUCERS = ipaddress.IPv4Network("10.0.0.0/8")
"""Where ranges for service producers are taken from when the caller names none."""
_DEFAULT_PRODUCER_PREFIX = 16
_RESERVED_AT_THE_START = 2  # the network's own address and its gateway


def complete_address(call: Call, body: Body, before: Body | None) -> None:
    """The address of a new one, if the caller chose none."""
    if before is not None:
        return
    body.setdefault("networkTier", "PREMIUM")
    if body["addressType"] == "INTERNAL" and call.location != "global":
        body.setdefault("purpose", "GCE_ENDPOINT")
    if "address" not in body and not body.get("ipv6EndpointType"):
        body["address"] = _chosen_address(call, body)


def shown_address(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    """An address with those who use it."""
    users = [url(user) for user in address_users(control, key, body)]
    return {**body, "status": "IN_USE", "users": users} if users else body


def refuse_address_in_use(call: Call, row: Stored) -> None:
    """Raise Fault (400) for a delete of an address that something uses."""
    user = next(iter(address_users(call.control, row.key, row.body)), None)
    if user:
        words = worded(call.control, call.kind.in_use_words, row.key, user=user.split("/", 1)[1])
        raise Fault("INVALID_ARGUMENT", words, reason="resourceInUseByAnotherResource")


def address_users(control: ControlPlane, key: str, body: Body) -> list[str]:
    """The keys of the resources that use an address, by its name or by its number."""
    project = key.split("/")[2]
    by_number = (
        row.key
        for collection in ("forwardingRules", "instances")
        for row in control.store.below(f"compute/projects/{project}/", f"compute/{collection}")
        if body.get("address") and body["address"] in _numbers_of(row.body)
    )
    return [*by_number, *(user for user in references.users_of(control, key) if "/routers/" in user)]


def complete_forwarding_rule(call: Call, body: Body, _before: Body | None) -> None:
    """The address, the tier and the ports, written as a range."""
    ports = body.get("portRange")
    if ports and "-" not in ports:
        body["portRange"] = f"{ports}-{ports}"
    body.setdefault("networkTier", "PREMIUM")
    given = str(body.get("IPAddress", ""))
    if "/" in given:
        key = key_of_url(call.control, given, call.project)
        row = call.control.find(key)
        if row is None:
            raise invalid("IPAddress", given, "The referenced address resource cannot be found.")
        body["IPAddress"] = row.body["address"]
    elif not given:
        external = str(body["loadBalancingScheme"]).startswith("EXTERNAL") or "subnetwork" not in body
        body["IPAddress"] = _external(call) if external else free_host(call.control, body["subnetwork"], call.project)


def free_host(control: ControlPlane, subnetwork: str, project: str | None) -> str:
    """An address of a subnetwork (its link) that nothing uses. Raises Fault (400) when there is none."""
    row = control.find(key_of_url(control, subnetwork, project))
    if row is None:
        raise invalid("subnetwork", subnetwork, "The referenced subnetwork resource cannot be found.")
    taken = set(_taken_numbers(control, str(project)))
    network = ipaddress.IPv4Network(row.body["ipCidrRange"])
    hosts = itertools.islice(network, _RESERVED_AT_THE_START, max(network.num_addresses - 2, 0))
    return _first_free(hosts, taken, f"IP space of '{row.key.split('/', 1)[1]}' is exhausted.")


def _chosen_address(call: Call, body: Body) -> str:
    if body["addressType"] == "EXTERNAL":
        return _external(call)
    if "subnetwork" in body:
        return free_host(call.control, body["subnetwork"], call.project)
    if "network" not in body:
        raise invalid("subnetwork", "", "An internal address needs a network or a subnetwork.")
    return _free_block(call, body)


def _external(call: Call) -> str:
    taken = set(_taken_numbers(call.control, str(call.project)))
    hosts = itertools.islice(_EXTERNAL, _RESERVED_AT_THE_START, None)
    return _first_free(hosts, taken, "The external addresses of the local Google Cloud are exhausted.")


def _free_block(call: Call, body: Body) -> str:
    """The first range of the wanted length that neither a subnetwork of the network nor another range has."""
    prefix = body.setdefault("prefixLength", _DEFAULT_PRODUCER_PREFIX)
    network = key_of_url(call.control, body["network"], call.project)
    taken = taken_ranges(call.control, network)
    for row in call.control.store.below(f"compute/projects/{call.project}/global/", "compute/addresses"):
        if row.body.get("network") == body["network"] and row.body.get("prefixLength"):
            taken.append(ipaddress.IPv4Network(f"{row.body['address']}/{row.body['prefixLength']}", strict=False))
    if not _PRODUCERS.prefixlen <= prefix <= ipaddress.IPV4LENGTH:
        raise invalid("prefixLength", prefix, f"Must be between {_PRODUCERS.prefixlen} and {ipaddress.IPV4LENGTH}.")
    for block in _PRODUCERS.subnets(new_prefix=prefix):
        if not any(block.overlaps(other) for other in taken):
            return str(block.network_address)
    raise invalid("prefixLength", prefix, f"No range of this length is free in '{network.split('/', 1)[1]}'.")


def _first_free(hosts: Iterable[ipaddress.IPv4Address], taken: set[str], exhausted: str) -> str:
    for host in hosts:
        if str(host) not in taken:
            return str(host)
    raise Fault("INVALID_ARGUMENT", exhausted, reason="ipSpaceExhausted")


def _taken_numbers(control: ControlPlane, project: str) -> Iterator[str]:
    for collection in ("addresses", "forwardingRules", "instances"):
        for row in control.store.below(f"compute/projects/{project}/", f"compute/{collection}"):
            yield from _numbers_of(row.body)


def _numbers_of(body: Body) -> Iterator[str]:
    for name in ("address", "IPAddress"):
        if body.get(name):
            yield body[name]
    for interface in body.get("networkInterfaces", ()):
        if interface.get("networkIP"):
            yield interface["networkIP"]
        yield from (access["natIP"] for access in interface.get("accessConfigs", ()) if access.get("natIP"))
