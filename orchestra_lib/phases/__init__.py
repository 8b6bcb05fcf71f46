"""What the cells of each runbook call: one module a phase, one method a step."""

from orchestra_lib.phases.memory import MemoryPhase

__all__ = ["MemoryPhase"]
