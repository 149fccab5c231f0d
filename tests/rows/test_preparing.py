"""Rows made ready: nothing that belongs together lies on two sides, whatever the order; what is wrong is told."""

import json
import random
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.errors import BadInput
from leastwise.evidence.examples_needed import examples_to_decide
from leastwise.metrics.schema_adherence import adherence_of, check_schema
from leastwise.money import PriceBook
from leastwise.money.model_book import DAYS_BEFORE, ModelBook, ModelEntry
from leastwise.rows.findings.grouping import groups_of
from leastwise.rows.findings.word_reference import word_reference
from leastwise.rows.preparing import kinds, sizing
from leastwise.rows.preparing.case_text import _flow
from leastwise.rows.preparing.cleaning import clean
from leastwise.rows.preparing.models_at_hand import EMBEDDED, PROVIDERS, Models, models_at_hand
from leastwise.rows.preparing.prepared import Prepared, prepare
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.preparing.splitting import SPLITS, missing_classes, sides
from leastwise.rows.sources.plain import Plain, plain_rows
from leastwise.stores.shipped import MODEL_BOOK, PRICE_BOOK
from leastwise.stores.yaml_file import read_yaml

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "nrst"]


def drawn(count: int, labels: tuple[str, ...], seed: int = 0) -> list[tuple[str, str]]:
    """Texts of which each label has words of its own."""
    rng = random.Random(seed)
    own = {label: rng.sample(WORDS, 6) for label in labels}
    rows = []
    for at in range(count):
        label = labels[at % len(labels)]
        rows.append((" ".join([*rng.choices(WORDS, k=8), *rng.choices(own[label], k=3)]), label))
    return rows


BOOK = ModelBook.model_validate(yaml.safe_load(MODEL_BOOK.read_text()))
TODAY = date(2026, 11, 27)


def at_hand(environment: dict[str, str], book: ModelBook = BOOK, today: date = TODAY) -> Models:
    return models_at_hand(environment, book, today)


def embedded() -> Models:
    return at_hand({})


def plain(rows: list[tuple[str | None, str | None]], groups: list[str | None] | None = None, **more: str) -> Plain:
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    at = [f"row {n}" for n in range(len(rows))]
    split = [more.get("split", "")] * len(rows)
    return Plain("table", plain_rows(texts, labels, at, split, groups), {"text": "text", "label": "label"})


def made(rows: list[tuple[str | None, str | None]], **wanted: object) -> Prepared:
    return prepare([plain(rows)], "mine", Wanted.model_validate(wanted), embedded())


grouped_rows = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 60)), min_size=40, max_size=200
)  # label, group


@settings(max_examples=60, deadline=None)
@given(grouped_rows, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_never_straddle_and_neither_order_nor_names_of_groups_change_a_side(
    rows: list[tuple[str, int]], seed: int, shuffler: random.Random
) -> None:
    sizes = {"gate": len(rows) // 4, "test": len(rows) // 8, "dev": len(rows) // 10}
    named = [(f"id{n}", label, str(group)) for n, (label, group) in enumerate(rows)]
    side = dict(zip([row[0] for row in named], sides(*zip(*named, strict=True), sizes, seed), strict=True))
    shuffler.shuffle(named)
    again = sides(*zip(*[(row, label, f"other {group}") for row, label, group in named], strict=True), sizes, seed)
    assert [side[row] for row, _, _ in named] == again
    lies_in: dict[str, set[str]] = {}
    for row, _, group in named:
        lies_in.setdefault(group, set()).add(side[row])
    assert all(len(each) == 1 for each in lies_in.values())


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(4, 80), min_size=2), st.integers(0, 9))
def test_every_class_with_a_row_for_each_split_is_in_every_split(counts: dict[str, int], seed: int) -> None:
    labels = [label for label, count in counts.items() for _ in range(count)]
    ids = [f"id{n}" for n in range(len(labels))]
    total = len(labels)
    side = sides(ids, labels, ids, {"gate": total // 4, "test": total // 8, "dev": total // 10}, seed)
    assert missing_classes(labels, side) == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(20, 90))
def test_shares_of_classes_come_out_within_two_hundredths(seed: int, classes: int) -> None:
    rng = random.Random(seed)
    labels = rng.choices(range(classes), [0.3 + rng.random() for _ in range(classes)], k=150 * classes)
    names = [f"label {label}" for label in labels]
    ids = [f"id{n}" for n in range(len(names))]
    sizes = {"gate": 20 * classes, "test": 12 * classes, "dev": 10 * classes}
    side = sides(ids, names, ids, sizes, seed)
    for split in SPLITS:
        held = Counter(name for name, each in zip(names, side, strict=True) if each == split)
        assert sizing.total_variation(held, Counter(names)) <= 0.02


def test_another_seed_gives_another_split() -> None:
    labels = ["a", "b"] * 100
    ids = [f"id{n}" for n in range(200)]
    sizes = {"gate": 50, "test": 30, "dev": 20}
    assert sides(ids, labels, ids, sizes, 0) != sides(ids, labels, ids, sizes, 1)


def test_what_says_nearly_the_same_and_what_shares_a_group_are_one_group() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    said = [long, f"{long} please", "something else entirely here", "and yet another text of words"]
    ids = ["d", "b", "c", "a"]
    assert groups_of(ids, said, [None] * 4).of_row == ("b", "b", "c", "a")
    assert groups_of(ids, said, ["x", None, "x", None]).of_row == ("b", "b", "b", "a")


def test_duplicates_are_dropped_contradictions_put_aside_and_each_is_counted() -> None:
    rows = plain(
        [
            ("Hello, you!", "a"),
            ("hello you", "a"),
            ("same", "a"),
            ("SAME.", "b"),
            ("", "a"),
            (None, "b"),
            ("x\x07", "a"),
        ]
    )
    cleaned = clean(rows.rows, True, 1000)
    assert list(cleaned.labelled["text"]) == ["Hello, you!"]
    assert {"read": 7, "empty": 2, "duplicates": 1, "contradictory": 2, "unfit": 1}.items() <= cleaned.counts.items()
    assert set(cleaned.aside["reason"]) == {"the same text has another label elsewhere", "holds control characters"}
    assert len(cleaned.labelled) + len(cleaned.aside) + 2 + 1 == 7


def test_labels_that_differ_in_blanks_or_case_are_one_and_it_is_said() -> None:
    rows = plain([("a", "Billing"), ("b", " Billing"), ("c", "billing"), ("d", "login")])
    merged = clean(rows.rows, True, 1000)
    assert sorted(merged.labelled["label"]) == ["Billing", "Billing", "Billing", "login"]
    assert dict(merged.merged_labels) == {"billing": "Billing"}
    assert len(set(clean(rows.rows, False, 1000).labelled["label"])) == 3


@pytest.mark.parametrize("label", ["oos", "out_of_scope", "Out of Scope", "out-of-domain", "OOD"])
def test_rows_out_of_scope_become_tables_of_their_own_and_the_answer_that_declines(label: str) -> None:
    prepared = made([*drawn(600, ("a", "b")), *((text, label) for text, _ in drawn(60, ("z",), seed=5))])
    tables = prepared.divided.tables
    assert len(tables["out_of_scope"]) + len(tables["out_of_scope_dev"]) == 60
    assert prepared.draft.decline_label == "out_of_scope" and prepared.draft.task.labels == ("a", "b")
    assert all(set(tables[name]["label"]) == {"a", "b"} for name in SPLITS)


def test_unlabelled_rows_serve_training_but_for_those_that_are_nearly_judged() -> None:
    labelled = [(f"{text} {text[::-1]}", label) for text, label in drawn(600, ("a", "b"))]
    judged = made(labelled).divided.tables["gate"]["text"]
    bare = [(text, None) for text, _ in drawn(50, ("z",), seed=9)]
    prepared = made([*labelled, *bare, (f"{judged[0]} please", None), (judged[1], None)])
    assert len(prepared.divided.tables["unlabelled"]) == 50
    assert prepared.divided.counts["unlabelled_near"] == 1 and prepared.cleaned.counts["unlabelled_duplicates"] == 1


def test_traffic_keeps_its_repetition_and_no_label() -> None:
    requests = plain([("again", "a"), ("again", "a"), ("once", None)], split="traffic")
    prepared = prepare([plain(drawn(600, ("a", "b"))), requests], "mine", Wanted(), embedded())
    traffic = prepared.divided.tables["traffic"]
    assert list(traffic["text"]) == ["again", "again", "once"] and list(traffic.columns) == ["id", "text"]
    assert traffic["id"].is_unique


def test_groups_that_count_once_make_the_gate_as_much_larger() -> None:
    alphas = {"bound": None, "margin": 0.2, "alpha_pass": 0.002, "alpha_fail": 0.025}
    rows = sizing.sizes_for(4000, 4000, 2, **alphas)
    groups = sizing.sizes_for(4000, 1000, 2, **alphas)
    assert groups.needed == rows.needed and groups.gate >= 4 * rows.needed


@pytest.mark.parametrize("margin", [0.05, 0.1, 0.2])
def test_the_gate_has_the_examples_that_the_margin_takes_and_who_has_too_few_rows_is_told_how_many(
    margin: float,
) -> None:
    needed = examples_to_decide(0.8, margin, 0.002, 0.025)
    enough = -(-needed * 10 // 3)
    sizes = sizing.sizes_for(enough, enough, 2, 0.8, margin, 0.002, 0.025)
    assert needed <= sizes.gate <= 0.3 * enough + 1
    with pytest.raises(BadInput, match=f"add {enough - 100:,} rows"):
        sizing.sizes_for(100, 100, 2, 0.8, margin, 0.002, 0.025)


def test_fewer_rows_decide_a_larger_margin() -> None:
    margins = [sizing.sizes_for(n, n, 2, None, None, 0.002, 0.025).margin for n in (400, 1500, 4000, 20_000)]
    assert margins == sorted(margins, reverse=True) and margins[0] > margins[-1] == 0.05


def test_every_problem_is_said_in_one_report() -> None:
    rows: list[tuple[str | None, str | None]] = [
        (f"the answer is {label}: {text}", label) for text, label in drawn(60, ("alpha", "beta"))
    ]
    with pytest.raises(BadInput) as refused:
        made([*rows, ("a lone row", "rare")])
    said = str(refused.value)
    assert (
        "3 things" in said
        and "hold their own expected answer" in said
        and "'rare' (add 3)" in said
        and "too few rows" in said
    )


def test_a_text_that_holds_its_label_is_refused_unless_requests_do_too() -> None:
    leaking = [(f"{text} ({label})", label) for text, label in drawn(600, ("alpha", "beta"))]
    with pytest.raises(BadInput, match=r"field 'text'.*600 of 600 texts"):
        made(leaking)
    assert made(leaking, label_in_text=True).bound > 0.9


def test_texts_that_name_every_label_or_some_by_chance_are_no_leak() -> None:
    choices = [(f"{text} A) alpha B) beta", label) for text, label in drawn(600, ("alpha", "beta"))]
    some = [
        (f"{text} {label if n % 4 == 0 else ''}", label)
        for n, (text, label) in enumerate(drawn(600, ("alpha", "beta")))
    ]
    assert made(choices).divided.tables and made(some).divided.tables


def test_a_record_is_a_schema_that_all_records_keep_to() -> None:
    records = [
        {"city": f"c{n}", "kind": "ab"[n % 2], "zip": n if n % 3 else None, "tags": ["x"], "at": {"n": 1.5}}
        for n in range(40)
    ]
    labels = [json.dumps(record) for record in records]
    task = kinds.task_of(labels)
    assert task.kind == "extraction" and task.schema is not None
    check_schema(dict(task.schema))
    adheres = adherence_of(dict(task.schema))
    assert all(adheres(label) for label in labels) and not adheres('{"city": "c"}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values, min_size=1), min_size=1, max_size=6))
def test_whatever_the_records_they_keep_to_their_schema(records: list[dict[str, object]]) -> None:
    schema = kinds.schema_of(records)
    check_schema(schema)
    adheres = adherence_of(schema)
    assert all(adheres(json.dumps(record)) for record in records)


def test_many_different_answers_are_free_text_and_a_kind_that_does_not_fit_is_refused() -> None:
    assert kinds.task_of([f"answer {n}" for n in range(300)]).kind == "free_text"
    with pytest.raises(BadInput, match="300 different answers"):
        kinds.task_of([f"answer {n}" for n in range(300)], "classification")
    with pytest.raises(BadInput, match="no JSON object"):
        kinds.task_of(["a", "b"], "extraction")


def test_the_reference_is_right_about_what_words_tell_and_surely_reaches_less_than_it_reached() -> None:
    rows = drawn(800, ("a", "b", "c"))
    train, dev = rows[:600], rows[600:]
    reference = word_reference(tuple(zip(*train, strict=True)), tuple(zip(*dev, strict=True)))
    assert 0.9 < reference.lower < reference.quality <= 1
    shuffled = [(text, "abc"[n % 2]) for n, (text, _) in enumerate(dev)]
    assert word_reference(tuple(zip(*train, strict=True)), tuple(zip(*shuffled, strict=True))).quality < 0.6


def test_a_key_names_its_providers_model_and_no_key_the_embedded_one() -> None:
    keyed = at_hand({"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "none", "GEMINI_API_KEY": "g"})
    uris = [model["uri"] for model in keyed.fields["candidates"]]  # type: ignore[attr-defined]
    assert [uri.partition(":")[0] for uri in uris] == ["openai", "google"] and not keyed.are_embedded
    assert "sk-1" not in repr(keyed) and embedded().are_embedded


def drafted(uri: str, retires: date | None = None, **more: object) -> ModelEntry:
    said = {"source": "p", "checked": TODAY, "basis": "announced", "drafted": {"host": "h", "context_tokens": 8000}}
    return ModelEntry.model_validate({"uri": uri, "retires": retires} | said | more)


def test_a_model_that_is_gone_or_going_is_never_named_and_what_takes_its_place_or_the_next_in_the_book_is() -> None:
    key, soon = {"OPENAI_API_KEY": "k"}, TODAY + timedelta(days=DAYS_BEFORE)
    going, new = drafted("openai:old", soon, replacement="openai:new"), drafted("openai:new")
    for entries, named in [
        ((going, drafted("openai:next")), "openai:next"),
        ((going, new), "openai:new"),
        ((drafted("openai:old", soon + timedelta(days=1)), new), "openai:old"),
        ((going, drafted("openai:gone", TODAY - timedelta(days=1))), EMBEDDED),
        ((going, drafted("openai:new", soon)), EMBEDDED),
    ]:
        models = at_hand(key, ModelBook(models=entries))
        uris = [model["uri"] for model in models.fields["candidates"]]  # type: ignore[attr-defined]
        assert uris == [named]
        assert any("openai: its key is there" in note for note in models.notes) == (named == EMBEDDED)


@settings(max_examples=60, deadline=None)
@given(st.dates(date(2026, 1, 1), date(2032, 1, 1)), st.lists(st.dates(date(2026, 6, 1), date(2031, 1, 1)), max_size=4))
def test_on_no_day_a_draft_names_a_model_that_does_not_answer_sixty_days_later(today: date, ends: list[date]) -> None:
    entries = tuple(drafted(f"google:m{n}", end, replacement=f"google:m{n + 1}") for n, end in enumerate(ends))
    models = at_hand({"GOOGLE_API_KEY": "k"}, ModelBook(models=entries), today)
    for model in models.fields["candidates"]:  # type: ignore[attr-defined]
        known = next((each for each in entries if each.uri == model["uri"]), None)
        assert known is None or (known.retires is not None and known.retires > today + timedelta(days=DAYS_BEFORE))


def test_the_shipped_book_drafts_a_priced_model_of_each_provider_that_nothing_says_is_going() -> None:
    prices = PriceBook.model_validate(yaml.safe_load(PRICE_BOOK.read_text()))
    for provider in PROVIDERS:
        entry = BOOK.drafted_by(provider, TODAY)
        assert entry is not None and entry.uri.startswith(f"{provider}:")
        assert prices.price(entry.uri).input > 0


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_what_is_written_as_yaml_is_read_back(value: object) -> None:
    assert read_yaml(f"value: {_flow(value)}\n".encode(), "case.yaml") == {"value": value}


def test_near_duplicates_under_two_labels_are_listed_and_stay_on_one_side(tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    prepared = made([*drawn(600, ("a", "b")), (long, "a"), (f"{long} please", "b")])
    ((one, _, other, _, alike),) = prepared.description.disputed
    assert {one, other} == {long, f"{long} please"} and alike >= 0.8 and prepared.divided.straddling == 0
    held = [name for name in SPLITS if prepared.divided.tables[name]["text"].isin([one, other]).any()]
    assert len(held) == 1


def test_personal_data_and_secrets_are_told() -> None:
    rows = [(f"{text} mail me at a{n}@example.com", label) for n, (text, label) in enumerate(drawn(600, ("a", "b")))]
    assert made(rows).description.personal == {"email": 600}


def test_rows_of_one_customer_lie_on_one_side_and_the_column_keeps_its_name() -> None:
    rows = drawn(2400, ("a", "b"))
    prepared = prepare(
        [plain(rows, [f"customer {n % 600}" for n in range(2400)])], "mine", Wanted(), embedded(), "customer"
    )
    tables: dict[str, pd.DataFrame] = dict(prepared.divided.tables)
    customers = [set(tables[name]["customer"]) for name in SPLITS]
    assert sum(map(len, customers)) == len(set().union(*customers)) == 600
    data = prepared.fields["data"]
    assert isinstance(data, dict) and data["split_by"] == "customer"


def test_a_label_that_is_named_so_marks_rows_out_of_scope() -> None:
    rows = [*drawn(600, ("a", "b")), *((text, "none of these") for text, _ in drawn(60, ("z",), seed=5))]
    assert "out_of_scope" in made(rows, out_of_scope_label="None of these").divided.tables
    assert made(rows).draft.task.labels == ("a", "b", "none of these")


def test_answers_of_several_right_texts_are_free_text_however_few() -> None:
    assert kinds.task_of(['["x", "y"]', "z"] * 100).kind == "free_text"


def test_texts_that_leave_a_model_no_room_are_put_aside_and_long_ones_take_the_place_of_examples() -> None:
    rows = drawn(600, ("a", "b"))
    chinese = [("的一是不了人我在有他这中" * 60, "a")]  # 720 characters, some 2,000 bytes
    prepared = made([*rows, *chinese, ("word " * 1500, "b")])
    assert prepared.cleaned.counts["unfit"] == 2 and prepared.draft.fixed_examples == 4
    long = [(f"{' '.join([text] * 50)}", label) for text, label in rows]
    assert made(long).draft.fixed_examples == 0


def with_rare() -> list[tuple[str | None, str | None]]:
    few = [(text, "rare") for text, _ in drawn(3, ("z",), seed=7)] + [("a lone row of words", "seldom")]
    return [*drawn(600, ("a", "b")), *few]


def test_labels_with_too_few_rows_are_refused_with_both_remedies_by_default() -> None:
    with pytest.raises(BadInput, match=r"'rare' \(add 1\), 'seldom' \(add 3\).*rare=drop .*rare=other"):
        made(with_rare())


def test_rows_of_rare_labels_are_put_aside_or_given_one_label_where_that_is_asked_and_counted() -> None:
    dropped, other = made(with_rare(), rare="drop"), made(with_rare(), rare="other")
    assert dropped.draft.task.labels == ("a", "b") and dropped.cleaned.counts["rare_drop"] == 4
    assert set(dropped.divided.aside["reason"]) == {"its label has too few rows"} and len(dropped.divided.aside) == 4
    assert other.draft.task.labels == ("a", "b", "other") and other.cleaned.counts["rare_other"] == 4
    assert dict(other.cleaned.rare_labels) == {"rare": "other", "seldom": "other"}
    assert all((other.divided.tables[name]["label"] == "other").sum() == 1 for name in SPLITS)
    spelled = [(text, {"a": "Other"}.get(str(label), label)) for text, label in with_rare()]
    assert made(spelled, rare="other").draft.task.labels == ("Other", "b")


def test_rare_labels_that_are_too_few_together_are_still_refused() -> None:
    with pytest.raises(BadInput, match=r"'other' \(add 3\)"):
        made([*drawn(600, ("a", "b")), ("a lone row of words", "rare")], rare="other")
    with pytest.raises(BadInput, match="every label has too few"):
        made([(f"text number {n} {'abcdef'[n % 6]}", f"l{n % 6}") for n in range(18)], rare="drop")


def test_one_class_is_nothing_to_decide() -> None:
    with pytest.raises(BadInput, match="all 600 rows have the same expected answer"):
        made([(text, "a") for text, _ in drawn(600, ("a", "b"))])


def test_numbers_that_are_labels_are_one_however_they_are_written() -> None:
    rows = plain([("a", "1"), ("b", "1.0"), ("c", "2"), ("d", "1"), ("e", "2.5")])
    cleaned = clean(rows.rows, True, 1000)
    assert sorted(cleaned.labelled["label"]) == ["1", "1", "1", "2", "2.5"]
    assert dict(cleaned.merged_labels) == {"1.0": "1"}
    assert sorted(clean(plain([("a", "v1.0"), ("b", "v1")]).rows, True, 1000).labelled["label"]) == ["v1", "v1.0"]


def test_an_expected_answer_that_no_model_gives_out_is_put_aside_and_leaves_the_others_their_room() -> None:
    rows = [*drawn(600, ("a", "b")), ("some words of a text", "very long " * 4000)]
    prepared, without = made(rows), made(rows[:-1])
    assert prepared.cleaned.counts["long_answers"] == 1 and prepared.draft.task == without.draft.task
    assert prepared.draft.output_tokens == without.draft.output_tokens


def test_too_few_rows_of_free_text_are_not_called_a_label() -> None:
    with pytest.raises(BadInput, match=r"^too few rows: 2 are left"):
        made([("one text", "an answer"), ("other text", "another one")])
