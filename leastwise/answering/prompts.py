"""What a candidate's model is shown for a text: the prompt, what is retrieved for it, and no more than its context
takes.

Where the whole would be too long the documents ranked lowest go first, then the examples farthest from the text. It
asks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.answering.answerer import Surroundings
from leastwise.answering.retrieval import Hit, looked_up
from leastwise.answering.retrieval.looking_up import LookedUp
from leastwise.errors import TextTooLong, refuse
from leastwise.ladder.candidate import Candidate, Prompt, Retriever, Shot
from leastwise.ladder.rendering import Turn, render, render_completion, render_decision
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.money.token_counts import CHOICE_TOKENS, OPTION_TOKENS, ample_tokens, most_tokens
from leastwise.rows.gate_rows import seeded
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.prompts import decision_prompt, system_prompt
from leastwise.use_case.task import Task, completion_of

if TYPE_CHECKING:
    import pandas as pd

LEAST_CHARS_PER_TOKEN = 2.0  # below every tokenizer's average for code: what fits by it needs no counting
TOKENS_PER_TURN = 8
ASKED = ("gate", "test", "dev", "out_of_scope", "out_of_scope_dev", "shifted", "traffic", "paraphrases")
MOST_NAMED = 5  # rows in one message
DRAWN, DRAWN_SETS = "shots", 2  # what drawn sets of examples are seeded with, and how many are tried


@dataclass(frozen=True)
class FittedPrompt:
    """The messages for one text (a completion's text is the only one), and the ids of the documents in them, best
    first.
    """

    turns: tuple[Turn, ...]
    documents: tuple[str, ...]


def shot(task: Task, text: str, label: str) -> Shot:
    """A labelled row as a worked example, its answer as the model should say it."""
    return Shot(text=text, label=completion_of(task, label))


def fixed_shots(task: Task, rows: pd.DataFrame | None, count: int) -> tuple[Shot, ...]:
    """The first row of each label in turn, in the order of the table; without labels the first rows; none
    without rows.
    """
    if rows is None:
        return ()
    labels = sorted(rows["label"].unique()) if task.answers is not None else None
    return _in_turn(task, rows, labels, count)


def shot_sets(task: Task, rows: pd.DataFrame | None, count: int, drawn: int) -> list[tuple[Shot, ...]]:
    """`fixed_shots`, then as many `drawn` sets of other rows, labels in turn as far as there are; alike ones once.

    Which examples help is not seen from them; drawn and tried, they outdid the best instruction optimisers (Wan et al.,
    NeurIPS 2024, arXiv 2406.15708).
    """
    sets = [fixed_shots(task, rows, count)]
    for draw in range(drawn if rows is not None and count else 0):
        assert rows is not None
        order = seeded(rows, f"{DRAWN} {draw}")
        labels = list(dict.fromkeys(order["label"])) if task.answers is not None else None
        sets.append(_in_turn(task, order, labels, count))
    return list(dict.fromkeys(each for each in sets if each))


def searched_shots(use_case: UseCase, train: pd.DataFrame | None) -> list[tuple[Shot, ...]]:
    """The sets of fixed examples that `prompt` may show, those of the use case first; one alone where none is searched
    for.
    """
    drawn = DRAWN_SETS if use_case.searches else 0
    return shot_sets(use_case.task, train, use_case.retrieval.fixed_examples, drawn)


def longest_of(sets: Sequence[tuple[Shot, ...]]) -> tuple[Shot, ...]:
    """The set with most tokens at worst; none where there is no set."""
    return max(sets, key=lambda each: sum(most_tokens(one.text + one.label) for one in each), default=())


def _in_turn(task: Task, rows: pd.DataFrame, labels: Sequence[str] | None, count: int) -> tuple[Shot, ...]:
    """The first row of each of these labels, then the second of each, until there are enough; without labels the first
    rows.
    """
    if labels is None:
        places = list(range(min(count, len(rows))))
    else:
        nth, rank = rows.groupby("label").cumcount(), {label: at for at, label in enumerate(labels)}
        by_turn = sorted(range(len(rows)), key=lambda at: (nth.iloc[at], rank[rows["label"].iloc[at]]))
        places = by_turn[:count]
    taken = rows.iloc[places]
    return tuple(shot(task, str(text), str(label)) for text, label in zip(taken["text"], taken["label"], strict=True))


def first_prompt(model: Model, task: Task, shots: tuple[Shot, ...], constrained: bool = False) -> Prompt:
    """What a model is asked with before anything was searched for; a decision model is given the labels as options."""
    if model.decides:
        return Prompt(system=decision_prompt(task), shots=shots, reading="decide")
    return Prompt(system=system_prompt(task), shots=shots, constrained=constrained)


def fit_prompts(work: Surroundings, candidate: Candidate, texts: Sequence[str]) -> list[FittedPrompt]:
    """What is asked for each text; the most similar example comes last. BadInput for a text that no context is left
    for.
    """
    retriever, task = candidate.retriever, work.use_case.task
    examples: list[list[Shot]] = [[] for _ in texts]
    documents: list[list[Hit]] = [[] for _ in texts]
    found = {each.table: _found(work, retriever, each, texts) for each in looked_up(retriever)} if retriever else {}
    if "train" in found:
        examples = [[shot(task, hit.text, str(hit.label)) for hit in reversed(hits)] for hits in found["train"]]
    if "documents" in found:
        documents = found["documents"]
    context = _Context(work.catalogue, candidate, work.tokenizer)
    return [context.fitted(*each) for each in zip(texts, examples, documents, strict=True)]


def _found(work: Surroundings, retriever: Retriever, where: LookedUp, texts: Sequence[str]) -> list[list[Hit]]:
    index = work.index(where.table, where.characters)
    return index.search(texts, where.count, retriever.mode, retriever.dense_share)


def check_room(question: Question, catalogue: Catalogue, *, has_teacher: bool = False) -> None:
    """BadInput, before anything is asked, that names the rows which leave no room in some model's context beside the
    fixed prompt; unlabelled text counts where a teacher may be asked for its labels.
    """
    use_case, tables = question.use_case, question.tables
    shots = longest_of(searched_shots(use_case, tables.get("train")))
    constrained = use_case.task.can_be_constrained
    problems: list[str] = []
    for model in filter(use_case.may_be_sent_to, use_case.models.candidates):
        prompt = first_prompt(model, use_case.task, shots, constrained)
        candidate = Candidate(stage="prompt", model=model.uri, venue=model.venue, prompt=prompt)
        names = (*ASKED, *(["unlabelled"] if has_teacher else []))
        problems += _without_room(tables, _context_of(catalogue, candidate), names)
    refuse(tuple(problems))


def check_room_of(question: Question, catalogue: Catalogue, candidate: Candidate) -> None:
    """BadInput, before anything is asked, that names the judged rows which leave no room beside this candidate's own
    prompt.
    """
    if candidate.prompt is not None:
        refuse(tuple(_without_room(question.tables, _context_of(catalogue, candidate), ASKED)))


def _context_of(catalogue: Catalogue, candidate: Candidate) -> _Context:
    return _Context(catalogue, candidate, partial(weights.tokenizer_dir, home=catalogue.home))


def _without_room(tables: Tables, context: _Context, names: Sequence[str]) -> list[str]:
    problems: list[str] = []
    for name in names:
        rows = tables.get(name)
        texts = enumerate(() if rows is None else rows["text"], 1)
        without = [number for number, text in texts if not context.has_room_beside(text)]
        problems += [context.refusal(f"data.{name}: {_rows(without)}")] if without else []
    return problems


def _rows(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MOST_NAMED]))}{more}"


class _Context:
    """How much one candidate's model can be shown."""

    def __init__(self, catalogue: Catalogue, candidate: Candidate, tokenizer: Callable[[str], Path]) -> None:
        assert candidate.prompt is not None
        self._prompt, self._model, self._tokenizer = candidate.prompt, catalogue.model(candidate.model), tokenizer
        self._is_label = catalogue.use_case.task.answers is not None
        self._has_tokenizer = catalogue.is_served_here(candidate)
        labels = catalogue.use_case.task.answers or ()
        constraint = CHOICE_TOKENS if candidate.prompt.constrained and self._is_label else 0
        if candidate.prompt.reading == "decide":
            constraint = int(sum(ample_tokens(label) + OPTION_TOKENS for label in labels))
        self._room = self._model.context_tokens - catalogue.use_case.traffic.output_tokens - constraint

    def fitted(self, text: str, examples: list[Shot], documents: list[Hit]) -> FittedPrompt:
        """The messages for a text with as many of the first documents and the last examples as there is room for."""
        while True:
            turns = self._turns(text, examples, documents)
            if self._has_room_for(turns):
                return FittedPrompt(turns, tuple(hit.id for hit in documents))
            if not documents and not examples:
                raise TextTooLong(self.refusal(f"the text {text[:60]!r}"))
            documents, examples = documents[:-1], examples if documents else examples[1:]

    def has_room_beside(self, text: str) -> bool:
        """Whether a text fits without anything that is retrieved."""
        return self._has_room_for(self._turns(text, [], []))

    def refusal(self, what: str) -> str:
        """That there is no room for this, and what to do."""
        counted = "" if self._has_tokenizer else " (counted without its tokenizer: outside ASCII every byte as one)"
        return (
            f"{what}: with the prompt around it it takes more than the {self._room:,} tokens that {self._model.uri} "
            f"has for them{counted}; shorten it, lower retrieval.fixed_examples, or set the model's context_tokens"
        )

    def _turns(self, text: str, examples: list[Shot], documents: list[Hit]) -> tuple[Turn, ...]:
        texts = [hit.text for hit in documents]
        if self._prompt.format == "completion":
            whole = render_completion(self._prompt, text, documents=texts, examples=examples)
            return (Turn(role="user", content=whole),)
        if self._prompt.reading == "decide":
            return render_decision(self._prompt, text, documents=texts, examples=examples)
        return render(self._prompt, text, documents=texts, examples=examples, enumerated=self._is_label)

    def _has_room_for(self, turns: tuple[Turn, ...]) -> bool:
        texts, marks = [turn.content for turn in turns], TOKENS_PER_TURN * len(turns)
        if sum(ample_tokens(text, LEAST_CHARS_PER_TOKEN) for text in texts) + marks <= self._room:
            return True
        if not self._has_tokenizer:
            return sum(map(ample_tokens, texts)) + marks <= self._room
        base = self._tokenizer(self._model.uri)
        tokenizer = tokenizer_of(str(base))
        if self._prompt.format == "completion" or tokenizer.chat_template is None:  # its server has one of its own
            return len(tokenizer.encode("\n".join(texts))) + marks <= self._room
        return len(tokenizer.encode(format_chat(base, turns))) <= self._room
