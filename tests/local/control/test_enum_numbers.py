"""Enums as numbers, against the descriptors of Google's own packages."""

from __future__ import annotations

import importlib

import pytest

from orchestra_lib.local.control import catalog
from orchestra_lib.local.control.checks import enum_number

PACKAGES = {
    ("aiplatform", "v1"): "google.cloud.aiplatform_v1",
    ("aiplatform", "v1beta1"): "google.cloud.aiplatform_v1beta1",
    ("alloydb", "v1"): "google.cloud.alloydb_v1",
    ("alloydb", "v1beta"): "google.cloud.alloydb_v1beta",
    ("cloudresourcemanager", "v3"): "google.cloud.resourcemanager_v3",
    ("run", "v2"): "google.cloud.run_v2",
    ("workstations", "v1"): "google.cloud.workstations_v1",
}


@pytest.mark.parametrize("version", PACKAGES, ids=".".join)
def test_numbers_are_those_of_the_descriptors(version):
    importlib.import_module(PACKAGES[version])
    pool = importlib.import_module("google.protobuf.descriptor_pool").Default()
    api = catalog.whole().apis[version]
    wrong, compared = [], 0
    for name, raw in api.raw_schemas.items():
        try:
            message = pool.FindMessageTypeByName(api.message_type(name).split("/")[1])
        except KeyError:
            continue  # newer than the package
        enums = {field.json_name: field.enum_type for field in message.fields if field.enum_type}
        for field, schema in raw.get("properties", {}).items():
            enum = schema.get("items", schema)
            if field not in enums or "enum" not in enum:
                continue
            numbers = {value.name: value.number for value in enums[field].values}
            for value in set(enum["enum"]) & set(numbers):
                compared += 1
                if enum_number(enum, value) != numbers[value]:
                    wrong.append((name, field, value, numbers[value]))
    assert compared > 0
    assert wrong == []
