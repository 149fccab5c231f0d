"""Which runtime a student answers in: chosen by measurement on this machine, quality held on dev.

It computes nothing itself (`leastwise.models.student_runtime` says how each runtime does) and trains nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leastwise.models.machine import THREADS
from leastwise.models.student import Student
from leastwise.models.student_runtime import RUNTIMES, Runtime, RuntimeSpeed, compute_in

MOST_LOST = 0.003  # share of dev texts a runtime may get wrong beyond what float32 does, before it is no candidate
_BATCH = 32
_ROUNDS = 5
_Answer = Callable[[list[str], int], npt.NDArray[np.float32]]  # (texts, batch size) → logits


def choose_runtime(
    directory: Path, texts: Sequence[str], labels: Sequence[str], threads: int = THREADS
) -> RuntimeSpeed:
    """Measure every runtime of a trained student on dev, and write the `fastest` into its directory.

    A student that has been measured keeps what was chosen.
    """
    student = Student(directory, threads)
    if student.about.measured:
        return next(each for each in student.about.measured if each.runtime == student.about.runtime)
    measured = _measured(student, list(texts), labels)
    chosen = fastest(measured)
    about = student.about.model_copy(update={"runtime": chosen.runtime, "measured": tuple(measured)})
    unfinished = directory / "labels.json.unfinished"
    unfinished.write_text(about.model_dump_json(indent=1))
    unfinished.replace(directory / "labels.json")
    return chosen


def fastest(measured: Sequence[RuntimeSpeed]) -> RuntimeSpeed:
    """The highest product of requests/s alone and in batches of 32, among those that hold quality.

    At most MOST_LOST more of dev may be wrong than by the first, which is float32.
    """
    held = [each for each in measured if each.dev_accuracy >= measured[0].dev_accuracy - MOST_LOST]
    return max(held, key=lambda each: each.requests_per_s * each.requests_per_s_at_32)


def _measured(student: Student, texts: list[str], labels: Sequence[str]) -> list[RuntimeSpeed]:
    """The runtimes in turn, round after round, so that a drift of the machine's speed meets all of them; medians."""
    runs: dict[Runtime, _Answer] = {runtime: _answering(student, runtime) for runtime in RUNTIMES}
    sample = texts[: 2 * _BATCH]
    predicted = {runtime: answer(texts, _BATCH).argmax(axis=1) for runtime, answer in runs.items()}
    alone: dict[Runtime, list[float]] = {runtime: [] for runtime in runs}
    batched: dict[Runtime, list[float]] = {runtime: [] for runtime in runs}
    for _ in range(_ROUNDS):
        for runtime, answer in runs.items():
            alone[runtime].append(_rate(answer, sample[:_BATCH], 1))
            batched[runtime].append(_rate(answer, sample, _BATCH))
    names = np.asarray(student.about.labels)
    return [
        RuntimeSpeed(
            runtime=runtime,
            requests_per_s=statistics.median(alone[runtime]),
            requests_per_s_at_32=statistics.median(batched[runtime]),
            dev_accuracy=float(np.mean(names[predicted[runtime]] == np.asarray(labels))),
        )
        for runtime in runs
    ]


def _answering(student: Student, runtime: Runtime) -> _Answer:
    compute = compute_in(runtime, student.stored_network, student.about.normalize, student.threads)
    return lambda texts, size: student.logits(texts, size, compute)


def _rate(answer: _Answer, texts: list[str], size: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(texts), size):
        answer(texts[start : start + size], size)
    return len(texts) / (time.perf_counter() - started)
