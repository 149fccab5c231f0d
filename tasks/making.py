"""What the training stages make: an adapter, a further pre-trained base, teacher labels, a student. Each made once.

The training itself is in `tasks.training` and `tasks.distillation`; what is made is kept under a key of everything that
determines it, so that a rerun after a crash finds it. Teacher labels are hard labels so far, and texts are taken in
order, not chosen actively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prefect import task

from leastwise import lora
from leastwise.candidate import Candidate, Weights
from leastwise.errors import BadInput
from leastwise.estimates import training_usd
from leastwise.metrics import normalize
from leastwise.prompts import trained_prompt
from leastwise.task import completion_of
from leastwise.use_case import Stage
from tasks import answering, costing, distillation, evaluation, reports, storage, training, training_rows, weights
from tasks.dev_metric import DevMetric
from tasks.workspace import Workspace, content_key

if TYPE_CHECKING:
    import pandas as pd

_SLICE = 250  # texts: the most labelling a crash can lose


@task(name="fine-tune")
def fine_tuned(climb_id: str, base_dir: str | None = None) -> Weights:
    """Train the adapter of this use case on its base (or on a further pre-trained one) and log it as an artifact."""
    work = Workspace.of(climb_id)
    base = Path(base_dir) if base_dir else weights.materialize(work.base().uri, work.home)
    settings = _settings(work)
    rows, dev = _pairs(work, "train"), _pairs(work, "dev")
    metric = _dev_metric(work, dev[: settings.dev_examples])
    out = work.home / "adapters" / content_key(
        work.base().uri, weights.directory_hash(base), settings.model_dump_json(exclude={"threads"}), work.use_case.training.prompt,
        work.tables.hashes["train"], work.tables.hashes["dev"],
    )  # fmt: skip
    is_there = out.exists()
    if not is_there:
        costing.announce(work, "pretrain" if base_dir else "fine_tune")
    reports.show_note(
        f"the adapter of an earlier climb is reused: same base, settings and examples ({out.name})"
        if is_there
        else f"fine-tuning {settings.method} on {min(len(rows), settings.max_examples):,} examples"
    )
    with _machine(work, "pretrain" if base_dir else "fine_tune", out) as on_progress:
        report = training.fine_tune(base, rows, dev, settings, out, on_progress, metric)
    if not is_there:
        reports.show_note(_summary(report))
    shares = {
        f"trainable_share_{size}": lora.trainable_share(shape, settings.method, settings.rank, settings.upper_blocks_share)
        for size, shape in (("8b", lora.LLAMA_3_8B), ("70b", lora.LLAMA_3_70B))
    }
    reports.show_note(
        f"{report.trainable_share:.2%} of the weights trained; the same on Llama 3: {shares['trainable_share_8b']:.2%} of 8B, "
        f"{shares['trainable_share_70b']:.2%} of 70B"
    )
    work.client.log_artifacts(climb_id, str(out), "adapter")
    work.log_metrics({f"training.{name}": value for name, value in (report.figures() | shares).items()})
    return Weights(kind="adapter", uri=out.as_uri(), revision=weights.directory_hash(out))


@task(name="continue pre-training")
def pretrained(climb_id: str) -> str:
    """Continue pre-training of the base on the documents; gives back the new base's directory."""
    work = Workspace.of(climb_id)
    base = weights.materialize(work.base().uri, work.home)
    texts = list(work.tables.need("documents")["text"])
    held_out = texts[::10]
    kept = [text for number, text in enumerate(texts) if number % 10]
    wanted = work.use_case.training
    settings = training.TrainingSettings(
        seed=wanted.seed, max_examples=wanted.pretrain_steps * 16, learning_rate=wanted.learning_rate / 5, max_tokens=128
    )
    out = work.home / "bases" / content_key(work.base().uri, settings.model_dump_json(), work.tables.hashes["documents"])
    reports.show_note(f"continued pre-training on {len(kept):,} documents" + (": reused" if out.exists() else ""))
    with _machine(work, "pretrain", out) as on_progress:
        report = training.continue_pretraining(base, kept, held_out, settings, out, on_progress)
    work.client.log_metric(climb_id, "pretrain.perplexity.before", report.perplexity_before)
    work.client.log_metric(climb_id, "pretrain.perplexity.after", report.perplexity_after)
    reports.show_note(f"held-out perplexity {report.perplexity_before:.1f} → {report.perplexity_after:.1f}")
    return str(out)


@task(name="teacher labels")
def teacher_labels(climb_id: str) -> str:
    """The best passing teacher labels unlabelled text; gives back the URI of the labelled table."""
    import pandas as pd

    work = Workspace.of(climb_id)
    teacher = work.teacher_candidate()
    _check_licence(work, teacher)
    texts = work.tables.need("unlabelled").head(work.use_case.training.teacher_labels)
    out = work.home / "labels" / f"{content_key(teacher.key, work.tables.hashes['unlabelled'], str(len(texts)))}.parquet"
    if not out.exists():
        costing.announce(work, "distill")
        reports.show_note(f"{teacher.stage} teacher labels {len(texts):,} texts")
        answers = labelled(work, teacher, texts.assign(label=None))
        labels = [normalize(work.use_case.task, a.text) if a.text is not None else None for a in answers]
        table = pd.DataFrame({"id": list(texts["id"]), "text": list(texts["text"]), "label": labels})
        out.parent.mkdir(parents=True, exist_ok=True)
        storage.write_table(table.dropna(), out)
    work.client.log_artifact(climb_id, str(out), "teacher")
    return str(out)


def labelled(work: Workspace, teacher: Candidate, texts: pd.DataFrame) -> list[answering.Answer]:
    """The teacher's answers: in one batch where that is wanted of an api teacher, else in slices, each stored before the next."""
    answers: list[answering.Answer] = []
    with answering.open_answerer(work, teacher, answering.Payer("distill", "teacher")) as answerer:
        in_batch = work.use_case.training.label_in_batches and isinstance(answerer, answering.ServedAnswerer)
        if in_batch and answerer.offers_batches:
            return answerer.answer_in_batch(texts)
        for start in range(0, len(texts), _SLICE):
            answers += answerer.answer(texts.iloc[start : start + _SLICE])
            usd = sum(0.0 if answer.from_store else answer.usd for answer in answers)
            reports.show_progress(evaluation.Progress("teacher labels", len(answers), len(texts), usd, {}))
    return answers


@task(name="train the student")
def distilled(climb_id: str, labels_uri: str) -> Weights:
    """Train a small encoder on the teacher's labels; decline threshold chosen on dev."""
    from tasks import retrieval

    work = Workspace.of(climb_id)
    labelled, answers = storage.read_table(labels_uri), list(work.use_case.task.answers)
    targets = np.eye(len(answers), dtype=np.float32)[[answers.index(label) for label in labelled["label"]]]
    settings = distillation.StudentSettings(seed=work.use_case.training.seed)
    assert work.use_case.models.student is not None
    encoder = retrieval.embedder_dir(work.use_case.models.student)
    dev = work.tables.need("dev")
    out = work.home / "students" / content_key(labels_uri, storage.sha256(labels_uri), settings.model_dump_json())
    is_there = out.exists()
    if not is_there:
        reports.show_note(f"training a student on {len(labelled):,} teacher labels")
    with _machine(work, "distill", out) as on_progress:
        report = distillation.train_student(
            encoder, list(labelled["text"]), targets, answers, (list(dev["text"]), list(dev["label"])), settings, out,
            on_progress,
        )  # fmt: skip
    work.client.log_artifacts(climb_id, str(out), "student")
    work.log_metrics({"student.dev_accuracy": report.dev_accuracy, "student.seconds": report.train_seconds})
    how = "reused from an earlier climb" if is_there else f"after {report.train_seconds:.0f} s"
    reports.show_note(f"student: {report.dev_accuracy:.3f} on dev, {how}")
    return Weights(kind="student", uri=out.as_uri(), revision=weights.directory_hash(out))


@contextmanager
def _machine(work: Workspace, stage: Stage, out: Path) -> Iterator[Callable[[Any], None]]:
    """Pay the training machine while something is trained; gives what to call with each progress.

    What an earlier run finished costs nothing. A training that a cap ends keeps its checkpoint, so that a rerun with a
    higher cap goes on from there.
    """
    if out.exists():
        yield reports.show_training
        return

    def on_progress(progress: Any) -> None:
        machine.keep_paid()
        reports.show_training(progress)

    with work.meter(stage, "training").machine(work.use_case.training.usd_per_hour, training_usd(work.use_case)) as machine:
        yield on_progress


def _summary(report: training.TrainingReport) -> str:
    on_dev = f"kept step {report.best_step} of {report.steps}, the best on dev" if report.dev_losses else ""
    measured = f" ({max(report.dev_metrics):.3f})" if report.dev_metrics else ""
    reloaded = f"reloaded, the logits differ by at most {report.reload_difference:.1g}"
    return "; ".join(filter(None, [f"trained in {report.seconds:.0f} s", f"{on_dev}{measured}", reloaded]))


def _settings(work: Workspace) -> training.TrainingSettings:
    wanted = work.use_case.training
    shared = ("method", "rank", "learning_rate", "max_examples", "upper_blocks_share", "epochs", "batch_size", "seed",
              "gradient_checkpointing", "early_stop_patience")  # fmt: skip
    return training.TrainingSettings(
        **{name: getattr(wanted, name) for name in shared},
        dev_examples=wanted.dev_rows,
        eval_every_share=1 / wanted.dev_checks,
    )


def _dev_metric(work: Workspace, dev: list[training_rows.Row]) -> DevMetric | None:
    """The task's metric on these dev rows; None where only a judge could give it: then the loss chooses the checkpoint."""
    task, expected = work.use_case.task, list(work.tables.need("dev")["label"].head(len(dev)))
    if not dev or (task.kind == "free_text" and task.metric == "judge"):
        return None
    prompts = tuple(row.prompt for row in dev)
    return DevMetric(task=task, prompts=prompts, expected=tuple(expected), max_new_tokens=work.use_case.traffic.output_tokens)


def _pairs(work: Workspace, table: str) -> list[training_rows.Row]:
    """Rows of a table as prompt and completion, the prompt as the chat endpoint will render it."""
    system = {"role": "system", "content": trained_prompt(work.use_case)}
    frame = work.tables.need(table)
    base = weights.materialize(work.base().uri, work.home)
    chats = [[system, {"role": "user", "content": text}] for text in frame["text"]]
    return [
        training_rows.Row(training_rows.format_chat(base, chat), completion_of(work.use_case.task, label))
        for chat, label in zip(chats, frame["label"], strict=True)
    ]


def _check_licence(work: Workspace, teacher: Candidate) -> None:
    model = work.model(teacher.model)
    if not model.is_open and model.training_on_output is not True:
        raise BadInput(
            f"models.candidates: {model.uri} would teach, but training_on_output is not set to true; read its terms and say "
            "whether they allow training on its answers, or set last_stage before distill"
        )
