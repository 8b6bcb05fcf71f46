"""JupyterLab as a person sees it: a runbook opened in a real browser, run, approved by its button, looked at.

The browser is Debian's Chromium, driven by Playwright; without one of them the tests are skipped, and say so. The small
forms below run with all tests. The runbook as it is, three minutes and more: ``python tests/test_browser.py``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
import small_runbooks

from orchestra_lib import audit, lab, record
from orchestra_lib.settings import root

CHROMIUM = "/usr/bin/chromium"
TOKEN = "for-this-test"
# No look-ups of Google's hosts, and no sandbox: CI is root.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
# The store stands still and is small: what a browser shows is the same, and nothing else takes minutes.
SMALL = {"rows": 600, "lists": 24, "budget_seconds": 3, "live": False, "drill_restore": False,
         "drill_switchover": False, "drill_cutover": False}  # fmt: skip

CELLS = (
    'environment = "local"\nlists = None\nsource_dsn = None',
    """import time
import plotly.graph_objects as go
from orchestra_lib.display import Progress, Table
from orchestra_lib.evidence import Source, yes_or_no
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.runbook import Runbook
run = Runbook.open("03_memory", environment=environment, lists=lists, source_dsn=source_dsn)""",
    'plan = run.plan(Plan((Change(Verb.CREATE, "index", "one"),)))',
    "run.approve(plan)",
    "run.apply(plan)",
    'Table(("name", "rows"), [("b", 10), ("a", 1_200), ("c", 9)])',
    'go.Figure(go.Bar(x=["a", "b"], y=[1, 2]), layout={"title": {"text": "Two bars"}})',
    'progress = Progress("copy", "rows")\nfor n in range(12):\n    progress(n, 20)\n    time.sleep(0.1)',
    "1 / 0",
    'run.add(yes_or_no("rows are equal", Source.MEASURED, True))\nrun.verify()',
    "run.close()",
)


def _why_not() -> str:
    if not Path(CHROMIUM).exists():
        return f"{CHROMIUM} is not here: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: scripts/venv.sh --tests"
    return ""


if _why_not() and __name__ != "__main__":
    pytest.skip(_why_not(), allow_module_level=True)

pytestmark = pytest.mark.slow


class Notebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if request.url.startswith("http") and not request.url.startswith("http://127.0.0.1:"):
            self.elsewhere.append(request.url)

    def menu(self, title: str, item: str) -> None:
        self.page.get_by_role("menuitem", name=title, exact=True).first.click()
        self.page.get_by_role("menuitem", name=item).first.click()

    def cell(self, source: str) -> Any:
        return self.page.locator(".jp-CodeCell").filter(has_text=source).first

    def shows(self, what: str, seconds: float = 30) -> Any:
        found = self.page.locator(what).first
        found.wait_for(timeout=1000 * seconds)
        return found

    def run_all(self) -> None:
        self.menu("Run", "Run All Cells")

    def run_from(self, source: str) -> None:
        self.cell(source).locator(".jp-InputArea-editor").click()
        self.menu("Run", "Run Selected Cell and All Below")

    def approve(self, seconds: float) -> None:
        """Press the button once the cell below it has said that it waits for that, and go on from there."""
        self.shows("text=the plan is not approved: press the button", seconds)
        self.shows("button:has-text('Approve plan')").click()
        self.shows("button:has-text('approved')")
        self.run_from("run.apply(plan)")

    def picture(self, directory: Path, name: str) -> None:
        """Kept where a failing test is looked into."""
        self.page.screenshot(path=directory / f"{name}.png")


@contextmanager
def opened(folder: Path, home: Path) -> Iterator[Notebook]:
    """The notebook of a folder in JupyterLab, started by the library's own command, in a browser of 1280 by 900."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {name: str(home / "jupyter" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
              "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}  # fmt: skip
    ours = {"JUPYTER_CONFIG_PATH": lab.environment()["JUPYTER_CONFIG_PATH"], "JUPYTER_TOKEN": TOKEN}
    told = {**small_runbooks.environment(home), **places, **ours}
    log = (home / "lab.log").open("w")
    words = lab.command("03", port=port, opens_browser=False, folder=folder)
    server = subprocess.Popen(words, env=told, stdout=log, stderr=subprocess.STDOUT)
    try:
        _answers(port, server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            notebook = Notebook(page)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/03_memory.ipynb?token={TOKEN}")
            notebook.shows(".jp-CodeCell", 60)
            # JupyterLab loses cells that are run while it still connects to the kernel and to its widgets.
            notebook.shows("text=| Idle", 60)
            page.wait_for_timeout(3000)
            yield notebook
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _answers(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).close()
        except OSError:
            assert server.poll() is None, "JupyterLab ended at once: see lab.log"
            assert time.monotonic() < deadline, "JupyterLab does not answer: see lab.log"
            time.sleep(0.2)
        else:
            return


def _small_03(folder: Path, values: dict[str, object]) -> None:
    """The committed notebook 03 in a folder of its own, with parameters as an operator would type them in."""
    notebook = nbformat.read(root() / "notebooks" / "03_memory.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items())
    nbformat.write(notebook, folder / "03_memory.ipynb")


@pytest.fixture
def home(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder.is_relative_to("/tmp") else None  # the server's own user
    (tmp_path / "notebooks").mkdir()
    small_runbooks.share_corpus(tmp_path, tmp_path_factory)
    yield tmp_path
    down = [sys.executable, "-m", "orchestra_lib", "local", "down"]
    subprocess.run(down, env=small_runbooks.environment(tmp_path), check=True, capture_output=True, timeout=60)


def _sealed(home: Path, monkeypatch: pytest.MonkeyPatch) -> record.Record:
    """The one run of a home, as its ledger and its files tell it."""
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("ORCHESTRA_RUNS_DIR", str(home / "runs"))
    assert [str(finding) for finding in audit.verify().findings if not finding.is_note] == []
    (entry,) = audit.entries()
    return record.load(root() / entry.record)


def test_a_runbook_is_stepped_through_approved_and_read_in_jupyterlab(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_runbooks.write(home / "notebooks" / "03_memory.ipynb", *CELLS)
    with opened(home / "notebooks", home) as notebook:
        notebook.run_all()
        notebook.approve(30)

        table = notebook.cell('Table(("name"').locator("table.orchestra")
        table.locator("th", has_text="rows").click()
        assert table.locator("tbody td:nth-child(2)").all_inner_texts() == ["9", "10", "1,200"]
        table.locator("th", has_text="rows").click()
        assert table.locator("tbody td:nth-child(1)").all_inner_texts() == ["a", "b", "c"]

        notebook.shows(".js-plotly-plot .bars path")  # JupyterLab draws the live form, not the still one
        assert notebook.cell("progress = ").locator(".jp-OutputArea-output").inner_text().startswith("copy: ")
        error = notebook.shows("text=ZeroDivisionError: division by zero")
        assert error.is_visible()
        folded = notebook.cell("1 / 0").locator("details pre")
        assert not folded.is_visible()
        assert "Traceback (most recent" not in notebook.cell("1 / 0").inner_text(), "no wall of frames"
        notebook.cell("1 / 0").locator("summary").click()
        assert "1 / 0" in folded.inner_text()

        notebook.run_from("run.add(")
        notebook.shows("text=orchestra-end-marker")
        notebook.picture(home, "closed")
        assert notebook.elsewhere == [], "nothing is asked of another host"
    run = _sealed(home, monkeypatch)
    assert (run.outcome, run.verdict) == ("completed", "REHEARSED")
    assert any("(button)" in note for note in run.notes), "approved by the button"


@pytest.mark.skipif(
    os.environ.get("ORCHESTRA_BROWSER_RUNS_03") != "1",
    reason="runbook 03 in a browser takes minutes: ORCHESTRA_BROWSER_RUNS_03=1, or python tests/test_browser.py",
)
def test_the_memory_runbook_is_run_in_jupyterlab_as_it_is_headless(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_03(home / "notebooks", SMALL)
    subprocess.run(
        [sys.executable, "-m", "orchestra_lib", "local", "up", "--latency", "0"],
        env=small_runbooks.environment(home),
        check=True,
        capture_output=True,
        timeout=60,
    )
    _run_03(home, 120)
    run = _sealed(home, monkeypatch)
    assert (run.outcome, run.verdict) == ("completed", "REHEARSED")
    rows = {row["claim"]: row for row in run.evidence}
    assert rows["lists of the index, read back"]["value"] == SMALL["lists"]
    assert any("(button)" in note for note in run.notes)


def _run_03(home: Path, seconds: float) -> None:
    with opened(home / "notebooks", home) as notebook:
        notebook.run_all()
        notebook.approve(seconds)
        notebook.shows("text=orchestra-end-marker", seconds)
        notebook.picture(home, "closed")
        plane = notebook.cell("memory.index.plane()")
        plane.scroll_into_view_if_needed()
        plane.locator(".js-plotly-plot .point").first.wait_for(timeout=30_000)
        notebook.picture(home, "figure")
        verdict = notebook.cell("run.close()")
        assert "REHEARSED" in verdict.inner_text()
        assert notebook.elsewhere == []


def main() -> int:
    """Runbook 03 as it is committed, in the browser; its pictures and its log stay in the folder that is printed."""
    if _why_not():
        sys.stderr.write(f"{_why_not()}\n")
        return 3
    home = Path(os.environ.get("BROWSER_HOME") or "/tmp/orchestra-browser")
    shutil.rmtree(home, ignore_errors=True)
    (home / "notebooks").mkdir(parents=True)
    home.chmod(0o755)
    _small_03(home / "notebooks", {})
    try:
        _run_03(home, 900)
    finally:
        down = [sys.executable, "-m", "orchestra_lib", "local", "down"]
        subprocess.run(down, env=small_runbooks.environment(home), check=False, capture_output=True, timeout=60)
    sys.stdout.write(f"03_memory was run in JupyterLab: {home}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
