"""A text that must not be seen: prints as ``***`` everywhere, and is known to the redactor by value."""

from __future__ import annotations

import hmac
import urllib.parse
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

MASK = "***"
_SHORTEST = 4  # shorter values would blank out ordinary words
_values: set[str] = set()


class Secret:
    """A secret text; :meth:`reveal` is the only way to it. Making one tells the redactor its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        register(value)

    def reveal(self) -> str:
        """The text itself. Hand it to what needs it, never to a message or a log."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled: hand it over by its place (an environment variable, a secret's name)")

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.is_instance_schema(cls),
                core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True, min_length=1)),
            ],
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: MASK),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "writeOnly": True}


def registered() -> frozenset[str]:
    """Every secret value made in this process, and the passwords inside connection strings among them."""
    return frozenset(_values)


def register(value: str) -> None:
    """Make a text known as secret, and with it the password inside when it is a connection string."""
    _values.update(part for part in (value, *_passwords(value)) if len(part) >= _SHORTEST)


def _passwords(value: str) -> tuple[str, ...]:
    try:
        password = conninfo_to_dict(value).get("password")
    except psycopg.ProgrammingError:
        return ()  # not a connection string: then the whole value is the secret
    return (str(password), urllib.parse.quote(str(password), safe="")) if password else ()
