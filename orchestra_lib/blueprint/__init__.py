"""Blueprint: what each phase wants to exist, as lists of resources. Pure functions of the settings, no I/O."""

from orchestra_lib.blueprint.infrastructure import infrastructure
from orchestra_lib.blueprint.workflow import workflow

__all__ = ["infrastructure", "workflow"]
