"""Distils a teacher's label probabilities into a small encoder student.

It does not ask the teacher (the flow hands its labels in) and does not judge the student. It trains on the GPU where
there is one (not run on a GPU), and answers on the CPU (`leastwise.models.student`). Depth still missing: one process,
no checkpoint within a training run (minutes at most), classification only.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from leastwise.errors import BadInput
from leastwise.models.encoder import encoder_hash
from leastwise.models.machine import THREADS, device_here, fitting, torch_threads
from leastwise.models.student import (
    MOST_FALSE_DECLINES,
    DeclineThreshold,
    Student,
    StudentAbout,
    fit_dev_threshold,
    tokenized,
)
from leastwise.models.student_network import Network, forward, padded
from leastwise.progress import TrainingProgress
from leastwise.use_case.student import EncoderStudent
from leastwise.use_case.training import LONGEST_TOKENS

if TYPE_CHECKING:
    import torch

Targets = npt.NDArray[np.float32]
Progress = Callable[[TrainingProgress], None]
Labelled = tuple[Sequence[str], Sequence[str]]  # texts, and a label of each
_DEFAULT = EncoderStudent()  # what a use case says that says nothing of it

_BATCHES_PER_BUCKET = 50  # rows are sorted by length within so many batches: little padding, order still random
_HEAD_RATE = 10.0  # the head starts from nothing, the encoder does not
_WARM_UP = 0.06
_RECIPE = 1  # part of the key: raise it when the training below changes


class StudentSettings(BaseModel):
    """How a student is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_layers: int = Field(
        _DEFAULT.layers, ge=2, le=6, description="Layers kept of the encoder, counted from the input"
    )
    epochs: int = Field(_DEFAULT.epochs, ge=1, le=50, description="Passes over the teacher's labels")
    learning_rate: float = Field(
        _DEFAULT.learning_rate, gt=0, le=1e-2, description="Peak rate of the encoder; the head learns at 10x"
    )
    batch_size: int = Field(32, ge=1, le=1024, description="Texts per optimizer step")
    max_tokens: int = Field(64, ge=8, le=LONGEST_TOKENS, description="Tokens read of a text; the rest is cut off")
    temperature: float = Field(
        _DEFAULT.temperature,
        gt=0,
        le=20,
        description="Softens teacher and student alike: above 1 second choices count more",
    )
    max_false_decline: float = Field(
        MOST_FALSE_DECLINES, ge=0, lt=1, description="Share of in-scope dev texts the abstention threshold may decline"
    )
    seed: int = Field(0, ge=0, description="Order of the texts and start of the head")
    threads: int = Field(THREADS, ge=1, le=256, description="CPU threads of training")


class StudentReport(BaseModel):
    """What training a student cost and reached on dev; `reused` says that this call trained nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    directory: Path
    rows: int
    steps: int
    final_loss: float
    dev_accuracy: float
    threshold: DeclineThreshold
    train_seconds: float
    reused: bool = False


def train_student(
    encoder: Path,
    texts: Sequence[str],
    targets: Targets,
    labels: Sequence[str],
    dev: Labelled,
    settings: StudentSettings,
    out: Path,
    progress: Progress = lambda _: None,
    *,
    out_of_scope: Sequence[str] = (),
    decline_label: str | None = None,
) -> StudentReport:
    """Train on `texts` and `targets` (n x labels, rows of probabilities summing to 1) and write the student to `out`.

    The loss is T² · KL(teacher ‖ student), both at temperature T (Hinton, Vinyals and Dean 2015, section 2); word
    embeddings stay as they are. `dev` (texts, labels) and dev `out_of_scope` texts set the abstention threshold. A
    finished `out` of the same inputs is reused; an unfinished one is trained again. Raises BadInput naming the row.
    """
    targets = np.asarray(targets, dtype=np.float32)
    _check(texts, targets, labels, dev)
    key = student_key(encoder, texts, targets, labels, dev, settings, out_of_scope, decline_label)
    if (finished := _finished(out, key)) is not None:
        return finished
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with torch_threads(settings.threads):
        run = _Training(encoder, list(texts), targets, settings, progress)
        losses = run.fit()
        run.save(unfinished)
    _write_about(unfinished, labels, settings, None, 0.0)
    student = Student(unfinished, settings.threads)
    accuracy = float(np.mean(np.asarray(student.predict(dev[0])) == np.asarray(dev[1])))
    threshold = fit_dev_threshold(student.probabilities, dev[0], out_of_scope, settings.max_false_decline)
    _write_about(unfinished, labels, settings, decline_label, threshold.decline_below)
    report = StudentReport(
        key=key,
        directory=out,
        rows=len(texts),
        steps=len(losses),
        final_loss=float(np.mean(losses[-20:])),
        dev_accuracy=accuracy,
        threshold=threshold,
        train_seconds=run.seconds,
    )
    (unfinished / "report.json").write_text(report.model_dump_json(indent=1))
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)
    return report


def _check(texts: Sequence[str], targets: Targets, labels: Sequence[str], dev: Labelled) -> None:
    if len(texts) == 0 or targets.shape != (len(texts), len(labels)):
        shape = (len(texts), len(labels))
        raise BadInput(f"student: targets have shape {targets.shape}, not {shape}: a row a text, a column a label")
    bad = ~np.isfinite(targets).all(axis=1) | (targets < 0).any(axis=1) | (np.abs(targets.sum(axis=1) - 1) > 1e-3)
    if bad.any():
        raise BadInput(f"student: row {int(bad.argmax())} of targets is no distribution; normalize it or drop it")
    if not dev[0] or len(dev[0]) != len(dev[1]):
        raise BadInput(f"student: dev has {len(dev[0])} texts, {len(dev[1])} labels; give as many, at least one")


def student_key(
    encoder: Path,
    texts: Sequence[str],
    targets: Targets,
    labels: Sequence[str],
    dev: Labelled,
    settings: StudentSettings,
    out_of_scope: Sequence[str] = (),
    decline_label: str | None = None,
) -> str:
    """Hash of all that determines a student: equal keys are the same one, so that it may be kept under it."""
    rest = (labels, dev, settings, out_of_scope, decline_label)
    plain = [part.model_dump(exclude={"threads"}) if isinstance(part, BaseModel) else part for part in rest]
    digest = hashlib.sha256(json.dumps([_RECIPE, encoder_hash(encoder), list(texts), plain], default=list).encode())
    digest.update(np.ascontiguousarray(targets, dtype=np.float32).tobytes())
    return digest.hexdigest()[:24]


def _finished(out: Path, key: str) -> StudentReport | None:
    path = out / "report.json"
    if not path.is_file():
        return None
    report = StudentReport.model_validate_json(path.read_text())
    return report.model_copy(update={"reused": True, "directory": out}) if report.key == key else None


def _write_about(
    directory: Path, labels: Sequence[str], settings: StudentSettings, decline_label: str | None, decline_below: float
) -> None:
    about = StudentAbout(
        labels=tuple(labels), max_tokens=settings.max_tokens, decline_label=decline_label, decline_below=decline_below
    )
    (directory / "labels.json").write_text(about.model_dump_json(indent=1))


class _Training:
    def __init__(
        self, encoder: Path, texts: list[str], targets: Targets, settings: StudentSettings, progress: Progress
    ) -> None:
        import torch
        from transformers import AutoTokenizer

        self.settings, self.progress, self.seconds = settings, progress, 0.0
        self.tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
        self.tokens, self.device = tokenized(self.tokenizer, texts, settings.max_tokens), device_here()
        softened = torch.as_tensor(targets).clamp_min(0) ** (1 / settings.temperature)
        self.targets = softened / softened.sum(dim=1, keepdim=True)
        self.network = _new_network(encoder, settings, targets.shape[1], self.device)

    def fit(self) -> list[float]:
        import torch

        steps = self.settings.epochs * math.ceil(len(self.tokens) / self.settings.batch_size)
        optimizer = self._optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        losses: list[float] = []
        start = time.perf_counter()
        self.network.encoder.train()
        self.network.head.train()
        # dropout draws from torch's global generator: put back afterwards, so that training leaves no trace elsewhere
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(self.settings.seed)
            for rows in self._batches():
                losses.append(self._step(rows, optimizer))
                schedule.step()
                self.seconds = time.perf_counter() - start
                if len(losses) % 20 == 0 or len(losses) == steps:
                    self._tell(losses, steps)
        return losses

    def _tell(self, losses: list[float], steps: int) -> None:
        left = self.seconds / len(losses) * (steps - len(losses))
        self.progress(TrainingProgress(len(losses), steps, float(np.mean(losses[-20:])), self.seconds, left))

    def _optimizer(self) -> torch.optim.Optimizer:
        import torch

        rate = self.settings.learning_rate
        encoder = [weight for weight in self.network.encoder.parameters() if weight.requires_grad]
        head = {"params": self.network.head.parameters(), "lr": rate * _HEAD_RATE}
        return torch.optim.AdamW([{"params": encoder, "lr": rate}, head], weight_decay=0.01, fused=True)

    def _batches(self) -> Iterator[list[int]]:
        rng, size = np.random.default_rng(self.settings.seed), self.settings.batch_size
        for _ in range(self.settings.epochs):
            order = rng.permutation(len(self.tokens)).tolist()
            bucket = size * _BATCHES_PER_BUCKET
            buckets = (order[i : i + bucket] for i in range(0, len(order), bucket))
            parts = [sorted(rows, key=lambda row: len(self.tokens[row])) for rows in buckets]
            batches = [part[i : i + size] for part in parts for i in range(0, len(part), size)]
            yield from (batches[i] for i in rng.permutation(len(batches)))

    def _step(self, rows: list[int], optimizer: torch.optim.Optimizer) -> float:
        def passed(most: int) -> float:
            optimizer.zero_grad()  # of the step before, and of what did not fit
            return sum(self._passed(rows[at : at + most], len(rows)) for at in range(0, len(rows), most))

        loss = fitting("a student's step", len(rows), passed)
        optimizer.step()
        return loss

    def _passed(self, rows: list[int], of_step: int) -> float:
        """Forward and back with some rows of a step; their share of its loss."""
        import torch

        ids, mask = (torch.from_numpy(each).to(self.device) for each in padded([self.tokens[i] for i in rows]))
        with torch.autocast(self.device.type, torch.bfloat16):  # 1.3-1.5x faster than float32 on a CPU, as accurate
            logits = forward(self.network, ids, mask)
        student = (logits / self.settings.temperature).log_softmax(dim=1)
        targets = self.targets[rows].to(self.device)
        loss = torch.nn.functional.kl_div(student, targets, reduction="batchmean") * (len(rows) / of_step)
        (loss * self.settings.temperature**2).backward()
        return float(loss.detach())

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True)
        self.network.encoder.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        save_file(self.network.head.state_dict(), directory / "head.safetensors")


def _new_network(encoder: Path, settings: StudentSettings, labels: int, device: torch.device) -> Network:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    body: Any = AutoModel.from_pretrained(encoder, local_files_only=True, dtype=torch.float32)
    body.pooler = None  # answers come from the mean over tokens, as the encoder was trained
    body.encoder.layer = body.encoder.layer[: settings.encoder_layers]  # loading all, then cutting, warns of nothing
    body.config.num_hidden_layers = settings.encoder_layers
    body.embeddings.word_embeddings.weight.requires_grad = False  # 11.7 of 15.3 million weights; 1.3x faster without
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = torch.nn.Linear(body.config.hidden_size, labels)
    return Network(body.to(device), head.to(device))


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / (_WARM_UP * steps)) * max(0.0, 1.0 - step / steps)
