"""How surely people's grades vouch for a judge: the width of the interval of its mean error, by grades and by how often
it errs.

`python -m benchmarks.judge_grades [--quick]`. Grades are 0 or 1, people give 1 to 80% of the answers, the judge errs
either way; medians of 20 draws. Each end is wrong with half of alpha .05/7 (a candidate of seven) and half of .05. A
gate decides all but clear cases only where its margin is wider.
"""

from __future__ import annotations

import argparse

import numpy as np

from leastwise.evidence.prediction_powered import error_interval

GRADES, ERRORS = (100, 200, 500, 1000), (0.02, 0.05, 0.10, 0.20)


def width(grades: int, errs: float, draws: int, rng: np.random.Generator) -> float:
    widths = []
    for _ in range(draws):
        human = (rng.random(grades) < 0.8).astype(float)
        judge = np.where(rng.random(grades) < errs, 1 - human, human)
        least, most = error_interval(human, judge, 0.05 / 7 / 2, 0.05 / 2)
        widths.append(most - least)
    return float(np.median(widths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 draws instead of 20")
    draws, rng = 3 if parser.parse_args().quick else 20, np.random.default_rng(0)
    print("grades" + "".join(f"{f'errs on {errs:.0%}':>13}" for errs in ERRORS))
    for grades in GRADES:
        print(f"{grades:>6,}" + "".join(f"{width(grades, errs, draws, rng):>13.2f}" for errs in ERRORS))


if __name__ == "__main__":
    main()
