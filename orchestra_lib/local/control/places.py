"""The places of Google Cloud: regions, their zones, multi-regions. https://cloud.google.com/about/locations"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_GEOGRAPHIES = {
    "africa": ("south1",),
    "asia": (
        "east1",
        "east2",
        "northeast1",
        "northeast2",
        "northeast3",
        "south1",
        "south2",
        "southeast1",
        "southeast2",
        "southeast3",
    ),
    "australia": ("southeast1", "southeast2"),
    "europe": (
        "central2",
        "north1",
        "north2",
        "southwest1",
        "west1",
        "west2",
        "west3",
        "west4",
        "west6",
        "west8",
        "west9",
        "west10",
        "west12",
    ),
    "me": ("central1", "central2", "west1"),
    "northamerica": ("northeast1", "northeast2", "south1"),
    "southamerica": ("east1", "west1"),
    "us": ("central1", "east1", "east4", "east5", "east7", "south1", "west1", "west2", "west3", "west4", "west8"),
}
_ZONES = {"us-central1": "abcf", "us-east1": "bcd", "europe-west1": "bcd"}
_ZONES_OTHERWISE = "abc"

REGIONS = tuple(f"{geography}-{name}" for geography, names in _GEOGRAPHIES.items() for name in names)
MULTI_REGIONS = ("global", "us", "eu", "europe", "asia")


def zones(region: str) -> tuple[str, ...]:
    """The zones of a region; none of an unknown one."""
    letters = _ZONES.get(region, _ZONES_OTHERWISE) if region in REGIONS else ""
    return tuple(f"{region}-{letter}" for letter in letters)


ALL_ZONES = frozenset(zone for region in REGIONS for zone in zones(region))
LOCATIONS = frozenset((*REGIONS, *MULTI_REGIONS)) | ALL_ZONES


def meant_by(parent: str) -> tuple[str, ...]:
    """The parents (keys) that one with ``locations/-`` at its end stands for; none for another ``-``."""
    if parent.endswith("/locations/-"):
        return tuple(f"{parent.removesuffix('-')}{name}" for name in (*REGIONS, *MULTI_REGIONS))
    return () if "/-" in parent else (parent,)


def locations(_control: ControlPlane, parent: str) -> dict[str, dict[str, Any]]:
    """What ``locations.list`` of any service shows below a project (a key)."""
    path = parent.split("/", 1)[1] if "/" in parent else ""
    names = (*REGIONS, "global")
    return {
        name: {
            "name": f"{path}/locations/{name}" if path else f"locations/{name}",
            "locationId": name,
            "displayName": name,
            "labels": {"cloud.googleapis.com/region": name},
        }
        for name in names
    }
