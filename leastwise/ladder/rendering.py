"""The messages of one request, laid out so that they cache well: stable parts first, the request last.

It sends nothing, retrieves nothing and counts no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from leastwise.ladder.candidate import Prompt, Shot
from leastwise.part import Part


class Turn(Part):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def render(
    prompt: Prompt, text: str, *, documents: Sequence[str] = (), examples: Sequence[Shot] = (), enumerated: bool = True
) -> tuple[Turn, ...]:
    """The messages for one request: system, fixed shots, then one user turn with what was retrieved and the text.

    Retrieved examples are ordered as handed in; put the most similar last, next to the request. `enumerated`: the
    answers are labels, which a constrained answer wraps in JSON; a record is JSON already.
    """
    turns = [Turn(role="system", content=prompt.system)]
    for shot in (*prompt.shots, *examples):
        turns += [
            Turn(role="user", content=shot.text),
            Turn(role="assistant", content=_answer(shot.label, prompt.constrained and enumerated)),
        ]
    context = "".join(f"[{i}] {document}\n" for i, document in enumerate(documents, 1))
    turns.append(Turn(role="user", content=f"{context}{text}"))
    return tuple(turns)


def _answer(label: str, wrapped: bool) -> str:
    """An example's answer in the format the request is held to: a model copies the form of its examples."""
    return json.dumps({"label": label}) if wrapped else label
