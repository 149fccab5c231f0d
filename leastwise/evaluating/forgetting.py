"""What weights know beside their task: perplexity on held general text and general tasks, before and after training.

It trains nothing and judges nothing: the share of general tasks answered right becomes a requirement
(`general_ability`) only where the use case asks. Weights are measured in process, adapter on base, and what was
measured is kept under a key of the weights and the texts, so that a rerun measures nothing again. A model whose weights
are elsewhere cannot be measured, and a distilled student has no general ability at all: both are refused before the
climb, or skipped, where it is required.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import Field

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.metrics import Score
from leastwise.metrics.answer import Answer
from leastwise.metrics.general_tasks import GeneralTask, accuracy_choice
from leastwise.metrics.grades import Grades
from leastwise.models import causal_model
from leastwise.models.machine import THREADS, torch_threads
from leastwise.part import Part
from leastwise.rows.general_text import followed_texts, general_tasks
from leastwise.stores import storage
from leastwise.use_case.training import LONGEST_TOKENS

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.models.causal_model import LoadedModel, Tokenizer

log = logging.getLogger(__name__)

REQUIREMENT = "general_ability"
_MEASURED_AS = "general ability 1"  # part of the key: raise it when the way of measuring changes


class GeneralAbility(Part):
    """What some weights know: perplexity of held general text, and the choice made in each general task, by its id."""

    perplexity: float | None = Field(description="None where the use case has no general text.")
    choices: dict[str, str]

    def accuracy(self, tasks: Sequence[GeneralTask]) -> float:
        """Share of these tasks answered right."""
        return sum(self.choices[task.id] == task.label for task in tasks) / len(tasks)


def forgetting_figures(work: Workspace, candidate: Candidate) -> dict[str, float]:
    """General ability of the base before and of a trained candidate after; empty where there is nothing to compare."""
    data, trained = work.use_case.data, candidate.weights
    if not (data.general or data.general_tasks) or trained is None or trained.kind != "adapter" or candidate.cascade:
        return {}
    base, tasks = work.catalogue.base().uri, general_tasks(work.question)
    before = measure_ability(work, base, work.catalogue.revision(base), None)
    after = measure_ability(work, candidate.model, candidate.revision, trained)
    figures: dict[str, float] = {}
    if before.perplexity is not None and after.perplexity is not None:
        figures = {"perplexity_before": before.perplexity, "perplexity_after": after.perplexity}
        figures["perplexity_ratio"] = after.perplexity / before.perplexity
    if tasks:
        figures |= {"general_accuracy_before": before.accuracy(tasks), "general_accuracy_after": after.accuracy(tasks)}
        figures["n"] = float(len(tasks))
    log.info(f"general ability, base → {candidate.stage}: {_in_words(figures)}")
    return {f"forgetting.{name}": value for name, value in figures.items()}


def exam_of(work: Workspace, candidate: Candidate) -> GeneralExam | None:
    """The general tasks for a candidate, where the use case requires general ability and its weights can be
    measured.
    """
    can_be_measured = candidate.weights is None or candidate.weights.kind == "adapter"
    if REQUIREMENT not in work.use_case.requirements.bounds or not can_be_measured or candidate.cascade:
        return None
    return GeneralExam(work, candidate)


class GeneralExam:
    """General tasks as an evaluation takes them (an `leastwise.evaluating.looks.Exam`)."""

    grades: Grades | None = None
    usd_paid = 0.0

    def __init__(self, work: Workspace, candidate: Candidate) -> None:
        self._work, self._candidate = work, candidate

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One task a row: id, text (the context) and label (the right choice)."""
        import pandas as pd

        tasks = general_tasks(self._work.question)
        return pd.DataFrame([task.model_dump(include={"id", "text", "label"}) for task in tasks])

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """The choice the weights find likeliest in each task; nothing is bought."""
        candidate = self._candidate
        ability = measure_ability(self._work, candidate.model, candidate.revision, candidate.weights)
        return [Answer(ability.choices[row_id], None, 0.0, from_store=True) for row_id in rows["id"]]

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """Quality 1 for the right choice."""
        both = zip(answers, rows["label"], strict=True)
        return [Score(quality=float(answer.text == label), adherence=1.0, declined=0.0) for answer, label in both]

    def figures(self) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}


def measure_ability(work: Workspace, model_uri: str, revision: str, trained: Weights | None) -> GeneralAbility:
    """General ability of a model, or of an adapter on it; measured once for their content and the content of
    the texts.
    """
    texts, tasks = followed_texts(work.question), general_tasks(work.question)
    asked = json.dumps([texts, [task.model_dump() for task in tasks]], ensure_ascii=False)
    key = content_key(_MEASURED_AS, revision, trained.revision if trained else "", asked)
    kept = work.home / "forgetting" / f"{key}.json"
    if not kept.exists():
        whose = "the trained weights" if trained else model_uri
        log.info(f"general ability of {whose}: {len(texts)} texts, {len(tasks)} tasks")
        base = work.model_dir(model_uri, revision)
        adapter = work.handover.weights_dir(trained) if trained else None
        with torch_threads(THREADS):
            model, tokenizer = causal_model.loaded(base, adapter), causal_model.tokenizer_of(str(base))
            storage.write_bytes(kept, ability_of(model, tokenizer, texts, tasks).model_dump_json().encode())
    return GeneralAbility.model_validate_json(kept.read_bytes())


def ability_of(
    model: LoadedModel, tokenizer: Tokenizer, texts: Sequence[str], tasks: Sequence[GeneralTask]
) -> GeneralAbility:
    """Measure a causal model in memory."""
    perplexity = causal_model.perplexity_of(model, tokenizer, texts, LONGEST_TOKENS) if texts else None
    return GeneralAbility(perplexity=perplexity, choices={task.id: _choice(model, tokenizer, task) for task in tasks})


def _choice(model: LoadedModel, tokenizer: Tokenizer, task: GeneralTask) -> str:
    scores = causal_model.log_likelihoods(model, tokenizer, task.text, task.choices, LONGEST_TOKENS)
    return task.choices[accuracy_choice(scores, task.choices)]


def _in_words(figures: dict[str, float]) -> str:
    words = []
    if "perplexity_ratio" in figures:
        words.append(f"perplexity {figures['perplexity_before']:.1f} → {figures['perplexity_after']:.1f}")
    if "n" in figures:
        before, after = figures["general_accuracy_before"], figures["general_accuracy_after"]
        words.append(f"tasks right {before:.2f} → {after:.2f} (n={figures['n']:.0f})")
    return ", ".join(words)
