"""The GraphQL operations that the real client asks of the loopback server: one function each, found by its name.

An operation that is not here is recorded in `Backend.unhandled` and answered with an error, so that a newer client
shows what it needs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from loopback_backend import USER, NotFoundError
from loopback_runs import StoredRun, global_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopback_backend import Backend
    from loopback_sweeps import Sweep

Variables = dict[str, object]
OPERATIONS: dict[str, Callable[[Backend, Variables], dict[str, object]]] = {}


def operation(*names: str):
    def register(function):
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def text(variables: Variables, name: str, default: str = "") -> str:
    value = variables.get(name)
    return value if isinstance(value, str) and value else default


def place(variables: Variables) -> tuple[str, str]:
    """Entity and project."""
    return text(variables, "entity", USER), text(variables, "project", "uncategorized")


def project_json(entity: str, project: str) -> dict[str, object]:
    return {
        "id": global_id("Project", project, entity),
        "name": project,
        "entity": {"id": global_id("Entity", entity), "name": entity},
    }


def bucket_json(run: StoredRun) -> dict[str, object]:
    return {
        "id": run.id,
        "name": run.name,
        "displayName": run.display_name,
        "description": run.notes,
        "config": run.config,
        "sweepName": run.sweep,
        "project": project_json(run.entity, run.project),
        "historyLineCount": len(run.history),
    }


# --- who and what the server is -----------------------------------------------------------------------------------


@operation("Viewer", "GetViewer", "GetDefaultEntity")
def viewer(backend: Backend, variables: Variables) -> dict[str, object]:
    entity = {"id": global_id("Entity", USER), "name": USER}
    return {
        "viewer": {
            "id": global_id("User", "1"),
            "entity": USER,
            "username": USER,
            "name": USER,
            "email": "lab@localhost",
            "admin": False,
            "flags": "{}",
            "deletedAt": None,
            "defaultEntity": entity,
            "teams": {"edges": [{"node": entity}]},
            "apiKeys": {"edges": []},
        }
    }


@operation("ServerFeaturesQuery")
def server_features(backend: Backend, variables: Variables) -> dict[str, object]:
    return {"serverInfo": {"features": []}}


@operation("ServerInfo")
def server_info(backend: Backend, variables: Variables) -> dict[str, object]:
    versions = {"min_cli_version": "0.8.0", "max_cli_version": "99.0.0"}
    return {"serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None}}


@operation("OrganizationCoreWeaveOrganizationID")
def core_weave(backend: Backend, variables: Variables) -> dict[str, object]:
    return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}


@operation("XXHashDigestsEnabled")
def xxhash(backend: Backend, variables: Variables) -> dict[str, object]:
    return {"entity": {"xxhashDigestsEnabled": False}}


# --- runs ---------------------------------------------------------------------------------------------------------


@operation("RunResumeStatus")
def resume_status(backend: Backend, variables: Variables) -> dict[str, object]:
    entity, project = place(variables)
    run = backend.runs.find(entity, project, text(variables, "name"))
    bucket = None
    if run is not None:
        history, events = run.lines("history"), run.lines("events")
        bucket = bucket_json(run) | {
            "summaryMetrics": run.summary,
            "logLineCount": len(run.logs),
            "eventsLineCount": len(events),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "tags": run.tags,
            "notes": run.notes,
            "wandbConfig": json.dumps({"t": 1} if run.started else {}),  # the client resumes only where "t" is
        }
    return {"model": project_json(entity, project) | {"bucket": bucket}}


@operation("UpsertBucket")
def upsert_bucket(backend: Backend, variables: Variables) -> dict[str, object]:
    entity, project = place(variables)
    run = backend.runs.by_id(text(variables, "id")) if variables.get("id") else None
    if run is None:
        run = backend.runs.find(entity, project, text(variables, "name"))
    inserted = run is None or not run.started
    if run is None:
        run = backend.runs.add(StoredRun(entity, project, text(variables, "name")))
    _update(backend, run, variables)
    backend.runs.start(run)
    backend.sweeps.begun(run)
    return {"upsertBucket": {"bucket": bucket_json(run), "inserted": inserted}}


def _update(backend: Backend, run: StoredRun, variables: Variables) -> None:
    named = {
        "displayName": "display_name",
        "host": "host",
        "jobType": "job_type",
        "groupName": "group",
        "config": "config",
        "tags": "tags",
        "sweep": "sweep",
        "summaryMetrics": "summary",
    }
    for name, attribute in named.items():
        if variables.get(name):
            setattr(run, attribute, variables[name])
    if variables.get("notes") is not None:
        run.notes = str(variables["notes"])
        run.said.append(("notes", round(backend.runs.now(), 3)))


@operation("RewindRun")
def rewind_run(backend: Backend, variables: Variables) -> dict[str, object]:
    entity, project = place(variables)
    run = backend.runs.find(entity, project, text(variables, "runName"))
    if run is None:
        raise NotFoundError("run not found")
    if not backend.settings.rewind:
        raise NotFoundError("rewinding runs is not enabled")
    backend.runs.rewind(run, int(str(variables["metricValue"]).partition(".")[0]))
    backend.runs.start(run)
    return {"rewindRun": {"rewoundRun": bucket_json(run)}}


@operation("RunState")
def run_state(backend: Backend, variables: Variables) -> dict[str, object]:
    entity, project = place(variables)
    run = backend.runs.find(entity, project, text(variables, "run"))
    return {"project": {"run": None if run is None else {"id": run.id, "state": run.state}}}


@operation("Run")
def public_run(backend: Backend, variables: Variables) -> dict[str, object]:
    """As the public API reads it."""
    entity, project = place(variables)
    run = backend.runs.find(entity, project, text(variables, "name"))
    if run is None:
        raise NotFoundError(f"run {entity}/{project}/{text(variables, 'name')} not found")
    nothing = dict.fromkeys(("commit", "heartbeatAt", "systemMetrics"))
    about = (
        nothing
        | bucket_json(run)
        | {
            "projectId": "1",
            "tags": run.tags,
            "state": run.state,
            "group": run.group,
            "jobType": run.job_type,
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00",
            "notes": run.notes,
            "summaryMetrics": run.summary,
            "user": {"name": USER, "username": USER},
            "historyKeys": None,
        }
    )
    return {"project": {"run": about}}


@operation("RunFiles")
def run_files(backend: Backend, variables: Variables) -> dict[str, object]:
    """All at once: no second page. One that was asked for by its name and is not there has the md5 "0"."""
    entity, project = place(variables)
    run = backend.runs.find(entity, project, text(variables, "name"))
    if run is None:
        raise NotFoundError("run not found")
    wanted = variables.get("fileNames") or sorted(run.files)
    edges = [{"node": _file_json(backend, run, name), "cursor": name} for name in wanted]  # type: ignore[union-attr]
    files = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
    return {"project": {"internalId": "1", "run": {"fileCount": len(run.files), "files": files}}}


def _file_json(backend: Backend, run: StoredRun, name: str) -> dict[str, object]:
    url = backend.file_url(run.entity, run.project, run.name, name)
    content = run.files.get(name)
    digest = "0" if content is None else base64.b64encode(hashlib.md5(content).digest()).decode()
    return {
        "id": global_id("File", run.name, name),
        "name": name,
        "url": url,
        "directUrl": url,
        "sizeBytes": len(content or b""),
        "mimetype": "application/octet-stream",
        "updatedAt": "2026-01-01T00:00:00",
        "md5": digest,
    }


@operation("StopRun")
def stop_run(backend: Backend, variables: Variables) -> dict[str, object]:
    run = backend.runs.by_id(text(variables, "id"))
    if run is not None:
        run.stop_wanted = True
    return {"stopRun": {"success": run is not None}}


@operation("CreateRunFiles")
def create_run_files(backend: Backend, variables: Variables) -> dict[str, object]:
    entity, project = place(variables)
    run = text(variables, "run")
    names: list[str] = variables["files"]  # type: ignore[assignment]
    files = [{"name": name, "uploadUrl": backend.file_url(entity, project, run, name)} for name in names]
    return {"createRunFiles": {"runID": global_id("Run", run), "uploadHeaders": [], "files": files}}


@operation("MarkRunFilesUploaded")
def mark_files_uploaded(backend: Backend, variables: Variables) -> dict[str, object]:
    return {"markRunFilesUploaded": {"success": True}}


# --- sweeps -------------------------------------------------------------------------------------------------------


@operation("UpsertSweep", "UpsertSweepState")
def upsert_sweep(backend: Backend, variables: Variables) -> dict[str, object]:
    sweeps = backend.sweeps
    if variables.get("id"):
        sweep = sweeps.find(text(variables, "id"))
        if sweep is None:
            raise NotFoundError("sweep not found")
        sweep.text = text(variables, "config", sweep.text)
    else:
        entity, project = text(variables, "entityName", USER), text(variables, "projectName", "uncategorized")
        sweep = sweeps.create(text(variables, "config", "{}"), entity, project)
    if variables.get("state"):
        sweeps.set_state(sweep, text(variables, "state"))
    told = {"name": sweep.name, "id": sweep.id, "state": sweep.state}
    told["project"] = project_json(sweep.entity, sweep.project)  # type: ignore[assignment]
    return {"upsertSweep": {"sweep": told, "configValidationWarnings": []}}


@operation("SweepWithRuns", "GetSweepState", "Sweep", "GetSweep", "GetSweepLegacy", "SweepConfig")
def sweep_with_runs(backend: Backend, variables: Variables) -> dict[str, object]:
    wanted = text(variables, "sweep") or text(variables, "name") or text(variables, "sweepName")
    sweep = backend.sweeps.find(wanted)
    return {"project": {"sweep": None if sweep is None else _sweep_json(backend, sweep)}}


def _sweep_json(backend: Backend, sweep: Sweep) -> dict[str, object]:
    nodes = [
        {
            "name": run.name,
            "state": run.state,
            "config": run.config,
            "exitcode": run.exit_code,
            "heartbeatAt": None,
            "shouldStop": run.stop_wanted,
            "failed": run.state == "failed",
            "stopped": run.stop_wanted,
            "running": run.state == "running",
            "summaryMetrics": run.summary,
            "sampledHistory": [],
        }
        for run in backend.runs
        if run.sweep == sweep.name
    ]
    nothing = dict.fromkeys(("description", "heartbeatAt", "updatedAt", "bestLoss", "controller", "scheduler"))
    return nothing | {
        "id": sweep.id,
        "name": sweep.name,
        "displayName": sweep.name,
        "method": sweep.config.get("method"),
        "state": sweep.state,
        "config": sweep.text,
        "createdAt": "2026-01-01T00:00:00",
        "earlyStopJobRunning": False,
        "controllerRunName": None,
        "runCount": len(nodes),
        "runs": {"edges": [{"node": node} for node in nodes]},
    }


@operation("CreateAgent")
def create_agent(backend: Backend, variables: Variables) -> dict[str, object]:
    sweep = backend.sweeps.find(text(variables, "sweep"))
    if sweep is None:
        raise NotFoundError("sweep not found")
    return {"createAgent": {"agent": {"id": backend.sweeps.add_agent(sweep, text(variables, "host")).id}}}


@operation("Heartbeat")
def heartbeat(backend: Backend, variables: Variables) -> dict[str, object]:
    agent = backend.sweeps.agents.get(text(variables, "id"))
    if agent is None:
        raise NotFoundError("agent not found")
    commands = backend.sweeps.heartbeat(agent, json.loads(text(variables, "runState", "{}")))
    return {"agentHeartbeat": {"agent": {"id": agent.id}, "commands": json.dumps(commands)}}
