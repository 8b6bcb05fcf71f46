"""Cloud Logging: what is there from the start, sinks and their writers, metrics, buckets that come back, entries."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

ROOT = f"/logging/v2/projects/{PROJECT}"
BUCKETS = f"{ROOT}/locations/global/buckets"
SINKS = f"{ROOT}/sinks"
METRICS = f"{ROOT}/metrics"
PUBSUB = f"pubsub.googleapis.com/projects/{PROJECT}/topics/t"
_numbers = count(1)


def new_name(prefix):
    return f"{prefix}{next(_numbers)}"


def new_bucket(server, **body):
    name = new_name("bucket")
    made = server.post(f"{BUCKETS}?bucketId={name}", body)
    assert made.status == 200, made.body
    return f"{BUCKETS}/{name}"


def done(server, operation):
    polled = server.get(f"/logging/v2/{operation.body['name']}").body
    assert polled["done"], polled
    return polled


@pytest.mark.parametrize("parent", [f"projects/{PROJECT}", "folders/123456789012", "organizations/873291114285"])
def test_buckets_and_sinks_are_there_from_the_start(server, parent):
    buckets = server.get(f"/logging/v2/{parent}/locations/global/buckets").body["buckets"]
    days = {bucket["name"].rsplit("/", 1)[1]: bucket["retentionDays"] for bucket in buckets}
    assert (days["_Default"], days["_Required"]) == (30, 400)
    sinks = {sink["name"]: sink for sink in server.get(f"/logging/v2/{parent}/sinks").body["sinks"]}
    assert sinks["_Required"]["destination"] == f"logging.googleapis.com/{parent}/locations/global/buckets/_Required"
    assert "writerIdentity" not in sinks["_Default"]


def test_a_list_of_every_place_shows_what_is_there_from_the_start(server):
    name = new_bucket(server).rsplit("/", 1)[1]
    found = {bucket["name"] for bucket in server.get(f"{ROOT}/locations/-/buckets").body["buckets"]}
    path = f"projects/{PROJECT}/locations/global/buckets"
    assert {f"{path}/_Default", f"{path}/_Required", f"{path}/{name}"} <= found
    assert not {one for one in found if "/locations/-/" in one}


def test_what_is_required_cannot_be_changed_or_deleted(server):
    assert server.patch(f"{BUCKETS}/_Required?updateMask=retentionDays", {"retentionDays": 1}).status == 400
    assert server.delete(f"{BUCKETS}/_Required").status == 400
    assert server.delete(f"{SINKS}/_Required").status == 400
    sink = server.get(f"{SINKS}/_Required").body
    assert server.send("PUT", f"{SINKS}/_Required", {**sink, "disabled": True}).status == 400


def test_the_default_bucket_keeps_a_change_of_its_retention(fresh):
    changed = fresh.patch(f"{BUCKETS}/_Default?updateMask=retentionDays", {"retentionDays": 90})
    assert changed.body["retentionDays"] == 90
    assert fresh.get(f"{BUCKETS}/_Default").body["retentionDays"] == 90


def test_a_bucket_keeps_logs_for_thirty_days_unless_told_otherwise(server):
    bucket = server.get(new_bucket(server)).body
    assert (bucket["retentionDays"], bucket["lifecycleState"]) == (30, "ACTIVE")
    views = server.get(f"{new_bucket(server)}/views").body["views"]
    assert [view["name"].rsplit("/", 1)[1] for view in views] == ["_AllLogs"]


def test_a_deleted_bucket_is_seen_and_can_be_brought_back(server):
    bucket = new_bucket(server, description="kept")
    assert server.delete(bucket).body == {}
    assert server.get(bucket).body["lifecycleState"] == "DELETE_REQUESTED"
    assert server.post(f"{bucket}:undelete").body == {}
    assert server.get(bucket).body["lifecycleState"] == "ACTIVE"
    assert server.post(f"{bucket}:undelete").status == 400


def test_a_locked_bucket_keeps_its_retention(server):
    bucket = new_bucket(server, locked=True, retentionDays=10)
    refused = server.patch(f"{bucket}?updateMask=retentionDays", {"retentionDays": 9})
    assert (refused.status, refused.body["error"]["status"]) == (400, "FAILED_PRECONDITION")


def test_a_link_is_made_in_an_operation_and_names_its_dataset(server):
    bucket = new_bucket(server, analyticsEnabled=True)
    operation = server.post(f"{bucket}/links?linkId=link", {"description": "d"})
    assert "done" not in operation.body
    assert operation.body["metadata"]["createLinkRequest"]["linkId"] == "link"
    link = done(server, operation)["response"]
    assert link["bigqueryDataset"]["datasetId"] == f"bigquery.googleapis.com/projects/{PROJECT}/datasets/link"
    refused = server.delete(bucket)
    assert "has links" in refused.message
    done(server, server.delete(f"{bucket}/links/link"))
    assert server.delete(bucket).status == 200


def test_a_link_needs_analytics(server):
    assert server.post(f"{new_bucket(server)}/links?linkId=link", {}).status == 400


def test_a_bucket_can_be_made_in_an_operation(server):
    name = new_name("later")
    operation = server.post(f"{BUCKETS}:createAsync?bucketId={name}", {"retentionDays": 7})
    assert operation.body["metadata"]["createBucketRequest"]["bucketId"] == name
    assert done(server, operation)["response"]["retentionDays"] == 7


@pytest.mark.parametrize(
    ("query", "writer"),
    [
        ("?uniqueWriterIdentity=true", "serviceAccount:service-{number}@gcp-sa-logging.iam.gserviceaccount.com"),
        ("", "serviceAccount:cloud-logs@system.gserviceaccount.com"),
        ("?customWriterIdentity=serviceAccount:own@x.example", "serviceAccount:own@x.example"),
    ],
)
def test_a_sink_writes_as(server, query, writer):
    name = new_name("sink")
    made = server.post(f"{SINKS}{query}", {"name": name, "destination": PUBSUB, "filter": "severity>=ERROR"})
    number = server.control.projects.number(PROJECT)
    assert made.body["writerIdentity"] == writer.format(number=number)
    assert made.body["name"] == name
    updated = server.send(
        "PUT", f"{SINKS}/{name}?updateMask=filter", {"destination": PUBSUB, "filter": "severity>=INFO"}
    )
    assert updated.body["filter"] == "severity>=INFO"
    assert updated.body["writerIdentity"] == made.body["writerIdentity"]


def test_a_sink_into_a_bucket_of_its_project_needs_no_writer(server):
    destination = f"logging.googleapis.com/projects/{PROJECT}/locations/global/buckets/_Default"
    made = server.post(SINKS, {"name": new_name("sink"), "destination": destination})
    assert "writerIdentity" not in made.body


def test_a_metric_gets_the_descriptor_of_what_it_counts(server):
    name = new_name("metric")
    made = server.post(METRICS, {"name": name, "filter": "severity>=ERROR", "description": "errors"}).body
    kind = f"logging.googleapis.com/user/{name}"
    assert made["metricDescriptor"] == {
        "name": f"projects/{PROJECT}/metricDescriptors/{kind}",
        "type": kind,
        "description": "errors",
        "metricKind": "DELTA",
        "valueType": "INT64",
        "unit": "1",
    }


def test_updating_a_metric_that_does_not_exist_creates_it(server):
    name = new_name("metric")
    assert server.get(f"{METRICS}/{name}").message == f"Metric {name} does not exist."
    assert server.send("PUT", f"{METRICS}/{name}", {"name": name, "filter": "f"}).status == 200
    assert server.get(f"{METRICS}/{name}").body["filter"] == "f"


@pytest.mark.parametrize(
    "body",
    [
        {"metricDescriptor": {"labels": [{"key": "mass"}]}},
        {"labelExtractors": {"mass": "EXTRACT(jsonPayload.mass)"}},
        {"metricDescriptor": {"valueType": "DISTRIBUTION", "metricKind": "DELTA"}},
    ],
)
def test_a_metric_whose_labels_or_values_come_from_nowhere_is_refused(server, body):
    assert server.post(METRICS, {"name": new_name("metric"), "filter": "f", **body}).status == 400


def test_settings_name_the_accounts_and_keep_what_is_set(fresh):
    settings = fresh.get(f"{ROOT}/settings").body
    number = fresh.control.projects.number(PROJECT)
    assert settings["loggingServiceAccountId"] == f"service-{number}@gcp-sa-logging.iam.gserviceaccount.com"
    path = "/logging/v2/organizations/873291114285/settings"
    fresh.patch(f"{path}?updateMask=storageLocation", {"storageLocation": "us-central1", "disableDefaultSink": True})
    assert fresh.get(path).body["storageLocation"] == "us-central1"
    assert "disableDefaultSink" not in fresh.get(path).body


def write(server, *entries, **common):
    return server.post("/logging/v2/entries:write", {"entries": list(entries), **common})


def read(server, text, **more):
    body = {"resourceNames": [f"projects/{PROJECT}"], "filter": text, **more}
    return [entry["textPayload"] for entry in server.post("/logging/v2/entries:list", body).body.get("entries", [])]


def test_entries_are_found_by_severity_log_and_text(fresh):
    common = {
        "logName": f"projects/{PROJECT}/logs/app%2Fweb",
        "resource": {"type": "global"},
        "labels": {"phase": "5"},
    }
    written = write(
        fresh,
        {"textPayload": "one", "severity": "INFO", "timestamp": "2026-01-01T00:00:00Z"},
        {"textPayload": "two", "severity": "ERROR", "timestamp": "2026-01-02T00:00:00Z"},
        {"textPayload": "three", "timestamp": "2026-01-03T00:00:00Z", "logName": f"projects/{PROJECT}/logs/other"},
        **common,
    )
    assert written.body == {}
    assert read(fresh, "severity>=WARNING") == ["two"]
    assert read(fresh, "severity<ERROR", orderBy="timestamp desc") == ["three", "one"]
    assert read(fresh, 'log_id("app/web") AND labels.phase="5"') == ["one", "two"]
    assert read(fresh, 'textPayload:"hre"') == ["three"]
    assert read(fresh, 'timestamp>="2026-01-02T00:00:00Z"') == ["two", "three"]
    logs = fresh.get(f"{ROOT}/logs").body["logNames"]
    assert logs == [f"projects/{PROJECT}/logs/app%2Fweb", f"projects/{PROJECT}/logs/other"]
    fresh.delete(f"{ROOT}/logs/other")
    assert read(fresh, "") == ["one", "two"]


@pytest.mark.parametrize("entry", [{"textPayload": "x"}, {"logName": "nonsense", "resource": {"type": "global"}}])
def test_an_entry_that_belongs_nowhere_is_refused(server, entry):
    assert write(server, entry).status == 400
