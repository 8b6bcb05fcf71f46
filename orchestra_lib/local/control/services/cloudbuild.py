"""Cloud Build: triggers, builds, worker pools, connections. https://cloud.google.com/build/docs/api/reference/rest

Triggers and builds are kept by their generated id below a location; the older paths without one mean ``global``, and
a trigger is found by its name too.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

from orchestra_lib.local.control import masks, operations, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing, not_found
from orchestra_lib.local.control.operation_styles import below_target, full, in_location
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.services import artifactregistry, run_data_plane

_V1 = "type.googleapis.com/google.devtools.cloudbuild.v1"
_NOT_FOUND, _EXISTS = "Requested entity was not found.", "Requested entity already exists"
_NAME = "[A-Za-z0-9][A-Za-z0-9-]{0,63}"
_TRIGGERS = "cloudbuild/triggers"
_CANCELLED_CODE = 1
_NO_WORKERS = "No step was run: the local Google Cloud has no build workers."
_OVER = frozenset({"SUCCESS", "FAILURE", "INTERNAL_ERROR", "TIMEOUT", "CANCELLED", "EXPIRED"})
_BUILD_DEFAULTS = {
    "timeout": "600s",
    "queueTtl": "3600s",
    "artifacts": {},
    "options": {"logging": "LEGACY", "pool": {}},
}
_EVENTS = ("github", "triggerTemplate", "pubsubConfig", "webhookConfig", "repositoryEventConfig", "sourceToBuild")
_BUILD_CONFIGS = ("build", "filename", "gitFileSource", "autodetect")


# --- paths --------------------------------------------------------------------------------------------------------


def _one_path(control: Any, path: str) -> str:
    parts = path.split("/")
    if parts[0] == "operations":
        return path.replace("%2F", "/")
    if parts[0] == "projects" and parts[2:3] in (["triggers"], ["builds"]):
        parts[2:2] = ["locations", "global"]
    if parts[4:5] == ["triggers"] and len(parts) > 5:
        parts[5] = _trigger_id(control, "/".join(parts[:4]), parts[5])
    return "/".join(parts)


def _trigger_id(control: Any, location: str, named: str) -> str:
    rows = control.store.children(f"cloudbuild/{location}", _TRIGGERS)
    return next((row.body["id"] for row in rows if named in (row.body["id"], row.body["name"])), named)


def _uuid(_call: Call, _body: Body) -> str:
    return str(uuid.uuid4())


# --- triggers -----------------------------------------------------------------------------------------------------


def _check_trigger(_call: Call, body: Body, _before: Body | None) -> None:
    if not any(name in body for name in _BUILD_CONFIGS):
        raise bad_field("trigger", f"A trigger needs a build configuration: one of {', '.join(_BUILD_CONFIGS)}.")
    event = body.get("eventType")
    if not event and not any(name in body for name in _EVENTS):
        raise bad_field("trigger", f"A trigger needs an event or a source: one of {', '.join(_EVENTS)}.")
    for name in body.get("substitutions", {}):
        if not name.startswith("_"):
            raise bad_field("substitutions", f"User-defined substitution '{name}' has to start with an underscore.")


def _fill_trigger(call: Call, body: Body, before: Body | None) -> None:
    identifier = body["name"].rsplit("/", 1)[1]
    body["id"] = identifier
    body["resourceName"] = f"projects/{call.project}/locations/{call.location}/triggers/{identifier}"
    body["name"] = _trigger_name(call, before)
    rows = call.control.store.children(f"cloudbuild/projects/{call.project}/locations/{call.location}", _TRIGGERS)
    if any(row.body["name"] == body["name"] and row.body["id"] != identifier for row in rows):
        raise Fault("ALREADY_EXISTS", f'trigger "{body["name"]}" already exists')


def _trigger_name(call: Call, before: Body | None) -> str:
    """The caller's name for the trigger; the service makes one up where there is none."""
    mask = {masks.camel(part) for part in call.query.get("updateMask", "").split(",") if part}
    given = (call.body or {}).get("name")
    if given and (not mask or "name" in mask):
        return str(given)
    return str(before["name"]) if before else f"trigger-{uuid.uuid4().hex[:8]}"


def _run_trigger(call: Call) -> Body:
    """A build of what the trigger says."""
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    if row.body.get("disabled"):
        raise Fault("FAILED_PRECONDITION", "Trigger is disabled.")
    trigger = row.body
    body: Body = dict(trigger.get("build", {"steps": [], "tags": []}))
    body["buildTriggerId"] = trigger["id"]
    body["substitutions"] = {
        **trigger.get("substitutions", {}),
        **(call.body.get("source") or call.body).get("substitutions", {}),
        "TRIGGER_NAME": trigger["name"],
    }
    return _start_build(call, body)


# --- builds -------------------------------------------------------------------------------------------------------


def _create_build(call: Call) -> Body:
    if not call.body.get("steps"):
        raise bad_field("build.steps", "invalid build: must specify at least one build step")
    return _start_build(call, dict(call.body))


def _start_build(call: Call, body: Body) -> Body:
    location = f"projects/{call.project}/locations/{call.location}"
    identifier = str(uuid.uuid4())
    fill_missing(body, _BUILD_DEFAULTS)
    number = call.project_number
    console = f"https://console.cloud.google.com/cloud-build/builds;region={call.location}/{identifier}"
    body |= {
        "id": identifier,
        "name": f"projects/{number}/locations/{call.location}/builds/{identifier}",
        "projectId": call.project,
        "status": "QUEUED",
        "createTime": call.time,
        "logUrl": f"{console}?project={number}",
    }
    body.setdefault("logsBucket", f"gs://{number}.cloudbuild-logs.googleusercontent.com")
    key = f"cloudbuild/{location}/builds/{identifier}"
    call.control.store.put(key, body)
    return operations.start(call, key, "create", message_type=f"{_V1}.Build", effect="build")


def _end_build(control: Any, record: Record) -> None:
    """What the data plane has built is pushed. Without one no step is run, and the build says so.

    Raises Fault when an image cannot be pushed.
    """
    row = control.find(record["target"])
    if row is None:
        raise not_found(control, record["target"])
    if row.body["status"] in _OVER:
        raise Fault("CANCELLED", "Build cancelled.")
    outcome = record.get("outcome") or {"detail": _NO_WORKERS, "images": []}
    at = timestamp(control.clock() if record.get("outcome") else record["due"])
    for image in outcome["images"]:
        artifactregistry.push(control, image["name"], image["digest"], image["bytes"])
    pushed = [{"name": image["name"], "digest": image["digest"]} for image in outcome["images"]]
    body = {
        **row.body,
        "status": "SUCCESS",
        "statusDetail": outcome["detail"],
        "startTime": timestamp(record["started"]),
        "finishTime": at,
        "steps": [{**step, "status": "SUCCESS"} for step in row.body.get("steps", [])],
        "results": {
            "buildStepImages": ["" for _ in row.body.get("steps", [])],
            **({"images": pushed} if pushed else {}),
        },
    }
    control.store.put(row.key, body)


def _fail_build(control: Any, record: Record) -> None:
    """A build that failed says why; one that was cancelled is that already."""
    row = control.find(record["target"])
    if row is None or row.body["status"] in _OVER:
        return
    message = record["error"]["message"]
    body = {
        **row.body,
        "status": "CANCELLED" if record["error"]["code"] == _CANCELLED_CODE else "FAILURE",
        "statusDetail": message,
        "failureInfo": {"type": "USER_BUILD_STEP", "detail": message},
        "startTime": timestamp(record["started"]),
        "finishTime": timestamp(control.clock()),
    }
    control.store.put(row.key, body)


def _cancel_build(call: Call) -> Body:
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    if row.body["status"] in _OVER:
        raise Fault("FAILED_PRECONDITION", f"Build {row.body['id']} is already {row.body['status']}.")
    body = {**row.body, "status": "CANCELLED", "finishTime": call.time}
    call.control.store.put(row.key, body)
    return call.control.shown(call.api, row.key, body)


def _retry_build(call: Call) -> Body:
    """A new build of the same configuration."""
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    given = ("steps", "source", "images", "substitutions", "tags", "options", "timeout", "serviceAccount", "logsBucket")
    steps = [{name: value for name, value in step.items() if name != "status"} for step in row.body.get("steps", [])]
    again = {name: row.body[name] for name in given if name in row.body}
    return _start_build(call, {**again, "steps": steps})


# --- worker pools -------------------------------------------------------------------------------------------------


def _delete_pool(call: Call) -> Body:
    """A deleted pool is gone in the first answer."""
    row = call.control.find(call.key)
    if row is None and not call.flag("allowMissing"):
        raise not_found(call.control, call.key)
    call.control.store.remove(call.key)
    kind = f"{_V1}.WorkerPool"
    return operations.start(
        call, call.key, "delete", message_type=kind, effect="none", answer={"@type": kind}, ended=True
    )


# --- connections and repositories ---------------------------------------------------------------------------------


def _fill_connection(call: Call, body: Body, _before: Body | None) -> None:
    """A connection to GitHub waits for its user to log in, then for the app to be installed."""
    stage, message = _installation(body)
    state: Body = {"stage": stage}
    if stage != "COMPLETE":
        name = f"projects%2F{call.project_number}%2Flocations%2F{call.location}%2Fconnections%2F{_last(body['name'])}"
        page = (
            f"https://console.cloud.google.com/m/gcb/github/locations/{call.location}/oauth_v2?connection_name={name}"
        )
        state |= {"message": message, "actionUri": page}
    body["installationState"] = state


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _installation(body: Body) -> tuple[str, str]:
    github = body.get("githubConfig")
    if github is None:
        return "COMPLETE", ""
    if not github.get("authorizerCredential"):
        return "PENDING_USER_OAUTH", "Log in to https://github.com with a robot account and follow the link."
    if not github.get("appInstallationId"):
        return "PENDING_INSTALL_APP", "Follow the link to install the Cloud Build GitHub app."
    return "COMPLETE", ""


def _check_repository(_call: Call, body: Body, _before: Body | None) -> None:
    uri = body.get("remoteUri", "")
    if not (uri.startswith("https://") and uri.endswith(".git")):
        raise bad_field("remote_uri", f"The remote URI has to be https://<host>/<owner>/<repository>.git, not '{uri}'.")


def _fill_repository(_call: Call, body: Body, before: Body | None) -> None:
    body["webhookId"] = (before or {}).get("webhookId") or str(uuid.uuid4().int % 10**9)


def _create_repositories(call: Call) -> Body:
    """Several repositories in one operation; all or none."""
    connection = call.key.rpartition("/")[0]
    if call.control.find(connection) is None:
        raise not_found(call.control, connection)
    requests = call.body.get("requests", [])
    if not 1 <= len(requests) <= 100:
        raise bad_field("requests", f"One to 100 repositories can be created at once, not {len(requests)}.")
    created = []
    for request in requests:
        key = f"{call.key}/{request.get('repositoryId', '')}"
        standard.create_at(call, key, dict(request.get("repository", {})))
        row = call.control.find(key)
        created.append(call.control.shown(call.api, key, row.body if row else {}))
    kind = "type.googleapis.com/google.devtools.cloudbuild.v2"
    answer = {"@type": f"{kind}.BatchCreateRepositoriesResponse", "repositories": created}
    return operations.start(call, connection, "create", message_type=f"{kind}.Repository", effect="none", answer=answer)


def _default_account(call: Call) -> Body:
    email = f"{call.project_number}-compute@developer.gserviceaccount.com"
    name = f"projects/{call.project}/locations/{call.location}/defaultServiceAccount"
    return {"name": name, "serviceAccountEmail": f"projects/{call.project}/serviceAccounts/{email}"}


# --- operations ---------------------------------------------------------------------------------------------------


def _operation_name(call: Call, target: str) -> str:
    """By location in version 2, below the resource in version 1, and by the build for builds."""
    if call.api.version == "v2":
        return in_location(call, target)
    if "/builds/" in target:
        number = base64.b64encode(_last(target).encode()).decode().rstrip("=")
        return f"operations/build/{call.project}/{number}"
    return below_target(call, target)


_METADATA_V2 = full(cancellation=True)


def _metadata(control: Any, record: Record) -> Body | None:
    if record["version"] == "v2":
        metadata = _METADATA_V2(control, record)
        return {**metadata, "apiVersion": "v2"} if metadata else None
    noun = record["type"].rsplit(".", 1)[1]
    if noun == "Build":
        build = control.shown_resource(record["service"], record["version"], record["target"])
        return {"@type": f"{_V1}.BuildOperationMetadata", "build": build}
    result = {
        "@type": f"{_V1}.{record['verb'].capitalize()}{noun}OperationMetadata",
        "createTime": timestamp(record["started"]),
        noun[0].lower() + noun[1:]: control.projects.numbered(record["target"].split("/", 1)[1]),
    }
    if record["ended"] is not None:
        result["completeTime"] = timestamp(record["ended"])
    return result


SERVICE = Service(
    name="cloudbuild",
    one_path=_one_path,
    every=Kind("", not_found=_NOT_FOUND, exists=_EXISTS),
    kinds=(
        Kind(
            "triggers",
            new_id=_uuid,
            check=_check_trigger,
            fill=_fill_trigger,
            mutable=frozenset({"name"}),
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
        Kind("builds", fail=_fail_build, not_found=_NOT_FOUND, exists=_EXISTS),
        Kind(
            "workerPools",
            number_in_name=True,
            defaults={
                "privatePoolV1Config": {
                    "networkConfig": {"egressOption": "PUBLIC_EGRESS"},
                    "workerConfig": {"diskSizeGb": "100", "machineType": "e2-medium"},
                }
            },
            optional=frozenset({"privatePoolV1Config.networkConfig.peeredNetwork"}),
            references={"privatePoolV1Config.networkConfig.peeredNetwork": "compute"},
            id_pattern=_NAME,
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
        Kind("connections", fill=_fill_connection),
        Kind("repositories", check=_check_repository, fill=_fill_repository),
    ),
    methods={
        "triggers.run": _run_trigger,
        "builds.create": _create_build,
        "builds.cancel": _cancel_build,
        "builds.retry": _retry_build,
        "workerPools.delete": _delete_pool,
        "repositories.batchCreate": _create_repositories,
        "locations.getDefaultServiceAccount": _default_account,
    },
    effects={"build": _end_build},
    operations=Style(_operation_name, _metadata),
    awaits=run_data_plane.awaits,
    permissions={
        **{f"workerPools.{verb}": f"cloudbuild.workerpools.{verb}" for verb in ("create", "delete", "get", "list")},
        "workerPools.patch": "cloudbuild.workerpools.update",
        **{f"triggers.{verb}": "cloudbuild.builds.update" for verb in ("create", "delete", "patch")},
        **{f"triggers.{verb}": f"cloudbuild.builds.{verb}" for verb in ("get", "list")},
        "triggers.run": "cloudbuild.builds.create",
        "builds.cancel": "cloudbuild.builds.update",
        "builds.retry": "cloudbuild.builds.create",
    },
)
