"""The settings of the network: ranges, flow logs, address translation."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from orchestra_lib.settings.base import Model

# Direct VPC egress of Cloud Run wants at least this: https://cloud.google.com/run/docs/configuring/vpc-direct-vpc
_LONGEST_SUBNET_PREFIX = 26
# https://cloud.google.com/vpc/docs/configure-private-services-access#considerations
_LONGEST_SERVICE_PREFIX = 24


def _private_range(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text} is no range of addresses: {error}") from None
    if not network.is_private:
        raise ValueError(f"{text} is not a private range: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
    return text


Cidr = Annotated[str, AfterValidator(_private_range)]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
"""A name of Compute Engine, with room for a suffix in its 63 characters."""


class FlowLogs(Model):
    """Which part of the connections is logged, and over what time they are gathered."""

    sampling_ratio: float = Field(ge=0, le=1)
    aggregation_interval: Literal[
        "INTERVAL_5_SEC",
        "INTERVAL_30_SEC",
        "INTERVAL_1_MIN",
        "INTERVAL_5_MIN",
        "INTERVAL_10_MIN",
        "INTERVAL_15_MIN",
    ]


class Nat(Model):
    """Cloud NAT of a region: what of it is logged."""

    log_filter: Literal["ALL", "ERRORS_ONLY", "TRANSLATIONS_ONLY"]


class Network(Model):
    """The VPC, its private subnets, and the range that Google's own services take addresses from."""

    name: ResourceName
    primary_subnet: Cidr
    secondary_subnet: Cidr
    service_range: Cidr
    flow_logs: FlowLogs
    nat: Nat

    @model_validator(mode="after")
    def _ranges_fit(self) -> Network:
        names = ("primary_subnet", "secondary_subnet", "service_range")
        ranges = {name: ipaddress.IPv4Network(getattr(self, name)) for name in names}
        for one, other in combinations(names, 2):
            if ranges[one].overlaps(ranges[other]):
                raise ValueError(f"{one} {ranges[one]} and {other} {ranges[other]} overlap")
        for name in names[:2]:
            if ranges[name].prefixlen > _LONGEST_SUBNET_PREFIX:
                raise ValueError(f"{name} {ranges[name]} is too small: Cloud Run's egress needs a /26 or larger")
        if ranges["service_range"].prefixlen > _LONGEST_SERVICE_PREFIX:
            raise ValueError(f"service_range {self.service_range} is too small: private services access needs a /24")
        return self
