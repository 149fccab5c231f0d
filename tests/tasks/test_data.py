"""Data nobody has to apologise for: what must not be there is found and named, kept aside with its reason,
and stops the stage.
"""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.rows import validation
from tasks import data
from tests.sentences import sentence
from tests.workspaces import case_file
from tests.workspaces import opened as opened_case


def rows(count: int, prefix: str, seed: int = 0) -> pd.DataFrame:
    rng = random.Random(f"{prefix}{seed}")
    return pd.DataFrame(
        {
            "id": [f"{prefix}{n}" for n in range(count)],
            "text": [f"{sentence(rng)} {prefix} {n}" for n in range(count)],
            "label": ["yes" if n % 3 else "no" for n in range(count)],
        }
    )


def changed(table: pd.DataFrame, at: int, text: str) -> pd.DataFrame:
    table.loc[at, "text"] = text
    return table


def opened(folder: Path, gate: pd.DataFrame, **data: Any) -> Workspace:
    gate.to_parquet(folder / "gate.parquet")
    rows(80, "t").assign(day="2026-01-15").to_parquet(folder / "train.parquet")
    case: dict[str, Any] = {
        "name": "held",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"], "decline_label": "none"},
        "data": {"gate": "gate.parquet", "train": "train.parquet"} | data,
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": {"input": 1, "output": 4}}]},
        "allow_no_test": True,
    }
    return opened_case(case_file(folder, case))


def test_a_gate_set_that_leaks_stops_the_climb_says_where_its_rows_are_and_loses_nothing(
    home: Path, tmp_path: Path
) -> None:
    leaking = changed(rows(60, "g"), 9, rows(80, "t")["text"][4] + " more")
    work = opened(tmp_path, leaking)
    with pytest.raises(
        BadInput, match=r"data\.gate: .*g9 is in train t4.*1 failing rows are in .*quarantine/held/gate"
    ) as refused:
        data.validate_judged.fn(work.run.id)
    kept = pd.read_parquet(next((home / "quarantine" / "held").glob("*.parquet")))
    assert list(kept["id"]) == ["g9"] and "leaks_from" in kept["reason"][0]
    assert len(pd.read_parquet(tmp_path / "gate.parquet")) == 60 and "not changed" in str(refused.value)
    assert work.run.again().run.info.status == "FAILED"
    assert "validation" in {each.path for each in work.run.client.list_artifacts(work.run.id)}


def test_a_table_that_passed_once_is_not_looked_at_again_and_its_table_is_shown_all_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = opened(tmp_path, rows(60, "g").assign(day=["2026-01-10", "2026-04-20"] * 30), date_column="day")
    data.validate_judged.fn(work.run.id)
    shown: list[str] = []
    monkeypatch.setattr("tasks.data.publish_markdown", lambda key, _: shown.append(key))
    monkeypatch.setattr("tasks.session.held.validation.validate", lambda *_, **__: pytest.fail("looked at again"))
    data.validate_judged.fn(work.run.id)
    assert shown == ["data-gate"]
    note = Path(work.run.client.download_artifacts(work.run.id, "validation/gate.md", str(tmp_path))).read_text()
    assert "PASS" in note and "Dates (day): 2026-01 to 2026-04, no rows in 2026-02, 2026-03." in note


def test_what_passed_counts_wherever_the_same_file_lies_and_not_where_it_is_read_in_another_way(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    validate = validation.validate
    monkeypatch.setattr(
        "tasks.session.held.validation.validate",
        lambda table, suite, source, *more, **values: (
            looked_at.append(source),
            validate(table, suite, source, *more, **values),
        )[1],
    )

    def looked(folder: str, gate: pd.DataFrame, **read: Any) -> list[str]:
        looked_at.clear()
        (tmp_path / folder).mkdir(exist_ok=True)
        data.validate_judged.fn(opened(tmp_path / folder, gate, **read).run.id)
        return list(looked_at)

    own = rows(60, "own").assign(other="words")
    assert looked("here", own) == ["data.gate"]
    assert looked("there", own) == []
    assert looked("there", own, language="en") == ["data.gate"]
    assert looked("there", own, mask=("email",)) == ["data.gate"]
    assert looked("there", changed(own, 3, "something else altogether")) == ["data.gate"]


def test_what_is_to_be_masked_is_masked_before_it_goes_anywhere(home: Path, tmp_path: Path) -> None:
    gate = changed(rows(60, "g"), 0, "please answer to ann@example.com, who has asked for it")
    work = opened(tmp_path, gate, mask=["email"])
    assert work.tables.need("gate")["text"][0] == "please answer to [email], who has asked for it"
    plain = opened(tmp_path, gate)
    assert plain.question.key != work.question.key


def test_a_way_to_decline_needs_no_training_examples_but_every_label_does(home: Path, tmp_path: Path) -> None:
    train = rows(1100, "n")
    train.to_parquet(tmp_path / "many.parquet")
    work = opened(tmp_path, rows(60, "g"), train="many.parquet")
    data.validate_training_data.fn(work.run.id)
    train.assign(label="yes").to_parquet(tmp_path / "one_label.parquet")
    work = opened(tmp_path, rows(60, "g"), train="one_label.parquet")
    with pytest.raises(BadInput, match="distinct values"):
        data.validate_training_data.fn(work.run.id)
