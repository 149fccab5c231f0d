"""One measured metric: its estimate and the interval that holds at whatever moment the test stopped.

It tests nothing and judges nothing (see `leastwise.ladder.gate`).
"""

from __future__ import annotations

from pydantic import Field

from leastwise.part import Result

MAX_LOST_SHARE = 0.01


class Measurement(Result):
    """One metric of one candidate, with an interval valid at whatever moment the test stopped."""

    name: str
    estimate: float
    lower: float
    upper: float
    n: int = Field(ge=0, description="Examples behind it; units where rows share one.")
    rows: int = Field(0, ge=0, description="Rows scored, where several make one example; 0 where each is one.")
    lost: int = Field(0, ge=0, description="Rows the infrastructure lost after all retries.")
    bound: float
    margin: float
    alpha_pass: float = Field(gt=0, lt=1)
    alpha_fail: float = Field(gt=0, lt=1)
