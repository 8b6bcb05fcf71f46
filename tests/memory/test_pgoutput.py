"""Messages of the log: every kind is read as it was written, and nothing else is taken for one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgoutput_encoder import encode, field, kinds, messages, number

from orchestra_lib.memory.pgoutput import NULL_FIELD, Insert, Message, decode
from orchestra_lib.memory.stream_errors import StreamError

drawn_messages = st.booleans().flatmap(lambda in_stream: st.tuples(messages(in_stream), st.just(in_stream)))


@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.parametrize("kind", kinds(in_stream=False))
def test_every_message_is_read_as_it_was_written(kind, in_stream):
    @settings(max_examples=12, deadline=None)
    @given(kinds(in_stream)[kind])
    def hold(message):
        assert decode(memoryview(encode(message)), in_stream) == message

    hold()


def test_every_kind_of_message_is_tried():
    tried = set()

    @settings(max_examples=1)
    @given(st.tuples(*kinds(in_stream=True).values()))
    def collect(drawn):
        tried.update(map(type, drawn))

    collect()
    assert tried == set(Message.__args__)


@settings(max_examples=100, deadline=None)
@given(drawn_messages, st.data())
def test_a_message_that_is_cut_or_followed_by_more_is_refused(drawn, data):
    message, in_stream = drawn
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for payload in (whole[:cut], whole + b"\0"):
        with pytest.raises(StreamError, match=r"malformed|empty"):
            decode(memoryview(payload), in_stream)


@settings(max_examples=200, deadline=None)
@given(drawn_messages, st.data())
def test_garbled_bytes_are_a_message_or_refused_and_nothing_else(drawn, data):
    payload = bytearray(encode(drawn[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with suppress(StreamError):
        decode(memoryview(payload), data.draw(st.booleans()))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_message_or_refused_and_nothing_else(payload, in_stream):
    with suppress(StreamError):
        decode(memoryview(payload), in_stream)


def test_a_refusal_says_what_was_expected_and_where():
    payload = encode(Insert(None, 7, (field(b"abc"), NULL_FIELD, field(b"defgh"))))
    at = len(payload) - 5  # the bytes of the last value
    for cut, words in (
        (at - 6, f"column 2 of a row was expected at offset {at - 6}"),
        (at - 2, f"column 3 of a row was expected at offset {at - 4}"),
        (at + 2, f"the end of a row of 3 columns was expected at offset {len(payload)}, of {at + 2} bytes"),
        (3, "relation and kind of a row was expected at offset 1"),
    ):
        with pytest.raises(StreamError, match=words):
            decode(memoryview(payload[:cut]), in_stream=False)


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(StreamError, match=r"kind b'P'; protocol version 2 has I, U, D"):
        decode(memoryview(b"P123"), in_stream=False)


def test_a_value_in_text_is_refused_with_the_columns_position():
    payload = b"I" + number(7, 4) + b"N" + number(2, 2) + b"n" + b"t" + field(b"=arw/x")
    with pytest.raises(StreamError, match=r"column 2 of a change .* came as text"):
        decode(memoryview(payload), in_stream=False)


def test_a_field_is_a_view_of_the_message_and_no_copy():
    payload = memoryview(encode(Insert(None, 7, (field(b"abc"), NULL_FIELD, None))))
    new = decode(payload, in_stream=False).new
    assert new == (field(b"abc"), NULL_FIELD, None)
    assert new[0].obj is payload.obj
