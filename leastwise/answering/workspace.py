"""What everything under one climb works with: the question, the models and prices, the money, the record, the answers.

It answers nothing and judges nothing. It is opened once by whoever starts something (see `tasks.session.workspace`)
and handed on; what needs one part of it takes that part.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from leastwise.answering.answerer import Answerer, Payer
from leastwise.answering.asked import asked_of
from leastwise.answering.distance import Distance
from leastwise.answering.retrieval import Index, open_index
from leastwise.answering.servers import GgufFiles, Safetensors, WeightsHere, why_not_vllm
from leastwise.content import content_key
from leastwise.engines.vllm import settings as vllm_settings
from leastwise.ladder.alphas import Alphas, alphas_of
from leastwise.ladder.candidate import Candidate, EngineName
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.progress import Display, NoDisplay
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.climb_run import ClimbRun
from leastwise.record.costing import Costing
from leastwise.record.handover.handover import Handover
from leastwise.record.handover.tables import handed_over
from leastwise.rows.question import JudgedRows, Question
from leastwise.rows.tables import Tables
from leastwise.stores.answer_store import Answers
from leastwise.stores.budget import Budget
from leastwise.stores.ledger import Meter
from leastwise.stores.made.naming import Made, is_made
from leastwise.use_case import UseCase


class Place(Protocol):
    """Where a candidate answers while it is measured, where that is not here."""

    @property
    def name(self) -> tuple[str, ...]:
        """What is said of it in the key of a stage that is measured there."""
        ...

    def serving(self, candidate: Candidate) -> AbstractContextManager[Answerer]:
        """Who answers for the candidate there, for as long as the block lasts; Outage or CannotBeAsked with the
        reason where nobody does.
        """
        ...


@dataclass(frozen=True)
class Workspace:
    """The parts of one climb (or of an upkeep run that measures)."""

    question: Question
    catalogue: Catalogue
    budget: Budget
    run: ClimbRun
    account: AlphaAccount
    answers: Answers
    home: Path
    display: Display = field(default_factory=NoDisplay)
    place: Place | None = None

    @property
    def use_case(self) -> UseCase:
        """What is asked for."""
        return self.question.use_case

    @property
    def tables(self) -> Tables:
        """Its rows."""
        return self.question.tables

    @cached_property
    def alphas(self) -> Alphas:
        """Error probabilities of every candidate of this climb; the first use draws on the gate set's account."""
        return alphas_of(self.use_case, self.account.draw(self.question, self.question.key, self.use_case.alpha))

    @cached_property
    def costing(self) -> Costing:
        """What its stages are expected to cost, as far as is known by now."""
        return Costing(self.question, self.catalogue, lambda: asked_of(self.question), lambda: self.alphas, self.run)

    def need_parent(self) -> Candidate:
        """The best candidate so far; RuntimeError where no stage was evaluated yet."""
        parent = self.run.parent(self.use_case.gate_requirements)
        if parent is None:
            raise RuntimeError(f"climb {self.run.id} has no evaluated stage to start from")
        return parent

    @property
    def gate(self) -> JudgedRows:
        """The gate set in its order."""
        return self.question.gate

    @property
    def near(self) -> Distance | None:
        """The distance to this use case's examples; None where there are none, or nothing to embed them with."""
        train, encoder = self.tables.get("train"), self.catalogue.encoder
        if encoder is None or train is None:
            return None
        return Distance(tuple(train["text"]), encoder, self.catalogue.embeddings)

    def index(self, table: str, characters: int = 0) -> Index:
        """The index of the examples (`train`) or the documents, built and opened once for their content; documents in
        parts of so many characters, 0: whole.
        """
        encoder = self.catalogue.encoder
        assert encoder is not None
        key = content_key(table, self.question.key)
        rows, folder = partial(self.tables.need, table), self.home / "indexes"
        return open_index(key, rows, encoder, folder, self.catalogue.embeddings, characters)

    @cached_property
    def handover(self) -> Handover:
        """What was made, here or on another machine."""
        return Handover(self.run.client, self.home, self.use_case.training.whole_models)

    def hand_over(self, place: Path, folder: str) -> Made:
        """The name of what was made at a place of this machine; its files, or where they are published, are among
        those of the run, in this folder.
        """
        made = self.handover.hand_over(place.parent.name, place.name)
        if self.handover.is_shared:
            self.run.log_text(made.uri, f"{folder}/made.txt")
        else:
            self.run.log_file(place, folder)
        return made

    @cached_property
    def weights_here(self) -> WeightsHere:
        """Weights as this machine has them."""
        return WeightsHere(self.handover)

    @cached_property
    def recorded(self) -> UseCase:
        """The use case as every machine reads it."""
        return handed_over(self.run.client, self.use_case)

    def local(self, uri: str, revision: str = "") -> str:
        """A URI as this machine has it: what was made is brought here, any other URI stays as it is."""
        return self.weights_here.local(uri, revision)

    def revision(self, uri: str) -> str:
        """What pins open weights: their content, also of those that were made."""
        if is_made(uri):
            return weights.directory_hash(self.handover.path(uri))
        return self.catalogue.revision(uri)

    def model_dir(self, uri: str, revision: str = "") -> Path:
        """The directory of open weights, those that were made too."""
        return self.weights_here.model_dir(uri, revision)

    def tokenizer(self, uri: str) -> Path:
        """The directory of a model's tokenizer."""
        return self.weights_here.tokenizer(uri)

    def gguf(self, candidate: Candidate) -> GgufFiles:
        """A candidate's weights for llama.cpp, converted once."""
        return self.weights_here.gguf(candidate)

    def safetensors(self, candidate: Candidate) -> Safetensors:
        """A candidate's weights as they are, for vLLM."""
        return self.weights_here.safetensors(candidate)

    def at_its_engine(self, candidate: Candidate) -> Candidate:
        """The same by the engine that this machine serves it with, and who is asked before it; what others serve and
        what needs no such engine stays as it is.
        """
        first = candidate.cascade.first if candidate.cascade else None
        if first and candidate.cascade:
            cascade = candidate.cascade.model_copy(update={"first": self.at_its_engine(first)})
            candidate = candidate.model_copy(update={"cascade": cascade})
        is_student = candidate.weights is not None and candidate.weights.kind == "student"
        engine: EngineName = "llama.cpp"
        if vllm_settings.named() and not is_student and self.catalogue.is_served_here(candidate):
            directory, context = self.safetensors(candidate).model, self.catalogue.model(candidate.model).context_tokens
            engine = "llama.cpp" if why_not_vllm(directory, context) else "vllm"
        return candidate if engine == candidate.engine else candidate.model_copy(update={"engine": engine})

    def trained(self, candidate: Candidate) -> Path:
        """The weights that a stage made for it, fetched where they are elsewhere."""
        return self.weights_here.trained(candidate)

    def meter(self, payer: Payer) -> Meter:
        """The caps that its calls are held to."""
        return self.budget.meter(payer.stage, payer.purpose)
