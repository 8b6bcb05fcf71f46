"""The names of the memory's database."""

from __future__ import annotations

import settings_content

from orchestra_lib import settings
from orchestra_lib.memory_target import primary_instance, secondary_instance, writers


def test_the_instances_have_the_names_that_the_connector_takes() -> None:
    found, home = settings.load("local"), "projects/cherry-ai-project/locations"
    assert primary_instance(found) == (
        f"{home}/us-central1/clusters/orchestra-memory/instances/orchestra-memory-primary"
    )
    assert secondary_instance(found) == (
        f"{home}/us-east1/clusters/orchestra-memory-dr/instances/orchestra-memory-dr-1"
    )


def test_the_api_writes_after_the_cutover_unless_somebody_else_is_named() -> None:
    assert writers(settings.load("local")) == ("orchestra-api@cherry-ai-project.iam",)
    assert writers(settings_content.with_values(memory__writers__target=["app"])) == ("app",)
