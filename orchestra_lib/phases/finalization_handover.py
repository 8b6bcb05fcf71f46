"""What the people who run the system from now on are given: files in one folder beside the record of runbook 07."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestra_lib import paths, record, settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.terraform import export_terraform
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.ledger import head_path
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.commands import command, planned
from orchestra_lib.validation.retirement import Retirement
from orchestra_lib.validation.sealed import SealedRun

_UNDO = {"00": "nothing to undo", "06": "nothing to undo", "99": "run the phase's own runbook again"}


class HandOver:
    """The folder of one run. Written again it holds the same, of now."""

    def __init__(self, run: Runbook, place: Place, runs: Mapping[str, SealedRun], retirement: Retirement) -> None:
        self._settings, self._place = run.settings, place
        self._runs, self._retirement = runs, retirement
        self.directory = run.record_path.with_name(run.record_path.name.replace(".record.json", ".handover"))

    def write(self) -> tuple[Evidence, ...]:
        """Write everything; what was written, with digests. Raises RecordError when the disk refuses."""
        self.directory.mkdir(parents=True, exist_ok=True)
        exported, texts = export_terraform(self.directory / "terraform", self._environment), self.texts()
        for name, text in texts.items():
            record.write_atomically(self.directory / name, text.encode())
        shutil.copyfile(head_path(paths.ledger_path()), self.directory / "ledger.head")
        return (
            Evidence(
                "resources handed over to Terraform, each with its import",
                self._place.source,
                exported.resources,
                "resources",
                Bound(">", 0),
                note=f"{exported.incomplete} of them lack something that its README names",
            ),
            *(self._file(name) for name in (*texts, "ledger.head")),
            yes_or_no(
                "the hand-over's files are there, read back",
                Source.OBSERVED,
                all((self.directory / name).stat().st_size > 0 for name in texts),
                note=str(self.directory.name),
            ),
        )

    def texts(self) -> dict[str, str]:
        """The texts by their files' names: the runbooks, where to look, the old system."""
        return {
            "RUNBOOKS.md": self._runbooks(),
            "DASHBOARDS.md": self._dashboards(),
            "OLD-SYSTEM.md": self._old_system(),
        }

    @property
    def _environment(self) -> str:
        return self._settings.environment.name

    def _file(self, name: str) -> Evidence:
        return Evidence(f"handed over: {name}", Source.OBSERVED, f"SHA-256 {record.sha256_of(self.directory / name)}")

    def _runbooks(self) -> str:
        """Every runbook: what it is for, when it was last run, how it is undone."""
        lines = [
            "# Runbooks",
            "",
            "| runbook | what it is for | last run | undone by |",
            "|---|---|---|---|",
        ]
        for path in sorted((settings.root() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            run = self._runs.get(path.stem)
            last = "never" if run is None else f"{run.entry.at[:16]}, {run.entry.verdict}, `{run.entry.record}`"
            undo = _UNDO.get(path.name[:2]) or _quoted(planned(f"rollback --phase {path.name[:2]}", self._environment))
            lines.append(f"| `{path.name}` | {_title(path)} | {last} | {undo} |")
        lines += [
            "",
            "A rollback is planned first: its plan shows the digest, and what `--may-destroy` has to name.",
            "",
            "All executed runbooks as pages: `python -m orchestra_lib runs --html DIR`. Whether any was altered: "
            "`python -m orchestra_lib audit verify`; `ledger.head` beside this file is what the ledger ended with.",
        ]
        return "\n".join(lines) + "\n"

    def _dashboards(self) -> str:
        """Where to look: the dashboard, the alerts and who is told, the logs, the budget."""
        project = self._place.project
        made = infrastructure(self._settings)
        alerts = [one.id for one in made if one.kind == "alert policy"]
        console = "https://console.cloud.google.com"
        told = self._settings.notifications.email if self._settings.notifications else None
        lines = [
            "# Where to look",
            "",
            *(
                f"- dashboard {one.id}: {console}/monitoring/dashboards?project={project}"
                for one in made
                if one.kind == "dashboard"
            ),
            f"- logs: {console}/logs/query?project={project}",
            f"- audit logs: log bucket orchestra-audit, kept {self._audit_days()} days",
            f"- budget: {console}/billing/budgets",
            f"- the stream: `{command('stream status', self._environment)}`",
            f"- drift of what was applied: `{command('status --drift', self._environment)}`",
            "- drift of the index: `papermill notebooks/08_vector_tuning.ipynb drift.ipynb "
            f"-p environment {self._environment} -p mode plan`",
            "",
            f"{len(alerts)} alerts tell {told or 'nobody yet: notifications.email is open'}:",
            "",
            *(f"- {name}" for name in sorted(alerts)),
        ]
        return "\n".join(lines) + "\n"

    def _audit_days(self) -> int:
        return self._settings.logging.audit_retention_days if self._settings.logging else 0

    def _old_system(self) -> str:
        lines = [
            "# The old system",
            "",
            f"It may go on {self._retirement.ends:%Y-%m-%d} and not before. Every step is taken by people.",
            "",
            "| from | what | only if | how |",
            "|---|---|---|---|",
            *(
                f"| {step.on:%Y-%m-%d} | {step.what} | {step.condition} | "
                f"{': '.join(filter(None, (step.how, _quoted(step.commands))))} |"
                for step in self._retirement.steps
            ),
        ]
        return "\n".join(lines) + "\n"


def _quoted(commands: Sequence[str]) -> str:
    return ", then ".join(f"`{one}`" for one in commands)


def _title(notebook: Path) -> str:
    """What stands after the number and the name in a notebook's first line."""
    first = "".join(json.loads(notebook.read_text())["cells"][0]["source"]).splitlines()[0]
    return first.partition(": ")[2] or first.removeprefix("# ")
