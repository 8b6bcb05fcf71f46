"""Pages of a list: together they are the list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.pages import page


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50), st.sampled_from(["pageSize", "maxResults"]))
def test_following_the_tokens_gives_every_item_once(items, size, name):
    seen, token = [], ""
    for _ in range(len(items) + 1):
        part, token = page(items, {name: str(size), "pageToken": token})
        assert len(part) <= size
        seen += part
        if not token:
            break
    assert seen == items


@pytest.mark.parametrize("query", [{"pageToken": "?"}, {"pageToken": "YWJj"}, {"pageSize": "-1"}, {"pageSize": "x"}])
def test_what_is_no_size_or_token_is_refused(query):
    with pytest.raises(Fault) as caught:
        page([1, 2], query)
    assert caught.value.http_status == 400
