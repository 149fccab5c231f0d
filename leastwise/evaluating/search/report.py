"""What a search found, as it is kept, logged and shown: each step with what it gained, and what was not tried.

It decides nothing (see `search.py`) and logs nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from leastwise.evaluating.search.reflection.record import AXIS, Reflected
from leastwise.evidence.choosing.calibration import CalibrationError
from leastwise.evidence.choosing.one_standard_error import interval
from leastwise.ladder.candidate import Candidate
from leastwise.part import Result
from leastwise.stores import storage

KEPT = "searches"


class Step(Result):
    """One variant of one axis, on as many dev rows as it was asked."""

    axis: str
    variant: str
    rows: int
    quality: float
    lower: float = Field(description="Wilson's interval, about 95%, for reading.")
    upper: float
    gain: float = Field(description="Over the candidate the axis began with, paired on the rows both have.")
    error: float = Field(description="Standard error of that gain.")
    tokens: float = Field(description="Input tokens a request.")
    usd: float = Field(description="Dollars a request.")
    is_taken: bool = False


class RetrievalStep(Result):
    """A way to retrieve as it was judged without a call, on rows that no gate sees."""

    axis: str
    variant: str
    figure: str = Field(description="What tells how good it is, in [0, 1].")
    rows: int
    value: float
    gain: float = Field(description="Over the way the axis began with, paired.")
    error: float = Field(description="Standard error of that gain.")
    is_taken: bool = False


class NotTried(Result):
    """A variant nobody asked, or not to the end, and why."""

    axis: str
    variant: str
    why: str
    for_money: bool = False
    usd: float = Field(0.0, description="What trying it to the end costs at worst, where money was lacking.")


class SearchReport(Result):
    """A search that came to its end: the candidate, and how it was found."""

    start: str = Field(description="Key of the candidate it began with.")
    candidate: Candidate | None = Field(description="None where the model is not fit to be asked.")
    problem: str = Field("", description="Why it is not, with the setting to change.")
    steps: tuple[Step, ...] = ()
    told: tuple[RetrievalStep, ...] = Field((), description="What was told of retrieval without a call.")
    not_tried: tuple[NotTried, ...] = ()
    variants: int = 0
    answers: int = 0
    vote: float | None = Field(None, description="Quality of the nearest neighbours' vote on the same rows, no LLM.")
    reflection: Reflected | None = Field(None, description="None where no model was named that could reflect.")
    usd: float = Field(0.0, description="Of all these answers at today's prices, whenever they were bought.")
    limit_usd: float = 0.0
    calibration_error: CalibrationError | None = Field(
        None, description="Of the candidate's confidence, where it tells how likely labels are."
    )

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing was left out for want of money."""
        return not any(each.for_money for each in self.not_tried)

    @property
    def best(self) -> Step | None:
        """The best of all that were asked on as many rows as any."""
        told = [each for each in self.steps if each.axis != AXIS or each.is_taken]
        most = max((each.rows for each in told), default=0)
        return max((each for each in told if each.rows == most), key=lambda each: each.quality, default=None)

    def words(self, bound: float | None) -> str:
        """In a sentence."""
        said = f"search on dev: {self.variants} variants, {self.answers:,} answers, ${self.usd:.4g}"
        if best := self.best:
            said += f"; best {best.quality:.2f} [{best.lower:.2f}, {best.upper:.2f}]"
            if bound is not None:
                said += f" {'<' if best.quality < bound else '≥'} {bound:g}"
        if error := self.calibration_error:
            said += f"; expected calibration error {error.before:.2f}, {error.after:.2f} at its temperature"
        if self.vote is not None:
            said += f"; neighbours' vote {self.vote:.2f}"
        if self.reflection:
            said += f"; {self.reflection.words}"
        return said if self.is_exhausted else f"{said}; {self._left}"

    @property
    def _left(self) -> str:
        """What money was lacking for, and what trying it costs."""
        lacking = [each for each in self.not_tried if each.for_money]
        left = ", ".join(f"{each.axis} {each.variant}" for each in lacking)
        usd = sum(each.usd for each in lacking)
        cost = f"; trying it costs at most ${usd:.2g} more: raise search.usd" if usd else "; raise search.usd"
        return f"not exhausted within ${self.limit_usd:g} (not tried: {left}{cost})"

    def figures(self) -> dict[str, float]:
        """As metrics of a run."""
        counted = {"variants": self.variants, "answers": self.answers, "not_tried": len(self.not_tried)}
        figures = {f"search.{name}": float(count) for name, count in counted.items()} | {"search.usd": self.usd}
        if error := self.calibration_error:
            figures |= {"search.ece.before": error.before, "search.ece.after": error.after}
        best = self.best
        figures |= {"search.best": best.quality} if best else {}
        figures |= {"search.vote": self.vote} if self.vote is not None else {}
        lacking = sum(each.usd for each in self.not_tried if each.for_money)
        return figures | ({} if self.is_exhausted else {"search.usd_lacking": lacking})

    def as_markdown(self) -> str:
        """The steps as a table, then what was not tried."""
        lines = [
            "| axis | variant | rows | on dev | gain | tokens in | $ per 1,000 | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(step) for step in self.steps]
        lines += _told(self.told)
        lines += [""] + [f"- not tried: {each.axis}, {each.variant}: {each.why}" for each in self.not_tried]
        if self.vote is not None:
            lines.append(f"- no LLM: the nearest neighbours' vote is {self.vote:.3f} on the same rows")
        if self.reflection:
            lines.append(f"- reflection: {self.reflection.words}")
            lines += [f"- rejected: {each}" for each in self.reflection.rejected]
        return "\n".join(lines)


def _told(steps: Sequence[RetrievalStep]) -> list[str]:
    if not steps:
        return []
    lines = ["", "| retrieval, without a call | variant | rows | figure | | gain | |", "|---|---|---|---|---|---|---|"]
    for step in steps:
        gain, taken = f"{step.gain:+.3f} ± {step.error:.3f}", "taken" if step.is_taken else ""
        words = f"{step.axis} | {step.variant} | {step.rows} | {step.figure} | {step.value:.3f}"
        lines.append(f"| {words} | {gain} | {taken} |")
    return lines


def as_step(reflected: Reflected) -> Step:
    """A reflection that was confirmed, or was to be, as a step: on the confirming rows, against the old instruction."""
    right = [1.0] * round(reflected.quality * reflected.rows)
    lower, upper = interval([*right, *[0.0] * (reflected.rows - len(right))])
    return Step(
        axis=AXIS,
        variant=f"instruction by {reflected.model}",
        rows=reflected.rows,
        quality=reflected.quality,
        lower=lower,
        upper=upper,
        gain=reflected.gain,
        error=reflected.error,
        tokens=reflected.tokens,
        usd=reflected.usd_a_request,
        is_taken=reflected.is_adopted,
    )


def as_not_tried(reflected: Reflected) -> NotTried:
    """A reflection that did not come to its end, or was not begun."""
    why = reflected.why_not or reflected.ended or "no instruction did better on the choosing rows"
    short = reflected.usd_short
    return NotTried(axis=AXIS, variant="instruction", why=why, for_money=reflected.is_short_of_money, usd=short)


def _row(step: Step) -> str:
    on_dev = f"{step.quality:.3f} [{step.lower:.3f}, {step.upper:.3f}]"
    gain = f"{step.gain:+.3f} ± {step.error:.3f}"
    taken = "taken" if step.is_taken else ""
    words = f"{step.axis} | {step.variant} | {step.rows} | {on_dev} | {gain} | {step.tokens:.0f}"
    return f"| {words} | {1000 * step.usd:.4f} | {taken} |"


def keep(home: Path, key: str, report: SearchReport) -> None:
    """Keep a search under the key of what it was asked, and under that of what it chose."""
    names = [key, *([report.candidate.key] if report.candidate else [])]
    for name in names:
        storage.write_bytes(home / KEPT / f"{name}.json", report.model_dump_json(indent=2).encode())


def kept(home: Path, key: str) -> SearchReport | None:
    """A search by either key; None where none was made here."""
    path = home / KEPT / f"{key}.json"
    return SearchReport.model_validate_json(path.read_bytes()) if path.exists() else None
