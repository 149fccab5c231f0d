"""The embedded data keeps its promises: no leak between splits, clean text, natural labels, the same bytes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.rows.row_checks import check_rows
from leastwise.rows.splits import leakage
from leastwise.stores.storage import sha256
from leastwise.stores.tables.table_files import read_table
from use_cases.build_alert_triage import MITRE_LICENCE, build, clean, main, normalised

SPLITS = ("train", "dev", "gate", "test")
FILES = (*SPLITS, "out_of_scope", "out_of_scope_dev", "unlabelled", "documents", "shifted", "traffic", "general")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alert-triage")
    assert build(out)
    return out


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: read_table(folder / f"{name}.parquet") for name in FILES}


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return loaded


@pytest.mark.parametrize(("one", "other"), itertools.combinations(SPLITS, 2))
def test_no_source_and_no_text_is_in_two_splits(tables: dict[str, pd.DataFrame], one: str, other: str) -> None:
    assert not set(tables[one].source_ref) & set(tables[other].source_ref)
    assert not leakage(tables[one].text, tables[other].text)


def test_gate_and_test_have_a_thousand_rows_of_the_natural_distribution(tables: dict[str, pd.DataFrame]) -> None:
    train = tables["train"].label.value_counts(normalize=True)
    for name in ("gate", "test"):
        assert len(tables[name]) >= 1000
        assert (tables[name].label.value_counts(normalize=True) - train).abs().max() < 0.03


def test_all_rows_pass_the_checks_of_a_users_data(tables: dict[str, pd.DataFrame], manifest: dict[str, Any]) -> None:
    assert len(manifest["labels"]) == 13
    for name in (*SPLITS, "shifted", "traffic"):
        check_rows(tables[name], name, labels=manifest["labels"])
    for name in ("out_of_scope", "out_of_scope_dev", "unlabelled", "documents"):
        check_rows(tables[name], name, label=None)


def test_no_citation_link_or_cut_mark_is_left(tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        assert not table.text.str.contains(r"Citation|\]\(|attack\.mitre\.org|\.\.\.$|</?code", regex=True).any(), name


def test_the_held_out_tactic_is_only_out_of_scope(tables: dict[str, pd.DataFrame], manifest: dict[str, Any]) -> None:
    kinds = tables["out_of_scope"].kind.value_counts()
    assert kinds["held_out"] >= 100
    assert kinds["unrelated"] >= 300
    held_out = set(tables["out_of_scope"].query("kind == 'held_out'").text.map(normalised))
    for name in (*SPLITS, "unlabelled", "shifted", "traffic"):
        assert not held_out & set(tables[name].text.map(normalised)), name
    assert not any(manifest["held_out"] in tactics for tactics in tables["documents"].tactics)


def test_unlabelled_text_shares_nothing_with_what_is_measured(tables: dict[str, pd.DataFrame]) -> None:
    assert len(tables["unlabelled"]) >= 3000
    assert list(tables["unlabelled"].columns) == ["id", "text"]
    for name in ("dev", "gate", "test"):
        assert not set(tables["unlabelled"].id) & set(tables[name].id)
        assert not leakage(tables["unlabelled"].text, tables[name].text)


def test_shifted_rows_are_gate_rows_under_one_shift_each(tables: dict[str, pd.DataFrame]) -> None:
    shifted, gate = tables["shifted"], tables["gate"].set_index("id")
    shifted = shifted[shifted["kind"] != "other_source"]
    original = gate.loc[[id_.partition("~")[0] for id_ in shifted.id]]
    assert list(original.label) == list(shifted.label)
    changed = pd.Series(list(original.text)).ne(pd.Series(list(shifted.text))).groupby(list(shifted["kind"])).mean()
    assert set(changed.index) == {"typos", "upper", "lower", "shorter", "longer"}
    assert changed.min() > 0.7


def test_another_source_says_of_each_technique_what_its_one_tactic_is(tables: dict[str, pd.DataFrame]) -> None:
    other = tables["shifted"][tables["shifted"]["kind"] == "other_source"]
    tactics = tables["documents"].set_index("id").tactics
    assert len(other) > 300
    assert all(list(tactics[id_]) == [label] for id_, label in zip(other.id, other.label, strict=True))


def test_thresholds_are_chosen_on_other_kinds_of_text_than_they_are_judged_on(tables: dict[str, pd.DataFrame]) -> None:
    chosen, judged = tables["out_of_scope_dev"], tables["out_of_scope"]
    assert set(chosen.kind) == {"profile", "advice", "unrelated"} and set(judged.kind) == {"held_out", "unrelated"}
    assert not set(chosen.text) & {*judged.text, *(text for name in SPLITS for text in tables[name].text)}


def test_traffic_repeats_dev_sentences_in_order_of_time(
    tables: dict[str, pd.DataFrame], manifest: dict[str, Any]
) -> None:
    traffic = tables["traffic"]
    assert len(traffic) >= 2000
    assert traffic.timestamp.is_monotonic_increasing
    assert set(traffic.text) <= set(tables["dev"].text)
    share = 1 - traffic.text.nunique() / len(traffic)
    assert share == pytest.approx(manifest["traffic_repeat_share"], abs=1e-4)
    assert 0.5 < share < 0.7


def test_the_manifest_says_what_is_in_the_files(
    folder: Path, tables: dict[str, pd.DataFrame], manifest: dict[str, Any]
) -> None:
    assert MITRE_LICENCE in manifest["licence"]
    assert {f"{name}.parquet" for name in FILES} == set(manifest["files"])
    for name, table in tables.items():
        about = manifest["files"][f"{name}.parquet"]
        assert about["sha256"] == sha256(folder / f"{name}.parquet")
        assert (about["rows"], about["columns"]) == (len(table), list(table.columns))
        if "label" in table:
            assert about["counts"] == table.label.value_counts().to_dict()


def test_the_same_inputs_give_the_same_bytes_and_a_second_run_does_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    assert sha256(tmp_path) == sha256(folder)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcome"] == "unchanged"
    assert "unchanged, reused" in printed.err
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    (tmp_path / "gate.parquet").write_bytes(b"cut short")
    assert build(tmp_path)
    assert sha256(tmp_path) == sha256(folder)


def test_a_place_that_cannot_be_written_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "Choose another path" in capsys.readouterr().err


def test_the_attribution_repeats_the_licence_lines(manifest: dict[str, Any]) -> None:
    text = (Path(__file__).parents[2] / "use_cases" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    flowing = " ".join(text.split())
    assert all(line in flowing for line in manifest["licence"][:2])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("[X](https://a.b/c) uses `y`.(Citation: Z 1)(Citation: Q)", "X uses `y`."),
        ("X uses y.(Citation: A long na...", "X uses y."),
        ("X uses y.(Citation: A)(Ci...", "X uses y."),
        ("X uses y. (...", "X uses y."),
        ("X uses [Y](https://attack.mi...", "X uses Y"),
        ("X uses [Long na...", "X uses Long na"),
        ("X uses <code>\\/tmp\\/</code> (also) an...", "X uses /tmp/ (also) an"),
        ("X reads a[0] (twice).", "X reads a[0] (twice)."),
    ],
)
def test_markup_is_stripped_whole_or_cut(raw: str, text: str) -> None:
    assert clean(raw) == text
