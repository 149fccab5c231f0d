"""What a stage may cost at worst, before it starts: calls x tokens for answers, hours for training.

Coarse so far: token counts are upper limits taken from context length, and training speed is a stated constant. It reads
no data; row counts and prices are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping

from leastwise.evidence.halving import schedule
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.price import Price

PROMPT_TOKENS: dict[Stage, int] = {"prompt": 500, "rag": 900, "cache": 900, "fine_tune": 200, "pretrain": 200}
JUDGE_TOKENS = (600, 40)  # rubric, input and answer; the grade in its JSON
EXAMPLES_PER_S = 4.0
COUNTED = ("gate", "traffic", "out_of_scope", "shifted", "unlabelled", "graded", "paraphrases")


def worst_costs(
    use_case: UseCase,
    prices: Mapping[str, Price],
    base_price: Price | None,
    rows: Mapping[str, int],
    judge_price: Price | None = None,
) -> dict[Stage, float]:
    """Dollars of every stage at worst; `rows` has a count for each of COUNTED."""
    judged = rows["gate"] + rows["out_of_scope"] + rows["shifted"]
    ways = 2 if use_case.task.can_be_constrained else 1
    grading = judge_price.worst_case_usd(*JUDGE_TOKENS) * (rows["gate"] + rows["shifted"]) if judge_price else 0.0
    found: dict[Stage, float] = dict.fromkeys(LADDER, 0.0)
    repeated = (
        use_case.consistency.rows * (use_case.consistency.samples + 1) if use_case.consistency else 0
    )  # and once as it was
    repeated += 2 * rows.get("paraphrases", 0)  # each, and the row it paraphrases
    for stage in ("prompt", "rag"):
        asking = sum(_usd_a_call(use_case, price, stage) for price in prices.values()) * (judged + repeated) * ways
        found[stage] = asking + grading * ways * len(prices)
    dearest = max(prices.values(), key=lambda p: p.input)
    guarded = judged + 2 * use_case.guard.dev_rows if use_case.offers_guards else 0
    found["rag"] += _usd_a_call(use_case, dearest, "rag") * guarded + (grading if guarded else 0.0)
    found["cache"] = _usd_a_call(use_case, dearest, "cache") * rows["traffic"]
    training = worst_training_usd(use_case)
    served = _usd_a_call(use_case, base_price, "fine_tune") * (judged + guarded) if base_price else 0.0
    found["fine_tune"] = training + served + grading
    found["pretrain"] = training + worst_pretraining_usd(use_case) + served + grading
    labels = min(rows["unlabelled"], use_case.training.teacher_labels)
    found["distill"] = _usd_a_call(use_case, dearest, "rag") * labels + worst_student_training_usd(use_case)
    found["self_host"] = hosting_hour_usd(use_case) + grading
    if judge_price:  # once, whichever stage is first: what people graded, and the winner on test
        found["prompt"] += judge_price.worst_case_usd(*JUDGE_TOKENS) * (rows["graded"] + use_case.confirm_rows)
        found["cache"] += judge_price.worst_case_usd(*JUDGE_TOKENS) * rows["traffic"]
    return found


def worst_training_usd(use_case: UseCase) -> float:
    """Dollars one training may cost at worst: its examples, a search's too, at a slow EXAMPLES_PER_S on the machine that is paid."""
    wanted = use_case.training
    searched = (
        schedule(wanted.search.trials, wanted.search.first_examples, wanted.max_examples) if wanted.search else ()
    )
    return (
        (wanted.max_examples + sum(each.trials * each.examples for each in searched))
        / EXAMPLES_PER_S
        / 3600
        * use_case.training.machines_usd_per_hour
    )


def worst_pretraining_usd(use_case: UseCase) -> float:
    """Dollars continued pre-training may cost at worst: as much as a training, or its own packed sequences where they are more."""
    wanted = use_case.training
    sequences = wanted.pretrain_steps * wanted.batch_size
    return max(worst_training_usd(use_case), sequences / EXAMPLES_PER_S / 3600 * wanted.machines_usd_per_hour)


def worst_student_training_usd(use_case: UseCase) -> float:
    """Dollars training the student may cost at worst: a quarter of a training for an encoder, its examples for a causal one."""
    student = use_case.training.student
    if student.kind == "encoder":
        return worst_training_usd(use_case) / 4
    return student.max_examples / EXAMPLES_PER_S / 3600 * use_case.training.machines_usd_per_hour


def hosting_hour_usd(use_case: UseCase) -> float:
    """Dollars of one hour of an own machine (a month has 730)."""
    return use_case.hosting.usd_per_month_per_machine / 730


def _usd_a_call(use_case: UseCase, price: Price, stage: Stage) -> float:
    tokens = min(PROMPT_TOKENS[stage], max(m.context_tokens for m in use_case.models.candidates))
    return price.worst_case_usd(tokens, use_case.traffic.output_tokens)
