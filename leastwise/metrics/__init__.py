"""How one answer is scored, a metric a file; the scores themselves, and figures over many answers that are reported.

What the model did wrong scores 0; a metric never sees what the infrastructure lost, asks a model or tests a bound.
Start reading at `exact_label.py` (a label) or `task_metric.py`, which says the metric of each kind of task.
"""

from leastwise.metrics.agreement import Agreement, agreement
from leastwise.metrics.exact_label import exact_label, normalize
from leastwise.metrics.exact_match import exact_match
from leastwise.metrics.field_f1 import field_f1
from leastwise.metrics.macro_f1 import macro_f1
from leastwise.metrics.score import Score
from leastwise.metrics.self_consistency import self_consistency
from leastwise.metrics.token_f1 import token_f1

__all__ = [
    "Agreement",
    "Score",
    "agreement",
    "exact_label",
    "exact_match",
    "field_f1",
    "macro_f1",
    "normalize",
    "self_consistency",
    "token_f1",
]
