"""What a stage is expected to cost, with its arithmetic: calls × tokens × price, and training from size and hardware.

`leastwise.money.worst_cost` has what a stage may cost at worst, by which budgets are held; this is the figure that is
compared with what was really spent. It reads and measures nothing: sizes, speeds and guesses are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from leastwise.evidence.examples_needed import LOOK, ExpectedLength, examples_for_p95, expected_examples
from leastwise.money.economics import FLOPS_PER_PARAMETER_AND_TOKEN, training_hours
from leastwise.money.machine_cost import hosted_training, hosting_hour_usd, training_operations, training_tokens
from leastwise.money.request_usage import CONSTRAINT_TOKENS, MESSAGE_TOKENS, Sizes, request_usage, tokens_of
from leastwise.money.search_cost import expected_search
from leastwise.money.worst_cost import CASCADE_DEV_ROWS
from leastwise.part import Part, Result
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.price import Price, Usage
from leastwise.use_case.training import PACKED_TOKENS

START_S = 15.0  # of an own machine: starting a server, a smoke test, a warm-up
RUNTIMES_S = 30.0  # exporting an encoder student to each runtime and timing it on dev rows


class Hardware(Part):
    """The training machine."""

    flops_per_s: float = Field(gt=0, description="Operations a second that training reaches, not the peak.")
    usd_per_hour: float = Field(0.0, ge=0)
    name: str = "this machine"


class Facts(Part):
    """What an expectation rests on beside the use case: prices, counts, sizes, speeds and guesses."""

    prices: dict[str, Price]
    judge_price: Price | None = None
    base_price: Price | None = Field(None, description="Of what a host trains, as it is billed.")
    rows: dict[str, int]
    sizes: Sizes = Sizes()
    hardware: Hardware | None = Field(None, description="None: training is not costed.")
    base_parameters: float = Field(0.0, ge=0, description="Weights of the model that is trained; 0: unknown.")
    student_parameters: float = Field(0.0, ge=0)
    requests_per_s: float = Field(
        1.0, gt=0, description="What the best candidate answered a second, as far as it is measured."
    )
    repeat_share: float = Field(
        0.0, ge=0, le=1, description="Share of sampled traffic that repeats, which a cache answers."
    )
    traffic_is_scored: bool = Field(
        True, description="False where sampled traffic has no expected answers, so that gate rows are asked besides."
    )
    teacher_is_asked: bool = Field(
        True, description="False where the teacher is trained: it labels in process, for nothing."
    )
    cannot_pass: frozenset[Stage] = Field(
        frozenset(), description="Stages that do not remedy all that the best candidate so far surely fails."
    )
    quality: dict[Stage, float] = Field(
        {}, description="Guesses of a stage's quality; a stage without one: see `expected`."
    )
    ruled_out: frozenset[Stage] = Field(
        frozenset(), description="Stages that can never run here (see `leastwise.ladder`)."
    )
    alpha_pass: float = Field(gt=0, lt=1)
    alpha_fail: float = Field(gt=0, lt=1)


class ExpectedCost(Result):
    """One stage's expected cost."""

    usd: float = Field(ge=0)
    calls: float = Field(0.0, ge=0, description="Calls that are paid for.")
    steps: tuple[str, ...] = Field((), description="The arithmetic, a line each.")


def expected_costs(use_case: UseCase, facts: Facts) -> dict[Stage, ExpectedCost]:
    """The expected cost of every stage (rule 6); a stage that can never run costs nothing.

    Raises BadInput where a figure is negative or not a number.
    """
    return {stage: _expected(use_case, stage, facts) for stage in LADDER}


def _expected(use_case: UseCase, stage: Stage, facts: Facts) -> ExpectedCost:
    if stage in facts.ruled_out:
        return ExpectedCost(usd=0.0, steps=("can never run",))
    if stage in ("prompt", "rag", "cache"):
        return _asked(use_case, stage, facts)
    if stage == "fine_tune" and use_case.training.managed:
        return _trained_at_host(use_case, facts)
    if stage in ("fine_tune", "pretrain"):
        return _trained(use_case, stage, facts)
    if stage == "distill":
        return _distilled(use_case, facts)
    return _self_hosted(use_case, facts)


def _self_hosted(use_case: UseCase, facts: Facts) -> ExpectedCost:
    """The machine while the best candidate is measured on it."""
    n = examples_of(use_case, "self_host", facts).examples
    seconds = START_S + n / facts.requests_per_s
    usd = hosting_hour_usd(use_case) * seconds / 3600
    how = f"{START_S:g} s to start + {n} requests / {facts.requests_per_s:.3g} a second"
    return ExpectedCost(usd=usd, steps=(f"own machine: ({how}) × ${hosting_hour_usd(use_case):.4g} an hour",))


def examples_of(use_case: UseCase, stage: Stage, facts: Facts) -> ExpectedLength:
    """About how many gate examples decide a stage's candidate, and whether they are expected to pass it.

    Quality decides first where it fails; without a guess, by the median over all qualities. To pass, every share must
    be decided, and latency. Where cost or latency will surely fail, quality is measured to its end all the same.
    """
    most = max(facts.rows.get("gate", 0), 1)
    by_quality = _by_quality(use_case, stage, facts)
    n = by_quality.examples
    if by_quality.passes:
        n = max([n, *_to_pass_the_rest(use_case, facts)])
    return ExpectedLength(min(_looks(n), most), by_quality.passes and stage not in facts.cannot_pass)


def _by_quality(use_case: UseCase, stage: Stage, facts: Facts) -> ExpectedLength:
    quality = use_case.requirements.quality
    if quality is None:
        return ExpectedLength(LOOK, passes=True)
    guesses = [facts.quality[stage]] if stage in facts.quality else [at / 20 for at in range(1, 20)]
    alphas = facts.alpha_pass, facts.alpha_fail
    lengths = sorted(expected_examples(guess, quality.bound, quality.margin, *alphas) for guess in guesses)
    is_likely = 2 * sum(length.passes for length in lengths) >= len(lengths)
    return ExpectedLength(lengths[len(lengths) // 2].examples, is_likely)


def _to_pass_the_rest(use_case: UseCase, facts: Facts) -> Iterator[int]:
    for name, limit in use_case.requirements.bounds.items():
        if name == "p95_latency_ms":
            yield examples_for_p95(facts.alpha_pass)
        elif name == "adherence":
            yield expected_examples(1.0, limit.bound, limit.margin, facts.alpha_pass, facts.alpha_fail).examples


def _looks(examples: int) -> int:
    return max(1, math.ceil(examples / LOOK)) * LOOK


def _asked(use_case: UseCase, stage: Stage, facts: Facts) -> ExpectedCost:
    """Every try of every model, or up to the first that is expected to pass."""
    length = examples_of(use_case, stage, facts)
    tries = tries_of(use_case, stage, facts)
    if length.passes or stage == "cache":
        tries = tries[:1]
    requests = length.examples + _beside(use_case, stage, facts, passes=length.passes)
    if stage == "cache":
        replayed = min(facts.rows.get("traffic", length.examples), use_case.caching.replay_requests)
        requests = round(replayed * (1 - facts.repeat_share))  # all of it, each text once
        requests += 0 if facts.traffic_is_scored else length.examples
    usd, calls, steps = 0.0, 0, []
    for each in tries:
        usage = request_usage(use_case, stage, facts.sizes, each.constrained)
        usage = replace(usage, output_tokens=usage.output_tokens + each.thinking_tokens)
        spent = requests * each.price.usd(usage)
        usd, calls = usd + spent, calls + requests
        steps.append(
            f"{requests} calls × ({usage.input_tokens} tokens in, {usage.cached_tokens} of them cached, "
            f"{usage.output_tokens} out) = ${spent:.4g}"
        )
    prices, dev = [each.price for each in tries], facts.rows.get("dev", 0)
    if found := expected_search(use_case, stage, dev, usage, prices, facts.prices):
        usd, calls, steps = usd + found.usd, calls + found.calls, [*steps, found.step]
    if stage == "prompt" and use_case.offers_cascades and tries[0].price != tries[-1].price:
        pair, how = _offered_cascade(use_case, tries, facts)
        usd, calls, steps = usd + pair.usd, calls + round(pair.calls), [*steps, how]
    graded = length.examples if stage == "cache" and not facts.traffic_is_scored else calls
    usd, calls = usd + _grading_usd(use_case, facts, graded), calls + (graded if facts.judge_price else 0)
    return ExpectedCost(usd=usd, calls=calls, steps=tuple(steps))


def _beside(use_case: UseCase, stage: Stage, facts: Facts, passes: bool) -> int:
    """Requests of one try beside its gate rows: asked again, in other words, and (where it passes) out of scope and
    shifted.
    """
    again = use_case.consistency
    repeated = min(again.rows, facts.rows.get("gate", again.rows)) * (again.samples + 1) if again else 0
    own = {"ood_decline": "out_of_scope", "shift_quality": "shifted"}
    bounds = {own[name]: limit for name, limit in use_case.requirements.bounds.items() if name in own and passes}
    beyond = 0
    for table, limit in bounds.items():
        needed = expected_examples(1.0, limit.bound, limit.margin, facts.alpha_pass, facts.alpha_fail)
        beyond += min(_looks(needed.examples), facts.rows.get(table, 0))
    return repeated + facts.rows.get("paraphrases", 0) + beyond


def _offered_cascade(use_case: UseCase, tries: Sequence[Try], facts: Facts) -> tuple[ExpectedCost, str]:
    """The dev rows both models of a cascade answer to choose its threshold, at the cheapest and the dearest price."""
    rows = min(CASCADE_DEV_ROWS, facts.rows.get("dev", 0))
    usage = request_usage(use_case, "prompt", facts.sizes)
    usd = rows * sum(each.price.usd(usage) for each in (tries[0], tries[-1]))
    return ExpectedCost(usd=usd, calls=2 * rows), f"a cascade: {rows} dev rows × 2 models = ${usd:.4g}"


@dataclass(frozen=True)
class Try:
    price: Price
    constrained: bool
    thinking_tokens: int


def tries_of(use_case: UseCase, stage: Stage, facts: Facts) -> list[Try]:
    """Every allowed and priced model, unconstrained and constrained or as a search finds it, cheapest first."""
    is_tried_twice = use_case.task.can_be_constrained and stage != "cache" and not use_case.searches
    models = [m for m in use_case.models.candidates if use_case.may_be_sent_to(m) and m.uri in facts.prices]
    tries = [
        Try(facts.prices[model.uri], constrained, model.expected_reasoning_tokens)
        for model in models
        for constrained in ((False, True) if is_tried_twice else (False,))
    ]
    return sorted(tries, key=lambda each: (each.price.input, each.price.output, each.constrained))


def _grading_usd(use_case: UseCase, facts: Facts, calls: int) -> float:
    """Dollars of that many grades and of what people graded: the rubric and the material in, a few tokens and what is
    thought before them out.
    """
    if facts.judge_price is None:
        return 0.0
    rubric = use_case.judge.system(use_case.task.instruction) if use_case.judge else ""
    material = facts.sizes.text + 2 * facts.sizes.answer  # an answer and a reference
    tokens_in = tokens_of(len(rubric) + material) + 2 * MESSAGE_TOKENS
    model, graded = use_case.judge_model, facts.rows.get("graded", 0)
    thinking = model.expected_reasoning_tokens if model else 0
    return (calls + graded) * facts.judge_price.usd(Usage(tokens_in, 0, 0, CONSTRAINT_TOKENS + thinking))


def _trained(use_case: UseCase, stage: Stage, facts: Facts) -> ExpectedCost:
    """Training alone: a trained candidate answers from a server of ours, and nothing is bought."""
    if facts.hardware is None or not facts.base_parameters:
        return ExpectedCost(usd=0.0, steps=("hardware or model size unknown",))
    training = use_case.training
    tokens = training_tokens(use_case, facts.sizes, facts.rows)
    work = tokens * training_operations(training.method, training.upper_blocks_share)
    if stage == "pretrain":
        packed = training.pretrain_steps * training.batch_size * PACKED_TOKENS
        tokens += packed
        work += packed * training_operations(training.pretrain_method, training.upper_blocks_share)
    share = work / tokens / FLOPS_PER_PARAMETER_AND_TOKEN
    hours = training_hours(facts.base_parameters, tokens * share, facts.hardware.flops_per_s, 1.0)
    usd = hours * facts.hardware.usd_per_hour
    grading, calls = 0.0, 0
    if facts.judge_price:
        calls = examples_of(use_case, stage, facts).examples
        grading = _grading_usd(use_case, facts, calls)
    operations = FLOPS_PER_PARAMETER_AND_TOKEN * share
    return ExpectedCost(
        usd=usd + grading,
        calls=calls,
        steps=(
            f"{facts.base_parameters:.3g} parameters × {tokens:,.0f} tokens × {operations:.2g} operations / "
            f"{facts.hardware.flops_per_s:.2g} a second ({facts.hardware.name}) = {hours * 60:.2g} minutes",
            f"{hours:.3g} h × ${facts.hardware.usd_per_hour:.4g} an hour = ${usd:.4g}",
        ),
    )


def _trained_at_host(use_case: UseCase, facts: Facts) -> ExpectedCost:
    """What the host charges for training, and for each answer of what it trained."""
    training = hosted_training(use_case, facts.sizes, facts.rows)
    usage = request_usage(use_case, "fine_tune", facts.sizes)
    calls = examples_of(use_case, "fine_tune", facts).examples + _beside(use_case, "fine_tune", facts, passes=True)
    asking = calls * facts.base_price.usd(usage) if facts.base_price else 0.0
    asked = f"{calls} calls × ({usage.input_tokens} tokens in, {usage.output_tokens} out) = ${asking:.4g}"
    return ExpectedCost(
        usd=training.usd + asking + _grading_usd(use_case, facts, calls), calls=calls, steps=(training.step, asked)
    )


def _distilled(use_case: UseCase, facts: Facts) -> ExpectedCost:
    """Labels of an api teacher, and the student's training."""
    labels = min(facts.rows.get("unlabelled", 0), use_case.training.teacher_labels)
    usage = request_usage(use_case, "rag" if use_case.models.embedder else "prompt", facts.sizes)
    buying, calls = 0.0, 0
    steps = [f"{labels:,} labels by a trained teacher, in process: nothing is bought"]
    if facts.teacher_is_asked:
        dearest = max(facts.prices.values(), key=lambda price: price.usd(usage))
        buying, calls = labels * dearest.usd(usage, batch=use_case.training.label_in_batches), labels
        steps = [f"{labels:,} labels × {usage.input_tokens} tokens = ${buying:.4g}"]
    training = 0.0
    if facts.hardware and facts.student_parameters:
        student = use_case.training.student
        examples = labels * student.epochs if student.kind == "encoder" else student.max_examples
        each = tokens_of(facts.sizes.text)
        tokens = examples * (min(each, student.max_tokens) if student.kind == "encoder" else each)
        hours = training_hours(facts.student_parameters, tokens, facts.hardware.flops_per_s, 1.0)
        hours += RUNTIMES_S / 3600 if student.kind == "encoder" else 0.0
        training = hours * facts.hardware.usd_per_hour
        steps.append(f"student: {hours * 60:.2g} minutes = ${training:.4g}")
    return ExpectedCost(usd=buying + training, calls=calls, steps=tuple(steps))
