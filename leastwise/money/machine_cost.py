"""What training costs beside what is asked: machines at worst, for their examples at a slow speed, tokens at a host
that trains, and an hour of a serving machine.

It measures no hardware: `leastwise.record.costing` adds what this machine is expected to take longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leastwise.evidence.halving import schedule
from leastwise.money.asked import Asked
from leastwise.money.economics import HOURS_PER_MONTH
from leastwise.money.request_usage import Sizes, request_usage
from leastwise.use_case import Stage, UseCase

EXAMPLES_PER_S = 4.0


def worst_machines_usd(use_case: UseCase, stage: Stage) -> float:
    """Dollars of the machines a stage trains on, at worst; 0 for one that trains nothing."""
    if stage == "fine_tune":
        return 0.0 if use_case.training.managed else worst_training_usd(use_case)
    if stage == "pretrain":
        return worst_training_usd(use_case) + worst_pretraining_usd(use_case)
    return worst_student_training_usd(use_case) if stage == "distill" else 0.0


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


def rows_trained_on(use_case: UseCase, rows: int) -> int:
    """The different rows of so many that one training sees: `max_examples` counts every pass."""
    return min(rows, max(1, use_case.training.max_examples // use_case.training.epochs))


def most_hosted_training_usd(use_case: UseCase, asked: Asked) -> float:
    """Dollars training at a host may cost at worst: every byte of what it is given a token, in every pass; 0 where
    nobody's host trains.
    """
    managed = use_case.training.managed
    if managed is None or managed.price is None:
        return 0.0
    tokens = asked.train.rows * asked.trained + asked.train.in_all
    return managed.price.usd(tokens * use_case.training.epochs)


def training_tokens(use_case: UseCase, sizes: Sizes, rows: Mapping[str, int]) -> float:
    """Tokens seen in one training: examples × (prompt, text and answer)."""
    each = request_usage(use_case, "fine_tune", sizes)
    examples = min(use_case.training.max_examples, rows.get("train", 0) or use_case.training.max_examples)
    return float(examples * (each.input_tokens + each.output_tokens))


@dataclass(frozen=True)
class HostedTraining:
    """Dollars a host is expected to charge for a training, and how that comes."""

    usd: float
    step: str


def hosted_training(use_case: UseCase, sizes: Sizes, rows: Mapping[str, int]) -> HostedTraining:
    """The training of a use case at its host, which takes whole passes and no more."""
    managed, each = use_case.training.managed, request_usage(use_case, "fine_tune", sizes)
    assert managed is not None and managed.price is not None
    seen = rows_trained_on(use_case, rows.get("train", 0)) * use_case.training.epochs
    tokens = seen * (each.input_tokens + each.output_tokens)
    step = f"trained at {managed.base.request_host}: {managed.price.in_words(tokens)}"
    return HostedTraining(managed.price.usd(tokens), step)


def training_operations(method: str, upper_blocks_share: float) -> float:
    """Operations a parameter and token of a training step.

    Forward through all blocks, backward through those above the lowest trained one: of 6, 2 are forward, 2 the gradient
    of activations, and 2 of weights, which LoRA hardly has.
    """
    return 2 + (4 if method == "full" else 2) * upper_blocks_share
