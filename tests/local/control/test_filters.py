"""List filters in both grammars."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.filters import compiled

BODY = {
    "name": "net-1",
    "displayName": "My net",
    "autoCreateSubnetworks": False,
    "mtu": 1460,
    "labels": {"env": "prod", "a.b/c": "x"},
    "routingConfig": {"routingMode": "REGIONAL"},
    "tags": ["blue", "green"],
    "createTime": "2026-11-25T12:00:00Z",
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("name=net-1", True),
        ('name="net-2"', False),
        ("name = net-*", True),
        ("name != net-2", True),
        ('displayName="My net"', True),
        ("display_name = 'My net'", True),
        ("(name eq net-.*)", True),
        ("(name eq net)", False),
        ("name ne net-2", True),
        ("(name = net-1) (mtu = 1460)", True),
        ("name = net-1 AND NOT mtu = 1460", False),
        ("name = other OR labels.env = prod", True),
        ("labels.env=prod", True),
        ("labels.env:*", True),
        ("labels:env", True),
        ("labels.missing:*", False),
        ('labels."a.b/c" = x', True),
        ("-labels.env=prod", False),
        ("routingConfig.routingMode = REGIONAL", True),
        ("autoCreateSubnetworks = false", True),
        ("mtu > 1000", True),
        ("mtu >= 1460 AND mtu <= 1460 AND NOT mtu < 1460", True),
        ('createTime > "2026-01-01T00:00:00Z"', True),
        ("tags:blue", True),
        ("nothing = ''", True),
    ],
)
def test_common_filters(text, matches):
    assert compiled(text)(BODY) is matches


@pytest.mark.parametrize("text", ["name =", "= x", "name", "(name = x", "name = x)", "name ~ x", "name = x OR"])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(Fault, match="Invalid list filter"):
        compiled(text)(BODY)


@given(st.text(max_size=30))
def test_any_text_is_a_filter_or_refused(text):
    with suppress(Fault):
        assert compiled(text)(BODY) in (True, False)


@given(st.text(max_size=20))
def test_a_quoted_value_is_taken_literally(value):
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert compiled(f'name = "{quoted}"')({"name": value})
