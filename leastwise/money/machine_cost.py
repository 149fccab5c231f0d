"""What machines cost at worst: those that train, for their examples at a slow speed, and an hour of a serving one.

It measures no hardware: `leastwise.record.costing` adds what this machine is expected to take longer.
"""

from __future__ import annotations

from leastwise.evidence.halving import schedule
from leastwise.money.economics import HOURS_PER_MONTH
from leastwise.use_case import Stage, UseCase

EXAMPLES_PER_S = 4.0


def worst_machines_usd(use_case: UseCase, stage: Stage) -> float:
    """Dollars of the machines a stage trains on, at worst; 0 for one that trains nothing."""
    if stage == "fine_tune":
        return worst_training_usd(use_case)
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
