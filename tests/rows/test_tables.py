"""Where rows share a unit, every table that is measured says it, or is refused by name before anything is spent."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from leastwise.errors import BadInput
from leastwise.rows.gate_rows import unit_count
from leastwise.rows.tables import UNIT, Tables
from leastwise.rows.use_case_file import load, saved
from leastwise.use_case import UseCase
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


def shared_source(folder: Path, **data: object) -> Tables:
    """Gate rows of three sources, one row without; the other tables know no source."""
    frames = dict.fromkeys(("out_of_scope", "shifted"), table([1] * 4))
    frames["gate"] = table([1] * 4).assign(source=["a", "a", "b", None])
    for name, frame in frames.items():
        frame.assign(text=frame["text"] + name).to_parquet(folder / f"{name}.parquet")
    paths = {name: str(folder / f"{name}.parquet") for name in frames}
    return Tables(use_case({"quality": (0.8, 0.1)}, split_by="source", **paths, **data))


def test_rows_that_share_a_group_of_split_by_count_once_unless_told_otherwise(tmp_path: Path):
    tables = shared_source(tmp_path)
    tables.check()
    assert list(tables.need("gate")[UNIT]) == ["a", "a", "b", "row 3"]
    assert unit_count(tables.need("gate")) == 3
    assert unit_count(tables.need("shifted")) == 4  # has no such column: a row is a unit
    assert UNIT not in shared_source(tmp_path, unit_by=None).need("gate")
    with pytest.raises(BadInput, match=r"no column 'owner', which data\.split_by names"):
        Tables(use_case({"quality": (0.8, 0.1)}, split_by="owner", gate=str(tmp_path / "gate.parquet"))).need("gate")


def test_a_climb_that_was_logged_before_groups_were_units_is_read_as_it_was_asked():
    before = use_case({"quality": (0.8, 0.1)}, split_by="source", unit_by=None)
    assert UseCase.model_validate(before.model_dump(mode="json")) == before
    assert "rows_are_units_because" not in before.data.model_dump()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"split_by": "source", "unit_by": None}, "rows_are_units_because"),
        ({"split_by": "source", "rows_are_units_because": "they are independent"}, "unit_by: null"),
    ],
)
def test_a_file_that_counts_rows_of_a_group_one_by_one_says_why(tmp_path: Path, data: dict[str, object], said: str):
    (tmp_path / "case.yaml").write_text(
        yaml.safe_dump(use_case({"quality": (0.8, 0.1)}).model_dump(mode="json") | {"data": {"gate": "g.csv"} | data})
    )
    with pytest.raises(BadInput, match=said):
        load(str(tmp_path / "case.yaml"))


def test_the_shipped_use_cases_say_why_their_rows_count_one_by_one():
    shipped = [load(name) for name in saved()]
    assert {each.name for each in shipped if each.data.split_by and not each.data.unit_by} == {
        each.name for each in shipped if each.data.rows_are_units_because
    }
