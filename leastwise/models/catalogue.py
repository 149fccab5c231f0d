"""The models of a use case: what is said of each, what a token of it costs, and the content of open weights.

It asks no model and spends nothing. A model nobody has priced is an error, never free.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from leastwise.errors import BadInput, Check, problems_of, refuse
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.needs import student_venue
from leastwise.models import encoder, weights
from leastwise.money import PriceBook
from leastwise.money.model_book import NO_DATES, ModelBook
from leastwise.money.price_book import UnknownPrice
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.habits import NO_HABITS, Reasoning, reasoning_tokens
from leastwise.use_case.hosts import is_in_own_network
from leastwise.use_case.model import Model, each_is_one_model
from leastwise.use_case.price import Price


@dataclass(frozen=True)
class Catalogue:
    """The models a use case may draw on, the price book and the dates of models; `home` is where weights are kept."""

    use_case: UseCase
    book: PriceBook
    home: Path
    model_book: ModelBook = NO_DATES

    def model(self, uri: str) -> Model:
        """What the use case says of a model; weights that a stage made inherit from the base, but not its address: it
        is the host's own where they were trained at one.
        """
        listed, base = self._listed, self.use_case.models.base
        if (managed := self.use_case.training.managed) and self.is_tuned(uri):
            return managed.base.model_copy(update={"uri": uri, "served_name": None})
        return self.named(uri) or _made_of(base or listed[0], uri)

    def is_tuned(self, uri: str) -> bool:
        """Whether that is a model which a host trained for a use case like this."""
        managed = self.use_case.training.managed
        return managed is not None and uri.startswith(managed.made)

    def named(self, uri: str) -> Model | None:
        """The model of that URI as the use case names it: a candidate, the base or a judge; None where it names
        none.
        """
        return next((model for model in self._listed if model.uri == uri), None)

    def reflecting(self) -> Model | None:
        """The model that rewrites instructions; None where none is to.

        BadInput where it is no model that the use case may ask, or nothing is searched for that it could add to.
        """
        use_case, uri = self.use_case, self.use_case.search.reflect
        if uri is None:
            return None
        model = next((each for each in use_case.models.candidates if each.uri == uri), None)
        if model is None:
            named = ", ".join(each.uri for each in use_case.models.candidates)
            raise BadInput(f"search.reflect: {uri} is none of models.candidates ({named}); name one, or add it there")
        if not use_case.may_be_sent_to(model):
            raise BadInput(
                f"search.reflect: residency does not allow {uri} ({model.venue}, {model.request_host or 'no host'}), "
                "and it would read dev rows; name a model in an allowed venue and host, or leave it out"
            )
        if model.decides:
            raise BadInput(f"search.reflect: {uri} decides among labels and writes nothing; name another model")
        if not use_case.searches or use_case.task.answers is None:
            raise BadInput(
                f"search.reflect: {uri} would never be asked, for instructions are rewritten at the end of a search "
                "for a task of labels; add data.dev, set search.usd and search.rows above 0, or leave reflect out"
            )
        if find_spec("gepa") is None:
            raise BadInput(
                "search.reflect: needs gepa, which is not installed on this machine; pip install 'leastwise[reflect]', "
                "or leave reflect out"
            )
        return model

    @property
    def _listed(self) -> list[Model]:
        models, judge, managed = self.use_case.models, self.use_case.judge, self.use_case.training.managed
        trained = filter(None, [models.base, managed.base if managed else None])
        return [*models.candidates, *trained, *(judge.models if judge else ())]

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
        if (managed := self.use_case.training.managed) and self.is_tuned(uri):
            return model.price or self.book.price(managed.base.uri)  # the host asks for an adapter what its base costs
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
        is_own = candidate.weights is not None or self.is_tuned(candidate.model)
        if candidate.venue == "managed" and is_own and self.use_case.hosting.managed_price:
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
        return candidate.venue != "self_host" or not is_in_own_network(self.model(candidate.model).base_url)

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

    def check_tunable(self, today: date) -> None:
        """BadInput where the host takes no training of the base any more, by the model book."""
        managed = self.use_case.training.managed
        why_not = self.model_book.why_not_tuned(managed.base.uri, today) if managed else None
        if why_not:
            raise BadInput(f"training.managed.base: {why_not}; name another base, or set last_stage before fine_tune")

    def going_before_payback(self, months: Mapping[Stage, float], today: date) -> tuple[str, ...]:
        """A sentence for every model that is prompted or trained and retires before stages are paid back, which takes
        so many months.
        """
        models = self.use_case.models
        managed = self.use_case.training.managed
        trained = filter(None, [models.base, managed.base if managed else None])
        uris = [model.uri for model in (*models.candidates, *trained)]
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
        """The price of what `fine_tune` trains, as it is billed where that is a host's; None without a base."""
        base, managed = self.use_case.models.base, self.use_case.training.managed
        if managed:
            return self.use_case.hosting.managed_price or managed.base.price or self.book.price(managed.base.uri)
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
        is_local = {"pretrain"} if self.use_case.training.managed else {"fine_tune", "pretrain"}
        trained = models.base if is_local & set(stages) else None
        prices: list[Check] = [partial(self.price, model.uri) for model in (*asked, trained) if model]
        prices += [self.base_price] if "fine_tune" in stages else []
        if "distill" in stages:
            prices.append(self._student_price)
        refuse(problems_of([partial(each_is_one_model, self.use_case.models.candidates, self._listed), *prices]))

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
