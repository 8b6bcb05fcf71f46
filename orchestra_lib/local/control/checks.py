"""Whether a request body is what its schema allows, and the body in its one normal form.

Google's JSON front end takes field names in camel and in snake case, enums as names or numbers, 64-bit integers as
strings or numbers, bytes in either alphabet of base64; what is kept is camel case, names, strings, the standard
alphabet. https://protobuf.dev/programming-guides/json
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control.catalog import ENUM_NUMBERS, Api, Method, snake
from orchestra_lib.local.control.faults import Fault, bad_field

_INTEGER_BOUNDS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
_DURATION = re.compile(r"^-?\d+(\.\d{1,9})?s$")
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")


def clean(api: Api, schema_name: str, body: object, *, keep_null: bool = False) -> dict[str, Any]:
    """The body in normal form. Raises Fault (400) naming the first field that the schema does not allow.

    ``keep_null`` leaves ``null`` in, which a merge patch means as "remove".
    """
    if not isinstance(body, dict):
        raise bad_field("", f"Invalid JSON payload received. Expected a JSON object, got {type(body).__name__}.")
    return _message(api, schema_name, body, _root(api, schema_name), keep_null)


def _root(api: Api, schema_name: str) -> str:
    """What an error calls the body: ``cluster``; compute says ``resource``."""
    return (
        "resource" if api.service == "compute" else snake(re.sub(r"^GoogleCloud\w+?V\d\w*?(?=[A-Z])", "", schema_name))
    )


def writable(api: Api, schema_name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A normal body without the fields that only the service writes: they are ignored, at every depth."""
    kept = {}
    for name, value in body.items():
        known = api.schema(schema_name).properties[name]
        if not known.read_only:
            kept[name] = _writable_value(api, known.schema, value)
    return kept


def require(
    api: Api, schema_name: str, body: Mapping[str, Any], exempt: frozenset[str], method_id: str, at: str = ""
) -> None:
    """Raise Fault (400) for a required field that is missing, here or in a message that was given."""
    for name, known in api.schema(schema_name).properties.items():
        path = f"{at}.{name}" if at else name
        if known.required_by(method_id) and not known.read_only and name not in body and path not in exempt:
            if api.service == "compute":
                message = f"Required field 'resource.{path}' not specified"
                raise Fault("INVALID_ARGUMENT", message, reason="required")
            raise bad_field(path, f"Required field '{snake(path)}' is missing from the request.")
        value, items = body.get(name), known.schema.get("items", {})
        if isinstance(value, dict) and "$ref" in known.schema:
            require(api, known.schema["$ref"], value, exempt, method_id, path)
        elif isinstance(value, list) and "$ref" in items:
            for item in value:
                if isinstance(item, dict):
                    require(api, items["$ref"], item, exempt, method_id, path)


def check_parameter(method: Method, name: str, value: str) -> None:
    """Raise Fault (400) for a query parameter whose value is not of its type."""
    raw = method.parameters.get(name)
    if raw is None:
        return
    kind = raw.get("type")
    if "enum" in raw and value not in raw["enum"] and not value.isdigit():
        raise bad_field(name, f"Invalid value at '{name}' (TYPE_ENUM), \"{value}\"")
    if kind == "integer" and not re.fullmatch(r"-?\d+", value):
        raise bad_field(name, f"Invalid value at '{name}' (TYPE_{raw.get('format', 'int32').upper()}), \"{value}\"")
    if kind == "boolean" and value.lower() not in ("true", "false", "1", "0", ""):
        raise bad_field(name, f"Invalid value at '{name}' (TYPE_BOOL), \"{value}\"")


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text has the form of the pattern."""
    return re.fullmatch(pattern, text) is not None


def shown(api: Api, schema_name: str, body: Mapping[str, Any], *, enums_as_numbers: bool = False) -> dict[str, Any]:
    """A stored body as one version of the API shows it: fields that it knows, without what is input only."""
    properties = api.schema(schema_name).properties
    return {
        name: _shown_value(api, properties[name].schema, value, enums_as_numbers)
        for name, value in body.items()
        if name in properties and not properties[name].input_only
    }


def enum_number(schema: Mapping[str, Any], name: str) -> int:
    """The number of an enum value: nearly always its place in the document."""
    numbers: Mapping[str, int] = schema.get(ENUM_NUMBERS, {})
    return numbers[name] if name in numbers else list(schema["enum"]).index(name)


def _message(api: Api, schema_name: str, body: Mapping[str, Any], at: str, keep_null: bool = False) -> dict[str, Any]:
    schema = api.schema(schema_name)
    result: dict[str, Any] = {}
    for given, value in body.items():
        name = schema.by_camel_name.get(given)
        if name is None:
            if given == "@type":
                continue
            words = f"Unknown name \"{given}\" at '{at}': Cannot find field."
            raise bad_field(at, f"Invalid JSON payload received. {words}")
        if name in result:
            raise bad_field(at, f"Invalid JSON payload received. Field {at}.{name} was given twice.")
        if value is not None:
            result[name] = _value(api, schema.properties[name].schema, value, f"{at}.{name}", keep_null)
        elif keep_null:
            result[name] = None
    return result


def _value(api: Api, schema: Mapping[str, Any], value: Any, at: str, keep_null: bool = False) -> Any:
    if "$ref" in schema:
        if not api.raw_schemas[schema["$ref"]].get("properties"):
            return value  # a message without fields of its own: Struct, Value, Any
        if not isinstance(value, dict):
            raise _invalid(at, schema["$ref"], value)
        return _message(api, schema["$ref"], value, at, keep_null)
    kind = schema.get("type")
    if kind == "array":
        if not isinstance(value, list):
            raise _invalid(at, "repeated", value)
        return [_value(api, schema["items"], item, f"{at}[{index}]") for index, item in enumerate(value)]
    if kind == "object":
        if not isinstance(value, dict):
            raise _invalid(at, "Map", value)
        entry = schema.get("additionalProperties", {})
        return {key: _value(api, entry, item, f"{at}[{key}]") for key, item in value.items()} if entry else value
    return _scalar(schema, value, at)


def _scalar(schema: Mapping[str, Any], value: Any, at: str) -> Any:
    kind, form = schema.get("type"), schema.get("format", "")
    if kind == "boolean":
        if value in ("true", "false"):
            return value == "true"
        if not isinstance(value, bool):
            raise _invalid(at, "TYPE_BOOL", value)
        return value
    if form in _INTEGER_BOUNDS:
        return _integer(value, form, kind == "string", at)
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _invalid(at, "TYPE_DOUBLE", value)
        return value
    if kind == "string":
        return _text(schema, value, form, at)
    return value


def _integer(value: Any, form: str, as_text: bool, at: str) -> int | str:
    try:
        number = int(value) if isinstance(value, str) or value == int(value) else None
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, bool):
        raise _invalid(at, f"TYPE_{form.upper()}", value)
    low, high = _INTEGER_BOUNDS[form]
    if not low <= number <= high:
        raise _invalid(at, f"TYPE_{form.upper()}", value)
    return str(number) if as_text else number


def _text(schema: Mapping[str, Any], value: Any, form: str, at: str) -> Any:
    if "enum" in schema:
        return _enum(schema, value, at)
    if not isinstance(value, str):
        raise _invalid(at, "TYPE_STRING", value)
    if form == "google-duration" and not _DURATION.match(value):
        raise bad_field(at, f"Invalid value at '{at}' (type.googleapis.com/google.protobuf.Duration), \"{value}\"")
    if form == "google-datetime" and not _TIME.match(value):
        raise bad_field(at, f"Invalid value at '{at}' (type.googleapis.com/google.protobuf.Timestamp), \"{value}\"")
    if form == "byte":
        try:
            data = base64.b64decode(
                value + "=" * (-len(value) % 4), altchars=b"-_" if re.search("[-_]", value) else None
            )
        except (binascii.Error, ValueError):
            words = f"Invalid value at '{at}' (TYPE_BYTES), Base64 decoding failed for \"{value}\""
            raise bad_field(at, words) from None
        return base64.b64encode(data).decode()
    return value


def _enum(schema: Mapping[str, Any], value: Any, at: str) -> str:
    names = list(schema["enum"])
    if isinstance(value, int) and not isinstance(value, bool):
        value = next((name for name in names if enum_number(schema, name) == value), value)
    if value not in names:
        raise bad_field(at, f"Invalid value at '{at}' (TYPE_ENUM), \"{value}\"")
    return str(value)


def _invalid(at: str, wanted: str, value: Any) -> Fault:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return bad_field(at, f"Invalid value at '{at}' ({wanted}), {text}")


def _is_map(schema: Mapping[str, Any], value: Any) -> bool:
    entry = schema.get("additionalProperties")
    return schema.get("type") == "object" and isinstance(value, dict) and isinstance(entry, dict)


def _writable_value(api: Api, schema: Mapping[str, Any], value: Any) -> Any:
    if "$ref" in schema and isinstance(value, dict) and api.raw_schemas[schema["$ref"]].get("properties"):
        return writable(api, schema["$ref"], value)
    if schema.get("type") == "array" and isinstance(value, list):
        return [_writable_value(api, schema["items"], item) for item in value]
    if _is_map(schema, value):
        return {key: _writable_value(api, schema["additionalProperties"], item) for key, item in value.items()}
    return value


def _shown_value(api: Api, schema: Mapping[str, Any], value: Any, numbers: bool) -> Any:
    if "$ref" in schema and isinstance(value, dict) and api.raw_schemas[schema["$ref"]].get("properties"):
        return shown(api, schema["$ref"], value, enums_as_numbers=numbers)
    if schema.get("type") == "array" and isinstance(value, list):
        return [_shown_value(api, schema["items"], item, numbers) for item in value]
    if _is_map(schema, value):
        return {key: _shown_value(api, schema["additionalProperties"], item, numbers) for key, item in value.items()}
    if numbers and "enum" in schema and value in schema["enum"]:
        return enum_number(schema, value)
    return value


def immutable_change(
    api: Api, schema_name: str, before: Mapping[str, Any], after: Mapping[str, Any], exempt: frozenset[str]
) -> str | None:
    """The path of the first field that may not change and would; None when there is none.

    Within a message, a field that is left out counts as unchanged.
    """
    for name, known in api.schema(schema_name).properties.items():
        if name in exempt or name not in before:
            continue
        old, new = before[name], after.get(name)
        if known.immutable and not known.read_only and old != new:
            return name
        if "$ref" in known.schema and isinstance(old, dict) and isinstance(new, dict):
            inner = immutable_change(api, known.schema["$ref"], old, {**old, **new}, frozenset())
            if inner and f"{name}.{inner}" not in exempt:
                return f"{name}.{inner}"
    return None
