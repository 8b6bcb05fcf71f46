"""The memory's database on Google Cloud by its names: which instances it has, who we are in it, who writes to it."""

from __future__ import annotations

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.memory import database_user, memory
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.cloud.caller import caller
from orchestra_lib.cloud.target import Target
from orchestra_lib.settings import Settings


def primary_instance(settings: Settings) -> str:
    """The whole name of the primary instance: ``projects/…/locations/…/clusters/…/instances/…``.

    Raises ParameterError, here and in the functions below, for what the settings lack or leave open.
    """
    return _instance(settings, "database instance")


def secondary_instance(settings: Settings) -> str:
    """The whole name of the instance in the other region."""
    return _instance(settings, "secondary database instance")


def writers(settings: Settings) -> tuple[str, ...]:
    """The database users that write after the cutover: those that the settings name, or the API's service account."""
    return settings.memory.writers.target or (api_user(settings),)


def api_user(settings: Settings) -> str:
    """The database user of the memory API."""
    return database_user(specification(settings).email_of(identities.API))


def our_user(target: Target) -> str:
    """The database user that we log in as by IAM. Raises TargetUnreachable when nobody can say who we are."""
    return database_user(caller(target))


def _instance(settings: Settings, kind: str) -> str:
    (found,) = (one for one in memory(settings).resources if one.kind == kind)
    return f"{found.parent}/instances/{found.id}"
