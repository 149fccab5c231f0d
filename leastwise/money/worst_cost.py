"""What a stage may cost at worst, before it starts: every call it may make, at the most tokens each may have.

Tokens are bounded by UTF-8 bytes of what is really asked (no byte-level tokenizer makes more of a text), and every row
that may be asked is taken to be asked, of every model in every form. What the transport loses and has to be sent again
is counted by `traffic.retry_share`; a call beyond that is held by the caps, not by the estimate. It reads no data:
lengths and prices are handed in; machines are in `leastwise.money.machine_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from leastwise.money.asked import Asked, Lengths
from leastwise.money.machine_cost import hosting_hour_usd, most_hosted_training_usd, worst_machines_usd
from leastwise.money.search_cost import search_usd
from leastwise.money.token_counts import AMPLE_CHARS_PER_TOKEN, CHOICE_TOKENS, TEMPLATE_TOKENS
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import MILLION, Price

CASCADE_DEV_ROWS = 200  # dev rows a cascade's threshold is chosen on, at most
BYTES_PER_OUTPUT_TOKEN = 8  # of an answer as a judge reads it, escaped in JSON
UNCONSTRAINED = 12  # tokens a request is taken to have for a constraint it has not
REGISTERING_REQUESTS = 100  # of what is registered: 50 gate rows, each sent twice at most
SLOW_REQUEST_S = 10.0  # of an own machine while it is measured


def worst_costs(
    use_case: UseCase,
    prices: Mapping[str, Price],
    base_price: Price | None,
    asked: Asked,
    judge_price: Price | None = None,
) -> dict[Stage, float]:
    """Dollars of every stage at worst (rule 6), each with confirming its winner."""
    bill = _Bill(use_case, prices, base_price, asked, judge_price)
    return {stage: bill.of(stage) for stage in LADDER}


def worst_retraining_usd(
    use_case: UseCase, base_price: Price | None, asked: Asked, judge_price: Price | None = None
) -> float:
    """Dollars of training a champion again at worst, until it is decided which of the two stays; labels of people are
    booked apart.
    """
    return _Bill(use_case, {}, base_price, asked, judge_price).retraining()


class _Bill:
    """The worst case of one use case's stages."""

    def __init__(
        self,
        use_case: UseCase,
        prices: Mapping[str, Price],
        base_price: Price | None,
        asked: Asked,
        judge_price: Price | None,
    ) -> None:
        self.use_case, self.prices, self.asked = use_case, prices, asked
        self.base_price, self.judge_price = base_price, judge_price
        allowed = [model for model in use_case.models.candidates if use_case.may_be_sent_to(model)]
        self.models = allowed or list(use_case.models.candidates)
        self.ways = 2 if use_case.task.can_be_constrained else 1
        self.tried_ways = 1 if use_case.searches else self.ways
        self.has_cascade = use_case.offers_cascades and asked.cascade_dev.rows > 0

    def of(self, stage: Stage) -> float:
        """Dollars of one stage."""
        calls = {
            "prompt": self._prompt,
            "rag": self._rag,
            "cache": self._cache,
            "fine_tune": self._fine_tune,
            "pretrain": self._trained,
            "distill": self._distill,
            "self_host": self._self_host,
        }[stage]()
        sent_twice = 1 + self.use_case.traffic.retry_share
        searched = search_usd(self.use_case, stage)  # no more is sent, whatever is lost
        return (calls + self._grading(stage)) * sent_twice + searched + self._machines(stage)

    def _prompt(self) -> float:
        around, judged = self.asked.prompt, self.asked.judged("prompt")
        usd = sum(self._in_every_form(model, around, *judged, *self._samples) for model in self.models)
        pair = self._several(around, *judged, self.asked.again, self.asked.cascade_dev) if self._pairs else 0.0
        return usd + pair + self._several(around, self.asked.test)

    def _rag(self) -> float:
        around, judged = self.asked.rag, self.asked.judged("rag")
        usd = sum(self._in_every_form(model, around, *judged, *self._samples) for model in self.models)
        guarded = self._dearest(around, *judged, self.asked.again, self.asked.guard_dev) if self._guards else 0.0
        return usd + guarded + self._dearest(around, self.asked.test)

    def _cache(self) -> float:
        """The best candidate once more, for a provider's cache makes it another request."""
        asked = self.asked
        return self._several(self._around_best, *asked.judged("cache"), asked.traffic_again, asked.test)

    def _fine_tune(self) -> float:
        """What a host trained is asked there by the token, once before to see who answers."""
        asked = self.asked
        first = Lengths(rows=1, in_all=asked.train.longest, longest=asked.train.longest)
        judged = (*asked.judged("fine_tune"), *self._samples, asked.again, asked.test, first)
        return self._tuned(*judged, *([asked.guard_dev] if self._guards else []))

    def _tuned(self, *draws: Lengths) -> float:
        """Asked of what a host trained; nothing where that is no host."""
        managed = self.use_case.training.managed
        if managed is None or self.base_price is None:
            return 0.0
        return self._priced(managed.base, self.base_price, self.asked.trained, *draws)

    def _trained(self) -> float:
        """Nothing by the token: trained weights answer from a server of ours."""
        return 0.0

    def _distill(self) -> float:
        """What the teacher labels; then all that a student may hand on to it. The student is on a server of ours."""
        asked = self.asked
        usd = self._of_best(asked.unlabelled)
        if self.has_cascade:
            handed_on = (*asked.judged("distill"), asked.again, asked.cascade_dev, asked.test)
            usd += self._of_best(*handed_on, *([asked.guard_dev] if self._guards else []))
        return usd

    def _of_best(self, *draws: Lengths) -> float:
        """Asked of the best candidate before, which a host may have trained."""
        return max(self._several(self._around_best, *draws), self._tuned(*draws))

    def _self_host(self) -> float:
        """Nothing by the token on a machine of one's own.

        An endpoint that is named may be somebody's, and the cheap side of a cascade stays where it is.
        """
        asked = (*self.asked.judged("self_host"), *self._samples, self.asked.test, *self._registered)
        around = max(self._around_best, self.asked.trained)
        open_ones = [model for model in self.models if model.is_open]
        named = [model for model in open_ones if model.base_url and model.venue == "self_host"]
        usd = max((self._usd(model, around, *asked) for model in named), default=0.0)
        return usd + (self._dearest(around, *asked) if self._pairs and open_ones else 0.0)

    @property
    def _samples(self) -> tuple[Lengths, ...]:
        """Rows asked again: at a temperature, and once more as they were."""
        again = self.use_case.consistency
        return (self.asked.again,) * (again.samples + 1) if again else ()

    @property
    def _registered(self) -> tuple[Lengths, ...]:
        """What is asked of what passed before it is put behind an endpoint that stays."""
        gate = self.asked.gate
        rows = min(REGISTERING_REQUESTS, 2 * gate.rows) if self.use_case.hosting.endpoint != "none" else 0
        return (Lengths(rows=rows, in_all=rows * gate.longest, longest=gate.longest),) if rows else ()

    @property
    def _pairs(self) -> bool:
        return self.has_cascade and len(self.models) > 1

    @property
    def _required(self) -> frozenset[str]:
        return frozenset(self.use_case.requirements.bounds)

    @property
    def _guards(self) -> bool:
        return self.use_case.offers_guards

    @property
    def _around_best(self) -> int:
        can_retrieve = bool(self.use_case.models.embedder)
        return max(self.asked.prompt, self.asked.rag) if can_retrieve else self.asked.prompt

    def _dearest(self, around: int, *draws: Lengths) -> float:
        return max(self._usd(model, around, *draws) for model in self.models)

    def _several(self, around: int, *draws: Lengths) -> float:
        """Asked of the best candidate: the dearest model, and of the next dearest too where it may be a cascade."""
        each = sorted((self._usd(model, around, *draws) for model in self.models), reverse=True)
        return sum(each[: 2 if self._pairs else 1])

    def _in_every_form(self, model: Model, around: int, *draws: Lengths) -> float:
        """Asked unconstrained and, where an answer can be held to its format, constrained; what a search found once, in
        the dearer form.
        """
        price = self.prices[model.uri]
        return sum(
            self._priced(model, price, around, *draws, is_constrained=is_constrained)
            for is_constrained in (False, True)[self.ways - self.tried_ways : self.ways]
        )

    def _usd(self, model: Model, around: int, *draws: Lengths) -> float:
        return self._priced(model, self.prices[model.uri], around, *draws)

    def _priced(
        self, model: Model, price: Price, around: int, *draws: Lengths, is_constrained: bool | None = None
    ) -> float:
        """Every row of these draws asked once, in the dearer form unless it is said; no prompt is longer than the
        context takes. Only own machines are asked under load.
        """
        constrained = self.ways > 1 if is_constrained is None else is_constrained
        constraint = self.asked.constraint if constrained else UNCONSTRAINED
        most = int(AMPLE_CHARS_PER_TOKEN * model.context_tokens) + TEMPLATE_TOKENS[0]  # what is let through unread
        is_chosen = constrained and self.use_case.task.answers is not None
        output = _most_output(model, self.use_case.traffic.output_tokens, is_chosen)
        usd = 0.0
        for draw in draws:
            if draw is self.asked.under_load and model.venue != "self_host":
                continue
            content = min(draw.rows * around + draw.in_all, draw.rows * most)
            longest = min(around + draw.longest, most) + constraint
            tokens = content + draw.rows * constraint
            usd += _most_usd(price, draw.rows, tokens, longest, output)
        return usd

    def _grading(self, stage: Stage) -> float:
        """A judge's grades of every try's answers, of what people graded, and of the winner's on test."""
        asked, tries = self.asked, self._tries(stage)
        judged = (*asked.graded_in(stage), asked.shifted)
        each = [(draw, self._graded_around) for draw in (*judged * tries, asked.test)]
        return self._grades([*each, (asked.graded, asked.judge)])

    @property
    def _graded_around(self) -> int:
        """What stands around a text that is graded: the rubric, an answer and a reference."""
        answer = BYTES_PER_OUTPUT_TOKEN * self.use_case.traffic.output_tokens
        return self.asked.judge + answer + self.asked.references

    def _grades(self, each: Sequence[tuple[Lengths, int]]) -> float:
        """Grades of these draws, with what stands around each text; nothing without a judge."""
        judge, model, asked = self.use_case.judge, self.use_case.judge_model, self.asked
        if self.judge_price is None or judge is None or model is None:
            return 0.0
        output = _most_output(model, judge.output_tokens, is_chosen=True)
        return sum(
            _most_usd(
                self.judge_price,
                draw.rows,
                ceil(draw.rows * fixed + asked.escaped * draw.in_all),
                ceil(fixed + asked.escaped * draw.longest),
                output,
            )
            for draw, fixed in each
        )

    def _tries(self, stage: Stage) -> int:
        """Candidates of a stage whose answers may differ."""
        guards = 1 if self._guards else 0
        plain = self.tried_ways * len(self.models)
        return {
            "prompt": plain + self._pairs,
            "rag": plain + guards,
            "fine_tune": 1 + guards,
            "pretrain": 1 + guards,
            "distill": 1 + self.has_cascade + guards,
        }.get(stage, 1)

    def retraining(self) -> float:
        """Dollars of training the champion again: a challenger as a stage, and the champion's answers graded beside."""
        graded = self._grades([(self.asked.gate, self._graded_around)])
        return self.of("fine_tune") + graded * (1 + self.use_case.traffic.retry_share)

    def _machines(self, stage: Stage) -> float:
        if stage == "self_host":
            return self._hosting()
        hosted = most_hosted_training_usd(self.use_case, self.asked) if stage == "fine_tune" else 0.0
        return worst_machines_usd(self.use_case, stage) + hosted

    def _hosting(self) -> float:
        """Whole hours of the machine while every row is asked slowly, at the traffic's concurrency, and graded."""
        rows = sum(draw.rows for draw in (*self.asked.judged("self_host"), *self._samples, self.asked.test))
        rows += rows if self.judge_price else 0
        hours = 1 + rows * SLOW_REQUEST_S / self.use_case.traffic.concurrency / 3600
        return ceil(hours) * hosting_hour_usd(self.use_case)


def _most_output(model: Model, tokens: int, is_chosen: bool) -> int:
    """The cap on output tokens that is sent to a model for an answer of so many, the one place that says it."""
    return model.most_output_tokens(tokens + (CHOICE_TOKENS if is_chosen else 0))


def _most_usd(price: Price, calls: int, tokens_in: int, longest: int, tokens_out: int) -> float:
    """The most that many calls can cost: every token written to the cache, in the dearest tier the longest reaches."""
    reachable = [price, *(tier for tier in price.tiers if longest > tier.above_input_tokens)]
    return max((rates.dearest_input * tokens_in + rates.output * tokens_out * calls) / MILLION for rates in reachable)
