"""Beyond one machine: from how many rows on a pipeline moves them, and what it runs on in Google Cloud."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from orchestra_lib.settings.base import Model

Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")]
Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[^\s]+$")]


class Dataflow(Model):
    """The workers of a job on Dataflow; project, region and network are those of the environment.

    ``bucket`` takes what is staged and reported; ``image`` has requirements-dataflow.txt and this library in it;
    ``service_account`` is the workers', an id of this project. The job starts with ``workers`` machines and has at most
    ``most_workers``; with equal numbers nothing is scaled.
    """

    bucket: Bucket
    image: Image
    service_account: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
    machine_type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+-[a-z]+-[0-9]+$")] = "n2-standard-4"
    workers: int = Field(default=2, ge=1, le=1_000)
    most_workers: int = Field(default=8, ge=1, le=1_000)
    disk_gib: int = Field(default=30, ge=30, le=1_000)


class Scale(Model):
    """How a table is moved that is too large for one process.

    From ``pipeline_from_rows`` rows on the pipeline is proposed. A range is about ``range_mib`` of rows. The rate falls
    while a commit on the target takes longer than ``commit_ms``. ``dataflow`` None: workers are processes of this
    machine.
    """

    pipeline_from_rows: int = Field(default=20_000_000, ge=1)
    range_mib: int = Field(default=64, ge=1, le=4_096)
    workers: int = Field(default=2, ge=1, le=1_000)
    rows_per_second: Annotated[int, Field(ge=1)] | None = None
    commit_ms: float = Field(default=250.0, gt=0, le=60_000)
    dataflow: Dataflow | None = None
