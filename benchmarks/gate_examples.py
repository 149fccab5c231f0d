"""How many examples the gate needs, and how often it errs, beside what is common practice: one table.

`python -m benchmarks.gate_examples [--quick]`. Binary tests are exact (dynamic programming over counts, at most 1,000
examples, undecided counts as 1,000); graded, paired, closed-set and whole-ladder rows are simulated. It does not call
a model and does not measure the evaluation engine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from leastwise.evidence import ClosedSetTest, CostTest, MeanTest, PairedTest, QuantileTest
from leastwise.evidence.betting import Recipe
from leastwise.evidence.quantile import critical_counts
from leastwise.evidence.scores import PRIOR

MOST = 1_000
STEPS = np.arange(MOST + 1)
GRIDS = {
    (0.90, 0.05): (0.70, 0.75, 0.80, 0.85, 0.88, 0.90, 0.92, 0.95, 0.97, 0.99),
    (0.70, 0.05): (0.50, 0.55, 0.60, 0.65, 0.68, 0.70, 0.72, 0.75, 0.77, 0.79),
    (0.97, 0.05): (0.77, 0.82, 0.87, 0.92, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995),
}


@dataclass(frozen=True)
class Limits:
    """After n examples: PASS from `passing[n]` successes on, FAIL up to `failing[n]` (shape 1,001 each)."""

    passing: np.ndarray
    failing: np.ndarray


@dataclass(frozen=True)
class Chances:
    examples: float
    passed: float
    failed: float
    undecided: float


def sequential_limits(bound: float, margin: float, alpha_pass: float = 0.05, alpha_fail: float = 0.05) -> Limits:
    """The limits of `MeanTest`, which looks at every score."""
    test = MeanTest(bound, margin, alpha_pass, alpha_fail)
    floor = bound - margin
    passing = critical_counts(Recipe(floor, bound - floor, alpha_pass, PRIOR, False), STEPS)
    failing = STEPS - critical_counts(Recipe(1 - bound, bound - floor, alpha_fail, PRIOR[::-1], False), STEPS)
    assert test.outcome == "undecided"
    return Limits(passing, failing)


def wilson_limits(bound: float, margin: float, looks: np.ndarray, z: float = 1.6449) -> Limits:
    """One-sided 95% Wilson intervals, looked at only where `looks`."""
    n, k = np.meshgrid(np.maximum(STEPS, 1), STEPS, indexing="ij")
    share = np.minimum(k / n, 1)
    centre, spread = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    lower, upper = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    passing = np.where((lower >= bound - margin).any(axis=1), (lower >= bound - margin).argmax(axis=1), MOST + 1)
    failing = ((upper < bound) & (k <= n)).sum(axis=1) - 1
    at = np.isin(STEPS, looks)
    return Limits(np.where(at, passing, MOST + 1), np.where(at, failing, -1))


def fixed_limits(n: int, threshold: int) -> Limits:
    """A single look after n examples: PASS from `threshold` successes on, else FAIL."""
    return Limits(np.where(n == STEPS, threshold, MOST + 1), np.where(n == STEPS, threshold - 1, -1))


def chances(limits: Limits, p: float, look: int) -> Chances:
    """Exact chances when the true share is p and the verdict is asked for after every `look` examples."""
    alive = np.zeros(MOST + 2)
    alive[0] = 1.0
    examples = passed = failed = 0.0
    counts = np.arange(MOST + 2)
    for n in range(1, MOST + 1):
        alive[1:] = alive[1:] * (1 - p) + alive[:-1] * p
        alive[0] *= 1 - p
        up, down = counts >= limits.passing[n], counts <= limits.failing[n]
        gone_up, gone_down = alive[up].sum(), alive[down & ~up].sum()
        passed, failed = passed + gone_up, failed + gone_down
        examples += (gone_up + gone_down) * min(math.ceil(n / look) * look, MOST)
        alive[up | down] = 0.0
    return Chances(examples + MOST * alive.sum(), passed, failed, alive.sum())


def equal_power(bound: float, margin: float) -> tuple[int, int]:
    """The smallest single-look test with both errors at most 5%: examples and threshold."""
    for n in range(20, MOST + 1):
        threshold = int(stats.binom.isf(0.05, n, bound - margin)) + 1
        if stats.binom.cdf(threshold - 1, n, bound) <= 0.05:
            return n, threshold
    return MOST, threshold


def binary_rows(bound: float, margin: float) -> Iterator[list[str]]:
    grid = GRIDS[bound, margin]
    ours = sequential_limits(bound, margin)
    split = sequential_limits(bound, margin, 0.05 / 7, 0.05 / 4)
    n_equal, threshold = equal_power(bound, margin)
    every_25 = np.arange(25, MOST + 1, 25)
    tests: list[tuple[str, Limits, int]] = [
        ("MeanTest, looks of 25", ours, 25),
        ("MeanTest, looks of 10", ours, 10),
        ("MeanTest, looks of 1", ours, 1),
        ("MeanTest, alpha .05/7 and .05/4, looks of 25", split, 25),
        ("fixed 1,000, Wilson", wilson_limits(bound, margin, np.array([MOST])), MOST),
        (f"fixed {n_equal}, equal power", fixed_limits(n_equal, threshold), n_equal),
        ("Wilson, peeked every 25 (unsound)", wilson_limits(bound, margin, every_25), 25),
        ("point estimate at 20 (unsound)", fixed_limits(20, math.ceil(20 * bound - 1e-9)), 20),
    ]
    for name, limits, look in tests:
        each = {p: chances(limits, p, look) for p in grid}
        floor, middle, at_bound = (each[grid[i]] for i in (3, 4, 5))
        means = [each[p].examples for p in grid]
        shares = [floor.passed, at_bound.failed, floor.undecided, middle.undecided, at_bound.undecided]
        yield [name, f"{np.mean(means):.0f}", *(f"{m:.0f}" for m in means), *(f"{100 * s:.1f}%" for s in shares)]


def examples_used(test: object, batches: Iterator[tuple[np.ndarray, ...]]) -> int:
    used = 0
    for batch in batches:
        test.add(*batch)  # type: ignore[attr-defined]
        used += len(batch[0])
        if test.outcome != "undecided":  # type: ignore[attr-defined]
            break
    return used


def in_looks(*columns: np.ndarray, look: int = 25) -> Iterator[tuple[np.ndarray, ...]]:
    return (tuple(c[i : i + look] for c in columns) for i in range(0, len(columns[0]), look))


def graded_mean(runs: int, rng: np.random.Generator, bound: float, outcome: str) -> str:
    used, wrong = [], 0
    for _ in range(runs):
        test = MeanTest(bound, 0.05)
        used.append(examples_used(test, in_looks(rng.beta(4.25, 0.75, MOST))))
        wrong += test.outcome != outcome
    return f"{np.mean(used):.0f} examples, {100 * wrong / runs:.1f}% not {outcome}"


def hoeffding_mean(runs: int, rng: np.random.Generator) -> str:
    """The one-sided normal mixture with variance 1/4 (1810.08240, eq. 14), tuned for 500 examples."""
    n = np.arange(25, 4_001, 25)
    v, rho = n / 4, 15.0
    radius = np.sqrt((v + rho) * np.log((v + rho) / (4 * 0.05**2 * rho) + 1)) / n
    sums = np.cumsum(0.9 - rng.beta(4.25, 0.75, (runs, 4_000)), axis=1)[:, 24::25]
    return f"{np.mean(n[np.argmax(sums / n > radius, axis=1)]):.0f} examples"


def paired_mean(runs: int, rng: np.random.Generator, discordance: float) -> float:
    used = []
    for _ in range(runs):
        chance = [discordance / 2, 1 - discordance, discordance / 2]
        difference = rng.choice([-1, 0, 1], p=chance, size=8_000)
        ours, theirs = (difference >= 0).astype(float), (difference <= 0).astype(float)
        used.append(examples_used(PairedTest(0.05), in_looks(ours, theirs)))
    return float(np.mean(used))


def closed_set(runs: int, rng: np.random.Generator, goods: tuple[int, ...]) -> str:
    used, wrong = [], 0
    for run in range(runs):
        good = goods[run % len(goods)]
        test = ClosedSetTest(500, 0.9)
        used.append(examples_used(test, in_looks(rng.permutation(np.arange(500) < good).astype(float))))
        wrong += test.outcome != ("pass" if good >= 450 else "fail")
    return f"{np.mean(used) / 500:.2f} of the set, {100 * (1 - wrong / runs):.1f}% agree"


def ladder_false_pass(runs: int, rng: np.random.Generator, candidates: int = 7) -> str:
    """All candidates at the floor on the same rows, half of each row's difficulty shared; stops at the first PASS."""
    limits = sequential_limits(0.9, 0.05, 0.05 / candidates, 0.05 / 4)
    z = stats.norm.ppf(0.85)
    passes = 0
    for _ in range(runs):
        shared = rng.normal(size=MOST)
        for _ in range(candidates):
            right = (shared + rng.normal(size=MOST)) / math.sqrt(2) < z
            counts = np.concatenate([[0], np.cumsum(right)])
            up, down = np.flatnonzero(counts >= limits.passing), np.flatnonzero(counts <= limits.failing)
            if up.size and (not down.size or up[0] <= down[0]):
                passes += 1
                break
    return f"{100 * passes / runs:.2f}% of ladders"


def latency_mean(runs: int, rng: np.random.Generator, slow_share: float) -> str:
    used, outcomes = [], []
    for _ in range(runs):
        test = QuantileTest(900.0, 100.0)
        times = np.where(rng.random(4_000) < slow_share, 2_000.0, 300.0)
        used.append(examples_used(test, in_looks(times)))
        outcomes.append(test.outcome)
    return f"{np.mean(used):.0f} examples, {100 * outcomes.count('pass') / runs:.0f}% pass"


def cost_mean(runs: int, rng: np.random.Generator, worst: float) -> str:
    used = []
    for _ in range(runs):
        usd = worst * rng.beta(6.0, 6.0 * (worst / 0.0003 - 1), 4_000)  # mean 0.0003, a third of the bound
        used.append(examples_used(CostTest(0.0009, 0.0001, worst), in_looks(usd)))
    return f"{np.mean(used):.0f} examples"


def simulated_rows(runs: int, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    rows: list[tuple[str, str, Callable[[], str]]] = [
        ("graded Beta(4.25,.75), must fail .90", "≤ 80", lambda: graded_mean(runs, rng, 0.9, "fail")),
        ("graded Beta(4.25,.75), must pass .85", "", lambda: graded_mean(runs, rng, 0.85, "pass")),
        ("  the same, must fail .90, Hoeffding", "~960", lambda: hoeffding_mean(runs, rng)),
        (
            "closed set of 500, bound .90, margin 0, 400-495 good",
            "",
            lambda: closed_set(runs, rng, tuple(range(400, 500, 5))),
        ),
        (
            "closed set of 500, next to the bound (445 or 455 good)",
            "≥ 95% agree",
            lambda: closed_set(runs, rng, (445, 455)),
        ),
        ("false PASS, 7 candidates at the floor, one gate set", "≤ 5%", lambda: ladder_false_pass(10 * runs, rng)),
        ("latency p95, 0% slow", "", lambda: latency_mean(max(runs // 10, 10), rng, 0.0)),
        ("latency p95, 2% slow", "", lambda: latency_mean(runs, rng, 0.02)),
        ("latency p95, 10% slow", "", lambda: latency_mean(runs, rng, 0.10)),
        ("cost a third of its bound, worst case 2 x bound", "", lambda: cost_mean(runs, rng, 0.0018)),
        ("cost a third of its bound, worst case 10 x bound", "", lambda: cost_mean(runs, rng, 0.009)),
    ]
    for name, target, measure in rows:
        yield name, target, measure()
    unpaired = paired_mean(runs, rng, 2 * 0.85 * 0.15)
    for discordance, target in ((0.06, ""), (0.10, "≤ 0.45"), (0.20, "")):
        used = paired_mean(runs, rng, discordance)
        name = f"paired, p = .85, margin .05, discordance {discordance:.0%}"
        yield name, target, f"{used / unpaired:.2f} of unpaired ({used:.0f} / {unpaired:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few simulations: seconds instead of minutes")
    runs = 40 if parser.parse_args().quick else 1_000
    for (bound, margin), grid in GRIDS.items():
        title = f"bound {bound}, floor {bound - margin:.2f}"
        header = [title, "mean", *(f"{p:g}" for p in grid), "false pass", "false fail"]
        header += [f"open {p:g}" for p in grid[3:6]]
        print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
        for row in binary_rows(bound, margin):
            print("| " + " | ".join(row) + " |")
        print()
    print(f"| simulated, {runs} runs, looks of 25 | target | measured |\n|---|---|---|")
    for row in simulated_rows(runs, np.random.default_rng(1)):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
