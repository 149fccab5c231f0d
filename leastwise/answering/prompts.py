"""What a candidate's model is shown for a text: the prompt, what is retrieved for it, and no more than its context
takes.

Where the whole would be too long the documents ranked lowest go first, then the examples farthest from the text. It
asks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.answering.retrieval import Hit, open_index
from leastwise.answering.shots import fixed_shots, shot
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt, Shot
from leastwise.ladder.rendering import Turn, render
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.money.token_counts import CHOICE_TOKENS, ample_tokens
from leastwise.rows.question import Question
from leastwise.use_case.prompts import system_prompt

if TYPE_CHECKING:
    pass

LEAST_CHARS_PER_TOKEN = 2.0  # below every tokenizer's average for code: what fits by it needs no counting
TOKENS_PER_TURN = 8
ASKED = ("gate", "test", "out_of_scope", "shifted", "traffic")


@dataclass(frozen=True)
class FittedPrompt:
    """The messages for one text, and the ids of the documents in them, best first."""

    turns: tuple[Turn, ...]
    documents: tuple[str, ...]


def fit_prompts(work: Workspace, candidate: Candidate, texts: Sequence[str]) -> list[FittedPrompt]:
    """What is asked for each text; the most similar example comes last. BadInput for a text that no context is left
    for.
    """
    retriever, task = candidate.retriever, work.use_case.task
    examples: list[list[Shot]] = [[] for _ in texts]
    documents: list[list[Hit]] = [[] for _ in texts]
    if retriever and retriever.examples:
        nearest = open_index(work, "train").search(texts, retriever.examples, retriever.mode)
        examples = [[shot(task, hit.text, str(hit.label)) for hit in reversed(hits)] for hits in nearest]
    if retriever and retriever.documents:
        documents = open_index(work, "documents").search(texts, retriever.documents, retriever.mode)
    context = _Context(work.catalogue, candidate)
    return [context.fitted(*each) for each in zip(texts, examples, documents, strict=True)]


def check_room(question: Question, catalogue: Catalogue) -> None:
    """BadInput, before anything is asked, for a row that leaves no room in some model's context beside the fixed
    prompt.
    """
    use_case, tables = question.use_case, question.tables
    shots = fixed_shots(use_case.task, tables.get("train"), use_case.retrieval.fixed_examples)
    constrained = use_case.task.can_be_constrained
    prompt = Prompt(system=system_prompt(use_case.task), shots=shots, constrained=constrained)
    for model in filter(use_case.may_be_sent_to, use_case.models.candidates):
        context = _Context(catalogue, Candidate(stage="prompt", model=model.uri, venue=model.venue, prompt=prompt))
        for name in ASKED:
            rows = tables.get(name)
            for number, text in enumerate(rows["text"] if rows is not None else (), 1):
                context.fitted(text, [], [], where=f"data.{name}: row {number}")


class _Context:
    """How much one candidate's model can be shown."""

    def __init__(self, catalogue: Catalogue, candidate: Candidate) -> None:
        assert candidate.prompt is not None
        self._prompt, self._model, self._home = candidate.prompt, catalogue.model(candidate.model), catalogue.home
        self._is_label = catalogue.use_case.task.answers is not None
        constraint = CHOICE_TOKENS if candidate.prompt.constrained and self._is_label else 0
        self._room = self._model.context_tokens - catalogue.use_case.traffic.output_tokens - constraint

    def fitted(self, text: str, examples: list[Shot], documents: list[Hit], where: str = "") -> FittedPrompt:
        """The messages for a text with as many of the first documents and the last examples as there is room for."""
        while True:
            texts = [hit.text for hit in documents]
            turns = render(self._prompt, text, documents=texts, examples=examples, enumerated=self._is_label)
            if self._has_room_for(turns):
                return FittedPrompt(turns, tuple(hit.id for hit in documents))
            if not documents and not examples:
                raise BadInput(
                    f"{where or f'the text {text[:60]!r}'}: with the prompt around it it takes more than the "
                    f"{self._room:,} tokens that {self._model.uri} has for them; shorten it, lower "
                    "retrieval.fixed_examples, or set the model's context_tokens"
                )
            documents, examples = documents[:-1], examples if documents else examples[1:]

    def _has_room_for(self, turns: tuple[Turn, ...]) -> bool:
        texts, marks = [turn.content for turn in turns], TOKENS_PER_TURN * len(turns)
        if sum(ample_tokens(text, LEAST_CHARS_PER_TOKEN) for text in texts) + marks <= self._room:
            return True
        if not self._model.is_open or self._model.base_url:  # no tokenizer at hand
            return sum(map(ample_tokens, texts)) + marks <= self._room
        base = weights.materialize(self._model.uri, self._home)
        return len(tokenizer_of(str(base)).encode(format_chat(base, turns))) <= self._room
