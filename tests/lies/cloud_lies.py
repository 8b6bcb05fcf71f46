"""Lies about Google Cloud: what was made and is not there, and servers that agree to everything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import google.oauth2.credentials
from control_plane import PROJECT, TOKEN, Server, serving
from lie import Lie, World, said

from orchestra_lib.api_load.workload import Kind, Workload
from orchestra_lib.cloud import access
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.phases import cloud_work
from orchestra_lib.phases.infrastructure import InfrastructurePhase
from orchestra_lib.runbook import Runbook

FIREWALLS = f"projects/{PROJECT}/global/firewalls"


def dropped_resource(world: World) -> str:
    with _plane(world) as server, _phase(server.url) as phase:
        _built(phase)
        phase.verify()
        phase._run.verify()
        _drop_a_firewall(phase._work.client)
        phase.verify()
        return said(phase._run.verify)


def change_that_was_never_sent(world: World) -> str:
    with _plane(world) as server, _phase(server.url) as phase:
        phase.plan()
        with (
            mock.patch.object(access, "create", return_value={}),
            mock.patch("orchestra_lib.cloud.apply._ATTEMPTS", 2),
            mock.patch("orchestra_lib.cloud.apply._FIRST_PAUSE_SECONDS", 0.01),
        ):
            return said(phase.apply)


def cloud_that_says_200_to_everything(world: World) -> str:
    with _agreeing() as url, _phase(url) as phase:

        def whole() -> None:
            phase._run.preflight(phase.checks())
            phase.plan()
            phase.apply()
            phase.verify()
            phase._run.verify()

        return said(whole)


def api_that_says_200_to_everything(world: World) -> str:
    def asked(name: str, paths: range) -> Kind:
        return Kind(name, tuple({"method": "GET", "url": f"/v1/memories/{number}"} for number in paths), 100.0)

    with _agreeing() as url:
        kinds = (asked("search", range(3)), asked("memory retrieval", range(3, 6)))
        return said(Workload(url, kinds, dict).learnt)


_SOMETHING_ELSE = "what listens there is something else"
LIES = (
    Lie("a resource is dropped after it was read back", "changes that a second plan would make: 1", dropped_resource),
    Lie("a change is told as done and was never sent", "was made and cannot be read yet", change_that_was_never_sent),
    Lie("a cloud that says 200 to everything", _SOMETHING_ELSE, cloud_that_says_200_to_everything),
    Lie("an API that says 200 to everything", "the same answer", api_that_says_200_to_everything),
)


@contextmanager
def _plane(world: World) -> Iterator[Server]:
    directory = world.home / "plane"
    directory.mkdir()
    with serving(directory) as server:
        yield server


@contextmanager
def _phase(url: str) -> Iterator[InfrastructurePhase]:
    target = Target("local", url, google.oauth2.credentials.Credentials(TOKEN))
    with (
        mock.patch.object(cloud_work, "connect", return_value=target),
        mock.patch("orchestra_lib.cloud.client._SHORTEST_PAUSE_SECONDS", 0.001),
    ):
        yield InfrastructurePhase(Runbook.open("01_infrastructure", environment="local"))


def _built(phase: InfrastructurePhase) -> None:
    phase._run.preflight(phase.checks())
    phase.plan()
    phase.apply()


def _drop_a_firewall(client: Client) -> None:
    there = client.call("compute.v1", "compute.firewalls.list", FIREWALLS)["items"][0]["name"]
    client.finish(
        "compute.v1", "drop", client.call("compute.v1", "compute.firewalls.delete", f"{FIREWALLS}/{there}"), 9
    )


@contextmanager
def _agreeing() -> Iterator[str]:
    """A server that is content with whatever it is asked."""

    class Agrees(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if length := int(self.headers.get("Content-Length") or 0):
                self.rfile.read(length)
            body = json.dumps({"status": "ok", "done": True}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - the server looks for these names

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Agrees)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
