"""What Google Cloud and an organisation do not allow, as data and small predicates."""

from orchestra_lib.rules.constraints import CONSTRAINTS, Constraint, Policy, violations

__all__ = ["CONSTRAINTS", "Constraint", "Policy", "violations"]
