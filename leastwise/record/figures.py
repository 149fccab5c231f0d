"""Figures of a gate and of a ladder, logged to MLflow. It judges nothing; the figures of money are in
`leastwise.record.money_figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Record
from leastwise.ladder.measured import Interval
from leastwise.record.run import RecordedRun
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR = {"PASS": "tab:green", "FAIL": "tab:red", "UNDECIDED": "tab:orange", "ERROR": "black", "reported": "tab:gray"}


def log_intervals(run: RecordedRun, intervals: Sequence[Interval], requirements: Sequence[Requirement]) -> None:
    """A figure of every requirement's interval narrowing over examples against bound and limit."""
    from matplotlib.figure import Figure

    named = [each for each in requirements if any(interval.requirement == each.name for interval in intervals)]
    if not named:
        return
    figure = Figure(figsize=(4.2 * len(named), 3.2))
    for axis, wanted in zip(_side_by_side(figure, len(named), bottom_inches=0.5), named, strict=True):
        own = [interval for interval in intervals if interval.requirement == wanted.name]
        n = [each.n for each in own]
        low = [_drawable(each.lower, each) for each in own]
        high = [_drawable(each.upper, each) for each in own]
        axis.fill_between(n, low, high, alpha=0.25, label="interval")
        axis.plot(n, [each.estimate for each in own], label="estimate")
        axis.axhline(wanted.bound, color="tab:green", label="bound")
        axis.axhline(wanted.limit, color="tab:red", linestyle="--", label="gate's limit")
        axis.set(title=wanted.name, xlabel="examples")
    figure.axes[0].legend(fontsize=7)
    run.client.log_figure(run.id, figure, "intervals.png")


def log_ladder(run: RecordedRun, history: Sequence[Record], requirements: Sequence[Requirement]) -> None:
    """A figure of the ladder: for each requirement, what every stage came to with its interval, against the bound."""
    from matplotlib.figure import Figure

    evaluated = [record for record in history if record.evaluation]
    if not evaluated:
        return
    figure = Figure(figsize=(4.2 * len(requirements), 3.4))
    for axis, wanted in zip(_side_by_side(figure, len(requirements), bottom_inches=0.8), requirements, strict=True):
        for place, record in enumerate(evaluated):
            m = record.evaluation.measurements.get(wanted.name) if record.evaluation else None
            if m is None:
                continue
            low, high = (_within(m, end) for end in (m.lower, m.upper))
            ends = [[max(m.estimate - low, 0)], [max(high - m.estimate, 0)]]
            axis.errorbar(
                [place], [m.estimate], yerr=ends, fmt="o", capsize=4, color=_COLOUR[_side_of(record, wanted.name)]
            )
        axis.axhline(wanted.bound, color="tab:green", label="bound")
        axis.axhline(wanted.limit, color="tab:red", linestyle="--", label="gate's limit")
        axis.set_xticks(range(len(evaluated)), [record.stage for record in evaluated], rotation=30, ha="right")
        axis.set(title=wanted.name, xlim=(-0.5, len(evaluated) - 0.5))
    figure.axes[0].legend(fontsize=7)
    run.client.log_figure(run.id, figure, "ladder.png")


def _side_by_side(figure: Figure, count: int, bottom_inches: float) -> list[Axes]:
    """Axes of a figure of one row, with room for what is written around them.

    Set here, since matplotlib's own layouts draw everything once more to find it, which takes longer than the figure.
    """
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.2 / width,
        bottom=bottom_inches / height,
        top=1 - 0.35 / height,
        wspace=0.8 / ((width - 0.8 * count) / count),
    )
    return list(figure.subplots(1, count, squeeze=False)[0])


def _side_of(record: Record, name: str) -> str:
    """The outcome of one requirement of a record; the reference is not judged."""
    if record.stage == "reference" or record.verdict is None:
        return "reported"
    return next((each.outcome for each in record.verdict.requirements if each.name == name), "reported")


def _within(m: Measurement, end: float) -> float:
    """An end of an interval as far as it can be drawn: an open one three times as far as the estimate."""
    return end if abs(end) < 1e12 else 3 * m.estimate


def _drawable(end: float, interval: Interval) -> float:
    return end if abs(end) < 1e12 else 3 * interval.estimate
