"""Cloud Logging's entries: written, listed with a filter, counted by log. Kept like resources, oldest first.

https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control import filters
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Handler
from orchestra_lib.local.control.pages import page

COLLECTION = "entries"
_DEFAULT_PAGE = "50"
_SEVERITIES = {
    name: 100 * place
    for place, name in enumerate(
        ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
    )
}
_SEVERITY = re.compile(r"\b(severity\s*(?:<=|>=|!=|=|<|>)\s*)\"?([A-Za-z]+)\"?")
_LOG_ID = re.compile(r"\blog_id\(\s*\"([^\"]*)\"\s*\)", re.IGNORECASE)
_LOG = re.compile(r"^((?:projects|folders|organizations|billingAccounts)/[^/]+)/logs/([^/]+)$")


def _write(call: Call) -> Body:
    """Keep the entries, each completed by what the request says for all of them."""
    for index, given in enumerate(call.body.get("entries", [])):
        entry = _completed(call, index, given)
        parent = call.control.projects.normal(_parent(entry, index))
        if not call.body.get("dryRun"):
            key = f"logging/{parent}/{COLLECTION}/{entry['timestamp']} {entry['insertId']}"
            call.control.store.put(key, entry)
    return {}


def _completed(call: Call, index: int, given: Body) -> Body:
    common = {name: call.body[name] for name in ("logName", "resource") if name in call.body}
    entry: Body = {**common, **given}
    labels = {**call.body.get("labels", {}), **given.get("labels", {})}
    if labels:
        entry["labels"] = labels
    for name in ("logName", "resource"):
        if name not in entry:
            raise bad_field(f"entries[{index}].{name}", f"Log entry {index} has no {name}.")
    return {"timestamp": call.time, "insertId": uuid.uuid4().hex[:14], **entry, "receiveTimestamp": call.time}


def _parent(entry: Body, index: int) -> str:
    found = _LOG.match(entry["logName"])
    if not found:
        raise bad_field(f"entries[{index}].logName", f"'{entry['logName']}' is no log name: <parent>/logs/<id>.")
    return found[1]


def _list(call: Call) -> Body:
    """The entries of the named resources that the filter lets through, in the order of their times."""
    names = call.body.get("resourceNames") or [f"projects/{name}" for name in call.body.get("projectIds", [])]
    if not names:
        raise bad_field("resourceNames", "At least one resource name is required.")
    matches = _predicate(call.body.get("filter", ""))
    found = [entry for name in names for entry in _entries(call, name) if matches(entry)]
    newest_first = call.body.get("orderBy", "").endswith("desc")
    found.sort(key=lambda entry: str(entry["timestamp"]), reverse=newest_first)
    query = {"pageSize": str(call.body.get("pageSize") or _DEFAULT_PAGE), "pageToken": call.body.get("pageToken", "")}
    shown, token = page(found, query)
    answer: Body = {"entries": shown} if shown else {}
    return {**answer, "nextPageToken": token} if token else answer


def _entries(call: Call, resource: str) -> list[Body]:
    parent = "/".join(call.control.projects.normal(resource).split("/")[:2])
    return [row.body for row in call.control.store.children(f"logging/{parent}", f"logging/{COLLECTION}")]


def _predicate(text: str) -> filters.Predicate:
    """The filter over entries, in which severities have their numbers and ``log_id("x")`` is a field."""
    numbered = _SEVERITY.sub(lambda match: f"{match[1]}{_SEVERITIES.get(match[2].upper(), match[2])}", text)
    compiled = filters.compiled(_LOG_ID.sub(lambda match: f'logId="{match[1]}"', numbered))

    def predicate(entry: Mapping[str, Any]) -> bool:
        severity = _SEVERITIES[entry.get("severity", "DEFAULT")]
        return compiled({**entry, "severity": severity, "logId": _log_id(entry)})

    return predicate


def _log_id(entry: Mapping[str, Any]) -> str:
    return str(entry["logName"]).rsplit("/", 1)[1].replace("%2F", "/")


def _list_logs(call: Call) -> Body:
    parent = "/".join(call.segments[:2])
    names, token = page(sorted({entry["logName"] for entry in _entries(call, parent)}), call.query)
    answer: Body = {"logNames": names} if names else {}
    return {**answer, "nextPageToken": token} if token else answer


def _delete_log(call: Call) -> Body:
    parent, log = "/".join(call.segments[:2]), call.segments[-1].replace("/", "%2F")
    for row in call.control.store.children(f"logging/{parent}", f"logging/{COLLECTION}"):
        if str(row.body["logName"]).rsplit("/", 1)[1] == log:
            call.control.store.remove(row.key)
    return {}


METHODS: Mapping[str, Handler] = {
    "entries.write": _write,
    "entries.list": _list,
    "logs.list": _list_logs,
    "logs.delete": _delete_log,
}
"""Handlers by short id."""
