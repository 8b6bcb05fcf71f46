"""Phase 4's blueprint: who may use the assistant, and what it runs with, all of it in one place."""

from __future__ import annotations

import pytest
from discovery_schema import refusals
from settings_content import with_values

from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.assistant import Earned, assistant, section, settings_in_force
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.resource import Live
from orchestra_lib.cloud.terraform.convert import convert
from orchestra_lib.errors import ParameterError

EARNED = Earned(1_750, "as retrieved")


def test_every_field_is_one_that_the_api_has() -> None:
    for resource in assistant(with_values(), EARNED).resources:
        if KINDS[resource.kind].access == "standard":
            assert refusals(resource) == [], resource.key


def test_developers_get_what_code_assist_needs_and_nothing_else() -> None:
    plan = assistant(with_values(developers__emails=["ada@example.com"]))
    assert {one.kind for one in plan.access} == {"grant"}, "their other roles are not ours to take"
    assert [one.body for one in plan.access] == [
        {"member": "user:ada@example.com", "role": "roles/cloudaicompanion.user"},
        {"member": "user:ada@example.com", "role": "roles/serviceusage.serviceUsageConsumer"},
    ]
    assert assistant(with_values(developers__emails=[])).access == ()


def test_what_nobody_has_said_is_asked_for() -> None:
    with pytest.raises(ParameterError, match=r"developers\.emails"):
        assistant(with_values(developers__emails=None))


def test_what_is_in_force_is_what_was_measured_and_what_is_sent() -> None:
    kept = settings_in_force(section(with_values()), EARNED)
    assert kept["context-tokens"] == "1750"
    assert kept["context-order"] == "as retrieved"
    assert kept["model"] == "gemini-4-argon"
    assert kept["prompt"].startswith("memory_answer@")
    assert "temperature" not in kept, "it is not sent"
    warm = section(with_values(assistant__model="gemini-2.5-flash", assistant__temperature=0.2))
    assert settings_in_force(warm, EARNED)["temperature"] == "0.2"


def test_the_api_may_read_the_settings_and_no_secrets_value() -> None:
    kept, reads = assistant(with_values(), EARNED).in_force
    assert reads.body == {"roles": ["roles/secretmanager.viewer"]}
    assert reads.parent.endswith(f"/secrets/{kept.id}")
    assert kept.key in reads.all_needs
    assert not KINDS[kept.kind].holds_data, "a rollback may delete it: nothing in it is data"


def test_it_stands_on_what_phase_1_has_and_makes_nothing_twice() -> None:
    settings = with_values()
    plan = assistant(settings)
    first = {one.key for one in infrastructure(settings)}
    assert {one.key for one in plan.foundation} <= first
    assert not {one.key for one in plan.resources} & first
    names = {one.id for one in plan.foundation if one.kind == "service"}
    assert {"aiplatform.googleapis.com", "cloudaicompanion.googleapis.com", "developerconnect.googleapis.com"} <= names


def test_every_resource_can_be_said_in_terraform() -> None:
    plan = assistant(with_values(developers__emails=["ada@example.com"]), EARNED)
    blocks = convert([(one, Live(f"{one.parent}/{one.id}", {})) for one in (*plan.access, plan.in_force[0])])
    assert {block.row.type for block in blocks} == {"google_project_iam_member", "google_secret_manager_secret"}
    assert [block.notes for block in blocks] == [()] * len(blocks)
    grant = next(block for block in blocks if block.row.type == "google_project_iam_member")
    assert grant.import_id == "cherry-ai-project roles/cloudaicompanion.user user:ada@example.com"
    assert grant.arguments["member"] == "user:ada@example.com"
