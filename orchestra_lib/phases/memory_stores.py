"""What the steps of runbook 03 share: the run, the two stores, and how each of them is reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestra_lib.blueprint.memory import memory
from orchestra_lib.cloud.caller import caller
from orchestra_lib.database import Address
from orchestra_lib.display import Table, evidence_table
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.memory_target import primary_instance, secondary_instance
from orchestra_lib.move import Move
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.runbook import Runbook
from orchestra_lib.target import Instances, source_database

PHASE = "03"


class Stores:
    """The store that memories come from and the one they go to.

    ``cloud`` is AlloyDB's resources; None where the settings name a target database of their own.
    """

    def __init__(self, run: Runbook) -> None:
        self.run, self.settings = run, run.settings
        self.memory = run.settings.memory
        self.source = source_database(run.settings)
        self._own = run.settings.memory.target.dsn
        self.cloud = None if self._own else CloudWork(run, PHASE)
        self.instances = Instances(self.cloud.client.target) if self.cloud else None
        self._addresses: dict[str, Address] = {}
        if self.cloud:
            wanted = memory(run.settings, caller(self.cloud.client.target))
            self.cloud.want(wanted.resources, wanted.foundation, rehearses_foundation=True)

    @property
    def rehearses(self) -> Source:
        """What the control plane's times and states are worth: REHEARSED on the local target."""
        return self.cloud.place.source if self.cloud else Source.OBSERVED

    @property
    def primary(self) -> str:
        """The full name of the primary instance."""
        return primary_instance(self.settings)

    @property
    def secondary(self) -> str:
        """The full name of the instance in the other region."""
        return secondary_instance(self.settings)

    def instance(self, name: str) -> Address:
        """The address of our database in an instance. Raises TargetUnreachable when it does not serve."""
        if self.instances is None:
            raise ParameterError("the target is a database of your own: it has no instances")
        if name not in self._addresses:
            self._addresses[name] = self.instances.address(name)
        return self._addresses[name]

    def forget_instance(self, name: str) -> None:
        """Ask anew where an instance is: it has been made, moved or deleted."""
        self._addresses.pop(name, None)

    def target(self) -> Address:
        """The target's address. Raises TargetUnreachable when there is none yet."""
        return self._own.reveal() if self._own else self.instance(self.primary)

    def target_now(self) -> Address | None:
        """The target's address if there is a database already: a plan is made before there is one."""
        if self._own:
            return self._own.reveal()
        if self.cloud is None or self.instances is None or not self._is_live(self.cloud):
            return None
        self.instances.make_database(self.primary)
        return self.target()

    def make_database(self) -> None:
        """Make our database in the primary instance unless it is there."""
        if self.instances is not None:
            self.instances.make_database(self.primary)

    def move(self, target: Address) -> Move:
        """What goes from the source to a target."""
        return Move(self.settings, self.source.address, target)

    def journal(self, name: str) -> Path:
        """Where what a step leaves behind is noted; on the local target it goes with the target."""
        local = self.settings.environment.kind == "local"
        return move_journal_path(self.settings.environment.name, name, local=local)

    def show(self, rows: Sequence[Evidence], caption: str) -> Table:
        """Add evidence to the run, and the table of it."""
        self.run.add(*rows)
        return evidence_table(rows, caption)

    def need(self, done: object, what: str) -> None:
        """Raise GateFailed unless an earlier step was done."""
        if done is None:
            raise GateFailed(f"{what} first: this step stands on it")

    def _is_live(self, cloud: CloudWork) -> bool:
        live = cloud.look().live()
        return any(
            one is not None and f"{key.partition(':')[2]}".endswith(self.primary.rpartition("/")[2])
            for key, one in live.items()
            if key.startswith("database instance:")
        )
