"""What a stage pays where its tries race, beside one after another, and that it errs no more often.

`python -m benchmarks.race [--quick] [--budgets]`. Tries of known true quality are drawn, each with the gate's own test
of 0/1 scores (`benchmarks.gate_examples` has its limits by counts) and the schedule of `leastwise.ladder.race`. A stage
pays for whole looks, up to its first PASS. Beside both stands what whoever knew which try passes soonest would pay.
It calls no model; `tests/evaluating/test_racing.py` holds the evaluation itself to the same schedule.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.gate_examples import Limits
from leastwise.evidence.betting import Recipe
from leastwise.evidence.examples_needed import LOOK
from leastwise.evidence.quantile import critical_counts
from leastwise.evidence.scores import PRIOR
from leastwise.ladder.race.schedule import PACE, Pace, ShareTest, Standing, next_turn

ALPHA = 0.05
CANDIDATES, REQUIREMENTS = 11, 4  # that a ladder may judge, and that alpha is shared by: those of `make demo`
TRIES = (2, 3, 4, 5, 6)
BUDGETS = tuple(Pace(share, 0.5, reluctance) for share in (0.1, 0.25, 0.5, 1.0) for reluctance in (1.0, 2.0, 3.0))


@dataclass(frozen=True)
class Gate:
    """A gate set and what is asked of quality on it."""

    bound: float
    margin: float
    rows: int
    alpha_pass: float = ALPHA / CANDIDATES
    alpha_fail: float = ALPHA / REQUIREMENTS

    @property
    def floor(self) -> float:
        return self.bound - self.margin

    @cached_property
    def limits(self) -> Limits:
        """PASS and FAIL by counts after each example."""
        steps = np.arange(self.rows + 1)
        passing = Recipe(self.floor, self.margin, self.alpha_pass, PRIOR, False)
        failing = Recipe(1 - self.bound, self.margin, self.alpha_fail, PRIOR[::-1], False)
        return Limits(critical_counts(passing, steps), steps - critical_counts(failing, steps))

    def test(self, n: int, right: float) -> ShareTest:
        """That of a try after so many examples, undecided."""
        return ShareTest(self.bound, self.margin, self.alpha_pass, self.alpha_fail, self.rows, n, right)


@dataclass(frozen=True)
class Drawn:
    """The answers of one try: how many are right after each example; when and how its test ends."""

    right: np.ndarray
    end: int
    outcome: str


def drawn(gate: Gate, qualities: Sequence[float], rng: np.random.Generator) -> list[Drawn]:
    """Tries of these true qualities."""
    counts = np.cumsum(rng.random((len(qualities), gate.rows)) < np.array(qualities)[:, None], axis=1)
    return [_drawn(gate, right) for right in counts]


def _drawn(gate: Gate, right: np.ndarray) -> Drawn:
    passes, fails = right >= gate.limits.passing[1:], right <= gate.limits.failing[1:]
    first_pass, first_fail = (int(each.argmax()) + 1 if each.any() else gate.rows + 1 for each in (passes, fails))
    first = min(first_pass, first_fail)
    outcome = "undecided" if first > gate.rows else "pass" if first_pass <= first_fail else "fail"
    return Drawn(right, min(math.ceil(first / LOOK) * LOOK, gate.rows), outcome)


@dataclass(frozen=True)
class Stage:
    """What a stage paid for, calls, and what became of its tries as far as they were measured."""

    calls: int
    outcomes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """That of its best try."""
        return next((each for each in ("pass", "undecided", "fail") if each in self.outcomes), "undecided")


def one_after_another(tries: Sequence[Drawn]) -> Stage:
    """Each to its end, up to the first PASS."""
    last = next((at for at, each in enumerate(tries) if each.outcome == "pass"), len(tries) - 1)
    return Stage(sum(each.end for each in tries[: last + 1]), tuple(each.outcome for each in tries[: last + 1]))


def known(tries: Sequence[Drawn]) -> int:
    """Calls of whoever knew which try passes soonest, or that none does and has to show it."""
    return min((each.end for each in tries if each.outcome == "pass"), default=sum(each.end for each in tries))


def raced(gate: Gate, tries: Sequence[Drawn], pace: Pace = PACE) -> Stage:
    """By the schedule of the product."""
    live, had, last = list(range(len(tries))), [0] * len(tries), None
    outcomes = {}
    while live and "pass" not in outcomes.values():
        standings = [_standing(gate, tries[each], had[each]) for each in live]
        turn = next_turn(standings, live.index(last) if last in live else None, pace)
        last = live[turn.entrant]
        had[last] = int(min(turn.until((gate.test(0, 0.0),)), tries[last].end))
        if had[last] == tries[last].end:
            outcomes[last] = tries[last].outcome
            live.remove(last)
    parked = ("undecided" for each in live if had[each])
    return Stage(sum(had), (*outcomes.values(), *parked))


def _standing(gate: Gate, each: Drawn, had: int) -> Standing:
    if not had:
        return Standing()
    return Standing((gate.test(had, float(each.right[had - 1])),), had)


Mix = Callable[[Gate, int, np.random.Generator], Sequence[float]]


def _pairs(gate: Gate, tries: int, rng: np.random.Generator) -> Sequence[float]:
    """Models of rising quality, each unconstrained and then constrained, which is three quarters of a margin better."""
    plain = np.sort(rng.uniform(gate.floor - gate.margin, gate.bound, (tries + 1) // 2))
    return [min(each, 0.99) for quality in plain for each in (quality, quality + 0.75 * gate.margin)][:tries]


def _over(gate: Gate) -> float:
    return min(gate.bound + gate.margin / 2, 0.99)


def _middling(gate: Gate) -> float:
    return gate.bound - gate.margin / 2


def _under(gate: Gate) -> float:
    return gate.floor - gate.margin


MIXES: dict[str, Mix] = {
    "models in pairs, rising": _pairs,
    "around the bound, any order": lambda g, n, rng: rng.uniform(g.floor, _over(g), n),
    "one over among middling": lambda g, n, rng: rng.permutation([_over(g), *[_middling(g)] * (n - 1)]),
    "one over among under": lambda g, n, rng: rng.permutation([_over(g), *[_under(g)] * (n - 1)]),
    "middling, then over": lambda g, n, rng: ([_middling(g), _over(g)] * 3)[:n],
    "under to over, rising": lambda g, n, rng: np.linspace(_under(g), _over(g), n),
    "anything, any order": lambda g, n, rng: rng.uniform(g.floor - 2 * g.margin, min(g.bound + g.margin, 0.99), n),
    "all at the bound": lambda g, n, rng: [g.bound] * n,
    "all over": lambda g, n, rng: [_over(g)] * n,
    "all middling": lambda g, n, rng: [_middling(g)] * n,
    "all under": lambda g, n, rng: [_under(g)] * n,
    "first over, rest middling": lambda g, n, rng: [_over(g), *[_middling(g)] * (n - 1)],
    "first at the bound, rest under": lambda g, n, rng: [g.bound, *[_under(g)] * (n - 1)],
}
GATES = (Gate(0.90, 0.05, 2000), Gate(0.90, 0.10, 1000), Gate(0.78, 0.12, 2000))


@dataclass(frozen=True)
class Cell:
    """Mean paid calls of a stage of so many tries of a mix at one gate."""

    mix: str
    tries: int
    raced: float
    one_after_another: float
    known: float

    @property
    def ratio(self) -> float:
        return self.raced / self.one_after_another


def grid(stages: int, paces: Sequence[Pace] = (PACE,), gates: Sequence[Gate] = GATES) -> dict[Pace, list[Cell]]:
    """Every cell, of so many stages each; the same stages for every pace."""
    cells: dict[Pace, list[Cell]] = {pace: [] for pace in paces}
    for gate in gates:
        for mix, qualities in MIXES.items():
            for count in TRIES:
                rng = np.random.default_rng(count)
                paid = [_paid(gate, drawn(gate, qualities(gate, count, rng), rng), paces) for _ in range(stages)]
                ordered, best, *by_pace = np.mean(paid, axis=0).tolist()
                for pace, calls in zip(paces, by_pace, strict=True):
                    cells[pace].append(Cell(mix, count, calls, ordered, best))
    return cells


def _paid(gate: Gate, tries: Sequence[Drawn], paces: Sequence[Pace]) -> list[int]:
    return [one_after_another(tries).calls, known(tries), *(raced(gate, tries, pace).calls for pace in paces)]


def share_paid(cells: Sequence[Cell]) -> float:
    """Calls of all these cells as a share of those one after another."""
    return sum(each.raced for each in cells) / sum(each.one_after_another for each in cells)


@dataclass(frozen=True)
class Errors:
    """Shares of climbs with a false PASS, of stages with a false FAIL and of tries with one; raced, then one after
    another.
    """

    false_pass: tuple[float, float]
    false_fail: tuple[float, float]
    failed_tries: tuple[float, float]


def errors(tries: int, climbs: int, bound: float = 0.90, margin: float = 0.05, rows: int = 1000) -> Errors:
    """Climbs of two stages of so many tries each. All stand at the floor: does any pass? All stand at the bound: does
    the stage fail, and how many of the tries that were begun? Alpha .05, shared as the gate shares it.
    """
    rng, gate = np.random.default_rng(tries), Gate(bound, margin, rows, ALPHA / (2 * tries), ALPHA)
    passed, failed = np.zeros((climbs, 2), bool), np.zeros((climbs, 2), bool)
    begun, wrong = np.zeros(2), np.zeros(2)
    for climb in range(climbs):
        for _ in range(2):
            both = _both(gate, drawn(gate, [gate.floor] * tries, rng))
            passed[climb] |= [each.verdict == "pass" for each in both]
        both = _both(gate, drawn(gate, [gate.bound] * tries, rng))
        failed[climb] = [each.verdict == "fail" for each in both]
        begun += [len(each.outcomes) for each in both]
        wrong += [each.outcomes.count("fail") for each in both]
    shares = (passed.mean(axis=0), failed.mean(axis=0), wrong / begun)
    return Errors(*((float(raced_), float(ordered)) for raced_, ordered in shares))


def _both(gate: Gate, tries: Sequence[Drawn]) -> tuple[Stage, Stage]:
    return raced(gate, tries), one_after_another(tries)


def _lines(quick: bool) -> Iterator[str]:
    (cells,) = grid(40 if quick else 400).values()
    yield "Mean paid calls of a stage that races, as a share of one after another; known: who knew which passes soonest"
    yield f"| mix | {' | '.join(f'{count} tries' for count in TRIES)} | all | known |"
    yield f"|---|{'---|' * (len(TRIES) + 2)}"
    for mix in MIXES:
        of_mix = [each for each in cells if each.mix == mix]
        by_count = [share_paid([each for each in of_mix if each.tries == count]) for count in TRIES]
        best = sum(each.known for each in of_mix) / sum(each.one_after_another for each in of_mix)
        yield f"| {mix} | {' | '.join(f'{each:.2f}' for each in by_count)} | {share_paid(of_mix):.2f} | {best:.2f} |"
    best = sum(each.known for each in cells) / sum(each.one_after_another for each in cells)
    yield f"| all {len(cells)} cells |{' |' * len(TRIES)} {share_paid(cells):.2f} | {best:.2f} |"
    above = [each for each in cells if each.ratio > 1.1]
    worst = max(each.ratio for each in cells)
    yield f"cells above 1.10: {len(above)}, of {sorted({each.mix for each in above})}; worst {worst:.2f}"
    yield f"Errors at alpha {ALPHA:g}: raced, one after another"
    yield "| tries a stage | false PASS over two stages | false FAIL of a stage | of a try |"
    yield "|---|---|---|---|"
    for count in (2, 6):
        got = errors(count, 200 if quick else 4000)
        pairs = (got.false_pass, got.false_fail, got.failed_tries)
        yield f"| {count} | {' | '.join(f'{ours:.1%}, {theirs:.1%}' for ours, theirs in pairs)} |"


def _budgets(quick: bool) -> Iterator[str]:
    yield "| turn, of the examples at the bound | reluctance | all cells | worst cell | cells above 1.10 |"
    yield "|---|---|---|---|---|"
    for pace, cells in grid(25 if quick else 100, BUDGETS).items():
        above, worst = sum(each.ratio > 1.1 for each in cells), max(each.ratio for each in cells)
        yield f"| {pace.turn_share:g} | {pace.reluctance:g} | {share_paid(cells):.2f} | {worst:.2f} | {above} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stages of each")
    parser.add_argument("--budgets", action="store_true", help="other look budgets beside the one that is used")
    asked = parser.parse_args()
    for line in _budgets(asked.quick) if asked.budgets else _lines(asked.quick):
        print(line, flush=True)


if __name__ == "__main__":
    main()
