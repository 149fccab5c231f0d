"""Where rows share a unit, every table that is measured says it, or is refused by name before anything is spent."""

from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.tables import UNIT, Tables
from tests.toys import table, use_case


def written(folder: Path, **changes: pd.DataFrame) -> Tables:
    frames = (
        dict.fromkeys(("gate", "out_of_scope", "shifted"), table([1] * 4).assign(user=["a", "a", "b", "c"])) | changes
    )
    for name, frame in frames.items():
        frame.assign(text=frame["text"] + name).to_parquet(folder / f"{name}.parquet")
    paths = {name: str(folder / f"{name}.parquet") for name in frames}
    return Tables(use_case({"quality": (0.8, 0.1)}, unit_by="user", **paths))


def test_a_table_gets_its_units_under_a_name_of_their_own(tmp_path: Path):
    tables = written(tmp_path)
    tables.check()
    assert list(tables.need("gate")[UNIT]) == ["a", "a", "b", "c"]


def test_a_table_without_the_unit_column_is_refused_by_name_before_anything_is_spent(tmp_path: Path):
    with pytest.raises(BadInput, match=r"data\.shifted .*no column 'user', which data\.unit_by names"):
        written(tmp_path, shifted=table([1] * 4)).check()


def test_a_row_without_a_unit_is_refused_by_row(tmp_path: Path):
    with pytest.raises(BadInput, match=r"data\.gate .*row 3 has no 'user'"):
        written(tmp_path, gate=table([1] * 4).assign(user=["a", "b", None, "c"])).check()
