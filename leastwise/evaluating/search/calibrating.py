"""A confidence made one, before a cascade or a guard goes by it: one temperature, fitted on dev rows.

A temperature changes no answer. What a search found is calibrated by it already.
"""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.search.dev_answers import DevAnswers
from leastwise.ladder.candidate import Candidate
from leastwise.record.stage_run import StageRun
from leastwise.use_case import Stage

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def calibrated_on_dev(
    work: Workspace, stage: Stage, candidate: Candidate, rows: pd.DataFrame, run: StageRun
) -> Candidate:
    """The candidate at the temperature of these dev rows, its calibration error before and after in the stage's run.

    As it is where it tells no likelihoods of labels, or was calibrated before; asking it is paid as evaluation.
    """
    prompt = candidate.prompt
    if prompt is None or not prompt.tells_likelihoods or prompt.calibration is not None:
        return candidate
    with ExitStack() as stack:
        answers = DevAnswers(work, rows, math.inf)
        answers.open(stage, candidate, stack, "evaluation")
        found = answers.calibrated(candidate, len(rows))
        error = answers.calibration_error(candidate)
    if error is not None:
        run.write({"calibration.ece.before": error.before, "calibration.ece.after": error.after})
        log.info(
            f"{candidate.model} decides with an expected calibration error of {error.before:.3f} on {error.rows} dev "
            f"rows, {error.after:.3f} at its temperature"
        )
    return found
