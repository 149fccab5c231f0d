"""A table is read alike whatever its format: text as text, the named column, times of any kind, ids from content."""

import datetime
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leastwise.errors import BadInput
from leastwise.rows.near_duplicates import near_duplicates, normalised
from leastwise.rows.tables import UNIT, Tables
from leastwise.rows.use_case_file import load
from leastwise.stores.tables.table_files import read_table
from leastwise.stores.tables.table_times import unix_seconds
from leastwise.use_case import UseCase
from tasks.drift import read_window

RECORDS = {
    "kind": "extraction",
    "instruction": "Copy.",
    "json_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": ["string", "null"]}, "rate": {"type": "number"}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


def case(task: dict[str, Any] | None = None, **data: Any) -> UseCase:
    raw = {
        "name": "read",
        "task": task or {"instruction": "Answer.", "labels": ["0", "1", "true"]},
        "data": {"gate": "gate.csv"} | data,
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:toy"}]},
        "allow_no_test": True,
    }
    return UseCase.model_validate(raw)


def gate(
    path: Path, content: str | bytes | pd.DataFrame, task: dict[str, Any] | None = None, **data: Any
) -> pd.DataFrame:
    """The gate of a use case whose file holds this."""
    if isinstance(content, pd.DataFrame):
        content.to_parquet(path, index=False)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Tables(case(task, gate=str(path), **data)).need("gate")


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,text,label\n1,4071,0\n2,true,1\n3,1.5,true\n"),
        (
            "t.jsonl",
            lines({"id": 1, "text": 4071, "label": 0}, {"id": 2, "text": True, "label": 1})
            + "\n"
            + lines({"id": 3, "text": 1.5, "label": True}),
        ),
        (
            "t.parquet",
            pd.DataFrame({"id": [1, 2, 3], "text": ["4071", "true", "1.5"], "label": [0, 1, True]}, dtype=object)
            .astype({"id": "int64", "label": "str"})
            .replace({"label": {"True": "true"}}),
        ),
    ],
)
def test_numbers_and_truth_values_are_text_in_every_format(tmp_path: Path, name: str, content: Any) -> None:
    read = gate(tmp_path / name, content)
    assert read[["id", "text", "label"]].values.tolist() == [
        ["1", "4071", "0"],
        ["2", "true", "1"],
        ["3", "1.5", "true"],
    ]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_a_short_float_of_parquet_is_the_number_that_is_meant_by_it(tmp_path: Path, kind: pa.DataType) -> None:
    inner = pa.struct([("rate", kind), ("city", pa.string())])
    rates = [np.float16(each) if pa.types.is_float16(kind) else each for each in (0.1, 2.7)]
    records = [{"rate": rate, "city": "Ulm"} for rate in rates]
    table = pa.table(
        {
            "text": pa.array(rates, kind),
            "label": pa.array(records, inner),
            "list": pa.array([[rate, None] for rate in rates], pa.list_(kind)),
            "nested": pa.array([[each] for each in records], pa.large_list(inner)),
            "map": pa.array([[("a", rate)] for rate in rates], pa.map_(pa.string(), kind)),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    first = read_table(tmp_path / "t.parquet").to_dict("records")[0]
    record = {"rate": 0.1, "city": "Ulm"}
    assert first == {"text": 0.1, "label": record, "list": [0.1, None], "nested": [record], "map": {"a": 0.1}}
    task = RECORDS | {"json_schema": RECORDS["json_schema"] | {"required": ["city"]}}
    read = Tables(case(task, gate=str(tmp_path / "t.parquet"))).need("gate")
    assert list(read["text"]) == ["0.1", "2.7"] and json.loads(read["label"][1]) == {"rate": 2.7, "city": "Ulm"}


def test_labels_of_every_column_type_are_compared_as_text(tmp_path: Path) -> None:
    for values in ([0, 1], [0.0, 1.0], pd.Categorical(["0", "1"]), [Decimal(0), Decimal(1)]):
        read = gate(tmp_path / "t.parquet", pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "label": values}))
        assert list(read["label"]) == ["0", "1"]


def test_parquet_keeps_what_its_types_say(tmp_path: Path) -> None:
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "id": pa.array([2**60 + 1, None]),
            "text": pa.array(["x", "y"], pa.large_string()).dictionary_encode(),
            "at": pa.array([when, None]),
            "sum": pa.array([Decimal("1.10"), None]),
            "list": pa.array([["a"], None]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    first = read_table(tmp_path / "t.parquet").to_dict("records")[0]
    assert first == {"id": 2**60 + 1, "text": "x", "at": when, "sum": Decimal("1.10"), "list": ["a"]}


def test_floats_of_json_lines_are_exact_and_nulls_that_a_schema_requires_stay(tmp_path: Path) -> None:
    rows = [
        {"city": "Rome", "unit": None, "rate": 0.7},
        {"city": "Bonn", "unit": "4b", "rate": 1.11},
        {"city": "Ulm", "unit": None},
    ]
    expected = [json.dumps(row) for row in rows]
    written = lines(*({"text": f"t{at}", "label": row} for at, row in enumerate(rows)))
    assert list(gate(tmp_path / "t.jsonl", written, RECORDS)["label"]) == expected
    table = pa.Table.from_pylist([{"text": f"t{at}", "label": row} for at, row in enumerate(rows)])
    pq.write_table(table, tmp_path / "t.parquet")  # every record has every field there
    assert list(Tables(case(RECORDS, gate=str(tmp_path / "t.parquet"))).need("gate")["label"]) == expected


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'id,text,label\n7,"a\nb, c",0\n'),
        ("t.csv", '"id";"text";"label"\r\n7;"a\nb, c";0\r\n\r\n'),
        ("t.csv", 'id\ttext\tlabel\n7\t"a\nb, c"\t0\n'),
        ("t.jsonl", '\n{"id": "7", "text": "a\\nb, c", "label": "0"}\n\n'),
        ("t.jsonl", '[\n{"id": "7", "text": "a\\nb, c", "label": "0"}\n]\n'),
    ],
)
def test_a_byte_order_mark_separators_and_blank_lines_change_nothing(
    tmp_path: Path, bom: bytes, name: str, content: str
) -> None:
    read = gate(tmp_path / name, bom + content.encode())
    assert read[["id", "text", "label"]].values.tolist() == [["7", "a\nb, c", "0"]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "id,text,label\n", "no rows"),
        ("t.csv", "id,text,label\n1,a,0\n2,b\n", "line 3: 2 cells, but the header has 3"),
        ("t.csv", "id,text,label\n1,a, b,0\n", "line 2: 4 cells.*in double quotes"),
        ("t.csv", 'id,text,label\n1,"a,0\n', "line 2: unexpected end"),
        ("t.csv", 'id,text,label\n1,"a"b,0\n', "line 2:"),
        ("t.csv", "id,text,text\n1,a,0\n", "two columns are named 'text'"),
        ("t.csv", b"id,text,label\n1,caf\xe9,0\n", "line 2: byte 19 of the file is no UTF-8"),
        ("t.csv", "id,text,label\n1,é,0\n".encode("utf-16"), "UTF-16"),
        ("t.csv", "id,text,label\n1,a\0b,0\n", "row 1: 'text' holds a NUL"),
        ("t.csv", "id,body,label\n1,a,0\n", "no column 'text'"),
        ("t.jsonl", "", "no rows"),
        ("t.jsonl", '{"text": "a", "label": NaN}', "line 1: is no JSON .NaN"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}', "line 2: .*the field 'text' stands twice"),
        ("t.jsonl", '{"text": "a"}\n["b"]', "line 2: is no object"),
        ("t.jsonl", '{"text": {"a": 1}, "label": "0"}', "row 1: 'text' is no text"),
        ("t.jsonl", '{"text": "\\ud800", "label": "0"}', "row 1: 'text' holds half a character"),
        ("t.jsonl", '{"text": ' + "[" * 9000, "line 1: is nested too deep"),
        ("t.parquet", b"PAR1 no table", "unreadable table"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_or_row(tmp_path: Path, name: str, content: Any, words: str) -> None:
    with pytest.raises(BadInput, match=f"{name}.*{words}"):
        gate(tmp_path / name, content)


def test_the_named_column_is_used_though_another_has_the_standard_name(tmp_path: Path) -> None:
    content = "id,key,text,body,label,label_text\n1,k1,no,yes,x,0\n"
    read = gate(tmp_path / "t.csv", content, id_column="key", text_column="body", label_column="label_text")
    assert read[["id", "text", "label"]].values.tolist() == [["k1", "yes", "0"]] and read.columns.is_unique
    swapped = gate(tmp_path / "s.csv", "id,text,label\n1,0,hello\n", text_column="label", label_column="text")
    assert swapped[["text", "label"]].values.tolist() == [["hello", "0"]]
    with pytest.raises(BadInput, match=r"no column 'nowhere', which data\.text_column names"):
        gate(tmp_path / "n.csv", "id,body,label\n1,a,0\n", text_column="nowhere")


def test_a_named_column_that_no_table_has_is_refused_where_the_standard_one_would_be_taken_for_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "gate.csv").write_text("id,text,label\n1,a,0\n2,b,1\n")
    (tmp_path / "test.csv").write_text("id,body,answer\n3,c,0\n4,d,1\n")
    paths = {"gate": str(tmp_path / "gate.csv"), "test": str(tmp_path / "test.csv")}
    with pytest.raises(BadInput, match=r"data\.text_column: no table has a column 'boby'"):
        Tables(case(gate=paths["gate"], text_column="boby")).check()
    with pytest.raises(BadInput, match=r"data\.label_column: no table has a column 'anwser'"):
        Tables(case(gate=paths["gate"], label_column="anwser")).check()
    Tables(case(**paths, text_column="body", label_column="answer")).check()
    with pytest.raises(BadInput) as refused:  # what cannot be read may have had the column
        Tables(case(gate=paths["gate"], test=str(tmp_path / "none.csv"), text_column="body")).check()
    assert "no table has" not in str(refused.value)


def test_ids_that_are_missing_are_made_of_the_text_and_numbered_where_it_comes_again(tmp_path: Path) -> None:
    first = gate(tmp_path / "a.csv", "text,label\nx,0\ny,1\nx,1\n")
    again = gate(tmp_path / "b.jsonl", lines({"text": "y", "label": 1}, {"text": "x", "label": 0}))
    assert first["id"].is_unique and first["id"][2] == f"{first['id'][0]}-2"
    assert set(again["id"]) == set(first["id"][:2])  # by content, whatever the order, the labels or the file
    assert gate(tmp_path / "c.csv", "id,text,label\nr1,x,0\n,y,1\n")["id"].tolist() == ["r1", first["id"][1]]
    with pytest.raises(BadInput, match="no column 'id'"):
        gate(tmp_path / "d.csv", "text,label\nx,0\n", id_column="key")


@pytest.mark.parametrize(
    "times",
    [
        [1700000000, 1700000060],
        [1.7e9, 1700000060.0],
        ["1700000000", "1700000060"],
        ["1700000000.0", "1.70000006e9"],
        [1700000000000, 1700000060000],
        ["1700000000000", "1700000060000"],
        [1700000000000000, 1700000060000000],
        [1700000000000000000, 1700000060000000000],
        [Decimal(1700000000), Decimal(1700000060)],
        ["2023-11-14T22:13:20Z", "2023-11-14 23:14:20+01:00"],
        ["1700000000", "2023-11-14T22:14:20"],
        pd.to_datetime([1700000000, 1700000060], unit="s"),
        [datetime.datetime(2023, 11, 14, 22, 13, 20), datetime.datetime(2023, 11, 14, 22, 14, 20)],
    ],
)
def test_unix_times_are_read_from_any_column_type(times: Any) -> None:
    assert list(unix_seconds(pd.DataFrame({"at": times}), "at", "data.traffic")) == [1700000000.0, 1700000060.0]


@pytest.mark.parametrize("value", ["soon", "", None, True, float("inf"), 1e30, "9999-12-31", [1]])
def test_what_is_no_time_is_refused_by_row(value: Any) -> None:
    with pytest.raises(BadInput, match="row 2: 'at' is no time"):
        unix_seconds(pd.DataFrame({"at": pd.Series(["2026-01-01", value], dtype=object)}), "at", "data.traffic")


def test_a_date_in_digits_alone_stays_a_date() -> None:
    assert list(unix_seconds(pd.DataFrame({"at": ["19700102", "1971"]}), "at", "t")) == [86400.0, 365 * 86400.0]


MASKED = {"mask": ["email"]}


def test_masks_apply_to_every_text_that_enters(tmp_path: Path) -> None:
    texts = {
        name: f"{name} of bob@example.com" for name in ("train", "dev", "documents", "unlabelled", "shifted", "traffic")
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(lines({"text": text, "label": "write to bob@example.com"}))
    graded = {"text": "bob@example.com", "answer": "bob@example.com", "label": "bob@example.com", "grade": "0.5"}
    (tmp_path / "graded.jsonl").write_text(lines(graded))
    (tmp_path / "general_tasks.jsonl").write_text(
        lines(
            {
                "id": "1",
                "text": "ask bob@example.com",
                "choices": ["bob@example.com", "nobody"],
                "label": "bob@example.com",
            }
        )
    )
    (tmp_path / "paraphrases.jsonl").write_text(lines({"id": "g", "text": "bob@example.com?"}))
    (tmp_path / "gate.jsonl").write_text(
        lines({"id": "g", "text": "gate bob@example.com", "label": ["bob@example.com"]})
    )
    paths = {path.stem: str(path) for path in tmp_path.iterdir()}
    tables = Tables(case({"kind": "free_text", "instruction": "Answer."}, **paths, **MASKED))
    for name in paths:
        shown = tables.need(name).to_json()
        assert "example.com" not in shown and "[email]" in shown, name


def test_records_are_masked_by_value_and_held_to_their_schema(tmp_path: Path) -> None:
    row = {"text": "bob@example.com in Rome", "label": {"city": "bob@example.com", "unit": "a\nbob@example.com"}}
    label = gate(tmp_path / "t.jsonl", lines(row), RECORDS, **MASKED)["label"][0]
    assert json.loads(label) == {"city": "[email]", "unit": "a\n[email]"}


def test_a_window_of_traffic_is_masked_and_read_as_every_table_is(tmp_path: Path) -> None:
    (tmp_path / "window.csv").write_text("text,body\nwrong,mail eve@example.com please\n")
    (read,) = read_window(case(None, text_column="body", **MASKED), str(tmp_path / "window.csv"))
    assert list(read["text"]) == ["mail [email] please"]


NOTHING = ["\u200b", "\u200f \u2066\u2069", "\ufeff\u00ad", "\u2800", "\u3164", "\u00a0\u3000"]


@pytest.mark.parametrize("blank", NOTHING)
def test_a_text_that_shows_nothing_is_empty_in_any_script(tmp_path: Path, blank: str) -> None:
    rows = [{"id": "a", "text": "x", "label": "y"}, {"id": "b", "text": "z", "label": "y"}]
    free = {"kind": "free_text", "instruction": "Answer."}
    for column in ("id", "text", "label"):
        spoilt = lines(rows[0], rows[1] | {column: blank})
        with pytest.raises(BadInput, match=rf"row 2: empty '{column}'"):
            gate(tmp_path / "t.jsonl", spoilt, free)
    with pytest.raises(BadInput, match=r"row 2: the expected answer .* is neither a text nor a list of texts"):
        gate(tmp_path / "t.jsonl", lines(rows[0], rows[1] | {"label": ["y", blank]}), free)


@pytest.mark.parametrize("seen", ["👨\u200d👩\u200d👧", ":)", "?", "क", "\u200fا", "🇩🇪", "1\ufe0f\u20e3"])
def test_a_text_with_anything_to_see_is_none(tmp_path: Path, seen: str) -> None:
    read = gate(tmp_path / "t.jsonl", lines({"text": seen, "label": seen}), {"kind": "free_text", "instruction": "A."})
    assert read["text"][0] == seen


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ('{"city": "Rome", "unit": "a", "city": "Bonn"}', "the field 'city' stands twice"),
        ('{"city": "Rome", "unit": {"a": 1, "a": 2}}', "the field 'a' stands twice"),
        (
            "{'city': 'Rome', 'unit': None}",
            r"\"\{'city': 'Rome', 'unit': None\}\" is no JSON, as task\.json_schema describes it",
        ),
        ('{"city": NaN, "unit": null}', r"is no JSON, as task\.json_schema describes it"),
    ],
)
def test_an_expected_record_that_may_be_read_two_ways_is_refused(tmp_path: Path, label: str, words: str) -> None:
    with pytest.raises(BadInput, match=rf"row 1: the expected record .*{words}; correct the row"):
        gate(tmp_path / "t.jsonl", lines({"text": "x", "label": label}), RECORDS)


def test_a_record_in_a_column_of_bytes_is_read_as_its_text(tmp_path: Path) -> None:
    record = '{"city": "Köln", "unit": null}'
    frame = pd.DataFrame({"text": ["x"], "label": [record.encode()]})
    assert gate(tmp_path / "t.parquet", frame, RECORDS)["label"][0] == record


def test_a_name_is_the_same_whether_a_column_of_floats_or_of_integers_holds_it(tmp_path: Path) -> None:
    rows = {"text": ["x", "y", "z"], "label": ["0", "1", "0"]}
    floats = pd.DataFrame(rows | {"id": [1.0, 2.0, None], "talk": [7.0, 8.0, None]})  # as pandas keeps 7, 8 and nothing
    read = gate(tmp_path / "t.parquet", floats, split_by="talk")
    assert list(read["id"][:2]) == ["1", "2"] and list(read[UNIT]) == ["7", "8", "row 2"]
    dev = pd.DataFrame({"text": ["a", "b"], "label": ["0", "1"], "id": [5, 6], "talk": [9, 8]})
    dev.to_parquet(tmp_path / "dev.parquet")
    data = {"gate": str(tmp_path / "t.parquet"), "dev": str(tmp_path / "dev.parquet"), "split_by": "talk"}
    with pytest.raises(BadInput, match=r"data\.split_by: talk '8' is both in data\.dev and data\.gate"):
        Tables(case(None, **data)).check()


# -- what is held out --------------------------------------------------------------------------------------------------

DECLINING = {"instruction": "Answer.", "labels": ["0", "1"], "decline_label": "none"}


def test_labels_to_hold_out_that_no_row_has_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    rows = [{"text": f"t{at}", "label": str(at % 2)} for at in range(4)]
    (tmp_path / "t.jsonl").write_text(lines(*rows))
    tables = Tables(case(DECLINING, gate=str(tmp_path / "t.jsonl"), held_out_labels=["Weather"]))
    with pytest.raises(BadInput, match=r"data\.out_of_scope: nothing to decline.*\(Weather\).*correct the labels"):
        tables.check()


def test_a_table_of_nothing_but_labels_to_hold_out_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"t{at}", "label": "weather"} for at in range(4)]
    (tmp_path / "t.jsonl").write_text(lines(*rows))
    tables = Tables(case(DECLINING, gate=str(tmp_path / "t.jsonl"), held_out_labels=["weather"]))
    with pytest.raises(BadInput, match=r"data\.gate: has no row but those of data\.held_out_labels"):
        tables.check()


def test_a_row_held_out_of_a_group_of_the_gate_may_stay_beside_it(tmp_path: Path) -> None:
    rows = [{"text": f"t{at}", "label": ("0", "1", "weather")[at % 3], "talk": at // 3} for at in range(9)]
    (tmp_path / "t.jsonl").write_text(lines(*rows))
    data = {"gate": str(tmp_path / "t.jsonl"), "held_out_labels": ["weather"], "split_by": "talk"}
    Tables(case(DECLINING, **data)).check()


# -- leaks -------------------------------------------------------------------------------------------------------------

APART = [
    *(("train", other) for other in ("dev", "gate", "test", "shifted", "traffic")),
    *(("dev", other) for other in ("gate", "test", "shifted", "traffic")),
    ("gate", "test"),
    *(("unlabelled", other) for other in ("gate", "test", "shifted", "out_of_scope")),
    *((other, "out_of_scope") for other in ("train", "dev", "gate", "out_of_scope_dev")),
]


def split_tables(folder: Path, first: str, one: str, second: str, other: str) -> Tables:
    names = {"gate", first, second}
    for name in names:
        rows = [{"text": f"{name} own {at}", "label": "0"} for at in range(3)]
        rows += [{"text": one, "label": "0"}] * (name == first) + [{"text": other, "label": "1"}] * (name == second)
        (folder / f"{name}.jsonl").write_text(lines(*rows))
    return Tables(case(None, **{name: str(folder / f"{name}.jsonl") for name in names}))


@pytest.mark.parametrize(("first", "second"), APART)
def test_every_pair_that_matters_is_checked_for_leaks(tmp_path: Path, first: str, second: str) -> None:
    with pytest.raises(BadInput, match=rf"data\.{second}: 1 texts are in data\.{first} too.*row 4"):
        split_tables(tmp_path, first, "The pump, again!", second, "the PUMP again").check()


def test_traffic_that_is_nothing_but_a_replay_of_dev_is_let_through(tmp_path: Path) -> None:
    tables = split_tables(tmp_path, "dev", "x", "gate", "y")
    tables = Tables(
        case(None, gate=tables.use_case.data.gate, dev=tables.use_case.data.dev, traffic=tables.use_case.data.dev)
    )
    tables.check()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (":)", ":("),
        ("😀", "😡"),
        ("great :)", "great :("),
        ("C++", "C#"),
        ("it was 1.5", "it was 15"),
        ("-3", "3"),
        ("किताब", "कतब"),
        ("5%", "5"),
        ("x < 5", "x > 5"),
        ("🏳️‍🌈", "🏳️"),
        ("A+", "A"),
        ("!!!", "???"),
        ("10²", "102"),
    ],
)
def test_what_means_something_is_no_leak(tmp_path: Path, one: str, other: str) -> None:
    split_tables(tmp_path, "train", one, "gate", other).check()
    assert near_duplicates([one, other]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("ＡＢＣ １", "abc 1"),
        ("a  b", "A\u200b b!"),
        ("“so”", '"so"'),
        ("I ❤️ it", "i ❤ it"),
        ("今天天气很好。", "今天天气很好"),
        ("well-known", "well known"),
        ("ﬁne", "fine"),
        ("don’t", "don't"),
        ("العـــربية", "العربية"),
    ],
)
def test_what_is_only_written_otherwise_is_the_same_text(tmp_path: Path, one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    with pytest.raises(BadInput, match=r"1 texts are in data\.train too"):
        split_tables(tmp_path, "train", one, "gate", other).check()


@pytest.mark.parametrize(
    "text",
    [
        "我昨天在你们网站上买了一个蓝色的热水壶收到以后发现壶盖已经裂开而且电源线也不能用请问可以退货吗谢谢",
        "ฉันซื้อกาต้มน้ำสีฟ้าจากเว็บไซต์ของคุณเมื่อวานนี้แต่ฝาแตกและสายไฟใช้ไม่ได้กรุณาคืนเงินด้วย",
        "اشتريت أمس غلاية زرقاء من موقعكم وعندما وصلت وجدت أن الغطاء مكسور وأن السلك لا يعمل فهل يمكن إرجاعها شكرا",
        "昨日御社のサイトで青い電気ケトルを買いましたが届いたら蓋が割れていて電源コードも使えません返品できますか",
    ],
)
def test_near_duplicates_are_found_in_any_script(text: str) -> None:
    (pair,) = near_duplicates([text, "something else entirely, in another script", f"{text[:-2]}!"])
    assert (pair.one, pair.other) == (0, 2) and pair.similarity >= 0.8
    assert near_duplicates([text, text[len(text) // 2 :] + "x" * 9]) == []


# -- scale -------------------------------------------------------------------------------------------------------------

LONG = """
import resource, sys
from leastwise.rows.tables import UNIT, Tables
from tests.rows.test_reading import case
data = {"time_column": "at"}
def tables(traffic):
    use_case = case(None, gate=sys.argv[1], traffic=traffic, train=sys.argv[3], **data)
    caching = use_case.caching.model_copy(update={"replay_requests": 100_000})
    return Tables(use_case.model_copy(update={"caching": caching}))
tables(sys.argv[2]).check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
long = tables(sys.argv[4])
long.check()
print(len(long.need("traffic")), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_long_traffic_is_read_and_checked_in_a_few_times_the_size_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "gate.csv").write_text("text,label\ngate,0\n")
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"train {at},0\n" for at in range(1000)))
    words = "the request that came with a number and some more words than that"
    for name, rows in (("short", 10), ("long", 40_000)):
        body = "".join(f"{at},{at} {words} {at * 7},0,{1_700_000_000 + at}\n" for at in range(rows))
        (tmp_path / f"{name}.csv").write_text("id,text,label,at\n" + body)
    paths = [str(tmp_path / f"{name}.csv") for name in ("gate", "short", "train", "long")]
    run = subprocess.run(
        [sys.executable, "-c", LONG, *paths],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    rows, more_bytes = map(int, run.stdout.split())
    print(f"{more_bytes / (tmp_path / 'long.csv').stat().st_size:.1f} times the file")
    assert rows == 40_000 and more_bytes < 12 * (tmp_path / "long.csv").stat().st_size


# -- the use case's file -----------------------------------------------------------------------------------------------

FILE = """name: one
task: {instruction: x, labels: [a, b]}
data: {gate: gate.csv}
requirements:
  quality: {bound: 0.9, margin: 0.1}
traffic: {requests_per_month: 10}
models: {candidates: [{uri: "openai:m"}]}
allow_no_test: true
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("allow_no_test", "name: two\nallow_no_test", "line 8: the key 'name' stands twice, in lines 1 and 8"),
        ("margin: 0.1}", "margin: 0.1, bound: 0.5}", "line 5: the key 'bound' stands twice"),
        ('{uri: "openai:m"}', '{uri: "openai:m", "uri": x}', "line 7: the key 'uri' stands twice"),
        ("bound: 0.9", "bound: .nan", r"line 5: \.nan is no number"),
        ("[a, b]", "[yes, no]", "task.labels.0: YAML reads True as no text; write it in quotes"),
        ("[a, b]", "&a [*a]", "line 2: holds itself"),
        ("name: one", "name: 2026-13-01", "is not YAML: month must be"),
        ("name: one", "name: [" + "[" * 700, "nested too deep"),
        ("name: one", "name: \udcff", "is not YAML"),
        (
            "labels: [a, b]",
            "kind: extraction, json_schema: {type: object, properties: {a: {$ref: '#/$defs/b'}}}",
            r"task\.json_schema: refers to #/\$defs/b at \$\.properties\.a, and there is no such definition",
        ),
        (
            "labels: [a, b]",
            "kind: extraction, json_schema: {type: object, properties: {no: {type: string}}}",
            r"json_schema\.properties: the name False is no text",
        ),
        ("[a, b]", '["a", "a "]', "cannot be told apart"),
    ],
)
def test_what_is_wrong_with_a_use_case_is_said_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    (tmp_path / "case.yaml").write_bytes(FILE.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=rf"case\.yaml: .*{words}"):
        load(str(tmp_path / "case.yaml"))
