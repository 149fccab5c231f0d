"""Does a false PASS stay at alpha over all that a user does in a month, and a champion above its floor over 20
retrainings?

`python -m benchmarks.error_control [--quick]`. Every candidate stands exactly at its floor, the worst that may not
pass; the gate, the alpha account and the comparison of pairs are those of `leastwise`, answers are drawn. A month is
wrong where any of its candidates passes. Beside what holds stands what did before: an account by the bytes of a file,
rows of a source counted one by one, a challenger that is only compared with the last champion. It calls no model and no
MLflow (`tests/record/test_alpha_account.py` holds the account in MLflow to the same numbers).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from benchmarks.gate_examples import Limits, sequential_limits
from leastwise.evidence import MeanTest, PairedTest
from leastwise.evidence.alpha_account import number_of, share_of_alpha

ALPHA, BOUND, MARGIN = 0.05, 0.90, 0.05
FLOOR = BOUND - MARGIN
ROWS, GROWTH, CANDIDATES = 400, 50, 2
ALIKE = 0.7  # share of rows on which a changed candidate answers as the one before


@dataclass
class Account:
    """Who drew: by the rows of a set, or by the file it lies in, as it was before."""

    by_rows: bool
    drawn: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def number(self, file: int, rows: np.ndarray, first_of_two: bool = False, second_of_two: bool = False) -> int:
        """The number of a draw. Of two at the same moment each counts the other; before, neither did."""
        seen = self.drawn[:-1] if second_of_two and not self.by_rows else list(self.drawn)
        others = [theirs for its_file, theirs in seen if self.by_rows or its_file == file]
        self.drawn.append((file, rows))
        return number_of(rows, others) + int(first_of_two and self.by_rows)


@dataclass
class Month:
    """One user's month on one gate set: its rows, the answers of the candidate of the day, and what has passed."""

    rng: np.random.Generator
    account: Account
    passed: bool = False

    def __post_init__(self) -> None:
        self.file, self.size = 0, ROWS
        self.order = np.arange(self.size)
        self.right = self.rng.random(ROWS + 12 * GROWTH) < FLOOR

    def ask(self, candidates: int = CANDIDATES, **at_once: bool) -> None:
        """One question: these candidates on the set as it is, each with its part of the share."""
        rows = np.arange(self.size, dtype=np.uint64)
        share = share_of_alpha(ALPHA, self.account.number(self.file, rows, **at_once))
        for _ in range(candidates):
            self.passed |= passes(self.right[self.order], share / candidates)
            self.change()

    def change(self) -> None:
        """Another prompt, model or training: it answers as the one before on most rows."""
        anew = self.rng.random(self.right.size) >= ALIKE
        self.right = np.where(anew, self.rng.random(self.right.size) < FLOOR, self.right)

    def save(self) -> None:
        """The same rows in another file: another order."""
        self.file += 1
        self.order = self.rng.permutation(self.size)

    def grow(self) -> None:
        self.size += GROWTH
        self.save()


@lru_cache(maxsize=512)
def _limits(alpha: float) -> Limits:
    return sequential_limits(BOUND, MARGIN, alpha, ALPHA)


def passes(scores: np.ndarray, alpha: float) -> bool:
    """Whether the gate passes these answers, looking after every one."""
    limits, n = _limits(alpha), np.arange(1, scores.size + 1)
    right = np.cumsum(scores)
    up, down = (right >= limits.passing[n], right <= limits.failing[n])
    return bool(up.any() and (not down.any() or int(up.argmax()) < int(down.argmax())))


def edits(month: Month) -> None:
    """Bounds, prompts or models are changed five times."""
    for _ in range(6):
        month.ask()


def saved_again(month: Month) -> None:
    """The file is saved again ten times: another format, another order."""
    for _ in range(11):
        month.ask()
        month.save()


def grown(month: Month) -> None:
    """Rows are added to the gate set six times."""
    for _ in range(7):
        month.ask()
        month.grow()


def retrainings(month: Month) -> None:
    """A climb and ten retrainings, each a challenger that goes through the gate alone."""
    month.ask()
    for _ in range(10):
        month.ask(candidates=1)


def rebaselines(month: Month) -> None:
    """A climb and four weekly re-baselines."""
    for _ in range(5):
        month.ask()


def at_once(month: Month) -> None:
    """Two climbs with other bounds are started at the same moment, three times."""
    for _ in range(3):
        month.ask(first_of_two=True)
        month.ask(second_of_two=True)


def everything(month: Month) -> None:
    """A month of all of it."""
    for _ in range(4):
        month.ask()
        month.save()
        month.ask()
        month.ask(first_of_two=True)
        month.ask(second_of_two=True)
        month.grow()
        month.ask(candidates=1)
        month.ask()


MONTHS: dict[str, Callable[[Month], None]] = {
    "5 edits of the use case": edits,
    "the gate file saved again 10 times": saved_again,
    "the gate set grown 6 times": grown,
    "10 retrainings": retrainings,
    "4 re-baselines": rebaselines,
    "two climbs at once, 3 times": at_once,
    "all of it, 24 questions": everything,
}


def wrong_months(do: Callable[[Month], None], by_rows: bool, months: int, seed: int = 0) -> float:
    """Share of months in which a candidate at its floor passed."""
    wrong = 0
    for number in range(months):
        month = Month(np.random.default_rng((seed, number)), Account(by_rows))
        do(month)
        wrong += month.passed
    return wrong / months


def wrong_with_sources(sizes: Sequence[int], alike: float, by_unit: bool, runs: int, rows: int = 2_000) -> float:
    """Share of single gates at alpha that pass a candidate at its floor where rows share a source.

    `alike`: the intraclass correlation of right answers within a source. Sources are whole units, or their rows count
    one by one in random order.
    """
    rng, wrong = np.random.default_rng(1), 0
    concentration = (1 - alike) / alike
    for _ in range(runs):
        chances = rng.beta(FLOOR * concentration, (1 - FLOOR) * concentration, len(sizes))
        answers = [rng.random(size) < chance for size, chance in zip(sizes, chances, strict=True)]
        if by_unit:
            test = MeanTest(BOUND, MARGIN, ALPHA, ALPHA)
            test.add(np.array([each.mean() for each in answers]))
            wrong += test.outcome == "pass"
        else:
            mixed = rng.permutation(np.concatenate(answers))[: min(rows, 1_000)]
            wrong += passes(mixed, ALPHA)
    return wrong / runs


@dataclass(frozen=True)
class Drift:
    """What retrainings came to: the share promoted, and the share of champions that ended below the floor."""

    promoted: float
    below: float


def drift(step: float, through_gate: bool, runs: int, retrains: int = 20, bound: float = 0.78) -> Drift:
    """Retrainings whose challenger is `step` worse than the champion each time, margin .12, 2,000 gate rows.

    The first champion stands at the bound. Without `through_gate` a challenger is only compared with the last champion.
    """
    margin, rows = 0.12, 2_000
    promoted = below = 0
    for run in range(runs):
        rng = np.random.default_rng((2, run))
        quality, luck = bound, rng.random(rows)
        for number in range(2, retrains + 2):
            share = share_of_alpha(ALPHA, number)
            theirs, luck = luck < quality, np.where(rng.random(rows) < ALIKE, luck, rng.random(rows))
            ours = luck < quality - step
            if _replaces(theirs, ours, bound, margin, share, through_gate):
                quality, promoted = quality - step, promoted + 1
        below += quality < bound - margin - 1e-9
    return Drift(promoted / (runs * retrains), below / runs)


def _replaces(
    theirs: np.ndarray, ours: np.ndarray, bound: float, margin: float, share: float, through_gate: bool
) -> bool:
    gate, pair = MeanTest(bound, margin, share, ALPHA), PairedTest(margin, share, ALPHA)
    for start in range(0, ours.size, 250):
        if through_gate and gate.outcome == "undecided":
            gate.add(ours[start : start + 250].astype(float))
        if pair.outcome == "undecided":
            pair.add(ours[start : start + 250].astype(float), theirs[start : start + 250].astype(float))
        if pair.outcome != "undecided" and (not through_gate or gate.outcome != "undecided"):
            break
    return pair.outcome == "pass" and (not through_gate or gate.outcome == "pass")


def by_estimate(runs: int) -> tuple[float, float]:
    """Of single gates at the floor over 400 rows: how many pass surely, and how many by the plain estimate beside."""
    rng, sure, estimated = np.random.default_rng(3), 0, 0
    for _ in range(runs):
        test, scores = MeanTest(BOUND, MARGIN, ALPHA, ALPHA), (rng.random(ROWS // 4) < FLOOR).astype(float)
        test.add(scores)
        sure += test.outcome == "pass"
        estimated += test.outcome == "undecided" and test.estimate >= BOUND
    return sure / runs, estimated / runs


def _triage_sizes() -> list[int]:
    """Rows of each source in the gate set of the embedded use case: 164 sources, 1,990 rows, about geometric."""
    quantiles = (np.arange(164) + 0.5) / 164
    sizes = np.maximum(1, np.round(-np.log1p(-quantiles) * 11.9)).astype(int)
    return list(sizes)


def main() -> None:
    """Print the tables of docs/gate.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    scale = 10 if parser.parse_args().quick else 1
    months, runs = 4_000 // scale, 4_000 // scale
    print(f"| a month of ({months:,} each) | account by file | account by rows |\n|---|---|---|")
    for name, do in MONTHS.items():
        before, now = (wrong_months(do, by_rows, months) for by_rows in (False, True))
        print(f"| {name} | {before:.1%} | {now:.1%} |")
    print(
        f"\n| rows of a source, one gate at alpha ({runs:,} each) | counted one by one | counted once |\n|---|---|---|"
    )
    for name, sizes, alike in (
        ("40 sources of 10, correlation .30", [10] * 40, 0.30),
        ("40 sources of 10, correlation .10", [10] * 40, 0.10),
        ("the embedded gate set, correlation .09", _triage_sizes(), 0.09),
        ("the embedded gate set, correlation .02", _triage_sizes(), 0.02),
    ):
        one_by_one, once = (wrong_with_sources(sizes, alike, by_unit, runs) for by_unit in (False, True))
        print(f"| {name} | {one_by_one:.1%} | {once:.1%} |")
    print("\n| 20 retrainings, each | compared alone: promoted, ends below | through the gate: promoted, ends below |")
    print("|---|---|---|")
    for step in (0.04, 0.03, 0.01, 0.0):
        alone, gated = (drift(step, through_gate, 40 // scale) for through_gate in (False, True))
        cells = " | ".join(f"{each.promoted:.0%}, {each.below:.1%}" for each in (alone, gated))
        print(f"| {f'{step:.2f} worse' if step else 'as good'} | {cells} |")
    sure, estimated = by_estimate(runs)
    print(
        f"\nOne gate over 100 rows at the floor: passes surely {sure:.1%}, by the plain estimate {estimated:.1%} more"
    )


if __name__ == "__main__":
    main()
