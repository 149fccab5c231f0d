"""The samples of an evaluation: which rows, who answers them, and which requirements are judged on them.

Gate rows are one sample, and so is traffic whose answers can be scored. Real traffic has no expected answers: what a
request costs and takes and whether an answer has the demanded format is judged on it, and on gate rows beside it what
needs an expected answer. Those are answered by the candidate without its caches, since a cache says the same; what they
cost and take is no figure of the traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

from leastwise.ladder.measured import TRAFFIC
from leastwise.rows.question import JudgedRows

GATE = "gate"
QUALITY, ADHERENCE, LATENCY, COST = MAIN = ("quality", "adherence", "p95_latency_ms", "usd_per_1k_requests")
WITHOUT_EXPECTED = (ADHERENCE, LATENCY, COST)  # judged by the answer alone


@dataclass(frozen=True)
class Sample:
    """Rows that `requirements` are judged on, as `name` of the record; `is_scored`: whether expected answers count;
    `is_behind_caches`: whether they are answered by the candidate without any cache.
    """

    name: str
    judged: JudgedRows
    requirements: tuple[str, ...]
    is_scored: bool = True
    is_behind_caches: bool = False

    def judges(self, requirement: str) -> bool:
        """Whether a requirement is judged on these rows."""
        return requirement in self.requirements


def samples_of(judged: JudgedRows, beside: JudgedRows | None) -> tuple[Sample, ...]:
    """The samples in the order in which they are asked; `beside`: gate rows, where the judged ones cannot be scored.

    Traffic comes first, so that a provider's cache is as cold as the traffic finds it.
    """
    if beside is None:
        return (Sample(GATE, judged, MAIN),)
    return (
        Sample(TRAFFIC, judged, WITHOUT_EXPECTED, is_scored=False),
        Sample(GATE, beside, (QUALITY,), is_behind_caches=True),
    )
