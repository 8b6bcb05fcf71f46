"""What the cells of each runbook call: one module a phase, one method a step.

A runbook imports its own phase from here and nothing of the others: together they take four seconds to import.
"""
