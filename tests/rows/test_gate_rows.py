"""The order of the gate's rows is fixed by their content, and neither a look nor a sample ever splits a unit."""

import time
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from leastwise.rows import gate_rows
from leastwise.rows.tables import UNIT
from tests.toys import SEED, table


def test_the_gate_hash_changes_with_the_unit_and_is_the_old_one_without():
    plain = gate_rows.gate_hash("abc", 100)
    assert plain == gate_rows.gate_hash("abc", 100, None) == "715389eeea32bb80"
    assert len({plain, gate_rows.gate_hash("abc", 100, "user"), gate_rows.gate_hash("abc", 100, "day")}) == 3


def test_rows_of_a_unit_stay_together_in_table_order_and_looks_never_split_a_unit():
    rows = table([1] * 60, per_unit=4)
    ordered = gate_rows.seeded(rows, SEED)
    assert sorted(ordered["id"]) == sorted(rows["id"])
    runs = (ordered[UNIT] != ordered[UNIT].shift()).sum()
    assert runs == 60
    for _, of_unit in ordered.groupby(UNIT):
        numbers = [int(i[1:]) for i in of_unit["id"]]
        assert numbers == sorted(numbers)
    slices = list(gate_rows.looks(ordered))
    assert [part[UNIT].nunique() for part in slices] == [25, 25, 10]
    assert not set(slices[0][UNIT]) & set(slices[1][UNIT])


def test_traffic_in_its_own_order_is_cut_between_units_too():
    slices = list(gate_rows.looks(table([1] * 30, per_unit=3)))
    assert [len(part) for part in slices] == [75, 15]
    assert not set(slices[0][UNIT]) & set(slices[1][UNIT])


def test_looks_at_shared_units_take_no_longer_than_plain_slices_of_as_many_rows():
    rows = gate_rows.seeded(table(np.ones(20_000, dtype=int), per_unit=10), SEED)

    def seconds(slices: Callable[[], Iterable[pd.DataFrame]]) -> float:
        taken = []
        for _ in range(3):
            started = time.process_time()
            assert sum(map(len, slices())) == len(rows)
            taken.append(time.process_time() - started)
        return min(taken)

    plain = seconds(lambda: (rows.iloc[start : start + 250] for start in range(0, len(rows), 250)))
    assert seconds(lambda: gate_rows.looks(rows)) < 5 * plain


def test_a_sample_of_the_test_split_takes_whole_units():
    ordered = gate_rows.seeded(table([1] * 10, per_unit=4), SEED)
    assert len(gate_rows.first_units(ordered, 15)) == 12
    assert len(gate_rows.first_units(ordered, 2)) == 4
    assert len(gate_rows.first_units(ordered, 100)) == 40
    assert len(gate_rows.first_units(table([1] * 10), 7)) == 7
