"""A small search over rank, learning rate and epochs by successive halving on dev, before the training itself.

Which trials go on is decided by `leastwise.evidence.halving`. A trial is an ordinary training on fewer examples: kept
under a key of its own, so that a rerun repeats none, and paid through the same machine, so that a cap ends the search.
It looks at dev only.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from leastwise.evidence.halving import better_half, schedule
from leastwise.progress import TrainingProgress
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import request_of, run
from leastwise.training.training_rows import Row
from leastwise.use_case.training import Search

Paid = Callable[[Path], AbstractContextManager[Callable[[TrainingProgress], None]]]
"""Of the folder that is made: a context that pays the machine, and gives what to call with each progress."""


@dataclass(frozen=True)
class Trial:
    """One training of the search; `metric` is minus the loss where no metric was given."""

    settings: TrainingSettings
    examples: int
    metric: float
    loss: float
    goes_on: bool


class SearchResult(NamedTuple):
    """The settings that did best on dev, with the start's own number of examples, and every trial in order."""

    settings: TrainingSettings
    trials: list[Trial]


def search(
    base: Path,
    rows: Sequence[Row],
    dev: Sequence[Row],
    start: TrainingSettings,
    choices: Search,
    folder: Path,
    paid: Paid,
    metric: DevMetric | None = None,
) -> SearchResult:
    """Trains every combination of the choices on few examples, the better half on twice as many, and so on.

    All else is as in `start`. Each trial is kept in `folder`, and `paid` while it is made.
    """
    left = [
        start.model_copy(update={"rank": rank, "learning_rate": rate, "epochs": epochs})
        for rank, rate, epochs in itertools.product(choices.ranks, choices.learning_rates, choices.epochs)
    ]
    trials: list[Trial] = []
    for _, examples in schedule(len(left), choices.first_examples, start.max_examples):
        scores = [_score(base, rows, dev, each, examples, folder, paid, metric) for each in left]
        kept = better_half(scores)
        trials += [
            Trial(each, examples, *score, goes_on=at in kept)
            for at, (each, score) in enumerate(zip(left, scores, strict=True))
        ]
        left = [left[at] for at in kept]
    return SearchResult(left[0], trials)


def _score(
    base: Path,
    rows: Sequence[Row],
    dev: Sequence[Row],
    chosen: TrainingSettings,
    examples: int,
    folder: Path,
    paid: Paid,
    metric: DevMetric | None,
) -> tuple[float, float]:
    """Metric and loss on dev of a short training; its warm-up and decay are those of a whole one, over fewer steps."""
    short = chosen.model_copy(update={"max_examples": examples, "eval_every_share": 1.0})
    request = request_of(base, distinct(rows, short), dev, short, metric)
    out = folder / request.key
    with paid(out) as on_progress:
        return _on_dev(run(request, out, on_progress))


def distinct(rows: Sequence[Row], chosen: TrainingSettings) -> Sequence[Row]:
    """The rows of which `epochs` passes are `max_examples`, drawn at random; all where there are no more."""
    room = max(1, chosen.max_examples // chosen.epochs)
    return rows if chosen.epochs == 1 or len(rows) <= room else random.Random(chosen.seed).sample(list(rows), room)


def _on_dev(report: TrainingReport) -> tuple[float, float]:
    loss = report.dev_losses[-1]
    return (report.dev_metrics[-1] if report.dev_metrics else -loss), loss


def as_markdown(trials: Sequence[Trial]) -> str:
    """The trials as a table."""
    lines = ["| examples | rank | learning rate | epochs | on dev | loss | |", "|---|---|---|---|---|---|---|"]
    for trial in trials:
        s = trial.settings
        figures = f"{s.rank} | {s.learning_rate:g} | {s.epochs} | {trial.metric:.3f} | {trial.loss:.3f}"
        lines.append(f"| {trial.examples:,} | {figures} | {'goes on' if trial.goes_on else 'stopped'} |")
    return "\n".join(lines)
