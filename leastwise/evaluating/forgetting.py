"""What weights know beside their task: perplexity on held general text and general tasks, before and after training.

It trains nothing and judges nothing: the share of general tasks answered right becomes a requirement (`general_ability`) only
where the use case asks. Weights are measured in process, adapter on base, and what was measured is kept under a key of the
weights and the texts, so that a rerun measures nothing again. A model whose weights are elsewhere cannot be measured, and a
distilled student has no general ability at all: both are refused before the climb, or skipped, where it is required.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.metrics import Score
from leastwise.metrics.answer import Answer
from leastwise.metrics.general_tasks import GeneralTask, accuracy_choice, is_held, tasks_of
from leastwise.models import causal_model, weights
from leastwise.models.threads import THREADS, torch_threads
from leastwise.stores import storage
from leastwise.training.pretraining import Replay

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

REQUIREMENT = "general_ability"
LEAST_HELD = 8
_MAX_TOKENS = 512
_MEASURED_AS = "general ability 1"  # part of the key: raise it when the way of measuring changes


class GeneralAbility(BaseModel):
    """What some weights know: perplexity of held general text, and the choice made in each general task, by its id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perplexity: float | None = Field(description="None where the use case has no general text.")
    choices: dict[str, str]

    def accuracy(self, tasks: Sequence[GeneralTask]) -> float:
        """Share of these tasks answered right."""
        return sum(self.choices[task.id] == task.label for task in tasks) / len(tasks)


def check(work: Workspace) -> None:
    """BadInput where the general text or tasks cannot be measured with, before anything is spent."""
    if work.use_case.data.general and len(held_texts(work)) < LEAST_HELD:
        raise BadInput(
            f"data.general: {len(held_texts(work))} of {work.tables.rows('general')} texts are held out to measure with (one in "
            f"five, by hash), at least {LEAST_HELD} are needed; add general text"
        )
    wanted = work.use_case.requirements.general_ability
    if (work.use_case.data.general or work.use_case.data.general_tasks) and not general_tasks(work) and wanted:
        raise BadInput(
            "requirements.general_ability: the general text gives no task; add longer texts, or data.general_tasks"
        )


def held_texts(work: Workspace) -> list[str]:
    """The general texts that are never trained on, each once, in the order of the table."""
    return [text for text in _general(work) if is_held(text)]


def replay(work: Workspace) -> Replay:
    """The general texts continued pre-training may see, and the held ones it is measured on."""
    texts = [text for text in _general(work) if not is_held(text)]
    return Replay(texts, held_texts(work)[: work.use_case.forgetting.texts], work.use_case.replay_share)


def general_tasks(work: Workspace) -> list[GeneralTask]:
    """The use case's own tasks, else those made from the held general text; at most `forgetting.tasks`."""
    most = work.use_case.forgetting.tasks
    own = work.tables.get("general_tasks")
    return _read(own)[:most] if own is not None else tasks_of(held_texts(work), most)


def figures(work: Workspace, candidate: Candidate) -> dict[str, float]:
    """General ability of the base before and of a trained candidate after; empty where there is nothing to compare."""
    data = work.use_case.data
    if (
        not (data.general or data.general_tasks)
        or candidate.weights is None
        or candidate.weights.kind != "adapter"
        or candidate.cascade
    ):
        return {}
    base, tasks = work.base().uri, general_tasks(work)
    before = measured(work, base, work.revision(base), None)
    after = measured(work, candidate.model, candidate.revision, candidate.weights)
    found = {}
    if before.perplexity is not None and after.perplexity is not None:
        found = {"perplexity_before": before.perplexity, "perplexity_after": after.perplexity}
        found["perplexity_ratio"] = after.perplexity / before.perplexity
    if tasks:
        found |= {"general_accuracy_before": before.accuracy(tasks), "general_accuracy_after": after.accuracy(tasks)}
        found["n"] = len(tasks)
    log.info(f"general ability, base → {candidate.stage}: {_in_words(found)}")
    return {f"forgetting.{name}": float(value) for name, value in found.items()}


def exam(work: Workspace, candidate: Candidate) -> Exam | None:
    """The general tasks for a candidate, where the use case requires general ability and its weights can be measured."""
    trained = candidate.weights is None or candidate.weights.kind == "adapter"
    if REQUIREMENT not in work.use_case.requirements.bounds or not trained or candidate.cascade:
        return None
    return Exam(work, candidate)


class Exam:
    """General tasks as an evaluation takes them: a table of rows, who answers them, and who scores the answers."""

    grades = None
    usd_paid = 0.0

    def __init__(self, work: Workspace, candidate: Candidate) -> None:
        self._work, self._candidate = work, candidate

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One task a row: id, text (the context) and label (the right choice)."""
        import pandas as pd

        return pd.DataFrame([task.model_dump(include={"id", "text", "label"}) for task in general_tasks(self._work)])

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        """The choice the weights find likeliest in each task; nothing is bought."""
        candidate = self._candidate
        known = measured(self._work, candidate.model, candidate.revision, candidate.weights)
        return [Answer(known.choices[row_id], None, 0.0, from_store=True) for row_id in rows["id"]]

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """Quality 1 for the right choice."""
        return [
            Score(quality=float(a.text == label), adherence=1.0, declined=0.0)
            for a, label in zip(answers, rows["label"], strict=True)
        ]

    def figures(self) -> dict[str, float]:
        """Nothing beyond the scores."""
        return {}


def measured(work: Workspace, model_uri: str, revision: str, trained: Weights | None) -> GeneralAbility:
    """General ability of a model, or of an adapter on it; measured once for their content and the content of the texts."""
    texts, tasks = held_texts(work)[: work.use_case.forgetting.texts], general_tasks(work)
    asked = json.dumps([texts, [task.model_dump() for task in tasks]], ensure_ascii=False)
    key = content_key(_MEASURED_AS, revision, trained.revision if trained else "", asked)
    kept = work.home / "forgetting" / f"{key}.json"
    if not kept.exists():
        log.info(
            f"general ability of {'the trained weights' if trained else model_uri}: {len(texts)} texts, {len(tasks)} tasks"
        )
        base = weights.materialize(model_uri, work.home)
        adapter = storage.fetch(trained.uri, work.home / "fetched") if trained else None
        with torch_threads(THREADS):
            model = causal_model.loaded(base, adapter)
            storage.write_bytes(
                kept, ability_of(model, causal_model.tokenizer_of(str(base)), texts, tasks).model_dump_json().encode()
            )
    return GeneralAbility.model_validate_json(kept.read_bytes())


def ability_of(model: Any, tokenizer: Any, texts: Sequence[str], tasks: Sequence[GeneralTask]) -> GeneralAbility:
    """Measure a causal model in memory."""
    found = causal_model.perplexity_of(model, tokenizer, texts, _MAX_TOKENS) if texts else None
    return GeneralAbility(perplexity=found, choices={task.id: _choice(model, tokenizer, task) for task in tasks})


def _choice(model: Any, tokenizer: Any, task: GeneralTask) -> str:
    scores = causal_model.log_likelihoods(model, tokenizer, task.text, task.choices, _MAX_TOKENS)
    return task.choices[accuracy_choice(scores, task.choices)]


def _general(work: Workspace) -> list[str]:
    table = work.tables.get("general")
    return [] if table is None else list(dict.fromkeys(table["text"]))


def _read(table: pd.DataFrame) -> list[GeneralTask]:
    found = []
    for number, row in enumerate(table.to_dict("records"), 1):
        try:
            choices = json.loads(row["choices"]) if isinstance(row["choices"], str) else list(row["choices"])
            found.append(GeneralTask(id=str(row["id"]), text=row["text"], choices=tuple(choices), label=row["label"]))
            if row["label"] not in choices:
                raise ValueError("label is none of the choices")
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"data.general_tasks: row {number}: {' '.join(str(error).split())[:200]}; give text, choices (a JSON list of at least "
                "two texts) and label (one of them, word for word)"
            ) from None
    return found


def _in_words(found: dict[str, float]) -> str:
    said = []
    if "perplexity_ratio" in found:
        said.append(f"perplexity {found['perplexity_before']:.1f} → {found['perplexity_after']:.1f}")
    if "n" in found:
        said.append(
            f"tasks right {found['general_accuracy_before']:.2f} → {found['general_accuracy_after']:.2f} (n={found['n']:.0f})"
        )
    return ", ".join(said)
