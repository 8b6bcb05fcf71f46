"""The environment in which the unmodified ``gcloud`` command talks to the local Google Cloud.

gcloud takes every property from a variable too, and has one for the endpoint of nearly every API.
https://cloud.google.com/sdk/gcloud/reference/config/set
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from orchestra_lib.local.control.catalog import APIS
from orchestra_lib.local.control.tokens import path_with

WITHOUT_OVERRIDE = frozenset({"billingbudgets", "servicenetworking"})
"""Served here, but gcloud 528 has no property for their endpoints: it asks Google's own hosts, as nobody."""
# The override takes the place of host and service path, which only compute has.
_SERVICE_PATHS = {"compute": "compute/v1/"}


def environment(url: str, token: str, configuration: Path, project: str | None) -> dict[str, str]:
    """The variables by name. ``configuration`` is a folder for gcloud's own files, made if it is not there.

    No credentials of the user are touched, and the token goes to the local Google Cloud alone: it is part of its
    endpoints.
    """
    configuration.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoints = {
        f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}": (
            f"{url}{path_with(token)}/{service}/{_SERVICE_PATHS.get(service, '')}"
        )
        for service in overridden()
    }
    return {
        "CLOUDSDK_CONFIG": str(configuration),
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        **({"CLOUDSDK_CORE_PROJECT": project} if project else {}),
        **endpoints,
    }


def overridden() -> tuple[str, ...]:
    """The services that gcloud is sent here for, by name."""
    return tuple(sorted({api.partition(".")[0] for api in APIS} - WITHOUT_OVERRIDE))


def exports(variables: Mapping[str, str]) -> str:
    """The variables as lines for a POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
