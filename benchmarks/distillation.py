"""Student against teacher on the same machine in the same run: quality, requests a second, and p95 over HTTP.

`python -m benchmarks.distillation`. The teacher is the adapter of use_cases/alert-triage.yaml, trained as the use case
says; it labels every unlabelled text, and the student learns from its label probabilities. Quality is measured on the
test split and rows of the gate split, neither of which trained, tuned or chose anything here. Adapter, labels, answers
and student are kept in LEASTWISE_HOME, so that a repeated run only measures speed anew; latencies are never taken from
an earlier run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from leastwise.answering.answerers import open_answerer
from leastwise.answering.trained import InProcess
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.models import runtime_choice, weights
from leastwise.models.chat import format_chat
from leastwise.models.encoder import embedder_dir
from leastwise.models.student import Student
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.budget import Budget
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.tables import table_files
from leastwise.training import distillation, stage_weights, training
from leastwise.training import teacher_labels as labelling
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import trained_prompt
from leastwise.use_case.student import EncoderStudent
from tasks.session.console import Console
from tasks.session.workspace import prospect_of

THREADS, ROUNDS, SLICE, HTTP_ROWS = 2, 3, 250, 200
TEACHER_TEXTS = {1: 10, 32: 64}  # timed a round, by batch size
STUDENT_TEXTS = {1: 200, 32: 1280}
RESAMPLES = 9_999
WANTED = {
    "quality ratio": 0.97,
    "its lower bound": 0.95,
    "cost at batch 1": 50,
    "cost at batch 32": 25,
    "p95 over HTTP": 10,
}


@dataclass(frozen=True)
class Ratio:
    """Quality of the student over the teacher's on the same rows, with a two-sided 95% interval."""

    student: float
    teacher: float
    estimate: float
    lower: float
    upper: float


def main() -> None:
    """Make what is missing, then measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=EncoderStudent().layers, help="layers of the student")
    parser.add_argument("--epochs", type=int, default=EncoderStudent().epochs, help="passes over the teacher's labels")
    parser.add_argument(
        "--labels", type=int, default=0, help="texts the teacher labels, the first ones; 0: all there are"
    )
    parser.add_argument(
        "--hard", action="store_true", help="learn from the teacher's labels without their probabilities"
    )
    parser.add_argument(
        "--gate-rows", type=int, default=1_000, help="gate rows beside all 2,035 of test that quality is measured on"
    )
    parser.add_argument(
        "--likeliest",
        action="store_true",
        help=(
            "the teacher's answer is its likeliest label: thrice as fast to get as greedy "
            "decoding, the same but for near ties"
        ),
    )
    parser.add_argument("--quality-only", action="store_true", help="leave out what is timed")
    asked = parser.parse_args()
    work = unlogged(load("alert-triage"))
    teacher = teacher_of(work)
    labelled = teacher_labels(work, teacher, asked.labels or None)
    student = student_of(
        work, labelled.drop(columns="probabilities") if asked.hard else labelled, asked.layers, asked.epochs
    )
    rows = pd.concat([work.tables.need("test"), work.tables.need("gate").head(asked.gate_rows)], ignore_index=True)
    show_quality(rows, student, teacher_answers(work, teacher, rows, asked.likeliest))
    if not asked.quality_only:
        show_speed(work, teacher, student, rows)


def unlogged(case: UseCase) -> Workspace:
    """What answers and trains under no run: nothing is logged, nothing drawn on an alpha account."""
    prospect, home = prospect_of(case), storage.home()
    return Workspace(
        question=prospect.question,
        catalogue=prospect.catalogue,
        budget=Budget(LedgerFile(home / "ledger.db"), RunId("benchmark"), case),
        run=None,  # type: ignore[arg-type]
        account=None,  # type: ignore[arg-type]
        answers=ResponseStore(home / "responses.db"),
        home=home,
        display=Console(),
    )


def teacher_of(work: Workspace) -> Candidate:
    """The tuned candidate of the use case, in the place and under the key where a climb would find or train it."""
    base = weights.materialize(work.catalogue.base().uri, work.home)
    settings = stage_weights.settings_of(work.use_case.training)
    examples, dev = stage_weights.pairs(work, "train"), stage_weights.pairs(work, "dev")
    metric = stage_weights.dev_metric(work, dev[: settings.dev_examples])
    request = training.request_of(base, examples, dev, settings, metric)
    out = work.home / "adapters" / request.key
    report = training.run(request, out, lambda at: print(f"  step {at.step} of {at.steps}", flush=True))
    print(f"teacher: {report.settings.method} on {report.examples:,} examples in {report.seconds:.0f} s")
    made = Weights(kind="adapter", uri=out.as_uri(), revision=weights.directory_hash(out))
    uri = work.catalogue.base().uri
    prompt = Prompt(system=trained_prompt(work.use_case))
    return Candidate(
        stage="fine_tune",
        model=uri,
        revision=work.catalogue.revision(uri),
        venue="managed",
        prompt=prompt,
        weights=made,
    )


def teacher_labels(work: Workspace, teacher: Candidate, most: int | None) -> pd.DataFrame:
    """Label probabilities of the first so many unlabelled texts, kept by the teacher's key."""
    texts = work.tables.need("unlabelled")
    texts = texts.head(most or len(texts))
    out = (
        work.home
        / "benchmarks"
        / f"labels-{content_key(teacher.key, work.tables.hashes['unlabelled'], str(len(texts)))}.parquet"
    )
    if not out.exists():
        started = time.perf_counter()
        table_files.write_table(labelling.soft_labels(work, teacher, texts, out.with_suffix(".parts")), out)
        print(f"{len(texts):,} texts labelled in {time.perf_counter() - started:.0f} s")
    return table_files.read_table(out)


def student_of(work: Workspace, labelled: pd.DataFrame, layers: int, epochs: int) -> Path:
    """The student's directory, trained where it is not there, in the runtime that is fastest here."""
    answers, dev = list(work.use_case.task.answers or ()), work.tables.need("dev")
    settings = distillation.StudentSettings(encoder_layers=layers, epochs=epochs)
    targets = labelling.targets(labelled, answers)
    out = (
        work.home
        / "benchmarks"
        / f"student-{content_key(settings.model_dump_json(), *labelled['id'], str(targets.sum(axis=0)))}"
    )
    known = (list(dev["text"]), list(dev["label"]))
    assert work.use_case.models.student is not None
    encoder = embedder_dir(work.use_case.models.student)
    report = distillation.train_student(encoder, list(labelled["text"]), targets, answers, known, settings, out)
    chosen = runtime_choice.choose_runtime(out, *known, threads=THREADS)
    kind = "soft" if "probabilities" in labelled else "hard"
    print(
        f"student: {layers} layers, {epochs} epochs over {report.rows:,} {kind} labels in {report.train_seconds:.0f} s"
    )
    for each in Student(out).about.measured:
        mark = "  <- chosen" if each.runtime == chosen.runtime else ""
        print(
            f"  {each.runtime:<9} {each.requests_per_s:6.0f} texts/s alone, "
            f"{each.requests_per_s_at_32:6.0f} in batches of 32, "
            f"dev {each.dev_accuracy:.3f}{mark}"
        )
    return out


def teacher_answers(work: Workspace, teacher: Candidate, rows: pd.DataFrame, likeliest: bool) -> list[str | None]:
    """The teacher's answer to each row, kept slice by slice."""
    if likeliest:
        return list(
            labelling.soft_labels(
                work, teacher, rows, work.home / "benchmarks" / f"likeliest-{teacher.key}-{len(rows)}"
            )["label"]
        )
    found: list[str | None] = []
    answerer = InProcess(work, teacher)
    for start in range(0, len(rows), SLICE):
        found += [answer.text for answer in answerer.answer(rows.iloc[start : start + SLICE])]
    return found


def show_quality(rows: pd.DataFrame, student: Path, theirs: list[str | None]) -> None:
    """Share of right labels of both on the same rows, and their ratio."""
    ours = np.asarray(Student(student, THREADS).predict(list(rows["text"])))
    wanted = rows["label"].to_numpy()
    found = ratio_of((ours == wanted).astype(float), (np.asarray(theirs) == wanted).astype(float))
    agreement = float(np.mean(ours == np.asarray(theirs)))
    print(
        f"\nquality on {len(rows):,} rows (test, and some of gate): teacher {found.teacher:.4f}, "
        f"student {found.student:.4f}, agreement {agreement:.3f}"
    )
    row("quality ratio", found.estimate, f"95% interval {found.lower:.3f} to {found.upper:.3f}")
    row("its lower bound", found.lower, f"two-sided 95%, paired bootstrap (BCa), {RESAMPLES:,} resamples of rows")


def ratio_of(student: np.ndarray, teacher: np.ndarray) -> Ratio:
    """Ratio of the means with its interval by the paired BCa bootstrap (Efron 1987), rows resampled together."""
    from scipy.stats import bootstrap

    def ratio(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(one.mean(axis=axis) / other.mean(axis=axis))

    interval = bootstrap(
        (student, teacher), ratio, paired=True, n_resamples=RESAMPLES, batch=500, rng=np.random.default_rng(0)
    ).confidence_interval
    estimate = float(student.mean() / teacher.mean())
    return Ratio(float(student.mean()), float(teacher.mean()), estimate, float(interval.low), float(interval.high))


def show_speed(work: Workspace, teacher: Candidate, student: Path, rows: pd.DataFrame) -> None:
    """Requests a second in process, in turn, and p95 over HTTP."""
    per_s = requests_per_s(work, teacher, student, list(rows["text"]))
    print(f"\nin process, {THREADS} threads, in turn, medians of {ROUNDS} rounds:")
    for size in TEACHER_TEXTS:
        ours, theirs = per_s["student"][size], per_s["teacher"][size]
        row(f"cost at batch {size}", ours / theirs, f"student {ours:,.0f} requests/s, teacher {theirs:.2f}", times=True)
    ours, theirs = http_p95_ms(work, teacher, student, rows)
    print(
        f"\nover HTTP, {work.use_case.traffic.concurrency} requests in flight, {HTTP_ROWS} rows, "
        "one server after the other:"
    )
    row("p95 over HTTP", theirs / ours, f"student {ours:.1f} ms, teacher {theirs:.0f} ms", times=True)


def requests_per_s(work: Workspace, teacher: Candidate, student: Path, texts: list[str]) -> dict[str, dict[int, float]]:
    """Medians over the rounds, by who answers and the batch size."""
    generator = InProcess(work, teacher).generator
    base = weights.materialize(teacher.model, work.home)
    assert teacher.prompt is not None
    system = {"role": "system", "content": teacher.prompt.system}
    prompts = [format_chat(base, [system, {"role": "user", "content": text}]) for text in texts]
    encoder, tokens = Student(student, THREADS), work.use_case.traffic.output_tokens

    def teach(size: int, at: int) -> float:
        return rate(lambda batch: generator.answer(batch, tokens, size), prompts[at:][: TEACHER_TEXTS[size]], size)

    def study(size: int, at: int) -> float:
        return rate(encoder.answer, texts[at:][: STUDENT_TEXTS[size]], size)

    found: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in TEACHER_TEXTS} for name in ("teacher", "student")
    }
    for turn in range(-1, ROUNDS):  # the first one warms up
        for size in TEACHER_TEXTS:
            for name, measure in (("teacher", teach), ("student", study)):
                speed = measure(size, max(turn, 0) * TEACHER_TEXTS[32])
                found[name][size] += [speed] if turn >= 0 else []
    return {name: {size: statistics.median(speeds) for size, speeds in sizes.items()} for name, sizes in found.items()}


def rate(answer: Callable[[list[str]], object], texts: list[str], size: int) -> float:
    """Texts a second, answered in batches of `size`."""
    started = time.perf_counter()
    for start in range(0, len(texts), size):
        answer(texts[start : start + size])
    return len(texts) / (time.perf_counter() - started)


def http_p95_ms(work: Workspace, teacher: Candidate, student: Path, rows: pd.DataFrame) -> tuple[float, float]:
    """95th percentiles of student and teacher, each behind the server it would run on, nothing taken from a store."""
    asked = rows.sample(HTTP_ROWS, random_state=0)
    made = Weights(kind="student", uri=student.as_uri(), revision=weights.directory_hash(student))
    uri = work.use_case.models.student or ""
    small = Candidate(stage="distill", model=uri, revision=work.catalogue.revision(uri), venue="managed", weights=made)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        empty = replace(work, answers=ResponseStore(Path(folder) / "responses.db"))
        for candidate in (small, teacher):
            with open_answerer(empty, candidate) as answerer:
                answers = answerer.answer(asked) if candidate is small else []
                found.append(float(np.percentile(answerer.timed(asked, answers), 95)))
    return found[0], found[1]


def row(name: str, value: float, note: str, times: bool = False) -> None:
    """One figure against what is wanted of it."""
    wanted = WANTED[name]
    shown, bound = (f"1/{value:.0f}", f"at most 1/{wanted}") if times else (f"{value:.3f}", f"at least {wanted}")
    print(f"  {name:<17} {shown:>6}  {bound:<15} {'met ' if value >= wanted else 'MISS'}  {note}", flush=True)


if __name__ == "__main__":
    main()
