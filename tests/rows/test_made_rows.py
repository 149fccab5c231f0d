"""Out-of-scope and shifted rows can be made of a use case's own: labels held out, unrelated text, shifted gate rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.tables import KIND, UNIT, Tables
from leastwise.use_case import UseCase

SIZES = {"train": 40, "dev": 40, "gate": 60, "test": 40}
LABELS = ("cat", "dog", "fish", "bird")


def table(name: str) -> pd.DataFrame:
    rows = range(SIZES[name])
    return pd.DataFrame(
        {
            "id": [f"{name}-{n}" for n in rows],
            "text": [f"the {LABELS[n % 4]} of {name} number {n} sits somewhere in the garden" for n in rows],
            "label": [LABELS[n % 4] for n in rows],
            "owner": [f"owner {n % 20}" for n in rows],
        }
    )


def tables(folder: Path, **data: Any) -> Tables:
    for name in SIZES:
        table(name).to_parquet(folder / f"{name}.parquet")
    paths = {name: str(folder / f"{name}.parquet") for name in SIZES}
    wanted = UseCase.model_validate(
        {
            "name": "made",
            "task": {"instruction": "Which animal?", "labels": ["cat", "dog", "fish"], "decline_label": "none"},
            "data": paths | data,
            "requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "ood_decline": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 1000},
            "models": {"candidates": [{"uri": "openai:toy"}]},
        }
    )
    return Tables(wanted)


def test_held_out_labels_leave_every_split_and_are_declined_or_not(tmp_path: Path) -> None:
    made = tables(tmp_path, held_out_labels=["bird"])
    made.check()
    assert not any("bird" in set(made.need(name)["label"]) for name in SIZES)
    judged, chosen = made.need("out_of_scope"), made.need("out_of_scope_dev")
    assert len(judged) == 15 + 10 and len(chosen) == 10
    assert all(" bird of " in text for text in [*judged["text"], *chosen["text"]])
    assert set(judged[KIND]) == {"held_out"} and "label" not in judged
    assert not set(judged["id"]) & set(chosen["id"])


def test_unrelated_text_is_halved_so_that_no_threshold_is_chosen_on_what_judges_it(tmp_path: Path) -> None:
    texts = [f"quarterly report number {n}" for n in range(400)]
    pd.DataFrame({"id": [f"u{n}" for n in range(400)], "text": texts}).to_parquet(tmp_path / "unrelated.parquet")
    given = pd.DataFrame({"id": ["g1"], "text": ["given"], "kind": ["asked for"]})
    given.to_parquet(tmp_path / "given.parquet")
    paths = {"unrelated": str(tmp_path / "unrelated.parquet"), "out_of_scope": str(tmp_path / "given.parquet")}
    made = tables(tmp_path, **paths, held_out_labels=["bird"])
    made.check()
    judged, chosen = made.need("out_of_scope"), made.need("out_of_scope_dev")
    judged, chosen = judged[judged[KIND] != "held_out"], chosen[chosen[KIND] != "held_out"]
    assert sorted([*judged["text"], *chosen["text"]]) == sorted([*texts, "given"])
    assert min(len(judged), len(chosen)) > 150
    assert dict(judged[KIND].value_counts()) == {"unrelated": len(judged) - 1, "asked for": 1}


def test_made_shifts_change_the_words_and_keep_label_and_unit(tmp_path: Path) -> None:
    made = tables(tmp_path, made_shifts=["typos", "upper", "longer"], held_out_labels=["bird"], unit_by="owner")
    shifted, gate = made.need("shifted"), made.need("gate")
    assert len(shifted) == len(gate) == 45 and list(shifted["label"]) == list(gate["label"])
    assert list(shifted[UNIT]) == list(gate[UNIT]) and set(shifted[KIND]) == {"typos", "upper", "longer"}
    assert all(row.text == row.text.upper() for row in shifted[shifted[KIND] == "upper"].itertuples())
    assert shifted["text"].equals(
        tables(tmp_path, made_shifts=["typos", "upper", "longer"], held_out_labels=["bird"]).need("shifted")["text"]
    )


def test_without_unit_column_a_made_row_is_a_unit_of_its_own(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["u1", "u2", "u3"], "text": ["a b c", "d e f", "g h i"], "owner": "x"}).to_parquet(
        tmp_path / "unrelated.parquet"
    )
    made = tables(tmp_path, unit_by="owner", held_out_labels=["bird"], unrelated=str(tmp_path / "unrelated.parquet"))
    judged = made.need("out_of_scope")
    unrelated = judged[judged[KIND] == "unrelated"]
    assert unrelated[UNIT].is_unique and judged[UNIT].notna().all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"held_out_labels": ["dog"]}, "data.held_out_labels: are labels of the rows that the task does not have"),
        ({}, "data.held_out_labels or data.unrelated"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, data: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tables(tmp_path, **data)


def test_a_text_that_chooses_and_judges_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pd.DataFrame({"id": ["a"], "text": ["the same words"]}).to_parquet(tmp_path / f"{name}.parquet")
    paths = {"out_of_scope": str(tmp_path / "one.parquet"), "out_of_scope_dev": str(tmp_path / "two.parquet")}
    made = tables(tmp_path, **paths, held_out_labels=["bird"])
    with pytest.raises(BadInput, match=r"data.out_of_scope: 1 texts are in data.out_of_scope_dev too"):
        made.check()
