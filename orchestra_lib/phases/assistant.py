"""The steps of runbook 04: access, model, memory, context, embeddings, answers, cost, and the settings in force."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import plotly.graph_objects as go
from google import genai
from numpy.typing import NDArray

from orchestra_lib.assistant import report
from orchestra_lib.assistant.calls import genai_client
from orchestra_lib.assistant.code_assist import editor_files, index_commands, open_points
from orchestra_lib.assistant.context import RETRIEVED, Packed, pack, shortlist, whole
from orchestra_lib.assistant.embedding_cache import EmbeddingCache
from orchestra_lib.assistant.embeddings import Embedder, Task, Vectors
from orchestra_lib.assistant.experiments import Experiment, log_run
from orchestra_lib.assistant.generation import generate, repeat, request
from orchestra_lib.assistant.models import meanings, resolve
from orchestra_lib.assistant.price import embedding_price_usd, request_price
from orchestra_lib.assistant.prompt import load_prompt
from orchestra_lib.assistant.questions import Question
from orchestra_lib.assistant.retrieval import Retrieved, Store, retrieve, sampled_contents
from orchestra_lib.assistant.support import Asked, Support, choose, halves, measure
from orchestra_lib.assistant.tokens import TokenCounter, TokenRatio
from orchestra_lib.blueprint.assistant import KIND, Earned, assistant, section
from orchestra_lib.database import connect
from orchestra_lib.display import Progress, Table
from orchestra_lib.display.boxes import Box, text_box
from orchestra_lib.display.context import context_figure
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.assistant_memory import AssistantMemory
from orchestra_lib.phases.assistant_settings import SettingsInForce
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Plan
from orchestra_lib.prices import list_prices
from orchestra_lib.rules import OFFLINE, Level, judge, summary
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import root
from orchestra_lib.settings.document import read
from orchestra_lib.settings.load import STRATEGY

PHASE = "04"

_RATIO_CONTEXTS = 40  # counted to learn how many characters a token of a context has
_ABOUT = TokenRatio(4.0, 4.0, 0)  # Google's rule of thumb, for the contexts that are counted first
_ABOUT_BUDGET_TOKENS = 1_000
_COUNTED_QUESTIONS = 40  # whose requests are counted by the service, with and without packing
_ANSWERED_QUESTIONS = 8  # that the model is asked: each is paid for


class AssistantPhase:
    """One run of the assistant phase. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        self._wanted = section(run.settings)
        self._work = CloudWork(run, PHASE)
        self._place = self._work.place
        self._measures = Source.REHEARSED if self._work.is_local else Source.MEASURED
        self._blueprint = assistant(run.settings)
        self._want_everything(None)
        self._memory = AssistantMemory(run, self._work)
        self._prompt = load_prompt(self._wanted.prompt)
        self._counter = TokenCounter(self._client(self._wanted.location), self._wanted.model)
        self._ratio: TokenRatio | None = None
        self._questions: tuple[Question, ...] = ()
        self._retrieved: Retrieved | None = None
        self._support: Support | None = None
        self._counted: report.CountedRequests | None = None
        self._packed: dict[int, Packed] = {}
        self._in_force = SettingsInForce(self._work, self._wanted)

    # --- check and plan -----------------------------------------------------------------------------------------------

    def checks(self) -> tuple[Evidence, ...]:
        """Phase 1, permissions, the rules of the assistant's settings, a memory with rows in it, and questions."""
        with self._run.step("checks"):
            return (
                *self._work.checks(self._work.look()),
                *self._rule_rows(),
                *self._memory.checks(self._wanted.embedding_model),
            )

    def plan(self) -> Plan:
        """The live state against the blueprint; the settings in force follow from what is measured."""
        with self._run.step("plan"):
            self._work.want(self._blueprint.access, self._blueprint.foundation, rehearses_foundation=True)
            access, change = self._work.plan(), self._in_force.change()
        return Plan((*access.changes, change), {**access.live_state, KIND: change.before})

    # --- apply --------------------------------------------------------------------------------------------------------

    def apply(self) -> Table:
        """Give the developers their roles."""
        return self._work.apply()

    def model(self) -> Table:
        """Ask the service for the model, and say what it does with each of the strategy's settings."""
        strategy = read(root() / "parameters" / f"{STRATEGY}.yaml")
        asked = str(strategy.get("assistant", {}).get("model", ""))
        with self._run.step("model"):
            found = resolve(self._client(self._wanted.location), asked, self._wanted)
            embeds = self._embedder.embed([f"ping {self._run.record.run_id}"], "RETRIEVAL_QUERY")  # not from the cache
        self._run.add(
            yes_or_no(f"{found.model} answers in {found.location}", self._place.source, found.exists, note=found.how),
            yes_or_no(
                f"{self._wanted.embedding_model} embeds in {self._wanted.embedding.location}",
                self._place.source,
                embeds.vectors.shape == (1, self._wanted.embedding_dimension),
            ),
        )
        if not found.exists:
            raise GateFailed(f"{found.model} does not answer in {found.location}: {found.how}")
        return report.meanings_table(meanings(self._wanted, strategy))

    def context(self) -> Table:
        """Read the memory for every question; half of them choose order and budget, the other half report."""
        found, wanted = self._memory.found, self._wanted.context
        self._questions = self._memory.questions()
        choosing, reporting = halves(len(self._questions))
        store = Store(found.table, self._settings.memory.index.opclass, wanted.candidates)
        with self._run.step("retrieve"), connect(found.address, role="memory") as session:
            vectors = self._memory.vectors(self._questions, self._embedded_questions)
            self._retrieved = retrieve(session, store, vectors, choosing)
        with self._run.step("pack"):
            asked = self._asked(self._retrieved)
            self._ratio = self._learnt_ratio([asked[place] for place in choosing[:_RATIO_CONTEXTS]])
            choice = choose([asked[place] for place in choosing], self._ratio, wanted.tokens)
            self._support = measure([asked[place] for place in reporting], choice, self._ratio)
            packing_ms = self._pack_all(asked, self._support, self._ratio)
        rows = (
            *report.retrieval_evidence(self._retrieved, packing_ms, self._latency_target_ms, found.name),
            *report.support_evidence(self._support, wanted.support_margin, wanted.candidates),
            self._steady_packing(vectors, store),
        )
        return self._work.show(rows, f"{len(self._questions)} questions to {found.name}")

    def figure(self) -> go.Figure:
        """What a context holds for its tokens, items as they are and packed."""
        support, host = self._measured(), self._run.record.host
        rows = self._memory.found.holds.rows if self._memory.found.holds else 0
        model = self._memory.corpus.embedding_model if self._memory.corpus else self._wanted.embedding_model
        return context_figure(
            support, f"{support.questions} questions that chose nothing · {rows:,} rows · {model} · {host['cpu']}"
        )

    def tokens(self) -> Table:
        """Have the service count whole requests, as they were and packed, and say what each costs."""
        support, ratio = self._measured(), self._ratio
        assert ratio is not None  # noqa: S101 - measured together with the support
        with self._run.step("count"):
            self._counted = self._count(halves(len(self._questions))[1][:_COUNTED_QUESTIONS])
        on = datetime.now(UTC).date()
        output_tokens = self._settings.usage.output_tokens_per_call if self._settings.usage else 0
        counter = f"the stand-in for {self._counter.model}" if self._work.is_local else self._counter.model
        rows = (
            *report.token_evidence(self._counted, support.choice.budget_tokens, ratio, counter, self._measures),
            *report.price_evidence(
                self._counted,
                output_tokens,
                request_price(list_prices(), self._wanted.model, on),
                self._wanted.model,
                self._measures,
            ),
        )
        return self._work.show(rows, "What a request costs")

    def embed(self) -> Table:
        """Embed a sample of the memory through Google's model, twice: the second time the cache has all of it."""
        found, progress = self._memory.found, Progress("embed", "texts")
        with self._run.step("embed"), connect(found.address, role="memory") as session:
            texts = sampled_contents(session, found.table, self._wanted.embedding.sample)
            first = self._embedder.embed(texts, "RETRIEVAL_DOCUMENT", progress)
            again = self._embedder.embed(texts, "RETRIEVAL_DOCUMENT")
        rows = report.embedding_evidence(
            first,
            again,
            self._wanted.embedding_model,
            self._wanted.embedding_dimension,
            self._measures,
            self._whole_memory_usd(first.tokens / max(1, len(first.lengths))) if first.lengths.size else "all cached",
        )
        return self._work.show(rows, f"{len(texts)} items embedded by {self._wanted.embedding_model}")

    def answer(self) -> Table:
        """Ask the model some of the questions with their packed context, and one of them again and again."""
        self._measured()
        asked = halves(len(self._questions))[1][:_ANSWERED_QUESTIONS]
        client, progress = self._client(self._wanted.location), Progress("answers", "answers")
        requests = [request(self._prompt, self._packed[place], self._questions[place].text) for place in asked]
        with self._run.step("answers"):
            answers = [generate(client, self._wanted, one) for one in requests]
            repeated, steady = repeat(
                lambda: generate(client, self._wanted, requests[0]), self._wanted.repeats, progress
            )
        rows = report.answer_evidence(answers, repeated, steady, self._measures)
        return self._work.show(rows, f"{len(answers)} answers of {answers[0].model}, prompt {self._prompt.version}")

    def put_in_force(self) -> Table:
        """Keep what the assistant runs with where the other parts read it; what was there before is journalled."""
        self._in_force.refuse_if_changed(self._earned())
        resources = assistant(self._settings, self._earned()).in_force
        self._work.want(resources, self._blueprint.foundation)
        self._work.plan()
        self._work.apply()
        kept = self._in_force.wanted(self._earned())
        return Table(("setting", "in force"), sorted(kept.items()), f"{KIND} {self._wanted.settings_resource}")

    def files(self) -> Box:
        """What Code Assist needs in an editor and for our own repository, and what only people can do."""
        parts = [f"# {file.path}\n{file.text}" for file in editor_files(self._settings)]
        commands = index_commands(self._settings)
        if commands:
            parts.append("# the index of our own code\n" + "\n".join(commands) + "\n")
        parts.append("# to be done by people\n" + "\n".join(f"- {point}" for point in open_points(self._settings)))
        return text_box("\n".join(parts))

    def log(self) -> Table:
        """Log the run's figures to Vertex AI Experiments. The local target has none, and says so."""
        claim = "figures of the run in Vertex AI Experiments"
        if self._work.is_local:
            row = Evidence(claim, Source.ASSUMED, "not logged", note="experiments are Google Cloud's alone")
            return self._work.show((row,), "Experiments")
        regions = self._settings.regions
        where = Experiment(self._place.project, regions.primary if regions else self._wanted.embedding.location)
        figures = {
            "".join(letter if letter.isalnum() else "_" for letter in row.claim)[:100]: float(row.value)
            for row in self._run.evidence
            if row.source is Source.MEASURED and isinstance(row.value, int | float)
        }
        with self._run.step("experiments"):
            kept = self._in_force.wanted(self._earned())
            name = log_run(self._work.client.target, where, self._run.record.run_id, kept, figures)
        return self._work.show((Evidence(claim, Source.OBSERVED, name),), "Experiments")

    def verify(self) -> Table:
        """Read everything back: a second plan is empty, and the settings in force are those that were earned."""
        self._want_everything(self._earned())
        with self._run.step("read back"):
            live, wanted = self._in_force.live(), self._in_force.wanted(self._earned())
            rows = (
                *self._work.read_back(),
                yes_or_no(
                    "the assistant's settings in force are those that were measured",
                    self._place.source,
                    live == wanted,
                    note=f"{self._wanted.settings_resource}, {len(wanted)} settings",
                ),
            )
        return self._work.show(rows, "Read back")

    # --- what the steps share -----------------------------------------------------------------------------------------

    def _client(self, location: str) -> genai.Client:
        return genai_client(self._work.client.target, self._work.place.project, location)

    @cached_property
    def _embedder(self) -> Embedder:
        wanted = self._wanted.embedding
        # The stand-in's vectors go when the local target is reset, and never meet those that were paid for.
        home = state_directory() / ("local" if self._work.is_local else "embeddings")
        cache = EmbeddingCache(home / f"embeddings.{self._settings.environment.name}.sqlite")
        self._run.at_end(cache.close)
        return Embedder(
            self._client(wanted.location),
            self._wanted.embedding_model,
            self._wanted.embedding_dimension,
            cache,
            requests_per_minute=wanted.requests_per_minute,
            connections=wanted.connections,
        )

    def _embedded_questions(self, texts: list[str]) -> Vectors:
        task: Task = "RETRIEVAL_QUERY"
        return self._embedder.embed(texts, task, Progress("embed", "questions")).vectors

    def _want_everything(self, earned: Earned | None) -> None:
        plan = assistant(self._settings, earned)
        self._work.want(plan.resources, plan.foundation, rehearses_foundation=True)

    def _rule_rows(self) -> tuple[Evidence, ...]:
        rules = [rule for rule in OFFLINE if rule.place.startswith("assistant.")]
        document = self._settings.public()
        where = f"parameters of {self._settings.environment.name}"
        findings = [one for one in judge(document, rules, where) if one.level is not Level.UNJUDGED]
        counted = replace(summary(findings, rules, where), claim="rules that the assistant's settings break")
        return (*(finding.evidence() for finding in findings), counted)

    def _asked(self, retrieved: Retrieved) -> list[Asked]:
        return [
            Asked(shortlist(question.text, memories), question.answer_id)
            for question, memories in zip(self._questions, retrieved.memories, strict=True)
        ]

    def _learnt_ratio(self, asked: Sequence[Asked]) -> TokenRatio:
        """From contexts like those that will be sent: headings and numbers are denser than what stands below them."""
        contexts = (pack(one.shortlist, RETRIEVED, _ABOUT_BUDGET_TOKENS, _ABOUT) for one in asked)
        return self._counter.ratio([context.text for context in contexts])

    def _pack_all(self, asked: Sequence[Asked], support: Support, ratio: TokenRatio) -> NDArray[np.float64]:
        """Read and pack every question's items as the assistant does, keep the contexts, and time it: milliseconds."""
        choice, taken = support.choice, []
        assert self._retrieved is not None  # noqa: S101 - read before
        for _ in range(len(self._retrieved.milliseconds) // len(asked)):
            for place, one in enumerate(asked):
                began = time.perf_counter()
                again = shortlist(one.shortlist.question, one.shortlist.retrieved)
                self._packed[place] = pack(again, choice.order, choice.budget_tokens, ratio)
                taken.append((time.perf_counter() - began) * 1e3)
        return np.asarray(taken)

    def _steady_packing(self, vectors: Vectors, store: Store) -> Evidence:
        """The same question read from the memory and packed several times."""
        support, ratio = self._measured(), self._ratio
        assert ratio is not None  # noqa: S101 - measured together with the support
        digests = []
        with connect(self._memory.found.address, role="memory") as session:
            for _ in range(self._wanted.repeats):
                (memories,) = retrieve(session, store, vectors[:1], [0]).memories
                text = pack(
                    shortlist(self._questions[0].text, memories),
                    support.choice.order,
                    support.choice.budget_tokens,
                    ratio,
                ).text
                digests.append(hashlib.sha256(text.encode()).hexdigest())
        return report.steady_packing(digests)

    def _count(self, places: Sequence[int]) -> report.CountedRequests:
        assert self._retrieved is not None  # noqa: S101 - measured before
        progress, rows = Progress("count", "requests"), []
        for number, place in enumerate(places, start=1):
            question = self._questions[place].text
            texts = [
                self._prompt.fill(context.text, question)
                for context in (whole(self._retrieved.memories[place]), self._packed[place])
            ]
            tokens = [self._counter.count(text, self._prompt.system) for text in texts]
            rows.append((*tokens, *map(len, texts)))
            progress(number, len(places))
        counted = np.asarray(rows, dtype=np.float64)
        bare = max(
            self._counter.count(self._prompt.fill("", self._questions[place].text), self._prompt.system)
            for place in places
        )
        return report.CountedRequests(counted[:, 0], counted[:, 1], counted[:, 2], counted[:, 3], bare)

    def _whole_memory_usd(self, tokens_per_item: float) -> str:
        rows = self._memory.found.holds.rows if self._memory.found.holds else 0
        tokens = tokens_per_item * rows
        usd = embedding_price_usd(list_prices(), self._wanted.embedding_model, tokens, datetime.now(UTC).date())
        price = "no price is known" if usd is None else f"about {usd:,.2f} USD"
        return f"all {rows:,} items would be {tokens:,.0f} tokens, {price}"

    @property
    def _latency_target_ms(self) -> float | None:
        """The strategy's target is the new store's: today's, which a rehearsal may read instead, has none to meet."""
        return None if self._memory.found.is_todays else self._settings.targets.memory_retrieval_p95_ms

    def _measured(self) -> Support:
        if self._support is None:
            raise GateFailed("no context was measured yet: run the cell that reads the memory first")
        return self._support

    def _earned(self) -> Earned:
        choice = self._measured().choice
        return Earned(choice.budget_tokens, choice.order)
