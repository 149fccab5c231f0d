"""The models of a use case: what is said of each, what a token of it costs, and the content of open weights.

It asks no model and spends nothing. A model nobody has priced is an error, never free.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from leastwise.errors import BadInput, Check, problems_of, refuse
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.needs import student_venue
from leastwise.models import encoder, weights
from leastwise.money import PriceBook
from leastwise.money.model_book import NO_DATES, ModelBook
from leastwise.money.price_book import UnknownPrice
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.habits import NO_HABITS, Reasoning, reasoning_tokens
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
    """The models a use case may draw on, the price book and the dates of models; `home` is where weights are kept."""

    use_case: UseCase
    book: PriceBook
    home: Path
    model_book: ModelBook = NO_DATES

    def model(self, uri: str) -> Model:
        """What the use case says of a model; weights that a stage made inherit from the base, but not its address."""
        listed, base = self._listed, self.use_case.models.base
        return self.named(uri) or _made_of(base or listed[0], uri)

    def named(self, uri: str) -> Model | None:
        """The model of that URI as the use case names it: a candidate, the base or a judge; None where it names
        none.
        """
        return next((model for model in self._listed if model.uri == uri), None)

    @property
    def _listed(self) -> list[Model]:
        models, judge = self.use_case.models, self.use_case.judge
        return [*models.candidates, *filter(None, [models.base]), *(judge.models if judge else ())]

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
        model, base = self.model(uri), self.use_case.models.base
        if model.price or base is None or model in self._listed:
            return model.price or self.book.price(uri)
        try:
            return self.book.price(uri)
        except UnknownPrice:  # weights that were made of the base's cost what the base costs
            return self.book.price(base.uri)

    def price_in_venue(self, candidate: Candidate) -> Price | None:
        """Dollars per million tokens of a candidate where it answers; None where machines are paid instead."""
        if candidate.venue == "self_host" and not self.is_metered(candidate):
            return None
        if candidate.venue == "managed" and candidate.weights and self.use_case.hosting.managed_price:
            return self.use_case.hosting.managed_price
        return self.price(candidate.model)

    def is_served_here(self, candidate: Candidate) -> bool:
        """Whether a server that is started here answers for it: open weights without an address, weights that a stage
        made (nobody has put them behind that address), and open weights that are to move from somebody's to our own.
        """
        model = self.model(candidate.model)
        moves = candidate.venue == "self_host" and model.venue != "self_host"
        return model.is_open and (not model.base_url or candidate.weights is not None or moves)

    def is_metered(self, candidate: Candidate) -> bool:
        """Whether its calls are paid one by one: all but those to a server of our own.

        One that is started here is metered only as an `api`, which it then stands in for; weights that a stage made
        are nobody's to sell.
        """
        if self.is_served_here(candidate):
            return candidate.venue == "api" and candidate.weights is None
        return candidate.venue != "self_host" or not _is_in_own_network(self.model(candidate.model))

    def may_teach(self, candidate: Candidate) -> bool:
        """Whether the terms of every model behind it allow training on its answers."""
        first = candidate.cascade.first if candidate.cascade else None
        return self.model(candidate.model).may_teach and (first is None or self.may_teach(first))

    def worst_case_usd(self, candidate: Candidate) -> float:
        """The most one request to a candidate may cost by its tokens; 0 where machines are paid instead."""
        price = self.price_in_venue(candidate)
        if price is None:
            return 0.0
        model, output = self.model(candidate.model), self.use_case.traffic.output_tokens
        thought = reasoning_tokens(self.effort(candidate))
        return price.worst_case_usd(model.context_tokens - output, output + thought)

    def effort(self, candidate: Candidate) -> Reasoning | None:
        """How much a candidate's model is told to think: what its prompt says, else what the use case says of the
        model; weights that a stage made are told nothing.
        """
        if candidate.weights:
            return None
        own = candidate.prompt.reasoning if candidate.prompt else None
        return self.model(candidate.model).reasoning if own is None else own

    def retiring(self, today: date) -> tuple[str, ...]:
        """A sentence for every model named in the use case that is gone or going soon, and for entries grown old."""
        return self.model_book.warnings((model.uri for model in self._listed), today)

    def going_before_payback(self, months: Mapping[Stage, float], today: date) -> tuple[str, ...]:
        """A sentence for every model that is prompted or trained and retires before stages are paid back, which takes
        so many months.
        """
        models = self.use_case.models
        uris = [model.uri for model in (*models.candidates, *filter(None, [models.base]))]
        return self.model_book.going_before_payback(uris, {str(stage): each for stage, each in months.items()}, today)

    def candidate_prices(self) -> dict[str, Price]:
        """The price of every model that may be prompted, by URI."""
        return {model.uri: self.price(model.uri) for model in self.use_case.models.candidates}

    def billed_prices(self) -> dict[str, Price]:
        """As `candidate_prices`, as it is billed: nothing for a model on a server of our own."""
        return {model.uri: self._billed(model) for model in self.use_case.models.candidates}

    def _billed(self, model: Model) -> Price:
        is_metered = self.is_metered(Candidate(stage="prompt", model=model.uri, venue=model.venue))
        return self.price(model.uri) if is_metered else Price(input=0.0, output=0.0)

    def billed_judge_price(self) -> Price | None:
        """As `judge_price`, as it is billed."""
        judge = self.use_case.judge_model
        return self._billed(judge) if judge else None

    def base_price(self) -> Price | None:
        """The price of the base; None without one."""
        base = self.use_case.models.base
        return self.price(base.uri) if base else None

    def judge_price(self) -> Price | None:
        """The price of the model that grades; None without one."""
        judge = self.use_case.judge_model
        return self.price(judge.uri) if judge else None

    def revision(self, uri: str) -> str:
        """Content hash of open weights; of a hosted model, what the use case calls its revision."""
        if uri in (self.use_case.models.embedder, self.use_case.models.student):
            return encoder.encoder_hash(encoder.embedder_dir(uri))
        hosted = next((model.revision for model in self._listed if model.uri == uri), "")
        return (weights.revision(uri) if "://" in uri else "") + hosted

    def asked_revision(self, model: Model) -> str:
        """The revision of a model as it is asked: what an endpoint of somebody else's serves is not ours to hash."""
        return model.revision if model.base_url else self.revision(model.uri)

    @property
    def encoder(self) -> Path | None:
        """The embedding model's directory; None where the use case names no embedder."""
        uri = self.use_case.models.embedder
        return encoder.embedder_dir(uri) if uri else None

    @property
    def embeddings(self) -> Path:
        """Where vectors are kept."""
        return self.home / "embeddings"

    def check_prices(self, stages: Collection[Stage]) -> None:
        """BadInput where a model that these stages may ask, now or of what they make, has no price."""
        models, asked = self.use_case.models, [*self.use_case.models.candidates, self.use_case.judge_model]
        trained = models.base if {"fine_tune", "pretrain"} & set(stages) else None
        prices: list[Check] = [partial(self.price, model.uri) for model in (*asked, trained) if model]
        if "distill" in stages:
            prices.append(self._student_price)
        refuse(problems_of([partial(_each_is_one_model, self.use_case.models.candidates, self._listed), *prices]))

    def _student_price(self) -> None:
        student, models = self.use_case.training.student, self.use_case.models
        uri = models.student if student.kind == "encoder" else student.uri or (models.base.uri if models.base else None)
        has_own = self.use_case.hosting.managed_price is not None or student_venue(self.use_case) != "managed"
        if uri is None or has_own:
            return
        try:
            self.price(uri)
        except UnknownPrice as error:
            raise BadInput(
                f"hosting.managed_price: distill's student would answer at a managed host, and there is no price "
                f"for it ({error}); give hosting.managed_price, or set last_stage before distill"
            ) from None

    def check_weights(self) -> None:
        """BadInput where open weights that may be used cannot be read."""
        refuse(problems_of(partial(self.revision, uri) for uri in sorted(self.open_uris())))

    def open_uris(self) -> set[str]:
        """The open weights a climb may read: to serve them here, to train them, to embed with."""
        models = self.use_case.models
        asked = (*models.candidates, *filter(None, [self.use_case.judge_model]))
        served_here = {model.uri for model in asked if model.is_open and not model.base_url}
        student = self.use_case.training.student
        own = student.uri if student.kind == "causal" else None
        named = (models.base.uri if models.base else None, models.embedder, models.student, own)
        return served_here | {uri for uri in named if uri}


def _made_of(base: Model, uri: str) -> Model:
    """Further pre-trained weights: nobody has put them behind the base's address, nor do its host's habits say anything
    of the server that will answer for them. Where they will answer in production is said by the base's host.
    """
    if not base.base_url:
        return base.model_copy(update={"uri": uri})
    elsewhere = {"base_url": None, "served_name": None, "key_variable": None, "habits": NO_HABITS}
    return base.model_copy(update={"uri": uri, "host": base.request_host, **elsewhere})


OWN_NETWORK = (".internal", ".local", ".lan", ".localdomain", ".svc", ".home.arpa", ".intranet", ".corp", ".test")


def _is_in_own_network(model: Model) -> bool:
    """Whether the address of a model is one that only the own network has."""
    host = (urlsplit(model.base_url).hostname or "") if model.base_url else ""
    try:
        return ip_address(host).is_private
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(OWN_NETWORK))


def _each_is_one_model(candidates: Sequence[Model], listed: Sequence[Model]) -> None:
    """A model is found by its URI, so two under one URI would be taken for the first: its address, price, reasoning."""
    for at, model in enumerate(candidates):
        first = next(each for each in candidates if each.uri == model.uri)
        if first is not candidates[at]:
            differing = [name for name in Model.model_fields if getattr(first, name) != getattr(model, name)]
            raise BadInput(
                f"models.candidates: {model.uri} is listed twice"
                + (f", with another {' and '.join(differing)}" if differing else "")
                + "; list it once, or give one another uri and, in served_name, the name its endpoint knows it by"
            )
    known: dict[str, Model] = {}
    for model in listed:
        first = known.setdefault(model.uri, model)
        if (first.base_url, first.revision) != (model.base_url, model.revision):
            raise BadInput(
                f"models: {model.uri} is named with two addresses or revisions ({first.base_url or 'none'} "
                f"{first.revision}, {model.base_url or 'none'} {model.revision}); give it one, or the other another uri"
            )
