"""Tables too long for memory: read block by block as they are read whole, and what is drawn of them is stated."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.question import Question
from leastwise.rows.tables import TIME, Tables
from leastwise.stores.tables import drawn_rows, table_files, table_formats, table_times
from leastwise.use_case import UseCase
from tasks.drift import read_window

ROWS, MOST = 3_000, 1_000
WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three thousand rows are many blocks."""
    monkeypatch.setattr(table_formats, "ROWS_AT_A_TIME", 128)


def requests(rows: int = ROWS) -> pd.DataFrame:
    """Requests that came in another order than they are written in, each text coming again 7 later."""
    at = np.random.default_rng(5).permutation(rows)
    return pd.DataFrame(
        {
            "id": [f"t{n}" for n in at],
            "text": [f"asked {n // 14} {n % 7}" for n in at],
            "label": "1",
            "at": 1_700_000_000 + at,
        }
    )


def case(folder: Path, traffic: pd.DataFrame, kind: str = "parquet", most: int = MOST, **data: Any) -> UseCase:
    WRITERS[kind](traffic, folder / f"traffic.{kind}")
    for name in ("gate", "train", "dev"):
        (folder / f"{name}.csv").write_text(f"text,label\n{name} of its own,1\n{name} of no one,0\n")
    tables = {name: str(folder / f"{name}.csv") for name in ("gate", "train", "dev")}
    return UseCase.model_validate(
        {
            "name": "long",
            "task": {"instruction": "Say.", "labels": ["0", "1"]},
            "data": tables | {"traffic": str(folder / f"traffic.{kind}"), "time_column": "at"} | data,
            "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 1000},
            "models": {"candidates": [{"uri": "openai:toy"}]},
            "caching": {"replay_requests": most},
            "allow_no_test": True,
        }
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_blocks_are_the_rows_of_the_whole_table_and_their_index_its_positions(tmp_path: Path, kind: str) -> None:
    rows = requests(1000).astype({"at": object}).assign(at=lambda frame: frame["at"].where(frame["at"] % 5 > 0))
    WRITERS[kind](rows, tmp_path / f"t.{kind}")
    whole, blocks = (read(tmp_path / f"t.{kind}") for read in (table_files.read_table, table_files.read_blocks))
    together = pd.concat(list(blocks))
    assert list(together.index) == list(range(1000)) and list(whole["text"]) == list(rows["text"])
    pd.testing.assert_frame_equal(together, whole)


def test_a_field_that_only_later_lines_have_is_a_column_of_every_block(tmp_path: Path) -> None:
    lines = [{"text": f"x{n}"} | ({"label": "1"} if n > 200 else {}) for n in range(300)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert all("label" in block for block in table_files.read_blocks(tmp_path / "t.jsonl"))


@pytest.mark.parametrize("kind", WRITERS)
def test_of_long_traffic_a_stretch_of_neighbours_in_time_is_replayed_and_it_is_said(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tables = Tables(case(tmp_path, requests(), kind))
    tables.check()
    rows = tables.need("traffic")
    assert len(rows) == tables.rows("traffic") == MOST and tables.written_rows("traffic") == ROWS
    assert np.all(np.diff(rows[TIME]) == 1.0)
    assert f"{MOST:,} of {ROWS:,} requests are replayed" in caplog.text
    again = Tables(case(tmp_path, requests(), kind)).need("traffic")
    assert list(again["id"]) == list(rows["id"]) == [f"t{int(at) - 1_700_000_000}" for at in rows[TIME]]
    assert Question(tables.use_case, tables).repeat_share == pytest.approx(0.5, abs=0.02)
    (data_set,) = Question(tables.use_case, tables).data_sets("traffic")
    assert data_set.rows == ROWS


def test_traffic_that_is_short_enough_is_replayed_whole_and_its_question_is_the_one_it_was(tmp_path: Path) -> None:
    whole, short = (Tables(case(tmp_path, requests(), most=most)) for most in (ROWS, MOST))
    assert list(whole.need("traffic")["id"]) == [f"t{n}" for n in range(ROWS)]
    assert "replay_requests" not in short.use_case.model_dump(mode="json")["caching"]
    keys = {Question(tables.use_case, tables).key for tables in (whole, short)}
    assert len(keys) == 2  # another stretch is another question


def _with(row: int, column: str, value: object) -> pd.DataFrame:
    frame = requests().astype({column: object})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (2500, "text", None, r"row 2501: missing \(NaN\) 'text'"),
        (2501, "text", "  ", "row 2502: empty 'text'"),
        (2502, "label", "2", "row 2503: 'label' '2' is not in the label set"),
        (2503, "at", "soon", r"row 2504: 'at' is no time \('soon'\)"),
        (2504, "text", "Train, of its own!", r"1 texts are in data\.train too.*row 2505, 'Train, of its own!'"),
        (2505, "text", "dev OF its own", r"1 texts are in data\.dev too.*row 2506"),
    ],
)
def test_every_row_of_long_traffic_is_checked_and_named_whether_it_is_replayed_or_not(
    tmp_path: Path, kind: str, row: int, column: str, value: object, words: str
) -> None:
    frame = _with(row, column, value)
    frame = frame.astype({column: str}).where(frame.notna()) if kind == "parquet" else frame
    with pytest.raises(BadInput, match=rf"data\.traffic.*{words}"):
        Tables(case(tmp_path, frame, kind)).check()


def test_two_rows_with_one_id_are_named_wherever_they_stand(tmp_path: Path) -> None:
    frame = _with(2900, "id", requests()["id"][17])
    with pytest.raises(BadInput, match=r"rows 18, 2901: duplicate 'id' 't\d+'"):
        Tables(case(tmp_path, frame)).need("traffic")


def test_the_unit_of_times_is_told_by_the_largest_of_all_blocks(tmp_path: Path) -> None:
    parts = [pd.DataFrame({"at": [17.0, 18.0]}), pd.DataFrame({"at": [1.7e12]})]
    times = [table_times.times_of(part, "at", "t") for part in parts]
    assert list(table_times.unix_seconds_of(times, "t")) == [0.017, 0.018, 1.7e9]


def test_a_window_of_any_length_is_drawn_of_as_if_it_were_held_whole(tmp_path: Path) -> None:
    rows = requests().assign(
        source=lambda frame: [f"s{len(text)}" if n % 3 else None for n, text in enumerate(frame["text"])]
    )
    used = case(tmp_path, rows, split_by="source")
    path = str(tmp_path / "traffic.parquet")
    outline = drawn_rows.Outline.of(read_window(used, path), "source")
    drawn = drawn_rows.at_positions(read_window(used, path), outline.drawn(50))
    order = np.random.default_rng(outline.seed).permutation(ROWS)
    shuffled = rows.iloc[order].drop_duplicates("text")
    expected = shuffled[shuffled["source"].isna() | ~shuffled["source"].duplicated()].head(50)
    assert list(drawn["text"]) == list(expected["text"]) and len(drawn) == 50
