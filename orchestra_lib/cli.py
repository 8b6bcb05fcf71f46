"""The command line: ``python -m orchestra_lib migrate | status | runs | audit verify | export | local …``.

Exit codes: 0 done, 1 a gate or check failed, 2 wrong usage or parameters, 3 the target could not be reached,
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from orchestra_lib import audit, lab, migrate, paths, settings
from orchestra_lib.errors import OrchestraError, ParameterError
from orchestra_lib.local import program as local_program
from orchestra_lib.settling import INTERRUPTED_EXIT_CODE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors of the library become one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except OrchestraError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED_EXIT_CODE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orchestra_lib", description="Move AI Orchestra to Google Cloud, runbook by runbook."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("migrate", help="run the notebooks there are, in order")
    command.add_argument("--environment", default="local", help="a file of parameters/ (default: local)")
    command.add_argument("--from", dest="first", metavar="NN", help="start with this phase, e.g. 03")
    command.add_argument("--until", dest="last", metavar="NN", help="end with this phase")
    command.add_argument("--only", metavar="NN", help="this phase alone")
    command.add_argument("--mode", choices=("plan", "apply"), help="plan stops each phase before it changes anything")
    command.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks that have it; may be repeated",
    )
    command.set_defaults(run=_migrate)

    command = commands.add_parser("rollback", help="undo a phase from its journal, or all phases in the reverse order")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--phase", metavar="NN", help="the phase that is undone, e.g. 01")
    what.add_argument("--all", dest="phase", action="store_const", const="all", help="every phase, the last one first")
    command.add_argument("--environment", default="local", help="a file of parameters/ (default: local)")
    command.add_argument("--since-run", metavar="RUN", help="undo what was changed in this run and after it")
    command.add_argument("--mode", choices=("plan", "apply"), help="plan changes nothing")
    command.add_argument("--approved-plan", metavar="DIGEST", help="undo by this plan and no other")
    command.add_argument(
        "--may-destroy", nargs="+", default=[], metavar="NAME", help="resources with data in them that may be deleted"
    )
    command.set_defaults(run=_rollback)

    command = commands.add_parser(
        "status", help="an environment's last run of each phase, its resources, and what runs here"
    )
    command.add_argument("--environment", default="local", help="a file of parameters/ (default: local)")
    command.add_argument("--drift", action="store_true", help="read the live state and say what differs from it")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_status)

    command = commands.add_parser("runs", help="the executed runbooks, oldest first")
    command.add_argument(
        "--html", type=Path, metavar="DIR", help="write them as pages, with an index, that need no network"
    )
    command.set_defaults(run=_runs)

    command = commands.add_parser("lab", help="JupyterLab on the notebooks, for this machine alone")
    command.add_argument("phase", nargs="?", metavar="NN", help="open this phase's notebook, e.g. 03")
    command.add_argument("--port", type=int, default=8888, help="the first that is tried (default: 8888)")
    command.add_argument("--no-browser", action="store_true", help="only print the address")
    command.set_defaults(run=_lab)

    command = commands.add_parser("audit", help="hold every record and executed notebook against the ledger")
    command.add_argument("action", choices=("verify",))
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_audit)

    command = commands.add_parser("export", help="hand what the runbooks made to a Terraform team")
    command.add_argument("format", choices=("terraform",))
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="a new or empty folder, or that of an earlier export"
    )
    command.add_argument("--environment", default="local", help="a file of parameters/ (default: local)")
    command.add_argument(
        "--phase", metavar="NN", help="this phase alone, e.g. 01 (default: all that changed something)"
    )
    command.set_defaults(run=_export)

    command = commands.add_parser("stream", help="the stream from today's store to the target, as a process of its own")
    command.add_argument("action", nargs="?", choices=("run", "status", "stop", "resolve"), default="run")
    command.add_argument("--environment", default="local", help="a file of parameters/ (default: local)")
    command.add_argument(
        "--overrides", metavar="-", choices=("-",), help="read parameters of 03_memory as JSON from standard input"
    )
    command.add_argument("--json", action="store_true", help="status as one JSON object")
    command.set_defaults(run=_stream)

    local_program.add_arguments(commands.add_parser("local", help="the local target"))
    return parser


def _migrate(options: argparse.Namespace) -> int:
    from orchestra_lib.rehearsal.ahead import corpus_ahead  # numpy takes a moment to import

    if options.only and (options.first or options.last):
        raise ParameterError(f"--only {options.only} stands alone: leave out --from and --until")
    first, last = (options.only, options.only) if options.only else (options.first, options.last)
    parameters = [("environment", options.environment), *map(tuple, options.parameters)]
    if options.mode:
        parameters.append(("mode", options.mode))
    notebooks = migrate.chosen(first, last)
    with corpus_ahead(notebooks, dict(parameters)):
        return migrate.migrate(notebooks, parameters, sys.stdout)


def _rollback(options: argparse.Namespace) -> int:
    given = {
        "environment": options.environment,
        "phase": options.phase,
        "since_run": options.since_run,
        "mode": options.mode,
        "approved_plan": options.approved_plan,
        "may_destroy": " ".join(options.may_destroy),
    }
    return migrate.rollback([(name, value) for name, value in given.items() if value], sys.stdout)


def _status(options: argparse.Namespace) -> int:
    from orchestra_lib.cloud.standing import standings  # Google's clients take a second to import
    from orchestra_lib.validation.sealed import latest_runs

    last = {entry.runbook: entry for entry in audit.entries() if entry.environment == options.environment}
    local = local_program.state()
    resources = standings(options.environment, read_live=options.drift)
    counted = latest_runs(options.environment, rehearsal=settings.load(options.environment).environment.kind == "local")
    reasons = {name: run.reasons for name, run in counted.items() if run.reasons and not name.startswith("00")}
    if options.json:
        phases = {name: json.loads(entry.model_dump_json()) for name, entry in sorted(last.items())}
        told = {
            "phases": phases,
            "resources": [asdict(row) for row in resources],
            "local": local.as_dict(),
            "not_counted": reasons,
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return 0
    for runbook in migrate.runbooks():
        entry = last.get(runbook.stem)
        told_run = f"{entry.outcome}, {entry.verdict}, {entry.at[:16]}" if entry else "never run"
        sys.stdout.write(f"{runbook.stem:20} {told_run}\n")
        sys.stdout.writelines(f"    does not count: {reason}\n" for reason in reasons.get(runbook.stem, ()))
    for row in resources:
        sys.stdout.write(f"{f'phase {row.phase}':20} {row.resources} resources{_told_drift(row.drifted)}\n")
        sys.stdout.writelines(f"    {line}\n" for line in row.drifted or ())
    sys.stdout.write(f"{'local target':20} {', '.join(local.running) or 'down'}\n")
    return 0


def _told_drift(drifted: tuple[str, ...] | None) -> str:
    if drifted is None:
        return ""
    return f", {len(drifted)} of them drifted" if drifted else ", none drifted"


def _runs(options: argparse.Namespace) -> int:
    if options.html:
        from orchestra_lib.pages import write_pages  # nbconvert takes a second to import

        sys.stdout.write(f"{write_pages(options.html)}\n")
        return 0
    for entry in audit.entries():
        sys.stdout.write(
            f"{entry.at[:19]}  {entry.runbook:16} {entry.outcome:12} {entry.verdict or '-':11} "
            f"{entry.operator:12} {entry.notebook or entry.record}\n"
        )
    return 0


def _lab(options: argparse.Namespace) -> int:
    lab.open_lab(options.phase, port=options.port, opens_browser=not options.no_browser)
    return 0


def _audit(options: argparse.Namespace) -> int:
    found = audit.verify(paths.ledger_path())
    if options.json:
        told = {"ok": found.ok, "entries": found.entries, "findings": [asdict(finding) for finding in found.findings]}
        sys.stdout.write(json.dumps(told, indent=1, default=str) + "\n")
    else:
        for finding in found.findings:
            sys.stdout.write(f"{finding}\n")
        sys.stdout.write(f"{_told(found)}\n")
    return 0 if found.ok else 1


def _told(found: audit.Verification) -> str:
    if found.ok and not found.entries:
        return "no run has been sealed yet: there is nothing to hold against the ledger"
    return f"{found.entries} entries, {'every file as it was sealed' if found.ok else 'NOT as sealed'}"


def _stream(options: argparse.Namespace) -> int:
    from orchestra_lib import stream_command  # Google's clients take a second to import

    return stream_command.run(options)


def _export(options: argparse.Namespace) -> int:
    from orchestra_lib.cloud.terraform import export_terraform  # Google's clients take a second to import

    done = export_terraform(options.directory, options.environment, options.phase)
    sys.stdout.write(f"{done.directory}: {done.resources} resources, each with its import\n")
    if done.incomplete:
        sys.stdout.write(f"{done.incomplete} of them lack something: {done.directory / 'README.md'} says what\n")
    return 0
