"""Prompt layout that caches well: stable parts first, the request last, nothing that changes from call to call.

It sends nothing and counts no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from leastwise.candidate import Prompt, Shot
from leastwise.use_case import Part, Task


class Turn(Part):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def system_prompt(task: Task) -> str:
    """The long system prompt: instruction and the answers that are allowed, in the order of the use case."""
    answers = ", ".join(task.labels)
    decline = f" If the text fits none of them, answer {task.decline_label}." if task.decline_label else ""
    return f"{task.instruction.strip()}\nAnswer with exactly one of: {answers}.{decline} Answer with the label only."


def short_prompt(task: Task) -> str:
    """The system prompt of a trained candidate: the labels are in the weights."""
    return task.instruction.strip()


def render(
    prompt: Prompt, text: str, *, documents: Sequence[str] = (), examples: Sequence[Shot] = ()
) -> tuple[Turn, ...]:
    """The messages for one request: system, fixed shots, then one user turn with what was retrieved and the text.

    Retrieved examples are ordered as given; put the most similar last, next to the request.
    """
    turns = [Turn(role="system", content=prompt.system)]
    for shot in (*prompt.shots, *examples):
        turns += [Turn(role="user", content=shot.text), Turn(role="assistant", content=_shown(shot.label, prompt))]
    context = "".join(f"[{i}] {document}\n" for i, document in enumerate(documents, 1))
    turns.append(Turn(role="user", content=f"{context}{text}"))
    return tuple(turns)


def _shown(label: str, prompt: Prompt) -> str:
    """An example's answer in the format the request is held to: a model copies the form of its examples."""
    return json.dumps({"label": label}) if prompt.constrained else label
