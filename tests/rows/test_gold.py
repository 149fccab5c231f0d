"""Gold documents are named by id, a list or its JSON; one that names no document is refused with its row."""

from pathlib import Path
from typing import Any

import pytest

from leastwise.errors import BadInput
from leastwise.rows import gold
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from tests.parts import case_in, questions


@pytest.mark.parametrize(
    ("table", "ids", "words"),
    [
        ("gate", ['["d15"]', '["d16", "nowhere"]'], r"data\.gate .*: row 2: gold names the document 'nowhere'"),
        ("dev", ["d1", '["d99"]'], r"data\.dev .*: row 2: gold names the document 'd99'"),
        ("gate", ["d15", "[no json"], r"data\.gate .*: row 2: 'gold' '\[no json' is neither an id"),
        ("gate", [None, "[]"], r"data\.gate .*: no row has ids in the column 'gold'"),
    ],
)
def test_gold_that_names_no_document_is_refused_with_its_row(
    tmp_path: Path, home: Path, table: str, ids: list[Any], words: str
) -> None:
    case = load(case_in(tmp_path))
    questions(15, 17).assign(text=["one text", "other text"], gold=ids).to_parquet(tmp_path / f"{table}.parquet")
    with pytest.raises(BadInput, match=words):
        Tables(case).check()


def test_gold_is_one_id_a_list_or_its_json_or_nothing() -> None:
    assert gold.written(["d1", ["d1", "d2"], '["d3"]', 7, None, float("nan")], "gold", "t") == [
        '["d1"]',
        '["d1", "d2"]',
        '["d3"]',
        '["7"]',
        "[]",
        "[]",
    ]
