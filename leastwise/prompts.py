"""Prompt layout that caches well: stable parts first, the request last, nothing that changes from call to call.

It sends nothing and counts no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from leastwise.candidate import Prompt, Shot
from leastwise.part import Part
from leastwise.task import Task
from leastwise.use_case import UseCase


class Turn(Part):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


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


def short_prompt(task: Task) -> str:
    """The system prompt of a trained candidate: the labels are in the weights."""
    return task.instruction.strip()


def trained_prompt(use_case: UseCase) -> str:
    """The system prompt the use case's trained candidates are trained and asked with.

    It may be empty, but it is always sent: chat templates put a longer one of their own where there is none.
    """
    return short_prompt(use_case.task) if use_case.training.prompt == "instruction" else ""


def render(
    prompt: Prompt, text: str, *, documents: Sequence[str] = (), examples: Sequence[Shot] = (), enumerated: bool = True
) -> tuple[Turn, ...]:
    """The messages for one request: system, fixed shots, then one user turn with what was retrieved and the text.

    Retrieved examples are ordered as given; put the most similar last, next to the request. `enumerated`: the answers are
    labels, which a constrained answer wraps in JSON; a record is JSON already.
    """
    turns = [Turn(role="system", content=prompt.system)]
    for shot in (*prompt.shots, *examples):
        turns += [
            Turn(role="user", content=shot.text),
            Turn(role="assistant", content=_shown(shot.label, prompt.constrained and enumerated)),
        ]
    context = "".join(f"[{i}] {document}\n" for i, document in enumerate(documents, 1))
    turns.append(Turn(role="user", content=f"{context}{text}"))
    return tuple(turns)


def _shown(label: str, wrapped: bool) -> str:
    """An example's answer in the format the request is held to: a model copies the form of its examples."""
    return json.dumps({"label": label}) if wrapped else label
