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


def texts_of(rows: pd.DataFrame) -> list[str]:
    return [str(text) for text in gate_rows.seeded(rows)["text"]]


def test_the_order_is_of_the_rows_and_not_of_their_file():
    rows = pd.DataFrame({"id": range(300), "text": [f"Request number {i}" for i in range(300)]})
    drawn = texts_of(rows)
    assert drawn != list(rows["text"])
    moved = rows.sample(frac=1, random_state=3).assign(id=range(300), text=lambda t: t["text"].str.upper() + "  ")
    assert [" ".join(text.split()).casefold() for text in texts_of(moved)] == [text.casefold() for text in drawn]


def test_a_set_that_grew_or_lost_rows_asks_what_is_left_in_the_order_it_had():
    rows = pd.DataFrame({"text": [f"Request number {i}" for i in range(400)]})
    whole = texts_of(rows)
    for part in (rows.head(300), rows.drop(index=[0, 7, 200])):
        kept = set(part["text"])
        assert texts_of(part) == [text for text in whole if text in kept]


def test_units_of_another_file_stand_in_the_same_order():
    rows = table([1] * 60, per_unit=4)
    moved = rows.sample(frac=1, random_state=3)
    assert list(gate_rows.seeded(rows)[UNIT].unique()) == list(gate_rows.seeded(moved)[UNIT].unique())


def test_a_text_that_recurs_is_not_asked_in_one_piece():
    rows = pd.DataFrame({"text": ["thanks"] * 200 + [f"Request number {i}" for i in range(200)]})
    thanks = np.flatnonzero(np.array(texts_of(rows)) == "thanks")
    assert 70 < (thanks < 200).sum() < 130


def test_the_place_of_a_row_tells_nothing_of_its_place_in_the_file_or_its_length():
    rows = pd.DataFrame({"at": range(5_000), "text": ["x" * (1 + i % 50) + str(i) for i in range(5_000)]})
    ordered = gate_rows.seeded(rows)
    place = np.arange(5_000)
    for told in (ordered["at"], ordered["text"].str.len()):
        assert abs(np.corrcoef(place, told)[0, 1]) < 4 / np.sqrt(5_000)


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
