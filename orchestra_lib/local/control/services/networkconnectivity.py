"""Network Connectivity: hubs, spokes, internal ranges.

https://cloud.google.com/network-connectivity/docs/reference/networkconnectivity/rest
"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service

SERVICE = Service(
    name="networkconnectivity",
)
