"""A parameter file as a plain document, and the one that is no environment."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings.document import read, value_at, with_values

KEYS = st.sampled_from("abc")
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, st.integers() | st.none() | st.text(max_size=3), max_size=3),
    lambda inner: st.dictionaries(KEYS, inner | st.integers(), max_size=3),
    max_leaves=6,
)
PLACES = st.lists(KEYS, min_size=1, max_size=3).map(".".join)


def test_the_strategy_as_written_is_no_environment_and_the_refusal_says_what_it_is() -> None:
    assert settings.STRATEGY not in settings.environments()
    with pytest.raises(ParameterError, match=r"strategy-as-written is no environment: .*local, production") as caught:
        settings.load(settings.STRATEGY)
    assert "\n" not in str(caught.value)


def test_the_strategy_as_written_can_be_read_as_a_document() -> None:
    document = read(settings.root() / "parameters" / f"{settings.STRATEGY}.yaml")
    assert value_at(document, "workstations.development.machine_type") == "n2d-standard-32"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("? [1]\n: 2\n", r"file.yaml, line 1: \[1\] can be no key"),
        ("a: 1\na: 2\n", "file.yaml, line 2: the key 'a' stands here twice"),
        ("a: !!python/object:os.system 1\n", "file.yaml, line 1: could not determine a constructor"),
        ("- 1\n", "file.yaml holds no settings"),
    ],
)
def test_what_is_no_parameter_file_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(ParameterError, match=words) as caught:
        read(tmp_path / "file.yaml")
    assert "\n" not in str(caught.value)


def test_a_key_with_a_line_break_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (settings.root() / "parameters").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    with (tmp_path / "local.yaml").open("a") as file:
        file.write('"two\\nlines": 1\n')
    with pytest.raises(ParameterError, match=r"'two\\nlines' is no setting") as caught:
        settings.load("local", directory=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["a.b.c", "a.b", "x", "a.b.c.d"])
def test_what_is_not_there_is_none(place: str) -> None:
    assert value_at({"a": {"b": None}}, place) is None
    assert value_at({"a": "text"}, "a.b") is None


@given(DOCUMENTS, PLACES, st.integers())
def test_what_is_put_is_read_again_and_the_document_given_stays(
    document: dict[str, Any], place: str, value: int
) -> None:
    before = copy.deepcopy(document)
    changed = with_values(document, {place: value})
    assert value_at(changed, place) == value
    assert document == before


@given(DOCUMENTS, PLACES, st.integers())
def test_nothing_else_changes(document: dict[str, Any], place: str, value: int) -> None:
    changed = with_values(document, {place: value})
    top = place.partition(".")[0]
    assert {key: inner for key, inner in changed.items() if key != top} == {
        key: inner for key, inner in document.items() if key != top
    }
