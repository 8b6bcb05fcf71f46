"""The stand-in for Google's models: its shapes and refusals are theirs, and it says that it is none."""

from __future__ import annotations

import math

import pytest
from control_plane import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control.services.aiplatform_stand_in import answer_to, cut, embedding, tokens_of

texts = st.text(alphabet=st.sampled_from("abz xyZ19_[](){}.,\n'é"), max_size=200)


def call(server, model, verb, body, location="global"):
    path = f"/aiplatform/v1/projects/{PROJECT}/locations/{location}/publishers/google/models/{model}:{verb}"
    return server.post(path, body)


def user(text):
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def test_an_answer_says_that_no_model_made_it_and_counts_its_tokens(server):
    answer = call(server, "gemini-4-argon", "generateContent", user("[1] heapq merges\n[2] sockets\nwhat merges?")).body
    assert answer["modelVersion"] == "gemini-4-argon (orchestra-local-stand-in/1)"
    (candidate,) = answer["candidates"]
    assert candidate["content"]["parts"][0]["text"].startswith("No model was asked")
    assert candidate["content"]["parts"][0]["text"].endswith("[1]")
    usage = answer["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    counted = call(server, "gemini-4-argon", "countTokens", user("[1] heapq merges\n[2] sockets\nwhat merges?")).body
    assert counted["totalTokens"] == usage["promptTokenCount"]


@pytest.mark.parametrize(
    ("model", "location", "verb", "body", "status", "told"),
    [
        ("gemini-pro-latest", "global", "countTokens", user("x"), 404, "was not found"),
        ("gemini-4-argon", "us-central1", "countTokens", user("x"), 404, "was not found"),
        ("gemini-4-argon", "us", "countTokens", user("x"), 200, ""),
        ("gemini-embedding-001", "global", "generateContent", user("x"), 400, "not supported"),
        ("gemini-4-argon", "global", "predict", {"instances": [{"content": "x"}]}, 400, "no embeddings"),
        ("gemini-4-argon", "global", "generateContent", {"contents": []}, 400, "at least one content"),
        (
            "gemini-4-argon",
            "global",
            "generateContent",
            {"contents": [{"role": "model", "parts": [{"text": "x"}]}]},
            400,
            "user role",
        ),
        (
            "gemini-4-argon",
            "global",
            "generateContent",
            {**user("x"), "generationConfig": {"maxOutputTokens": 70_000}},
            400,
            "supported range",
        ),
        ("gemini-embedding-001", "global", "predict", {"instances": [{"content": "a"}] * 2}, 400, "not allowed"),
        (
            "gemini-embedding-001",
            "global",
            "predict",
            {"instances": [{"content": "a"}], "parameters": {"outputDimensionality": 4000}},
            400,
            "1 to 3072",
        ),
        ("gemini-embedding-001", "global", "predict", {"instances": [{"content": ""}]}, 400, "empty"),
    ],
)
def test_it_refuses_what_the_models_refuse(server, model, location, verb, body, status, told):
    answer = call(server, model, verb, body, location)
    assert answer.status == status
    assert not told or told in answer.message


def test_a_text_that_is_too_long_is_cut_or_refused_as_asked(server):
    long = {"instances": [{"content": "word " * 3_000}]}
    (shortened,) = call(server, "gemini-embedding-001", "predict", long).body["predictions"]
    assert shortened["embeddings"]["statistics"] == {"truncated": True, "token_count": 2048}
    refused = call(server, "gemini-embedding-001", "predict", {**long, "parameters": {"autoTruncate": False}})
    assert (refused.status, "supports up to 2048" in refused.message) == (400, True)


def test_both_ways_of_embedding_give_the_numbers_that_were_asked_for(server):
    predicted = call(
        server,
        "gemini-embedding-001",
        "predict",
        {"instances": [{"content": "heaps"}], "parameters": {"outputDimensionality": 1536}},
    ).body["predictions"][0]["embeddings"]["values"]
    content = {"content": {"parts": [{"text": "heaps"}]}}
    embedded = call(server, "gemini-embedding-2", "embedContent", content).body["embedding"]["values"]
    assert (len(predicted), len(embedded)) == (1536, 3072)
    assert math.dist(predicted, [0] * 1536) == pytest.approx(0.7)
    assert math.dist(embedded, [0] * 3072) == pytest.approx(1.0)


def test_a_model_that_there_is_can_be_read_with_its_stage(server):
    found = server.get("/aiplatform/v1/publishers/google/models/gemini-3.1-pro-preview").body
    assert found["launchStage"] == "PUBLIC_PREVIEW"
    assert server.get("/aiplatform/v1/publishers/google/models/gemini-0-nobody").status == 404


def test_without_the_api_nothing_is_answered(fresh):
    fresh.inject(disabled_services=[{"service": "aiplatform"}])
    assert call(fresh, "gemini-4-argon", "countTokens", user("x")).status == 403


@given(texts, st.integers(0, 60))
def test_the_beginning_that_is_cut_has_at_most_the_tokens_that_were_asked_for(text, tokens):
    read, is_cut = cut(text, tokens)
    assert text.startswith(read)
    assert tokens_of(read) == min(tokens, tokens_of(text))
    assert is_cut == (tokens_of(text) > tokens)


@given(texts)
def test_the_same_text_has_the_same_vector_and_answer(text):
    assert embedding(text, 64) == embedding(text, 64)
    assert answer_to(text) == answer_to(text)


def test_texts_that_share_words_are_nearer_than_others():
    merge, heap, socket = (embedding(text, 1536) for text in ("merge heaps", "merging of heaps", "open a socket"))

    def cosine(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(merge, heap) > cosine(merge, socket)
