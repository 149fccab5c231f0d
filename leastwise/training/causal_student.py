"""A causal student: the base's weights, cut to their first blocks, trained on what the teacher answered.

Sequence-level distillation (Kim and Rush 2016): the teacher's greedy answers are the completions, so that it works for
labels, records and free text alike, whatever the teacher's tokenizer. With `teacher_share` it learns the teacher's probabilities of
every token of them too, which takes trained weights of the same vocabulary as the teacher. The training itself is in
`leastwise.training.training`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.models.causal_model import loaded, merge, tokenizer_of
from leastwise.stores import storage
from leastwise.training import training_rows
from leastwise.training.settings import TrainingSettings
from leastwise.use_case.prompts import short_prompt
from leastwise.use_case.student import CausalStudent

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.workspace import Workspace
    from leastwise.ladder.candidate import Candidate
    from leastwise.use_case import Training
    from leastwise.use_case.task import Task


def base_dir(work: Workspace, student: CausalStudent) -> Path:
    """The weights the student starts from: those of `models.base`, cut once to `blocks`."""
    whole = weights.materialize(work.base().uri, work.home)
    if student.blocks is None:
        return whole
    return cut(whole, student.blocks, work.home / "bases" / f"{weights.directory_hash(whole)}-first-{student.blocks}")


def cut(model_dir: Path, blocks: int, out: Path) -> Path:
    """Write the model's first `blocks` blocks, with its embeddings, last norm, head and tokenizer, to `out`; kept if there.

    Raises BadInput where the model has fewer.
    """
    if out.exists():
        return out
    model = loaded(model_dir)
    there = model.config.num_hidden_layers
    if blocks > there:
        raise BadInput(
            f"training.student.blocks: {blocks}, and models.base has {there}; give at most that, or leave it empty"
        )
    decoder = model.get_decoder()
    decoder.layers = decoder.layers[:blocks]
    model.config.num_hidden_layers = blocks
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:blocks]
    with weights.built(out) as folder:
        model.save_pretrained(folder)
        tokenizer_of(str(model_dir)).save_pretrained(folder)
    return out


def check_teacher(student: CausalStudent, teacher: Candidate) -> None:
    """Raises BadInput where the student is to learn from probabilities that this teacher cannot give it."""
    is_trained = teacher.weights is not None and teacher.weights.kind in ("adapter", "merged")
    if student.teacher_share and not is_trained:
        raise BadInput(
            f"training.student.teacher_share: {teacher.model} at {teacher.stage} would teach, whose probabilities of tokens are not at "
            "hand; only trained weights give them: set it to 0"
        )


def teacher_dir(work: Workspace, teacher: Candidate) -> Path:
    """The teacher's weights as one model directory, merged once."""
    assert teacher.weights is not None
    base, trained = (
        weights.materialize(teacher.model, work.home),
        storage.fetch(teacher.weights.uri, work.home / "fetched"),
    )
    return merge(base, trained, work.home / "bases" / f"{teacher.weights.revision}-merged")


def rows_of(task: Task, base: Path, texts: pd.DataFrame) -> list[training_rows.Row]:
    """Texts and the teacher's answers (columns text and label) as prompts and completions."""
    system = {"role": "system", "content": short_prompt(task)}
    chats = [[system, {"role": "user", "content": text}] for text in texts["text"]]
    prompts = [chat.format_chat(base, chat) for chat in chats]
    return [training_rows.Row(prompt, label) for prompt, label in zip(prompts, texts["label"], strict=True)]


def settings_of(wanted: Training, rows: int) -> TrainingSettings:
    """How the student is trained on that many teacher answers: every kept block, as many passes as `max_examples` needs."""
    student = wanted.student
    assert isinstance(student, CausalStudent)
    return TrainingSettings(
        method=student.method,
        rank=student.rank,
        learning_rate=student.learning_rate,
        max_examples=student.max_examples,
        epochs=min(100, math.ceil(student.max_examples / max(rows, 1))),
        upper_blocks_share=1.0,
        seed=wanted.seed,
        launch=wanted.launch,
        teacher_share=student.teacher_share,
        temperature=student.temperature,
    )


def kind_of(settings: TrainingSettings) -> Literal["adapter", "merged"]:
    """What such a training leaves: an adapter on its base, or a model of its own."""
    return "merged" if settings.method == "full" else "adapter"
