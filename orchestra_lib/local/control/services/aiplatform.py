"""AI Platform: endpoints, models and the calls of models, which a stand-in answers (``aiplatform_stand_in``).

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.publishers.models
"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Service
from orchestra_lib.local.control.operation_styles import below_target, generic
from orchestra_lib.local.control.operations import Style
from orchestra_lib.local.control.services.aiplatform_stand_in import (
    MODELS,
    NAME,
    PublisherModel,
    answer_to,
    cut,
    embedding,
    tokens_of,
)

_MAX_OUTPUT_TOKENS = 8_192  # where the caller names none


def _get(call: Call) -> Body:
    model = MODELS.get(call.segments[-1])
    if model is None:
        raise Fault("NOT_FOUND", f"Publisher Model `{call.path}` is not found.")
    return {"name": call.path, "versionId": "default", "launchStage": model.stage, "openSourceCategory": "PROPRIETARY"}


def _count_tokens(call: Call) -> Body:
    _model(call)
    texts = _texts(call)
    return {
        "totalTokens": sum(map(tokens_of, texts)),
        "totalBillableCharacters": sum(len("".join(text.split())) for text in texts),
    }


def _generate(call: Call) -> Body:
    model = _model(call)
    if model.embeds:
        raise Fault("INVALID_ARGUMENT", f"{model.id} is not supported in the generateContent API.")
    contents = call.body.get("contents", ())
    if not contents:
        raise bad_field("contents", "Unable to submit request because it must have at least one content.")
    if contents[-1].get("role") == "model":
        raise bad_field("contents", "Please ensure that the request ends with a user role.")
    prompt_tokens = sum(map(tokens_of, _texts(call)))
    if prompt_tokens > model.input_tokens:
        raise Fault(
            "INVALID_ARGUMENT",
            f"The input token count ({prompt_tokens}) exceeds the maximum number of tokens allowed "
            f"({model.input_tokens}).",
        )
    most = int(call.body.get("generationConfig", {}).get("maxOutputTokens", _MAX_OUTPUT_TOKENS))
    if not 1 <= most <= model.output_tokens:
        raise bad_field(
            "generation_config.max_output_tokens",
            f"Unable to submit request because it has a maxOutputTokens value of {most} but the supported range is "
            f"from 1 (inclusive) to {model.output_tokens + 1} (exclusive).",
        )
    text, is_cut = cut(answer_to(_text_of(contents[-1])), most)
    counted = tokens_of(text)
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": text}]},
                "finishReason": "MAX_TOKENS" if is_cut else "STOP",
            }
        ],
        "usageMetadata": {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": counted,
            "totalTokenCount": prompt_tokens + counted,
        },
        "modelVersion": f"{model.id} ({NAME})",
        "createTime": call.time,
        "responseId": f"local-{call.now:.6f}",
    }


def _predict(call: Call) -> Body:
    """The embedding models that take instances. https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api"""
    model = _embedding_model(call)
    instances = call.body.get("instances", [])
    if len(instances) > model.texts_per_request:
        raise Fault(
            "INVALID_ARGUMENT",
            f"{len(instances)} instance(s) is not allowed by the model {model.id}: at most {model.texts_per_request}.",
        )
    parameters = call.body.get("parameters", {})
    dimension = _dimension(model, parameters.get("outputDimensionality"))
    predictions = []
    for instance in instances:
        text, statistics = _read(model, str(instance.get("content", "")), parameters.get("autoTruncate", True))
        predictions.append({"embeddings": {"values": embedding(text, dimension), "statistics": statistics}})
    return {"predictions": predictions, "modelVersionId": NAME}


def _embed(call: Call) -> Body:
    model = _embedding_model(call)
    config = {**call.body, **call.body.get("embedContentConfig", {})}
    dimension = _dimension(model, config.get("outputDimensionality"))
    text, statistics = _read(model, _text_of(call.body.get("content", {})), config.get("autoTruncate", True))
    return {
        "embedding": {"values": embedding(text, dimension)},
        "truncated": statistics["truncated"],
        "usageMetadata": {"promptTokenCount": statistics["token_count"], "totalTokenCount": statistics["token_count"]},
    }


def _model(call: Call) -> PublisherModel:
    model = MODELS.get(call.segments[-1])
    if model is None or (model.locations and call.location not in model.locations):
        raise Fault(
            "NOT_FOUND",
            f"Publisher Model `{call.path}` was not found or your project does not have access to it. Please ensure "
            "you are using a valid model version.",
        )
    return model


def _embedding_model(call: Call) -> PublisherModel:
    model = _model(call)
    if not model.embeds:
        raise Fault("INVALID_ARGUMENT", f"{model.id} gives no embeddings.")
    return model


def _dimension(model: PublisherModel, asked: Any) -> int:
    dimension = model.dimension if asked is None else int(asked)
    if not 1 <= dimension <= model.dimension:
        raise bad_field("output_dimensionality", f"output_dimensionality {dimension}: 1 to {model.dimension}.")
    return dimension


def _read(model: PublisherModel, text: str, truncates: bool) -> tuple[str, dict[str, Any]]:
    """What the model reads of a text, and what it says about that."""
    if not text:
        raise bad_field("content", "The text content is empty.")
    counted = tokens_of(text)
    if counted > model.input_tokens and not truncates:
        raise Fault(
            "INVALID_ARGUMENT", f"The input token count is {counted} but the model supports up to {model.input_tokens}."
        )
    read, is_cut = cut(text, model.input_tokens)
    return read, {"truncated": is_cut, "token_count": min(counted, model.input_tokens)}


def _texts(call: Call) -> list[str]:
    """Every text of the request that a model reads."""
    system = call.body.get("systemInstruction")
    contents = [*([system] if system else ()), *call.body.get("contents", ())]
    return [*map(_text_of, contents), *(str(one.get("content", "")) for one in call.body.get("instances", ()))]


def _text_of(content: Body) -> str:
    return "\n".join(part["text"] for part in content.get("parts", ()) if "text" in part)


_CALLS = {
    "countTokens": _count_tokens,
    "embedContent": _embed,
    "generateContent": _generate,
    "predict": _predict,
}
_METHODS = {
    "aiplatform.publishers.models.get": _get,
    **{f"aiplatform.projects.locations.publishers.models.{name}": handler for name, handler in _CALLS.items()},
}

SERVICE = Service(
    name="aiplatform",
    operations=Style(below_target, generic),
    methods=_METHODS,
    outside=frozenset(_METHODS),  # they write nothing
)
