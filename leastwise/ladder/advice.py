"""The decision matrix: what a use case tells before anything is spent, as explained rules over its fields and row counts.

It measures nothing and promises nothing: a stage is `ruled_out` only where the ladder itself could never run it, the
expected stop is a guess from rules of thumb, and no rule knows how good a model is at the task. Row counts and prices
are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from leastwise import ladder
from leastwise.evidence.examples_needed import GateNeed, examples_for_p95, examples_to_decide
from leastwise.ladder import MIN_TRAINING_ROWS, REMEDIES, Situation
from leastwise.money import economics
from leastwise.money.expected_cost import Expected
from leastwise.money.price_book import UnknownPrice
from leastwise.money.worst_cost import COUNTED, PROMPT_TOKENS, worst_costs
from leastwise.part import Part
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.judge import LEAST_HUMAN_GRADES
from leastwise.use_case.price import Price, Usage
from leastwise.use_case.requirements import SHARES

FEW_REQUESTS_PER_MONTH = 100_000
MANY_REQUESTS_PER_MONTH = 1_000_000
ADVISED_TRAINING_ROWS = 5_000
CONSISTENT_SHARE = 0.95
HOSTED_LLM_MS = 400.0
SCRATCH_PARAMETERS = 8e9
TOKENS_PER_PARAMETER = 20  # compute-optimal: Hoffmann et al. 2022, arXiv 2203.15556, table 3
TRAINED: frozenset[Stage] = frozenset({"fine_tune", "pretrain", "distill"})


class StageAdvice(Part):
    """What is known of one stage before the climb."""

    stage: Stage
    status: Literal["possible", "ruled_out"]
    reason: str
    estimate_usd: float = Field(ge=0, description="What it may cost at worst, dollars; also where it is ruled out.")
    expected_usd: float | None = Field(
        None, ge=0, description="What it is expected to cost, dollars; None: not worked out."
    )
    arithmetic: tuple[str, ...] = Field((), description="How the expected figure comes.")


class Consideration(Part):
    """One row of the decision matrix: what was looked at, what the use case says, and what follows."""

    name: str
    finding: str
    advice: str


class Advice(Part):
    """Everything there is to say before spending."""

    stages: tuple[StageAdvice, ...]
    expected_stop: Stage | None = Field(description="A guess; None where no stage is possible.")
    expected_why: str
    considerations: tuple[Consideration, ...]
    gate: tuple[GateNeed, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    from_scratch_usd: float
    from_scratch: tuple[str, ...] = Field(description="The arithmetic of Level 5, which is never run.")
    wait: str = Field(description="Whether next quarter's model may make the work unnecessary.")

    def named(self, status: Literal["possible", "ruled_out"]) -> tuple[Stage, ...]:
        """The stages of that status, cheapest first."""
        return tuple(each.stage for each in self.stages if each.status == status)

    @property
    def possible_usd(self) -> float:
        """What all possible stages may cost at worst, dollars."""
        return sum(each.estimate_usd for each in self.stages if each.status == "possible")


class Known(Part):
    """What is known beside the use case: rows by table, prices by candidate URI, and the error probabilities."""

    rows: dict[str, int]
    prices: dict[str, Price]
    base_price: Price | None = None
    judge_price: Price | None = None
    expected: dict[Stage, Expected] = Field({}, description="What each stage is expected to cost.")
    repeat_share: float | None = Field(None, ge=0, le=1)
    alpha_pass: float = Field(gt=0, lt=1, description="Of one candidate, after the ladder-wide split.")
    alpha_fail: float = Field(gt=0, lt=1, description="Of one requirement.")

    @property
    def situation(self) -> Situation:
        """The same for the ladder."""
        return Situation(
            train_rows=self.rows.get("train", 0),
            document_rows=self.rows.get("documents", 0),
            unlabelled_rows=self.rows.get("unlabelled", 0),
            repeat_share=self.repeat_share,
        )


def advise(use_case: UseCase, known: Known) -> Advice:
    """The advice for a use case; pure, and a few milliseconds.

    Raises UnknownPrice for an allowed candidate without a price.
    """
    estimates = _estimates(use_case, known)
    stages = tuple(_stage_advice(use_case, stage, known, estimates[stage]) for stage in LADDER)
    stop, why = _expected_stop(use_case, known, [each.stage for each in stages if each.status == "possible"])
    gate = tuple(_gate_needs(use_case, known))
    scratch = economics.from_scratch(SCRATCH_PARAMETERS, SCRATCH_PARAMETERS * TOKENS_PER_PARAMETER)
    return Advice(
        stages=stages,
        expected_stop=stop,
        expected_why=why,
        considerations=tuple(rule(use_case, known) for rule in _MATRIX),
        gate=gate,
        missing=tuple(_missing(use_case, known, gate)),
        warnings=tuple(_warnings(use_case, known, stages)),
        from_scratch_usd=scratch.usd,
        from_scratch=scratch.steps,
        wait=_wait(use_case, stages),
    )


def _estimates(use_case: UseCase, known: Known) -> dict[Stage, float]:
    unpriced = [m.uri for m in use_case.models.candidates if m.uri not in known.prices]
    if unpriced:
        raise UnknownPrice(
            f"models.candidates: no price for {', '.join(unpriced)}; give it one, or add it to the price book"
        )
    counted = dict.fromkeys(COUNTED, 0) | known.rows
    return worst_costs(use_case, known.prices, known.base_price, counted, known.judge_price)


def _stage_advice(use_case: UseCase, stage: Stage, known: Known, estimate_usd: float) -> StageAdvice:
    why_not = ladder.ruled_out(use_case, stage, known.situation)
    if why_not:
        return StageAdvice(stage=stage, status="ruled_out", reason=why_not, estimate_usd=estimate_usd)
    expected = known.expected.get(stage)
    helps = ", ".join(name for name in use_case.requirements.bounds if name in REMEDIES[stage])
    doubts = [f"hardly meets {name}: {why}" for name, why in _doubts(use_case, stage, known).items()]
    leave = "needs approval" if use_case.approval(stage, estimate_usd) == "ask" else ""
    reason = "; ".join(filter(None, [f"can help with {helps}", *doubts, leave]))
    return StageAdvice(
        stage=stage,
        status="possible",
        reason=reason,
        estimate_usd=estimate_usd,
        expected_usd=expected.usd if expected else None,
        arithmetic=expected.steps if expected else (),
    )


# -- what arithmetic says of cost and latency --------------------------------------------------------------------------


def _doubts(use_case: UseCase, stage: Stage, known: Known) -> dict[str, str]:
    """Cost and latency bounds a stage is not expected to meet, each with its figures: arithmetic and rules of thumb."""
    bounds, found = use_case.requirements.bounds, {}
    cost = bounds.get("usd_per_1k_requests")
    usd = likely_usd_per_1k(use_case, stage, known)
    if cost and usd is not None and usd > cost.bound + cost.margin:
        found["usd_per_1k_requests"] = f"about ${usd:.4g} against ${cost.bound:.4g}"
    latency = bounds.get("p95_latency_ms")
    if latency and stage not in ("distill", "self_host") and latency.bound + latency.margin < HOSTED_LLM_MS:
        found["p95_latency_ms"] = f"a hosted LLM takes {HOSTED_LLM_MS:.0f} ms or more, {latency.bound:.0f} are allowed"
    return found


def likely_usd_per_1k(use_case: UseCase, stage: Stage, known: Known) -> float | None:
    """Dollars of 1,000 requests at the cheapest allowed price, long prompts and full answers; None where unknown.

    `cache` is the best it can do: every input token read from the cache, every repetition free. The number of machines
    is not known beforehand: one, plus the spares.
    """
    hosting, month = use_case.hosting, use_case.traffic.requests_per_month
    if stage == "self_host":
        machines = 1 + hosting.spare_machines
        own = economics.monthly_self_host(
            machines, hosting.usd_per_month_per_machine, hosting.storage_usd_per_month, hosting.operations_usd_per_month
        )
        return own.usd_per_1k(month)
    minimum = hosting.managed_minimum_usd_per_month * 1000 / month
    if stage == "distill":
        return minimum
    prices = [known.prices[m.uri] for m in use_case.models.candidates if use_case.may_be_sent_to(m)]
    if stage in ("fine_tune", "pretrain"):
        prices = [price for price in (hosting.managed_price or known.base_price,) if price]
    if not prices:
        return None
    if stage == "cache":
        tokens = PROMPT_TOKENS["prompt"]
        hit = Usage(input_tokens=tokens, cached_tokens=tokens, output_tokens=use_case.traffic.output_tokens)
        return 1000 * min(price.usd(hit) for price in prices) * (1 - (known.repeat_share or 0.0))
    usage = Usage(input_tokens=PROMPT_TOKENS[stage], output_tokens=use_case.traffic.output_tokens)
    cheapest = min(prices, key=lambda price: price.usd(usage))
    usd = economics.monthly_api_usd(cheapest, usage, 1000, use_case.traffic.retry_share)
    is_managed = use_case.models.base is not None and use_case.models.base.venue == "managed"
    return usd + (minimum if stage in ("fine_tune", "pretrain") and is_managed else 0.0)


def _expected_stop(use_case: UseCase, known: Known, possible: list[Stage]) -> tuple[Stage | None, str]:
    """The first possible stage no rule speaks against: the own data for `prompt`, cost and latency for every stage."""
    if not possible:
        return None, "no stage is possible; see the reasons"
    likely = [stage for stage in possible if not _doubts(use_case, stage, known)]
    if not likely:
        return None, "no possible stage is expected to meet cost and latency; the climb may end with `none`"
    first = likely[0]
    if first == "prompt" and "rag" in likely:
        return "rag", "there is own data to show the model; most use cases need no more (a guess, not evidence)"
    if first in ("distill", "self_host"):
        return (
            first,
            "every stage below is too dear or too slow by arithmetic (the climb still checks each that applies)",
        )
    return first, "the simplest stage that nothing speaks against (a guess, not evidence)"


# -- how many examples the gate needs ----------------------------------------------------------------------------------


def _gate_needs(use_case: UseCase, known: Known) -> list[GateNeed]:
    table = {"ood_decline": "out_of_scope", "shift_quality": "shifted"}
    needs = []
    for name, wanted in use_case.requirements.bounds.items():
        rows = use_case.forgetting.tasks if name == "general_ability" else known.rows.get(table.get(name, "gate"), 0)
        if wanted.margin == 0 or use_case.data.population == "this_set":
            continue
        if name in SHARES:
            examples = examples_to_decide(wanted.bound, wanted.margin, known.alpha_pass, known.alpha_fail)
        elif name == "p95_latency_ms":
            examples = examples_for_p95(known.alpha_pass)
        else:
            continue  # cost is the same for every request but for its length: a few examples
        needs.append(GateNeed(requirement=name, examples=examples, rows=rows))
    return needs


# -- the matrix --------------------------------------------------------------------------------------------------------


def _volume(use_case: UseCase, known: Known) -> Consideration:
    month = use_case.traffic.requests_per_month
    says = "fixed costs spread over many requests: training and hosting can pay"
    if month < FEW_REQUESTS_PER_MONTH:
        says = "below 100,000 requests a month training and hosting rarely pay: prompt and rag first"
    return Consideration(name="volume", finding=f"{month:,} requests a month", advice=says)


def _own_data(use_case: UseCase, known: Known) -> Consideration:
    examples, documents = known.rows.get("train", 0), known.rows.get("documents", 0)
    says = (
        "retrieve it before training on it (rag)" if examples or documents else "nothing to retrieve: rag cannot help"
    )
    return Consideration(
        name="proprietary data", finding=f"{examples:,} examples, {documents:,} documents", advice=says
    )


def _consistency(use_case: UseCase, known: Known) -> Consideration:
    wanted = use_case.requirements.adherence
    if wanted is None:
        return Consideration(name="consistency", finding="no bound on the format", advice="nothing follows")
    says = "prompting usually gets there"
    if wanted.bound >= CONSISTENT_SHARE:
        says = "constrained output first; if that costs quality, fine_tune"
    return Consideration(name="consistency", finding=f"{wanted.bound:.1%} of answers in format", advice=says)


def _validated_volume(use_case: UseCase, known: Known) -> Consideration:
    month, asked = use_case.traffic.requests_per_month, set(use_case.requirements.bounds)
    pays = month >= MANY_REQUESTS_PER_MONTH and use_case.task.stable and asked & REMEDIES["self_host"]
    says = (
        "once a candidate passes quality, distill it and own the endpoint" if pays else "no case for distillation yet"
    )
    return Consideration(
        name="volume on a validated task",
        finding=f"{month:,} a month, {'stable' if use_case.task.stable else 'changing'} task",
        advice=says,
    )


def _residency(use_case: UseCase, known: Known) -> Consideration:
    limits = use_case.requirements.residency
    if limits is None:
        return Consideration(name="data that cannot leave", finding="no limit", advice="any venue may answer")
    inside = limits.venues == ("self_host",)
    says = "open weights on own machines from the first stage on" if inside else "only these venues are ever asked"
    return Consideration(name="data that cannot leave", finding=f"allowed: {', '.join(limits.venues)}", advice=says)


def _domain(use_case: UseCase, known: Known) -> Consideration:
    if use_case.task.domain_is_public:
        return Consideration(
            name="unique domain", finding="public text resembles it", advice="continued pre-training adds little"
        )
    return Consideration(
        name="unique domain",
        finding="no public text resembles it",
        advice="pretrain may help, if rag and fine_tune fail",
    )


def _change(use_case: UseCase, known: Known) -> Consideration:
    if use_case.task.stable:
        return Consideration(name="tasks that change", finding="stable", advice="training can last")
    return Consideration(
        name="tasks that change",
        finding="labels or rules change often",
        advice="never train: a prompt is changed in minutes",
    )


def _latency(use_case: UseCase, known: Known) -> Consideration:
    wanted = use_case.requirements.p95_latency_ms
    if wanted is None:
        return Consideration(name="latency", finding="no bound", advice="nothing follows")
    tight = wanted.bound + wanted.margin < HOSTED_LLM_MS
    says = "a hosted LLM hardly answers that fast: distill, self_host" if tight else "a hosted LLM can answer in time"
    return Consideration(name="latency", finding=f"p95 of {wanted.bound:,.0f} ms", advice=says)


_MATRIX: tuple[Callable[[UseCase, Known], Consideration], ...] = (
    _volume,
    _own_data,
    _consistency,
    _validated_volume,
    _residency,
    _domain,
    _change,
    _latency,
)


def _wait(use_case: UseCase, stages: tuple[StageAdvice, ...]) -> str:
    trained = [each.stage for each in stages if each.status == "possible" and each.stage in TRAINED]
    if not trained:
        return "Nothing would be trained, so a better model next quarter is a changed line in the file."
    if set(use_case.requirements.bounds) & REMEDIES["self_host"]:
        return (
            "If only quality fails, next quarter's model may make training unnecessary: wait, or rebaseline when it is "
            "out. If cost or latency fails, waiting helps less."
        )
    return (
        f"Before paying for {', '.join(trained)}: if next quarter's model may do it unaided, wait, and rebaseline "
        "when it is out."
    )


# -- what is missing, and what to beware of ----------------------------------------------------------------------------


def _missing(use_case: UseCase, known: Known, gate: tuple[GateNeed, ...]) -> list[str]:
    train, data = known.rows.get("train", 0), use_case.data
    lacking = [
        f"{need.requirement}: about {need.examples:,} examples decide it at these margins and alphas, {need.rows:,} are "
        f"there; add {need.short:,} or widen its margin"
        for need in gate
        if need.short
    ]
    if train < MIN_TRAINING_ROWS:
        lacking.append(f"data.train: {train:,} labelled examples; fine_tune needs {MIN_TRAINING_ROWS - train:,} more")
    graded = known.rows.get("graded", 0)
    if use_case.is_judged and graded < LEAST_HUMAN_GRADES:
        lacking.append(f"data.graded: {graded} answers graded by people; a judge gates only with {LEAST_HUMAN_GRADES}")
    if not data.test:
        lacking.append("data.test: without an untouched split the winner's final figure is not clean")
    if not data.dev:
        lacking.append("data.dev: prompts, thresholds and checkpoints have nothing to be tuned on")
    wants_less = set(use_case.requirements.bounds) & REMEDIES["cache"]
    if wants_less and not data.traffic:
        lacking.append("data.traffic: caching is judged on a sample of traffic with its real repetition")
    if wants_less and not known.rows.get("unlabelled", 0):
        lacking.append("data.unlabelled: distillation needs text for a teacher to label")
    return lacking


def _warnings(use_case: UseCase, known: Known, stages: tuple[StageAdvice, ...]) -> list[str]:
    train, found = known.rows.get("train", 0), []
    possible = {each.stage: each.estimate_usd for each in stages if each.status == "possible"}
    if train < MIN_TRAINING_ROWS:
        found.append(f"{train:,} training examples, under {MIN_TRAINING_ROWS:,}: nothing will be fine-tuned")
    elif train < ADVISED_TRAINING_ROWS:
        found.append(f"{train:,} training examples: fine_tune can run, {ADVISED_TRAINING_ROWS:,} or more are advised")
    if possible.get("prompt", 0.0) > use_case.budget_usd:
        found.append(f"budget_usd ${use_case.budget_usd:g} is below the estimate of the first stage")
    elif sum(possible.values()) > use_case.budget_usd:
        found.append(
            f"budget_usd ${use_case.budget_usd:g} does not cover every possible stage (${sum(possible.values()):.4g})"
        )
    judge = use_case.judge_model
    if judge and judge.kin in {m.kin for m in (*use_case.models.candidates, *filter(None, [use_case.models.base]))}:
        found.append(f"the judge {judge.uri} is of a family it judges ({judge.kin}), whose answers it may favour")
    if any(price.illustrative for price in known.prices.values()):
        found.append("prices marked illustrative: every figure in dollars is an example, nobody charges it")
    if "distill" in possible:
        silent = [m.uri for m in use_case.models.candidates if not m.is_open and m.training_on_output is not True]
        found += [f"{uri} may not teach a student until training_on_output says its terms allow it" for uri in silent]
    return found
