"""Prompt layout that caches well: stable parts first, the request last, nothing that changes from call to call.

It sends nothing and counts no tokens.
"""

from __future__ import annotations

import json

from leastwise.use_case.task import Task
from leastwise.use_case.use_case import UseCase


def system_prompt(task: Task) -> str:
    """The long system prompt: instruction and the demanded format, in the order of the use case."""
    return f"{task.instruction.strip()}\n{_demand(task)}"


def _demand(task: Task) -> str:
    if task.kind == "extraction":
        schema = json.dumps(task.json_schema, ensure_ascii=False, separators=(",", ":"))
        return f"Answer with one JSON object and nothing else, by this JSON schema: {schema}"
    decline = f" If the text fits none of them, answer {task.decline_label}." if task.decline_label else ""
    if task.kind == "classification":
        return f"Answer with exactly one of: {', '.join(task.labels)}.{decline} Answer with the label only."
    decline = f" If it cannot be answered, answer {task.decline_label}." if task.decline_label else ""
    return f"Answer in at most {task.max_words} words.{decline}"


def decision_prompt(task: Task) -> str:
    """What a decision model is asked: the instruction, for the interface itself lists the labels."""
    decline = f"\nIf the text fits none of the others, choose {task.decline_label}." if task.decline_label else ""
    return f"{task.instruction.strip()}{decline}"


def short_prompt(task: Task) -> str:
    """The system prompt of a trained candidate: the labels are in the weights."""
    return task.instruction.strip()


def trained_prompt(use_case: UseCase) -> str:
    """The system prompt the use case's trained candidates are trained and asked with.

    It may be empty, but it is always sent: chat templates put a longer one of their own where there is none.
    """
    return short_prompt(use_case.task) if use_case.training.prompt == "instruction" else ""
