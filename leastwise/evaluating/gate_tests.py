"""The sequential tests of one candidate, one a requirement, and what they add up to as it is logged.

They measure nothing (see `leastwise.evaluating.evaluation`) and do not judge: whatever counts as one example is decided
by who adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from numpy.typing import ArrayLike

from leastwise.evidence import ClosedSetTest, CostTest, MeanTest, Measurement, PredictionPoweredTest, QuantileTest
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.race.schedule import ShareTest
from leastwise.metrics.grades import Grades
from leastwise.use_case import UseCase
from leastwise.use_case.requirements import SHARES, Bound

COST = "usd_per_1k_requests"
GRADED = frozenset({"quality", "shift_quality"})
WORST_CASE, FIXED = "usd.worst_case_per_request", "usd.fixed_per_request"
TestOutcome = Literal["pass", "fail", "undecided"]


class SequentialTest(Protocol):
    """A test that may be looked at whenever one likes (see `leastwise.evidence`)."""

    @property
    def n(self) -> int:
        """Examples added."""
        ...

    @property
    def estimate(self) -> float:
        """Of what is tested."""
        ...

    @property
    def lower(self) -> float:
        """Lower end of the interval."""
        ...

    @property
    def upper(self) -> float:
        """Upper end of the interval."""
        ...

    @property
    def outcome(self) -> TestOutcome:
        """Whether it is decided, and how."""
        ...

    def add(self, scores: ArrayLike, /) -> object:
        """Add examples."""
        ...

    def add_lost(self, count: int, /) -> object:
        """Count examples that were lost, against both outcomes."""
        ...


@dataclass(frozen=True)
class RequestCost:
    """What bounds the cost of a request: its worst case by tokens, and its share of what is paid by the
    month, dollars.
    """

    worst_case_usd: float
    fixed_usd: float


class KnownCost:
    """A cost that does not depend on the request (machines by the month): nothing is sampled, so it is
    decided at once.
    """

    n = 0

    def __init__(self, usd: float, bound: float, margin: float) -> None:
        self.estimate = self.lower = self.upper = usd
        self.outcome: TestOutcome = "pass" if usd <= bound + margin else "fail"

    def add(self, scores: ArrayLike, /) -> None:
        """Nothing: no request changes it."""

    def add_lost(self, count: int, /) -> None:
        """Nothing: no request changes it."""


class GateTests:
    """The sequential tests of one candidate.

    `sizes` says how many examples (units where rows share one) there are for each requirement that can be measured;
    with population `this_set` it is the size of the closed set that requirement is about. `cost` is needed where cost
    is required. `grades`: quality is a judge's grade, corrected by people's.
    """

    def __init__(
        self,
        use_case: UseCase,
        alphas: Alphas,
        sizes: Mapping[str, int],
        cost: RequestCost | None = None,
        grades: Grades | None = None,
    ) -> None:
        self._alphas, self._cost, self._grades, self._sizes = alphas, cost, grades, sizes
        self._bounds: dict[str, Bound] = {n: b for n, b in use_case.requirements.bounds.items() if n in sizes}
        self._has_units = use_case.data.unit_by is not None
        self._is_closed = use_case.data.population == "this_set"
        self._rows: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self.by_name = {name: self._start(name, sizes[name]) for name in self._bounds}

    def premises(self) -> dict[str, float]:
        """What these tests started from beside bounds and alphas, so that anybody can do them again: dollars a request,
        and the size of each closed set.
        """
        cost = self._cost if COST in self._bounds else None
        usd = {WORST_CASE: cost.worst_case_usd, FIXED: cost.fixed_usd} if cost else {}
        return usd | ({f"{name}.size": float(self._sizes[name]) for name in self._bounds} if self._is_closed else {})

    def _start(self, name: str, size: int) -> SequentialTest:
        bound, margin = self._bounds[name].bound, self._bounds[name].margin
        to_pass, to_fail = self._alphas.to_pass, self._alphas.to_fail
        if name == "p95_latency_ms":
            return QuantileTest(bound, margin, alpha_pass=to_pass, alpha_fail=to_fail)
        if name == COST:
            return self._start_cost(bound, margin)
        if self._grades and name in GRADED:
            human, judge = self._grades.human, self._grades.judge
            return PredictionPoweredTest(bound, margin, human, judge, alpha_pass=to_pass, alpha_fail=to_fail)
        if self._is_closed:
            return ClosedSetTest(size, bound, margin, alpha_pass=to_pass, alpha_fail=to_fail)
        return MeanTest(bound, margin, better="higher", alpha_pass=to_pass, alpha_fail=to_fail)

    def _start_cost(self, bound: float, margin: float) -> SequentialTest:
        assert self._cost is not None, "cost is required, so somebody must say what bounds it"
        worst, fixed = 1000 * self._cost.worst_case_usd, 1000 * self._cost.fixed_usd
        if worst == 0:
            return KnownCost(fixed, bound, margin)
        to_pass, to_fail = self._alphas.to_pass, self._alphas.to_fail
        return CostTest(bound, margin, worst, fixed_usd=fixed, alpha_pass=to_pass, alpha_fail=to_fail)

    def add(self, name: str, values: ArrayLike, lost: int = 0) -> None:
        """Add examples of one requirement, if it is asked for; a decided test keeps its decision."""
        test = self.by_name.get(name)
        if test is None:
            return
        if len(values):  # type: ignore[arg-type]  # a list or an array; ArrayLike also admits scalars
            test.add(values)
        if lost:
            test.add_lost(lost)

    def count(self, names: Iterable[str], rows: int, lost: int) -> None:
        """Note how many rows were scored for these requirements and how many the infrastructure lost."""
        for name in names:
            self._rows[name] += rows
            self._lost[name] += lost

    def is_open(self, *names: str) -> bool:
        """Whether one of these requirements is still undecided and none at all has failed."""
        return not self.has_failed and any(map(self.is_undecided, names))

    def is_undecided(self, name: str) -> bool:
        """Whether more examples could decide this requirement; a cost that has no known limit can no longer pass."""
        test = self.by_name.get(name)
        return test is not None and test.outcome == "undecided" and not (isinstance(test, CostTest) and test.above)

    def usage_problem(self, of: int, unmetered: int | None = None, answered: int = 0) -> str | None:
        """Why cost cannot be told where it is required: more than 1% of so many requests came without usage.

        `unmetered` of `answered`: where they have not been added yet.
        """
        if unmetered is None:
            unmetered, answered = self._lost[COST], self._lost[COST] + self._rows[COST]
        if COST not in self.by_name or unmetered <= max(1.0, MAX_LOST_SHARE * of):
            return None
        return (
            f"{COST} cannot be told: {unmetered} of {answered} answers came without usage (budgets "
            "count the most it can be); name an endpoint that reports it, or leave the requirement out"
        )

    def cost_problem(self) -> str | None:
        """Why nothing can be said of cost where it is required; None where it can, or where a failure decides anyway.

        That more than 1% of requests came without usage, or that one cost more than was thought possible.
        """
        test = self.by_name.get(COST)
        if test is None or any(each.outcome == "fail" for each in self.by_name.values()):
            return None
        if problem := self.usage_problem(self._lost[COST] + self._rows[COST]):
            return problem
        if isinstance(test, CostTest) and test.above:
            return (
                f"{COST} cannot be told: {test.above} of {test.n} requests cost up to ${test.most:.4g} a thousand, "
                f"more than the worst case of ${test.worst_case_usd:.4g} that context_tokens and traffic.output_tokens "
                "allow: the server ignores the cap, or a text is longer; set both to what it really takes"
            )
        return None

    def _named(self, names: Iterable[str]) -> list[SequentialTest]:
        return [self.by_name[name] for name in names if name in self.by_name]

    @property
    def has_failed(self) -> bool:
        """Whether what the model answers has failed a requirement: nothing more needs to be known of it then.

        A failure of cost or latency alone decides the verdict too, but whether quality holds decides what comes next:
        the parent, the teacher and whether a cache is worth having. It is measured to its end.
        """
        return any(test.outcome == "fail" for name, test in self.by_name.items() if name in SHARES)

    @property
    def can_pass(self) -> bool:
        """Whether PASS is still possible: no requirement at all has failed, and cost can be told."""
        tests = self.by_name.values()
        is_untold = any(isinstance(test, CostTest) and test.above for test in tests)
        return not is_untold and all(test.outcome != "fail" for test in tests)

    def shares(self) -> tuple[ShareTest, ...]:
        """The tests of shares, as a race of tries sees them; what was lost leaves fewer to come."""
        return tuple(
            ShareTest(
                bound=self._bounds[name].bound,
                margin=self._bounds[name].margin,
                alpha_pass=self._alphas.to_pass,
                alpha_fail=self._alphas.to_fail,
                size=self._sizes[name],
                n=test.n,
                right=test.estimate * test.n if test.n else 0.0,
                is_open=test.outcome == "undecided",
            )
            for name, test in self.by_name.items()
            if name in SHARES
        )

    def measurements(self) -> dict[str, Measurement]:
        """Every test that has seen an example, as it is logged."""
        seen = {name: test for name, test in self.by_name.items() if test.n or isinstance(test, KnownCost)}
        return {name: self._measurement(name, test) for name, test in seen.items()}

    def _measurement(self, name: str, test: SequentialTest) -> Measurement:
        bound, is_share = self._bounds[name], name in SHARES
        return Measurement(
            name=name,
            estimate=test.estimate,
            lower=test.lower,
            upper=test.upper,
            n=test.n,
            rows=self._rows[name] if is_share and self._has_units else 0,
            lost=self._lost[name] if is_share or name == "p95_latency_ms" else 0,
            bound=bound.bound,
            margin=bound.margin,
            alpha_pass=self._alphas.to_pass,
            alpha_fail=self._alphas.to_fail,
        )
