"""What happens in a live kernel while a runbook is open: the cells as they ran, with their outputs, and what failed.

The kernel cannot see the file that JupyterLab saves, so the executed notebook of an interactive run is made here, from
IPython's history and from the messages that the kernel sends to the browser.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult, InteractiveShell
from jupyter_client.session import Session as KernelSession

_WIDGET = "application/vnd.jupyter.widget-view+json"  # a widget's state is not stored: its text form says what it was
_OUTPUTS = {"stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"}


@dataclass
class _Cell:
    number: int
    source: str
    parent: str | None  # id of the request that ran it; None for cells that ran before the runbook was opened
    outputs: list[dict[str, Any]] = field(default_factory=list)
    clear_before_next: bool = False


class Session:
    """Follows a kernel from now until ``stop``. ``on_failure`` is told the number and exception of a failing cell."""

    def __init__(self, shell: InteractiveShell, on_failure: Callable[[int, BaseException], None]) -> None:
        self._shell = shell
        self._on_failure = on_failure
        self._guard = threading.Lock()  # the stream's text arrives from the kernel's output thread
        self.captures_outputs = getattr(shell, "kernel", None) is not None
        # The history numbers the cells; IPython's own count is one ahead in a running cell since 9.18.
        history = list(shell.history_manager.input_hist_raw)
        self._cells = [_Cell(n, source, None) for n, source in enumerate(history) if n > 0]
        if self._cells and self._request():
            self._cells[-1].parent = self._request()
        shell.events.register("pre_run_cell", self._cell_starts)
        shell.events.register("post_run_cell", self._cell_ended)
        if self.captures_outputs:
            _tap(shell.kernel.session).append(self._message)

    def stop(self) -> None:
        """Stop following; what was captured stays."""
        self._shell.events.unregister("pre_run_cell", self._cell_starts)
        self._shell.events.unregister("post_run_cell", self._cell_ended)
        if self.captures_outputs:
            _tap(self._shell.kernel.session).remove(self._message)

    def notebook(self, facts: dict[str, object]) -> dict[str, object]:
        """The cells so far, in the order in which they ran, as an nbformat 4.5 document with these facts about it."""
        sys.stdout.flush()
        sys.stderr.flush()
        with self._guard:
            cells = [self._as_json(place, cell) for place, cell in enumerate(self._cells)]
        about = {**facts, "made_from": "the kernel's session", "outputs_captured": self.captures_outputs}
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, "orchestra": about}
        return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}

    def _cell_starts(self, info: ExecutionInfo) -> None:
        if info.store_history:
            with self._guard:
                number = len(self._shell.history_manager.input_hist_raw)
                self._cells.append(_Cell(number, info.raw_cell, self._request()))

    def _cell_ended(self, result: ExecutionResult) -> None:
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            self._on_failure(result.execution_count or self._cells[-1].number, error)

    def _request(self) -> str:
        header = getattr(self._shell.display_pub, "parent_header", None) or {}
        return str(header.get("msg_id", ""))

    def _message(self, kind: str, content: dict[str, Any], parent: str) -> None:
        with self._guard:
            if kind == "update_display_data":
                self._update(content)
                return
            cell = next((cell for cell in reversed(self._cells) if cell.parent == parent), None)
            if cell is None:
                return
            if kind == "clear_output":
                cell.clear_before_next = bool(content.get("wait"))
                cell.outputs = cell.outputs if cell.clear_before_next else []
                return
            if cell.clear_before_next:
                cell.outputs, cell.clear_before_next = [], False
            _add(cell.outputs, kind, content)

    def _update(self, content: dict[str, Any]) -> None:
        shown_as = content.get("transient", {}).get("display_id")
        for cell in self._cells:
            for output in cell.outputs:
                if shown_as is not None and output.get("display_id") == shown_as:
                    output |= {"data": _without_widgets(content["data"]), "metadata": content["metadata"]}

    @staticmethod
    def _as_json(place: int, cell: _Cell) -> dict[str, object]:
        captured = [
            {key: value for key, value in output.items() if key != "display_id"}
            for output in cell.outputs
            if output.get("data", {}).get("text/html") != ""  # a progress line that has gone on in another place
        ]
        metadata = (
            {} if cell.parent is not None else {"orchestra": "ran before the runbook was opened, outputs not kept"}
        )
        return {
            "id": f"run-{place}",
            "cell_type": "code",
            "execution_count": cell.number,
            "metadata": metadata,
            "source": cell.source,
            "outputs": captured,
        }


def _add(outputs: list[dict[str, Any]], kind: str, content: dict[str, Any]) -> None:
    """Append a message's output to a cell's, in the form in which notebooks store it."""
    if kind == "stream":
        last = outputs[-1] if outputs else {}
        if last.get("output_type") == "stream" and last["name"] == content["name"]:
            last["text"] += content["text"]
        else:
            outputs.append({"output_type": "stream", "name": content["name"], "text": content["text"]})
    elif kind == "error":
        names = ("ename", "evalue", "traceback")
        outputs.append({"output_type": "error", **{name: content[name] for name in names}})
    else:
        output = {"output_type": kind, "data": _without_widgets(content["data"]), "metadata": content["metadata"] or {}}
        if kind == "execute_result":
            output["execution_count"] = content["execution_count"]
        display_id = content.get("transient", {}).get("display_id")
        outputs.append(output | ({"display_id": display_id} if display_id is not None else {}))


def _without_widgets(data: dict[str, Any]) -> dict[str, Any]:
    return {mime: value for mime, value in data.items() if mime != _WIDGET}


def _tap(kernel_session: KernelSession) -> list[Callable[[str, dict[str, Any], str], None]]:
    """The listeners of a kernel's outgoing messages; the first call puts the tap in, and it stays in.

    Streams, displays, results and tracebacks all leave through the session's ``send``; nothing else sees all four.
    """
    present: list[Callable[[str, dict[str, Any], str], None]] | None = getattr(
        kernel_session, "_orchestra_listeners", None
    )
    if present is not None:
        return present
    listeners: list[Callable[[str, dict[str, Any], str], None]] = []
    send = kernel_session.send

    def tapped(
        stream: object,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        *rest: object,
        **named: object,
    ) -> object:
        if isinstance(msg_or_type, dict):
            kind, said, header = msg_or_type["header"]["msg_type"], msg_or_type["content"], msg_or_type["parent_header"]
        else:
            kind, said, header = msg_or_type, content or {}, parent or {}
        if kind in _OUTPUTS:
            request = header.get("header", header)  # some callers pass the whole request, some its header
            for listener in tuple(listeners):
                listener(kind, said, str(request.get("msg_id", "")))
        return send(stream, msg_or_type, content, parent, *rest, **named)

    kernel_session._orchestra_listeners = listeners
    kernel_session.send = tapped
    return listeners
