"""A causal student: the base's weights, cut to their first blocks, trained on what the teacher answered.

Sequence-level distillation (Kim and Rush 2016): the teacher's greedy answers are the completions, so that it works for
labels, records and free text alike, whatever the teacher's tokenizer. With `teacher_share` it learns the teacher's
probabilities of every token of them too, which takes trained weights of the same vocabulary as the teacher. It trains
nothing itself: `leastwise.training.training` does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.models.causal_model import loaded, merge, save_tokenizer, tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.stores import storage
from leastwise.training.causal.layers import blocks_of
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_rows import Row
from leastwise.use_case.prompts import short_prompt
from leastwise.use_case.student import CausalStudent, Student
from leastwise.use_case.task import Task
from leastwise.use_case.training import Training

if TYPE_CHECKING:
    import pandas as pd


def base_dir(catalogue: Catalogue, student: CausalStudent) -> Path:
    """The weights the student starts from: its own `uri`, else those of `models.base`, cut once to `blocks`."""
    whole = weights.materialize(student.uri, catalogue.home) if student.uri else catalogue.base_dir()
    if student.blocks is None:
        return whole
    return cut(
        whole, student.blocks, catalogue.home / "bases" / f"{weights.directory_hash(whole)}-first-{student.blocks}"
    )


def cut(model_dir: Path, blocks: int, out: Path) -> Path:
    """Write the model's first `blocks` blocks, with its embeddings, last norm, head and tokenizer, to `out`; kept if
    there.

    Raises BadInput where the model has fewer.
    """
    import torch

    if out.exists():
        return out
    model = loaded(model_dir)
    found = blocks_of(model)
    if blocks > found.count:
        raise BadInput(
            f"training.student.blocks: {blocks}, and models.base has {found.count}; give at most that, or leave it "
            "empty"
        )
    holder, _, name = found.name.rpartition(".")
    whole = model.get_submodule(found.name)
    assert isinstance(whole, torch.nn.ModuleList)
    setattr(model.get_submodule(holder), name, whole[:blocks])
    model.config.num_hidden_layers = blocks
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:blocks]
    with weights.built(out) as folder:
        model.save_pretrained(folder)
        save_tokenizer(model_dir, folder)
    return out


def check_blocks(student: Student, uri: str, home: Path) -> None:
    """Raises BadInput where a model is to be cut to more blocks than it has; a package, whose file is not read for it,
    is left to `cut`.
    """
    directory = weights.described(uri, home)
    if student.kind != "causal" or student.blocks is None or directory is None:
        return
    there = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")
    if isinstance(there, int) and student.blocks > there:
        raise BadInput(f"training.student.blocks: {student.blocks}, and {uri} has {there}; give at most that")


def check_vocabulary(student: Student, uri: str, base: str | None, home: Path) -> None:
    """Raises BadInput where a student is to learn the probabilities of trained weights: none are trained (`base`, the
    weights a training here starts from, is None), or their tokens are not the student's.
    """
    if student.kind != "causal" or not student.teacher_share:
        return
    if base is None:
        raise BadInput(
            "training.student.teacher_share: no stage before distill trains weights, and only those tell the "
            "probabilities of tokens; set it to 0"
        )
    own, theirs = (tokenizer_of(str(weights.tokenizer_dir(each, home))).get_vocab() for each in (uri, base))
    if own != theirs:
        raise BadInput(f"training.student.teacher_share: the tokens of {base} are not those of {uri}; set it to 0")


def check_teacher(student: CausalStudent, teacher: Candidate) -> None:
    """Raises BadInput where the student is to learn from probabilities that this teacher cannot give it."""
    is_trained = teacher.weights is not None and teacher.weights.kind in ("adapter", "merged")
    if student.teacher_share and not is_trained:
        raise BadInput(
            f"training.student.teacher_share: {teacher.model} at {teacher.stage} would teach, whose probabilities of "
            "tokens are not at hand; only trained weights give them: set it to 0"
        )


def teacher_dir(home: Path, teacher: Candidate) -> Path:
    """The teacher's weights as one model directory, merged once."""
    assert teacher.weights is not None
    base = weights.materialize(teacher.model, home)
    trained = storage.fetch(teacher.weights.uri, home / "fetched")
    return merge(base, trained, home / "bases" / f"{teacher.weights.revision}-merged")


def rows_of(task: Task, base: Path, texts: pd.DataFrame) -> list[Row]:
    """Texts and the teacher's answers (columns text and label) as prompts and completions."""
    system = {"role": "system", "content": short_prompt(task)}
    chats = [[system, {"role": "user", "content": text}] for text in texts["text"]]
    prompts = [format_chat(base, chat) for chat in chats]
    return [Row(prompt, label) for prompt, label in zip(prompts, texts["label"], strict=True)]


def settings_of(training: Training, student: CausalStudent, rows: int) -> TrainingSettings:
    """How the student is trained on that many teacher answers: every kept block, as many passes as `max_examples`
    needs.
    """
    return TrainingSettings(
        method=student.method,
        rank=student.rank,
        learning_rate=student.learning_rate,
        max_examples=student.max_examples,
        epochs=min(100, math.ceil(student.max_examples / max(rows, 1))),
        max_tokens=training.max_tokens,
        upper_blocks_share=1.0,
        seed=training.seed,
        launch=training.launch,
        checkpoints=training.checkpoints,
        teacher_share=student.teacher_share,
        temperature=student.temperature,
    )


def kind_of(settings: TrainingSettings) -> Literal["adapter", "merged"]:
    """What such a training leaves: an adapter on its base, or a model of its own."""
    return "merged" if settings.method == "full" else "adapter"
