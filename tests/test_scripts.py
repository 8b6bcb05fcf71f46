"""The shell scripts, run for real in a copy of the project, with a Python that only pretends: nothing is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ["run_migration.sh", "run_tests.sh", "scripts/venv.sh", "scripts/compile_pins.sh", ".ci/run"]
PINS = ["requirements.txt", "tests/requirements.txt"]
NAMES = ["python3.13", "python3.12", "python3.11", "python3"]

# Stands in for Python: `-m venv` copies it, and FAKE_* say how the rest of it behaves.
# Each call is a line of the file CALLS; what the program was started with is in PROGRAM, its arguments a line each.
FAKE_PYTHON = r"""#!/bin/bash
flags=
while [[ $1 == -I || $1 == -P ]]; do flags+="$1 "; shift; done
[[ $1 != -m ]] || printf '%s\n' "$flags${*:2}" >>"$CALLS"
case "$1 $2" in
"-c "*"import ensurepip"*) [[ -z ${FAKE_NO_VENV:-} ]] ;;
"-c "*"import sys, pip"*) echo "${FAKE_VERSION:-3.12.1}" ;;
"-c "*) echo "$0"; [[ -z ${FAKE_OLD:-} ]] ;;
"-m venv")
    mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && eval "${FAKE_VENV:-}"
    cp "$0" "$3/bin/python" ;;
"-m pip") eval "${FAKE_PIP:-}" ;;
"-m orchestra_lib")
    printf '%s\n' "$PWD" "${@:3}" >"$PROGRAM"
    [[ ! -e /proc/$$/fd/9 ]] || echo "the lock was handed on" >&2
    exit "${FAKE_EXIT:-0}" ;;
"-m pytest")
    printf '%s\n' "$PWD" "${@:3}" >"$PROGRAM"
    echo "== 12 passed in 3.40s =="
    exit "${FAKE_EXIT:-0}" ;;
"-m ruff" | "-m mypy") [[ "$*" != "-m ${FAKE_FAIL:-nothing}" ]] ;;
*) echo "not expected: $*" >&2; exit 99 ;;
esac
"""


class Project:
    """A copy of the scripts and pins in a folder with a space, and a PATH whose first Pythons are fakes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"
        self.fakes = folder / "fakes"
        self.elsewhere = folder / "somewhere else"
        self.program = folder / "program"
        self._calls = folder / "calls"
        for name in [*SCRIPTS, *PINS, "pyproject.toml"]:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.fakes.mkdir()
        self.elsewhere.mkdir()
        for name in NAMES:
            self.fake(name)
        self.env = {
            "PATH": f"{self.fakes}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C",
            "CALLS": str(self._calls),
            "PROGRAM": str(self.program),
        }

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def fake(self, name: str, text: str = FAKE_PYTHON) -> Path:
        path = self.fakes / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, *command: str | Path, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd or self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that was started in the background hands on an ignored Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *command: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, cwd=cwd, **env)
        out, err = process.communicate(timeout=20)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def prepare(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.root / "scripts/venv.sh", *arguments, **env)

    def calls(self, start: str) -> list[str]:
        """The calls of Python that begin so, oldest first."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.startswith(start)]

    def installs(self) -> list[str]:
        """The pins files that pip was asked to install, oldest first."""
        return [line.split("--requirement ")[1].split()[0] for line in self.calls("-I pip install")]

    def stamps(self) -> list[str]:
        return sorted(path.name for path in self.venv.glob("*.stamp"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, "waited ten seconds in vain"
        time.sleep(0.01)


# --- Finding a Python ---


def test_without_any_python_it_says_what_to_install(project: Project):
    for name in NAMES:
        project.fake(name, "#!/bin/bash\necho 'pyenv: command not found' >&2\nexit 127\n")
    result = project.prepare()
    assert result.returncode == 3
    assert "No Python 3.11 or newer found" in result.stderr
    assert all(name in result.stderr for name in NAMES)
    assert "apt install python3" in result.stderr
    assert "pyenv" not in result.stderr
    assert not project.venv.exists()


def test_only_old_pythons_count_as_none(project: Project):
    result = project.prepare(FAKE_OLD="1")
    assert result.returncode == 3
    assert "No Python 3.11 or newer found" in result.stderr


def test_a_shim_that_does_not_run_is_passed_over(project: Project):
    project.fake("python3.13", "#!/bin/bash\nexit 127\n")
    project.fake("python3.12", "#!/bin/bash\necho /usr/bin/python3.12\nexit 1\n")
    project.fake("python3.11", FAKE_PYTHON + "# the one that works\n")
    assert project.prepare().returncode == 0
    assert (project.venv / "bin/python").read_text().endswith("# the one that works\n")


def test_the_variable_python_wins(project: Project):
    mine = project.fake("my python", FAKE_PYTHON + "# mine\n")
    assert project.prepare(PYTHON=str(mine)).returncode == 0
    assert (project.venv / "bin/python").read_text().endswith("# mine\n")


def test_a_wrong_variable_python_is_refused_and_not_replaced(project: Project):
    result = project.prepare(PYTHON="/nowhere/python3")
    assert result.returncode == 3
    assert "PYTHON=/nowhere/python3 is not a Python 3.11 or newer" in result.stderr
    assert project.calls("venv") == []


def test_without_the_venv_module_it_names_the_package(project: Project):
    result = project.prepare(FAKE_NO_VENV="1")
    assert result.returncode == 3
    assert "no venv module" in result.stderr
    assert "apt install python3-venv" in result.stderr


# --- Making .venv ---


def test_too_little_room_is_found_before_anything_is_made(project: Project):
    result = project.prepare(VENV_NEEDS_MB="999999999")
    assert result.returncode == 3
    assert "Not enough disk space" in result.stderr
    assert "999999999 MB needed" in result.stderr
    assert project.calls("venv") == project.installs() == []
    again = project.prepare()
    assert again.returncode == 0
    assert "anew" not in again.stderr


def test_a_folder_that_cannot_be_written_is_named(project: Project):
    project.venv.symlink_to("/proc/nowhere/venv")
    result = project.prepare()
    assert result.returncode == 3
    assert f"Cannot write to {project.venv}" in result.stderr


def test_a_venv_on_another_disk_stays_there(project: Project, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    project.venv.symlink_to(tmp_path / "disk")
    assert project.prepare().returncode == 0
    (tmp_path / "disk/bin/python").unlink()
    (tmp_path / "disk/leftover").touch()
    assert project.prepare().returncode == 0
    assert project.venv.is_symlink()
    assert not (tmp_path / "disk/leftover").exists()
    assert (tmp_path / "disk/bin/python").exists()


def test_a_failing_venv_shows_why(project: Project):
    result = project.prepare(FAKE_VENV="echo 'no ensurepip here'; exit 1")
    assert result.returncode == 3
    assert "    no ensurepip here" in result.stderr
    assert project.prepare().returncode == 0


@pytest.mark.parametrize("damage", ["interpreter gone", "interpreter broken", "folder moved"])
def test_a_damaged_venv_is_made_anew(project: Project, damage: str):
    assert project.prepare().returncode == 0
    leftover = project.venv / "leftover"
    leftover.touch()
    if damage == "interpreter gone":
        (project.venv / "bin/python").unlink()
    elif damage == "interpreter broken":
        (project.venv / "bin/python").write_text("#!/bin/bash\nexit 1\n")
    else:
        project.root = project.root.rename(project.root.with_name("moved"))
        leftover = project.venv / "leftover"
    result = project.prepare()
    assert result.returncode == 0, result.stderr
    assert "Making .venv anew" in result.stderr
    assert not leftover.exists()
    assert project.installs() == ["requirements.txt", "requirements.txt"]


@pytest.mark.parametrize("where", ["FAKE_VENV", "FAKE_PIP"])
def test_a_killed_run_is_repaired_by_the_next(project: Project, where: str):
    killed = project.prepare(**{where: 'kill -9 "$PPID"; exit 1'})
    assert killed.returncode == -signal.SIGKILL
    assert project.stamps() == []
    result = project.prepare()
    assert result.returncode == 0, result.stderr
    assert "the last installation was cut short" in result.stderr
    assert project.stamps() == ["requirements.txt.stamp"]
    assert len(project.calls("venv")) == 2
    assert project.prepare().stderr == ""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_and_the_next_run_repairs(project: Project, sent: signal.Signals, code: int):
    process = project.start(project.root / "run_migration.sh", FAKE_PIP='echo $$ >"$HOME/pip"; exec sleep 60')
    pip = project.root.parent / "pip"
    wait_until(lambda: pip.exists() and pip.read_text().strip() != "")
    process.send_signal(sent)
    _, err = process.communicate(timeout=5)
    assert process.returncode == code
    assert "the next run makes it anew" in err
    assert not Path(f"/proc/{pip.read_text().strip()}").exists()
    assert not project.program.exists()
    assert "cut short" in project.prepare().stderr
    assert project.stamps() == ["requirements.txt.stamp"]


# --- Installing ---


def test_an_installation_is_announced_in_one_line_and_logged(project: Project):
    result = project.prepare(FAKE_PIP="echo Successfully installed things")
    assert result.returncode == 0
    count = sum("==" in line and not line.startswith("#") for line in (ROOT / PINS[0]).read_text().splitlines())
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Installing {count} packages from requirements.txt")
    assert (project.venv / "install.log").read_text() == "Successfully installed things\n"
    assert result.stdout == ""


def test_pip_runs_in_the_project_because_the_pins_name_it_by_a_dot(project: Project):
    assert project.prepare(FAKE_PIP='pwd; echo "$TMPDIR"').returncode == 0
    assert (project.venv / "install.log").read_text() == f"{project.root}\n{project.venv}/tmp\n"
    assert not (project.venv / "tmp").exists()


def test_a_second_run_installs_nothing_and_says_nothing(project: Project):
    project.prepare("--tests")
    result = project.prepare("--tests", FAKE_PIP="exit 1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert project.installs() == PINS


def test_the_pins_of_the_tests_are_installed_on_top(project: Project):
    project.prepare()
    project.prepare("--tests")
    project.prepare()
    assert project.installs() == PINS


def test_a_changed_pin_is_installed(project: Project):
    project.prepare("--tests")
    with (project.root / "tests/requirements.txt").open("a") as pins:
        pins.write("six==1.17.0\n")
    project.prepare("--tests")
    assert project.installs() == [*PINS, "tests/requirements.txt"]


@pytest.mark.parametrize("change", ["pyproject.toml", "Python"])
def test_a_changed_project_or_python_installs_again(project: Project, change: str):
    project.prepare()
    if change == "pyproject.toml":
        with (project.root / change).open("a") as file:
            file.write("\n")
        project.prepare()
    else:
        project.prepare(FAKE_VERSION="3.12.2")
    assert project.installs() == ["requirements.txt", "requirements.txt"]


def test_a_failing_pip_shows_its_last_lines_and_leaves_no_stamp(project: Project):
    noise = "for n in {1..50}; do echo line $n; done; echo 'ERROR: No matching distribution' >&2; exit 1"
    result = project.run(project.root / "run_migration.sh", FAKE_PIP=noise)
    assert result.returncode == 3
    assert "    line 50\n    ERROR: No matching distribution\n" in result.stderr
    assert "line 30\n" not in result.stderr
    assert "Check the network, or set PIP_INDEX_URL" in result.stderr
    assert project.stamps() == []
    assert not project.program.exists()


def test_a_failing_pip_does_not_cost_the_venv_that_was_there(project: Project):
    project.prepare()
    with (project.root / "requirements.txt").open("a") as pins:
        pins.write("six==1.17.0\n")
    assert project.prepare(FAKE_PIP="exit 1").returncode == 3
    assert project.stamps() == []
    result = project.prepare()
    assert result.returncode == 0
    assert "anew" not in result.stderr
    assert len(project.calls("venv")) == 1


def test_a_disk_that_fills_up_is_told_and_what_was_half_written_is_replaced(project: Project):
    result = project.prepare(FAKE_PIP="echo 'OSError: [Errno 28] No space left on device'; exit 1")
    assert result.returncode == 3
    assert "The disk is full" in result.stderr
    assert "Check the network" not in result.stderr
    assert "anew" in project.prepare().stderr


def test_two_at_once_install_once(project: Project):
    go = project.root.parent / "go"
    pip = 'touch "$HOME/started"; until [[ -e $HOME/go ]]; do sleep 0.01; done'
    first = project.start(project.root / "scripts/venv.sh", FAKE_PIP=pip)
    wait_until((project.root.parent / "started").exists)
    second = project.start(project.root / "scripts/venv.sh", FAKE_PIP=pip)
    assert second.stderr is not None
    assert second.stderr.readline() == "Another run is preparing .venv: waiting for it.\n"
    go.touch()
    assert first.wait(timeout=10) == second.wait(timeout=10) == 0
    first.communicate()
    second.communicate()
    assert project.installs() == ["requirements.txt"]


def test_an_unknown_option_is_refused(project: Project):
    result = project.prepare("--test")
    assert result.returncode == 2
    assert "Usage" in result.stderr


# --- run_migration.sh ---


def test_arguments_and_folder_reach_the_program_untouched(project: Project):
    arguments = ["-p", "note", "two words", "", "*", "$HOME", "../relative path", "--flag=a b"]
    result = project.run(project.root / "run_migration.sh", *arguments, cwd=project.elsewhere)
    assert result.returncode == 0, result.stderr
    assert project.program.read_text().splitlines() == [str(project.elsewhere), "migrate", *arguments]
    assert project.calls("-P orchestra_lib migrate")
    assert "the lock was handed on" not in result.stderr


@pytest.mark.parametrize("script", ["run_migration.sh", "run_tests.sh"])
def test_a_link_from_anywhere_finds_the_project(project: Project, script: str):
    link = project.elsewhere / "a link"
    link.symlink_to(Path("../a project") / script)
    assert project.run("./a link", cwd=project.elsewhere).returncode == 0
    assert project.program.exists()
    assert (project.venv / "place").read_text() == f"{project.root}\n"
    assert not (project.elsewhere / ".venv").exists()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_exit_code_of_the_program_passes_through(project: Project, code: int):
    assert project.run(project.root / "run_migration.sh", FAKE_EXIT=str(code)).returncode == code


def test_the_callers_shell_stays_where_and_as_it_was(project: Project):
    script = f'before=$-$PWD; "{project.root}/run_migration.sh" 2>/dev/null; [[ $before == $-$PWD ]] && echo same'
    assert project.run("bash", "-c", script, cwd=project.elsewhere).stdout == "same\n"


# --- run_tests.sh and CI ---

WORKERS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def test_everything_is_checked_and_pytest_has_the_last_word(project: Project):
    result = project.run(project.root / "run_tests.sh", cwd=project.elsewhere)
    assert result.returncode == 0, result.stderr
    assert project.installs() == PINS
    assert project.calls("ruff") == ["ruff check", "ruff format --check"]
    assert project.calls("mypy") == ["mypy"]
    assert project.program.read_text().splitlines() == [str(project.root), *WORKERS]
    assert result.stdout.splitlines()[-1] == "== 12 passed in 3.40s =="


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["fast"], ["-m", "not slow"]),
        (["fast", "-k", "a or b"], ["-m", "not slow", "-k", "a or b"]),
        (["-k", "a or b", "tests/test_x.py"], ["-k", "a or b", "tests/test_x.py"]),
    ],
)
def test_arguments_go_to_pytest(project: Project, given: list[str], passed: list[str]):
    assert project.run(project.root / "run_tests.sh", *given).returncode == 0
    assert project.program.read_text().splitlines()[1:] == [*WORKERS, *passed]


@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy"])
def test_a_failing_check_fails_the_run_although_the_tests_pass(project: Project, check: str):
    result = project.run(project.root / "run_tests.sh", FAKE_FAIL=check)
    assert result.returncode == 1
    assert f"This run fails whatever the tests say: {check} (see above)." in result.stdout
    assert result.stdout.splitlines()[-1] == "== 12 passed in 3.40s =="


@pytest.mark.parametrize("code", [1, 2, 5])
@pytest.mark.parametrize("script", ["run_tests.sh", ".ci/run"])
def test_failing_tests_fail_the_run_and_so_does_no_test_at_all(project: Project, script: str, code: int):
    assert project.run(project.root / script, FAKE_EXIT=str(code)).returncode == code


def test_ci_runs_the_tests_and_pytest_has_the_last_word(project: Project):
    result = project.run("bash", ".ci/run", CI="true")
    assert result.returncode == 0, result.stderr
    assert project.program.read_text().splitlines() == [str(project.root), *WORKERS]
    assert result.stdout.splitlines()[-1] == "== 12 passed in 3.40s =="


# --- The files themselves ---


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_strict_executable_and_parses(script: str):
    path = ROOT / script
    assert "set -euo pipefail" in path.read_text().splitlines()
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (apt install shellcheck)")
    result = subprocess.run([shellcheck, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def pins_of(name: str) -> list[Requirement]:
    lines = (line.split("  #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-e "))]


def test_the_pins_are_exact_and_name_no_place():
    for name in PINS:
        for pin in pins_of(name):
            assert [specifier.operator for specifier in pin.specifier] == ["=="], f"{name}: {pin}"
            assert pin.url is None
        assert "://" not in (ROOT / name).read_text()
    assert [line for line in (ROOT / PINS[0]).read_text().splitlines() if line.startswith("-")] == ["-e ."]


def test_each_dependency_has_a_pin_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    run, tests = ([(canonicalize_name(pin.name), pin) for pin in pins_of(name)] for name in PINS)
    for wanted, pins in ((project["dependencies"] + extras["gcp"], run), (extras["dev"], run + tests)):
        for dependency in map(Requirement, wanted):
            found = [pin for name, pin in pins if name == canonicalize_name(dependency.name)]
            assert found, f"{dependency} has no pin: run scripts/compile_pins.sh"
            for pin in found:
                (exact,) = pin.specifier
                assert exact.version in dependency.specifier, f"{pin} is not {dependency}: run scripts/compile_pins.sh"


def test_the_pins_of_the_tests_repeat_none_of_the_others():
    run, tests = ({canonicalize_name(pin.name) for pin in pins_of(name)} for name in PINS)
    assert not run & tests
