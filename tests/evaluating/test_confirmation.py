"""The winner's figure on the test split: unit-weighted as in the gate, and none where too much was lost."""

import pandas as pd
import pytest

from leastwise.evaluating.confirmation import measure_all
from leastwise.evaluating.scorer import ExactScorer
from leastwise.progress import NoDisplay
from leastwise.record.run import Figure
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from tests.evaluating.toy_answerer import Toy
from tests.toys import table, use_case

QUALITY = use_case({"quality": (0.85, 0.15)})
BY_UNIT = use_case({"quality": (0.85, 0.15)}, unit_by="conversation")


def measured(wanted: UseCase, toy: Toy, rows: pd.DataFrame) -> dict[str, Figure]:
    return measure_all(toy, rows, ExactScorer(wanted.task), NoDisplay())


def test_the_figure_on_the_test_split_is_unit_weighted_as_in_the_gate():
    rows = pd.concat([table([1, 1, 0], per_unit=2), table([0] * 4, named="x").assign(**{UNIT: "u2"})])
    assert measured(BY_UNIT, Toy(), rows)["quality"] == Figure(pytest.approx(2 / 3), 3)
    assert measured(QUALITY, Toy(), rows.drop(columns=UNIT))["quality"] == Figure(pytest.approx(0.4), 10)


def test_the_final_figure_leaves_out_what_was_lost_and_is_none_where_that_is_more_than_one_in_a_hundred():
    rows = table([1] * 150 + [0] * 50)
    one_lost = measured(QUALITY, Toy(lost=frozenset({"r0"})), rows)
    assert one_lost["quality"] == Figure(149 / 199, 199)
    assert measured(QUALITY, Toy(lost=frozenset({"r0", "r1", "r2"})), rows) == {}
