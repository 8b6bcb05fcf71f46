"""Questions whose answers are known: what a context is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestra_lib.errors import ParameterError
from orchestra_lib.settings.base import Model


class _Line(Model):
    question: str
    answer_id: str


@dataclass(frozen=True)
class Question:
    """What somebody asks, and the id of the item of the memory that holds the answer."""

    text: str
    answer_id: str


def read_questions(path: Path) -> tuple[Question, ...]:
    """The questions of a file with one JSON object a line. Raises ParameterError with the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ParameterError(f"the questions {path} cannot be read: {error.strerror or error}") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise ParameterError(
                f'{path}, line {number}: {where}: {first["msg"]}; a line is {{"question": ..., "answer_id": ...}}'
            ) from None
        questions.append(Question(read.question, read.answer_id))
    return tuple(questions)
