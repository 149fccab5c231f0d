"""What the training stages make: an adapter, a further pre-trained base, teacher labels, a student. Each made once.

The training itself is in `leastwise.training.training` and `leastwise.training.distillation`; what is made is kept
under a key of everything that determines it, so that a rerun after a crash finds it (rule 8). It measures no candidate.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models import encoder, runtime_choice, weights
from leastwise.models.student import texts_cut
from leastwise.money.lora import LLAMA_3_8B, LLAMA_3_70B, trainable_share
from leastwise.money.machine_cost import worst_training_usd
from leastwise.progress import TrainingProgress
from leastwise.rows.general_text import followed_texts, replayed_texts
from leastwise.stores.made.naming import ADAPTERS, BASES, LABELS, STUDENTS, TRIALS, Made
from leastwise.stores.tables import table_files
from leastwise.training import causal_student, distillation, pretraining, teacher_labels, training, training_search
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.settings import TrainingSettings, pretraining_settings_of, settings_of
from leastwise.training.training_rows import Row, examples_of
from leastwise.use_case import Stage
from leastwise.use_case.student import CausalStudent, EncoderStudent
from leastwise.use_case.training import Search

log = logging.getLogger(__name__)

HELD_OUT_EVERY = 10  # documents: one in so many is held out of continued pre-training, to measure it
WATCHED_ROWS = 200  # of dev, while a causal student is trained


@dataclass(frozen=True)
class Trained:
    """Weights a stage made; `search` is the table of trials, where settings were searched for."""

    weights: Weights
    search: str = ""


def train_adapter(work: Workspace, stage: Stage, base: Path) -> Trained:
    """The adapter of this use case on its base (or on a further pre-trained one), logged as an artifact."""
    settings, rows, dev = settings_of(work.use_case.training), pairs(work, "train"), pairs(work, "dev")
    metric, table = dev_metric(work, dev[: settings.dev_examples]), ""
    if work.use_case.training.search:
        result = _search(work, stage, base, rows, dev, settings, work.use_case.training.search, metric)
        settings, table = result.settings, training_search.as_markdown(result.trials)
    rows = list(training_search.distinct(rows, settings))
    request = training.request_of(base, rows, dev, settings, metric)
    out = work.home / ADAPTERS / request.key
    is_there = work.handover.bring(ADAPTERS, out.name)
    if is_there:
        log.info(f"the adapter of an earlier climb is reused: same base, settings and examples ({out.name})")
    else:
        work.costing.announce(stage)
        log.info(f"fine-tuning {settings.method} on {min(len(rows), settings.max_examples):,} examples")
    with _paid_machine(work, stage, out) as on_progress:
        report = training.run(request, out, on_progress)
    if not is_there:
        log.info(_summary(report))
    _log_adapter(work, report, settings)
    made = work.hand_over(out, "adapter")
    return Trained(Weights(kind="adapter", uri=made.uri, revision=work.revision(made.uri)), table)


def _search(
    work: Workspace,
    stage: Stage,
    base: Path,
    rows: list[Row],
    dev: list[Row],
    start: TrainingSettings,
    choices: Search,
    metric: DevMetric | None,
) -> training_search.SearchResult:
    """The settings a small search on dev chose; its trials are a table on the climb's run."""
    if not dev:
        raise BadInput(
            "training.search: chooses by dev rows, and there are none; add data.dev, or remove training.search"
        )
    folder = work.home / TRIALS
    result = training_search.search(
        base, rows, dev, start, choices, folder, lambda out: _paid_machine(work, stage, out), metric
    )
    work.run.log_text(training_search.as_markdown(result.trials), "search.md")
    chosen = result.settings
    log.info(
        f"of {choices.trials} settings in {len(result.trials)} short trainings rank {chosen.rank}, learning rate "
        f"{chosen.learning_rate:g} and {chosen.epochs} epochs did best on dev (search.md)"
    )
    return result


def _log_adapter(work: Workspace, report: TrainingReport, settings: TrainingSettings) -> None:
    shares = {
        f"trainable_share_{size}": trainable_share(shape, settings.method, settings.rank, settings.upper_blocks_share)
        for size, shape in (("8b", LLAMA_3_8B), ("70b", LLAMA_3_70B))
    }
    log.info(
        f"{report.trainable_share:.2%} of the weights trained; the same on Llama 3: {shares['trainable_share_8b']:.2%} "
        f"of 8B, {shares['trainable_share_70b']:.2%} of 70B"
    )
    work.run.write({f"training.{name}": value for name, value in (report.figures() | shares).items()})


def pretrain_base(work: Workspace) -> Made:
    """The base further pre-trained on the documents; gives back the new base's name."""
    base, wanted = work.catalogue.base_dir(), work.use_case.training
    texts = list(work.tables.need("documents")["text"])
    held_out = texts[::HELD_OUT_EVERY]
    kept = [text for number, text in enumerate(texts) if number % HELD_OUT_EVERY]
    settings, replay = pretraining_settings_of(wanted), _replay(work)
    mixed = [json.dumps([list(replay.texts), list(replay.held_out)]), f"{replay.share:g}"] if replay.held_out else []
    content = (work.catalogue.base().uri, weights.directory_hash(base), settings.identity(), json.dumps(texts), *mixed)
    out = work.home / BASES / content_key(*content)
    is_there = work.handover.bring(BASES, out.name)
    general = f" and {replay.share:.0%} general text" if replay.share else ""
    reused = ": reused" if is_there else ""
    log.info(f"continued pre-training ({wanted.pretrain_method}) on {len(kept):,} documents{general}{reused}")
    with _paid_machine(work, "pretrain", out) as on_progress:
        report = pretraining.continue_pretraining(base, kept, held_out, settings, out, on_progress, replay)
    work.run.write({f"pretrain.{name}": value for name, value in report.figures().items()})
    log.info(report.in_words())
    return work.handover.hand_over(BASES, out.name)


def _replay(work: Workspace) -> pretraining.Replay:
    question = work.question
    return pretraining.Replay(replayed_texts(question), followed_texts(question), work.use_case.replay_share)


def label_unlabelled(work: Workspace) -> Made:
    """Unlabelled text as the best passing teacher labels it; gives back the name of the labelled table."""
    teacher, wanted = need_teacher(work), work.use_case.training
    _check_licence(work, teacher)
    if isinstance(wanted.student, CausalStudent):
        causal_student.check_teacher(wanted.student, teacher)
    unlabelled = work.tables.need("unlabelled")
    texts = json.dumps([list(unlabelled["id"].astype(str)), list(unlabelled["text"])])
    how = (str(wanted.teacher_labels), wanted.choose_labels, str(wanted.seed))
    key = content_key(teacher.key, texts, work.use_case.task.model_dump_json(), *how)
    out = work.home / LABELS / f"{key}.parquet"
    if not work.handover.bring(LABELS, out.name):
        work.costing.announce("distill")
        parts = out.with_suffix(".parts")
        table_files.write_table(teacher_labels.label_texts(work, teacher, unlabelled, parts), out)
        shutil.rmtree(parts, ignore_errors=True)
    return work.hand_over(out, "teacher")


def need_teacher(work: Workspace) -> Candidate:
    """The candidate that may teach; BadInput where none passes quality."""
    teacher = work.run.teacher(work.use_case.gate_requirements)
    if teacher is None:
        raise BadInput("distill: no candidate passes quality, so there is no teacher; run the stages before it")
    return teacher


def _check_licence(work: Workspace, teacher: Candidate) -> None:
    if not work.catalogue.may_teach(teacher):
        raise BadInput(
            f"models.candidates: {teacher.model} would teach, but training_on_output is not set to true; read its "
            "terms and say whether they allow training on its answers, or set last_stage before distill"
        )


def train_student(work: Workspace, labels_uri: str) -> Weights:
    """The student of the use case, trained on the teacher's labels."""
    student = work.use_case.training.student
    if isinstance(student, EncoderStudent):
        return _train_encoder(work, student, labels_uri)
    return _train_causal(work, student, labels_uri)


def _train_causal(work: Workspace, student: CausalStudent, labels_uri: str) -> Weights:
    """A small causal model trained on the teacher's answers."""
    labelled, dev = table_files.read_table(work.local(labels_uri)), work.tables.get("dev")
    base = causal_student.base_dir(work.catalogue, student)
    rows = causal_student.rows_of(work.use_case.task, base, labelled)
    watched = pairs(work, "dev", base)[:WATCHED_ROWS] if dev is not None else []
    settings = causal_student.settings_of(work.use_case.training, student, len(rows))
    teacher = None
    if student.teacher_share:
        teacher = causal_student.teacher_dir(work.home, work.handover.here(need_teacher(work)))
    request = training.request_of(base, rows, watched, settings, None, teacher)
    out = work.home / STUDENTS / request.key
    is_there = work.handover.bring(STUDENTS, out.name)
    log.info(f"a causal student on {len(rows):,} teacher answers{': reused' if is_there else ''}")
    with _paid_machine(work, "distill", out) as on_progress:
        report = training.run(request, out, on_progress)
    work.run.write({f"student.{name}": value for name, value in report.figures().items()})
    kind = causal_student.kind_of(settings)
    made = work.hand_over(out, "student")
    return Weights(kind=kind, uri=made.uri, revision=work.revision(made.uri))


def causal_base(work: Workspace, student: CausalStudent) -> str:
    """The URI of the weights a causal student starts from: those the use case names, or what was cut of them."""
    directory = causal_student.base_dir(work.catalogue, student)
    if student.blocks is None:
        return student.uri or work.catalogue.base().uri
    return work.handover.hand_over(BASES, directory.name).uri


def _train_encoder(work: Workspace, student: EncoderStudent, labels_uri: str) -> Weights:
    """A small encoder trained on the teacher's labels; decline threshold and runtime chosen on dev."""
    labelled, answers = table_files.read_table(work.local(labels_uri)), list(work.use_case.task.answers or ())
    settings = student_settings(student, work.use_case.training.seed)
    uri, dev = work.use_case.models.student, work.tables.need("dev")
    assert uri is not None
    known = (list(dev["text"]), list(dev["label"]))
    targets = teacher_labels.targets(labelled, answers)
    content = (encoder.embedder_dir(uri), list(labelled["text"]), targets, answers, known, settings)
    out = work.home / STUDENTS / distillation.student_key(*content)
    is_there = work.handover.bring(STUDENTS, out.name)
    if not is_there:
        log.info(f"training a student on {len(labelled):,} teacher labels")
        if cut := texts_cut("teacher labels", list(labelled["text"]), content[0], settings.max_tokens):
            log.info(cut)
    with _paid_machine(work, "distill", out) as on_progress:
        report = distillation.train_student(*content, out, on_progress)
        runtime = runtime_choice.choose_runtime(out, *known)
    made = work.hand_over(out, "student")
    work.run.write({"student.dev_accuracy": report.dev_accuracy, "student.seconds": report.train_seconds})
    how = "reused from an earlier climb" if is_there else f"after {report.train_seconds:.0f} s"
    speed = f"answers in {runtime.runtime}, {runtime.requests_per_s:,.0f} texts/s alone"
    log.info(f"student: {runtime.dev_accuracy:.3f} on dev, {how}; {speed}")
    return Weights(kind="student", uri=made.uri, revision=work.revision(made.uri))


@contextmanager
def _paid_machine(work: Workspace, stage: Stage, out: Path) -> Iterator[Callable[[TrainingProgress], None]]:
    """Pay the training machine while something is trained, and hand over what was; gives what to call with each
    progress.

    What an earlier run finished costs nothing. A training that a cap ends keeps its checkpoint, so that a rerun with a
    higher cap goes on from there.
    """
    made = out.parent.relative_to(work.home).as_posix(), out.name
    if work.handover.bring(*made):
        yield work.display.show_training
        work.handover.hand_over(*made)
        return

    def on_progress(progress: TrainingProgress) -> None:
        machine.keep_paid()
        work.display.show_training(progress)

    usd_per_hour, usd_worst = work.use_case.training.machines_usd_per_hour, worst_training_usd(work.use_case)
    with work.budget.meter(stage, "training").machine(usd_per_hour, usd_worst) as machine:
        yield on_progress
    work.handover.hand_over(*made)


def student_settings(student: EncoderStudent, seed: int) -> distillation.StudentSettings:
    """How an encoder student is trained, from what the use case says of it."""
    return distillation.StudentSettings(
        encoder_layers=student.layers,
        epochs=student.epochs,
        learning_rate=student.learning_rate,
        temperature=student.temperature,
        max_tokens=student.max_tokens,
        seed=seed,
    )


def _summary(report: TrainingReport) -> str:
    on_dev = f"kept step {report.best_step} of {report.steps}, the best on dev" if report.dev_losses else ""
    measured = f" ({max(report.dev_metrics):.3f})" if report.dev_metrics else ""
    reloaded = f"reloaded, the logits differ by at most {report.reload_difference:.1g}"
    return "; ".join(filter(None, [f"trained in {report.seconds:.0f} s", f"{on_dev}{measured}", reloaded]))


def dev_metric(work: Workspace, dev: list[Row]) -> DevMetric | None:
    """The task's metric on these dev rows; None where only a judge could give it: then the loss chooses the
    checkpoint.
    """
    task, expected = work.use_case.task, list(work.tables.need("dev")["label"].head(len(dev)))
    if not dev or work.use_case.is_graded:
        return None
    prompts, limit = tuple(row.prompt for row in dev), work.use_case.traffic.output_tokens
    return DevMetric(task=task, prompts=prompts, expected=tuple(expected), max_new_tokens=limit)


def pairs(work: Workspace, table: str, model_dir: Path | None = None) -> list[Row]:
    """Rows of a table as prompt and completion, the prompt as the chat endpoint will render it.

    The chat template is that of `model_dir`, or of the use case's base.
    """
    return examples_of(work.use_case, work.tables.need(table), model_dir or work.catalogue.base_dir())
