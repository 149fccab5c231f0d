"""What the training stages make: an adapter, a further pre-trained base, teacher labels, a student. Each made once.

The training itself is in `leastwise.training.training` and `leastwise.training.distillation`; what is made is kept under a key of everything that
determines it, so that a rerun after a crash finds it.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import task

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.evaluating import forgetting
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models import lora, runtime_choice, weights
from leastwise.money.worst_cost import worst_training_usd
from leastwise.record import costing
from leastwise.stores import table_files
from leastwise.training import (
    causal_student,
    distillation,
    label_choice,
    pretraining,
    teaching,
    training,
    training_rows,
    training_search,
)
from leastwise.training.dev_metric import DevMetric
from leastwise.training.request import TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.use_case import Stage
from leastwise.use_case.prompts import trained_prompt
from leastwise.use_case.student import CausalStudent, EncoderStudent
from leastwise.use_case.task import completion_of
from leastwise.use_case.training import Training
from tasks import console

log = logging.getLogger(__name__)


@task(name="fine-tune")
def fine_tuned(climb_id: str, base_dir: str | None = None) -> Weights:
    """Train the adapter of this use case on its base (or on a further pre-trained one) and log it as an artifact."""
    work = Workspace.of(climb_id)
    base = Path(base_dir) if base_dir else weights.materialize(work.base().uri, work.home)
    stage: Stage = "pretrain" if base_dir else "fine_tune"
    settings = wanted_settings(work)
    rows, dev = pairs(work, "train"), pairs(work, "dev")
    metric = dev_metric(work, dev[: settings.dev_examples])
    if work.use_case.training.search:
        settings = _searched(work, stage, base, rows, dev, settings, metric)
    rows = list(training_search.distinct(rows, settings))
    request = training.request_of(base, rows, dev, settings, metric)
    out = work.home / "adapters" / request.key
    is_there = out.exists()
    if not is_there:
        costing.announce(work, stage)
    log.info(
        f"the adapter of an earlier climb is reused: same base, settings and examples ({out.name})"
        if is_there
        else f"fine-tuning {settings.method} on {min(len(rows), settings.max_examples):,} examples"
    )
    with _machine(work, stage, out) as on_progress:
        report = training.run(request, out, on_progress)
    if not is_there:
        log.info(_summary(report))
    shares = {
        f"trainable_share_{size}": lora.trainable_share(
            shape, settings.method, settings.rank, settings.upper_blocks_share
        )
        for size, shape in (("8b", lora.LLAMA_3_8B), ("70b", lora.LLAMA_3_70B))
    }
    log.info(
        f"{report.trainable_share:.2%} of the weights trained; the same on Llama 3: {shares['trainable_share_8b']:.2%} of 8B, "
        f"{shares['trainable_share_70b']:.2%} of 70B"
    )
    work.client.log_artifacts(climb_id, str(out), "adapter")
    work.log_metrics({f"training.{name}": value for name, value in (report.figures() | shares).items()})
    return Weights(kind="adapter", uri=out.as_uri(), revision=weights.directory_hash(out))


def _searched(
    work: Workspace,
    stage: Stage,
    base: Path,
    rows: list[training_rows.Row],
    dev: list[training_rows.Row],
    start: TrainingSettings,
    metric: DevMetric | None,
) -> TrainingSettings:
    """The settings a small search on dev chose; its trials are a table on the climb's run."""
    wanted = work.use_case.training.search
    if not dev:
        raise BadInput(
            "training.search: chooses by dev rows, and there are none; add data.dev, or remove training.search"
        )
    chosen, trials = training_search.search(
        base,
        rows,
        dev,
        start,
        wanted,
        work.home / "adapters" / "trials",
        lambda out: _machine(work, stage, out),
        metric,
    )
    work.client.log_text(work.climb.run_id, training_search.as_markdown(trials), "search.md")
    console.publish_markdown("training-search", training_search.as_markdown(trials))
    log.info(
        f"of {wanted.trials} settings in {len(trials)} short trainings rank {chosen.rank}, learning rate {chosen.learning_rate:g} "
        f"and {chosen.epochs} epochs did best on dev (search.md)"
    )
    return chosen


@task(name="continue pre-training")
def pretrained(climb_id: str) -> str:
    """Continue pre-training of the base on the documents; gives back the new base's directory."""
    work = Workspace.of(climb_id)
    base = weights.materialize(work.base().uri, work.home)
    texts = list(work.tables.need("documents")["text"])
    held_out = texts[::10]
    kept = [text for number, text in enumerate(texts) if number % 10]
    wanted = work.use_case.training
    settings = TrainingSettings(
        seed=wanted.seed,
        max_examples=wanted.pretrain_steps * wanted.batch_size,
        batch_size=wanted.batch_size,
        max_tokens=128,
        method=wanted.pretrain_method,
        learning_rate=wanted.pretraining_rate,
        rank=wanted.rank,
        upper_blocks_share=wanted.upper_blocks_share,
        gradient_checkpointing=wanted.gradient_checkpointing,
        launch=wanted.launch,
    )
    replay = forgetting.replay(work)
    mixed = [json.dumps([list(replay.texts), list(replay.held_out)]), f"{replay.share:g}"] if replay.held_out else []
    out = (
        work.home
        / "bases"
        / content_key(work.base().uri, weights.directory_hash(base), settings.identity(), json.dumps(texts), *mixed)
    )
    general = f" and {replay.share:.0%} general text" if replay.share else ""
    log.info(
        f"continued pre-training ({wanted.pretrain_method}) on {len(kept):,} documents{general}"
        + (": reused" if out.exists() else "")
    )
    with _machine(work, "pretrain", out) as on_progress:
        report = pretraining.continue_pretraining(base, kept, held_out, settings, out, on_progress, replay)
    work.log_metrics({f"pretrain.{name}": value for name, value in report.figures().items()})
    log.info(report.in_words())
    return str(out)


@task(name="teacher labels")
def teacher_labels(climb_id: str) -> str:
    """The best passing teacher labels unlabelled text; gives back the URI of the labelled table."""
    work = Workspace.of(climb_id)
    teacher = work.teacher_candidate()
    _check_licence(work, teacher)
    wanted = work.use_case.training
    if isinstance(wanted.student, CausalStudent):
        causal_student.check_teacher(wanted.student, teacher)
    unlabelled = work.tables.need("unlabelled")
    asked = (
        json.dumps([list(unlabelled["id"].astype(str)), list(unlabelled["text"])]),
        work.use_case.task.model_dump_json(),
    )
    how = (teacher.key, *asked, str(wanted.teacher_labels), wanted.choose_labels, str(wanted.seed))
    out = work.home / "labels" / f"{content_key(*how)}.parquet"
    if not out.exists():
        costing.announce(work, "distill")
        ask = teaching.asking(work, teacher, out.with_suffix(".parts"))
        table_files.write_table(label_choice.labelled_texts(work, unlabelled, ask), out)
        shutil.rmtree(out.with_suffix(".parts"), ignore_errors=True)
    work.client.log_artifact(climb_id, str(out), "teacher")
    return str(out)


@task(name="train the student")
def distilled(climb_id: str, labels_uri: str) -> Weights:
    """Train the student of the use case on the teacher's labels, each once."""
    work = Workspace.of(climb_id)
    is_encoder = isinstance(work.use_case.training.student, EncoderStudent)
    return (_encoder_student if is_encoder else _causal_student)(work, labels_uri)


def _causal_student(work: Workspace, labels_uri: str) -> Weights:
    """A small causal model trained on the teacher's answers."""
    wanted, labelled, dev = work.use_case.training, table_files.read_table(labels_uri), work.tables.get("dev")
    assert isinstance(wanted.student, CausalStudent)
    base = causal_student.base_dir(work, wanted.student)
    rows = causal_student.rows_of(work.use_case.task, base, labelled)
    watched = pairs(work, "dev")[:200] if dev is not None else []
    settings = causal_student.settings_of(wanted, len(rows))
    teacher = work.teacher_candidate() if wanted.student.teacher_share else None
    told = causal_student.teacher_dir(work, teacher) if teacher else None
    request = training.request_of(base, rows, watched, settings, None, told)
    out = work.home / "students" / request.key
    is_there = out.exists()
    log.info(f"a causal student on {len(rows):,} teacher answers" + (": reused" if is_there else ""))
    with _machine(work, "distill", out) as on_progress:
        report = training.run(request, out, on_progress)
    work.client.log_artifacts(work.climb.run_id, str(out), "student")
    work.log_metrics({f"student.{name}": value for name, value in report.figures().items()})
    return Weights(kind=causal_student.kind_of(settings), uri=out.as_uri(), revision=weights.directory_hash(out))


def _encoder_student(work: Workspace, labels_uri: str) -> Weights:
    """A small encoder trained on the teacher's labels; decline threshold and runtime chosen on dev."""
    from leastwise.models.encoder import embedder_dir

    climb_id = work.climb.run_id
    labelled, answers = table_files.read_table(labels_uri), list(work.use_case.task.answers)
    settings = student_settings(work.use_case.training)
    assert work.use_case.models.student is not None
    encoder = embedder_dir(work.use_case.models.student)
    dev = work.tables.need("dev")
    known = (list(dev["text"]), list(dev["label"]))
    asked = (encoder, list(labelled["text"]), teaching.targets(labelled, answers), answers, known, settings)
    out = work.home / "students" / distillation.student_key(*asked)
    is_there = out.exists()
    if not is_there:
        log.info(f"training a student on {len(labelled):,} teacher labels")
    with _machine(work, "distill", out) as on_progress:
        report = distillation.train_student(*asked, out, on_progress)
        runtime = runtime_choice.choose_runtime(out, *known)
    work.client.log_artifacts(climb_id, str(out), "student")
    work.log_metrics({"student.dev_accuracy": report.dev_accuracy, "student.seconds": report.train_seconds})
    how = "reused from an earlier climb" if is_there else f"after {report.train_seconds:.0f} s"
    log.info(
        f"student: {runtime.dev_accuracy:.3f} on dev, {how}; answers in {runtime.runtime}, {runtime.requests_per_s:,.0f} texts/s alone"
    )
    return Weights(kind="student", uri=out.as_uri(), revision=weights.directory_hash(out))


@contextmanager
def _machine(work: Workspace, stage: Stage, out: Path) -> Iterator[Callable[[Any], None]]:
    """Pay the training machine while something is trained; gives what to call with each progress.

    What an earlier run finished costs nothing. A training that a cap ends keeps its checkpoint, so that a rerun with a
    higher cap goes on from there.
    """
    if out.exists():
        yield console.show_training
        return

    def on_progress(progress: Any) -> None:
        machine.keep_paid()
        console.show_training(progress)

    with work.meter(stage, "training").machine(
        work.use_case.training.machines_usd_per_hour, worst_training_usd(work.use_case)
    ) as machine:
        yield on_progress


def student_settings(wanted: Training) -> distillation.StudentSettings:
    """How an encoder student is trained, from what the use case says of it."""
    student = wanted.student
    assert isinstance(student, EncoderStudent)
    return distillation.StudentSettings(
        encoder_layers=student.layers,
        epochs=student.epochs,
        learning_rate=student.learning_rate,
        temperature=student.temperature,
        seed=wanted.seed,
    )


def _summary(report: TrainingReport) -> str:
    on_dev = f"kept step {report.best_step} of {report.steps}, the best on dev" if report.dev_losses else ""
    measured = f" ({max(report.dev_metrics):.3f})" if report.dev_metrics else ""
    reloaded = f"reloaded, the logits differ by at most {report.reload_difference:.1g}"
    return "; ".join(filter(None, [f"trained in {report.seconds:.0f} s", f"{on_dev}{measured}", reloaded]))


def wanted_settings(work: Workspace) -> TrainingSettings:
    """What the use case says of how to train."""
    wanted = work.use_case.training
    shared = (
        "method",
        "rank",
        "learning_rate",
        "max_examples",
        "upper_blocks_share",
        "epochs",
        "batch_size",
        "seed",
        "gradient_checkpointing",
        "early_stop_patience",
        "launch",
    )
    return TrainingSettings(
        **{name: getattr(wanted, name) for name in shared},
        dev_examples=wanted.dev_rows,
        eval_every_share=1 / wanted.dev_checks,
    )


def dev_metric(work: Workspace, dev: list[training_rows.Row]) -> DevMetric | None:
    """The task's metric on these dev rows; None where only a judge could give it: then the loss chooses the checkpoint."""
    task, expected = work.use_case.task, list(work.tables.need("dev")["label"].head(len(dev)))
    if not dev or (task.kind == "free_text" and task.metric == "judge"):
        return None
    prompts = tuple(row.prompt for row in dev)
    return DevMetric(
        task=task, prompts=prompts, expected=tuple(expected), max_new_tokens=work.use_case.traffic.output_tokens
    )


def pairs(work: Workspace, table: str) -> list[training_rows.Row]:
    """Rows of a table as prompt and completion, the prompt as the chat endpoint will render it."""
    system = {"role": "system", "content": trained_prompt(work.use_case)}
    frame = work.tables.need(table)
    base = weights.materialize(work.base().uri, work.home)
    chats = [[system, {"role": "user", "content": text}] for text in frame["text"]]
    return [
        training_rows.Row(chat.format_chat(base, chat), completion_of(work.use_case.task, label))
        for chat, label in zip(chats, frame["label"], strict=True)
    ]


def _check_licence(work: Workspace, teacher: Candidate) -> None:
    model = work.model(teacher.model)
    if not model.is_open and model.training_on_output is not True:
        raise BadInput(
            f"models.candidates: {model.uri} would teach, but training_on_output is not set to true; read its terms and say "
            "whether they allow training on its answers, or set last_stage before distill"
        )
