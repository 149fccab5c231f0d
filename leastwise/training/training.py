"""Trains a causal model on prompts and completions with peft and trl, and proves the result.

It neither judges what it trained nor chooses settings (`leastwise.training.training_search` does). Several processes
train together where the settings say so (`leastwise.training.training_processes` starts them): each reads the same
`TrainingRequest`, and the steps are those of one. While it runs, trl's checkpoints lie beside `out` (`.unfinished`)
and, with `checkpoints`, where other machines reach them (`leastwise.training.causal.checkpoints`):
their optimizer state is a torch file, read back weights-only, never shipped, and deleted at the end. What is kept is
safetensors and JSON.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.models.causal_model import IGNORED, loaded, pad_token_id, spare_head, tokenizer_of
from leastwise.models.machine import check_quantize, fitting, native_dtype, torch_threads
from leastwise.models.weights import built, directory_hash
from leastwise.progress import TrainingProgress
from leastwise.stores import storage
from leastwise.training.causal import replicas
from leastwise.training.causal.computing import Computing, card_here, chosen, sizes_of
from leastwise.training.causal.proof import save
from leastwise.training.request import DevMetric, TrainingReport, TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.trainable_model import gathered, trainable_model
from leastwise.training.training_processes import launched, with_place
from leastwise.training.training_rows import Row, TokenRow, encoded_row, training_order

if TYPE_CHECKING:
    from leastwise.training.causal.checkpoints import SharedCheckpoints
    from leastwise.training.completion_trainer import CompletionTrainer

log = logging.getLogger(__name__)

_REPORT = "training.json"
_PROOF_ROWS = 4
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def fine_tune(
    base: Path,
    rows: Sequence[Row],
    dev: Sequence[Row],
    settings: TrainingSettings,
    out: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    dev_metric: DevMetric | None = None,
    teacher: Path | None = None,
) -> TrainingReport:
    """Trains on `rows` and leaves a PEFT adapter (or for `full` a model) with `training.json` in `out`.

    What is kept is the checkpoint that did best on `dev`: by `dev_metric` if given, else by the loss. The same training
    already in `out` is not repeated; one that was killed goes on from its last checkpoint. Of a `teacher` (a model
    directory) the probabilities of every token of the completions are learned too, by `settings.teacher_share`. Raises
    BadInput for empty rows, a row over `max_tokens`, an `out` that holds another training, or a teacher with another
    vocabulary.
    """
    return run(request_of(base, rows, dev, settings, dev_metric, teacher), out, progress)


def request_of(
    base: Path,
    rows: Sequence[Row],
    dev: Sequence[Row],
    settings: TrainingSettings,
    dev_metric: DevMetric | None = None,
    teacher: Path | None = None,
) -> TrainingRequest:
    """A training before it starts; see `fine_tune`."""
    tokenizer = tokenizer_of(str(base))
    if teacher and tokenizer_of(str(teacher)).get_vocab() != tokenizer.get_vocab():
        raise BadInput(f"training.student.teacher_share: the tokens of {teacher} are not those of {base}; set it to 0")
    encoded = [encoded_row(tokenizer, row, at, settings.max_tokens) for at, row in enumerate(rows)]
    watched = [
        encoded_row(tokenizer, row, at, settings.max_tokens) for at, row in enumerate(dev[: settings.dev_examples])
    ]
    return TrainingRequest(
        base=base, encoded=encoded, watched=watched, settings=settings, dev_metric=dev_metric, teacher=teacher
    )


def run(
    request: TrainingRequest, out: Path, progress: Callable[[TrainingProgress], None] | None = None
) -> TrainingReport:
    """Trains what is asked; see `fine_tune`, and `leastwise.training.pretraining` for packed text.

    By several processes it is started here and goes on there; what `progress` raises ends them, and their last
    checkpoint stays.
    """
    request = with_place(request, out)
    settings = request.settings
    if not request.encoded:
        raise BadInput(f"{out}: no training rows; give at least one example")
    if request.dev_metric and not request.watched:
        raise BadInput(f"{out}: a metric on dev needs dev rows for the loss that breaks its ties; give dev rows")
    if out.exists():
        finished = _finished(out, request.key)
        if shared := _shared(request):  # killed between its end and their removal
            shared.remove()
        return finished
    check_quantize(settings.quantize)
    if settings.launch.together == 1:  # out of memory all the same: from its checkpoint on in smaller pieces
        return fitting(f"training {request.key}", settings.at_once(1), partial(train_here, request, out, progress))
    settings.at_once(settings.launch.together)  # refused here, where it is read, and not in every process
    launched(request, settings.launch, out, progress or (lambda _: None))
    return _finished(out, request.key)


def train_here(
    request: TrainingRequest, out: Path, progress: Callable[[TrainingProgress], None] | None, at_most: int | None = None
) -> TrainingReport:
    """The training itself, in this process: the whole of it, or its part among several. The first writes `out`.

    `at_most`: examples at once that are known to fit into memory.
    """
    settings, encoded, key = request.settings, request.encoded, request.key
    order = training_order(encoded, settings)
    unfinished = out.with_name(f"{out.name}.{key}.unfinished")
    with torch_threads(max(1, settings.threads // settings.launch.processes)):
        ordered = [encoded[i] for i in order]
        trainer = _trainer(request, ordered, unfinished, _computing(request, at_most))
        checkpoint = _resumed_from(trainer, request, unfinished)
        resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        started = _attach_progress(trainer, resumed, progress)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        report = _report(trainer, request, len(order), resumed, time.monotonic() - started)
        report = report.model_copy(update={"replica_difference": _apart(trainer)})
        model = gathered(trainer, request.base, settings)
        if trainer.accelerator.is_main_process:
            with built(out) as folder:
                assert model is not None  # the first process has it
                proof = save(model, request.base, folder, ordered[:_PROOF_ROWS])
                report = report.model_copy(update={"reload_difference": proof.reload_difference})
                (folder / _REPORT).write_text(report.model_dump_json(indent=1), encoding="utf-8")
            shutil.rmtree(unfinished, ignore_errors=True)
            if shared := _shared(request):
                shared.remove()
        trainer.accelerator.wait_for_everyone()
    return _finished(out, key) if trainer.accelerator.is_main_process else report


def _finished(out: Path, key: str) -> TrainingReport:
    path = out / _REPORT
    if not path.exists():
        raise BadInput(f"{out} exists and holds no {_REPORT}; name a folder that does not exist yet, or remove it")
    report = TrainingReport.model_validate_json(path.read_text(encoding="utf-8"))
    if report.key != key:
        raise BadInput(
            f"{out} holds another training (key {report.key}, wanted {key}); name another folder or remove it"
        )
    return report


def _computing(request: TrainingRequest, at_most: int | None) -> Computing:
    """How this hardware computes it, said once."""
    from leastwise.training.completion_trainer import processes_together

    processes, card = processes_together(), card_here()
    rows = [*request.encoded, *request.watched]
    longest = max(len(row["input_ids"]) for row in rows)
    labelled = max(sum(label != IGNORED for label in row["labels"]) for row in rows)
    how = chosen(request.settings, card, sizes_of(request.base), (longest, labelled), processes, at_most)
    log.info("; ".join(how.reasons))
    return how


def _trainer(
    request: TrainingRequest, ordered: list[TokenRow], folder: Path, computing: Computing
) -> CompletionTrainer:
    import torch
    from transformers import EarlyStoppingCallback

    from leastwise.training.completion_trainer import (
        CompletionCollator,
        CompletionTrainer,
        PackedCollator,
        Saver,
        rows_as_dataset,
        trainer_arguments,
    )

    settings, watched = request.settings, request.watched
    tokenizer = tokenizer_of(str(request.base))
    steps = math.ceil(len(ordered) / settings.batch_size)
    arguments = trainer_arguments(settings, computing, steps, folder, bool(watched), request.dev_metric is not None)
    place = torch.device("cpu") if computing.shards else None  # no GPU holds more than its shard
    is_empty = computing.shards and arguments.process_index > 0  # the first process sends each its shards
    model = trainable_model(request.base, settings, place, computing.attention, is_empty)
    spare_head(model)
    trainer = CompletionTrainer(
        model=model,
        args=arguments,
        train_dataset=rows_as_dataset(ordered),
        eval_dataset=rows_as_dataset(watched) if watched else None,
        processing_class=tokenizer,
        data_collator=PackedCollator() if computing.packed else CompletionCollator(pad_token_id(tokenizer)),
    )
    trainer.dev_metric = request.dev_metric
    if request.teacher and settings.teacher_share:
        trainer.teacher = loaded(request.teacher, attention=computing.attention).requires_grad_(False)
        trainer.teacher_share, trainer.temperature = settings.teacher_share, settings.temperature
    trainer.add_callback(Saver(max(1, math.ceil(settings.save_every_share * steps))))
    if watched and settings.early_stop_patience:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stop_patience))
    return trainer


def _shared(request: TrainingRequest) -> SharedCheckpoints | None:
    """Where its checkpoints are put too, if anywhere."""
    from leastwise.training.causal.checkpoints import SharedCheckpoints

    uri = request.settings.checkpoints
    return SharedCheckpoints(uri, request.key) if uri else None


def _resumed_from(trainer: CompletionTrainer, request: TrainingRequest, folder: Path) -> Path | None:
    """The newest whole checkpoint, of this machine or of another that was killed; what is saved is put there too."""
    from leastwise.training.causal.checkpoints import PutThere, last_checkpoint, whole_steps

    shared, accelerator = _shared(request), trainer.accelerator
    if shared is None:
        return last_checkpoint(folder)
    if accelerator.is_main_process:
        storage.check_writable(request.settings.checkpoints)
        shared.fetch(folder)
        if request.settings.launch.nodes > 1:
            shared.put(folder)  # what this machine alone had
    accelerator.wait_for_everyone()
    if accelerator.is_local_main_process and not accelerator.is_main_process:
        shared.fetch(folder)
    trainer.add_callback(PutThere(shared, folder))
    trainer.bring_best = partial(shared.bring, folder=folder)
    step = max(trainer.known_to_all(whole_steps(folder)), default=None)
    return None if step is None else folder / f"checkpoint-{step}"


def _apart(trainer: CompletionTrainer) -> float:
    """How far the processes' whole copies are apart; 0.0 where there is one, or one in shards."""
    if trainer.is_fsdp_enabled or trainer.accelerator.num_processes == 1:
        return 0.0
    return replicas.difference(trainer.accelerator.unwrap_model(trainer.model))


def _attach_progress(
    trainer: CompletionTrainer, resumed: int, progress: Callable[[TrainingProgress], None] | None
) -> float:
    """Starts the clock of the training and reports each logged step; returns the start in monotonic seconds."""
    from transformers.trainer_callback import PrinterCallback

    from leastwise.training.completion_trainer import StepReporter

    started = time.monotonic()

    def report(step: int, steps: int, loss: float) -> None:
        if progress:
            seconds = time.monotonic() - started
            per_step = seconds / max(1, step - resumed)
            progress(TrainingProgress(step, steps, loss, seconds, per_step * (steps - step)))

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepReporter(report))
    return started


def _report(
    trainer: CompletionTrainer, request: TrainingRequest, examples: int, resumed: int, seconds: float
) -> TrainingReport:
    parameters = list(trainer.accelerator.unwrap_model(trainer.model).parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    history = trainer.state.log_history
    done = examples - min(examples, resumed * request.settings.batch_size)
    return TrainingReport(
        key=request.key,
        settings=request.settings,
        base_revision=directory_hash(request.base),
        examples=examples,
        steps=trainer.state.global_step,
        resumed_from_step=resumed,
        seconds=round(seconds, 3),
        examples_per_s=round(done / seconds, 3),
        trainable_share=trained / sum(p.numel() for p in parameters),
        train_losses=tuple(entry["loss"] for entry in history if "loss" in entry),
        dev_losses=tuple(entry["eval_loss"] for entry in history if "eval_loss" in entry),
        dev_metrics=tuple(entry["eval_metric"] for entry in history if "eval_metric" in entry),
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        reload_difference=math.nan,
        dtype=str(native_dtype()).removeprefix("torch."),
        versions={name: version(name) for name in _PACKAGES if find_spec(name)},
    )
