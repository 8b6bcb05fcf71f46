"""The container's image: what its Dockerfile says, and that it has every package that the service imports."""

from __future__ import annotations

import re
import subprocess
import sys

import dockerfile

from orchestra_lib.service import settings
from orchestra_lib.settings import root

FOLDER = root() / "orchestra_lib" / "service"
# Imports everything that the container may run, in a process where no other package can be imported.
ALONE = """
import importlib.metadata, re, sys

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

installed = {canonical(name) for name in sys.argv[1:]} | {"orchestra-lib"}
owners = importlib.metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        of = owners.get(name.split(".")[0])
        if of and not installed & set(map(canonical, of)):
            raise ModuleNotFoundError(f"the image has no {name}", name=name)

sys.meta_path.insert(0, Absent())
import orchestra_lib.service.__main__, orchestra_lib.service.app, orchestra_lib.service.mcp_server
import orchestra_lib.cloud.database
"""


def instructions() -> list[tuple[str, tuple[str, ...]]]:
    return [(one.cmd.upper(), one.value) for one in dockerfile.parse_file(str(FOLDER / "Dockerfile"))]


def test_the_container_runs_the_service_as_nobody_in_particular_and_without_a_shell():
    said = instructions()
    assert ("CMD", ("python", "-m", "orchestra_lib.service")) in said, "PORT is read from the environment"
    users = [value for name, value in said if name == "USER"]
    assert users == [("10001",)], "by number, so that it can be told that it is not root"


def test_every_setting_of_the_image_is_one_that_the_service_has():
    names = {name for instruction, value in instructions() if instruction == "ENV" for name in value[::2]}
    ours = {name for name in names if name.startswith(settings.PREFIX)}
    assert ours
    assert {name.removeprefix(settings.PREFIX).lower() for name in ours} <= settings.ServiceSettings.model_fields.keys()


def test_the_image_has_every_package_that_the_service_imports():
    pins = (FOLDER / "requirements.txt").read_text()
    packages = re.findall(r"^([A-Za-z0-9_.\-]+)(?:\[.*\])?==", pins, re.MULTILINE)
    complete = imported_with(packages)
    assert complete.returncode == 0, complete.stderr
    lacking = imported_with([name for name in packages if name != "uvicorn"])
    assert "the image has no uvicorn" in lacking.stderr, "what is not pinned is not found"


def imported_with(packages: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE, *packages]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_image_has_the_versions_that_everything_else_has():
    def pins(path: str) -> set[str]:
        return {line.split(" ;")[0].strip() for line in (root() / path).read_text().splitlines() if "==" in line}

    assert pins("orchestra_lib/service/requirements.txt") <= pins("requirements.txt")
