"""Which fields an update touches: those of the mask and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control import catalog, masks
from orchestra_lib.local.control.faults import Fault

API = catalog.whole().apis["alloydb", "v1"]
LEAVES = st.integers() | st.text(max_size=3)
TREES = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), LEAVES | inner, max_size=3),
    max_leaves=8,
)


@given(TREES, TREES, st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=1).map(tuple), max_size=3))
def test_fields_outside_the_mask_stay_as_they_were(before, given_body, paths):
    after = masks.apply(before, given_body, tuple(paths))
    touched = {path[0] for path in paths}
    assert {k: v for k, v in after.items() if k not in touched} == {k: v for k, v in before.items() if k not in touched}
    assert {k: v for k, v in after.items() if k in touched} == {k: v for k, v in given_body.items() if k in touched}


@given(TREES, TREES)
def test_a_merge_patch_done_twice_is_done_once(before, patch):
    once = masks.merge(before, patch)
    assert masks.merge(once, patch) == once
    assert masks.merge(before, {}) == before


def test_null_in_a_merge_patch_removes():
    assert masks.merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "d": None}) == {"a": {"c": 2}}


def test_masks_are_read_in_both_spellings_and_into_maps():
    paths = masks.paths_of("display_name,continuousBackupConfig.recovery_window_days, labels.team-x", API, "Cluster")
    assert paths == (("displayName",), ("continuousBackupConfig", "recoveryWindowDays"), ("labels", "team-x"))
    assert masks.paths_of("labels.`a.b`", API, "Cluster") == (("labels", "a.b"),)
    assert masks.paths_of("*", API, "Cluster") == (("*",),)


def test_a_path_that_the_resource_does_not_have_is_refused():
    with pytest.raises(Fault, match=r"unknown path 'continuousBackupConfig\.days'"):
        masks.paths_of("continuousBackupConfig.days", API, "Cluster")


def test_a_replacement_keeps_what_only_the_service_writes_and_what_cannot_change():
    before = {"name": "n", "uid": "u", "displayName": "old", "labels": {"a": "b"}}
    assert masks.replace(before, {"displayName": "new"}, API, "Cluster") == {
        "name": "n",
        "uid": "u",
        "displayName": "new",
    }
