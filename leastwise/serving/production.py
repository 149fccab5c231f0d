"""What a registered winner draws on while it answers: its own bundle, and nothing that a climb left elsewhere, but for
the answers and the money of whoever asks many rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from leastwise.answering.answerer import Payer
from leastwise.answering.bundle import contents as bundle
from leastwise.answering.bundle.opening import unpack
from leastwise.answering.distance import Distance, Gaussian
from leastwise.answering.retrieval import Index
from leastwise.answering.retrieval.looking_up import LookedUp
from leastwise.answering.servers import GgufFiles, Safetensors
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook
from leastwise.rows.question import JudgedRows
from leastwise.stores.answer_store import Answers, NoAnswers
from leastwise.stores.budget import Budget
from leastwise.stores.ledger import Meter
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price


@dataclass(frozen=True)
class PackedCatalogue(Catalogue):
    """The models of a use case with the embedder in the bundle, at the prices that were packed."""

    embedder_at: Path | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)

    def price(self, uri: str) -> Price:
        """What was packed: there is no price book here."""
        return self.prices.get(uri) or super().price(uri)

    @property
    def encoder(self) -> Path | None:
        """The embedding model's directory in the bundle; None where the winner embeds nothing."""
        return self.embedder_at


@dataclass(frozen=True)
class Production:
    """The surroundings of one winner. `folder` has all of its files; `home` is where its logs and small facts go."""

    folder: Path
    home: Path
    candidate: Candidate
    use_case: UseCase
    contents: bundle.Contents
    answers: Answers = field(default_factory=NoAnswers)
    budget: Budget | None = None

    @classmethod
    def of(cls, folder: Path, home: Path, answers: Answers | None = None, budget: Budget | None = None) -> Production:
        """Of a bundle whose every file is as it was packed; BadInput where it is not."""
        whole, candidate, use_case, contents = unpack(folder, home)
        return cls(whole, home, candidate, use_case, contents, NoAnswers() if answers is None else answers, budget)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The models of the use case at the prices that were packed."""
        book = PriceBook.model_validate({"as_of": "2026-01-01"})
        embedder = self.folder / "embedder"
        there = embedder if embedder.is_dir() else None
        return PackedCatalogue(self.use_case, book, self.home, embedder_at=there, prices=self.contents.prices)

    @property
    def gate(self) -> JudgedRows:
        """Nothing is measured in production: RuntimeError."""
        raise RuntimeError("a served winner is not measured")

    @cached_property
    def near(self) -> Distance | None:
        """The distance to the examples the guard was fitted on; None where the winner has no such guard."""
        file, encoder = self.folder / bundle.DISTANCE, self.catalogue.encoder
        if not file.exists() or encoder is None:
            return None
        with np.load(file, allow_pickle=False) as stored:
            return Distance((), encoder, fitted=Gaussian(stored["mean"], stored["precision"]))

    def index(self, table: str, characters: int = 0) -> Index:
        """The packed index of a table."""
        name = LookedUp(table, characters, 0).name
        packed, encoder = self.contents.indexes.get(name), self.catalogue.encoder
        if packed is None or encoder is None:
            raise BadInput(f"{self.folder}: holds no index of {name}; register the winner again")
        index = Index(str(self.folder / "indexes"), packed.key, packed.rows, encoder, is_packed=True)
        return self._indexes.setdefault(name, index)

    @cached_property
    def _indexes(self) -> dict[str, Index]:
        return {}

    def tokenizer(self, uri: str) -> Path:
        """The packed tokenizer of a model."""
        name = self.contents.tokenizers.get(uri)
        if name is None:
            raise BadInput(f"{self.folder}: holds no tokenizer of {uri}; register the winner again")
        return self.folder / name

    def gguf(self, candidate: Candidate) -> GgufFiles:
        """The packed weights of a candidate."""
        return bundle.gguf_of(self.folder, self.contents, candidate)

    def safetensors(self, candidate: Candidate) -> Safetensors:
        """The packed weights of a candidate that vLLM serves."""
        return bundle.safetensors_of(self.folder, self.contents, candidate)

    def trained(self, candidate: Candidate) -> Path:
        """The packed directory of what a stage trained."""
        revision = candidate.weights.revision if candidate.weights else ""
        name = self.contents.trained.get(revision)
        if name is None:
            raise BadInput(f"{self.folder}: holds no trained weights {revision}; register the winner again")
        return self.folder / name

    def meter(self, payer: Payer) -> Meter | None:
        """Nobody at an endpoint: what production spends is in the traffic log, and no cap ends an answer. Otherwise
        the caps of whoever asks.
        """
        return self.budget.meter(payer.stage, payer.purpose) if self.budget else None
