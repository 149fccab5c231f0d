"""General text and general tasks of a use case: what is replayed in training, what is held to measure forgetting with.

It measures nothing (see `leastwise.evaluating.forgetting`). A fifth of the general text is held, drawn by hash.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.metrics.general_tasks import GeneralTask, is_held, tasks_of
from leastwise.rows.question import Question
from leastwise.stores.tables import table_values

if TYPE_CHECKING:
    import pandas as pd

LEAST_HELD = 8


def check_general(question: Question) -> None:
    """BadInput where the general text or tasks cannot be measured with, before anything is spent."""
    use_case, held = question.use_case, held_texts(question)
    if use_case.data.general and len(held) < LEAST_HELD:
        raise BadInput(
            f"data.general: {len(held)} of {question.tables.rows('general')} texts are held out to measure with (one "
            f"in five, by hash), at least {LEAST_HELD} are needed; add general text"
        )
    has_text = use_case.data.general or use_case.data.general_tasks
    if has_text and not general_tasks(question) and use_case.requirements.general_ability:
        raise BadInput(
            "requirements.general_ability: the general text gives no task; add longer texts, or data.general_tasks"
        )


def held_texts(question: Question) -> list[str]:
    """The general texts that are never trained on, each once, in the order of the table."""
    return [text for text in _general(question) if is_held(text)]


def replayed_texts(question: Question) -> list[str]:
    """The general texts continued pre-training may see."""
    return [text for text in _general(question) if not is_held(text)]


def followed_texts(question: Question) -> list[str]:
    """The held texts whose perplexity is followed."""
    return held_texts(question)[: question.use_case.forgetting.texts]


def general_tasks(question: Question) -> list[GeneralTask]:
    """The use case's own tasks, else those made from the held general text; at most `forgetting.tasks`."""
    most = question.use_case.forgetting.tasks
    own = question.tables.get("general_tasks")
    return _read(own)[:most] if own is not None else tasks_of(held_texts(question), most)


def _general(question: Question) -> list[str]:
    table = question.tables.get("general")
    return [] if table is None else list(dict.fromkeys(table["text"]))


def _read(table: pd.DataFrame) -> list[GeneralTask]:
    tasks = []
    for number, row in enumerate(table.to_dict("records"), 1):
        try:
            listed = json.loads(row["choices"]) if isinstance(row["choices"], str) else list(row["choices"])
            choices, label = (
                tuple(table_values.as_text(each) or "" for each in listed),
                table_values.as_text(row["label"]),
            )
            task = GeneralTask(id=str(row["id"]), text=row["text"], choices=choices, label=label or "")
            if label not in choices:
                raise ValueError("label is none of the choices")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BadInput(
                f"data.general_tasks: row {number}: {' '.join(str(error).split())[:200]}; give text, choices (a JSON "
                "list of at least two texts) and label (one of them, word for word)"
            ) from None
        tasks.append(task)
    return tasks
