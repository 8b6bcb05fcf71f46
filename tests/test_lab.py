"""The command that opens JupyterLab: on loopback, behind its token, on the right notebook, asking nobody elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra_lib import cli, lab
from orchestra_lib.settings import root


def test_it_listens_on_this_machine_alone_and_leaves_the_token_in_place() -> None:
    words = lab.command(None, port=8888, opens_browser=True)
    assert "--ServerApp.ip=127.0.0.1" in words
    assert not [word for word in words if "token" in word.lower() or "password" in word.lower()]
    assert f"--ServerApp.root_dir={root() / 'notebooks'}" in words


def test_a_phase_opens_its_notebook() -> None:
    assert "--LabApp.default_url=/lab/tree/03_memory.ipynb" in lab.command("03", port=1, opens_browser=False)


def test_a_phase_that_is_not_there_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "42"]) == 2
    assert "there is no notebook '42'; there are 00, 01," in capsys.readouterr().err


def test_its_settings_are_found_and_ask_for_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    ours, theirs = lab.environment()["JUPYTER_CONFIG_PATH"].split(":")
    assert theirs == "/theirs"
    stated = json.loads((Path(ours) / "labconfig" / "default_setting_overrides.json").read_text())
    assert stated["@jupyterlab/apputils-extension:notification"] == {"fetchNews": "false", "checkForUpdates": False}
