"""Trained weights at work: answers in process in batches, and apart from that over HTTP for the latency.

Nothing is bought in process: the dollars of an answer are what its venue would bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import PlainAnswerer, usd_per_retraining
from leastwise.answering.prompts import fit_prompts
from leastwise.answering.served import ServedAnswerer
from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.rendering import Turn
from leastwise.metrics.answer import Answer
from leastwise.models import label_likelihood, weights
from leastwise.models.causal_model import Generator, tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.models.machine import THREADS
from leastwise.money.venue_cost import fixed_usd_per_request
from leastwise.stores import storage
from leastwise.stores.answer_store import StoredAnswer, answer_key, stored_now
from leastwise.use_case.price import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

AGAIN_AT_ONCE = 8  # rows in a batch when asked again: rounding may depend on a row's company

Chat = list[dict[str, str]]


class TrainedAnswerer(PlainAnswerer):
    """An adapter on its base, or a model of its own."""

    def __init__(self, work: Workspace, candidate: Candidate, stack: ExitStack, confident: bool = False) -> None:
        self._work, self._candidate, self._stack, self._confident = work, candidate, stack, confident
        self.price = work.catalogue.price_in_venue(candidate)
        self.usd_worst_case = work.catalogue.worst_case_usd(candidate)

    @cached_property
    def _http(self) -> ServedAnswerer:
        return ServedAnswerer(self._work, self._candidate, self._stack, confident=self._confident)

    @cached_property
    def _usd_per_retraining(self) -> float:
        return usd_per_retraining(self._work, self._adapter)

    @cached_property
    def fixed_usd_per_request(self) -> float:
        """A request's share of what is paid by the month, retraining among it."""
        venue = self._candidate.venue
        speed = self._http.capacity.requests_per_s if venue == "self_host" else None
        return fixed_usd_per_request(self._work.use_case, venue, speed, self._usd_per_retraining)

    def figures(self) -> dict[str, float]:
        """What a retraining's compute comes to, and the capacity of an own machine where it was measured."""
        served = self._http.figures() if "_http" in self.__dict__ else {}
        return served | {"usd.per_retraining": self._usd_per_retraining}

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """Greedy answers in the order of the rows; kept, so that a rerun computes none again."""
        return [self._priced(answer) for answer in self._generated(self._chats(rows))]

    def label_probabilities(self, rows: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.floating]:
        """How likely each of these labels is the answer, shape (rows, labels), rows sum to 1; nothing is kept."""
        return label_likelihood.label_probabilities(self._generator, self._prompts(self._chats(rows)), labels)

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        """Answers generated anew whatever is stored, in batches of another size."""
        texts = self._generate(self._prompts(self._chats(rows)), AGAIN_AT_ONCE)
        return [Answer(text, None, 0.0, from_store=True, confidence=sure) for text, sure in texts]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        """The same requests over HTTP at the traffic's concurrency, from the server the venue would run."""
        return self._http.timed(rows, self._http.answer(rows))

    def _chats(self, rows: pd.DataFrame) -> list[Chat]:
        fitted = fit_prompts(self._work, self._candidate, list(rows["text"]))
        return [_chat(each.turns) for each in fitted]

    def _prompts(self, chats: Sequence[Chat]) -> list[str]:
        return [format_chat(self._base, chat) for chat in chats]

    @cached_property
    def _base(self) -> Path:
        return weights.materialize(self._candidate.model, self._work.home)

    @cached_property
    def _adapter(self) -> Path:
        assert self._candidate.weights is not None
        return storage.fetch(self._candidate.weights.uri, self._work.fetched)

    @cached_property
    def _generator(self) -> Generator:
        return Generator(self._base, self._adapter, threads=THREADS)

    def _generate(self, prompts: list[str], batch_size: int | None = None) -> list[tuple[str, float | None]]:
        """What is generated for each prompt, with its probability where that is wanted."""
        limit = self._work.use_case.traffic.output_tokens
        more = {} if batch_size is None else {"batch_size": batch_size}
        if self._confident:
            return [(text, sure) for text, sure in self._generator.confident(prompts, limit, **more)]
        return [(text, None) for text in self._generator.answer(prompts, limit, **more)]

    def _generated(self, chats: list[Chat]) -> list[StoredAnswer]:
        keys = [self._key(chat) for chat in chats]
        stored = self._work.answers.get_many(keys)
        missing = [at for at, key in enumerate(keys) if key not in stored]
        prompts = self._prompts([chats[at] for at in missing])
        for at, prompt, (text, sure) in zip(missing, prompts, self._generate(prompts) if missing else [], strict=True):
            stored[keys[at]] = stored_now(text, "stop", self._usage(prompt, text), 0.0, sure)
            self._work.answers.put(keys[at], stored[keys[at]])
        return [stored[key] for key in keys]

    def _key(self, chat: Chat) -> str:
        assert self._candidate.weights is not None
        return answer_key(
            model=self._candidate.model,
            revision=self._candidate.revision,
            weights=self._candidate.weights.revision,
            messages=chat,
            max_tokens=self._work.use_case.traffic.output_tokens,
            engine="in process, confident" if self._confident else "in process",
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
            confidence=stored.confidence,
        )


def _chat(turns: Sequence[Turn]) -> Chat:
    return [turn.model_dump() for turn in turns]
