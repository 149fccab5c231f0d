"""The sequential tests of one candidate, one a requirement, and what they add up to as it is logged.

They measure nothing (see `leastwise.evaluating.evaluation`) and do not judge: whatever counts as one example is decided by who adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise import evidence
from leastwise.evidence.measurement import Measurement
from leastwise.evidence.prediction_powered import PredictionPoweredTest
from leastwise.metrics.grades import Grades
from leastwise.use_case import UseCase
from leastwise.use_case.requirements import SHARES, Bound

if TYPE_CHECKING:
    from leastwise.evaluating.evaluation import Answerer

GRADED = frozenset({"quality", "shift_quality"})


@dataclass(frozen=True)
class Alphas:
    """Error probabilities of one candidate's tests."""

    to_pass: float
    to_fail: float


class KnownCost:
    """A cost that does not depend on the request (machines by the month): nothing is sampled, so it is decided at once."""

    n = 0

    def __init__(self, usd: float, bound: float, margin: float) -> None:
        self.estimate = self.lower = self.upper = usd
        self.outcome = "pass" if usd <= bound + margin else "fail"


class Tests:
    """The sequential tests of one candidate.

    `sizes` says how many examples (units where rows share one) there are for each requirement that can be measured; with
    population `this_set` it is the size of the closed set that requirement is about. `grades`: quality is a judge's grade,
    corrected by people's.
    """

    __test__ = False

    def __init__(
        self,
        use_case: UseCase,
        alpha: Alphas,
        answerer: Answerer,
        sizes: Mapping[str, int],
        grades: Grades | None = None,
    ) -> None:
        self.grades = grades
        self.bounds: dict[str, Bound] = {n: b for n, b in use_case.requirements.bounds.items() if n in sizes}
        self.has_units = use_case.data.unit_by is not None
        self.is_closed = use_case.data.population == "this_set"
        self.alpha = alpha
        self.rows: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.by_name = {name: self._start(name, answerer, sizes[name]) for name in self.bounds}

    def _start(self, name: str, answerer: Answerer, size: int):
        wanted = self.bounds[name]
        both = {"alpha_pass": self.alpha.to_pass, "alpha_fail": self.alpha.to_fail}
        if name == "p95_latency_ms":
            return evidence.QuantileTest(wanted.bound, wanted.margin, **both)
        if name == "usd_per_1k_requests":
            worst, fixed = answerer.usd_worst_case, answerer.fixed_usd_per_request
            if worst == 0:
                return KnownCost(1000 * fixed, wanted.bound, wanted.margin)
            return evidence.CostTest(wanted.bound, wanted.margin, 1000 * worst, fixed_usd=1000 * fixed, **both)
        if self.grades and name in GRADED:
            return PredictionPoweredTest(wanted.bound, wanted.margin, self.grades.human, self.grades.judge, **both)
        if self.is_closed:
            return evidence.ClosedSetTest(size, wanted.bound, wanted.margin, **both)
        return evidence.MeanTest(wanted.bound, wanted.margin, better="higher", **both)

    def add(self, name: str, values: Sequence[float], lost: int = 0) -> None:
        """Add examples of one requirement, if it is asked for; a decided test keeps its decision."""
        test = self.by_name.get(name)
        if test is None or isinstance(test, KnownCost):
            return
        if len(values):
            test.add(values)
        if lost:
            test.add_lost(lost)

    def count(self, names: Iterable[str], rows: int, lost: int) -> None:
        """Note how many rows were scored for these requirements and how many the infrastructure lost."""
        for name in names:
            self.rows[name] += rows
            self.lost[name] += lost

    def open(self, *names: str) -> bool:
        """Whether one of these requirements is still undecided and none at all has failed."""
        if self.failed:
            return False
        return any(self.by_name[n].outcome == "undecided" for n in names if n in self.by_name)

    @property
    def failed(self) -> bool:
        """Whether what the model answers has failed a requirement: nothing more needs to be known of it then.

        A failure of cost or latency alone decides the verdict too, but whether quality holds decides what comes next:
        the parent, the teacher and whether a cache is worth having. It is measured to its end.
        """
        return any(test.outcome == "fail" for name, test in self.by_name.items() if name in SHARES)

    def measurements(self) -> dict[str, Measurement]:
        """Every test that has seen an example, as it is logged."""
        return {
            name: self._measurement(name, test)
            for name, test in self.by_name.items()
            if test.n or isinstance(test, KnownCost)
        }

    def _measurement(self, name: str, test: evidence.MeanTest) -> Measurement:
        wanted, is_share = self.bounds[name], name in SHARES
        return Measurement(
            name=name,
            estimate=test.estimate,
            lower=test.lower,
            upper=test.upper,
            n=test.n,
            rows=self.rows[name] if is_share and self.has_units else 0,
            lost=self.lost[name] if is_share else 0,
            bound=wanted.bound,
            margin=wanted.margin,
            alpha_pass=self.alpha.to_pass,
            alpha_fail=self.alpha.to_fail,
        )
