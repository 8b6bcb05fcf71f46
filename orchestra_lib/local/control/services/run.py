"""Cloud Run: services, jobs, worker pools. https://cloud.google.com/run/docs/reference/rest"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import checks, standard
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Handler, Kind, Service
from orchestra_lib.local.control.operation_styles import in_location
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.services import run_data_plane
from orchestra_lib.local.control.services import run_jobs as jobs
from orchestra_lib.local.control.services import run_revisions as revisions
from orchestra_lib.local.control.services import run_templates as templates

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_SERVICE_ID = "[a-z]([a-z0-9-]{0,47}[a-z0-9])?"
_JOB_ID = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"


def _metadata(control: ControlPlane, record: Record) -> dict[str, Any]:
    """The resource itself, without its uid, with what it is still waiting for."""
    body = record["answer"] or control.shown_resource(record["service"], record["version"], record["target"]) or {}
    result = {"@type": record["type"], **{name: value for name, value in body.items() if name != "uid"}}
    if record["ended"] is None:
        result["reconciling"] = True
        result["terminalCondition"] = {**body.get("terminalCondition", {}), "state": templates.PENDING}
    elif record["error"] and "terminalCondition" in body:
        state = {"state": templates.FAILED, "message": record["error"]["message"]}
        result["terminalCondition"] = {"type": "Ready", **body["terminalCondition"], **state}
    return result


def _as_asked(handler: Handler) -> Handler:
    """The answer to a call that asks for enums as numbers has them in its metadata too, which is a resource here."""

    def answered(call: Call) -> Body:
        operation = handler(call)
        if not call.enums_as_numbers:
            return operation
        schema = call.control.schema(call.api, call.key if call.method.name != "create" else f"{call.key}/new").name
        numbered = {
            name: {
                "@type": operation[name].get("@type"),
                **checks.shown(call.api, schema, plain, enums_as_numbers=True),
            }
            for name in ("metadata", "response")
            if (plain := {key: value for key, value in operation.get(name, {}).items() if key != "@type"})
        }
        return {**operation, **numbered}

    return answered


def _kind(collection: str, noun: str, **more: Any) -> Kind:
    words = templates.not_found(noun)
    return Kind(
        collection, delete_answers="resource", applied_at_once=True, not_found=words, exists=templates.EXISTS, **more
    )


SERVICE = Service(
    name="run",
    every=Kind("", delete_answers="resource", applied_at_once=True),
    kinds=(
        _kind(
            "services",
            "SERVICE",
            id_pattern=_SERVICE_ID,
            defaults=revisions.SERVICE_DEFAULTS,
            check=revisions.check_service,
            fill=revisions.fill_service,
            finish=revisions.finish_service,
            fail=revisions.fail_service,
            show=templates.shown,
            before_delete=templates.count_deletion,
        ),
        _kind(
            "workerPools",
            "WORKER_POOL",
            id_pattern=_SERVICE_ID,
            defaults=revisions.POOL_DEFAULTS,
            check=revisions.check_pool,
            fill=revisions.fill_pool,
            finish=revisions.finish_pool,
            show=templates.shown,
            before_delete=templates.count_deletion,
        ),
        _kind("revisions", "REVISION", before_delete=revisions.before_delete_revision),
        _kind(
            "jobs",
            "JOB",
            id_pattern=_JOB_ID,
            defaults=jobs.DEFAULTS,
            check=jobs.check,
            fill=jobs.fill,
            finish=jobs.finish,
            show=templates.shown,
            before_delete=templates.count_deletion,
        ),
        _kind("executions", "EXECUTION", finish=jobs.finish_execution, before_delete=jobs.before_delete_execution),
        _kind("tasks", "TASK", built_in=jobs.tasks),
    ),
    methods={
        **{
            f"{collection}.{name}": _as_asked(handler)
            for collection in ("services", "workerPools", "jobs")
            for name, handler in (("create", standard.create), ("patch", standard.update), ("delete", standard.delete))
        },
        "jobs.run": jobs.run,
        "executions.cancel": jobs.cancel,
    },
    operations=Style(in_location, _metadata),
    awaits=run_data_plane.awaits,
    data_plane={"GET": run_data_plane.wanted, "POST": run_data_plane.report},
)
