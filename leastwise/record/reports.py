"""What was logged, in words and Markdown: gate tables, the ladder, row 0, and the names of runs.

It computes no figure of its own and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leastwise.evidence.examples_needed import more_to_decide, price_of_splitting
from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Evaluation, Record, Verdict, best
from leastwise.ladder.ending import ClimbEnding
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.requirements import Requirement


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


def decision(use_case: UseCase, ending: ClimbEnding, history: Sequence[Record]) -> str:
    """The outcome as sentences."""
    spent = f"Spent ${ending.usd_spent:.4f} ({ending.calls_paid} calls paid, {ending.calls_cached} answers reused)."
    if ending.outcome not in {*LADDER, "reference"}:
        return f"Outcome: {ending.outcome}. {ending.reason}. {spent}"
    sure = "" if ending.confirmed != "no" else " WARNING: the untouched test split does not confirm it."
    where = f"Stop at {ending.outcome}: the least customization that will do."
    if not ending.sure:
        where = f"Stop at {ending.outcome}, NOT SURELY: the data ran out before the gate was sure."
    elif ending.outcome == "reference":
        where = "Stop at the reference: no LLM is needed."
    avoided = f"Not climbing further avoids an estimated ${ending.usd_avoided:.2f}."
    return f"{where} {ending.reason}. Confirmed on test: {ending.confirmed}.{sure} {spent} {avoided}"


def run_name(stage: str, verdict: Verdict, logged: Evaluation, suffix: str = "") -> str:
    """Stage, verdict and the figure that decided: the runs table shows no tags."""
    number = LADDER.index(stage) + 1 if stage in LADDER else 0
    decisive = next((each.name for each in verdict.requirements if each.outcome == verdict.outcome), "")
    measured = logged.measurements.get(decisive)
    figure = _decisive_figure(measured, verdict.outcome) if measured else ""
    return f"{number} {stage} · {verdict.outcome}{figure}{' · ' + suffix if suffix else ''}"


def _decisive_figure(measured: Measurement, outcome: str) -> str:
    """A figure beside what it was compared with: the gate's limit for a PASS, else the bound."""
    name, requirement = measured.name, Requirement(name=measured.name, bound=measured.bound, margin=measured.margin)
    better, worse = ("≥", "<") if requirement.better == "higher" else ("≤", ">")
    compared = {"PASS": better, "FAIL": worse}.get(outcome, "vs")
    reference = requirement.limit if outcome == "PASS" else measured.bound
    return f" {name} {figure_of(name, measured.estimate)} {compared} {figure_of(name, reference)}"


def gate_table(logged: Evaluation, verdict: Verdict, requirements: Sequence[Requirement], alpha: float) -> str:
    """The gate table in Markdown: what MLflow shows as the run's description. `alpha` is the use case's, before it is
    split.
    """
    outcomes = {each.name: each for each in verdict.requirements}
    lines = [
        f"### {verdict.outcome}",
        verdict.reason,
        "",
        "| requirement | verdict | estimate | interval | wanted | surely (gate) | n | alpha pass / fail |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_gate_row(each, outcomes[each.name].outcome, logged.measurements.get(each.name)) for each in requirements]
    lines += more_needed(logged, verdict)
    lines += [
        "",
        "A candidate at or beyond the gate's limit passes with probability at most alpha over the whole ladder; one "
        f"that meets every bound fails with probability at most alpha a stage (alpha {alpha:g}). The intervals hold at "
        "every look.",
        *_splitting(logged, alpha),
    ]
    return "\n".join(lines)


def _gate_row(requirement: Requirement, outcome: str, measured: Measurement | None) -> str:
    name, sign = requirement.name, "≥" if requirement.better == "higher" else "≤"
    bounds = f"{sign} {figure_of(name, requirement.bound)} | {sign} {figure_of(name, requirement.limit)}"
    if measured is None:
        return f"| {name} | {outcome} | not measured | | {bounds} | 0 | |"
    low, high = figure_of(name, measured.lower), figure_of(name, measured.upper)
    alphas = f"{measured.alpha_pass:.2g} / {measured.alpha_fail:.2g}"
    figures = f"{figure_of(name, measured.estimate)} | [{low}, {high}]"
    return f"| {name} | {outcome} | {figures} | {bounds} | {measured.n} | {alphas} |"


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


def unknown_usage(figures: Mapping[str, float]) -> str:
    """That what a candidate costs is an upper limit, where answers came without usage; else empty."""
    unknown = int(figures.get("calls.usage_unknown", 0))
    if not unknown:
        return ""
    answers = max(int(figures.get("rows.gate", 0)), unknown)
    return f"usd_per_1k_requests is the most it can be: {unknown:,} of {answers:,} answers came without usage"


def ladder_note(use_case: UseCase, history: Sequence[Record], ending: ClimbEnding) -> str:
    """The whole ladder in Markdown, on the parent run."""
    lines = [f"## {decision(use_case, ending, history)}", "", "| stage | verdict | why |", "|---|---|---|"]
    for record in history:
        verdict: str = "SKIPPED" if record.skipped else record.verdict.outcome if record.verdict else ""
        why = record.skipped or (record.verdict.reason if record.verdict else "")
        if record.stage == "reference" and use_case.reference != "stop":  # shown beside the ladder, judged for nothing
            quality = record.evaluation.measurements.get("quality") if record.evaluation else None
            verdict, why = "(no LLM)", f"quality {quality.estimate:.4g}, n={quality.n}" if quality else ""
        lines.append(f"| {record.stage} | {verdict} | {why} |")
    nearest = best(history)
    if ending.outcome == "none" and nearest:
        lines += ["", f"Nearest miss: {nearest.stage}."]
    return "\n".join(lines)


def reference_table(table: Mapping[str, float]) -> str:
    """Row 0 in Markdown."""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in table.items())
    return f"No-LLM references on the same gate rows.\n\n| reference | quality |\n|---|---|\n{rows}"
