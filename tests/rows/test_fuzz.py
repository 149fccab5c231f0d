"""Whatever is done to a table or a use case: it is read with the values it holds, or refused by file, row or field.

`make soak` tries 2,000 corruptions of each (LEASTWISE_CORRUPTIONS).
"""

import csv
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.metrics.task_metric import metric_of
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.use_case import UseCase

CORRUPTIONS = int(os.environ.get("LEASTWISE_CORRUPTIONS", "250"))
TRIED = settings(
    max_examples=CORRUPTIONS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
LABELS = ("C", "C++", "0", "1", "true", "naïve")
LOOKS_LIKE = [
    "NA",
    "null",
    "None",
    "nan",
    "007",
    "1e5",
    "-1",
    "true",
    "=1+1",
    "[1, 2]",
    '{"a": 1}',
    "2026-01-01",
    "１２",
]
HARD_TO_WRITE = [
    "",
    " ",
    "a,b",
    'say "yes"',
    "two\nlines",
    "semi;colon",
    "a\tb",
    "'",
    "nul\0",
    "\ud800half",
    "x" * 5000,
]
UNSEEN = ["e\u0301", "\ufeffmark", "zero\u200bwidth", "\u202eleft", "😀 smile", "\x07bell", "\u2028line"]
ODD_TEXT = st.sampled_from([*LOOKS_LIKE, *HARD_TO_WRITE, *UNSEEN])
ODD_VALUE = st.one_of(
    ODD_TEXT,
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([[], ["a"], {}, {"a": 1}, [[[]]], 10**400]),
)
NAMES = st.sampled_from(["id", "text", "label", "Text", "text ", "", "extra", "label_text", "NULL"])


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    texts = draw(st.lists(st.one_of(st.text(min_size=1, max_size=20), ODD_TEXT), min_size=1, max_size=6))
    labels = st.sampled_from(LABELS)
    return [{"id": f"r{at}", "text": text, "label": draw(labels)} for at, text in enumerate(texts)]


def _as_csv(rows: list[dict[str, Any]], separator: str = ",", end: str = "\n") -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(names)
    writer.writerows([[_shown(row.get(name)) for name in names] for row in rows])
    return out.getvalue().encode("utf-8", "surrogatepass")


def _as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    names, out = dict.fromkeys(name for row in rows for name in row), io.BytesIO()
    pd.DataFrame({name: [row.get(name) for row in rows] for name in names}).to_parquet(out, index=False)
    return out.getvalue()


WRITERS = {"csv": _as_csv, "jsonl": _as_lines, "parquet": _as_parquet}


def _shown(value: Any) -> str | None:
    """A value as text; None where it is missing."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (list, dict)) else repr(value)


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


@st.composite
def changed_rows(draw: st.DrawFn, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a few cells, columns or rows not as they should be."""
    rows = [dict(row) for row in rows]
    for _ in range(draw(st.integers(0, 2))):
        kind, at = draw(st.sampled_from(["cell", "column", "drop", "add", "twice", "short"])), draw(st.integers(0, 5))
        row, name = rows[at % len(rows)], draw(st.sampled_from(["id", "text", "label"]))
        if kind == "cell":
            row[name] = draw(ODD_VALUE)
        elif kind == "twice":
            rows.append(dict(row))
        elif kind == "short":
            row.pop(name, None)
        elif kind == "add":
            new = draw(NAMES)
            rows = [{**each, new: each.get(new, draw(ODD_VALUE))} for each in rows]
        else:
            new = draw(NAMES) if kind == "column" else None
            rows = [{(new if key == name else key): value for key, value in each.items()} for each in rows]
            rows = [{key: value for key, value in each.items() if key is not None} for each in rows]
    return rows


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    kind, at = (
        draw(st.sampled_from(["flip", "cut", "insert", "repeat", "utf-16", "latin-1"])),
        draw(st.integers(0, 10**6)),
    )
    at %= max(len(data), 1)
    if kind == "flip":
        return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at:]
    if kind == "repeat":
        return data[:at] + data
    return data.decode("utf-8", "replace").encode(kind, "replace")


def _case(folder: Path, gate: str) -> UseCase:
    raw = {
        "name": "fuzzed",
        "task": {"instruction": "Answer.", "labels": list(LABELS)},
        "data": {"gate": str(folder / gate)},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:toy"}]},
        "allow_no_test": True,
    }
    return UseCase.model_validate(raw)


def _name(value: object, kind: str) -> str | None:
    """An id as it is meant: 7.0 of a table that has numbers is 7, as integers beside a missing value are kept."""
    is_whole = isinstance(value, float) and value.is_integer() and kind != "csv"
    return _shown(int(value) if isinstance(value, float) and is_whole else value)


def _read(folder: Path, name: str, data: bytes) -> pd.DataFrame | None:
    """The gate as it is read; None where it was refused by name."""
    (folder / name).write_bytes(data)
    tables = Tables(_case(folder, name))
    try:
        tables.check()
    except BadInput as error:
        assert name in str(error) or "data.gate" in str(error)
        assert re.search(r"row|line|column|empty|no rows|table|array|UTF-|texts", str(error)), str(error)
        return None
    return tables.need("gate")


@TRIED
@given(st.data())
def test_a_corrupted_table_is_read_with_the_values_it_holds_or_refused_by_row(
    tmp_path: Path, data: st.DataObject
) -> None:
    rows = data.draw(tables().flatmap(changed_rows))
    kind = data.draw(st.sampled_from(sorted(WRITERS)))
    try:
        written = WRITERS[kind](rows)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, ValueError):
        assume(False)
    written = data.draw(st.sampled_from([written, b"\xef\xbb\xbf" + written])) if kind != "parquet" else written
    read = _read(tmp_path, f"gate.{kind}", written)
    if read is None:
        return
    assert len(read) == len(rows)
    for row, (row_id, text, label) in zip(rows, read[["id", "text", "label"]].to_numpy().tolist(), strict=True):
        assert text == _shown(row["text"])
        assert label in LABELS and label.casefold() == (_shown(row["label"]) or "").casefold().removesuffix(".0")
        assert row_id == _name(row["id"], kind) if not _missing(row.get("id")) else row_id.startswith("text-")


@TRIED
@given(tables(), st.data())
def test_a_table_of_corrupted_bytes_is_read_as_another_reader_does_or_refused(
    tmp_path: Path, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    assume(not any("\ud800" in row["text"] for row in rows))
    kind = data.draw(st.sampled_from(sorted(WRITERS)))
    written = data.draw(changed_bytes(WRITERS[kind](rows)))
    named = data.draw(st.sampled_from([kind, kind, kind, *WRITERS]))
    read = _read(tmp_path, f"gate.{named}", written)
    if read is None or named == "parquet":
        return
    if named == "jsonl" and not written.lstrip(b"\xef\xbb\xbf \n\r\t").startswith(b"["):
        theirs = [json.loads(line) for line in written.decode("utf-8-sig").split("\n") if line.strip()]
        assert list(read["text"]) == [_shown(each["text"]) for each in theirs]
    if named == "csv":
        try:
            other = pd.read_csv(io.BytesIO(written), dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except ValueError:
            return
        assert list(read["text"]) == list(other["text"])


@given(
    st.lists(
        st.sampled_from(["a", "b;c", "d,e", "f\tg", 'h "i"', "j\nk", "007", "NA", "null"]), min_size=1, unique=True
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_good_table_is_the_same_in_every_format(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"id": str(at), "text": text, "label": "C++"} for at, text in enumerate(texts)]
    forms = {
        "a.csv": _as_csv(rows),
        "b.csv": _as_csv(rows, ";", "\r\n"),
        "c.csv": b"\xef\xbb\xbf" + _as_csv(rows, "\t"),
        "d.jsonl": _as_lines(rows) + b"\n\n",
        "e.jsonl": b"\xef\xbb\xbf" + json.dumps(rows).encode(),
        "f.parquet": _as_parquet(rows),
    }
    for name, data in forms.items():
        read = _read(tmp_path, name, data)
        assert read is not None and read[["id", "text", "label"]].to_dict("records") == rows, name


# -- use cases ---------------------------------------------------------------------------------------------------------

CASE: dict[str, Any] = {
    "name": "fuzzed",
    "description": "A case.",
    "task": {
        "kind": "extraction",
        "instruction": "Copy.",
        "json_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "price": {"$ref": "#/$defs/price"}},
            "required": ["city"],
            "$defs": {"price": {"type": ["number", "null"], "minimum": 0}},
        },
    },
    "data": {"gate": "gate.jsonl", "id_column": "id", "mask": ["email"], "population": "this_set"},
    "requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "adherence": {"bound": 0.9, "margin": 0.05}},
    "traffic": {"requests_per_month": 1000, "output_tokens": 60},
    "models": {"candidates": [{"uri": "openai:toy", "context_tokens": 4096, "price": {"input": 1.0, "output": 4.0}}]},
    "budget_usd": 5.0,
    "allow_no_test": True,
}
GATE = b'{"text": "mail ann@example.com", "label": {"city": "Rome", "price": null}}\n'
ODD_SETTING = st.one_of(
    ODD_VALUE.filter(lambda value: value != 10**400),
    st.sampled_from([math.inf, -1, 0, 1e308, 10**30, "../..", "~nobody/x", "s3://", "file:///", "a\nb", "${NOT_SET}"]),
    st.sampled_from(["#/$defs/none", "#", "https://example.com/schema", {"$ref": "#"}, {"type": "strin"}, {1: 2}]),
)


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in ((*at, key), *_places(each, (*at, key)))]


def _held(value: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        value = value[key]
    return value


@st.composite
def changed_cases(draw: st.DrawFn) -> tuple[bytes, tuple[Any, ...] | None, Any]:
    """A use case's file with something wrong, and where one setting is another: its place and value."""
    raw = json.loads(json.dumps(CASE))
    place = draw(st.sampled_from(_places(raw)))
    holder, key = _held(raw, place[:-1]), place[-1]
    kind, value = draw(st.sampled_from(["set", "drop", "rename", "nest", "text"])), None
    if kind == "set":
        value = holder[key] = draw(ODD_SETTING)
    elif kind == "drop":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["x", "", "Name", "kind", "gate"]))] = holder.pop(key)
    elif kind == "nest":
        holder[key] = draw(st.sampled_from([[holder[key]], {"x": holder[key]}]))
    try:
        written = yaml.safe_dump(raw, allow_unicode=True, sort_keys=False).encode()
    except (yaml.YAMLError, UnicodeEncodeError):
        assume(False)
    if kind == "text":
        written = draw(changed_bytes(written))
    return written, place if kind == "set" else None, value


@TRIED
@given(changed_cases())
def test_a_corrupted_use_case_is_read_as_it_stands_or_refused_by_field(
    tmp_path: Path, changed: tuple[bytes, tuple[Any, ...] | None, Any]
) -> None:
    written, place, value = changed
    (tmp_path / "gate.jsonl").write_bytes(GATE)
    (tmp_path / "case.yaml").write_bytes(written)
    try:
        case = load(str(tmp_path / "case.yaml"))
    except BadInput as error:
        assert "case.yaml" in str(error)
        return
    if place and isinstance(value, (int, float)) and place[0] != "task":
        held = _held(case.model_dump(mode="python"), place)
        assert held == (float(value) if isinstance(held, float) else value)  # 10**30 is no float: the nearest is held
    try:
        tables = Tables(case)
        tables.check()
        assert Question(case, tables).key
        metric_of(case.task)("{}", None)
    except BadInput as error:
        assert re.search(r"data\.|task\.|\.jsonl", str(error)), str(error)


@pytest.mark.parametrize("place", [place for place in _places(CASE) if isinstance(place[-1], str)], ids=str)
def test_a_key_written_twice_is_refused_with_its_line_at_any_depth(tmp_path: Path, place: tuple[Any, ...]) -> None:
    raw = json.loads(json.dumps(CASE))
    _held(raw, place[:-1])["TWICE"] = 1
    written = yaml.safe_dump(raw, sort_keys=False).replace("TWICE", str(place[-1]))
    (tmp_path / "case.yaml").write_text(written)
    with pytest.raises(BadInput, match=rf"case\.yaml: line \d+: the key '{re.escape(str(place[-1]))}' stands twice"):
        load(str(tmp_path / "case.yaml"))
