"""What a stage may cost at worst, before it starts: every call it may make, at the most tokens each may have.

Tokens are bounded by UTF-8 bytes of what is really asked (no byte-level tokenizer makes more of a text), and every row
that may be asked is taken to be asked, of every model in every form. What the transport loses and has to be sent again
is counted by `traffic.retry_share`; a call beyond that is held by the caps, not by the estimate. It reads no data:
lengths and prices are handed in, and training speed is a stated constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from leastwise.evidence.halving import schedule
from leastwise.money.asked import Asked, Lengths
from leastwise.money.economics import HOURS_PER_MONTH
from leastwise.money.token_counts import AMPLE_CHARS_PER_TOKEN, CHOICE_TOKENS, TEMPLATE_TOKENS
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import MILLION, Price

EXAMPLES_PER_S = 4.0
CASCADE_DEV_ROWS = 200  # dev rows a cascade's threshold is chosen on, at most
BYTES_PER_OUTPUT_TOKEN = 8  # of an answer as a judge reads it, escaped in JSON
UNCONSTRAINED = 12  # tokens a request is taken to have for a constraint it has not
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
        self.has_cascade = use_case.offers_cascades and asked.cascade_dev.rows > 0

    def of(self, stage: Stage) -> float:
        """Dollars of one stage."""
        calls = {
            "prompt": self._prompt,
            "rag": self._rag,
            "cache": self._cache,
            "fine_tune": self._trained,
            "pretrain": self._trained,
            "distill": self._distill,
            "self_host": self._self_host,
        }[stage]()
        sent_twice = 1 + self.use_case.traffic.retry_share
        return (calls + self._grading(stage)) * sent_twice + self._machines(stage)

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

    def _trained(self) -> float:
        """What is timed over HTTP; answers in process are free. Behind a guard it is timed once more."""
        base, times = self.use_case.models.base, 2 if self._guards else 1
        if base is None:
            return 0.0
        own = [price for price in (self.base_price, self.use_case.hosting.managed_price) if price]
        return times * max((self._priced(base, each, self.asked.trained, self.asked.gate) for each in own), default=0.0)

    def _distill(self) -> float:
        """What the teacher labels; then all that a student may hand on to it, and the student's own timing."""
        asked = self.asked
        usd = self._several(self._around_best, asked.unlabelled)
        if self.has_cascade:
            handed_on = (*asked.judged("distill"), asked.again, asked.cascade_dev, asked.test)
            usd += self._several(self._around_best, *handed_on, *([asked.guard_dev] if self._guards else []))
        return usd + (self._trained() if self.use_case.training.student.kind == "causal" else 0.0)

    def _self_host(self) -> float:
        """Nothing by the token on a machine of one's own; an endpoint that is named may be somebody's."""
        base, asked = self.use_case.models.base, (*self.asked.judged("self_host"), *self._samples, self.asked.test)
        priced = [(model, self.prices[model.uri]) for model in self.models]
        priced += [(base, self.base_price)] if base and self.base_price else []
        around = max(self._around_best, self.asked.trained)
        named = [(model, price) for model, price in priced if model.is_open and model.base_url]
        return max((self._priced(*each, around, *asked) for each in named), default=0.0)

    @property
    def _samples(self) -> tuple[Lengths, ...]:
        """Rows asked again: at a temperature, and once more as they were."""
        again = self.use_case.consistency
        return (self.asked.again,) * (again.samples + 1) if again else ()

    @property
    def _pairs(self) -> bool:
        return self.has_cascade and len(self.models) > 1

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
        """Asked unconstrained and, where an answer can be held to its format, constrained."""
        price = self.prices[model.uri]
        return sum(
            self._priced(model, price, around, *draws, is_constrained=is_constrained)
            for is_constrained in (False, True)[: self.ways]
        )

    def _usd(self, model: Model, around: int, *draws: Lengths) -> float:
        return self._priced(model, self.prices[model.uri], around, *draws)

    def _priced(
        self, model: Model, price: Price, around: int, *draws: Lengths, is_constrained: bool | None = None
    ) -> float:
        """Every row of these draws asked once, in the dearer form unless it is said; no prompt is longer than the
        context takes.
        """
        constrained = self.ways > 1 if is_constrained is None else is_constrained
        constraint = self.asked.constraint if constrained else UNCONSTRAINED
        most = int(AMPLE_CHARS_PER_TOKEN * model.context_tokens) + TEMPLATE_TOKENS[0]  # what is let through unread
        is_chosen = constrained and self.use_case.task.answers is not None
        output = _most_output(model, self.use_case.traffic.output_tokens, is_chosen)
        usd = 0.0
        for draw in draws:
            content = min(draw.rows * around + draw.in_all, draw.rows * most)
            longest = min(around + draw.longest, most) + constraint
            tokens = content + draw.rows * constraint
            usd += _most_usd(price, draw.rows, tokens, longest, output)
        return usd

    def _grading(self, stage: Stage) -> float:
        """A judge's grades of every try's answers, of what people graded, and of the winner's on test."""
        judge, model = self.use_case.judge, self.use_case.judge_model
        if self.judge_price is None or judge is None or model is None:
            return 0.0
        asked, tries = self.asked, self._tries(stage)
        main = asked.traffic if stage == "cache" else asked.gate
        answer = BYTES_PER_OUTPUT_TOKEN * self.use_case.traffic.output_tokens
        around = asked.judge + answer + asked.references
        each = [(draw, around) for draw in (*(main, asked.shifted) * tries, asked.test)]
        output = _most_output(model, judge.output_tokens, is_chosen=True)
        return sum(
            _most_usd(
                self.judge_price,
                draw.rows,
                ceil(draw.rows * fixed + asked.escaped * draw.in_all),
                ceil(fixed + asked.escaped * draw.longest),
                output,
            )
            for draw, fixed in (*each, (asked.graded, asked.judge))
        )

    def _tries(self, stage: Stage) -> int:
        """Candidates of a stage whose answers may differ."""
        guards = 1 if self._guards else 0
        plain = self.ways * len(self.models)
        return {
            "prompt": plain + self._pairs,
            "rag": plain + guards,
            "fine_tune": 1 + guards,
            "pretrain": 1 + guards,
            "distill": 1 + self.has_cascade + guards,
        }.get(stage, 1)

    def _machines(self, stage: Stage) -> float:
        if stage == "fine_tune":
            return worst_training_usd(self.use_case)
        if stage == "pretrain":
            return worst_training_usd(self.use_case) + worst_pretraining_usd(self.use_case)
        if stage == "distill":
            return worst_student_training_usd(self.use_case)
        return self._hosting() if stage == "self_host" else 0.0

    def _hosting(self) -> float:
        """Whole hours of the machine while every row is asked slowly, at the traffic's concurrency."""
        rows = sum(draw.rows for draw in (*self.asked.judged("self_host"), *self._samples, self.asked.test))
        hours = 1 + rows * SLOW_REQUEST_S / self.use_case.traffic.concurrency / 3600
        return ceil(hours) * hosting_hour_usd(self.use_case)


def _most_output(model: Model, tokens: int, is_chosen: bool) -> int:
    """The cap on output tokens that is sent to a model for an answer of so many, the one place that says it."""
    return model.most_output_tokens(tokens + (CHOICE_TOKENS if is_chosen else 0))


def _most_usd(price: Price, calls: int, tokens_in: int, longest: int, tokens_out: int) -> float:
    """The most that many calls can cost: every token written to the cache, in the dearest tier the longest reaches."""
    reachable = [price, *(tier for tier in price.tiers if longest > tier.above_input_tokens)]
    return max((rates.dearest_input * tokens_in + rates.output * tokens_out * calls) / MILLION for rates in reachable)


def worst_training_usd(use_case: UseCase) -> float:
    """Dollars one training may cost at worst: its examples, a search's too, at a slow EXAMPLES_PER_S."""
    training = use_case.training
    search = training.search
    rounds = schedule(search.trials, search.first_examples, training.max_examples) if search else ()
    examples = training.max_examples + sum(each.trials * each.examples for each in rounds)
    return examples / EXAMPLES_PER_S / 3600 * training.machines_usd_per_hour


def worst_pretraining_usd(use_case: UseCase) -> float:
    """Dollars continued pre-training may cost at worst: as much as a training, or more for more packed sequences."""
    training = use_case.training
    sequences = training.pretrain_steps * training.batch_size
    return max(worst_training_usd(use_case), sequences / EXAMPLES_PER_S / 3600 * training.machines_usd_per_hour)


def worst_student_training_usd(use_case: UseCase) -> float:
    """Dollars training the student may cost at worst: a quarter of a training for an encoder, else its examples."""
    student = use_case.training.student
    if student.kind == "encoder":
        return worst_training_usd(use_case) / 4
    return student.max_examples / EXAMPLES_PER_S / 3600 * use_case.training.machines_usd_per_hour


def hosting_hour_usd(use_case: UseCase) -> float:
    """Dollars of one hour of an own machine."""
    return use_case.hosting.usd_per_month_per_machine / HOURS_PER_MONTH
