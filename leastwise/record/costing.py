"""What stages are expected to cost, from this use case's own rows, prices, models and hardware; and what they did cost.

The arithmetic is in `leastwise.money.expected_cost`; caps are held by what a stage may cost at worst
(`leastwise.money.worst_cost`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from leastwise import ladder
from leastwise.errors import BadInput
from leastwise.ladder.alphas import Alphas
from leastwise.models import hardware
from leastwise.models.catalogue import Catalogue
from leastwise.money.asked import Asked, Lengths
from leastwise.money.expected_cost import ExpectedCost, Facts, expected_costs
from leastwise.money.machine_cost import worst_machines_usd
from leastwise.money.request_usage import Sizes, request_usage
from leastwise.money.token_counts import ENGLISH_CHARS_PER_TOKEN, likely_tokens
from leastwise.money.worst_cost import worst_costs, worst_retraining_usd
from leastwise.record.climb_run import ClimbRun
from leastwise.rows.question import Question
from leastwise.stores.budget import Budget
from leastwise.use_case import LADDER, Stage
from leastwise.use_case.price import Usage
from leastwise.use_case.task import completion_of

log = logging.getLogger(__name__)

SLOWER = 2.0  # times what a training is expected to take; measured: 0.3 to 1.7 (docs/log.md)
TRAINED: frozenset[Stage] = frozenset({"fine_tune", "pretrain", "distill"})
NEIGHBOURS, REGRESSION = "reference.nearest_neighbours", "reference.embeddings_logistic_regression"


@dataclass(frozen=True)
class Costing:
    """The costs of one use case's stages; `run` is None before a climb is open."""

    question: Question
    catalogue: Catalogue
    asked: Callable[[], Asked]
    alphas: Callable[[], Alphas]  # asked only where needed: a climb's are drawn on the gate set's account
    run: ClimbRun | None = None

    @cached_property
    def worst(self) -> dict[Stage, float]:
        """What each stage may cost at worst, dollars."""
        return self._worst(self.asked())

    def _worst(self, asked: Asked) -> dict[Stage, float]:
        use_case, catalogue = self.question.use_case, self.catalogue
        prices, base, judge = catalogue.billed_prices(), catalogue.base_price(), catalogue.billed_judge_price()
        worst = worst_costs(use_case, prices, base, asked, judge)
        return {stage: usd + self._slower_by(stage) for stage, usd in worst.items()}

    def _slower_by(self, stage: Stage) -> float:
        """Dollars by which a training that takes twice what is expected of this model on this machine passes the worst
        case of its examples; a host asks for tokens, however long it takes.
        """
        if stage == "fine_tune" and self.question.use_case.training.managed:
            return 0.0
        return max(0.0, SLOWER * self._training_usd.get(stage, 0.0) - worst_machines_usd(self.question.use_case, stage))

    @cached_property
    def _training_usd(self) -> dict[Stage, float]:
        """What training is expected to cost, without anything that is asked."""
        use_case = self.question.use_case
        if not use_case.training.machines_usd_per_hour:
            return {}
        base, at_host = use_case.models.base, {"fine_tune"} if use_case.training.managed else set[str]()
        facts = Facts(
            prices={},
            rows=self.question.counts(),
            sizes=self._sizes(),
            hardware=hardware.of(use_case, self.catalogue.home),
            base_parameters=hardware.parameters(base.uri) if base else 0.0,
            student_parameters=self._student_parameters(),
            teacher_is_asked=False,
            ruled_out=(frozenset(LADDER) - TRAINED) | frozenset(each for each in TRAINED if each in at_host),
            alpha_pass=use_case.alpha,
            alpha_fail=use_case.alpha,
        )
        expected = expected_costs(use_case, facts)
        return {stage: expected[stage].usd for stage in TRAINED}

    def check_start(self) -> None:
        """BadInput where a cap is below what the first stage may cost until its winner is confirmed."""
        self._check_caps(self._worst(self._until_confirmed)["prompt"], "the first stage")

    def check_candidate(self, stage: Stage) -> None:
        """BadInput where a cap is below what one candidate of an untrained stage may cost to be judged."""
        self._check_caps(self._worst(self._until_confirmed)[stage], "judging this candidate")

    def check_retraining(self) -> None:
        """BadInput where a cap is below what a retraining may cost."""
        base, judge = self.catalogue.base_price(), self.catalogue.billed_judge_price()
        usd = worst_retraining_usd(self.question.use_case, base, self._until_confirmed, judge)
        self._check_caps(usd + self._slower_by("fine_tune"), "a retraining")

    @property
    def _until_confirmed(self) -> Asked:
        return self.asked().model_copy(update={"test": Lengths()})

    def _check_caps(self, usd: float, what: str) -> None:
        use_case = self.question.use_case
        caps = {"budget_usd": use_case.budget_usd, "budget_usd_per_month": use_case.budget_usd_per_month}
        for name, cap in caps.items():
            if usd > cap:
                raise BadInput(
                    f"{name}: ${cap:g} is below the estimate of {what}, ${usd:.4g}; raise it to at least that"
                )

    def expected(self) -> dict[Stage, ExpectedCost]:
        """The expected cost of every stage, as far as is known now: once row 0 is measured, retrieval and training are
        guessed by it.
        """
        return expected_costs(self.question.use_case, self.facts())

    def usages(self) -> dict[Stage, Usage]:
        """The tokens of one request on average as each stage asks it."""
        return {stage: request_usage(self.question.use_case, stage, self._sizes()) for stage in LADDER}

    def announce(self, stage: Stage) -> None:
        """Say before a stage what it is expected to cost and how that comes."""
        expected = self.expected()[stage]
        amounts = f"${expected.usd:.4f} (at worst ${self.worst[stage]:.4f})"
        log.info(f"{stage} is expected to cost {amounts}: {'; '.join(expected.steps)}")

    def figures(self, stage: Stage, cost: float, budget: Budget) -> dict[str, float]:
        """A stage's estimate beside its actual cost, as metrics of its run; `usd.estimate_ratio` is actual over
        expected.

        `cost` is what the stage would have been billed with nothing stored from before.
        """
        expected = self.expected()[stage]
        estimates = {
            "usd.estimated": expected.usd,
            "usd.estimated.worst": self.worst.get(stage, 0.0),
            "calls.estimated": expected.calls,
        }
        by_purpose = {f"usd.spent.{purpose}": usd for purpose, usd in budget.spent_by_purpose_of(stage).items()}
        ratio = {"usd.estimate_ratio": cost / expected.usd} if expected.usd > 0 and cost > 0 else {}
        return estimates | by_purpose | ratio

    def facts(self) -> Facts:
        """What the expectation is made of."""
        use_case, models = self.question.use_case, self.question.use_case.models
        trains, alphas = models.base or models.student, self.alphas()
        return Facts(
            prices=self.catalogue.billed_prices(),
            judge_price=self.catalogue.billed_judge_price(),
            base_price=self.catalogue.base_price() if use_case.training.managed else None,
            rows={name: count or 0 for name, count in self.question.counts().items()},
            sizes=self._sizes(),
            hardware=hardware.of(use_case, self.catalogue.home) if trains else None,
            base_parameters=hardware.parameters(models.base.uri) if models.base else 0.0,
            student_parameters=self._student_parameters(),
            requests_per_s=self._requests_per_s(),
            repeat_share=self.question.repeat_share or 0.0,
            traffic_is_scored=self.question.judged_beside_traffic is None,
            teacher_is_asked=self._is_teacher_asked(),
            quality=self._guesses(),
            cannot_pass=self._cannot_pass(),
            ruled_out=frozenset(stage for stage in LADDER if ladder.ruled_out(use_case, stage)),
            alpha_pass=alphas.to_pass,
            alpha_fail=alphas.to_fail,
        )

    def _student_parameters(self) -> float:
        """The size the student's training is estimated from; a causal one as if none of its base's blocks were cut."""
        use_case = self.question.use_case
        student, base = use_case.training.student, use_case.models.base
        if student.kind == "encoder":
            return hardware.encoder_parameters(use_case.models.student, student.layers)
        return hardware.parameters(student.uri or (base.uri if base else None))

    def _sizes(self) -> Sizes:
        tables, task = self.question.tables, self.question.use_case.task
        gate, train, documents = tables.need("gate"), tables.get("train"), tables.get("documents")
        sizes = {"text": _mean_length(gate["text"])}
        labelled = train if train is not None else gate
        if labelled["label"].notna().all():
            answer = _mean_length(completion_of(task, label) for label in labelled["label"])
            sizes |= {"answer": answer, "example": _mean_length(labelled["text"]) + answer}
        return Sizes(**sizes | ({"document": _mean_length(documents["text"])} if documents is not None else {}))

    def _history(self) -> list[ladder.Record]:
        return self.run.history(self.question.use_case.gate_requirements) if self.run else []

    def _cannot_pass(self) -> frozenset[Stage]:
        """What the best candidate so far surely fails and a stage does not remedy, it fails too."""
        best = ladder.best(self._history())
        failing = set(best.verdict.named("FAIL")) if best and best.verdict else set[str]()
        return frozenset(stage for stage in LADDER if failing - ladder.REMEDIES[stage])

    def _requests_per_s(self) -> float:
        """What the best candidate so far answered a second; 1 before one is measured."""
        best = ladder.best(self._history())
        if best is None or self.run is None:
            return 1.0
        return self.run.latest(best.stage).figures.get("requests_per_s", 1.0)

    def _is_teacher_asked(self) -> bool:
        """Whether the teacher, as far as it is known by now, is asked by the token."""
        teacher = ladder.teacher(self._history())
        at_host = self.question.use_case.training.managed is not None
        return teacher is None or teacher.stage not in (("pretrain",) if at_host else ("fine_tune", "pretrain"))

    def _guesses(self) -> dict[Stage, float]:
        """Retrieved examples do about what nearest neighbours do, training what logistic regression does; row 0 has
        both.
        """
        reference = self.run.reference_run() if self.run else None
        figures = reference.figures if reference else {}
        guesses: dict[Stage, float] = {}
        if NEIGHBOURS in figures:
            guesses["rag"] = guesses["cache"] = figures[NEIGHBOURS]
        if REGRESSION in figures:
            guesses |= dict.fromkeys(("fine_tune", "pretrain", "distill"), figures[REGRESSION])
        return guesses


def _mean_length(texts: Iterable[str]) -> float:
    """In characters of English that come to as many tokens: other scripts take more for a character."""
    return ENGLISH_CHARS_PER_TOKEN * fmean(likely_tokens(str(text)) for text in texts)
