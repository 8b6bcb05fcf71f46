"""Figures of a run as an experiment run of Vertex AI, on Google Cloud only: there they can be compared over time.

https://cloud.google.com/vertex-ai/docs/experiments/intro-vertex-ai-experiments
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.api_core.exceptions import GoogleAPIError

from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import ParameterError, TargetUnreachable

_LONGEST_ID = 128  # https://cloud.google.com/vertex-ai/docs/experiments/create-experiment
_NO_ID = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True)
class Experiment:
    """Where figures are logged: a project's experiment in a region."""

    project: str
    location: str
    name: str = "orchestra-assistant"


def run_name(run_id: str) -> str:
    """The name that a run has in an experiment: lower case letters, digits and hyphens."""
    return f"run-{_NO_ID.sub('-', run_id.lower()).strip('-')}"[:_LONGEST_ID]


def log_run(
    target: Target,
    where: Experiment,
    run_id: str,
    parameters: Mapping[str, str | int | float],
    metrics: Mapping[str, float],
) -> str:
    """Log a run once and return the name of its resource; logged again, its figures are replaced.

    Raises ParameterError for the local target, which has no experiments, TargetUnreachable when logging fails.
    """
    if target.kind == "local":
        raise ParameterError("experiments are logged on Google Cloud; the local target has none")
    platform = _platform()
    try:
        platform.init(
            project=where.project, location=where.location, experiment=where.name, credentials=target.credentials
        )
        name = run_name(run_id)
        known = {run.name for run in platform.ExperimentRun.list(experiment=where.name)}
        with platform.start_run(name, resume=name in known) as run:
            run.log_params(dict(parameters))
            run.log_metrics(dict(metrics))
            return str(run.resource_name)
    except (GoogleAPIError, OSError) as error:
        raise TargetUnreachable(f"the run could not be logged to the experiment {where.name}: {error}") from error


def _platform() -> Any:
    """google-cloud-aiplatform, which takes seconds to import and is needed on Google Cloud alone."""
    try:
        from google.cloud import aiplatform
    except ImportError as error:
        raise ParameterError("experiments need google-cloud-aiplatform: pip install 'orchestra-lib[gcp]'") from error
    return aiplatform
