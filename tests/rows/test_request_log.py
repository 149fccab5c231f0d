"""An endpoint's log where a table is wanted: its requests, never what the champion said, whatever its parts are."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.question import Question
from leastwise.rows.reading.log_copies import with_copies, with_copies_of
from leastwise.rows.reading.request_log import COLUMNS, is_log, may_be_expected
from leastwise.rows.tables import TABLES, TIME, UNIT, Tables, window
from leastwise.use_case import UseCase

BEGIN = 1_790_000_000.0


def requests(count: int, day: int = 0, **changed: Any) -> pd.DataFrame:
    """Requests as an endpoint logs them, each text coming again after seven; the champion always says yes."""
    at = np.arange(count)
    frame = pd.DataFrame(
        {
            "time": BEGIN + 86_400 * day + at,
            "id": [f"q{day}-{n}" for n in at],
            "text": [f"asked {n % 7}" for n in at],
            "answer": "yes",
            "predicted_label": "yes",
            "status": 200,
            "confidence": 0.9,
            "latency_ms": 12.0,
            "input_tokens": 7,
            "cached_tokens": 0,
            "output_tokens": 1,
            "usd": 0.001,
            "version": "3",
            "alias": "champion",
            "candidate": "c0ffee",
            "trace_id": pd.Series([None] * count, dtype="str"),
        }
    )
    assert list(frame) == list(COLUMNS)
    return frame.assign(**changed)


def logged(folder: Path, **parts: pd.DataFrame) -> Path:
    """A log below `folder`, a part for each name, on a day each."""
    for day, (name, rows) in enumerate(parts.items()):
        path = folder / "log" / f"date=2026-11-{20 + day}" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path, index=False)
    return folder / "log"


def case(folder: Path, traffic: str | Path, label: str = "label", **changed: Any) -> UseCase:
    for name in ("gate", "train"):
        rows = pd.DataFrame({"id": [f"{name}{n}" for n in range(60)], "text": [f"{name} {n}" for n in range(60)]})
        rows.assign(**{label: "no", "who": "w"}).to_csv(folder / f"{name}.csv", index=False)
    data = {"gate": str(folder / "gate.csv"), "traffic": str(traffic), "label_column": label}
    return UseCase.model_validate(
        {
            "name": "logged",
            "task": {"instruction": "Say.", "labels": ["yes", "no"]},
            "data": data | changed,
            "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 1000},
            "models": {"candidates": [{"uri": "openai:toy"}]},
            "allow_no_test": True,
        }
    )


def read(use_case: UseCase) -> pd.DataFrame:
    tables = Tables(use_case)
    tables.check()
    return tables.need("traffic")


@pytest.mark.parametrize("label", ["label", "answer", "status", "candidate"])
def test_no_column_of_a_log_is_an_expected_answer_whatever_the_use_case_calls_its_own(
    tmp_path: Path, label: str
) -> None:
    rows = read(case(tmp_path, logged(tmp_path, a=requests(20)), label))
    assert rows["label"].isna().all() and list(rows["text"][:3]) == ["asked 0", "asked 1", "asked 2"]
    assert list(rows[TIME]) == list(BEGIN + np.arange(20.0)), "its times are when the requests came"


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("dropped", [[], ["time", "id", "status", "usd", "trace_id", "confidence"]])
def test_a_log_that_was_saved_again_is_one_still(tmp_path: Path, kind: str, dropped: list[str]) -> None:
    path = tmp_path / f"saved.{kind}"
    WRITERS[kind](requests(20).drop(columns=dropped), path)
    rows = read(case(tmp_path, path, "answer"))
    assert rows["label"].isna().all() and len(rows) == 20 and (TIME in rows) is not bool(dropped)


def test_a_column_that_somebody_added_to_a_log_is_what_they_expect(tmp_path: Path) -> None:
    added = requests(20).assign(label=["yes", "no"] * 10)
    assert list(read(case(tmp_path, logged(tmp_path, a=added)))["label"]) == ["yes", "no"] * 10
    assert may_be_expected("label", added.columns) and not may_be_expected("answer", added.columns)


def test_a_table_of_ones_own_with_a_column_answer_is_no_log(tmp_path: Path) -> None:
    own = pd.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "answer": ["yes", "no"], "version": 1, "time": 5.0})
    own.to_csv(tmp_path / "own.csv", index=False)
    assert not is_log(own.columns)
    rows = read(case(tmp_path, tmp_path / "own.csv", "answer"))
    assert list(rows["label"]) == ["yes", "no"] and TIME not in rows


def test_training_rows_of_a_log_need_labels_that_the_champion_did_not_give(tmp_path: Path) -> None:
    log = logged(tmp_path, a=requests(20).assign(text=[f"new {n}" for n in range(20)]))
    traffic = logged(tmp_path / "other", a=requests(5))
    with pytest.raises(BadInput, match=r"data\.train.*what a model answered is no expected answer"):
        Tables(case(tmp_path, traffic, "answer", train=str(log))).check()
    right = requests(20).assign(text=[f"new {n}" for n in range(20)], right="no")
    people = logged(tmp_path / "people", a=right)
    train = Tables(case(tmp_path, traffic, "right", train=str(people))).need("train")
    assert list(train["label"]) == ["no"] * 20


def test_graded_rows_of_a_log_keep_the_answers_that_people_graded(tmp_path: Path) -> None:
    graded = requests(20).assign(grade=0.5, alias=["champion", "shadow"] * 10)
    rows = Tables(case(tmp_path, logged(tmp_path, a=requests(5)), graded=str(logged(tmp_path / "g", a=graded)))).need(
        "graded"
    )
    assert len(rows) == 20 and set(rows["answer"]) == {"yes"} and rows["label"].isna().all()


def test_a_request_that_was_not_answered_is_a_request(tmp_path: Path) -> None:
    failed = requests(20).assign(status=[200, 502] * 10, answer=lambda each: each["answer"].where(each.index % 2 == 0))
    assert len(read(case(tmp_path, logged(tmp_path, a=failed)))) == 20


def test_what_a_challenger_was_asked_in_the_shadow_is_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = logged(tmp_path / "traffic", a=requests(20))
    shadow = logged(tmp_path / "shadows", a=requests(20).assign(alias="shadow"))
    shutil.copytree(shadow, tmp_path / "traffic" / "log-shadow")
    with pytest.raises(BadInput, match=r"asked in the shadow.*without -shadow"):
        read(case(tmp_path, shadow))
    assert len(read(case(tmp_path, tmp_path / "traffic"))) == len(read(case(tmp_path, log))) == 20


def test_the_logs_of_two_endpoints_are_not_one_traffic(tmp_path: Path) -> None:
    for name in ("routing", "addresses"):
        logged(tmp_path / name, a=requests(5))
        (tmp_path / "traffic").mkdir(exist_ok=True)
        (tmp_path / name / "log").rename(tmp_path / "traffic" / name)
    with pytest.raises(BadInput, match=r"logs of several endpoints \(addresses, routing\)"):
        read(case(tmp_path, tmp_path / "traffic"))


def test_a_log_beside_another_table_is_not_one_traffic(tmp_path: Path) -> None:
    log = logged(tmp_path, a=requests(5))
    (log / "mine.csv").write_text("id,text\n1,one\n")
    with pytest.raises(BadInput, match="an endpoint's log and some are not"):
        read(case(tmp_path, log))


def test_requests_that_cannot_be_asked_again_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    odd = requests(20).astype({"text": object})
    for at, text in {3: "\u200b \u2060", 5: "a\0b", 7: None, 9: "too long " * 9_000}.items():
        odd.loc[at, "text"] = text
    use_case = case(tmp_path, logged(tmp_path, a=requests(10, 1), b=odd))
    assert len(read(use_case)) == 26 and "4 requests cannot be asked again" in caplog.text
    copy = with_copies(use_case, TABLES, tmp_path / "home")
    assert copy != use_case and list(read(copy)["id"]) == list(read(use_case)["id"])
    recent = pd.concat(window(str(use_case.data.traffic), use_case.data, "window"))
    assert len(recent) == 27 and list(recent.index) == list(range(27))
    taught = Tables(case(tmp_path, use_case.data.traffic, unlabelled=str(use_case.data.traffic))).need("unlabelled")
    assert list(taught["id"]) == list(recent["id"])


# -- parts ------------------------------------------------------------------------------------------------------------


def older(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["trace_id", "candidate", "cached_tokens"])


MIXED: dict[str, pd.DataFrame] = {
    "an older part without a column": older(requests(10, 1)),
    "a later part with a column more": requests(10, 1).assign(region="eu"),
    "a part without rows": requests(0, 1),
    "whole numbers as times": requests(10, 1).astype({"time": "int64"}),
    "nothing but missing values in a column": requests(10, 1).assign(confidence=np.nan, answer=None),
}


@pytest.mark.parametrize("name", MIXED)
def test_parts_of_other_times_are_one_log(tmp_path: Path, name: str) -> None:
    other = MIXED[name]
    rows = read(case(tmp_path, logged(tmp_path, a=requests(10), b=other, c=requests(10, 2))))
    assert len(rows) == 20 + len(other) and rows["id"].is_unique and rows[TIME].is_monotonic_increasing
    recent = pd.concat(window(str(tmp_path / "log"), case(tmp_path, tmp_path / "log").data, "window"))
    assert len(recent) == len(rows)


def test_what_is_being_written_and_what_is_no_table_is_no_part(tmp_path: Path) -> None:
    log = logged(tmp_path, a=requests(10))
    use_case = case(tmp_path, log)
    before = Question(use_case, Tables(use_case)).key
    (log / "date=2026-11-20" / ".part-x1").mkdir()
    (log / "date=2026-11-20" / ".part-x1" / "b.parquet").write_bytes(b"PAR1 half of it")
    (log / "_SUCCESS").write_text("")
    assert len(read(use_case)) == 10 and Question(use_case, Tables(use_case)).key == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and then the disk was full PAR1"])
def test_a_part_that_is_broken_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    log = logged(tmp_path, a=requests(10))
    (log / "date=2026-11-21").mkdir()
    (log / "date=2026-11-21" / "b.parquet").write_bytes(content)
    with pytest.raises(BadInput, match=r"date=2026-11-21/b\.parquet: unreadable table.*or move it out of the folder"):
        read(case(tmp_path, log))


def test_a_row_that_cannot_be_read_is_named_with_its_part(tmp_path: Path) -> None:
    timeless = requests(10, 1).assign(time=np.nan)
    with pytest.raises(BadInput, match=r"'time' is no time.*in .*date=2026-11-21/b\.parquet"):
        read(case(tmp_path, logged(tmp_path, a=requests(10), b=timeless)))
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(BadInput, match="10 of 20 rows are in tables that do not say when"):
        read(case(tmp_path, logged(tmp_path, a=requests(10), b=requests(10, 1).drop(columns="time"))))


def test_an_empty_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "log" / "date=2026-11-20").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"a folder without a table.*a minute after its first request"):
        read(case(tmp_path, tmp_path / "log"))
    with pytest.raises(BadInput, match="no rows"):
        read(case(tmp_path, logged(tmp_path, a=requests(0))))


def test_a_window_of_days_is_a_part_of_the_log(tmp_path: Path) -> None:
    log = logged(tmp_path, a=requests(10), b=requests(12, 1))
    assert len(read(case(tmp_path, log / "date=2026-11-21"))) == 12


def test_a_log_knows_no_units_so_each_request_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rows = read(case(tmp_path, logged(tmp_path, a=requests(20), b=requests(20, 1)), unit_by="who"))
    assert rows[UNIT].is_unique and "no column 'who' (data.unit_by), so each request counts" in caplog.text


# -- expected answers of some rows ------------------------------------------------------------------------------------


def some(labels: list[Any], **columns: Any) -> pd.DataFrame:
    at = range(len(labels))
    return pd.DataFrame({"id": [f"t{n}" for n in at], "text": [f"t {n}" for n in at], "label": labels, **columns})


@pytest.mark.parametrize("missing", [None, "", " ", float("nan"), "\u200b"])
@pytest.mark.parametrize("kind", WRITERS)
def test_of_partly_labelled_traffic_no_label_counts_and_it_is_said(
    tmp_path: Path, kind: str, missing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    labels = pd.Series(["yes", missing, "no"] * 10, dtype=object)
    WRITERS[kind](some(list(labels.where(labels.map(lambda each: each == each), None))), tmp_path / f"t.{kind}")
    use_case = case(tmp_path, tmp_path / f"t.{kind}")
    assert read(use_case)["label"].isna().all()
    assert "10 of 30 requests have no expected answer, so those of the others are not used" in caplog.text
    question = Question(use_case, Tables(use_case))
    assert not question.traffic.is_scored and question.judged_beside_traffic is not None


def test_a_label_that_is_given_must_be_one_of_the_tasks(tmp_path: Path) -> None:
    some(["yes", None, "perhaps"]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="row 3: 'label' 'perhaps' is not in the label set"):
        read(case(tmp_path, tmp_path / "t.parquet"))


TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "extraction": (
        {"kind": "extraction", "json_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        json.dumps({"a": "x"}),
    ),
    "free text": ({"kind": "free_text", "metric": "token_f1"}, "some words"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_takes_traffic_without_expected_answers(tmp_path: Path, kind: str) -> None:
    task, label = TASKS[kind]
    some([label, None, label]).to_parquet(tmp_path / "t.parquet")
    some([label] * 3).to_parquet(tmp_path / "whole.parquet")
    raw = case(tmp_path, tmp_path / "t.parquet").model_dump(mode="json")
    (tmp_path / "gate.csv").write_text(pd.DataFrame({"text": ["g"], "label": [label]}).to_csv(index=False))
    for name, is_scored in (("t", False), ("whole", True)):
        data = raw["data"] | {"traffic": str(tmp_path / f"{name}.parquet")}
        use_case = UseCase.model_validate(raw | {"task": {"instruction": "Say.", **task}, "data": data})
        question = Question(use_case, Tables(use_case))
        assert question.traffic.is_scored is is_scored


def test_requests_that_are_in_train_are_replayed_where_no_answer_is_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = requests(20)
    rows.loc[4, "text"] = "train 7"
    log = logged(tmp_path, a=rows)
    assert len(read(case(tmp_path, log, train=str(tmp_path / "train.csv")))) == 20
    assert "1 of 20 requests are in data.train too" in caplog.text
    rows.assign(label="yes").to_parquet(tmp_path / "labelled.parquet")
    with pytest.raises(BadInput, match=r"1 texts are in data\.train too"):
        read(case(tmp_path, tmp_path / "labelled.parquet", train=str(tmp_path / "train.csv")))


# -- a log that grows -------------------------------------------------------------------------------------------------


def test_a_copy_of_a_log_stands_still_and_is_the_same_question_as_what_it_was_copied_of(tmp_path: Path) -> None:
    log = logged(tmp_path, a=requests(300), b=requests(300, 1))
    whole = case(tmp_path, log).model_dump(mode="json")
    use_case = UseCase.model_validate(whole | {"caching": {"replay_requests": 100}})
    rows, copy = read(use_case), with_copies(use_case, TABLES, tmp_path / "home")
    assert list(read(copy)["id"]) == list(rows["id"]) and list(read(copy)[TIME]) == list(rows[TIME])
    key = Question(copy, Tables(copy)).key
    again = with_copies(use_case, TABLES, tmp_path / "home")
    assert again == copy and Question(again, Tables(again)).key == key
    requests(50, 2).to_parquet(log / "date=2026-11-20" / "aa.parquet")
    assert Question(copy, Tables(copy)).key == key and with_copies(use_case, TABLES, tmp_path / "home") != copy
    assert with_copies_of(copy, use_case, TABLES, tmp_path / "home") == copy


def test_a_copy_is_of_what_its_use_case_replays(tmp_path: Path) -> None:
    use_case = case(
        tmp_path, logged(tmp_path, a=requests(300).assign(text=lambda each: each["text"] + " and more" * 50))
    )
    short = use_case.models.candidates[0].model_copy(update={"context_tokens": 100})
    models = use_case.models.model_copy(update={"candidates": (short,)})
    copies = [
        with_copies(each, TABLES, tmp_path) for each in (use_case, use_case.model_copy(update={"models": models}))
    ]
    assert copies[0].data.traffic != copies[1].data.traffic
    assert len(read(copies[0])) == 300
    with pytest.raises(BadInput, match="no rows"):
        read(copies[1])


@pytest.mark.parametrize("time_column", [None, "time"])
def test_a_judges_task_replays_a_log_at_its_times(tmp_path: Path, time_column: str | None) -> None:
    """It was replayed evenly spread before a log's times were known, so that what was measured then is another key."""
    pd.DataFrame({"id": ["a"], "text": ["b"], "answer": ["c"], "grade": [1.0]}).to_csv(tmp_path / "graded.csv")
    raw = case(tmp_path, logged(tmp_path, a=requests(20))).model_dump(mode="json")
    task = {"kind": "free_text", "instruction": "Say.", "metric": "judge"}
    judge = {"models": [{"uri": "openai:judge"}], "criteria": "Good."}
    data = raw["data"] | {"graded": str(tmp_path / "graded.csv"), "time_column": time_column}
    use_case = UseCase.model_validate(raw | {"task": task, "judge": judge, "data": data})
    question = Question(use_case, Tables(use_case))
    assert question.traffic.is_scored and question.judged_beside_traffic is None and TIME in question.traffic.rows
    assert question.has_times_of_its_own is (time_column is None)


def test_what_is_no_log_or_does_not_grow_is_not_copied(tmp_path: Path) -> None:
    requests(20).to_parquet(tmp_path / "one.parquet")
    for uri in (tmp_path / "one.parquet", tmp_path / "nowhere", tmp_path / "train.csv"):
        use_case = case(tmp_path, uri)
        assert with_copies(use_case, TABLES, tmp_path / "home") is use_case
    assert not (tmp_path / "home").exists()


def test_a_log_that_grows_while_it_is_read_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logged(tmp_path, a=requests(30), b=requests(30, 1))
    tables = Tables(case(tmp_path, log))
    assert tables.hashes["traffic"]
    requests(30, 2).to_parquet(log / "date=2026-11-20" / "0.parquet")
    assert len(tables.need("traffic")) == 60
