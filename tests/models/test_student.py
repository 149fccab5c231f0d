"""The threshold under which a student declines, on probabilities whose right threshold is plain."""

import numpy as np
import pytest

from leastwise.models.student import fit_dev_threshold


def certainty(texts):
    return np.asarray([[float(text), 1 - float(text)] for text in texts])


@pytest.mark.parametrize(("allowed", "threshold", "declined"), [(0.0, 0.6, 0.0), (0.4, 0.7, 0.25), (0.6, 0.8, 0.5)])
def test_the_threshold_declines_no_more_in_scope_texts_than_allowed(allowed, threshold, declined):
    found = fit_dev_threshold(certainty, ["0.9", "0.6", "0.8", "0.7"], ["0.55", "0.65"], allowed)
    assert (found.decline_below, found.declined_in_scope) == (threshold, declined)
    assert found.declined_out_of_scope == (0.5 if allowed == 0 else 1.0)
    assert found.auroc == pytest.approx(7 / 8)


def test_equal_confidence_says_nothing_about_scope_and_no_outside_gives_no_auroc():
    assert fit_dev_threshold(certainty, ["0.7"] * 3, ["0.7"] * 2, 0.4).auroc == 0.5
    assert fit_dev_threshold(certainty, ["0.7"] * 3, ["0.7"] * 2, 0.4).declined_in_scope == 0
    assert fit_dev_threshold(certainty, ["0.7"], [], 0.0).auroc is None
