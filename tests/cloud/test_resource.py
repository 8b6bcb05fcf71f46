"""Bodies that hold values of other resources: what they refer to, and what they become once those exist."""

from __future__ import annotations

import pytest

from orchestra_lib.cloud.resource import UNKNOWN, Live, Ref, Resource, Text, references, resolve

PROJECT = Ref("project:organizations/1/here", "projectNumber")
CHANNEL = Ref("notification channel:projects/here/ops")
BODY = {"network": Text("projects/{}/global/networks/{}", (PROJECT, CHANNEL)), "rows": [{"to": CHANNEL}], "plain": "x"}


def test_a_body_refers_to_what_stands_in_its_texts_and_lists() -> None:
    assert list(references(BODY)) == [PROJECT, CHANNEL, CHANNEL]


def test_a_resource_needs_each_of_its_references_once() -> None:
    resource = Resource("network", "projects/here", "one", BODY, ("services:projects/here/all", CHANNEL.key))
    assert resource.all_needs == ("services:projects/here/all", CHANNEL.key, PROJECT.key)


def test_a_text_gets_its_values_in_their_order() -> None:
    known = {
        PROJECT.key: Live("projects/here", {"projectNumber": "123"}),
        CHANNEL.key: Live("projects/here/notificationChannels/9", {}),
    }
    resolved = resolve(BODY, known)
    assert resolved["network"] == "projects/123/global/networks/projects/here/notificationChannels/9"
    assert resolved["rows"] == [{"to": "projects/here/notificationChannels/9"}]


@pytest.mark.parametrize(
    "known",
    [
        {},
        {PROJECT.key: None, CHANNEL.key: Live("there", {})},
        {PROJECT.key: Live("projects/here", {}), CHANNEL.key: Live("there", {})},
    ],
)
def test_a_text_is_unknown_as_a_whole_while_a_part_of_it_is(known: dict[str, Live | None]) -> None:
    assert resolve(BODY, known)["network"] == UNKNOWN


@pytest.mark.parametrize("template", ["no place", "{} and {}"])
def test_a_text_has_a_place_for_each_reference(template: str) -> None:
    with pytest.raises(ValueError, match="places for 1 references"):
        Text(template, (PROJECT,))
