"""No form of a known secret survives redaction, nor does what has a secret's shape; ordinary text is left alone."""

from __future__ import annotations

import base64
import contextlib
import copy
import html
import json
import pickle
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from orchestra_lib import secret
from orchestra_lib.redaction import learn_environment, redact, redact_json, survivors
from orchestra_lib.secret import MASK, Secret

_PRINTABLE = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
_AWKWARD = st.sampled_from("'\"\\ %&<>=@:/+;é☂\U0001f511")
SECRETS = st.text(_AWKWARD | _PRINTABLE, min_size=8, max_size=24)
AROUND = st.sampled_from(["", "no answer from ", "x = ", "\n", ", ", '{"a": 1} ', "Zürich: "])
FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": json.dumps,
    "json in UTF-8": lambda value: json.dumps(value, ensure_ascii=False),
    "repr": repr,
    "html": html.escape,
    "url": lambda value: urllib.parse.quote(value, safe=""),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
}
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nq83vEjRWeJA=\n-----END RSA PRIVATE KEY-----"


@contextlib.contextmanager
def knowing(*values: str) -> Iterator[None]:
    """Only these secrets are known inside; those of the process are known again after."""
    before = set(secret._values)
    secret._values.clear()
    try:
        for value in values:
            Secret(value)
        yield
    finally:
        secret._values.clear()
        secret._values.update(before)


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    with knowing():
        yield


# --- known values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(value=SECRETS, before=AROUND, after=AROUND)
def test_no_form_of_a_known_secret_survives(form: str, value: str, before: str, after: str) -> None:
    with knowing(value):
        text = redact(f"{before}{FORMS[form](value)}{after}")
        assert survivors(text) == 0
        assert [name for name, written in FORMS.items() if written(value) in text] == []
        assert MASK in text
        assert redact(text) == text


@given(values=st.lists(SECRETS, min_size=2, max_size=4, unique=True), between=AROUND)
def test_of_several_secrets_in_one_text_none_survives(values: list[str], between: str) -> None:
    with knowing(*values):
        text = redact(between.join(values))
        assert survivors(text) == 0
        assert [value for value in values if value in text] == []


def test_a_secret_does_not_hide_behind_a_shorter_one_inside_it() -> None:
    with knowing("hunter22", "correct-hunter22-battery"):
        assert redact("it is correct-hunter22-battery, or hunter22") == "it is ***, or ***"


def test_the_password_inside_a_connection_string_is_known_by_itself() -> None:
    with knowing("postgresql://ada:p%40ss word7@db:5432/orchestra".replace(" ", "%20")):
        assert redact("the password p@ss word7 of ada") == "the password *** of ada"
        assert redact("p%40ss%20word7") == MASK
    with knowing(r"host=db user=ada password='it\'s \\ me'"):
        assert redact(r"it's \ me") == MASK
        assert redact("host=db user=ada") == "host=db user=ada"


def test_a_value_too_short_to_be_told_from_words_is_not_hunted_for() -> None:
    with knowing("abc"):
        assert redact("abc abcd") == "abc abcd"


def test_survivors_are_counted_before_redaction() -> None:
    with knowing("hunter22"):
        assert survivors("hunter22") == 1
        assert survivors("hunter2") == 0
    assert survivors("postgresql://ada:pw@db and password=pw") == 2


def test_environment_variables_named_like_secrets_become_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "DEPLOY_TOKEN", "db_password", "OPENAI_API_KEY", "CLIENT_SECRET"):
        monkeypatch.setenv(name, f"value-of-{name}")
    monkeypatch.setenv("TOKEN_COUNT", "seventeen")
    monkeypatch.setenv("EMPTY_TOKEN", "")
    learn_environment()
    text = ["PGPASSWORD", "DEPLOY_TOKEN", "db_password", "OPENAI_API_KEY", "CLIENT_SECRET"]
    assert [redact(f"value-of-{name}") for name in text] == [MASK] * 5
    assert redact("seventeen") == "seventeen"


# --- JSON -------------------------------------------------------------------------------------------------------------


@given(value=SECRETS, before=AROUND, after=AROUND)
def test_nested_json_is_redacted_in_texts_and_keys_and_stays_what_it_is(value: str, before: str, after: str) -> None:
    held = f"{before}{value}{after}"
    content = {"list": [1, held, [held, None]], "mapping": {held: {"deep": held}}, "number": 2.5, "yes": True}
    with knowing(value):
        found = redact_json(content)
        assert survivors(json.dumps(found, ensure_ascii=False)) == 0
        assert (found["list"][0], found["number"], found["yes"]) == (1, 2.5, True)
        assert found["list"][2][1] is None
        (key,) = found["mapping"]
        assert found["list"][1] == found["list"][2][0] == key == found["mapping"][key]["deep"] == redact(held)
        assert content["list"][1] == held, "the original is not touched"
        assert redact_json(found) == found


@given(value=SECRETS, before=AROUND, after=AROUND, ascii_only=st.booleans())
def test_json_text_stays_json_when_it_is_redacted(value: str, before: str, after: str, ascii_only: bool) -> None:
    texts = [f"{before}{value}{after}", f"postgresql://ada:{value}@db/x", f"password={value}", f"password='{value}'"]
    texts += [f"authorization: Bearer {value}", PEM, "ya29." + "a" * 30]
    with knowing(value):
        redacted = redact(json.dumps({"texts": texts, value: 1}, ensure_ascii=ascii_only, indent=1))
        assert survivors(redacted) == 0
        found = json.loads(redacted)
        assert len(found["texts"]) == len(texts)
        assert MASK in found["texts"][0]
        assert value not in str(found["texts"])


# --- shapes -----------------------------------------------------------------------------------------------------------

SHAPES = [
    ("postgresql://ada:s3cr3t@db:5432/orchestra", "postgresql://ada:***@db:5432/orchestra"),
    ("redis://:s3cr3t@cache", "redis://:***@cache"),
    ("host=db password=s3cr3t user=ada", "host=db password=*** user=ada"),
    ("PGPASSWORD=s3cr3t psql", "PGPASSWORD=*** psql"),
    ("password = 's3cr3t with blanks' user=ada", "password = '***' user=ada"),
    ("Authorization: Bearer s3cr3t.s3cr3t", "Authorization: Bearer ***"),
    ("authorization:basic czNjcjN0", "authorization:basic ***"),
    (f"token ya29.{'a1_-' * 8}, expired", "token ***, expired"),
    (f"key=AIza{'aB3_-' * 7}&x=1", "key=***&x=1"),
    (f"got eyJhbGciOiJIUzI1NiJ9.{'p' * 20}.{'s' * 12}!", "got ***!"),
    (f"key:\n{PEM}\nend", "key:\n***\nend"),
    (json.dumps({"key": PEM}), '{"key": "***"}'),
]


@pytest.mark.parametrize(("text", "wanted"), SHAPES, ids=[wanted[:24] for _, wanted in SHAPES])
def test_a_secrets_shape_is_masked_wherever_it_comes_from(text: str, wanted: str) -> None:
    assert survivors(text) > 0
    assert redact(text) == wanted
    assert survivors(wanted) == 0
    assert redact(wanted) == wanted


@given(st.lists(st.sampled_from([text for text, _ in SHAPES]) | AROUND | SECRETS, max_size=5), AROUND)
def test_redacting_twice_is_redacting_once(parts: list[str], between: str) -> None:
    with knowing():
        once = redact(between.join(parts))
        assert redact(once) == once
        assert survivors(once) == 0


@pytest.mark.parametrize(
    "text",
    [
        "https://host:5432/path",
        "https://cloud.google.com/alloydb/docs?hl=en#top",
        "postgresql://ada@db:5432/orchestra",
        "ada@example.com",
        "password policy",
        "the password is asked for",
        "passwordless = yes",
        "12:30@home",
        "authorization: none",
        "ya29 is a prefix",
        "AIzaShort",
        "eyJ.eyJ.eyJ",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "d41d8cd98f00b204e9800998ecf8427e",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text
    assert survivors(text) == 0


# --- a secret itself --------------------------------------------------------------------------------------------------


class Holder(BaseModel):
    """A model with a secret in it, as the settings have."""

    dsn: Secret | None = None
    name: str = "ada"


@given(SECRETS)
def test_a_secret_prints_as_stars_however_it_is_printed(value: str) -> None:
    with knowing():
        held, model = Secret(value), Holder(dsn=value)
        printed = [repr(held), str(held), f"{held}", f"{held!r}", f"{held:>40}", "%s" % held, format(held)]  # noqa: UP031
        assert printed == [MASK] * 7
        assert str([held]) == f"[{MASK}]"
        assert model.model_dump() == {"dsn": MASK, "name": "ada"}
        assert json.loads(model.model_dump_json()) == {"dsn": MASK, "name": "ada"}
        assert f"{model!r} {model}" == f"Holder(dsn={MASK}, name='ada') dsn={MASK} name='ada'"
        assert held.reveal() == value
        assert model.dsn is not None
        assert model.dsn.reveal() == value
        assert redact(value) == MASK


def test_an_empty_secret_or_one_that_is_no_text_is_refused() -> None:
    for wrong in ("", 5, b"bytes", ["postgresql://ada:s3cr3t@db"]):
        with pytest.raises(ValidationError):
            Holder(dsn=wrong)  # type: ignore[arg-type]


def test_a_secret_is_neither_pickled_nor_copied_by_way_of_pickling() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(Secret("hunter22"), protocol)
    with pytest.raises(TypeError, match="a secret is not pickled"):
        copy.deepcopy(Secret("hunter22"))


def test_secrets_are_equal_by_value_and_equal_to_nothing_else() -> None:
    assert Secret("hunter22") == Secret("hunter22")
    assert hash(Secret("hunter22")) == hash(Secret("hunter22"))
    assert Secret("hunter22") != Secret("hunter23")
    assert Secret("hunter22") != "hunter22"
    assert Secret("hunter22") != MASK
    assert Secret("Zürich☂☂☂") == Secret("Zürich☂☂☂")


def test_a_secrets_json_schema_is_a_text_to_write_only() -> None:
    assert Holder.model_json_schema()["properties"]["dsn"]["anyOf"][0] == {"type": "string", "writeOnly": True}
