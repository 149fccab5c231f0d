"""What people see: the ladder on standard error, gate tables in Markdown, figures in MLflow, artifacts in Prefect.

It computes no figure of its own: it shows what was measured and logged.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from logging import Logger
from typing import TYPE_CHECKING

from leastwise.evidence.examples_needed import more_to_decide, price_of_splitting
from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Record, best
from leastwise.ladder.gate import Evaluation, Verdict
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    from uuid import UUID

    from leastwise.evaluating.evaluation import Progress
    from leastwise.ladder.ending import Ending
    from leastwise.record.tracking import Climb

MARK = {"PASS": "✔ PASS", "FAIL": "✘ FAIL", "UNDECIDED": "? UNDECIDED", "ERROR": "! ERROR", "SKIPPED": "– skipped"}
_clock = {"stage": time.monotonic(), "shown": 0.0}
_bars: dict[tuple[str, str], UUID] = {}


def say(line: str = "") -> None:
    """A line for people: standard error, so that standard output carries only the JSON line; on a worker the run's log."""
    logger = _run_logger()
    if logger is None:
        print(line, file=sys.stderr, flush=True)
    elif line.strip():
        logger.info(line)


def _run_logger() -> Logger | None:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    if not os.environ.get("PREFECT_API_URL"):
        return None
    try:
        return get_run_logger()  # type: ignore[return-value]
    except MissingContextError:
        return None


def figure_of(name: str, value: float) -> str:
    """A value with the unit of its requirement."""
    if value != value or value in (float("inf"), float("-inf")) or abs(value) > 1e12:
        return "?"
    if name == "p95_latency_ms":
        return f"{value:,.0f} ms"
    return f"${value:.4f}" if name == "usd_per_1k_requests" else f"{value:.3f}"


def interval(m: Measurement) -> str:
    """Estimate with its interval against the bound and the gate's limit."""
    wanted = Requirement(name=m.name, bound=m.bound, margin=m.margin)
    sign = "≥" if wanted.better == "higher" else "≤"
    low, high = figure_of(m.name, m.lower), figure_of(m.name, m.upper)
    return f"{figure_of(m.name, m.estimate)} [{low}, {high}] {sign} {figure_of(m.name, m.bound)}"


def show_opening(use_case: UseCase, climb: Climb, tracking_uri: str) -> None:
    """The head of the ladder."""
    _clock["stage"] = time.monotonic()
    state = "resuming the climb" if climb.resumed else "a new climb"
    say(f"\nLeastwise · {use_case.name} · {state} {climb.run_id[:8]}, logged to {tracking_uri}")
    say(f"{use_case.description.strip()}\n")
    say(f"{'stage':<12} {'verdict':<12} requirement: estimate [interval] against its bound")
    say("─" * 110)


def show_progress(progress: Progress) -> None:
    """Progress inside a stage: one line on a terminal, now and then one in a log, and a bar in the Prefect UI."""
    now = time.monotonic()
    if now - _clock["shown"] < (0.5 if sys.stderr.isatty() else 15):
        return
    _clock["shown"] = now
    figures = " ".join(f"{name} {figure_of(name, value)}" for name, value in progress.estimates.items())
    to_go = "" if progress.to_go is None else f", about {progress.to_go:,} to go"
    line = f"  … {progress.stage}: {progress.rows:,} of at most {progress.of:,} examples{to_go}, ${progress.usd:.4f} {figures}"
    if sys.stderr.isatty():
        print(f"\r{line[:118]:<118}", end="\r", file=sys.stderr, flush=True)
    else:
        say(line)
    whole = progress.of if progress.to_go is None else progress.rows + progress.to_go
    publish_progress(progress.stage, progress.rows / max(whole, 1), line.strip(" …"))


def show_embedding(done: int, of: int) -> None:
    """Progress of embedding texts for the first time."""
    now = time.monotonic()
    if now - _clock["shown"] >= 10:
        _clock["shown"] = now
        say(f"  … embedded {done:,} of {of:,} texts")


def show_note(text: str) -> None:
    """A step inside a stage that takes a while."""
    say(f"  … {text}")


def show_savings(totals: Mapping[str, float]) -> None:
    """What the caches saved on the sampled traffic; input and bill apart."""
    show_note(
        f"{totals['cache.exact_hits']:.0f} requests ({totals['cache.hit_rate']:.0%}) answered from the response cache, "
        f"{totals['cache.cached_share']:.0%} of the others' input tokens cached at the provider: {totals['cache.input_saving']:.0%} "
        f"off the input, {totals['cache.bill_saving']:.0%} off the bill (${totals['usd.saved']:.4f} of ${totals['usd.without_cache']:.4f})"
    )


def show_teacher(stage: str, figures: Mapping[str, float]) -> None:
    """A student beside its teacher."""
    show_note(
        f"student and {stage} teacher agree on {figures['teacher.agreement']:.0%} of {figures['teacher.n']:.0f} gate rows; "
        f"quality {figures['teacher.difference']:+.3f} against the teacher's {figures['teacher.quality']:.3f} "
        f"[{figures['teacher.difference.lower']:+.3f}, {figures['teacher.difference.upper']:+.3f}]"
    )


def show_training(progress: object) -> None:
    """Progress of a training: step, loss, speed and what is left."""
    now = time.monotonic()
    if now - _clock["shown"] < (0.5 if sys.stderr.isatty() else 15):
        return
    _clock["shown"] = now
    step, steps = getattr(progress, "step", 0), getattr(progress, "steps", 0)
    loss, seconds = getattr(progress, "loss", float("nan")), getattr(progress, "seconds", 0.0)
    left = getattr(progress, "seconds_left", seconds / max(step, 1) * (steps - step))
    line = f"  … step {step} of {steps}, loss {loss:.3f}, about {left:.0f} s to go"
    if sys.stderr.isatty():
        print(f"\r{line[:118]:<118}", end="\r", file=sys.stderr, flush=True)
    else:
        say(line)


def show_test(figures: dict[str, tuple[float, int]], met: bool) -> None:
    """The winner on the untouched split."""
    shown = ", ".join(f"{name} {estimate:.3f} (n={n})" for name, (estimate, n) in figures.items())
    say(f"{'test':<12} {'✔ confirmed' if met else '✘ missed':<12} {shown}")


def show_stage(
    stage: str,
    logged: Evaluation,
    verdict: Verdict,
    requirements: Sequence[Requirement],
    *,
    reused: bool,
    more: str = "",
) -> None:
    """One stage of the table: a line a requirement, `more` that is known of it, then spend and seconds."""
    seconds = time.monotonic() - _clock["stage"]
    _clock["stage"] = time.monotonic()
    outcomes = {each.name: each.outcome for each in verdict.requirements}
    head = f"{stage:<12} {MARK[verdict.outcome]:<12} "
    for wanted in requirements:
        m = logged.measurements.get(wanted.name)
        shown = interval(m) if m else "not measured"
        n = f"n={m.n}" if m else ""
        say(f"{head}{outcomes[wanted.name]:<9} {wanted.name:<20} {shown} {n}")
        head = " " * 26
    if verdict.outcome == "UNDECIDED":
        for line in filter(None, more_needed(logged, verdict)):
            say(f"{head}{line}")
    if more:
        say(f"{head}{more}")
    money = "reused, nothing spent" if reused else f"${logged.usd_spent:.4f}, {seconds:.0f} s"
    say(f"{head}{money}")
    if verdict.outcome == "ERROR":
        say(f"{head}{verdict.reason}")


def show_record(record: Record, requirements: Sequence[Requirement]) -> None:
    """A row of the table that an earlier process of this climb had finished."""
    if record.stage == "reference":
        return
    if record.skipped:
        show_skip(record.stage, record.skipped)
    elif record.evaluation and record.verdict:
        show_stage(record.stage, record.evaluation, record.verdict, requirements, reused=True)


def show_skip(stage: str, reason: str) -> None:
    """A skipped stage."""
    _clock["stage"] = time.monotonic()
    say(f"{stage:<12} {MARK['SKIPPED']:<12} {reason}")


def show_reference(table: dict[str, float], measured: Evaluation, requirements: Sequence[Requirement]) -> None:
    """Row 0."""
    seconds = time.monotonic() - _clock["stage"]
    _clock["stage"] = time.monotonic()
    figures = ", ".join(f"{name} {value:.3f}" for name, value in table.items())
    say(f"{'0 reference':<12} {'(no LLM)':<12} quality: {figures}   {seconds:.0f} s")
    quality = measured.measurements.get("quality")
    if quality and quality.estimate >= quality.bound:
        say(f"{'':<25} {measured.candidate} meets the quality bound {quality.bound:g}: no LLM may be needed at all")


def show_ending(use_case: UseCase, ending: Ending, history: Sequence[Record], tracking_uri: str) -> None:
    """The decision in words and where to look closer."""
    say("─" * 110)
    say(decision(use_case, ending, history))
    say("\nLook closer:")
    if tracking_uri.startswith("http"):
        say(f"  {tracking_uri}    # MLflow, experiment {use_case.name}, run {ending.mlflow_run_id}")
        return
    say(f"  .venv/bin/mlflow ui --backend-store-uri {tracking_uri} --port 5000    # experiment {use_case.name}")
    say("  make up                                                     # Prefect and MLflow UIs, all deployments")


def decision(use_case: UseCase, ending: Ending, history: Sequence[Record]) -> str:
    """The outcome as sentences."""
    spent = f"Spent ${ending.usd_spent:.4f} ({ending.calls_paid} calls paid, {ending.calls_cached} answers reused)."
    if ending.outcome not in {*LADDER, "reference"}:
        return f"Outcome: {ending.outcome}. {ending.reason}. {spent}"
    sure = "" if ending.confirmed != "no" else " WARNING: the untouched test split does not confirm it."
    where = f"Stop at {ending.outcome}: the least customization that will do."
    avoided = f"Not climbing further avoids an estimated ${ending.usd_avoided:.2f}."
    if ending.outcome == "reference":
        where = "Stop at the reference: no LLM is needed."
    return f"{where} {ending.reason}. Confirmed on test: {ending.confirmed}.{sure} {spent} {avoided}"


def run_name(stage: str, verdict: Verdict, logged: Evaluation, suffix: str = "") -> str:
    """Stage, verdict and the figure that decided: the runs table shows no tags."""
    number = LADDER.index(stage) + 1 if stage in LADDER else 0  # type: ignore[arg-type]
    decisive = next((v for v in verdict.requirements if v.outcome == verdict.outcome), None)
    m = logged.measurements.get(decisive.name) if decisive else None
    figure = ""
    if m is not None:
        sign = "≥" if Requirement(name=m.name, bound=m.bound, margin=m.margin).better == "higher" else "≤"
        compared = {"FAIL": "<" if sign == "≥" else ">"}.get(
            verdict.outcome, "vs" if verdict.outcome != "PASS" else sign
        )
        reference = (
            m.bound if verdict.outcome != "PASS" else Requirement(name=m.name, bound=m.bound, margin=m.margin).limit
        )
        figure = f" {m.name} {figure_of(m.name, m.estimate)} {compared} {figure_of(m.name, reference)}"
    return f"{number} {stage} · {verdict.outcome}{figure}{' · ' + suffix if suffix else ''}"


def gate_table(logged: Evaluation, verdict: Verdict, requirements: Sequence[Requirement], alpha: float) -> str:
    """The gate table in Markdown: what MLflow shows as the run's description. `alpha` is the use case's, before it is split."""
    outcomes = {each.name: each for each in verdict.requirements}
    lines = [
        f"### {verdict.outcome}",
        verdict.reason,
        "",
        "| requirement | verdict | estimate | interval | wanted | surely (gate) | n | alpha pass / fail |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for wanted in requirements:
        m, sign = logged.measurements.get(wanted.name), "≥" if wanted.better == "higher" else "≤"
        bound, limit = figure_of(wanted.name, wanted.bound), figure_of(wanted.name, wanted.limit)
        if m is None:
            lines.append(
                f"| {wanted.name} | {outcomes[wanted.name].outcome} | not measured | | {sign} {bound} | {sign} {limit} | 0 | |"
            )
            continue
        low, high = figure_of(m.name, m.lower), figure_of(m.name, m.upper)
        lines.append(
            f"| {wanted.name} | {outcomes[wanted.name].outcome} | {figure_of(m.name, m.estimate)} | [{low}, {high}] "
            f"| {sign} {bound} | {sign} {limit} | {m.n} | {m.alpha_pass:.2g} / {m.alpha_fail:.2g} |"
        )
    lines += more_needed(logged, verdict)
    lines += [
        "",
        "A candidate at or beyond the gate's limit passes with probability at most alpha over the whole ladder; one that "
        f"meets every bound fails with probability at most alpha a stage (alpha {alpha:g}). The intervals hold at every look.",
        *_splitting(logged, alpha),
    ]
    return "\n".join(lines)


def _splitting(logged: Evaluation, alpha: float) -> list[str]:
    """What it costs in examples that alpha is shared by everything this gate set may be asked."""
    times = max((price_of_splitting(m, alpha) for m in logged.measurements.values()), default=1.0)
    if times < 1.05:
        return []
    return [
        f"That alpha is shared by every candidate this gate set may judge takes about {times:.1f} times the examples."
    ]


def more_needed(logged: Evaluation, verdict: Verdict) -> list[str]:
    """How many more examples would decide what was left UNDECIDED, a line each; nothing where none can be named."""
    lines = []
    for name in verdict.named("UNDECIDED"):
        m = logged.measurements.get(name)
        more = more_to_decide(m) if m else None
        if more:
            lines += ["", f"About {more:,} more examples would decide {name}."]
    return lines


def ladder_note(use_case: UseCase, history: Sequence[Record], ending: Ending) -> str:
    """The whole ladder in Markdown, on the parent run."""
    lines = [f"## {decision(use_case, ending, history)}", "", "| stage | verdict | why |", "|---|---|---|"]
    for record in history:
        verdict = "SKIPPED" if record.skipped else record.verdict.outcome if record.verdict else ""
        why = record.skipped or (record.verdict.reason if record.verdict else "")
        if record.stage == "reference" and use_case.reference != "stop":  # shown beside the ladder, judged for nothing
            quality = record.evaluation.measurements.get("quality") if record.evaluation else None
            verdict, why = "(no LLM)", f"quality {quality.estimate:.4g}, n={quality.n}" if quality else ""
        lines.append(f"| {record.stage} | {verdict} | {why} |")
    nearest = best(history)
    if ending.outcome == "none" and nearest:
        lines += ["", f"Nearest miss: {nearest.stage}."]
    return "\n".join(lines)


def reference_table(table: dict[str, float]) -> str:
    """Row 0 in Markdown."""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in table.items())
    return f"No-LLM references on the same gate rows.\n\n| reference | quality |\n|---|---|\n{rows}"


def publish_progress(name: str, share: float, words: str) -> None:
    """A progress bar among the artifacts of the flow that is running, where somebody can watch it: on a server."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not os.environ.get("PREFECT_API_URL"):
        return
    bar = (str(context.flow_run.id), name)
    if bar in _bars:
        update_progress_artifact(_bars[bar], 100 * share, description=words)
    else:
        key = f"progress-{name.replace('_', '-').replace(' ', '-')}"
        _bars[bar] = create_progress_artifact(100 * share, key=key, description=words)


def publish_markdown(key: str, markdown: str) -> None:
    """A table as a Prefect artifact, where a flow is running; the key may hold underscores."""
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get():
        create_markdown_artifact(markdown, key=key.replace("_", "-"))


def publish_link(key: str, url: str, words: str) -> None:
    """A link among a flow run's artifacts, to the MLflow run whose figures belong to it; nothing without an MLflow server."""
    from prefect.artifacts import create_link_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() and url.startswith("http"):
        create_link_artifact(url, link_text=words, key=key.replace("_", "-"), description=words)
