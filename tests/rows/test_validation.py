"""Good rows pass; every kind of bad row fails, named with its file, its row or id, and a remedy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows import suites
from leastwise.rows.row_checks import check_rows
from leastwise.rows.splits import leakage
from leastwise.rows.validation import as_markdown, require_valid, validate
from leastwise.stores.shipped import EXPECTATIONS

LABELS = ("even", "odd")


def rows(count: int = 1000) -> pd.DataFrame:
    numbers = range(count)
    return pd.DataFrame(
        {
            "id": [f"r{number}" for number in numbers],
            "text": [f"number {number}" for number in numbers],
            "label": [LABELS[number % 2] for number in numbers],
        }
    )


def broken(column: str, value: object, row: int = 6) -> pd.DataFrame:
    table = rows()
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize("text_type", ["str", "object"])
def test_good_training_rows_pass(text_type: str) -> None:
    validation = validate(rows().astype(text_type), "examples", labels=LABELS, taught_labels=LABELS)
    assert validation.success, validation.failures
    assert "PASS" in as_markdown(validation)
    require_valid(validation)


@pytest.mark.parametrize(
    ("table", "column", "expectation", "ids"),
    [
        (broken("text", None), "text", "not_be_null", ("r6",)),
        (broken("text", " \t"), "text", "match_regex", ("r6",)),
        (broken("text", "x" * 20_001), "text", "value_lengths", ("r6",)),
        (broken("label", "prime"), "label", "be_in_set", ("r6",)),
        (broken("id", "r5"), "id", "be_unique", ("r5",)),
        (broken("id", None), "id", "not_be_null", ("None",)),
        (rows(999), "", "row_count", ()),
        (rows().assign(text=1), "text", "be_of_type", ()),
        (rows().drop(columns="label"), "label", "column_to_exist", ()),
        (rows().drop(columns="id"), "id", "column_to_exist", ()),
        (rows().assign(label="odd"), "label", "distinct_values", ()),
    ],
)
def test_each_fault_of_training_rows_is_found(
    table: pd.DataFrame, column: str, expectation: str, ids: tuple[str, ...]
) -> None:
    validation = validate(table, "examples", source="train.csv", labels=LABELS, taught_labels=LABELS)
    assert not validation.success
    found = [
        failure for failure in validation.failures if failure.column == column and expectation in failure.expectation
    ]
    assert len(found) == 1, validation.failures
    if ids != ("None",):
        assert found[0].unexpected_ids == ids
    with pytest.raises(BadInput, match=rf"train\.csv: .*{column or 'table'}.*Correct or drop"):
        require_valid(validation)
    assert "FAIL" in as_markdown(validation)


def test_too_few_of_a_class_fails_with_at_most_20_ids() -> None:
    table = rows()
    table.loc[:970:2, "label"] = "odd"
    validation = validate(table, "examples", labels=LABELS, taught_labels=LABELS, min_per_class=30)
    assert [(failure.column, len(failure.unexpected_ids)) for failure in validation.failures] == [("rows_of_label", 14)]
    assert validate(table, "examples", labels=LABELS, taught_labels=LABELS, min_per_class=14).success
    assert "rows of class even 14; of the rarest, even, 14" in validation.failures[0].message
    many = validate(rows().assign(text=" "), "gate", labels=LABELS)
    assert len(many.failures[0].unexpected_ids) == 20


@pytest.mark.parametrize(("odd", "is_told"), [(948, False), (953, True)])
def test_classes_out_of_balance_are_told_with_their_rows_and_stop_nothing(odd: int, is_told: bool) -> None:
    table = rows().assign(label=["odd"] * odd + ["even"] * (1000 - odd))
    validation = validate(table, "examples", labels=LABELS, taught_labels=LABELS)
    found = [warning for warning in validation.warnings if warning.column == "times_rarest_label"]
    told = [warning.message for warning in found]
    assert validation.success and not any(warning.failing_ids for warning in found)
    assert told == [f"rows of class odd {odd}; of the rarest, even, {1000 - odd}"] * is_told


@pytest.mark.parametrize("suite", ["gate", "documents", "unlabelled"])
def test_the_other_suites_pass_good_rows_and_fail_empty_text(suite: str) -> None:
    table = rows(30).assign(title="a")
    parameters = {"labels": LABELS} if suite == "gate" else {}
    assert validate(table, suite, **parameters).success
    assert not validate(table.assign(text=""), suite, **parameters).success


def test_an_unknown_suite_or_parameter_is_refused() -> None:
    with pytest.raises(BadInput, match="no such suite"):
        validate(rows(), "absent")
    with pytest.raises(BadInput, match="missing parameters \\['labels'\\]"):
        validate(rows(), "examples", label=LABELS, taught_labels=LABELS)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows(0), r"rows\.csv: no rows"),
        (rows().drop(columns="text"), r"rows\.csv: no column 'text' \(it has id, label\)"),
        (broken("text", float("nan")), r"rows\.csv: row 7: missing \(NaN\) 'text'"),
        (broken("text", " "), r"rows\.csv: row 7: empty 'text'"),
        (broken("label", "prime"), r"rows\.csv: row 7: 'label' 'prime' is not in the label set \(even, odd\)"),
        (broken("label", None), r"rows\.csv: row 7: missing \(NaN\) 'label'"),
        (broken("id", "r5"), r"rows\.csv: rows 6, 7: duplicate 'id' 'r5'"),
        (rows().assign(text=""), r"rows 1, 2, 3, 4, 5 and 995 more: empty 'text'"),
    ],
)
def test_bad_rows_are_named_before_anything_is_spent(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        check_rows(table, "rows.csv", labels=LABELS)
    assert str(refused.value).count(". ") >= 1, "a remedy follows"


def test_good_rows_and_unlabelled_rows_are_accepted() -> None:
    check_rows(rows(), "rows.csv", labels=LABELS)
    check_rows(rows()[["text"]], "rows.csv", label=None, id=None)


def test_leakage_sees_through_case_and_punctuation_only() -> None:
    assert leakage(["A b, c."], ["a B  c", "a b d"]) == ("a B  c",)
    assert leakage(["a"], ["b"]) == ()


@pytest.mark.parametrize("suite", sorted(file.stem for file in EXPECTATIONS.glob("*.json")))
def test_great_expectations_knows_a_suite_by_the_name_of_its_file(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import great_expectations as gx

    names: list[str] = []
    kept = gx.ExpectationSuite.__init__

    def noted(self: gx.ExpectationSuite, *arguments: object, **options: object) -> None:
        kept(self, *arguments, **options)  # type: ignore[arg-type]  # handed on as it came
        names.append(self.name)

    monkeypatch.setattr(gx.ExpectationSuite, "__init__", noted)
    definition = suites.suite_of(suite)
    needs = {name: list(LABELS) for name in definition.meta.required}
    suites.run(rows(30).assign(title="a"), definition, definition.filled(needs))
    # Great Expectations makes one called `default` of its own.
    assert [name for name in names if name != "default"] == [suite] and definition.name == suite


def test_a_file_that_is_no_suite_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "EXPECTATIONS", tmp_path)
    for content in ("not json", '{"name": "broken"}'):
        (tmp_path / "broken.json").write_text(content)
        with pytest.raises(BadInput, match=r"broken\.json: no suite \(.*\)\. Correct it"):
            suites.suite_of("broken")
