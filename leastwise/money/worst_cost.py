"""What a stage may cost at worst, before it starts: calls x tokens for answers, hours for training.

Coarse so far: token counts are upper limits taken from context length, and training speed is a stated constant. It
reads no data; row counts and prices are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping

from leastwise.evidence.halving import schedule
from leastwise.money.economics import HOURS_PER_MONTH
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.judge import GRADE_TOKENS
from leastwise.use_case.price import Price

PROMPT_TOKENS: dict[Stage, int] = {"prompt": 500, "rag": 900, "cache": 900, "fine_tune": 200, "pretrain": 200}
JUDGE_TOKENS = (600, 40)  # rubric, input and answer; the grade in its JSON, without what is thought before it
EXAMPLES_PER_S = 4.0
COUNTED = ("gate", "traffic", "out_of_scope", "shifted", "unlabelled", "graded", "paraphrases")


def worst_costs(
    use_case: UseCase,
    prices: Mapping[str, Price],
    base_price: Price | None,
    rows: Mapping[str, int],
    judge_price: Price | None = None,
) -> dict[Stage, float]:
    """Dollars of every stage at worst (rule 6); `rows` has a count for each of COUNTED."""
    at_gate = rows["gate"] + rows["out_of_scope"] + rows["shifted"]
    ways = 2 if use_case.task.can_be_constrained else 1
    a_grade = judge_price.worst_case_usd(JUDGE_TOKENS[0], most_grade_tokens(use_case)) if judge_price else 0.0
    grading = a_grade * (rows["gate"] + rows["shifted"])
    worst: dict[Stage, float] = dict.fromkeys(LADDER, 0.0)
    for stage in ("prompt", "rag"):
        calls = sum(_usd_a_call(use_case, price, stage) for price in prices.values())
        asking = calls * (at_gate + _repeated(use_case, rows)) * ways
        worst[stage] = asking + grading * ways * len(prices)
    dearest = max(prices.values(), key=lambda p: p.input)
    guarded = at_gate + 2 * use_case.guard.dev_rows if use_case.offers_guards else 0
    worst["rag"] += _usd_a_call(use_case, dearest, "rag") * guarded + (grading if guarded else 0.0)
    worst["cache"] = _usd_a_call(use_case, dearest, "cache") * rows["traffic"]
    training = worst_training_usd(use_case)
    served = _usd_a_call(use_case, base_price, "fine_tune") * (at_gate + guarded) if base_price else 0.0
    worst["fine_tune"] = training + served + grading
    worst["pretrain"] = training + worst_pretraining_usd(use_case) + served + grading
    labels = min(rows["unlabelled"], use_case.training.teacher_labels)
    worst["distill"] = _usd_a_call(use_case, dearest, "rag") * labels + worst_student_training_usd(use_case)
    worst["self_host"] = hosting_hour_usd(use_case) + grading
    if judge_price:  # once, whichever stage is first: what people graded, and the winner on test
        worst["prompt"] += a_grade * (rows["graded"] + use_case.confirm_rows)
        worst["cache"] += a_grade * rows["traffic"]
    return worst


def _repeated(use_case: UseCase, rows: Mapping[str, int]) -> int:
    """Rows that are asked again: at a temperature and once as they were, and each paraphrase with its row."""
    again = use_case.consistency
    sampled = again.rows * (again.samples + 1) if again else 0
    return sampled + 2 * rows.get("paraphrases", 0)


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


def _usd_a_call(use_case: UseCase, price: Price, stage: Stage) -> float:
    tokens = min(PROMPT_TOKENS[stage], max(m.context_tokens for m in use_case.models.candidates))
    answer = use_case.traffic.output_tokens
    return price.worst_case_usd(tokens, max(m.most_output_tokens(answer) for m in use_case.models.candidates))


def most_grade_tokens(use_case: UseCase) -> int:
    """The most output tokens a grade is billed for, with what the judge thinks before it."""
    judge, model = use_case.judge, use_case.judge_model
    if judge is None or model is None:
        return JUDGE_TOKENS[1]
    return model.most_output_tokens(JUDGE_TOKENS[1] - GRADE_TOKENS + judge.output_tokens)
