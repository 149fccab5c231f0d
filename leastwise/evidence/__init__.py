"""Is a figure good enough? Tests that hold at every look, judges corrected by people, drift, thresholds, alpha.

They know numbers only: never a model, a budget, a file or where scores come from. Start reading at `bounded_mean.py`.

**What is guaranteed.** A candidate exactly at the floor (bound - margin; where lower is better, at the ceiling,
bound + margin) or worse passes with probability at most `alpha_pass`, and one at the bound or better fails with
probability at most `alpha_fail`, however often and whenever one looks and stops (Ville's inequality, see
`leastwise.evidence.betting`). Between floor and bound either verdict is acceptable. `lower` and `upper` are each
one-sided at those levels: the mean lies above `lower` with probability 1 - alpha_pass and below `upper` with
1 - alpha_fail.

**How interval and outcome agree.** The interval is the inversion of the very capital that decides: `outcome` is
"pass" exactly when `lower` >= floor, else "fail" exactly when `upper` < bound. Every score is a look of its own, so
neither depends on how scores are grouped into `add` calls (only on their order); batches decide just how many scores
were paid for by the time one asks. The first crossing is kept: after a FAIL, `lower` stays below the floor.

**The price of splitting alpha** grows with log(1/alpha): at bound .90 and floor .85 a test at .05/7 a side needs about
1.6 times the examples of one at .05 (`python -m benchmarks.gate_examples` prints the figures).
"""

from leastwise.evidence.bounded_mean import CostTest, MeanTest, PairedTest
from leastwise.evidence.closed_set import ClosedSetTest
from leastwise.evidence.measurement import Measurement
from leastwise.evidence.prediction_powered import PredictionPoweredTest
from leastwise.evidence.quantile import QuantileTest

__all__ = [
    "ClosedSetTest",
    "CostTest",
    "MeanTest",
    "Measurement",
    "PairedTest",
    "PredictionPoweredTest",
    "QuantileTest",
]
