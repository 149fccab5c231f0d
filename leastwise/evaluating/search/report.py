"""What a search found, as it is kept, logged and shown: each step with what it gained, and what was not tried.

It decides nothing (see `search.py`) and logs nothing itself.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from leastwise.evidence.choosing.calibration import CalibrationError
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


class NotTried(Result):
    """A variant nobody asked, or not to the end, and why."""

    axis: str
    variant: str
    why: str
    for_money: bool = False


class SearchReport(Result):
    """A search that came to its end: the candidate, and how it was found."""

    start: str = Field(description="Key of the candidate it began with.")
    candidate: Candidate | None = Field(description="None where the model is not fit to be asked.")
    problem: str = Field("", description="Why it is not, with the setting to change.")
    steps: tuple[Step, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    variants: int = 0
    answers: int = 0
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
        most = max((each.rows for each in self.steps), default=0)
        return max((each for each in self.steps if each.rows == most), key=lambda each: each.quality, default=None)

    def words(self, bound: float | None) -> str:
        """In a sentence."""
        said = f"search on dev: {self.variants} variants, {self.answers:,} answers, ${self.usd:.4g}"
        if best := self.best:
            said += f"; best {best.quality:.2f} [{best.lower:.2f}, {best.upper:.2f}]"
            if bound is not None:
                said += f" {'<' if best.quality < bound else '≥'} {bound:g}"
        if error := self.calibration_error:
            said += f"; expected calibration error {error.before:.2f}, {error.after:.2f} at its temperature"
        if self.is_exhausted:
            return said
        left = ", ".join(f"{each.axis} {each.variant}" for each in self.not_tried if each.for_money)
        return f"{said}; not exhausted within ${self.limit_usd:g} (not tried: {left})"

    def figures(self) -> dict[str, float]:
        """As metrics of a run."""
        counted = {"variants": self.variants, "answers": self.answers, "not_tried": len(self.not_tried)}
        figures = {f"search.{name}": float(count) for name, count in counted.items()} | {"search.usd": self.usd}
        if error := self.calibration_error:
            figures |= {"search.ece.before": error.before, "search.ece.after": error.after}
        best = self.best
        return figures | ({"search.best": best.quality} if best else {})

    def as_markdown(self) -> str:
        """The steps as a table, then what was not tried."""
        lines = [
            "| axis | variant | rows | on dev | gain | tokens in | $ per 1,000 | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(step) for step in self.steps]
        lines += [""] + [f"- not tried: {each.axis}, {each.variant}: {each.why}" for each in self.not_tried]
        return "\n".join(lines)


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
