"""What a candidate's model is shown for a text: the prompt, what is retrieved for it, and no more than its context takes.

Where the whole would be too long the documents ranked lowest go first, then the examples farthest from the text. It asks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.endpoints.request import CHOICE_TOKENS
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt, Shot
from leastwise.ladder.rendering import Turn, render
from leastwise.models import weights
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.rows.splits import CHARS_PER_TOKEN
from leastwise.use_case.prompts import system_prompt
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.retrieval import Hit
    from leastwise.answering.workspace import Workspace

LEAST_CHARS_PER_TOKEN, TOKENS_PER_TURN = (
    2.0,
    8,
)  # below every tokenizer's average for code: what fits by it needs no counting
ASKED = ("gate", "test", "out_of_scope", "shifted", "traffic")


@dataclass(frozen=True)
class Prompted:
    """The messages for one text, and the ids of the documents in them, best first."""

    turns: tuple[Turn, ...]
    documents: tuple[str, ...]


def prompted(work: Workspace, candidate: Candidate, texts: Sequence[str]) -> list[Prompted]:
    """What is asked for each text; the most similar example comes last. BadInput for a text that no context is left for."""
    retriever = candidate.retriever
    examples: list[list[Shot]] = [[] for _ in texts]
    documents: list[list[Hit]] = [[] for _ in texts]
    if retriever and retriever.examples:
        found = work.index("train").search(texts, retriever.examples, retriever.mode)
        examples = [[shot(work, hit.text, str(hit.label)) for hit in reversed(hits)] for hits in found]
    if retriever and retriever.documents:
        documents = work.index("documents").search(texts, retriever.documents, retriever.mode)
    context = _Context(work, candidate)
    return [context.fitted(*each) for each in zip(texts, examples, documents, strict=True)]


def shot(work: Workspace, text: str, label: str) -> Shot:
    """A labelled row as a worked example, its answer as the model should say it."""
    return Shot(text=text, label=completion_of(work.use_case.task, label))


def check_room(work: Workspace, fixed: tuple[Shot, ...]) -> None:
    """BadInput, before anything is asked, for a row that leaves no room in some model's context beside the fixed prompt."""
    prompt = Prompt(
        system=system_prompt(work.use_case.task), shots=fixed, constrained=work.use_case.task.can_be_constrained
    )
    for model in filter(work.use_case.may_be_sent_to, work.use_case.models.candidates):
        context = _Context(work, Candidate(stage="prompt", model=model.uri, venue=model.venue, prompt=prompt))
        for name in ASKED:
            rows: pd.DataFrame | None = work.tables.get(name)
            for number, text in enumerate(rows["text"] if rows is not None else (), 1):
                context.fitted(text, [], [], where=f"data.{name}: row {number}")


class _Context:
    """How much one candidate's model can be shown."""

    def __init__(self, work: Workspace, candidate: Candidate) -> None:
        assert candidate.prompt is not None
        self._work, self._prompt, self._model = work, candidate.prompt, work.model(candidate.model)
        self._is_label = work.use_case.task.answers is not None
        constraint = CHOICE_TOKENS if candidate.prompt.constrained and self._is_label else 0
        self._room = self._model.context_tokens - work.use_case.traffic.output_tokens - constraint

    def fitted(self, text: str, examples: list[Shot], documents: list[Hit], where: str = "") -> Prompted:
        """The messages for a text with as many of the first documents and the last examples as there is room for."""
        while True:
            shown = [hit.text for hit in documents]
            turns = render(self._prompt, text, documents=shown, examples=examples, enumerated=self._is_label)
            if self._has_room_for(turns):
                return Prompted(turns, tuple(hit.id for hit in documents))
            if not documents and not examples:
                raise BadInput(
                    f"{where or f'the text {text[:60]!r}'}: with the prompt around it it takes more than the {self._room:,} tokens that "
                    f"{self._model.uri} has for them; shorten it, lower retrieval.fixed_examples, or set the model's context_tokens"
                )
            documents, examples = documents[:-1], examples if documents else examples[1:]

    def _has_room_for(self, turns: tuple[Turn, ...]) -> bool:
        characters, marks = sum(len(turn.content) for turn in turns), TOKENS_PER_TURN * len(turns)
        if characters / LEAST_CHARS_PER_TOKEN + marks <= self._room:
            return True
        if not self._model.is_open or self._model.base_url:  # no tokenizer at hand
            return characters / CHARS_PER_TOKEN + marks <= self._room
        base = weights.materialize(self._model.uri, self._work.home)
        return len(tokenizer_of(str(base)).encode(format_chat(base, turns))) <= self._room
