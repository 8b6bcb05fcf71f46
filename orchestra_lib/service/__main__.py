"""The command: ``python -m orchestra_lib.service [serve | prepare | mcp | openapi]``.

``serve`` is what the container runs; settings come from the environment (``settings``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

import uvicorn

from orchestra_lib.errors import OrchestraError
from orchestra_lib.service.settings import ServiceSettings, from_environment

_KEEP_ALIVE_SECONDS = 620
"""Longer than Google's proxies keep a connection that is idle: else one may be closed just as a request is sent on it.
https://cloud.google.com/load-balancing/docs/https/request-distribution#http-keepalive-timeout"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.service", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer HTTP requests (the default)")
    commands.add_parser("openapi", help="print the interface's OpenAPI document")
    prepare = commands.add_parser("prepare", help="make what the API needs in the database, as the table's owner")
    prepare.add_argument("--dsn", required=True, help="the owner's connection string")
    prepare.add_argument("--login", help="the database user that the API logs in as")
    prepare.add_argument("--role", default=ServiceSettings.model_fields["role"].default)
    prepare.add_argument("--table", default=ServiceSettings.model_fields["table"].default)
    mcp = commands.add_parser(
        "mcp", help="offer one user's memory to a coding assistant, over standard input and output"
    )
    mcp.add_argument("--user", required=True, help="whose memory it is")
    mcp.add_argument(
        "--environment", help="whose model embeds; without one nothing is stored, and searches are by words"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("psycopg.pool").setLevel(logging.WARNING)
    try:
        return _COMMANDS[given.command or "serve"](given)
    except OrchestraError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


def _serve(_given: argparse.Namespace) -> int:
    from orchestra_lib.service.app import create_app

    settings = from_environment(os.environ)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            access_log=False,  # Cloud Run writes one
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            # On SIGTERM nothing new is taken, and what was begun is finished within this time.
            timeout_graceful_shutdown=int(settings.shutdown_seconds),
        )
    )
    server.run()
    return 0 if server.started else 1


def _openapi(_given: argparse.Namespace) -> int:
    from orchestra_lib.service.app import create_app

    json.dump(create_app(from_environment(os.environ)).openapi(), sys.stdout, indent=1)
    return 0


def _prepare(given: argparse.Namespace) -> int:
    from orchestra_lib.database import connect
    from orchestra_lib.service.schema import prepare

    with connect(given.dsn, role="memory") as connection:
        prepare(connection, table=given.table, role=given.role, login=given.login)
    return 0


def _mcp(given: argparse.Namespace) -> int:
    from orchestra_lib.service.mcp_server import serve_stdio

    embeds = None
    if given.environment:
        from orchestra_lib.service.embedding import embedder

        embeds = embedder(given.environment)
    serve_stdio(from_environment(os.environ), given.user, embeds)
    return 0


_COMMANDS = {"serve": _serve, "openapi": _openapi, "prepare": _prepare, "mcp": _mcp}

if __name__ == "__main__":
    sys.exit(main())
