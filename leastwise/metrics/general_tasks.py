"""General tasks made from plain text: which of four continuations really follows? What a trained model should know.

It asks no model: who scores the choices (by their log-likelihood) is in `leastwise.evaluating.forgetting`. The form is
that of LAMBADA and HellaSwag (a context and continuations to tell apart), made without a model: the wrong continuations
are real ones of other texts of about the same length, so they are easier to tell from the right one than HellaSwag's,
which were chosen to deceive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import Field

from leastwise.part import Part

CHOICES = 4
HELD_OUT_OF = 5  # one text in five is held out
LEAST_WORDS = 16
_NEIGHBOURS = 12  # texts of nearest length from which wrong continuations are drawn


class GeneralTask(Part):
    """A context and choices to follow it, of which one is right."""

    id: str
    text: str = Field(description="The context.")
    choices: tuple[str, ...] = Field(min_length=2)
    label: str = Field(description="The right choice, one of `choices`.")


def is_held(text: str) -> bool:
    """Whether a general text is held out to measure with: one in five, by the hash of the text alone."""
    return _drawn("held", text) % HELD_OUT_OF == 0


def tasks_of(texts: Sequence[str], most: int) -> list[GeneralTask]:
    """At most `most` tasks, the same for the same set of texts whatever their order.

    A text of at least LEAST_WORDS words is cut after two thirds of them. The three wrong continuations come from the
    texts whose own are nearest in length (characters), drawn by hash. Fewer than four such texts give no task.
    """
    usable = sorted(
        {text for text in texts if len(text.split()) >= LEAST_WORDS}, key=lambda text: (_drawn("order", text), text)
    )
    parts = [_cut(text) for text in usable]
    if len(parts) < CHOICES:
        return []
    return [_task(at, parts) for at in range(min(most, len(parts)))]


def accuracy_choice(log_likelihoods: Sequence[float], choices: Sequence[str]) -> int:
    """Position of the choice with the highest log-likelihood a byte, the first among equals.

    Divided by the length in bytes, so that a short choice has no lead (`acc_norm` of EleutherAI's
    lm-evaluation-harness).
    """
    normed = [value / len(choice.encode()) for value, choice in zip(log_likelihoods, choices, strict=True)]
    return normed.index(max(normed))


def _cut(text: str) -> tuple[str, str]:
    words = text.split()
    at = 2 * len(words) // 3
    return " ".join(words[:at]), " " + " ".join(words[at:])


def _task(at: int, parts: Sequence[tuple[str, str]]) -> GeneralTask:
    context, right = parts[at]
    others = sorted((abs(len(tail) - len(right)), _drawn(context, tail), tail) for _, tail in parts if tail != right)
    wrong = sorted({tail for _, _, tail in others[:_NEIGHBOURS]}, key=lambda tail: _drawn(context, tail))[: CHOICES - 1]
    choices = sorted([right, *wrong], key=lambda tail: _drawn(f"place {context}", tail))
    return GeneralTask(
        id=f"general-{_drawn('id', context + right):016x}"[:24], text=context, choices=tuple(choices), label=right
    )


def _drawn(salt: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:8], "big")
