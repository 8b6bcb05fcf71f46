"""What the cells of each runbook call: one module a phase, one method a step."""

from orchestra_lib.phases.infrastructure import InfrastructurePhase
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.preflight import PreflightPhase
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.phases.workstations import WorkstationsPhase

__all__ = ["InfrastructurePhase", "MemoryPhase", "PreflightPhase", "RollbackPhase", "WorkstationsPhase"]
