"""A body in normal form, or the field that is wrong: over drawn bodies of real schemas."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control import catalog, checks
from orchestra_lib.local.control.faults import Fault

SCHEMAS = [
    ("alloydb", "v1", "Cluster"),
    ("alloydb", "v1", "Instance"),
    ("compute", "v1", "Subnetwork"),
    ("monitoring", "v3", "AlertPolicy"),
    ("run", "v2", "GoogleCloudRunV2Service"),
    ("workstations", "v1", "WorkstationConfig"),
]
DEEPEST = 4


def api_of(service, version):
    return catalog.whole().apis[service, version]


def values(api, schema, depth):
    """Values that a field takes, in the many ways in which clients write them."""
    if "$ref" in schema:
        return messages(api, schema["$ref"], depth)
    kind, form = schema.get("type"), schema.get("format", "")
    if kind == "array":
        return st.lists(values(api, schema["items"], depth), max_size=2)
    if kind == "object":
        entry = schema.get("additionalProperties", {"type": "string"})
        return st.dictionaries(st.text("abc", min_size=1, max_size=3), values(api, entry, depth), max_size=2)
    if "enum" in schema:
        names = st.sampled_from(schema["enum"])
        return names | names.map(lambda name: checks.enum_number(schema, name))
    if kind == "boolean":
        return st.booleans()
    if form in ("int32", "uint32", "int64", "uint64"):
        number = st.integers(0, 2**31 - 1)
        return number | number.map(str)
    if kind in ("number", "integer"):
        return st.floats(allow_nan=False, allow_infinity=False)
    texts = {
        "google-duration": st.integers(0, 9999).map(lambda seconds: f"{seconds}s"),
        "google-datetime": st.just("2026-11-25T12:00:00Z"),
        "byte": st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode()),
    }
    return texts.get(form, st.text(max_size=8))


def messages(api, name, depth=0):
    """Bodies of a schema, with field names in camel or snake case."""
    properties = api.schema(name).properties if api.raw_schemas[name].get("properties") else {}
    if depth == DEEPEST or not properties:
        return st.just({})
    fields = st.lists(st.sampled_from(sorted(properties)), unique=True, max_size=4)

    @st.composite
    def drawn(draw):
        chosen = draw(fields)
        as_snake = draw(st.booleans())
        return {
            catalog.snake(field) if as_snake else field: draw(values(api, properties[field].schema, depth + 1))
            for field in chosen
        }

    return drawn()


def drawn_bodies():
    return st.sampled_from(SCHEMAS).flatmap(
        lambda row: st.tuples(st.just(row), messages(api_of(row[0], row[1]), row[2]))
    )


@given(drawn_bodies())
def test_a_body_in_normal_form_stays_as_it_is(drawn):
    (service, version, name), body = drawn
    api = api_of(service, version)
    clean = checks.clean(api, name, body)
    assert checks.clean(api, name, json.loads(json.dumps(clean))) == clean


@given(drawn_bodies())
def test_what_is_shown_with_numbers_can_be_sent_back(drawn):
    (service, version, name), body = drawn
    api = api_of(service, version)
    clean = checks.clean(api, name, body)
    plain = checks.shown(api, name, clean)
    numbered = checks.shown(api, name, clean, enums_as_numbers=True)
    assert checks.clean(api, name, numbered) == plain


@given(drawn_bodies())
def test_nothing_that_only_the_service_writes_is_kept(drawn):
    (service, version, name), body = drawn
    api = api_of(service, version)
    kept = checks.writable(api, name, checks.clean(api, name, body))
    assert not any(api.schema(name).properties[field].read_only for field in kept)
    assert checks.writable(api, name, kept) == kept


@given(drawn_bodies(), st.text("abcxyz", min_size=12, max_size=14))
def test_an_unknown_field_is_named(drawn, unknown):
    (service, version, name), body = drawn
    api = api_of(service, version)
    with pytest.raises(Fault, match=f'Unknown name "{unknown}"') as caught:
        checks.clean(api, name, {**body, unknown: 1})
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"databaseVersion": "POSTGRES_9"}, "Invalid value at 'cluster.databaseVersion' (TYPE_ENUM), \"POSTGRES_9\""),
        ({"databaseVersion": 99}, "(TYPE_ENUM)"),
        ({"labels": ["a"]}, "Invalid value at 'cluster.labels'"),
        ({"continuousBackupConfig": {"recoveryWindowDays": "many"}}, "(TYPE_INT32)"),
        ({"continuousBackupConfig": {"recoveryWindowDays": 2**40}}, "(TYPE_INT32)"),
        ({"continuousBackupConfig": {"enabled": "maybe"}}, "(TYPE_BOOL)"),
        ({"automatedBackupPolicy": {"backupWindow": "an hour"}}, "google.protobuf.Duration"),
        ({"displayName": 7}, "(TYPE_STRING)"),
        ({"networkConfig": "default"}, "Invalid value at 'cluster.networkConfig'"),
        ({"display_name": "a", "displayName": "b"}, "given twice"),
        ([], "Expected a JSON object"),
    ],
)
def test_what_is_wrong_is_said_with_its_field_and_value(body, words):
    with pytest.raises(Fault) as caught:
        checks.clean(api_of("alloydb", "v1"), "Cluster", body)
    assert words in caught.value.message
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_required_field_is_missed_at_every_depth():
    api = api_of("run", "v2")
    schema = "GoogleCloudRunV2VolumeMount"
    required = [name for name, known in api.schema(schema).properties.items() if known.required]
    assert required
    with pytest.raises(Fault, match=catalog.snake(required[0])):
        checks.require(api, schema, {}, frozenset(), "run.projects.locations.services.create")
    container = {"image": "i", "volumeMounts": [{}]}
    with pytest.raises(Fault, match="is missing from the request"):
        checks.require(api, "GoogleCloudRunV2Container", container, frozenset(), "any")


def test_compute_wants_fields_for_the_methods_that_its_document_names():
    api = api_of("compute", "v1")
    wanted = {
        method
        for raw in api.raw_schemas.values()
        for field in raw.get("properties", {}).values()
        for method in field.get("annotations", {}).get("required", ())
    }
    assert "compute.instances.insert" in wanted
    with pytest.raises(Fault, match=r"Required field 'resource\.name' not specified"):
        checks.require(api, "Instance", {}, frozenset(), "compute.instances.insert")
    checks.require(api, "Instance", {}, frozenset(), "compute.instances.update")


def test_immutable_fields_are_watched_at_every_depth():
    api = api_of("workstations", "v1")
    fields = api.schema("PrivateClusterConfig").properties
    assert fields["enablePrivateEndpoint"].immutable
    before = {"network": "n", "privateClusterConfig": {"enablePrivateEndpoint": True, "allowedProjects": ["p"]}}

    def change(private):
        after = {**before, "privateClusterConfig": private}
        return checks.immutable_change(api, "WorkstationCluster", before, after, frozenset())

    assert change({"enablePrivateEndpoint": False}) == "privateClusterConfig.enablePrivateEndpoint"
    assert change({"allowedProjects": []}) is None
    assert checks.immutable_change(api, "WorkstationCluster", before, {"network": "m"}, frozenset()) == "network"


@given(st.binary(max_size=24))
def test_bytes_are_the_same_in_either_alphabet_of_base64(data):
    written = [base64.b64encode(data), base64.urlsafe_b64encode(data), base64.urlsafe_b64encode(data).rstrip(b"=")]
    kept = [checks.clean(api_of("iam", "v1"), "Policy", {"etag": etag.decode()})["etag"] for etag in written]
    assert kept == [base64.b64encode(data).decode()] * 3
