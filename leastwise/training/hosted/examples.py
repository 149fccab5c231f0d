"""The examples of a use case as a host is given them: chats, as the tuned model will be asked, one a line.

It puts nothing anywhere.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from leastwise.content import content_key
from leastwise.endpoints.tuning.words import Rows
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Prompt
from leastwise.ladder.rendering import render
from leastwise.money.machine_cost import rows_trained_on
from leastwise.money.token_counts import ample_tokens, most_request_tokens
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import trained_prompt
from leastwise.use_case.task import completion_of
from leastwise.use_case.training import ManagedTraining

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 5  # rows in one message


@dataclass(frozen=True)
class Example:
    """One chat, the answer last."""

    turns: tuple[tuple[str, str], ...]  # role, content

    @property
    def line(self) -> str:
        """As it stands in the file."""
        chat = [{"role": role, "content": content} for role, content in self.turns]
        return json.dumps({"messages": chat}, ensure_ascii=False)

    @property
    def most_tokens(self) -> int:
        """No tokenizer makes more of it."""
        return most_request_tokens(content for _, content in self.turns)


@dataclass(frozen=True)
class Examples:
    """What is trained on."""

    each: tuple[Example, ...]

    @cached_property
    def text(self) -> str:
        """The file."""
        return "".join(f"{example.line}\n" for example in self.each)

    @property
    def rows(self) -> Rows:
        """What no message may repeat."""
        return Rows(
            tuple(content for example in self.each for role, content in example.turns if role != "system"), self.text
        )

    @property
    def most_tokens(self) -> int:
        """The most tokens of one pass."""
        return sum(example.most_tokens for example in self.each)


def examples_of(use_case: UseCase, train: pd.DataFrame) -> Examples:
    """The rows one training sees, a seeded draw where there are more; masked as the use case masks prompts."""
    rows = list(zip(train["text"], train["label"], strict=True))
    seen = rows_trained_on(use_case, len(rows))
    drawn = rows if seen == len(rows) else random.Random(use_case.training.seed).sample(rows, seen)
    return Examples(tuple(_example(use_case, str(text), str(label)) for text, label in drawn))


def _example(use_case: UseCase, text: str, label: str) -> Example:
    asked = render(Prompt(system=trained_prompt(use_case)), text, enumerated=use_case.task.answers is not None)
    turns = (*((turn.role, turn.content) for turn in asked), ("assistant", completion_of(use_case.task, label)))
    return Example(turns)


def check_fit(use_case: UseCase, managed: ManagedTraining, train: pd.DataFrame) -> None:
    """BadInput that names the rows which are longer than the base takes, counted without its tokenizer."""
    room = managed.base.context_tokens
    rows = enumerate(zip(train["text"], train["label"], strict=True), 1)
    lengths = ((at, _example(use_case, str(text), str(label)).turns) for at, (text, label) in rows)
    long = [at for at, turns in lengths if sum(ample_tokens(content) for _, content in turns) > room]
    if long:
        raise BadInput(
            f"data.train: {_rows(long)}: as training examples longer than the {room:,} tokens of training.managed.base."
            "context_tokens (counted without its tokenizer); shorten them, or set what it does take"
        )


def _rows(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MOST_NAMED]))}{more}"


def training_key(use_case: UseCase, managed: ManagedTraining, examples: Examples) -> str:
    """Names a training by all that determines it: the rows, the base and how it is trained; not whose account."""
    base = (managed.base.uri, managed.base.revision)
    how = (str(use_case.training.epochs), str(managed.rank), repr(managed.learning_rate))
    return content_key("hosted training", *base, *how, examples.text)
