"""The plain figure of a candidate over all rows of a split: what is reported of the winner. It is not a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leastwise.evaluating.scorer import Scorer
from leastwise.evidence.examples_needed import LOOK
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.metrics import Score
from leastwise.progress import Display, EvaluationProgress
from leastwise.record.run import Figure
from leastwise.rows.gate_rows import unit_scores, whole_units

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.answerer import Answerer

AT_ONCE = 4 * LOOK


def measure_all(answerer: Answerer, rows: pd.DataFrame, scorer: Scorer, display: Display) -> dict[str, Figure]:
    """Quality and adherence over all rows.

    Unit-weighted where rows share a unit, as in the gate; n then counts units. Units of which the infrastructure lost a
    row are left out; where it lost more than 1% of the rows there is no figure: empty.
    """
    scores: list[Score | None] = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows.iloc[start : start + AT_ONCE]
        scores += scorer.score(part, answerer.answer(part))
        so_far = [score.quality for score in scores if score]
        estimates = {"quality": float(np.mean(so_far or [0]))}
        progress = EvaluationProgress("confirm on test", len(scores), len(rows), scorer.usd_paid, estimates)
        display.show_evaluation(progress)
    lost = [score is None for score in scores]
    if sum(lost) > MAX_LOST_SHARE * len(rows):
        return {}
    whole = whole_units(rows, lost)
    kept, scored = rows.iloc[whole], [score for at in whole if (score := scores[at])]
    quality = unit_scores(kept, [score.quality for score in scored])
    adherence = unit_scores(kept, [score.adherence for score in scored])
    corrected = float(quality.mean()) + (scorer.grades.mean_error if scorer.grades else 0.0)
    return {"quality": Figure(corrected, quality.size), "adherence": Figure(float(adherence.mean()), adherence.size)}
