"""A use case that cannot be meant, measured or afforded is refused, and the message names the field and the remedy."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from leastwise.ladder.candidate import Candidate, Retriever
from leastwise.use_case import UseCase

Fields = dict[str, Any]
GOOD: Fields = {
    "name": "triage",
    "task": {"instruction": "Name the tactic.", "labels": ["impact", "discovery"]},
    "data": {"gate": "gate.csv", "test": "test.csv"},
    "requirements": {"quality": {"bound": 0.8, "margin": 0.05}},
    "traffic": {"requests_per_month": 1000},
    "models": {"candidates": [{"uri": "openai:gpt-4o-mini"}]},
}


def changed(path: str, value: object) -> Fields:
    fields = deepcopy(GOOD)
    *parents, last = path.split(".")
    at: Any = fields
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
    at[last] = value
    return fields


def refusal(fields: Fields) -> str:
    with pytest.raises(ValidationError) as refused:
        UseCase.model_validate(fields)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in refused.value.errors())


def test_the_smallest_use_case_is_accepted_and_frozen() -> None:
    use_case = UseCase.model_validate(GOOD)
    with pytest.raises(ValidationError):
        use_case.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "field", "words"),
    [
        ("colour", 1, "colour", "Extra inputs"),
        ("task.colour", 1, "task.classification.colour", "Extra inputs"),
        ("requirements.speed", {"bound": 1, "margin": 0.1}, "requirements.speed", "Extra inputs"),
        ("last_stage", "ragg", "last_stage", "'rag'"),
        ("approvals", {"finetune": "never"}, "approvals.finetune", "'fine_tune'"),
        ("approvals", {"rag": "perhaps"}, "approvals.rag", "'granted'"),
        ("requirements.quality.bound", 1.2, "quality.bound", "outside 0..1"),
        ("requirements.quality.bound", 0.0, "quality.bound", "outside 0..1"),
        ("requirements.quality.bound", float("nan"), "requirements.quality.bound", "finite"),
        ("requirements.quality.margin", -0.1, "requirements.quality.margin", "greater than or equal to 0"),
        ("requirements.quality.margin", 0.8, "quality.margin", "anything would pass"),
        ("requirements.quality.margin", 0.0, "requirements.quality.margin", "population: this_set"),
        ("requirements.p95_latency_ms", {"bound": 0, "margin": 1}, "p95_latency_ms.bound", "above 0"),
        ("requirements.p95_latency_ms", {"bound": 100, "margin": 300}, "p95_latency_ms.margin", "say nothing"),
        ("requirements.usd_per_1k_requests", {"bound": -1, "margin": 0.1}, "usd_per_1k_requests.bound", "above 0"),
        ("requirements.adherence", {"bound": 0.5, "margin": 0.1}, "adherence.bound", "contradicts quality.bound"),
        ("requirements", {}, "requirements", "at least one"),
        ("requirements.ood_decline", {"bound": 0.8, "margin": 0.1}, "requirements.ood_decline", "data.out_of_scope"),
        ("requirements.shift_quality", {"bound": 0.7, "margin": 0.1}, "requirements.shift_quality", "data.shifted"),
        ("requirements.residency", {"venues": ["self_host"]}, "requirements.residency", "add one in self_host"),
        ("requirements.residency", {"venues": ["api"], "hosts": ["eu.example"]}, "requirements.residency", "host"),
        ("requirements.residency", {"venues": ["moon"]}, "requirements.residency.venues", "'self_host'"),
        ("models.candidates.0.price", {"input": -1, "output": 1}, "price.input", "greater than or equal to 0"),
        ("models.candidates.0.uri", "gpt-4o-mini", "uri", "names no model"),
        ("models.candidates.0.uri", "ftp://model", "uri", "names no model"),
        ("models.candidates.0.uri", "openai: gpt-4o", "uri", "names no model"),
        ("models.embedder", "minilm", "uri", "names no model"),
        ("models.base", {"uri": "openai:gpt-4o"}, "base", "not open weights"),
        ("models.candidates", [], "models.candidates", "at least 1"),
        ("traffic.requests_per_month", -5, "traffic.requests_per_month", "greater than 0"),
        ("traffic.requests_per_month", 0, "traffic.requests_per_month", "greater than 0"),
        ("traffic.peak_requests_per_s", -1, "traffic.peak_requests_per_s", "greater than 0"),
        ("traffic.retry_share", 1.5, "traffic.retry_share", "less than or equal to 1"),
        ("hosting.usd_per_month_per_machine", -1, "hosting.usd_per_month_per_machine", "greater than or equal to 0"),
        ("budget_usd", -1, "budget_usd", "greater than or equal to 0"),
        ("alpha", 0.5, "alpha", "less than or equal to 0.2"),
        ("task.labels", ["impact", "impact"], "labels", "listed twice"),
        ("task.labels", ["impact"], "task.classification.labels", "at least 2"),
        ("task.decline_label", "impact", "decline_label", "must not be one of labels"),
        ("task.kind", "poetry", "task", "is none of classification, extraction, free_text"),
        ("data", {"gate": "gate.csv"}, "data.test", "allow_no_test"),
        ("data", {"test": "test.csv"}, "data.gate", "required"),
        ("name", "No Spaces", "name", "pattern"),
    ],
)
def test_bad_input_is_refused_by_field(path: str, value: object, field: str, words: str) -> None:
    said = refusal(changed(path, value))
    assert field in said
    assert words in said


def test_shifted_inputs_are_not_asked_to_do_better_than_ordinary_ones() -> None:
    fields = changed("requirements.shift_quality", {"bound": 0.9, "margin": 0.05})
    fields["data"]["shifted"] = "shifted.csv"
    assert "shift_quality.bound: 0.9 contradicts quality.bound 0.8" in refusal(fields)
    fields["requirements"]["shift_quality"]["bound"] = 0.7
    assert UseCase.model_validate(fields).requirements.shift_quality is not None


def remedied(change: Callable[[Fields], None], path: str, value: object) -> UseCase:
    fields = changed(path, value)
    change(fields)
    return UseCase.model_validate(fields)


def test_the_remedies_the_messages_name_do_help() -> None:
    remedied(lambda f: f["data"].update(population="this_set"), "requirements.quality.margin", 0.0)
    remedied(lambda f: f.update(allow_no_test=True), "data", {"gate": "gate.csv"})
    remedied(
        lambda f: (f["data"].update(out_of_scope="o.csv"), f["task"].update(decline_label="none")),
        "requirements.ood_decline",
        {"bound": 0.8, "margin": 0.1},
    )
    remedied(
        lambda f: f["models"]["candidates"].append({"uri": "hf://org/open", "venue": "self_host"}),
        "requirements.residency",
        {"venues": ["self_host"]},
    )


@pytest.mark.parametrize(
    "uri", ["hf://o/n", "s3://b/k", "file:///m", "package://p", "openai:x", "anthropic:x", "google:x"]
)
def test_every_scheme_of_the_design_names_a_model(uri: str) -> None:
    model = UseCase.model_validate(changed("models.candidates.0.uri", uri)).models.candidates[0]
    assert model.is_open == ("://" in uri)


@pytest.mark.parametrize(
    ("approvals", "stage", "usd", "leave"),
    [
        ({}, "rag", 1, "granted"),
        ({}, "rag", 101, "ask"),  # above ask_above_usd
        ({}, "pretrain", 0, "ask"),
        ({}, "self_host", 0, "ask"),
        ({"pretrain": "granted"}, "pretrain", 1000, "granted"),
        ({"rag": "never"}, "rag", 0, "never"),
        ({"rag": "ask"}, "rag", 0, "ask"),
    ],
)
def test_what_is_not_said_asks_for_the_dear_and_the_risky(
    approvals: Fields, stage: Any, usd: float, leave: str
) -> None:
    assert UseCase.model_validate(GOOD | {"approvals": approvals}).approval(stage, usd) == leave


GENERAL = {"bound": 0.6, "margin": 0.2}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training.replay_share": 0.2}, "training.replay_share: 0.2 of what"),
        ({"requirements.general_ability": GENERAL}, "add data.general"),
        ({"requirements.general_ability": GENERAL, "data.general": "g.csv"}, "openai:.* cannot be measured"),
        (
            {
                "requirements.general_ability": GENERAL,
                "data.general": "g.csv",
                "models.candidates": [{"uri": "package://m"}],
                "reference": "stop",
            },
            "reference: stop",
        ),
    ],
)
def test_general_ability_and_replay_are_refused_where_nothing_can_measure_or_feed_them(
    changes: dict[str, Any], says: str
) -> None:
    fields = changed("name", "general")
    for path, value in changes.items():
        part = fields
        *parents, last = path.split(".")
        for name in parents:
            part = part.setdefault(name, {})
        part[last] = value
    assert re.search(says, refusal(fields))


def test_general_text_is_replayed_by_default_and_not_without_it() -> None:
    assert UseCase.model_validate(changed("data.general", "g.csv")).replay_share == 0.1
    assert UseCase.model_validate(changed("name", "no-general")).replay_share == 0.0
    given = changed("data.general", "g.csv") | {"training": {"replay_share": 0.0}}
    wanted = UseCase.model_validate(given)
    assert wanted.replay_share == 0.0 and UseCase.model_validate(wanted.model_dump(mode="json")) == wanted


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (
            {"gold_column": "gold"},
            "dense",
            "data.gold_column: names documents that answer a row, but data.documents is missing",
        ),
        (
            {"documents": "d.csv", "dev": "d.csv"},
            "auto",
            "retrieval.mode: auto chooses by the gold documents of dev rows",
        ),
        (
            {"documents": "d.csv", "gold_column": "gold"},
            "auto",
            "add data.gold_column, data.dev and retrieval.documents",
        ),
    ],
)
def test_a_search_that_cannot_be_chosen_or_measured_is_refused(data: Fields, mode: str, words: str) -> None:
    assert words in refusal(GOOD | {"data": GOOD["data"] | data, "retrieval": {"documents": 3, "mode": mode}})


def test_another_search_is_another_candidate_and_the_default_is_not_written() -> None:
    retriever = Retriever(embedder="e", index="i", examples=3)
    candidate = Candidate(stage="rag", model="openai:m", venue="api", retriever=retriever)
    by_words = candidate.model_copy(update={"retriever": retriever.model_copy(update={"mode": "bm25"})})
    assert by_words.key != candidate.key and Candidate.model_validate_json(by_words.model_dump_json()) == by_words
    assert "mode" not in UseCase.model_validate(GOOD).model_dump()["retrieval"]


def test_a_length_that_was_always_so_leaves_the_question_as_it_was() -> None:
    from tests.unit.use_cases import use_case

    written = use_case().model_dump(mode="json")["training"]
    assert "max_tokens" not in written and "max_tokens" not in written["student"]
    longer = use_case(training={"max_tokens": 1024, "student": {"kind": "encoder", "max_tokens": 128}})
    written = longer.model_dump(mode="json")["training"]
    assert (written["max_tokens"], written["student"]["max_tokens"]) == (1024, 128)
