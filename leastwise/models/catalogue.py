"""The models of a use case: what is said of each, what a token of it costs, and the content of open weights.

It asks no model and spends nothing. A model nobody has priced is an error, never free.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models import encoder, weights
from leastwise.money import PriceBook
from leastwise.money.retirement import retirement_warnings
from leastwise.use_case import UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import Price


def priced(use_case: UseCase, book: PriceBook) -> UseCase:
    """The use case with the price book's dollars an hour of its training GPUs, where it names them and no price."""
    training = use_case.training
    if training.gpu is None or training.usd_per_hour:
        return use_case
    usd_per_hour = book.gpu_usd_per_hour(training.gpu) * training.launch.processes
    return use_case.model_copy(update={"training": training.model_copy(update={"usd_per_hour": usd_per_hour})})


@dataclass(frozen=True)
class Catalogue:
    """The models a use case may draw on and the price book; `home` is where weights are kept."""

    use_case: UseCase
    book: PriceBook
    home: Path

    def model(self, uri: str) -> Model:
        """What the use case says of a model; further pre-trained weights inherit from the base."""
        models, judge = self.use_case.models, self.use_case.judge
        listed = [*models.candidates, *filter(None, [models.base]), *(judge.models if judge else ())]
        named = next((model for model in listed if model.uri == uri), None)
        return named or (models.base or listed[0]).model_copy(update={"uri": uri})

    def base(self) -> Model:
        """The open weights to train; BadInput where the use case names none."""
        if self.use_case.models.base is None:
            raise BadInput(f"models.base: is not set in {self.use_case.name}; name open weights to train")
        return self.use_case.models.base

    def base_dir(self) -> Path:
        """The directory of the weights to train."""
        return weights.materialize(self.base().uri, self.home)

    def price(self, uri: str) -> Price:
        """Dollars per million tokens: the use case's own, else the price book's; UnknownPrice where neither has one."""
        return self.model(uri).price or self.book.price(uri)

    def price_in_venue(self, candidate: Candidate) -> Price | None:
        """Dollars per million tokens of a candidate where it answers; None where machines are paid instead."""
        if candidate.venue == "self_host":
            return None
        if candidate.venue == "managed" and candidate.weights and self.use_case.hosting.managed_price:
            return self.use_case.hosting.managed_price
        return self.price(candidate.model)

    def worst_case_usd(self, candidate: Candidate) -> float:
        """The most one request to a candidate may cost by its tokens; 0 where machines are paid instead."""
        price = self.price_in_venue(candidate)
        if price is None:
            return 0.0
        model, output = self.model(candidate.model), self.use_case.traffic.output_tokens
        return price.worst_case_usd(model.context_tokens - output, model.most_output_tokens(output))

    def retiring(self, today: date) -> tuple[str, ...]:
        """A sentence for every model named in the use case that is gone or going soon."""
        models, judge = self.use_case.models, self.use_case.judge
        named = [*models.candidates, *filter(None, [models.base]), *(judge.models if judge else ())]
        return retirement_warnings((model.uri for model in named), self.book.retirements, today)

    def candidate_prices(self) -> dict[str, Price]:
        """The price of every model that may be prompted, by URI."""
        return {model.uri: self.price(model.uri) for model in self.use_case.models.candidates}

    def base_price(self) -> Price | None:
        """The price of the base; None without one."""
        base = self.use_case.models.base
        return self.price(base.uri) if base else None

    def judge_price(self) -> Price | None:
        """The price of the model that grades; None without one."""
        judge = self.use_case.judge_model
        return self.price(judge.uri) if judge else None

    def revision(self, uri: str) -> str:
        """Content hash of open weights; a provider's model has none of its own."""
        if uri in (self.use_case.models.embedder, self.use_case.models.student):
            return encoder.encoder_hash(encoder.embedder_dir(uri))
        return weights.revision(uri) if "://" in uri else ""

    def asked_revision(self, model: Model) -> str:
        """The revision of a model as it is asked: what an endpoint of somebody else's serves is not ours to hash."""
        return "" if model.base_url else self.revision(model.uri)

    @property
    def encoder(self) -> Path | None:
        """The embedding model's directory; None where the use case names no embedder."""
        uri = self.use_case.models.embedder
        return encoder.embedder_dir(uri) if uri else None

    @property
    def embeddings(self) -> Path:
        """Where vectors are kept."""
        return self.home / "embeddings"

    def check(self) -> None:
        """BadInput where a model that may be asked has no price, or open weights cannot be read."""
        asked = (*self.use_case.models.candidates, *filter(None, [self.use_case.judge_model]))
        for model in asked:
            self.price(model.uri)
        for uri in self._open_uris():
            self.revision(uri)

    def _open_uris(self) -> set[str]:
        models = self.use_case.models
        asked = (*models.candidates, *filter(None, [self.use_case.judge_model]))
        served_here = {model.uri for model in asked if model.is_open and not model.base_url}
        student = self.use_case.training.student
        own = student.uri if student.kind == "causal" else None
        named = (models.base.uri if models.base else None, models.embedder, models.student, own)
        return served_here | {uri for uri in named if uri}
