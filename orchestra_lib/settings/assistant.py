"""The settings of the coding assistant: its model, what it is given of the memory, the embeddings, who may use it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from orchestra_lib.settings.base import Model
from orchestra_lib.settings.delivery import SecretId

ThinkingLevel = Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"]


class Embedding(Model):
    """How texts are embedded through Google's models. ``sample`` items of the memory are embedded for a look at them.

    ``requests_per_minute`` is what we allow ourselves: it has to stay below the project's quota, which others use too.
    """

    location: str
    requests_per_minute: int = Field(ge=1)
    connections: int = Field(ge=1, le=64)
    sample: int = Field(ge=1, le=100_000)


class Context(Model):
    """What of the memory goes into a request.

    ``candidates`` are retrieved; ``tokens`` is the budget that they are packed into, None: the smallest that supports
    as many answers as all of them whole would. ``support_margin`` is the loss of answers that still counts as none.
    ``questions`` is a file of lines ``{"question": …, "answer_id": …}``; None: the rehearsal's held-out ones.
    """

    candidates: int = Field(ge=1, le=200)
    tokens: Annotated[int, Field(ge=100, le=200_000)] | None
    support_margin: float = Field(gt=0, lt=0.5)
    questions: str | None


class CodeAssist(Model):
    """Gemini Code Assist beside its seats, which stand under ``usage``.

    ``repository_link`` is the name that the repository has in Developer Connect once a person has connected it there.
    """

    index: Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    repository_link: (
        Annotated[
            str,
            StringConstraints(pattern=r"^projects/[^/]+/locations/[^/]+/connections/[^/]+/gitRepositoryLinks/[^/]+$"),
        ]
        | None
    )
    memory_server: Annotated[str, StringConstraints(pattern=r"^https://[^\s]+$")] | None


class Assistant(Model):
    """The model behind the coding assistant and the embeddings of the memory.

    ``thinking_level`` None leaves it to the model. ``prompt`` names a folder of ``orchestra_lib/assistant/prompts``.
    ``settings_resource`` is where Google Cloud keeps what the assistant runs with.
    """

    model: str
    location: str
    temperature: Annotated[float, Field(gt=0, le=2)] | None
    max_output_tokens: int = Field(ge=1, le=65_536)
    thinking_level: ThinkingLevel | None
    context_window_tokens: int = Field(ge=1)
    embedding_model: str
    embedding_dimension: Literal[768, 1536, 3072]
    embedding: Embedding
    context: Context
    prompt: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    repeats: int = Field(ge=2, le=50)
    settings_resource: SecretId
    code_assist: CodeAssist

    @field_validator("model")
    @classmethod
    def _no_alias(cls, value: str) -> str:
        if value.endswith("-latest"):
            raise ValueError(
                f"{value} is an alias: it names another model tomorrow, and Agent Platform does not know it"
            )
        return value
