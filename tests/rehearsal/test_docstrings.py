"""Every docstring of a folder becomes one item with an id of its own, and its first sentence can be held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_lib.rehearsal.docstrings import Item, collect, standard_library

MODULE = '''"""Kettles boil water. They whistle
when they are done."""

import os


class Kettle(object):
    """A kettle of one litre!

    It is made of steel.
    """

    size = 1

    @property
    def heat(self):
        """The heat in degrees."""
        return self._heat

    @heat.setter
    def heat(self, value):
        """Set the heat."""
        self._heat = value

    def undocumented(self):
        def inner(x, *, y=2):
            """An inner function without a full stop

            and a second paragraph"""
            return x
        return inner


async def boil(kettle, minutes=3):
    """Boil a kettle. Takes minutes."""
    await kettle


def silent():
    return 1


def blank():
    """   """
'''


@pytest.fixture
def items(tmp_path: Path) -> dict[str, Item]:
    for name in ("kitchen/__init__.py", "kitchen/kettle.py", "kitchen/tests/test_kettle.py", "test/other.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULE if name != "kitchen/__init__.py" else '"""The kitchen."""\n')
    (tmp_path / "wrong.py").write_text('"""A good docstring."""\ndef (:\n')
    (tmp_path / "latin.py").write_bytes('"""Zürich."""\n'.encode("latin-1"))
    (tmp_path / "notes.txt").write_text('"""No Python."""\n')
    return {item.id: item for item in collect(tmp_path)}


def test_modules_classes_functions_and_properties_have_ids_of_their_own(items: dict[str, Item]) -> None:
    assert {id_: item.item_type for id_, item in items.items()} == {
        "kitchen": "module",
        "kitchen.kettle": "module",
        "kitchen.kettle:Kettle": "class",
        "kitchen.kettle:Kettle.heat": "function",
        "kitchen.kettle:Kettle.heat#2": "function",
        "kitchen.kettle:Kettle.undocumented.inner": "function",
        "kitchen.kettle:boil": "function",
    }


@pytest.mark.parametrize(
    ("id_", "signature", "first", "rest", "excerpt"),
    [
        ("kitchen", "module kitchen", "The kitchen.", "", ""),
        (
            "kitchen.kettle", "module kitchen.kettle",
            "Kettles boil water.", "They whistle\nwhen they are done.", "import os",
        ),
        (
            "kitchen.kettle:Kettle", "class Kettle(object)",
            "A kettle of one litre!", "It is made of steel.", "    size = 1",
        ),
        (
            "kitchen.kettle:Kettle.heat", "def Kettle.heat(self)",
            "The heat in degrees.", "", "        return self._heat",
        ),
        (
            "kitchen.kettle:Kettle.heat#2", "def Kettle.heat#2(self, value)",
            "Set the heat.", "", "        self._heat = value",
        ),
        (
            "kitchen.kettle:boil", "def boil(kettle, minutes=3)",
            "Boil a kettle.", "Takes minutes.", "    await kettle",
        ),
        (
            "kitchen.kettle:Kettle.undocumented.inner", "def Kettle.undocumented.inner(x, *, y=2)",
            "An inner function without a full stop", "and a second paragraph", "            return x",
        ),
    ],
)  # fmt: skip
def test_an_item_holds_signature_first_sentence_rest_and_source(
    items: dict[str, Item], id_: str, signature: str, first: str, rest: str, excerpt: str
) -> None:
    item = items[id_]
    assert (item.signature, item.first_sentence, item.rest) == (signature, first, rest)
    assert item.excerpt.startswith(excerpt)
    assert bool(item.excerpt) == bool(excerpt)
    assert '"""' not in item.excerpt.partition("\n")[0], "the docstring itself is no source excerpt"


def test_the_first_sentence_is_in_the_content_unless_it_is_held_out(items: dict[str, Item]) -> None:
    item = items["kitchen.kettle:boil"]
    whole = "def boil(kettle, minutes=3)\n\nBoil a kettle. Takes minutes.\n\n    await kettle"
    assert item.content(with_first_sentence=True) == whole
    assert item.content(with_first_sentence=False) == whole.replace("Boil a kettle. ", "")


def test_items_of_a_package_share_agent_and_persona_and_of_a_module_user_and_session(items: dict[str, Item]) -> None:
    assert {item.agent_id for item in items.values()} == {"kitchen"}
    assert len({item.persona for item in items.values()}) == 1
    assert items["kitchen.kettle"].user_id == items["kitchen.kettle:boil"].user_id
    assert {item.session_id for item in items.values()} == {"kitchen/000", "kitchen.kettle/000"}


def test_lines_are_those_of_the_file(items: dict[str, Item]) -> None:
    lines = MODULE.splitlines()
    assert items["kitchen.kettle"].line == 1
    assert lines[items["kitchen.kettle:Kettle"].line - 1] == "class Kettle(object):"
    assert lines[items["kitchen.kettle:boil"].line - 1].startswith("async def boil")


def test_a_folder_without_python_has_no_items(tmp_path: Path) -> None:
    assert collect(tmp_path) == ()


@pytest.mark.slow
def test_the_standard_library_gives_thousands_of_items_that_do_not_tell_their_first_sentence() -> None:
    items = collect()
    assert len(items) > 8_000
    assert len({item.id for item in items}) == len(items)
    assert len({item.session_id for item in items}) > 500
    assert {item.item_type for item in items} == {"module", "class", "function"}
    assert not any("\0" in item.content(with_first_sentence=True) for item in items)
    assert collect(standard_library() / "json") == collect(standard_library() / "json")
    told = 0
    for item in items:
        assert item.first_sentence
        assert item.first_sentence in item.content(with_first_sentence=True)
        held_out = " ".join(item.content(with_first_sentence=False).split())
        told += len(item.first_sentence.split()) >= 4 and item.first_sentence in held_out
    # A handful repeat the sentence further down (turtle's examples, a class with its module's docstring).
    assert told < len(items) / 200
