"""What is wrong with a row is found, named and kept aside with its reason; the table itself stays as it was."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.rows import data_quality, personal_data, validation
from leastwise.rows.near_duplicates import THRESHOLD, near_duplicates
from tests.sentences import WORDS, sentence

# -- near duplicates ---------------------------------------------------------------------------------------------------


def test_every_planted_near_duplicate_is_found_and_nothing_that_is_not_one() -> None:
    rng = random.Random(1)
    texts = [sentence(rng, 30) for _ in range(400)]
    for at in range(50):  # the last word changed: 27 of 29 sequences in common
        texts.append(texts[at].rsplit(" ", 1)[0] + " changed")
    found = {(pair.one, pair.other) for pair in near_duplicates(texts)}
    assert found == {(at, 400 + at) for at in range(50)}


@given(st.lists(st.sampled_from([" ".join(WORDS[at : at + 6]) for at in range(8)]), min_size=2, max_size=40))
@settings(max_examples=40, deadline=None)
def test_it_finds_what_comparing_every_pair_finds_for_exact_repetition(texts: list[str]) -> None:
    found = {(pair.one, pair.other) for pair in near_duplicates(texts)}
    assert found == {(i, j) for j in range(len(texts)) for i in range(j) if texts[i] == texts[j]}


def test_case_and_punctuation_do_not_matter_and_similarity_is_said() -> None:
    (pair,) = near_duplicates(
        ["One two three, four five!", "something else entirely here now", "one TWO three four; five"]
    )
    assert (pair.one, pair.other, pair.similarity) == (0, 2, 1.0)
    assert near_duplicates([]) == near_duplicates(["", "alone"]) == [] and THRESHOLD == 0.8


# -- personal data and secrets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "personal", "secret"),
    [
        ("write to ann.lee+x@example.co.uk now", "email", None),
        ("call +44 20 7946 0958 today", "phone", None),
        ("card 4111 1111 1111 1111", "card", None),
        ("order 4111 1111 1111 1112", None, None),  # wrong check digit
        ("IBAN GB82 WEST 1234 5698 7654 32", "iban", None),
        ("IBAN GB82 WEST 1234 5698 7654 33", None, None),
        ("ssn 078-05-1120", "us_ssn", None),
        ("hash d41d8cd98f00b204e9800998ecf8427e and port 8080 on 10.0.0.1", None, None),
        ("version 1.2.3-4567 at 2026-11-24 12:30:45", None, None),
        ("key AKIAIOSFODNN7EXAMPLE", None, "aws_key"),
        ("-----BEGIN RSA PRIVATE KEY-----", None, "private_key"),
        ("token ghp_" + "a1B2" * 9, None, "token"),
        ("api_key = 'abcdef123456'", None, "password"),
        ("the password was changed", None, None),
    ],
)
def test_forms_of_personal_data_and_secrets(text: str, personal: str | None, secret: str | None) -> None:
    assert personal_data.kinds_in(text, personal_data.PERSONAL) == personal
    assert personal_data.kinds_in(text, personal_data.SECRET) == secret
    kinds = tuple(filter(None, (personal, secret)))
    masked = personal_data.masked(text, kinds)
    assert all(f"[{kind}]" in masked for kind in kinds) and (masked == text) == (not kinds)
    assert personal_data.kinds_in(masked, personal_data.PERSONAL | personal_data.SECRET) is None


# -- suites ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("text", "column", "is_warning"),
    [
        ("with a \x07 bell in a text that is long enough", "control_characters", False),
        ("g0's text", "exact_duplicate_of", False),
        ("t5's text", "leaks_from", False),
        ("t5's text, one word more", "leaks_from", False),
        ("g0's text, one word more", "near_duplicate_of", True),
        ("please answer to ann@example.com, who has asked for it twice", "personal", True),
        ("our api_key = 'abcdef123456' is in the log since yesterday", "secret", True),
        ("Der Angreifer hat die Datei gelöscht und den Rechner neu gestartet.", "other_language", True),
    ],
)
def test_each_fault_is_found_named_and_stops_or_warns(text: str, column: str, is_warning: bool) -> None:
    gate, train = rows(60, "g"), rows(60, "t")
    own, theirs = gate["text"][0], train["text"][5]
    text = text.replace("g0's text", own).replace("t5's text", theirs).replace(", one word more", " more")
    checked = validation.validate(
        changed(gate, 7, text), "gate", "data.gate", "en", {"train": train}, labels=["yes", "no"]
    )
    told = checked.warnings if is_warning else checked.failures
    (failure,) = [each for each in told if each.column == column]
    assert failure.failing_ids == ("g7",) and "g7" in failure.message
    assert checked.success == is_warning
    if column == "leaks_from":
        assert "g7 is in train t5" in failure.message
    assert validation.as_markdown(checked).count("g7") >= 1


def test_failing_rows_are_kept_aside_with_every_reason_and_the_table_is_unchanged(tmp_path: Path) -> None:
    table = rows(50, "g")
    table.loc[3, "text"] = table.loc[2, "text"] + "\x00"
    before = table.copy()
    checked = validation.validate(table, "gate", "data.gate", labels=["yes", "no"])
    assert validation.quarantine(table, checked, tmp_path / "q" / "gate.parquet") == 1
    kept = pd.read_parquet(tmp_path / "q" / "gate.parquet")
    assert (
        list(kept["id"]) == ["g3"]
        and "control_characters" in kept["reason"][0]
        and "exact_duplicate_of" in kept["reason"][0]
    )
    pd.testing.assert_frame_equal(table, before)


def test_labels_that_neighbours_disagree_with_are_listed_surest_first() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)[[0, 1]]
    labels = ["a", "b"] * 100
    vectors = centres[[0, 1] * 100] + 0.05 * rng.standard_normal((200, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels[10], labels[51] = "b", "a"
    found = data_quality.suspected_labels([f"r{n}" for n in range(200)], labels, vectors)
    assert {(row, ours, theirs) for row, ours, theirs, _ in found} == {("r10", "b", "a"), ("r51", "a", "b")}
    assert all(share >= 0.8 for *_, share in found)
    assert data_quality.suspected_labels(["r"], ["a"], vectors[:1]) == []
