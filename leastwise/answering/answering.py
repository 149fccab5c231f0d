"""Answering rows as a candidate would in production: over HTTP, in process for trained weights, or from its cache.

It measures time and counts tokens; it scores nothing. Servers it starts end when the `with` block does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leastwise.answering import candidate_servers
from leastwise.answering.cascade import CascadeAnswerer
from leastwise.answering.exact_cache import ExactCache
from leastwise.answering.guarded import GuardedAnswerer
from leastwise.answering.prompted import prompted, shot
from leastwise.endpoints import batches, inference
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.endpoints.student import ask_student
from leastwise.ladder.candidate import Candidate, Shot
from leastwise.ladder.rendering import Turn
from leastwise.ladder.venue_cost import fixed_usd_per_request, price_of, worst_case_usd_of
from leastwise.metrics.answer import Answer
from leastwise.models import causal_model, label_likelihood, weights
from leastwise.models.chat import format_chat
from leastwise.models.threads import THREADS
from leastwise.money.curves import SECONDS_PER_MONTH
from leastwise.stores import storage
from leastwise.stores.answer_store import StoredAnswer, answer_key, stored_now
from leastwise.stores.caps import Purpose
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from leastwise.answering.workspace import Workspace


class Payer(NamedTuple):
    """Which stage pays for calls, and what for."""

    stage: str
    purpose: Purpose


@contextmanager
def open_answerer(
    work: Workspace, candidate: Candidate, payer: Payer | None = None, *, confident: bool = False
) -> Iterator[Any]:
    """What answers for this candidate: a student, trained weights, or a model behind HTTP.

    Its calls are paid as the evaluation of the candidate's own stage, unless a `payer` is named. `confident`: answers come
    with a confidence where the model tells one.
    """
    with ExitStack() as stack:
        answerer: Any
        uncached = candidate.cache.model_copy(update={"exact": False})  # a response cache is in front of the whole
        if candidate.guard:
            plain = candidate.model_copy(update={"guard": None, "cache": uncached})
            told = candidate.guard.score != "distance"
            inner = stack.enter_context(open_answerer(work, plain, payer, confident=confident or told))
            answerer = GuardedAnswerer(work, inner, candidate.guard)
        elif candidate.cascade:
            pays = payer or Payer(candidate.stage, "evaluation")
            rest = candidate.model_copy(update={"cascade": None, "cache": uncached})
            first = stack.enter_context(open_answerer(work, candidate.cascade.first, pays, confident=True))
            then = stack.enter_context(open_answerer(work, rest, pays))
            answerer = CascadeAnswerer(first, then, candidate.cascade.below)
        elif candidate.weights and candidate.weights.kind == "student":
            answerer = StudentAnswerer(work, candidate, stack)
        elif candidate.weights:
            answerer = TrainedAnswerer(work, candidate, stack, confident)
        else:
            answerer = ServedAnswerer(work, candidate, stack, payer, confident)
        requests_per_s = work.use_case.traffic.requests_per_month / SECONDS_PER_MONTH
        yield ExactCache(answerer, candidate, requests_per_s, stack) if candidate.cache.exact else answerer


class ServedAnswerer:
    """A model behind an OpenAI-compatible, Anthropic or Google endpoint, with retrieval before each request."""

    def __init__(
        self,
        work: Workspace,
        candidate: Candidate,
        stack: ExitStack,
        payer: Payer | None = None,
        confident: bool = False,
    ) -> None:
        self.work, self.candidate, self._confident = work, candidate, confident
        self.price = price_of(work, candidate)
        self.usd_worst_case = worst_case_usd_of(work, candidate, self.price)
        self.fixed_usd_per_request = fixed_usd_per_request(work.use_case, candidate.venue, None)
        self.asker = open_asker(work, candidate, stack, payer)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Retrieve, render, ask; latency is the request's own plus its share of the retrieval."""
        started = time.perf_counter()
        requests = self._requests(rows)
        retrieval_ms = (time.perf_counter() - started) * 1000 / max(len(rows), 1)
        return [_answer(reply, retrieval_ms) for reply in self.asker.ask(requests)]

    @property
    def offers_batches(self) -> bool:
        """Whether `answer_in_batch` can be used."""
        return batches.is_offered(self.asker.target)

    def answer_in_batch(self, rows: pd.DataFrame) -> list[Answer]:
        """As `answer`, through the provider's batch interface at its price; such answers have no latency."""
        price = self.price
        replies = batches.ask_in_batch(
            self.asker.target,
            self._requests(rows),
            store=self.work.store,
            meter=self.asker.meter,
            price=(lambda usage: price.usd(usage, batch=True)) if price else _free,
            jobs=self.work.home / "batches.db",
        )
        return [_answer(reply, 0.0) for reply in replies]

    def _requests(self, rows: pd.DataFrame) -> list[Request]:
        rendered = messages(self.work, self.candidate, list(rows["text"]))
        task, prompt = self.work.use_case.task, self.candidate.prompt
        is_constrained = prompt is not None and prompt.constrained
        return [
            Request(
                row_id=row_id,
                messages=tuple(Message(turn.role, turn.content) for turn in turns),
                max_tokens=self.work.use_case.traffic.output_tokens,
                choices=task.answers if is_constrained else None,
                json_schema=task.json_schema if is_constrained and task.kind == "extraction" else None,
                wants_confidence=self._confident,
            )
            for row_id, turns in zip(rows["id"], rendered, strict=True)
        ]

    def repeated(self, rows: pd.DataFrame, samples: int, temperature: float) -> list[list[Answer]]:
        """Several answers to each row, sampled at this temperature."""
        wanted = [
            replace(request, temperature=temperature, sample=sample)
            for request in self._requests(rows)
            for sample in range(1, samples + 1)
        ]
        answers = [_answer(reply, 0.0) for reply in self.asker.ask(wanted)]
        return [answers[at : at + samples] for at in range(0, len(answers), samples)]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """The very same requests once more; kept apart from the first answers, so that a rerun asks no third time."""
        return [
            _answer(reply, 0.0) for reply in self.asker.ask([replace(each, sample=1) for each in self._requests(rows)])
        ]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """Every answer already came over HTTP."""
        return [a.latency_ms for a in answers if a.text is not None and a.latency_ms is not None]


def _answer(reply: Reply, retrieval_ms: float) -> Answer:
    if reply.error:
        return Answer(None, None, 0.0, error=reply.error)
    return Answer(
        text=reply.text,
        latency_ms=reply.latency_ms + retrieval_ms,
        usd=reply.usd,
        input_tokens=reply.input_tokens,
        cached_tokens=reply.cached_tokens,
        output_tokens=reply.output_tokens,
        from_store=reply.from_store,
        confidence=reply.confidence,
    )


def messages(work: Workspace, candidate: Candidate, texts: list[str]) -> list[tuple[Turn, ...]]:
    """The messages of every text, with what is retrieved for it, as far as the model's context goes."""
    return [each.turns for each in prompted(work, candidate, texts)]


def open_asker(work: Workspace, candidate: Candidate, stack: ExitStack, payer: Payer | None = None) -> inference.Asker:
    """A client of the candidate's endpoint; for open weights without one, of a server started here."""
    stage, purpose = payer or Payer(candidate.stage, "evaluation")
    price = price_of(work, candidate)
    model = work.model(candidate.model)
    revision = candidate.revision + (candidate.weights.revision if candidate.weights else "")
    if model.is_open and not model.base_url:
        endpoint = stack.enter_context(candidate_servers.causal_server(work, candidate))
        target = Target.served(endpoint, candidate.model, revision)
    else:
        # Open weights behind somebody's own endpoint often need no key, and clients refuse to start without one.
        key = os.environ.get("OPENAI_API_KEY", "none") if model.is_open else None
        target = Target(
            candidate.model, revision, base_url=model.base_url, api_key=key, provider_cache=candidate.cache.provider
        )
    asker = inference.Asker(
        target,
        store=work.store,
        price=price.usd if price else _free,
        meter=work.meter(stage, purpose) if price and candidate.venue == "api" else None,
        concurrency=work.use_case.traffic.concurrency,
        warm_first=candidate.cache.provider,
    )
    return stack.enter_context(asker)


def _free(usage: Usage) -> float:
    return 0.0


class TrainedAnswerer:
    """Trained weights: answers in process in batches, and apart from that over HTTP for the latency."""

    def __init__(self, work: Workspace, candidate: Candidate, stack: ExitStack, confident: bool = False) -> None:
        self.work, self.candidate, self.stack, self._confident = work, candidate, stack, confident
        self.price = price_of(work, candidate)
        self.usd_worst_case = worst_case_usd_of(work, candidate, self.price)
        self.fixed_usd_per_request = fixed_usd_per_request(work.use_case, candidate.venue, None)
        self._http: ServedAnswerer | None = None

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Greedy answers in the order of the rows; kept, so that a rerun computes none again."""
        rendered = messages(self.work, self.candidate, list(rows["text"]))
        return [self._priced(answer) for answer in self._generated(rendered)]

    def label_probabilities(self, rows: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
        """How likely each of these labels is the answer, shape (rows, labels), rows sum to 1; nothing is kept."""
        return label_likelihood.label_probabilities(self._generator, self._prompts(rows), labels)

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """Answers generated anew whatever is stored, in batches of another size: rounding may depend on a row's company."""
        prompts, limit = self._prompts(rows), self.work.use_case.traffic.output_tokens
        if self._confident:
            told = self._generator.confident(prompts, limit, batch_size=8)
            return [Answer(text, None, 0.0, from_store=True, confidence=sure) for text, sure in told]
        texts = self._generator.answer(prompts, limit, batch_size=8)
        return [Answer(text, None, 0.0, from_store=True) for text in texts]

    def _prompts(self, rows: pd.DataFrame) -> list[str]:
        chats = [
            [turn.model_dump() for turn in turns] for turns in messages(self.work, self.candidate, list(rows["text"]))
        ]
        return [format_chat(self._base, chat) for chat in chats]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """The same requests over HTTP at the traffic's concurrency, from the server the venue would run."""
        if self._http is None:
            self._http = ServedAnswerer(self.work, self.candidate, self.stack, confident=self._confident)
        return self._http.timed(rows, self._http.answer(rows))

    @cached_property
    def _base(self) -> Path:
        return weights.materialize(self.candidate.model, self.work.home)

    @cached_property
    def _generator(self) -> Any:
        assert self.candidate.weights is not None
        adapter = storage.fetch(self.candidate.weights.uri, self.work.home / "fetched")
        return causal_model.Generator(self._base, adapter, threads=THREADS)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._base)

    def _generated(self, rendered: list[tuple[Turn, ...]]) -> list[StoredAnswer]:
        assert self.candidate.weights is not None
        limit, store = self.work.use_case.traffic.output_tokens, self.work.store
        chats = [[turn.model_dump() for turn in turns] for turns in rendered]
        keys = [
            answer_key(
                model=self.candidate.model,
                revision=self.candidate.revision,
                weights=self.candidate.weights.revision,
                messages=chat,
                max_tokens=limit,
                engine="in process, confident" if self._confident else "in process",
            )
            for chat in chats
        ]
        known = store.get_many(keys)
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            prompts = [format_chat(self._base, chats[i]) for i in missing]
            told = (
                self._generator.confident(prompts, limit) if self._confident else self._generator.answer(prompts, limit)
            )
            for i, prompt, answer in zip(missing, prompts, told, strict=True):
                text, sure = answer if isinstance(answer, tuple) else (answer, None)
                usage = Usage(
                    input_tokens=len(self._tokenizer.encode(prompt)),
                    output_tokens=len(self._tokenizer.encode(text)) + 1,
                )
                known[keys[i]] = stored_now(text, "stop", usage, 0.0, 0.0, sure)
                store.put(keys[i], known[keys[i]])
        return [known[key] for key in keys]

    def _priced(self, stored: StoredAnswer) -> Answer:
        # In process nothing is bought: the dollars are what the venue would bill, for the cost requirement.
        usage = stored.usage
        usd = self.price.usd(usage) if self.price else 0.0
        return Answer(
            stored.text,
            None,
            usd,
            usage.input_tokens,
            0,
            usage.output_tokens,
            from_store=True,
            confidence=stored.confidence,
        )


class StudentAnswerer:
    """A distilled encoder behind the MLflow model server, one text a request, at the traffic's concurrency."""

    def __init__(self, work: Workspace, candidate: Candidate, stack: ExitStack) -> None:
        self.work, self.candidate = work, candidate
        self.price = price_of(work, candidate)
        self.usd_worst_case = self.price.worst_case_usd(512, 1) if self.price else 0.0
        self.endpoint = stack.enter_context(candidate_servers.student_server(work, candidate))
        self._tokenizer.encode("loaded before requests are timed, and by one thread")
        self.requests_per_s = self._measure_speed()
        self.fixed_usd_per_request = fixed_usd_per_request(work.use_case, candidate.venue, self.requests_per_s)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Labels and latency over HTTP, one request a row."""
        with ThreadPoolExecutor(self.work.use_case.traffic.concurrency) as pool:
            return list(pool.map(self._ask, rows["text"]))

    again = answer  # a student's answers are not stored: each is asked for anew

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        """Every answer already came over HTTP."""
        return [a.latency_ms for a in answers if a.text is not None and a.latency_ms is not None]

    def _ask(self, text: str) -> Answer:
        try:
            reply = ask_student(self.endpoint, [text], column="text")
        except (RuntimeError, OSError) as error:
            return Answer(None, None, 0.0, error=str(error))
        usage = Usage(input_tokens=len(self._tokenizer.encode(text)), output_tokens=1)
        usd = self.price.usd(usage) if self.price else 0.0
        label = str(reply.predictions[0]["label"])
        sure, energy = (float(reply.predictions[0][name]) for name in ("confidence", "energy"))
        return Answer(
            label, reply.latency_ms, usd, usage.input_tokens, 0, 1, from_store=True, confidence=sure, energy=energy
        )

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        assert self.candidate.weights is not None
        return AutoTokenizer.from_pretrained(storage.fetch(self.candidate.weights.uri, self.work.home / "fetched"))

    def _measure_speed(self) -> float:
        """Requests a second at the traffic's concurrency, on gate rows, after a warm-up."""
        texts = list(self.work.tables.need("gate")["text"].head(60))
        self._ask(texts[0])
        started = time.perf_counter()
        with ThreadPoolExecutor(self.work.use_case.traffic.concurrency) as pool:
            list(pool.map(self._ask, texts))
        return len(texts) / (time.perf_counter() - started)


def shots(work: Workspace, rows: pd.DataFrame, count: int) -> tuple[Shot, ...]:
    """Fixed few-shot examples: the first row of each label in turn, in the order of the table; without labels the first rows."""
    if work.use_case.task.answers is None:
        first = rows.head(count)
        return tuple(
            shot(work, str(text), str(label)) for text, label in zip(first["text"], first["label"], strict=True)
        )
    taken: list[Shot] = []
    for depth in range(count):
        for _, group in rows.groupby("label", sort=True):
            if len(taken) < count and depth < len(group):
                row = group.iloc[depth]
                taken.append(shot(work, str(row["text"]), str(row["label"])))
        if len(taken) >= count:
            break
    return tuple(taken)
