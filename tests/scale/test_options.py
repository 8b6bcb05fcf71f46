"""Settings as Dataflow's options, and what the section refuses."""

from __future__ import annotations

import pydantic
import pytest

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError
from orchestra_lib.scale.options import dataflow_flags
from orchestra_lib.settings.scale import Dataflow, Scale

WORKERS = Dataflow(
    bucket="orchestra-transfer", image="us-central1-docker.pkg.dev/p/r/transfer:1", service_account="orchestra-move"
)


def production(**changes):
    loaded = settings.load("production")
    return loaded.model_copy(update={"scale": loaded.scale.model_copy(update=changes)})


def test_workers_are_private_in_the_environments_own_subnet():
    flags = dataflow_flags(production(dataflow=WORKERS), "memory-transfer")
    assert "--runner=DataflowRunner" in flags
    assert "--subnetwork=regions/us-central1/subnetworks/orchestra-us-central1" in flags
    assert "--no_use_public_ips" in flags
    assert "--service_account_email=orchestra-move@cherry-ai-project.iam.gserviceaccount.com" in flags
    assert "--autoscaling_algorithm=THROUGHPUT_BASED" in flags
    assert "--labels=application=ai-orchestra" in flags


def test_equal_numbers_of_workers_are_not_scaled():
    fixed = WORKERS.model_copy(update={"workers": 4, "most_workers": 4})
    assert "--autoscaling_algorithm=NONE" in dataflow_flags(production(dataflow=fixed), "memory-transfer")


def test_without_workers_it_says_what_to_fill_in():
    with pytest.raises(ParameterError, match=r"production names no Dataflow workers: fill scale\.dataflow"):
        dataflow_flags(production(), "memory-transfer")


@pytest.mark.parametrize(
    ("section", "wrong"),
    [(Scale, {"range_mib": 0}), (Scale, {"commit_ms": 0}), (Dataflow, {**WORKERS.model_dump(), "bucket": "gs://b"})],
)
def test_what_cannot_be_meant_is_refused(section, wrong):
    with pytest.raises(pydantic.ValidationError):
        section(**wrong)
