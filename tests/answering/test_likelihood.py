"""The likelihood of labels and plain completions, asked of a real llama.cpp server: right numbers, kept once, read
alike in a climb and in production.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from leastwise.answering.answerers import open_answerer
from leastwise.answering.reaching.reached import open_asker
from leastwise.answering.reading.labels import as_read, begin_apart, first_tokens
from leastwise.answering.served import requests_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.completion.asking import likelihoods_in
from leastwise.endpoints.request import Message, Request, Target, request_key
from leastwise.engines.llama_cpp import serve_causal
from leastwise.errors import BadInput
from leastwise.evidence.choosing.calibration import Calibration
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.metrics.answer import Answer
from tests.workspaces import case_file, opened

LABELS = ("collection", "discovery", "impact", "execution")
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}


@pytest.fixture
def work(home: Path, tmp_path: Path, tiny: Path) -> Workspace:
    rows = {"id": [f"r{n}" for n in range(40)], "text": [f"The sample {n} deletes files." for n in range(40)]}
    for name in ("gate", "dev", "train"):
        texts = [f"{name}: {text}" for text in rows["text"]]
        pd.DataFrame(rows | {"text": texts, "label": [*LABELS] * 10}).to_parquet(tmp_path / f"{name}.parquet")
    case: dict[str, Any] = {
        "name": "likely",
        "task": {"instruction": "Name the tactic.", "labels": list(LABELS)},
        "data": {name: f"{name}.parquet" for name in ("train", "gate", "dev")},
        "requirements": {"quality": {"bound": 0.9, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": tiny.as_uri(), "venue": "api", "price": PRICE, "context_tokens": 512}]},
        "allow_no_test": True,
        "search": {"rows": 0},
    }
    return opened(case_file(tmp_path, case))


def candidate(work: Workspace, **prompt: Any) -> Candidate:
    model = work.use_case.models.candidates[0]
    revision = work.catalogue.asked_revision(model)
    return Candidate(
        stage="prompt", model=model.uri, revision=revision, venue="api", prompt=Prompt(system="Name it.", **prompt)
    )


def replies(work: Workspace, asked: Candidate, rows: pd.DataFrame) -> tuple[list[Request], list[Any]]:
    with ExitStack() as stack:
        asker = open_asker(work, asked, stack)
        requests = requests_of(work, asked, list(rows["id"]), list(rows["text"]))
        return requests, asker.ask(requests)


@pytest.mark.parametrize("form", ["chat", "completion"])
def test_likelihoods_are_the_softmax_over_the_labels_of_what_the_model_says_of_every_token(
    work: Workspace, tiny: Path, tiny_gguf: Path, tmp_path: Path, form: Any
) -> None:
    rows = work.tables.need("dev").head(2)
    requests, came = replies(work, candidate(work, format=form, reading="likelihood"), rows)
    (gguf,) = (work.home / "gguf").glob("*.gguf")
    with serve_causal(gguf, name="tiny", log=tmp_path / "log") as endpoint:
        for request, reply in zip(requests, came, strict=True):
            whole = {"model": "tiny", "prompt": request.messages[0].content, "max_tokens": 1, "logprobs": 50_000}
            key = {"Authorization": f"Bearer {endpoint.api_key}"}
            body = httpx.post(
                f"{endpoint.base_url}/completions", json=whole | {"temperature": 0}, headers=key, timeout=60
            )
            told = body.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            every = {each["id"]: each["logprob"] for each in told}
            raw = [every[token] for token in first_tokens(tiny, LABELS, form)]
            total = math.log(sum(map(math.exp, raw)))
            found = likelihoods_in(reply.text)
            assert found is not None
            assert [found[label] for label in LABELS] == pytest.approx([each - total for each in raw], abs=0.02)


def test_the_likeliest_label_is_the_answer_always_in_format_with_its_probability_as_confidence(work: Workspace) -> None:
    rows = work.tables.need("dev").head(6)
    asked = candidate(work, format="completion", reading="likelihood")
    with open_answerer(work, asked) as answerer:
        answers: list[Answer] = answerer.answer(rows)
    assert all(each.text in LABELS and each.output_tokens == 1 and each.finish_reason == "stop" for each in answers)
    assert all(each.confidence is not None and 1 / len(LABELS) <= each.confidence <= 1 for each in answers)


def test_another_calibration_asks_nothing_again_and_may_answer_otherwise(work: Workspace) -> None:
    rows = work.tables.need("dev").head(4)
    bare = candidate(work, format="completion", reading="likelihood")
    unlikely = dict.fromkeys(LABELS[1:], 0.0) | {LABELS[0]: -30.0}
    calibration = Calibration(temperature=2.0, log_prior=unlikely)
    other = bare.model_copy(update={"prompt": bare.prompt.model_copy(update={"calibration": calibration})})  # type: ignore[union-attr]
    assert bare.key != other.key
    with open_answerer(work, bare) as answerer:
        assert not any(each.from_store for each in answerer.answer(rows))
    with open_answerer(work, other) as answerer:
        answers = answerer.answer(rows)
    assert all(each.from_store and each.text == LABELS[0] for each in answers)


def test_a_completion_is_one_line_asked_for_as_plain_text_and_kept_once(work: Workspace) -> None:
    rows = work.tables.need("dev").head(3)
    asked = candidate(work, format="completion")
    with open_answerer(work, asked, confident=True) as answerer:
        first, again = answerer.answer(rows), answerer.answer(rows)
    assert all(each.text is not None and "\n" not in each.text and each.text == each.text.strip() for each in first)
    assert all(each.usd > 0 and each.latency_ms and each.confidence for each in first if each.text)
    assert [each.text for each in again] == [each.text for each in first]
    assert all(each.from_store for each in again)


def test_a_completion_and_a_chat_of_the_same_words_have_keys_of_their_own_and_older_requests_keep_theirs() -> None:
    target = Target("openai:m")
    plain = Request("r", (Message("user", "text"),), 5)
    assert request_key(target, plain) == "972ca85d39bb4708b36a810a70dd1632fa2f9f268d85efc0097e158d5b95d4e4"
    forms = (Request("r", plain.messages, 5, is_completion=True), Request("r", plain.messages, 5, first_tokens=(1, 2)))
    assert len({request_key(target, each) for each in (plain, *forms)}) == 3


def test_labels_that_begin_alike_are_refused_by_name_and_known_before_anything_is_asked(tiny: Path) -> None:
    alike = ("exfiltration", "extortion-of-money")
    if begin_apart(tiny, alike, "completion"):
        alike = ("network-scan", "network-share")
    assert not begin_apart(tiny, alike, "completion")
    with pytest.raises(BadInput, match=f"{alike[0]}.*{alike[1]}.*reading: generate"):
        first_tokens(tiny, alike, "completion")


def test_what_tells_no_likelihood_stays_as_it_came(work: Workspace) -> None:
    rows = work.tables.need("dev").head(1)
    _, (reply,) = replies(work, candidate(work, format="completion"), rows)
    assert as_read(candidate(work, format="completion", reading="likelihood"), reply) == reply


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield
