"""What people have is read by its shape: text, expected answer, split and group where they are, whatever it lies in."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import Columns, Plain
from leastwise.rows.sources.reading import read

PAIRS = [("café, open?", "hours"), ('say "hi"', "greeting"), ("a;b", "other"), ("line\none", "other")]


def lines(*records: Any) -> str:
    return "\n".join(json.dumps(record) for record in records) + "\n"


def one(folder: Path, name: str, body: str | bytes, **columns: str) -> Plain:
    file = folder / name
    file.write_bytes(body if isinstance(body, bytes) else body.encode())
    (plain,) = read([str(file)], Columns(**columns))
    return plain


def pairs(plain: Plain) -> list[tuple[str, str]]:
    return list(zip(plain.rows["text"], plain.rows["label"], strict=True))


def csv_of(delimiter: str, quote: str = '"', end: str = "\n", escape: str = "") -> str:
    doubled = escape + quote if escape else quote * 2
    rows = [("text", "label"), *PAIRS]
    cells = [[f"{quote}{cell.replace(quote, doubled)}{quote}" for cell in row] for row in rows]
    return end.join(delimiter.join(row) for row in cells) + end


DIALECTS: dict[str, bytes] = {
    "comma": csv_of(",").encode(),
    "semicolon": csv_of(";").encode(),
    "tab": csv_of("\t").encode(),
    "bar": csv_of("|").encode(),
    "single quotes": csv_of(",", quote="'").encode(),
    "escaped quotes": csv_of(",", escape="\\").encode(),
    "lines of Windows": csv_of(",", end="\r\n").encode(),
    "byte-order mark": csv_of(",").encode("utf-8-sig"),
    "UTF-16": csv_of(",").encode("utf-16"),
    "UTF-16 big": b"\xfe\xff" + csv_of(";").encode("utf-16-be"),
    "Windows-1252": csv_of(";").encode("cp1252"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_csv_says_the_same_in_any_usual_dialect(tmp_path: Path, dialect: str) -> None:
    assert pairs(one(tmp_path, "rows.csv", DIALECTS[dialect])) == PAIRS


def test_a_csv_without_a_header_is_read_from_its_first_row(tmp_path: Path) -> None:
    rows = [(f"what is number {n} of them", f"kind {n % 3}") for n in range(30)]
    plain = one(tmp_path, "rows.csv", "\n".join(",".join(row) for row in rows))
    assert pairs(plain) == rows and "no header" in plain.settings["written"]


def test_a_row_with_a_cell_too_few_is_named_with_all_others(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rows 3, 5: not the 2 cells"):
        one(tmp_path, "rows.csv", "text,label\na,b\nc\nd,e\nf,g,h\n")


def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(PAIRS, columns=["text", "label"])
    frame.to_parquet(tmp_path / "rows.parquet")
    bodies = {
        "rows.tsv": csv_of("\t"),
        "rows.jsonl": lines(*frame.to_dict("records")),
        "array.json": json.dumps(frame.to_dict("records")),
        "splits.json": json.dumps({"train": PAIRS[:2], "oos_test": PAIRS[2:]}),
        "within.json": json.dumps({"data": frame.to_dict("records")}),
    }
    for name, body in bodies.items():
        assert pairs(one(tmp_path, name, body)) == PAIRS, name
    assert pairs(read([str(tmp_path / "rows.parquet")], Columns())[0]) == PAIRS


@pytest.mark.parametrize(("name", "remedy"), [("rows.xlsx", "as CSV"), ("rows.csv.gz", "unpack"), ("rows.doc", "kind")])
def test_a_file_that_is_not_read_says_what_to_do(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(BadInput, match=remedy):
        one(tmp_path, name, b"PK")


COLUMNS: dict[str, tuple[dict[str, list[Any]], str, str]] = {
    "by name": ({"id": [1, 2], "utterance": ["a b", "c d"], "intent": ["x", "y"]}, "utterance", "intent"),
    "by a word of it": ({"ticket_text": ["a b", "c d"], "correctLabel": ["x", "y"]}, "ticket_text", "correctLabel"),
    "names beside numbers": ({"text": ["a b", "c d"], "label": [0, 1], "label_text": ["x", "y"]}, "text", "label_text"),
    "by what they hold": (
        {"a": [f"{n} the words of it" for n in range(12)], "b": ["x", "y"] * 6, "c": list(range(12))},
        "a",
        "b",
    ),
    "pairs for training": ({"input": ["a b", "c d"], "output": ["x", "y"]}, "input", "output"),
    "question and answer": ({"question": ["a b", "c d"], "answer": ["x", "y"]}, "question", "answer"),
}


@pytest.mark.parametrize("how", COLUMNS)
def test_columns_are_found_and_shown(tmp_path: Path, how: str) -> None:
    columns, text, label = COLUMNS[how]
    rows = pd.DataFrame(columns).to_dict("records")
    plain = one(tmp_path, "rows.jsonl", lines(*rows))
    assert (plain.chosen["text"], plain.chosen["label"]) == (text, label)


def test_the_column_that_is_named_is_taken_and_several_are_put_together(tmp_path: Path) -> None:
    body = lines({"subject": "s", "body": "b", "team": "t", "topic": "o"})
    plain = one(tmp_path, "rows.jsonl", body, text_column="subject+body", label_column="topic")
    assert pairs(plain) == [("s\nb", "o")]
    with pytest.raises(BadInput, match="--label-column"):
        one(tmp_path, "rows.jsonl", body, label_column="queue")
    with pytest.raises(BadInput, match="--split-by"):
        one(tmp_path, "rows.jsonl", body, split_by="customer")


def test_two_columns_that_could_each_be_the_answer_are_asked_about(tmp_path: Path) -> None:
    rows = [{"text": f"{n} words", "one": "ab"[n % 2], "two": "cd"[n // 2 % 2]} for n in range(20)]
    with pytest.raises(BadInput, match="'one' and 'two'"):
        one(tmp_path, "rows.jsonl", lines(*rows))


def test_numbers_that_are_labels_are_texts(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, 2.0, None]})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert list(read([str(tmp_path / "rows.parquet")], Columns())[0].rows["label"]) == ["1", "2", None]


CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': billing
          '1': login
---
# A set
"""


@pytest.mark.parametrize("names", ["README.md", "dataset_infos.json"])
def test_a_data_sets_folder_has_splits_of_its_files_and_names_of_its_card(tmp_path: Path, names: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, numbers in (("train", [0, 1]), ("validation", [1, 1]), ("test", [-1, -1])):
        frame = pd.DataFrame({"text": [f"{split} a", f"{split} b"], "label": numbers})
        frame.to_parquet(data / f"{split}-00000-of-00001.parquet")
    features = {"label": {"names": ["billing", "login"], "_type": "ClassLabel"}}
    said = CARD if names == "README.md" else json.dumps({"default": {"features": features}})
    (tmp_path / names).write_text(said)
    plains = read([str(tmp_path)], Columns())
    found = {plain.rows["split"][0]: list(plain.rows["label"]) for plain in plains}
    assert found == {"train": ["billing", "login"], "validation": ["login", "login"], "test": [None, None]}


def test_a_folder_of_several_data_sets_is_asked_about(tmp_path: Path) -> None:
    for name in ("plain", "more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(BadInput, match="several data sets"):
        read([str(tmp_path)], Columns())


def chat(system: str, user: str, answer: str) -> dict[str, Any]:
    said = [("system", system), ("user", user), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in said if content]}


def test_of_chats_the_last_answer_is_expected_and_a_shared_system_message_is_the_instruction(tmp_path: Path) -> None:
    plain = one(tmp_path, "chats.jsonl", lines(chat("Route it.", "a", "x"), chat("Route it.", "b", "y")))
    assert pairs(plain) == [("a", "x"), ("b", "y")] and plain.instruction == "Route it."
    differing = one(tmp_path, "chats.jsonl", lines(chat("In German.", "a", "x"), chat("In French.", "b", "y")))
    assert pairs(differing)[0] == ("In German.\n\na", "x") and not differing.instruction


def test_a_chat_of_several_turns_is_asked_with_all_that_was_said(tmp_path: Path) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    said = {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]}
    assert pairs(one(tmp_path, "chats.jsonl", lines(said))) == [("user: a\nanswer: b\nuser: c", "d")]


PROMPTFOO = """
prompts: ["Route: {{message}}"]
defaultTest: {vars: {language: en}}
tests:
  - vars: {message: where is my parcel}
    assert: [{type: equals, value: delivery}, {type: latency, threshold: 100}]
  - vars: {message: let me in}
    assert: [{type: llm-rubric, value: is polite}]
  - vars: {message: refund}
    assert: [{type: contains-any, value: [refund, billing]}]
"""


def test_of_promptfoo_only_assertions_that_name_an_answer_count_and_the_others_are_told(tmp_path: Path) -> None:
    plain = one(tmp_path, "promptfooconfig.yaml", PROMPTFOO)
    assert pairs(plain) == [
        ("where is my parcel", "delivery"),
        ("let me in", None),
        ("refund", '["refund", "billing"]'),
    ]
    assert plain.notes == ("assertions that name no right answer are left out: latency 1, llm-rubric 1",)


def test_of_promptfoos_csv_what_is_expected_may_name_its_check(tmp_path: Path) -> None:
    body = "question,__expected,__description\na,x,1\nb,contains: y,2\nc,javascript: output.length,3\nd,is-json,\n"
    assert pairs(one(tmp_path, "tests.csv", body)) == [("a", "x"), ("b", "y"), ("c", None), ("d", None)]


SHAPES: dict[str, tuple[str, list[tuple[str, str | None]]]] = {
    "OpenAI evals (item)": (
        lines(
            {"item": {"ticket_text": "a", "correct_label": "x"}}, {"item": {"ticket_text": "b", "correct_label": "y"}}
        ),
        [("a", "x"), ("b", "y")],
    ),
    "OpenAI evals (input, ideal)": (
        lines(
            {"input": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "ideal": "x"},
            {"input": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}], "ideal": ["y", "z"]},
        ),
        [("a", "x"), ("b", '["y", "z"]')],
    ),
    "Langfuse": (
        lines(
            {"id": "1", "input": {"query": "a"}, "expectedOutput": {"label": "x"}, "metadata": {"customer": 7}},
            {"id": "2", "input": "b", "expectedOutput": None, "metadata": {}},
        ),
        [("a", "x"), ("b", None)],
    ),
    "MLflow": (
        lines(
            {"inputs": {"question": "a"}, "expectations": {"expected_response": "x", "guidelines": "short"}},
            {"inputs": {"messages": [{"role": "user", "content": "b"}]}, "expectations": {"city": "Rome", "zip": "1"}},
        ),
        [("a", "x"), ("b", '{"city": "Rome", "zip": "1"}')],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_export_is_known_by_its_fields(tmp_path: Path, shape: str) -> None:
    body, expected = SHAPES[shape]
    plain = one(tmp_path, "rows.jsonl", body)
    assert (plain.shape, pairs(plain)) == (shape, expected)


def test_langfuses_csv_says_the_same_as_its_json_and_groups_by_metadata(tmp_path: Path) -> None:
    body = 'id,input,expectedOutput,metadata\n1,"{""query"": ""a""}",x,"{""customer"": 7}"\n2,b,y,\n'
    plain = one(tmp_path, "export.csv", body, split_by="customer")
    assert pairs(plain) == [("a", "x"), ("b", "y")] and list(plain.rows["group"]) == ["7", None]


def test_a_record_of_several_fields_that_nobody_knows_is_asked_about_and_named(tmp_path: Path) -> None:
    body = lines({"inputs": {"foo": "a", "bar": "b"}, "expectations": {"label": "x"}})
    with pytest.raises(BadInput, match="foo, bar; name the one that is asked by --text-column"):
        one(tmp_path, "rows.jsonl", body)
    assert pairs(one(tmp_path, "rows.jsonl", body, text_column="inputs.bar")) == [("b", "x")]


def test_what_is_wrong_with_several_sources_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    sources = [str(tmp_path / "absent.csv"), str(tmp_path / "empty.csv"), str(tmp_path / "sheet.xlsx")]
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    with pytest.raises(BadInput, match="3 things must be put right"):
        read(sources, Columns())


NEARLY: dict[str, Callable[[], str]] = {
    "no list of messages": lambda: lines({"messages": "hello"}),
    "an item that is a text": lambda: lines({"item": "hello"}),
    "YAML that is no promptfoo": lambda: "name: x\nvalue: 3\n",
    "promptfoo with its tests elsewhere": lambda: "tests: file://tests.csv\n",
}


@pytest.mark.parametrize("what", NEARLY)
def test_what_is_nearly_of_a_shape_is_refused_with_its_place(tmp_path: Path, what: str) -> None:
    name = "rows.yaml" if "promptfoo" in what else "rows.jsonl"
    with pytest.raises(BadInput, match=name):
        one(tmp_path, name, NEARLY[what]())


def test_several_right_answers_as_squad_writes_them_are_a_list(tmp_path: Path) -> None:
    held = {"question": "where", "answers": {"text": ["Rome", "Rome", "in Rome"], "answer_start": [1, 1, 2]}}
    assert pairs(one(tmp_path, "rows.jsonl", lines(held, held)))[0] == ("where", '["Rome", "in Rome"]')


cells = st.text(alphabet=st.sampled_from("ab\",;\t'\\|\n\r{}[]:é \x00"), max_size=12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl", "rows.json", "rows.yaml"]),
    st.binary(max_size=60)
    | st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map("\n".join).map(str.encode),
)
def test_whatever_a_file_holds_it_is_read_or_refused_by_its_name(tmp_path: Path, name: str, body: bytes) -> None:
    try:
        plain = one(tmp_path, name, body)
    except BadInput as refused:
        assert name in str(refused)
    else:
        assert len(plain.rows)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([("item",), ("messages",), ("input", "ideal"), ("inputs", "expectations"), ("text", "label")]),
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "text", "a"]), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        min_size=2,
        max_size=8,
    ),
)
def test_whatever_the_fields_of_an_export_hold_they_are_read_or_refused(
    tmp_path: Path, fields: tuple[str, ...], values: list[Any]
) -> None:
    records = [dict(zip(fields, [values[at], values[-at]], strict=False)) for at in range(len(values))]
    with contextlib.suppress(BadInput):
        assert len(one(tmp_path, "rows.jsonl", lines(*records)).rows) == len(records)


def test_tests_of_promptfoo_in_other_files_are_read_from_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "b.csv").write_text('q,__expected\nwho,"equals: ann"\nwhere,rome\n')
    (tmp_path / "cases" / "c.yaml").write_text("- {vars: {q: when}, assert: [{type: contains, value: noon}]}\n")
    (tmp_path / "d.jsonl").write_text(lines({"vars": {"q": "why"}, "assert": [{"type": "equals", "value": "so"}]}))
    body = "tests:\n- {vars: {q: what}, assert: [{type: equals, value: this}]}\n- file://cases/*\n- d.jsonl\n"
    plain = one(tmp_path, "promptfooconfig.yaml", body)
    assert pairs(plain) == [("what", "this"), ("who", "ann"), ("where", "rome"), ("when", "noon"), ("why", "so")]
    assert plain.rows["at"].iloc[2].endswith("b.csv: test 2")
    assert pairs(one(tmp_path, "all.yaml", "tests: file://cases/b.csv\n")) == [("who", "ann"), ("where", "rome")]


def test_tests_of_promptfoo_elsewhere_or_in_code_are_refused_all_at_once_and_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "out.csv").write_text("q,__expected\nwho,ann\n")
    (tmp_path / "inner" / "link.csv").symlink_to(tmp_path / "out.csv")
    (tmp_path / "inner" / "make.py").write_text("raise SystemExit")
    (tmp_path / "inner" / "bare.yaml").write_text("- {question: who}\n")
    named = ["file://../out.csv", "link.csv", "/etc/hostname", "https://example.org/a.csv", "file://make.py"]
    named += ["huggingface://datasets/a", "absent.csv", "../*.csv", "bare.yaml", "a\0b.csv"]
    body = json.dumps({"tests": named})
    (tmp_path / "inner" / "p.yaml").write_text(body)
    with pytest.raises(BadInput, match=f"{len(named)} things must be put right"):
        read([str(tmp_path / "inner" / "p.yaml")], Columns())


def test_an_answer_of_promptfoo_that_lies_in_a_file_is_none(tmp_path: Path) -> None:
    tests = [{"vars": {"q": "who"}, "assert": [{"type": "equals", "value": "file://answer.txt"}]}]
    plain = one(tmp_path, "p.yaml", json.dumps({"tests": tests}))
    assert pairs(plain) == [("who", None)] and "equals in a file 1" in plain.notes[0]
    with pytest.raises(BadInput, match="defaultTest lies in another file"):
        one(tmp_path, "p.yaml", json.dumps({"tests": tests, "defaultTest": "file://d.yaml"}))


def test_utf_8_with_a_damaged_byte_is_not_read_as_an_older_encoding(tmp_path: Path) -> None:
    body = "text,label\n" + "".join(f"café {n},a\n" for n in range(20))
    with pytest.raises(BadInput, match=r"line 22: byte \d+ is no UTF-8, and the rest is"):
        one(tmp_path, "rows.csv", body.encode() + b"caf\xc3,b\n")
    assert one(tmp_path, "rows.csv", body.encode("cp1252")).rows["text"][0] == "café 0"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_without_a_mark_too(tmp_path: Path, encoding: str) -> None:
    assert pairs(one(tmp_path, "rows.csv", csv_of(";").encode(encoding))) == PAIRS


def test_several_tables_are_read_each_by_its_own_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;Utterance;Intent\n1;hello there;greet\n2;bye now;leave\n")
    (tmp_path / "b.jsonl").write_text(lines({"text": "see you", "label": "leave"}))
    pd.DataFrame({"message": ["good day"], "queue": ["greet"], "priority": [1]}).to_parquet(tmp_path / "c.parquet")
    held = read([str(tmp_path / name) for name in ("a.csv", "b.jsonl", "c.parquet")], Columns())
    assert [pair for plain in held for pair in pairs(plain)] == [
        ("hello there", "greet"),
        ("bye now", "leave"),
        ("see you", "leave"),
        ("good day", "greet"),
    ]
