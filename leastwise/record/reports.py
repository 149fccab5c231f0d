"""What was logged, in words and Markdown: gate tables, the ladder, row 0, and the names of runs.

It computes no figure of its own and prints nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from leastwise.evidence.examples_needed import more_to_decide, price_of_splitting
from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Evaluation, Record, Verdict, best
from leastwise.ladder.ending import ClimbEnding
from leastwise.ladder.measured import TRAFFIC, ExampleRow
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.requirements import Requirement

MOST_NAMED = 20  # models whose names are listed


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
    sign = _sign(wanted)
    low, high = figure_of(m.name, m.lower), figure_of(m.name, m.upper)
    return f"{figure_of(m.name, m.estimate)} [{low}, {high}] {sign} {figure_of(m.name, m.bound)}"


def answered_by(rows: Iterable[ExampleRow]) -> str:
    """The models that the responses named, most frequent first, with how many rows each answered; of rows without such
    a name (students, answers from before it was kept) how many they are. Empty where no row has one.
    """
    named = Counter(row.get("answered_by", "") for row in rows if row.get("error") is None)
    unnamed = named.pop("", 0)
    if not named:
        return ""
    first = [f"{name} ({count:,})" for name, count in sorted(named.items(), key=lambda each: (-each[1], each[0]))]
    return ", ".join([*first[:MOST_NAMED], *([f"not told ({unnamed:,})"] if unnamed else [])])


def decision(use_case: UseCase, ending: ClimbEnding, history: Sequence[Record]) -> str:
    """The outcome as sentences."""
    first, *rest = _decided(ending)
    return " ".join([first, f"{ending.reason}.", *rest])


def _decided(ending: ClimbEnding) -> list[str]:
    """The outcome, then what else is to be said of it but for its reason, a sentence each."""
    spent = f"Spent ${ending.usd_spent:.4f} ({ending.calls_paid} calls paid, {ending.calls_cached} answers reused)."
    if ending.outcome not in {*LADDER, "reference"}:
        return [f"Outcome: {ending.outcome}.", spent]
    sure = [] if ending.confirmed != "no" else ["WARNING: the untouched test split does not confirm it."]
    where = f"Stop at {ending.outcome}: the least customization that will do."
    if not ending.sure:
        where = f"Stop at {ending.outcome}, NOT SURELY: the data ran out before the gate was sure."
    elif ending.outcome == "reference":
        where = "Stop at the reference: no LLM is needed."
    avoided = f"Not climbing further avoids an estimated ${ending.usd_avoided:.2f}."
    return [where, f"Confirmed on test: {ending.confirmed}.", *sure, spent, avoided]


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
    """The gate table in Markdown: what MLflow shows as the run's description, of which only the top is seen unopened.
    `alpha` is the use case's, before it is split.
    """
    outcomes = {each.name: each for each in verdict.requirements}
    lines = [
        "| requirement | verdict | estimate | interval | wanted | surely (gate) | n | alpha pass / fail |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_gate_row(each, outcomes[each.name].outcome, logged.measurements.get(each.name)) for each in requirements]
    lines += ["", f"**{verdict.outcome}**", "", *_points(verdict.reason)]
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
    name, sign = requirement.name, _sign(requirement)
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


def judged_beside(figures: Mapping[str, float]) -> str:
    """Which rows each requirement was judged on, where traffic without expected answers was replayed; else empty."""
    requests = int(figures.get(f"rows.{TRAFFIC}", 0))
    if not requests:
        return ""
    return (
        f"Cost, latency and adherence are of {requests:,} requests of data.traffic, which has no expected answers; "
        f"quality is of {int(figures.get('rows.gate', 0)):,} gate rows, to which a cache says what is said behind it"
    )


def unknown_usage(figures: Mapping[str, float]) -> str:
    """That what a candidate costs is an upper limit, where answers came without usage; else empty."""
    unknown = int(figures.get("calls.usage_unknown", 0))
    if not unknown:
        return ""
    answers = max(int(figures.get(f"rows.{TRAFFIC}", figures.get("rows.gate", 0))), unknown)
    return f"usd_per_1k_requests is the most it can be: {unknown:,} of {answers:,} answers came without usage"


def ladder_note(use_case: UseCase, history: Sequence[Record], ending: ClimbEnding) -> str:
    """The whole ladder in Markdown, on the parent run: the stages against what is wanted, then what that came to."""
    wanted = use_case.gate_requirements
    names = " | ".join(f"{each.name} {_sign(each)} {figure_of(each.name, each.bound)}" for each in wanted)
    lines = [f"| stage | verdict | {names} | |", f"|---|---|{'---|' * len(wanted)}---|"]
    lines += [_ladder_row(record, wanted, is_judged=_is_judged(record, use_case)) for record in history]
    where, *rest = _decided(ending)
    lines += ["", f"**{where}**", "", *_points(ending.reason), *(f"- {each}" for each in rest)]
    nearest = best(history)
    if ending.outcome == "none" and nearest:
        lines += [f"- Nearest miss: {nearest.stage}."]
    return "\n".join(lines)


def _is_judged(record: Record, use_case: UseCase) -> bool:
    """Row 0 is shown beside the ladder, and judged for nothing unless it may end the climb."""
    return record.stage != "reference" or use_case.reference == "stop"


def _ladder_row(record: Record, wanted: Sequence[Requirement], *, is_judged: bool) -> str:
    measured = record.evaluation.measurements if record.evaluation else {}
    outcomes = {each.name: each.outcome for each in record.verdict.requirements} if record.verdict else {}
    verdict = "SKIPPED" if record.skipped else record.verdict.outcome if record.verdict else ""
    cells = [_ladder_cell(measured.get(each.name), outcomes.get(each.name, "") if is_judged else "") for each in wanted]
    cells.append(record.skipped or (record.evaluation.error if record.evaluation else None) or "")
    return f"| {record.stage} | {verdict if is_judged else '(no LLM)'} | {' | '.join(map(_cell, cells))} |"


def _ladder_cell(measured: Measurement | None, outcome: str) -> str:
    if measured is None:
        return ""
    return " ".join(filter(None, [figure_of(measured.name, measured.estimate), outcome, f"n={measured.n}"]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sign(requirement: Requirement) -> str:
    return "≥" if requirement.better == "higher" else "≤"


def _points(reason: str) -> list[str]:
    """A reason as points: what is joined by semicolons in a sentence."""
    return [f"- {each}" for each in reason.split("; ") if each]


def reference_table(table: Mapping[str, float]) -> str:
    """Row 0 in Markdown."""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in table.items())
    return f"No-LLM references on the same gate rows.\n\n| reference | quality |\n|---|---|\n{rows}"
