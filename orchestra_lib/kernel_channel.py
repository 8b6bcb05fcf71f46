"""The one door through which a kernel's messages leave, with the redactor in it.

Streams, displays, results, tracebacks, widget states and replies all go through the kernel session's ``send``.
"""

from __future__ import annotations

from typing import Any

from IPython.core.getipython import get_ipython

from orchestra_lib.redaction import learn_environment, redact_json

_WITHHELD = "[withheld: the redactor failed on this output]"


def install() -> None:
    """Redact everything that this kernel sends from now on; nothing to do outside a kernel or the second time."""
    learn_environment()
    kernel = getattr(get_ipython(), "kernel", None)
    session = getattr(kernel, "session", None)
    if session is None or getattr(session, "_orchestra_redacts", False):
        return
    send = session.send

    def redacting(
        stream: object,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        *rest: Any,
        **named: Any,
    ) -> Any:
        if isinstance(msg_or_type, dict):
            message = {**msg_or_type, "content": _safe(msg_or_type["header"]["msg_type"], msg_or_type["content"])}
            return send(stream, message, content, *rest, **named)
        return send(stream, msg_or_type, _safe(msg_or_type, content), *rest, **named)

    session.send = redacting
    session._orchestra_redacts = True


def _safe(kind: str, content: dict[str, Any] | None) -> dict[str, Any] | None:
    """The content without secrets. What the redactor cannot judge is not sent: it fails closed."""
    try:
        return redact_json(content)
    except Exception:  # noqa: BLE001 - whatever the reason, an unredacted message must not leave
        return _EMPTY.get(kind, {})


_EMPTY: dict[str, dict[str, Any]] = {
    "stream": {"name": "stderr", "text": _WITHHELD},
    "display_data": {"data": {"text/plain": _WITHHELD}, "metadata": {}, "transient": {}},
    "execute_result": {"data": {"text/plain": _WITHHELD}, "metadata": {}, "execution_count": 0},
    "error": {"ename": "RedactionFailed", "evalue": _WITHHELD, "traceback": [_WITHHELD]},
    "execute_reply": {"status": "error", "ename": "RedactionFailed", "evalue": _WITHHELD, "traceback": [_WITHHELD]},
}
