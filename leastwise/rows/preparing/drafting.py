"""The use case that prepared rows make, as fields: what the rows say is filled in, what only a person knows is a draft.

It writes no file (see `case_text.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leastwise.evidence.examples_needed import MARGINS, examples_to_decide
from leastwise.money.token_counts import ample_tokens, likely_tokens
from leastwise.rows.preparing.kinds import MOST_LABELS, Task
from leastwise.rows.preparing.models_at_hand import Models
from leastwise.use_case import UseCase

DRAFTED = {"classification": 0.8, "extraction": 0.8, "free_text": 0.5}  # of quality, where nothing was measured
INSTRUCTIONS = {
    "classification": "Classify the text into exactly one of the labels.",
    "extraction": "Extract the record that the text describes, as JSON. Leave out what the text does not say.",
    "free_text": "Answer the request briefly and correctly.",
}
ADHERENCE, ADHERENCE_MARGINS = 0.95, (0.05, 0.1, 0.15, 0.2)
LEAST_OUTPUT, MOST_OUTPUT, ROOM = 12, 8192, 2.5  # tokens; ROOM as what is said where answers are cut off
MOST_INSTRUCTION = 4000
PROMPT_TOKENS = 300  # instruction and template, about
CHARACTERS_A_TOKEN = 2.5  # of texts that few tokenizers have seen; English has four
LEAST_TEXT, MOST_FIXED, SHOT_TOKENS = 100, 4, 40


@dataclass(frozen=True)
class Draft:
    """What a use case is drafted from."""

    name: str
    task: Task
    models: Models
    tables: Collection[str]
    instruction: str
    decline_label: str | None
    language: str
    split_by: str
    time_column: str
    output_tokens: int
    confirm_rows: int
    max_words: int
    fixed_examples: int

    def fields(self, bound: float, margin: float, adherence_margin: float) -> dict[str, object]:
        """The use case's fields, of a quality wanted like this."""
        task: dict[str, object] = {"kind": self.task.kind, "instruction": self.instruction}
        if self.task.kind == "classification":
            task["labels"] = list(self.task.labels)
        if self.decline_label:
            task["decline_label"] = self.decline_label
        if self.task.schema is not None:
            task["json_schema"] = self.task.schema
        if self.task.kind == "free_text":
            task |= {"metric": "token_f1", "max_words": self.max_words}
        data: dict[str, object] = {name: f"${{LEASTWISE_HOME}}/data/{self.name}/{name}.parquet" for name in self.tables}
        more = {"split_by": self.split_by, "time_column": self.time_column, "language": self.language}
        data |= {name: value for name, value in more.items() if value}
        return {
            "name": self.name,
            "task": task,
            "data": data,
            "requirements": {
                "quality": {"bound": bound, "margin": margin},
                "adherence": {"bound": ADHERENCE, "margin": adherence_margin},
            },
            "traffic": {"requests_per_month": 100_000, "concurrency": 2, "output_tokens": self.output_tokens},
            "models": dict(self.models.fields),
            "retrieval": {"fixed_examples": self.fixed_examples, "examples": 4 if self.models.are_embedded else 8},
            "budget_usd": 10,
            "budget_usd_per_month": 100,
            "approvals": {"pretrain": "never"},
            "confirm_rows": self.confirm_rows,
        }

    def use_case(self, bound: float, margin: float, adherence_margin: float) -> UseCase:
        """The same, checked."""
        return UseCase.model_validate(self.fields(bound, margin, adherence_margin))


def output_tokens(labels: Sequence[str]) -> int:
    """Tokens that the longest expected answer takes, with room."""
    longest = max((likely_tokens(label) for label in labels), default=0.0)
    return min(MOST_OUTPUT, max(LEAST_OUTPUT, math.ceil(ROOM * longest)))


def most_tokens(models: Models, labels: Sequence[str], cap: int) -> int:
    """The tokens that the smallest model has for a text beside instruction, answer and, where they are few, labels."""
    different = set(labels)
    listed = sum(2 * likely_tokens(label) + 2 for label in different) if len(different) <= MOST_LABELS else 0
    return max(LEAST_TEXT, int(models.context_tokens - cap - PROMPT_TOKENS - listed))


def fixed_examples(texts: Sequence[str], labels: Sequence[str], room: int) -> int:
    """How many examples stand in every prompt beside the longest text; a long example counts for all."""
    tokens = sorted(ample_tokens(text, CHARACTERS_A_TOKEN) for text in texts)
    longest_answer = max(ample_tokens(label, CHARACTERS_A_TOKEN) for label in labels)
    each = tokens[int(0.99 * (len(tokens) - 1))] + longest_answer + SHOT_TOKENS
    return max(0, min(MOST_FIXED, int((room - tokens[-1]) / each)))


def smallest_margin(bound: float, margins: Sequence[float], examples: int, alphas: tuple[float, float]) -> float:
    """The smallest of these margins that so many examples decide at that bound; the largest where none does."""
    fits = [each for each in margins if each < bound - 0.01 and examples_to_decide(bound, each, *alphas) <= examples]
    return min(fits, default=max(margins))


def bound_for(kind: str, lower: float | None, margin: float) -> float:
    """The bound that is suggested: what the reference surely reaches, to a hundredth; a guess where there is none."""
    suggested = DRAFTED[kind] if lower is None else math.floor(100 * lower) / 100
    return round(min(0.98, max(suggested, margin + 0.05)), 2)


def margins_of(given: float | None) -> Sequence[float]:
    """The margins of quality that may be taken."""
    return (given,) if given else MARGINS
