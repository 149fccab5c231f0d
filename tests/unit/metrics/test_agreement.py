"""A judge's agreement with people, above chance, as in scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from leastwise.metrics import agreement


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40))
def test_agreement_above_chance_is_that_of_scikit_learn(pairs):
    judge, human = map(list, zip(*pairs, strict=True))
    got = agreement(judge, human)
    assert got.share == np.mean([a == b for a, b in pairs])
    if len({*judge, *human}) > 1:
        assert got.kappa == pytest.approx(cohen_kappa_score(judge, human))
    else:
        assert got.kappa == 0
