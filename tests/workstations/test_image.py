"""The image's files: a Dockerfile that the official parser reads, layers in an order that lasts, the build."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dockerfile
import google.oauth2.credentials
import pytest
import settings_content
import yaml
from control_plane import PROJECT, TOKEN, Server, serving

from orchestra_lib.blueprint.workstations import base_image
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.workstations import image as images

pytestmark = pytest.mark.slow

FOLDER = images.folder()
LAYERS = dockerfile.parse_file(str(FOLDER / "Dockerfile"))
SCRIPTS = sorted(path for path in FOLDER.rglob("*.sh"))
TAGGED = settings_content.with_values(workstations__image__tag="2026-11-25")


def text_of(layer: dockerfile.Command) -> str:
    return " ".join(layer.value)


def place_of(words: str) -> int:
    (place,) = [number for number, layer in enumerate(LAYERS) if words in text_of(layer)]
    return place


# --- the Dockerfile ---------------------------------------------------------------------------------------------------


def test_every_instruction_is_one_and_the_parser_refuses_a_broken_file() -> None:
    known = {"FROM", "ARG", "SHELL", "RUN", "COPY", "ENV", "LABEL", "WORKDIR"}
    assert {layer.cmd.upper() for layer in LAYERS} <= known
    assert LAYERS[0].cmd.upper() == "ARG"
    with pytest.raises(dockerfile.GoParseError):
        dockerfile.parse_string(f"{(FOLDER / 'Dockerfile').read_text()}\nENV BROKEN\n")


def test_it_extends_googles_image_and_leaves_its_entrypoint_and_user_alone() -> None:
    commands = [layer.cmd.upper() for layer in LAYERS]
    assert commands.count("FROM") == 1
    (base,) = [text_of(layer) for layer in LAYERS if text_of(layer).startswith("BASE=")]
    assert base == f"BASE={base_image(TAGGED.workstations)}"
    assert not {"ENTRYPOINT", "CMD", "USER", "ADD", "VOLUME"} & set(commands)


def test_what_changes_often_comes_after_what_changes_seldom() -> None:
    assert place_of("apt-get install") < place_of("git config") < place_of("install-extensions.sh")
    assert place_of("install-extensions.sh") < place_of("EXTENSIONS=") < place_of("install-extensions ${EXTENSIONS}")
    assert place_of("install-extensions ${EXTENSIONS}") < place_of("startup/")


def test_nothing_lies_under_the_home_which_the_disk_covers() -> None:
    assert [text_of(layer) for layer in LAYERS if "/home" in text_of(layer)] == []


def test_everything_that_is_copied_is_there_and_scripts_can_run() -> None:
    for layer in LAYERS:
        if layer.cmd.upper() == "COPY":
            *sources, _ = layer.value
            assert [source for source in sources if not (FOLDER / source).exists()] == []
    assert [path.name for path in SCRIPTS if not os.access(path, os.X_OK)] == []


def test_packages_leave_no_lists_behind_and_come_over_https() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert "rm -rf /var/lib/apt/lists/*" in text_of(LAYERS[place_of("apt-get install")])
    assert not re.search(r"http://|--no-check-certificate|--insecure|\bcurl -k\b|chmod 777|sudo ", text)
    assert not re.search(r"(?i)token|password|secret", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_stops_at_its_first_error(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
    assert "set -o errexit -o nounset -o pipefail" in path.read_text()


def test_startup_scripts_come_after_googles_own_and_act_as_the_user() -> None:
    scripts = sorted((FOLDER / "startup").iterdir())
    assert scripts
    for path in scripts:
        assert int(path.name[:3]) > 200
        assert "runuser user" in path.read_text()


def test_a_new_home_gets_the_editors_settings_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    """The startup script itself, with the user's shell replaced by one in a home of the test's own."""
    fake = tmp_path / "bin" / "runuser"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\n[ "$1 $2 $3" = "user --login --command" ] && exec sh -c "$4"\n')
    fake.chmod(0o755)
    variables = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    script = FOLDER / "startup" / "210_editor-settings.sh"
    found = tmp_path / ".codeoss-cloudworkstations" / "data" / "Machine" / "settings.json"
    for wanted in ('{"git.autofetch": true, "telemetry.telemetryLevel": "off"}\n', "mine"):
        subprocess.run([str(script)], env=variables, check=True)
        assert found.read_text() == wanted
        found.write_text("mine")


def test_extensions_are_installed_where_the_home_does_not_hide_them(tmp_path: Path) -> None:
    """The installer itself, with the registry replaced by files: the newest, a version, one of no platform."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "curl").write_text(
        "#!/bin/bash\n"
        'for word; do case $word in https://*) url=$word;; esac; done; echo "$url" >> "$LOG"\n'
        "case $url in */linux-x64/*) [[ $url == *with-platform* ]] || exit 22;; esac\n"
        'case $url in *.vsix) : > "${@: -1}";; *) echo "{\\"version\\": \\"1.2.3\\", \\"files\\": '
        '{\\"download\\": \\"$url.vsix\\"}}";; esac\n'
    )
    (fake / "unzip").write_text('#!/bin/bash\nmkdir -p "${@: -1}/extension"\n')
    (fake / "jq").write_text(
        "#!/bin/bash\ntext=$(cat)\n"
        'case "${@: -1}" in .files.download) sed "s/.*download\\": \\"\\([^\\"]*\\)\\".*/\\1/" <<<"$text";; '
        "*) echo 1.2.3;; esac\n"
    )
    for path in fake.iterdir():
        path.chmod(0o755)
    installed, log = tmp_path / "extensions", tmp_path / "log"
    installed.mkdir()
    script = tmp_path / "install-extensions.sh"
    script.write_text(
        (FOLDER / "install-extensions.sh").read_text().replace("/opt/code-oss/extensions", str(installed))
    )
    names = ["Pub.with-platform", "pub.plain@2.0.1"]
    variables = {"PATH": f"{fake}:{os.environ['PATH']}", "LOG": str(log)}
    told = subprocess.run(["bash", str(script), *names], env=variables, check=True, capture_output=True, text=True)
    assert sorted(path.name for path in installed.iterdir()) == ["pub.plain", "pub.with-platform"]
    assert told.stdout.splitlines() == ["Pub.with-platform 1.2.3", "pub.plain 1.2.3"]
    asked = log.read_text().split()
    assert "https://open-vsx.org/api/Pub/with-platform/linux-x64/latest" in asked
    assert "https://open-vsx.org/api/pub/plain/2.0.1" in asked


# --- the build --------------------------------------------------------------------------------------------------------


def test_the_build_names_only_substitutions_that_it_is_given() -> None:
    request = images.build_request(TAGGED)
    used = set(re.findall(r"\$\{(_\w+)\}", (FOLDER / "cloudbuild.yaml").read_text()))
    assert used == set(request["substitutions"])
    pushed = "us-central1-docker.pkg.dev/cherry-ai-project/orchestra/orchestra-workstation:2026-11-25"
    assert request["substitutions"]["_IMAGE"] == pushed
    assert request["images"] == ["${_IMAGE}"]
    assert request["serviceAccount"].rsplit("/", 1)[1].startswith("orchestra-image@")
    assert request["options"] == {"logging": "CLOUD_LOGGING_ONLY"}


def test_the_files_arrive_as_they_are(tmp_path: Path) -> None:
    script = images.build_request(TAGGED)["steps"][0]["script"]
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    sent = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(FOLDER): path for path in FOLDER.rglob("*") if path.is_file()}
    assert set(sent) == set(kept) - {Path("cloudbuild.yaml")}
    for name, path in sent.items():
        assert path.read_bytes() == kept[name].read_bytes()
        assert os.access(path, os.X_OK) == os.access(kept[name], os.X_OK)
    assert len(script) < 50_000
    assert "$" not in script.replace("$(dirname", ""), "Cloud Build substitutes what looks like a variable"


def test_the_file_is_a_build_as_the_api_describes_it() -> None:
    assert set(yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())) == {"steps", "images", "options", "timeout"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        running.new_project(PROJECT, "artifactregistry", "cloudbuild", "iam")
        yield running


def test_cloud_build_takes_the_request_and_a_tag_that_is_not_there_is_told(server: Server) -> None:
    client = Client(Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN)))
    assert images.is_built(client, TAGGED) is False
    images.build(client, TAGGED)
    (made,) = server.get(f"/cloudbuild/v1/projects/{PROJECT}/locations/us-central1/builds").body["builds"]
    assert [step["id"] for step in made["steps"]] == ["files", "image"]
