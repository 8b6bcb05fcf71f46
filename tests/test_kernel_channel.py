"""Nothing leaves a kernel unredacted: not by any kind of message, and not when the redactor itself fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from orchestra_lib import kernel_channel
from orchestra_lib.redaction import MASK

TOKEN = "correct-horse-battery"


class Kernel:
    """A kernel as JupyterLab starts it; ``run`` executes a cell and gives all that came back for it."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, source: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(source, timeout=60, output_hook=messages.append)
        return [*messages, reply]

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPLOY_TOKEN", TOKEN)
        kernel = Kernel()
    try:
        kernel.run("from orchestra_lib.kernel_channel import install; install(); install()")
        kernel.run('import os, sys; secret = os.environ["DEPLOY_TOKEN"]')
        yield kernel
    finally:
        kernel.stop()


def shown(messages: list[dict[str, Any]]) -> str:
    """The contents of all messages but the echo of the cell."""
    contents = [one["content"] for one in messages if one["header"]["msg_type"] != "execute_input"]
    return json.dumps(contents, default=str)


# --- in a real kernel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("stream", "print(f'the token is {secret}!')"),
        ("stream", "print(secret, file=sys.stderr)"),
        ("display_data", "from IPython.display import HTML, display; display(HTML(f'<b>{secret}</b>'))"),
        ("execute_result", "{'token': secret}"),
        ("error", "raise ConnectionError(f'no answer with {secret}')"),
        ("execute_reply", "raise ConnectionError(f'no answer with {secret}')"),
        ("stream", "print('postgresql://ada:s3cr3t-battery@db/x')"),
    ],
)
def test_a_secret_leaves_the_kernel_as_stars_in_every_kind_of_message(kernel: Kernel, kind: str, source: str) -> None:
    messages = kernel.run(source)
    assert MASK in shown([one for one in messages if one["header"]["msg_type"] == kind])
    assert "battery" not in shown(messages)


def test_the_echo_of_a_cell_and_its_history_are_redacted_too(kernel: Kernel) -> None:
    messages = kernel.run(f"known = '{TOKEN}'")
    (echo,) = [one["content"]["code"] for one in messages if one["header"]["msg_type"] == "execute_input"]
    assert echo == f"known = '{MASK}'"
    assert MASK in shown(kernel.run("In[-2]"))


def test_what_is_not_secret_leaves_as_it_is_and_once(kernel: Kernel) -> None:
    messages = kernel.run("print('12:30@home, Zürich ☂')\n6 * 7")
    texts = [one["content"]["text"] for one in messages if one["header"]["msg_type"] == "stream"]
    assert "".join(texts) == "12:30@home, Zürich ☂\n"
    results = [one["content"]["data"] for one in messages if one["header"]["msg_type"] == "execute_result"]
    assert results == [{"text/plain": "42"}]
    assert messages[-1]["content"]["status"] == "ok"


def test_an_output_that_the_redactor_fails_on_is_withheld_and_the_kernel_lives(kernel: Kernel) -> None:
    kernel.run(
        "from orchestra_lib import kernel_channel as channel; kept = channel.redact_json\n"
        "def fails_on_streams(content):\n"
        "    if 'text' in (content or {}): raise RuntimeError(secret)\n"
        "    return kept(content)\n"
        "channel.redact_json = fails_on_streams"
    )
    messages = kernel.run("print(secret)")
    streams = [one["content"]["text"] for one in messages if one["header"]["msg_type"] == "stream"]
    assert streams
    assert all("withheld" in text for text in streams)
    assert "battery" not in shown(messages)
    assert messages[-1]["content"]["status"] == "ok"
    kernel.run("channel.redact_json = kept")
    assert MASK in shown(kernel.run("print(secret)"))


def test_outside_a_kernel_there_is_nothing_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[bool] = []
    monkeypatch.setattr(kernel_channel, "learn_environment", lambda: learned.append(True))
    kernel_channel.install()
    assert learned == [True]


# --- a redactor that fails --------------------------------------------------------------------------------------------

CONTENTS: dict[str, dict[str, Any]] = {
    "stream": {"name": "stdout", "text": TOKEN},
    "display_data": {"data": {"text/plain": TOKEN}, "metadata": {}, "transient": {}},
    "execute_result": {"data": {"text/plain": TOKEN}, "metadata": {}, "execution_count": 3},
    "error": {"ename": "ValueError", "evalue": TOKEN, "traceback": [TOKEN]},
    "execute_reply": {"status": "ok", "execution_count": 3, "user_expressions": {"x": TOKEN}, "payload": []},
    "update_display_data": {"data": {"text/plain": TOKEN}, "metadata": {}, "transient": {"display_id": "a"}},
    "comm_msg": {"comm_id": "a", "data": {"state": {"value": TOKEN}}},
    "execute_input": {"code": TOKEN, "execution_count": 3},
    "inspect_reply": {"status": "ok", "found": True, "data": {"text/plain": TOKEN}, "metadata": {}},
}
OUTPUTS = ("stream", "display_data", "execute_result", "error")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RecursionError(TOKEN)

    monkeypatch.setattr(kernel_channel, "redact_json", fail)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("kind", CONTENTS)
def test_content_that_cannot_be_redacted_is_not_sent(kind: str) -> None:
    sent = kernel_channel._safe(kind, CONTENTS[kind])
    assert isinstance(sent, dict)
    assert TOKEN not in json.dumps(sent)
    assert sent == {} or "withheld" in json.dumps(sent)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_is_sent_instead_is_an_output_that_a_notebook_can_hold(kind: str) -> None:
    message = {"header": {"msg_type": kind}, "content": kernel_channel._safe(kind, CONTENTS[kind])}
    cell = nbformat.v4.new_code_cell("print(secret)", outputs=[nbformat.v4.output_from_msg(message)])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
    assert cell.outputs[0].output_type == kind


@pytest.mark.usefixtures("failing")
def test_a_reply_that_cannot_be_redacted_is_an_error_and_never_a_success() -> None:
    assert kernel_channel._safe("execute_reply", CONTENTS["execute_reply"])["status"] == "error"


@pytest.mark.parametrize("kind", CONTENTS)
def test_content_that_can_be_redacted_is_sent_as_it_is(kind: str) -> None:
    assert kernel_channel._safe(kind, CONTENTS[kind]) == CONTENTS[kind]
    assert kernel_channel._safe(kind, None) is None


def test_content_nested_too_deep_for_the_redactor_fails_closed() -> None:
    deep: Any = TOKEN
    for _ in range(100_000):
        deep = [deep]
    assert "withheld" in json.dumps(kernel_channel._safe("stream", {"text": deep}))
