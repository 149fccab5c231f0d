"""Is the mean a person would give good enough, where a judge scores every answer and people have graded a few?

It asks no judge and knows no rubric. A judge's mean alone says how much the judge likes the answers; what people would
say is that plus the judge's mean error, which is estimated on answers that both have scored (prediction-powered
inference: Angelopoulos, Bates, Fannjiang, Jordan, Zrnic 2023, arXiv 2301.09633).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from leastwise.errors import BadInput
from leastwise.evidence.betting import Evidence, FloatArray, Recipe, kelly_odds
from leastwise.evidence.bounded_mean import BoundedMeanTest
from leastwise.evidence.scores import PRIOR, below, in_range
from leastwise.use_case.judge import LEAST_HUMAN_GRADES


class PredictionPoweredTest(BoundedMeanTest):
    """Is the mean human grade in [0, 1] as good as `bound`, give or take `margin`? `add` takes the judge's scores.

    Half of each alpha goes to an interval of the judge's mean error (human - judge) over the answers in `human` and
    `judge` (shape m each, the same answers in the same order), half to the sequential test of the judge's own mean,
    moved by that interval. So a candidate at the floor passes with probability at most alpha_pass in all, and one at
    the bound fails with at most alpha_fail: a judge that is too kind costs examples, not truth. This holds where the
    judge errs on the candidate's answers as it does on average on those people graded; have people grade answers of
    the kind the gate tests.

    With fewer than 100 human grades a judge may only report: BadInput. The error's interval does not narrow as the
    judge grades more; if it is wider than the margin the test cannot end, and more human grades are what helps
    (`error_interval`).
    """

    def __init__(
        self,
        bound: float,
        margin: float,
        human: ArrayLike,
        judge: ArrayLike,
        alpha_pass: float = 0.05,
        alpha_fail: float = 0.05,
    ) -> None:
        people, machine = in_range(human, 0.0, 1.0), in_range(judge, 0.0, 1.0)
        if people.size != machine.size:
            raise ValueError(
                f"{people.size} human grades against {machine.size} of the judge: give both of the same answers"
            )
        if people.size < LEAST_HUMAN_GRADES:
            raise BadInput(
                f"{people.size} human grades: a judge gates only with at least {LEAST_HUMAN_GRADES}; grade more, or "
                "report only"
            )
        if not 0 <= bound <= 1 or bound - margin <= 0:
            raise BadInput(f"bound {bound} with margin {margin} must leave a floor within (0, 1)")
        self.mean_error = math.fsum(people - machine) / people.size
        self.error_interval = error_interval(people, machine, alpha_pass / 2, alpha_fail / 2)
        super().__init__(bound, margin, alpha_pass, alpha_fail, "higher", None)

    def _gather(self, floor: float, goal: float) -> tuple[Evidence, Evidence]:
        least, most = self.error_interval
        lead, clamp = goal - floor, 1 - 1e-9
        return (
            Evidence(Recipe(min(max(floor - least, 0.0), clamp), lead, self.alpha_pass / 2, PRIOR, graded=False)),
            Evidence(
                Recipe(min(max(1 - (goal - most), 0.0), clamp), lead, self.alpha_fail / 2, PRIOR[::-1], graded=False)
            ),
        )

    @property
    def estimate(self) -> float:
        """The judge's mean plus its mean error; NaN before the first score."""
        return super().estimate + self.mean_error

    @property
    def lower(self) -> float:
        """Below the mean human grade at every look with probability 1 - alpha_pass."""
        reached = max(self._passing.lower + self.error_interval[0], 0.0)
        return max(reached, self._accept) if self.outcome == "pass" else min(reached, below(self._accept))

    @property
    def upper(self) -> float:
        """Above the mean human grade at every look with probability 1 - alpha_fail."""
        reached = min(1 - self._failing.lower + self.error_interval[1], 1.0)
        return self._past_bound(reached, min(reached, below(self.bound)), max(reached, self.bound))


def error_interval(human: ArrayLike, judge: ArrayLike, alpha_lower: float, alpha_upper: float) -> tuple[float, float]:
    """An interval of the judge's mean error (human - judge), each end wrong with its alpha.

    Grades in [0, 1] of the same answers in the same order, shape m each.
    """
    errors = np.asarray(human, dtype=float) - np.asarray(judge, dtype=float)
    return _lower(errors, alpha_lower), -_lower(-errors, alpha_upper)


def _lower(errors: FloatArray, alpha: float) -> float:
    """Below the mean of errors in [-1, 1] with probability 1 - alpha, whatever their order.

    The grades are a fixed sample, looked at once: the capital of the Kelly grid after all of them (see
    `leastwise.evidence.betting.kelly_odds`), a product that knows no order, is inverted by bisection; it falls with the
    null.
    """
    from scipy.special import logsumexp

    scores, odds = (errors + 1) / 2, kelly_odds(0.5) - 1
    gains = np.log1p(scores * odds[:, None]).sum(axis=1)
    low, high = 0.0, 1.0
    for _ in range(40):
        null = (low + high) / 2
        log_e = logsumexp(gains - scores.size * np.log1p(null * odds)) - math.log(odds.size)
        low, high = (null, high) if log_e >= -math.log(alpha) else (low, null)
    return 2 * low - 1
