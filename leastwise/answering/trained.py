"""Trained weights at work: served as production serves them, and in process in batches where they teach a student.

What a gate scores is the engine that will answer; what a student learns need not be. Nothing is bought in process: the
dollars of an answer are what its venue would bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Surroundings, usd_per_retraining
from leastwise.answering.prompts import fit_prompts
from leastwise.answering.served import ServedAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.content import identity
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.rendering import Turn
from leastwise.metrics.answer import Answer
from leastwise.models import label_likelihood
from leastwise.models.causal_model import Generator, tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.models.machine import THREADS
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.stores.answer_store import StoredAnswer, answer_key, stored_now
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

Chat = list[dict[str, str]]


class TrainedAnswerer(ServedAnswerer):
    """An adapter on its base, or a model of its own, over HTTP from the server its venue would run."""

    def __init__(self, work: Surroundings, candidate: Candidate, stack: ExitStack, confident: bool = False) -> None:
        super().__init__(work, candidate, stack, confident=confident)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """As `ServedAnswerer.answer`; nothing is bought of a server of ours."""
        return _unpaid(super().answer(rows))

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """As `ServedAnswerer.again`."""
        return _unpaid(super().again(rows))

    def samples(self, rows: pd.DataFrame, count: int, temperature: float) -> list[list[Answer]]:
        """As `ServedAnswerer.samples`."""
        return [_unpaid(each) for each in super().samples(rows, count, temperature)]

    @cached_property
    def _usd_per_retraining(self) -> float:
        return usd_per_retraining(self._work, self._work.trained(self._candidate))

    @cached_property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month, retraining among it."""
        venue = self._candidate.venue
        speed = self.capacity.requests_per_s if venue == "self_host" else None
        return fixed_usd_per_request(self._work.use_case, venue, speed, self._usd_per_retraining)

    def figures(self) -> dict[str, float]:
        """What a retraining's compute comes to, and the capacity of an own machine where it was measured."""
        return super().figures() | {"usd.per_retraining": self._usd_per_retraining}


def _unpaid(answers: Sequence[Answer]) -> list[Answer]:
    return [replace(answer, from_store=answer.text is not None) for answer in answers]


class InProcess:
    """The same weights asked in this process, many rows at a time."""

    def __init__(self, work: Workspace, candidate: Candidate) -> None:
        assert candidate.weights is not None
        self._work, self._candidate = work, candidate
        self.price = work.catalogue.price_in_venue(candidate)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Greedy answers in the order of the rows; kept, so that a rerun computes none again."""
        return [self._priced(answer) for answer in self._generated(self._chats(rows))]

    def label_probabilities(self, rows: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.floating]:
        """How likely each of these labels is the answer, shape (rows, labels), rows sum to 1; nothing is kept."""
        return label_likelihood.label_probabilities(self.generator, self._prompts(self._chats(rows)), labels)

    def _chats(self, rows: pd.DataFrame) -> list[Chat]:
        fitted = fit_prompts(self._work, self._candidate, list(rows["text"]))
        return [_chat(each.turns) for each in fitted]

    def _prompts(self, chats: Sequence[Chat]) -> list[str]:
        return [format_chat(self._base, chat) for chat in chats]

    @cached_property
    def _base(self) -> Path:
        return self._work.model_dir(self._candidate.model, self._candidate.revision)

    @cached_property
    def generator(self) -> Generator:
        """The model, loaded once."""
        return Generator(self._base, self._work.trained(self._candidate), threads=THREADS)

    def _generated(self, chats: list[Chat]) -> list[StoredAnswer]:
        keys = [self._key(chat) for chat in chats]
        stored = self._work.answers.get_many(keys)
        missing = [at for at, key in enumerate(keys) if key not in stored]
        prompts = self._prompts([chats[at] for at in missing])
        limit = self._work.use_case.traffic.output_tokens
        texts = self.generator.answer(prompts, limit) if missing else []
        for at, prompt, text in zip(missing, prompts, texts, strict=True):
            stored[keys[at]] = stored_now(text, "stop", self._usage(prompt, text), 0.0)
            self._work.answers.put(keys[at], stored[keys[at]])
        return [stored[key] for key in keys]

    def _key(self, chat: Chat) -> str:
        assert self._candidate.weights is not None
        return answer_key(
            model=identity(self._candidate.model),
            revision=self._candidate.revision,
            weights=self._candidate.weights.revision,
            messages=chat,
            max_tokens=self._work.use_case.traffic.output_tokens,
            engine="in process",
        )

    def _usage(self, prompt: str, text: str) -> Usage:
        tokenizer = tokenizer_of(str(self._base))
        return Usage(input_tokens=len(tokenizer.encode(prompt)), output_tokens=len(tokenizer.encode(text)) + 1)

    def _priced(self, stored: StoredAnswer) -> Answer:
        usage = stored.usage
        return Answer(
            text=stored.text,
            latency_ms=None,
            usd=self.price.usd(usage) if self.price else 0.0,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            from_store=True,
        )


def _chat(turns: Sequence[Turn]) -> Chat:
    return [turn.model_dump() for turn in turns]
