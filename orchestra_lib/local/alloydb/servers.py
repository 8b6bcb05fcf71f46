"""The servers of all instances: each brought into the role that it has to have, before anybody uses it.

A server that is written to starts when somebody connects. Changes of roles touch several servers, so they are made one
at a time, from what is wanted at that moment. Each step leaves what the next look can go on from.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import (
    backups,
    base_backups,
    handover,
    histories,
    passwords,
    places,
    recovery,
    server_settings,
    slots,
)
from orchestra_lib.local.alloydb.backend import Backend, mark_follower, upstream_of
from orchestra_lib.local.alloydb.control_client import Backup, Cluster
from orchestra_lib.local.alloydb.server_settings import Plan, Upstream
from orchestra_lib.local.alloydb.wanted import READ_POOL, SECONDARY, Wanted
from orchestra_lib.local.postgres import Running

SERVED_VERSION = f"POSTGRES_{postgres.VERSION}"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A server that runs as it has to: what was wanted of it, and why for each user that could not be made."""

    wanted: Wanted
    server: Running
    unusable: Mapping[str, str] = field(default_factory=dict)


class Servers:
    """The servers below ``directory``. Methods block, may be called from several threads, raise TargetUnreachable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.wanted: Mapping[str, Wanted] = {}
        """What has to be, as of the last look; to be set by whoever looks."""
        self._backends: dict[str, Backend] = {}
        self._changing = threading.RLock()
        """Held while roles change. Whoever holds it may take the locks of backends, never the other way round."""
        self._restoring = threading.Lock()

    def backend(self, name: str) -> Backend:
        """The server of an instance, given its full name; there may be no data yet."""
        return self._backends.setdefault(name, Backend(places.data_directory(self._directory, name), name))

    # --- to serve -------------------------------------------------------------------------------------------------

    def serve(self, name: str) -> Served:
        """The instance's server, running in its role, with its flags and users."""
        wanted = self._wanted(name)
        served = None
        if wanted.is_writable:
            served = self._serve_writable(wanted)
        elif self._follows(wanted) and self.backend(name).running:
            served = self._serve_follower(wanted)
        if served is None:
            with self._changing:
                served = self._settle(name)
        return served

    def is_settled(self, name: str) -> bool:
        """Whether a follower runs as it has to, and a server that is written to is none; looks at files alone."""
        wanted, backend = self._wanted(name), self.backend(name)
        if not wanted.is_writable:
            return self._follows(wanted) and backend.is_configured(self._plan(wanted, self._upstream(wanted)))
        if backend.running is None:
            return not backend.is_follower
        has_its_slots = backend.kept_slots in (None, self._plan(wanted, None).slots) and not backend.has_slots_to_drop
        return has_its_slots and not backend.is_follower

    def change_roles(self, cluster: str) -> None:
        """Give the instances of a promoted cluster, and of those that now follow it, their roles."""
        heirs = [one for one in self.wanted.values() if one.cluster.name == cluster and one.is_writable]
        with self._changing:
            for heir in heirs:
                self._settle(heir.name)
                for name in heir.followers:
                    self._give_up_role(self.backend(name))

    def restart(self, name: str, *, crash: bool) -> None:
        """Stop a server that runs, in order or as if its machine was lost, and start it."""
        backend = self.backend(name)
        if backend.running:
            backend.stop("immediate" if crash else "fast")
            self.serve(name)

    # --- to keep and to bring back --------------------------------------------------------------------------------

    def needs_base_backup(self, name: str) -> bool:
        """Whether a server archives its log and has no base backup yet that the log could be replayed on."""
        wanted, backend = self._wanted(name), self.backend(name)
        chain = backend.chain(self._storage(wanted))
        return chain is not None and backend.running is not None and backups.note_of(backups.base_of(chain)) is None

    def take_base_backup(self, name: str) -> None:
        """The base backup of the chain that the server archives into."""
        wanted, backend = self._wanted(name), self.backend(name)
        with backend.copying:
            chain = backend.chain(self._storage(wanted))
            if chain is not None and backups.note_of(backups.base_of(chain)) is None:
                base_backups.take(backend.data, backups.base_of(chain), backend.name)

    def back_up(self, backup: Backup) -> None:
        """Take a backup of a cluster. Without an instance it has no data, and the backup holds none."""
        place = backups.base_of(places.backup(self._directory, backup.uid))
        source = self._main_instance(backup.cluster)
        if source and backups.note_of(place) is None:
            with self._for_a_while(source) as backend:
                base_backups.take(backend.data, place, backend.name)

    def restore(self, cluster: Cluster) -> Path | None:
        """The data of a restored cluster, which its instance takes; None for a cluster that begins empty."""
        origin = cluster.origin
        if origin is None or origin.primary:
            return None
        target = self._restored(cluster)
        if target.exists():
            return target
        if origin.cluster:
            self._complete_archive(origin.cluster, origin.cluster_uid)
        with self._restoring:
            if target.exists():
                return target
            if origin.backup:
                recovery.from_backup(places.backup(self._directory, origin.backup_uid), target, cluster.name)
            else:
                source = places.storage(self._directory, origin.cluster_uid)
                recovery.at_point_in_time(source, origin.point_in_time, target, cluster.name)
        _log.info("%s was restored", cluster.name)
        return target

    def _restored(self, cluster: Cluster) -> Path:
        return places.storage(self._directory, cluster.uid) / "restored"

    def _complete_archive(self, cluster: str, uid: str) -> None:
        """Have the source of a restore archive what was written until now; nothing for one that is gone."""
        source = self._main_instance(cluster)
        writable = self._written_to(source) if source and source.cluster.uid == uid else None
        if source is None or writable is None:
            return
        with self._for_a_while(writable) as leader, self._for_a_while(source) as backend:
            if chain := backend.chain(self._storage(source)):
                backend.wait_until_archived(leader.end_segment(), chain)

    def _written_to(self, wanted: Wanted) -> Wanted | None:
        """The instance whose log a server has: itself, or the one that it follows in the end."""
        ancestors = [wanted, *self._ancestors(wanted.upstream or "")]
        return next((one for one in ancestors if one.is_writable), None)

    @contextmanager
    def _for_a_while(self, wanted: Wanted) -> Iterator[Backend]:
        """The server of an instance, running; that of one that has to be stopped is stopped again."""
        self.serve(wanted.name)
        backend = self.backend(wanted.name)
        try:
            yield backend
        finally:
            if not wanted.instance.is_serving:
                backend.stop()

    def _main_instance(self, cluster: str) -> Wanted | None:
        """The primary or secondary instance of a cluster."""
        found = (one for one in self.wanted.values() if one.cluster.name == cluster and one.role != READ_POOL)
        return next(found, None)

    # --- roles ----------------------------------------------------------------------------------------------------

    def _settle(self, name: str) -> Served:
        """Bring a server into its role. ``_changing`` is held."""
        wanted = self._wanted(name)
        backend = self.backend(name)
        if wanted.is_writable:
            if backend.is_of(wanted.instance.uid) and backend.is_follower:
                self._take_over(wanted, backend)
            served = self._serve_writable(wanted)
            if served is None:
                raise TargetUnreachable(f"{backend.name} is changing its role; connect again")
            return served
        if not self._follows(wanted):
            self._attach(wanted, backend)
        elif backend.running is None and wanted.upstream and self.wanted[wanted.upstream].is_writable:
            # After an interrupted change of places it is the heir that has to be promoted first.
            upstream = self.backend(wanted.upstream)
            if upstream.exists and upstream.is_follower:
                self._settle(wanted.upstream)
        return self._serve_follower(wanted)

    def _serve_writable(self, wanted: Wanted) -> Served | None:
        """The running server; None while its data is that of a follower."""
        backend = self.backend(wanted.name)
        if not backend.is_of(wanted.instance.uid):
            self.restore(wanted.cluster)
        with backend.lock:
            backend.remove_data_of_another(wanted.instance.uid)
            is_new = not backend.exists
            if is_new:
                self._make(wanted, backend)
            if backend.is_follower:
                return None
            self._archive_or_not(wanted, backend)
            server, unusable = backend.serve(self._plan(wanted, None))
        if is_new and wanted.cluster.origin is None:
            self._take_first_base_backup(wanted.name)
        return Served(wanted, server, unusable)

    def _take_first_base_backup(self, name: str) -> None:
        """Of empty data, at once: so everything that is ever written can be restored."""
        try:
            self.take_base_backup(name)
        except TargetUnreachable as error:
            _log.warning("%s: no base backup yet: %s", name, error)  # it is tried again at the next look

    def _serve_follower(self, wanted: Wanted) -> Served:
        backend = self.backend(wanted.name)
        with backend.lock:
            self._archive_or_not(wanted, backend)
            server, _ = backend.serve(self._plan(wanted, self._upstream(wanted)))
        return Served(wanted, server)

    def _archive_or_not(self, wanted: Wanted, backend: Backend) -> None:
        if wanted.cluster.continuous_backup and wanted.role != READ_POOL:
            backend.begin_chain(self._storage(wanted))
        else:
            backend.end_chain()

    def _make(self, wanted: Wanted, backend: Backend) -> None:
        """The first data of an instance that is written to."""
        origin = wanted.cluster.origin
        if origin is not None and origin.primary:
            raise TargetUnreachable(
                f"{wanted.name} has no data: its cluster was made to follow {origin.primary}, and nothing was copied "
                "while it did"
            )
        if origin is not None:
            backend.adopt(self._restored(wanted.cluster), wanted.instance.uid)
        else:
            backend.initialise(wanted.instance.uid, server_settings.settings(backend.name, self._plan(wanted, None)))

    def _take_over(self, wanted: Wanted, backend: Backend) -> None:
        """Make a follower a server that is written to."""
        slot = slots.slot_of(wanted.instance.uid)
        old = self._predecessor(wanted, backend)
        if old is None:
            self._start_follower(wanted, backend)
            if backend.followed in self.wanted and self.backend(backend.followed).running:
                followed = self.backend(backend.followed)
                with followed.session() as connection:
                    slots.make(connection, slot)
                handover.catch_up(followed, backend, slot)
            backend.promote()
            return
        former = self.backend(old.name)
        if former.is_follower and backend.running is None and backend.control_data().state == "shut down":
            backend.lead()  # it gave up its role in a change that was not carried out
            return
        self._start_follower(wanted, backend)
        with former.lock:  # nobody starts it meanwhile
            if handover.has_everything(former, backend) or (wanted.is_failover and former.running is None):
                backend.promote()
                self._give_up_role(former)
                return
            if former.running is None:
                former.lead()
                plan = self._plan(old, None)
                former.serve(replace(plan, slots=plan.slots | {slot}))
        handover.change_places(former, backend, slot)

    def _predecessor(self, heir: Wanted, backend: Backend) -> Wanted | None:
        """The instance that was written to until now and is to follow the heir."""
        old = self.wanted.get(backend.followed)
        if old is None or old.upstream != heir.name or not self.backend(old.name).is_of(old.instance.uid):
            return None
        return old

    def _start_follower(self, wanted: Wanted, backend: Backend) -> None:
        """A follower as it is, whatever it is to become."""
        if backend.running is None:
            backend.serve(self._plan(wanted, self._upstream(wanted)))

    def _give_up_role(self, former: Backend) -> None:
        """A server that was written to will follow, after a look at whether it can with the data that it has."""
        if former.exists and not former.is_follower:
            former.follow("", "")

    def _attach(self, wanted: Wanted, backend: Backend) -> None:
        """Make a server, which may have data of its own, follow the one that it has to."""
        backend.remove_data_of_another(wanted.instance.uid)
        if wanted.upstream is None:
            if not backend.exists:
                source = wanted.cluster.primary or wanted.cluster.name
                raise TargetUnreachable(f"{wanted.name} has no data: {source} has no primary instance")
            self._give_up_role(backend)
            return
        served = self._settle(wanted.upstream)
        upstream = self.backend(wanted.upstream)
        if backend.exists:
            backend.stop()
            theirs, own = upstream.control_data(), backend.control_data()
            if theirs.system != own.system:
                raise TargetUnreachable(
                    f"{wanted.name} cannot follow {wanted.upstream}, which was made anew with other data; promote its "
                    "cluster to keep its data, or delete it"
                )
            if histories.is_part_of(own, upstream.history()):
                backend.follow(wanted.upstream, served.server.socket_directory)
                return
            _log.info("%s has written what %s does not have: it is copied anew", wanted.name, wanted.upstream)
        self._copy(wanted, backend, upstream, served.server)

    def _copy(self, wanted: Wanted, backend: Backend, upstream: Backend, server: Running) -> None:
        slot = slots.slot_of(wanted.instance.uid)
        with upstream.session() as connection:
            slots.make(connection, slot)
        part = backend.data.with_name(f"{backend.data.name}.part")
        postgres.discard(part, backend.name)
        base_backups.copy(upstream.data, part, backend.name, slot)
        mark_follower(part, upstream.instance, server.socket_directory)
        backend.adopt(part, wanted.instance.uid)

    # --- plans ----------------------------------------------------------------------------------------------------

    def _wanted(self, name: str) -> Wanted:
        found = self.wanted.get(name)
        if found is None:
            raise TargetUnreachable(f"{name} does not exist any more")
        if found.instance.version != SERVED_VERSION:
            raise TargetUnreachable(
                f"{name} runs {found.instance.version}, and the local AlloyDB serves {SERVED_VERSION} only; "
                "choose that databaseVersion for its cluster"
            )
        return found

    def _follows(self, wanted: Wanted) -> bool:
        """Whether the data is that of a follower of the right instance."""
        backend = self.backend(wanted.name)
        return (
            backend.is_of(wanted.instance.uid)
            and backend.is_follower
            and (wanted.upstream is None or backend.followed == wanted.upstream)
        )

    def _upstream(self, wanted: Wanted) -> Upstream | None:
        """Whom a follower follows, at the place where that is now or was the last time."""
        backend = self.backend(wanted.name)
        flags = tuple(one.instance.flags for one in self._ancestors(backend.followed))
        found = upstream_of(backend, slots.slot_of(wanted.instance.uid), flags)
        running = self.backend(found.instance).running if found else None
        return replace(found, socket_directory=running.socket_directory) if found and running else found

    def _ancestors(self, name: str) -> list[Wanted]:
        found: list[Wanted] = []
        while (one := self.wanted.get(name)) is not None and one not in found:
            found.append(one)
            name = one.upstream or ""
        return found

    def _plan(self, wanted: Wanted, upstream: Upstream | None) -> Plan:
        backend = self.backend(wanted.name)
        followers = (self.wanted[name] for name in wanted.followers)
        return Plan(
            flags=wanted.instance.flags,
            users=wanted.users,
            verifiers=passwords.verifiers(self._directory, wanted.users_of),
            chain=backend.chain(self._storage(wanted)),
            upstream=upstream,
            # A read pool that nobody has connected to yet needs no log.
            slots=frozenset(
                slots.slot_of(one.instance.uid)
                for one in followers
                if one.role == SECONDARY or self.backend(one.name).exists
            ),
        )

    def _storage(self, wanted: Wanted) -> Path:
        return places.storage(self._directory, wanted.cluster.uid)
