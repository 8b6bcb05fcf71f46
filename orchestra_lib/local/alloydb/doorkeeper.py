"""Who may come in to one instance: asked of the control plane for each connection, so that nothing is out of date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psycopg

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import origins, passwords, places
from orchestra_lib.local.alloydb.backend import Backend
from orchestra_lib.local.alloydb.control_client import ControlClient, ControlFault, Instance
from orchestra_lib.local.alloydb.front import Entry, Refused
from orchestra_lib.local.alloydb.startup import CANNOT_CONNECT_NOW

SERVED_VERSION = f"POSTGRES_{postgres.VERSION}"
Found = TypeVar("Found")


class InstanceDoorkeeper:
    """The doorkeeper of one instance; see ``front.Doorkeeper``."""

    def __init__(self, instance: str, directory: Path, control: ControlClient, backend: Backend) -> None:
        self._instance, self._directory = instance, directory
        self._control, self._backend = control, backend

    async def admit(self, token: str | None) -> Entry:
        """Start the server if need be and bring its flags and users up to date."""
        return await asyncio.to_thread(self._admit, token)

    async def principal(self, token: str) -> str:
        """The e-mail address of the token's holder."""
        return await asyncio.to_thread(self._principal, token)

    def _admit(self, token: str | None) -> Entry:
        principal = None if token is None else self._principal(token)
        instance = self._ask(self._control.instance, self._instance)
        if not instance.is_serving:
            raise Refused(why_not(instance), CANNOT_CONNECT_NOW)
        cluster = places.cluster_of(instance.name)
        self._check_data(instance, cluster)
        users = self._ask(self._control.users, cluster)
        verifiers = passwords.verifiers(self._directory, cluster)
        try:
            server, unusable = self._backend.serve(instance.uid, instance.flags, users, verifiers)
        except (TargetUnreachable, psycopg.Error) as error:
            raise Refused(str(error), CANNOT_CONNECT_NOW) from error
        iam_users = frozenset(user.name for user in users if user.is_iam)
        return Entry(server, iam_users, instance.iam_authentication, unusable, principal)

    def _check_data(self, instance: Instance, cluster: str) -> None:
        """Raise Refused where a server could be started, but not with the data that the instance has to have."""
        if made_by := origins.made_by(self._directory, cluster):
            raise Refused(
                f"{cluster} was made by {made_by}, and the local AlloyDB does not copy data; "
                "connect to an instance of a cluster that was created",
                CANNOT_CONNECT_NOW,
            )
        if instance.version != SERVED_VERSION:
            raise Refused(
                f"{instance.name} runs {instance.version}, and the local AlloyDB serves {SERVED_VERSION} only; "
                "choose that databaseVersion for its cluster",
                CANNOT_CONNECT_NOW,
            )

    def _principal(self, token: str) -> str:
        return self._ask(self._control.principal, token)

    def _ask(self, question: Callable[[str], Found], about: str) -> Found:
        try:
            return question(about)
        except ControlFault as fault:
            raise Refused(f"{fault.status}: {fault.message}") from fault
        except TargetUnreachable as error:
            raise Refused(str(error), CANNOT_CONNECT_NOW) from error


def why_not(instance: Instance) -> str:
    """Why an instance takes no connections, and what to do."""
    if instance.kind != "PRIMARY":
        return (
            f"{instance.name} is of type {instance.kind}, and the local AlloyDB serves PRIMARY instances only; "
            "connect to the cluster's primary instance"
        )
    return f"{instance.name} is {instance.state}; wait until it is READY"
