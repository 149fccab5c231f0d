"""What people see of a climb: the ladder on standard error, or on a worker in the flow run's log.

It computes no figure of its own: it shows what was measured and logged. Standard output carries only the JSON line.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leastwise.ladder import Evaluation, Record, Verdict
from leastwise.ladder.ending import ClimbEnding, UpkeepEnding
from leastwise.progress import EvaluationProgress, TrainingProgress
from leastwise.record.climb_run import OpenClimb
from leastwise.record.reports import decision, figure_of, interval, more_needed
from leastwise.record.run import Figure
from leastwise.use_case import UseCase
from leastwise.use_case.requirements import Requirement
from tasks.session.artifacts import ProgressBars

if TYPE_CHECKING:
    from prefect.logging.loggers import LoggingAdapter

MARK = {"PASS": "✔ PASS", "FAIL": "✘ FAIL", "UNDECIDED": "? UNDECIDED", "ERROR": "! ERROR", "SKIPPED": "– skipped"}
RULE = "─" * 110
NOTES_OF = "leastwise"  # the logger whose notes people see
TERMINAL_S, LOG_S, EMBEDDING_S = 0.5, 15.0, 10.0  # seconds between two lines of progress


def say(line: str = "") -> None:
    """A line for people: standard error, so that standard output carries only the JSON line; on a worker the
    run's log.
    """
    logger = _run_logger()
    if logger is None:
        print(line, file=sys.stderr, flush=True)
    elif line.strip():
        logger.info(line)


def _run_logger() -> logging.Logger | LoggingAdapter | None:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    if not os.environ.get("PREFECT_API_URL"):
        return None
    try:
        return get_run_logger()
    except MissingContextError:
        return None


class Notes(logging.Handler):
    """Shows what the library says of a step that takes a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """One note, as a line inside its stage."""
        say(f"  … {record.getMessage()}")


def show_notes() -> None:
    """Show the library's notes to people from now on; once a process."""
    logger = logging.getLogger(NOTES_OF)
    if not any(isinstance(handler, Notes) for handler in logger.handlers):
        logger.addHandler(Notes())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class Console:
    """Shows how far a task is (a `leastwise.progress.Display`): a line on a terminal, now and then one in a log."""

    def __init__(self) -> None:
        self._shown_s, self._bars = 0.0, ProgressBars()

    def show_evaluation(self, progress: EvaluationProgress) -> None:
        """Rows answered so far, also as a bar in the Prefect UI."""
        if not self._is_due():
            return
        figures = " ".join(f"{name} {figure_of(name, value)}" for name, value in progress.estimates.items())
        to_go = "" if progress.to_go is None else f", about {progress.to_go:,} to go"
        rows = f"{progress.rows:,} of at most {progress.of:,} examples{to_go}"
        line = f"  … {progress.stage}: {rows}, ${progress.usd:.4f} {figures}"
        _show_over(line)
        whole = progress.of if progress.to_go is None else progress.rows + progress.to_go
        self._bars.show(progress.stage, progress.rows / max(whole, 1), line.strip(" …"))

    def show_training(self, progress: TrainingProgress) -> None:
        """Step, loss and what is left."""
        if self._is_due():
            step = f"step {progress.step} of {progress.steps}"
            _show_over(f"  … {step}, loss {progress.loss:.3f}, about {progress.seconds_left:.0f} s to go")

    def show_embedding(self, done: int, of: int) -> None:
        """Texts embedded for the first time."""
        if self._is_due(EMBEDDING_S):
            say(f"  … embedded {done:,} of {of:,} texts")

    def _is_due(self, every_s: float | None = None) -> bool:
        now = time.monotonic()
        if now - self._shown_s < (every_s or (TERMINAL_S if sys.stderr.isatty() else LOG_S)):
            return False
        self._shown_s = now
        return True


def _show_over(line: str) -> None:
    """On a terminal in place of the line before."""
    if sys.stderr.isatty():
        print(f"\r{line[:118]:<118}", end="\r", file=sys.stderr, flush=True)
    else:
        say(line)


def show_opening(use_case: UseCase, climb: OpenClimb, tracking_uri: str) -> None:
    """The head of the ladder."""
    state = "resuming the climb" if climb.is_resumed else "a new climb"
    say(f"\nLeastwise · {use_case.name} · {state} {climb.run.id[:8]}, logged to {tracking_uri}")
    say(f"{use_case.description.strip()}\n")
    say(f"{'stage':<12} {'verdict':<12} requirement: estimate [interval] against its bound")
    say(RULE)


def show_savings(totals: Mapping[str, float]) -> None:
    """What the caches saved on the sampled traffic; input and bill apart."""
    hits = f"{totals['cache.exact_hits']:.0f} requests ({totals['cache.hit_rate']:.0%})"
    say(
        f"  … {hits} answered from the response cache, {totals['cache.cached_share']:.0%} of the others' input tokens "
        f"cached at the provider: {totals['cache.input_saving']:.0%} off the input, {totals['cache.bill_saving']:.0%} "
        f"off the bill (${totals['usd.saved']:.4f} of ${totals['usd.without_cache']:.4f})"
    )


def show_teacher(stage: str, figures: Mapping[str, float]) -> None:
    """A student beside its teacher."""
    agreement, rows = figures["teacher.agreement"], figures["teacher.n"]
    difference, quality = figures["teacher.difference"], figures["teacher.quality"]
    lower, upper = figures["teacher.difference.lower"], figures["teacher.difference.upper"]
    say(
        f"  … student and {stage} teacher agree on {agreement:.0%} of {rows:.0f} gate rows; quality {difference:+.3f} "
        f"against the teacher's {quality:.3f} [{lower:+.3f}, {upper:+.3f}]"
    )


def show_test(figures: Mapping[str, Figure], met: bool) -> None:
    """The winner on the untouched split."""
    words = ", ".join(f"{name} {figure.estimate:.3f} (n={figure.n})" for name, figure in figures.items())
    say(f"{'test':<12} {'✔ confirmed' if met else '✘ missed':<12} {words}")


def show_stage(
    stage: str, logged: Evaluation, verdict: Verdict, requirements: Sequence[Requirement], end: str, more: str = ""
) -> None:
    """One stage of the table: a line a requirement, `more` that is known of it, and at the `end` spend and seconds."""
    outcomes = {each.name: each.outcome for each in verdict.requirements}
    head = f"{stage:<12} {MARK[verdict.outcome]:<12} "
    for requirement in requirements:
        measured = logged.measurements.get(requirement.name)
        figure, n = (interval(measured), f"n={measured.n}") if measured else ("not measured", "")
        say(f"{head}{outcomes[requirement.name]:<9} {requirement.name:<20} {figure} {n}")
        head = " " * 26
    needed = more_needed(logged, verdict) if verdict.outcome == "UNDECIDED" else []
    for line in filter(None, (*needed, more, end, verdict.reason if verdict.outcome == "ERROR" else "")):
        say(f"{head}{line}")


def money_and_time(usd: float, seconds: float | None) -> str:
    """The last line of a stage; `seconds` None where it was reused."""
    return "reused, nothing spent" if seconds is None else f"${usd:.4f}, {seconds:.0f} s"


def show_record(record: Record, requirements: Sequence[Requirement]) -> None:
    """A row of the table that an earlier process of this climb had finished."""
    if record.stage == "reference":
        return
    if record.skipped:
        show_skip(record.stage, record.skipped)
    elif record.evaluation and record.verdict:
        end = money_and_time(record.evaluation.usd_spent, None)
        show_stage(record.stage, record.evaluation, record.verdict, requirements, end)


def show_skip(stage: str, reason: str) -> None:
    """A skipped stage."""
    say(f"{stage:<12} {MARK['SKIPPED']:<12} {reason}")


def show_reference(table: Mapping[str, float], measured: Evaluation, seconds: float) -> None:
    """Row 0."""
    figures = ", ".join(f"{name} {value:.3f}" for name, value in table.items())
    say(f"{'0 reference':<12} {'(no LLM)':<12} quality: {figures}   {seconds:.0f} s")
    quality = measured.measurements.get("quality")
    if quality and quality.estimate >= quality.bound:
        say(f"{'':<25} {measured.candidate} meets the quality bound {quality.bound:g}: no LLM may be needed at all")


def say_ending(kind: str, ending: UpkeepEnding) -> UpkeepEnding:
    """How an upkeep flow ended, in one line; gives it back."""
    outcome = ending.outcome.upper() if ending.outcome == "drift" else ending.outcome
    say(f"{kind}: {outcome} · {ending.reason}")
    return ending


def show_ending(use_case: UseCase, ending: ClimbEnding, history: Sequence[Record], tracking_uri: str) -> None:
    """The decision in words and where to look closer."""
    say(RULE)
    say(decision(use_case, ending, history))
    say("\nLook closer:")
    if tracking_uri.startswith("http"):
        say(f"  {tracking_uri}    # MLflow, experiment {use_case.name}, run {ending.mlflow_run_id}")
        return
    say(f"  .venv/bin/mlflow ui --backend-store-uri {tracking_uri} --port 5000    # experiment {use_case.name}")
    say("  make up                                                     # Prefect and MLflow UIs, all deployments")


def show_endpoint(words: str) -> None:
    """Where the winner answers, as the last thing that is said."""
    if words:
        say(f"\n{words}")
