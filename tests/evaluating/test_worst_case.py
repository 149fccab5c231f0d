"""No stage costs more than it may cost at worst: the evaluation's own code over use cases of all kinds, every call
rendered as it would be sent and billed by its bytes, which is the most a byte-level tokenizer makes of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leastwise.answering.answerer import Answerer, PlainAnswerer, measured_capacity
from leastwise.answering.asked import asked_of
from leastwise.answering.cascade import CascadeAnswerer
from leastwise.answering.exact_cache import ExactCache
from leastwise.answering.prompts import _Context, shot
from leastwise.answering.retrieval import Hit
from leastwise.answering.served import UNDER_LOAD
from leastwise.endpoints.request import Message, Request, Target, most_usage, request_key
from leastwise.evaluating.confirmation import measure_all
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import CachePolicy, Candidate, Prompt, Weights
from leastwise.metrics.answer import Answer
from leastwise.models.catalogue import Catalogue
from leastwise.models.weights import tokenizer_dir
from leastwise.money import PriceBook
from leastwise.money.capacity import Load
from leastwise.money.machine_cost import worst_machines_usd
from leastwise.money.worst_cost import BYTES_PER_OUTPUT_TOKEN, CASCADE_DEV_ROWS, worst_costs
from leastwise.progress import NoDisplay
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.judge import GRADE_TOKENS
from leastwise.use_case.model import Venue
from leastwise.use_case.prompts import trained_prompt
from leastwise.use_case.task import completion_of
from tasks.prompt import prompt_candidates

ALPHAS = Alphas(0.001, 0.001)  # so strict that evaluations go on to their last row
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TASKS: dict[str, dict[str, Any]] = {
    "label": {"instruction": "Yes or no?", "labels": ["yes", "no"], "decline_label": "none"},
    "record": {"kind": "extraction", "instruction": "Extract.", "json_schema": SCHEMA},
    "text": {"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"},
}
EXPECTED = {"label": "yes", "record": '{"a": "x"}', "text": '["x"]'}
TEXTS = st.text(alphabet=st.sampled_from('ab c1"\n\\\u00e9\u4e2d\U0001f600'), min_size=1, max_size=120)
BOOK = PriceBook.model_validate({"as_of": "2026-11-01"})


class Given(Tables):
    """Tables that are in no file."""

    def __init__(self, use_case: UseCase, frames: dict[str, pd.DataFrame]) -> None:
        super().__init__(use_case)
        self._whole = dict(frames)
        self.__dict__["hashes"] = {name: f"{len(name):02x}" * 32 for name in frames}

    def _read(self, name: str) -> pd.DataFrame | None:
        return self._whole.get(name)


@dataclass
class Bought:
    """What was sent, each request once, and what it came to."""

    keys: set[str] = field(default_factory=set)
    usd: float = 0.0
    home: Path = field(default_factory=lambda: Path(mkdtemp()))

    def ask(self, target: Target, request: Request, price: Callable[..., float], place: str = "") -> float:
        """Dollars of a request; nothing for one that was sent before, from the same place."""
        key = f"{request_key(target, request)} from {place}"
        if key in self.keys:
            return 0.0
        self.keys.add(key)
        usd = price(most_usage(request))
        self.usd += usd
        return usd


class Teller(PlainAnswerer):
    """A model behind an endpoint whose tokenizer knows bytes alone; it says the same of every text, unsurely."""

    def __init__(
        self, question: Question, catalogue: Catalogue, candidate: Candidate, bought: Bought, confident: bool = False
    ) -> None:
        self.question, self.candidate, self.bought, self.confident = question, candidate, bought, confident
        self.catalogue = catalogue
        self.context, self.price = (
            _Context(catalogue, candidate, lambda uri: tokenizer_dir(uri, catalogue.home)),
            catalogue.price(candidate.model),
        )
        self.usd_worst_case = 1e9
        self.target = Target(candidate.model, provider_cache=candidate.cache.provider)

    @property
    def fixed_usd_per_request(self) -> float:
        return 0.0 * self.capacity.requests_per_s if self.candidate.venue == "self_host" else 0.0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        return [self._one(request) for request in self._requests(rows)]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        return [self._one(replace(request, sample=1)) for request in self._requests(rows)]

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        asked = self._requests(rows)
        return [
            [self._one(replace(each, temperature=temperature, sample=at + 1)) for at in range(count)] for each in asked
        ]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """What was not timed where it is to answer is sent once more, and its first answer stays (`Asker.time`)."""
        for request in self._requests(rows):
            self._one(request, again_at=self.candidate.venue)
        return [answer.latency_ms for answer in answers]

    @property
    def capacity(self) -> Load:
        """The real loops of rising concurrency, on a machine that no load slows down."""
        parts = {"gate": self.question.gate, "catalogue": self.catalogue, "home": self.bought.home}
        work = SimpleNamespace(use_case=self.question.use_case, **parts)
        return measured_capacity(work, self.candidate, self._under_load)  # type: ignore[arg-type]

    def _under_load(self, rows: pd.DataFrame, concurrency: int) -> list[float | None]:
        return [self._one(replace(each, sample=UNDER_LOAD + concurrency)).latency_ms for each in self._requests(rows)]

    def _one(self, request: Request, again_at: str = "") -> Answer:
        """Asked once, and once in each place where it is timed; billed where the catalogue says it is."""
        is_metered = self.catalogue.is_metered(self.candidate)
        price = self.price.usd if is_metered else lambda usage: 0.0
        before = self.bought.keys.copy()
        usd = self.bought.ask(self.target, request, price, again_at or self.candidate.venue)
        known = self.bought.keys == before
        said = ("yes " * 3)[: BYTES_PER_OUTPUT_TOKEN * request.max_tokens]  # no longer than its cap allows
        return Answer(said, 10.0, usd, from_store=known, confidence=0.5 if self.confident else None)

    def _requests(self, rows: pd.DataFrame) -> list[Request]:
        use_case, prompt = self.question.use_case, self.candidate.prompt
        assert prompt is not None
        constrained, task = prompt.constrained, use_case.task
        return [
            Request(
                row_id=row_id,
                messages=tuple(Message(turn.role, turn.content) for turn in self._turns(text)),
                max_tokens=use_case.traffic.output_tokens,
                choices=task.answers if constrained else None,
                json_schema=task.json_schema if constrained and task.kind == "extraction" else None,
                wants_confidence=self.confident,
            )
            for row_id, text in zip(rows["id"], rows["text"], strict=True)
        ]

    def _turns(self, text: str) -> Sequence[Any]:
        """Retrieval finds whatever it finds."""
        use_case, tables = self.question.use_case, self.question.tables
        if self.candidate.stage not in ("rag", "self_host") and not self.candidate.weights:
            return self.context.fitted(text, [], []).turns
        drawn, settings_ = random.Random(text), use_case.retrieval
        train, documents = tables.get("train"), tables.get("documents")
        is_bare = train is None or self.candidate.weights is not None
        examples = [] if is_bare else list(zip(train["text"], train["label"], strict=True))
        found = [] if documents is None else [Hit("d", each, None, 1.0) for each in documents["text"]]
        shots = [shot(use_case.task, *each) for each in drawn.sample(examples, min(len(examples), settings_.examples))]
        return self.context.fitted(text, shots, drawn.sample(found, min(len(found), settings_.documents))).turns


class GuardedTeller(Teller):
    """One behind a guard: it tells a confidence, and a guard is not sampled."""

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        return []


class Grader(ExactScorer):
    """A judge behind the same kind of endpoint."""

    def __init__(self, question: Question, bought: Bought, price: Callable[..., float]) -> None:
        super().__init__(question.use_case.task)
        self.question, self.bought, self.price_of = question, bought, price
        self.sent: list[Request] = []

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Any]:
        judge, task = self.question.use_case.judge, self.question.use_case.task
        for text, label, answer in (
            zip(rows["text"], rows["label"], answers, strict=True) if judge and is_labelled else ()
        ):
            assert judge is not None
            said = judge.message(text, answer.text or "", completion_of(task, label))
            messages = (Message("system", judge.system(task.instruction)), Message("user", said))
            request = Request("r", messages, GRADE_TOKENS, choices=judge.choices)
            self.sent.append(request)
            self.bought.ask(Target("anthropic:judge"), request, self.price_of)
        return super().score(rows, answers, is_labelled)


def frame(texts: Sequence[str], label: str, name: str) -> pd.DataFrame:
    unique = [f"{text}{at}" for at, text in enumerate(texts)]
    return pd.DataFrame({"id": [f"{name}{at}" for at in range(len(texts))], "text": unique, "label": label})


@st.composite
def questions(draw: st.DrawFn, judges: bool = False) -> Question:
    kind = "text" if judges else draw(st.sampled_from(sorted(TASKS)))
    rows = {name: draw(st.lists(TEXTS, min_size=2, max_size=12)) for name in ("gate", "test", "train", "dev")}
    tables = ("documents", "shifted", "traffic", "unlabelled")
    more = {name: draw(st.lists(TEXTS, min_size=1, max_size=6)) for name in tables}
    frames = {name: frame(texts, EXPECTED[kind], name) for name, texts in (rows | more).items()}
    frames["traffic"] = pd.concat([frames["traffic"]] * 2, ignore_index=True)
    if draw(st.booleans()):
        frames["traffic"]["label"] = None
    worded = frame(rows["gate"][:2], EXPECTED[kind], "gate")
    frames["paraphrases"] = worded.assign(text=["p" * 40, "q"])
    required = {name: {"bound": 0.5, "margin": 0.2} for name in ("quality", "shift_quality", "adherence")}
    if kind == "label":
        frames["out_of_scope"] = frame(draw(st.lists(TEXTS, min_size=1, max_size=6)), "", "o")
        required["ood_decline"] = {"bound": 0.5, "margin": 0.2}
    prices = st.builds(
        lambda one, two, tier: (
            {"input": one, "output": two, "cache_write": 1.25 * one}
            | ({"tiers": [{"above_input_tokens": tier, "input": 3 * one, "output": 2 * two}]} if tier else {})
        ),
        *[st.floats(0.01, 20)] * 2,
        st.sampled_from([0, 200, 900]),
    )
    models = [
        {
            "uri": f"{draw(st.sampled_from(['openai:m', 'hf://o/m']))}{at}",
            "base_url": "https://third.example/v1",  # somebody's, wherever it is said to be
            "venue": draw(st.sampled_from(["api", "self_host"])),
            "price": draw(prices),
            "context_tokens": draw(st.sampled_from([900, 4000])),
        }
        for at in range(draw(st.integers(1, 3)))
    ]
    base = {
        "uri": "hf://o/base",
        "base_url": "https://third.example/v1",
        "venue": draw(st.sampled_from(["api", "managed"])),
        "price": draw(prices),
        "context_tokens": 4000,
    }
    if draw(st.booleans()):
        required["p95_latency_ms"] = {"bound": 10_000.0, "margin": 100.0}
    judge = {"models": [{"uri": "anthropic:judge", "price": draw(prices)}], "criteria": "Good."}
    case = {
        "name": "worst",
        "search": {"rows": 0},  # what a search may cost is its own limit (test_search.py)
        "task": TASKS[kind],
        "data": {name: f"{name}.csv" for name in frames},
        "requirements": required | {"usd_per_1k_requests": {"bound": 1.0, "margin": 0.5}},
        "traffic": {"requests_per_month": 1000, "output_tokens": draw(st.integers(1, 60))},
        "models": {"candidates": models, "base": base, "embedder": "package://e", "student": "package://e"},
        "retrieval": {"fixed_examples": draw(st.integers(0, 4)), "examples": 3, "documents": draw(st.integers(0, 3))},
        "consistency": draw(st.sampled_from([None, {"rows": 10, "samples": 3}])),
        "judge": judge if judges or (kind == "text" and draw(st.booleans())) else None,
        "confirm_rows": draw(st.integers(1, 20)),
        "training": draw(st.sampled_from([{}, {"usd_per_hour": 3.0}, {"usd_per_hour": 3.0, "teacher_labels": 100}])),
    }
    use_case = UseCase.model_validate(case)
    return Question(use_case, Given(use_case, frames))


class Spending:
    """A stage of a question, asked of the last row."""

    def __init__(self, question: Question) -> None:
        self.question, self.catalogue = question, Catalogue(question.use_case, BOOK, Path("nowhere"))
        judge_price = self.catalogue.judge_price()
        self.bought = Bought()
        self.scorer = Grader(question, self.bought, judge_price.usd if judge_price else lambda usage: 0.0)
        self.candidates = prompt_candidates(self)  # type: ignore[arg-type]  # of a workspace it takes these parts

    @property
    def use_case(self) -> UseCase:
        return self.question.use_case

    @property
    def tables(self) -> Tables:
        return self.question.tables

    def teller(self, candidate: Candidate, confident: bool = False) -> Teller:
        return Teller(self.question, self.catalogue, candidate, self.bought, confident)

    def measure(self, candidate: Candidate, answerer: Answerer) -> None:
        evaluate(self.use_case, candidate, answerer, Inputs.of(self.question, candidate.stage), ALPHAS, self.scorer)

    def confirm(self, answerer: Answerer) -> None:
        rows = self.question.test_rows()
        assert rows is not None
        measure_all(answerer, rows, self.scorer, NoDisplay())

    def pair(self) -> tuple[Candidate, Candidate] | None:
        plain = [each for each in self.candidates if each.prompt and not each.prompt.constrained]
        return (plain[0], plain[-1]) if len(plain) > 1 and self.use_case.offers_cascades else None

    def prompt(self) -> None:
        for each in self.candidates:
            self.measure(each, self.teller(each))
        pair = self.pair()
        winner: Answerer = self.teller(self.candidates[-1])
        if pair:
            dev = self.question.tables.need("dev").head(CASCADE_DEV_ROWS)
            first, then = (self.teller(each, confident=True) for each in pair)
            first.answer(dev)
            then.answer(dev)
            winner = CascadeAnswerer(first, self.teller(pair[1]), 0.9)
            self.measure(pair[1], winner)
        self.confirm(winner)

    def rag(self) -> None:
        asked = [each.model_copy(update={"stage": "rag", "prompt": _bare(each.prompt)}) for each in self.candidates]
        for each in asked:
            self.measure(each, self.teller(each))
        winner: Answerer = self.teller(asked[-1])
        if self.use_case.offers_guards:
            behind = asked[-1].model_copy(update={"parent": asked[-1].key})
            winner = guarded = GuardedTeller(self.question, self.catalogue, behind, self.bought, confident=True)
            guarded.answer(self.question.tables.need("dev").head(self.use_case.guard.dev_rows))
            self.measure(asked[-1], guarded)
        self.confirm(winner)

    def cache(self) -> None:
        policy = {"stage": "cache", "cache": CachePolicy(provider=True, exact=True)}
        first, then = ((each.model_copy(update=policy)) for each in (self.pair() or (self.candidates[-1],) * 2))
        inner = CascadeAnswerer(self.teller(first, confident=True), self.teller(then), 0.9)
        with ExitStack() as stack:
            cached = ExactCache(inner if self.pair() else self.teller(then), then, 1.0, stack)
            self.measure(then, cached)
            self.confirm(cached)

    def tuned(self, stage: Stage) -> Candidate:
        """Weights of this stage behind their short prompt; a student is never an api."""
        base, weights = self.catalogue.base(), Weights(kind="adapter", uri="file:///a", revision="r")
        venue: Venue = "managed" if stage == "distill" else base.venue
        prompt = Prompt(system=trained_prompt(self.use_case))
        return Candidate(stage=stage, model=base.uri, venue=venue, prompt=prompt, weights=weights)

    def fine_tune(self) -> None:
        tuned = self.tuned("fine_tune")
        self.measure(tuned, self.teller(tuned))
        if self.use_case.offers_guards:
            self.measure(tuned, self.teller(tuned, confident=True))  # asked for its confidence: other requests
        self.confirm(self.teller(tuned))

    pretrain = fine_tune

    def distill(self) -> None:
        """The best candidate labels, and a student that is sure of nothing hands on to it, or to trained weights."""
        then = self.candidates[-1]
        labelled = self.tables.need("unlabelled").assign(label=None)
        labelled = labelled.head(self.use_case.training.teacher_labels)
        teacher = self.teller(then.model_copy(update={"stage": "rag", "prompt": _bare(then.prompt)}))
        teacher.answer(labelled)
        if not self.use_case.offers_cascades:
            return
        dear: Answerer = teacher
        if self.use_case.confirm_rows % 2:
            dear = self.teller(self.tuned("fine_tune"))  # who teaches is trained
        else:
            self.teller(teacher.candidate, confident=True).answer(self.tables.need("dev").head(CASCADE_DEV_ROWS))
        cascade = CascadeAnswerer(self.teller(self.tuned("distill")), dear, 0.9)
        self.measure(then, cascade)
        self.confirm(cascade)

    def self_host(self) -> None:
        open_ones = [each for each in self.candidates if each.model.startswith("hf://")]
        for each in open_ones[-1:]:
            asked_beside = {"prompt": _bare(each.prompt)}  # what is retrieved stands in place of fixed examples
            hosted = each.model_copy(update={"stage": "self_host", "venue": "self_host", **asked_beside})
            winner: Answerer = self.teller(hosted)
            pair = self.pair()
            if pair and pair[1].model == each.model:
                winner = CascadeAnswerer(self.teller(pair[0], confident=True), winner, 0.9)
            winner.answer(self.question.gate.rows.head(1))  # the smoke test
            self.measure(hosted, winner)
            self.confirm(winner)


def _bare(prompt: Prompt | None) -> Prompt:
    assert prompt is not None
    return prompt.model_copy(update={"shots": ()})


@pytest.mark.parametrize("stage", LADDER)
@settings(
    max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.generate)
)
@given(questions())
def test_no_stage_costs_more_than_it_may_at_worst(stage: Stage, question: Question) -> None:
    spending = Spending(question)
    catalogue, use_case = spending.catalogue, question.use_case
    prices = catalogue.billed_prices(), catalogue.base_price()
    worst = worst_costs(use_case, *prices, asked_of(question), catalogue.billed_judge_price())[stage]
    calls = worst - worst_machines_usd(use_case, stage)
    getattr(spending, stage)()
    assert spending.bought.usd <= calls * (1 + 1e-9)
    if stage in ("prompt", "rag", "cache"):
        times = 12 if question.judged_beside_traffic is None else 40  # a format that fails leaves gate rows unasked
        assert 0 < calls <= times * _spread(use_case, stage) * spending.bought.usd  # a bound, not a fright


def _spread(use_case: UseCase, stage: Stage) -> float:
    """How many times dearer than the cheapest model the dearest is: a cache asks one, and which is not known before."""
    prices = [model.price for model in use_case.models.candidates if model.price]
    if stage != "cache":
        return 1.0
    return max(max(each) / min(each) for each in ([p.input for p in prices], [p.output for p in prices]))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,))
@given(questions(judges=True))
def test_no_grade_is_longer_than_the_worst_case_takes_it_to_be(question: Question) -> None:
    spending, asked = Spending(question), asked_of(question)
    spending.fine_tune()
    answer = BYTES_PER_OUTPUT_TOKEN * question.use_case.traffic.output_tokens
    for request in spending.scorer.sent:
        read = json.loads(request.messages[1].content)
        text = len(json.dumps(read["input"], ensure_ascii=False).encode()) - 2
        around = most_usage(request).input_tokens - text - len(read["answer"])
        assert around <= asked.judge + asked.references and len(read["answer"]) <= answer
        assert text <= asked.escaped * len(read["input"].encode()) + 1e-9
    assert spending.scorer.sent
