"""Dev in three disjoint parts: what is learned from, what an instruction is chosen by, and what confirms it.

It asks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEAST_CONFIRMING = 40  # rows, of which a new instruction can win 15% without a loss (`headroom.least_gain`)


@dataclass(frozen=True)
class Parts:
    """The rows of each part."""

    learn: pd.DataFrame
    choose: pd.DataFrame
    confirm: pd.DataFrame

    @property
    def why_not(self) -> str:
        """Why they are too few to reflect on; empty where they are not."""
        if len(self.confirm) >= LEAST_CONFIRMING:
            return ""
        missing = 2 * (LEAST_CONFIRMING - len(self.confirm))
        return f"data.dev is too small to learn, choose and confirm on apart: add {missing} rows"


def parts_of(dev: pd.DataFrame, searched: int) -> Parts:
    """The parts of dev rows in their order, of which the first `searched` were searched on.

    A quarter to learn from and one to choose by, at most as many as were searched on; twice that, as far as there are
    rows, to confirm. What was searched on comes first, so that what confirms was seen last, if ever.
    """
    each = min(searched, len(dev) // 4)
    return Parts(dev.iloc[:each], dev.iloc[each : 2 * each], dev.iloc[2 * each : 4 * each])
