"""What an endpoint logged is what the stage cache replays, drift watches and a retraining may learn from.

A real endpoint answers; its log is read as it lies there, while more comes in.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.audit import differences
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.metrics.answer import Answer
from leastwise.record.judged_runs import use_case_above
from leastwise.rows.reading.log_copies import FOLDER
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores.tables import table_files
from tasks.cache import cache_candidate
from tasks.drift import read_window
from tasks.prompt import prompt_candidates
from tasks.retrain import with_examples
from tasks.session.workspace import situation_of
from tests.evaluating.test_cache_stage import GATE, LIMITS, PRICE, Parity, parity_in, rows
from tests.serving.endpoints import Aliases, running_endpoint
from tests.workspaces import case_file, opened

REQUESTS, DISTINCT = 200, 20


@dataclass
class Champion:
    """Says odd to everything, but for what it cannot answer."""

    key: str = "c0ffee"
    mask: tuple[str, ...] = ()

    async def answer(self, text: str) -> Answer:
        if text.endswith("3"):
            return Answer(None, None, 0.0, error="away")
        return Answer("odd", 1.0, 0.001, input_tokens=7, output_tokens=1)

    async def aclose(self) -> None:
        """Nothing is open."""


async def open_champion(version: str) -> Champion:
    return Champion()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of an endpoint that was asked 20 texts ten times over, and by a shadow beside it."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder / "home"))
        aliases = Aliases({"champion": "1", "challenger": "2"})
        with running_endpoint(aliases, opener=open_champion, traffic_log=str(folder), shadow_share=0.5) as endpoint:
            texts = [f"number {70_000 + at % DISTINCT}" for at in range(REQUESTS)]
            for at in range(0, REQUESTS, 50):
                endpoint.client.post(f"{endpoint.url}/invocations", json={"inputs": texts[at : at + 50]})
    yield folder / "toy"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[tuple[Parity, str]]:
    with parity_in(tmp_path_factory.mktemp("replaying"), empty_tracking) as served_model:
        yield served_model


def case(
    folder: Path,
    address: str,
    traffic: Path,
    name: str = "log",
    requirements: dict[str, Any] | None = None,
    **data: Any,
) -> str:
    """A use case whose own tables call the expected answer `answer`, as the log calls what the champion said."""
    rows(GATE, "g").rename(columns={"label": "answer"}).to_parquet(folder / "gate.parquet")
    return case_file(
        folder,
        {
            "name": name,
            "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
            "data": {"gate": "gate.parquet", "traffic": str(traffic), "label_column": "answer"} | data,
            "requirements": requirements or {name: {"bound": b, "margin": m} for name, (b, m) in LIMITS.items()},
            "traffic": {"requests_per_month": 1000, "concurrency": 4, "output_tokens": 8},
            "models": {
                "candidates": [{"uri": "openai:toy", "base_url": address, "price": PRICE, "context_tokens": 200}]
            },
            "retrieval": {"fixed_examples": 0},
            "allow_no_test": True,
        },
    )


def grown(log: Path, folder: Path) -> Path:
    """A copy of the log to which something was added."""
    shutil.copytree(log, folder / "log")
    return folder / "log"


def more(log: Path) -> None:
    """Another part of the log, of requests that came later."""
    later = table_files.read_table(log).assign(
        id=lambda each: "later-" + each["id"], time=lambda each: each["time"] + 9
    )
    later["text"] = [f"number {80_000 + at}" for at in range(len(later))]
    table_files.write_table(later, log / "date=2000-01-01" / "0.parquet")


@dataclass
class Climb:
    path: str
    log: Path
    work: Workspace
    result: StageResult
    asked: Counter[str]


@pytest.fixture(scope="module")
def climb(model: tuple[Parity, str], log: Path, tmp_path_factory: pytest.TempPathFactory) -> Climb:
    """A climb that was begun on a log which went on growing, and was taken up from its beginning in between."""
    folder = tmp_path_factory.mktemp("climbing")
    growing = grown(log, folder)
    path = case(folder, model[1], growing)
    begun = opened(path)
    evaluate_stage(begun, "prompt", prompt_candidates(begun)[:1])
    more(growing)
    work, before = opened(path), model[0].asked.copy()
    result = evaluate_stage(work, "cache", [cache_candidate(work)])
    assert work.run.id == begun.run.id and work.question.key == begun.question.key, "it is the same question still"
    return Climb(path, growing, work, result, model[0].asked - before)


def test_the_stage_cache_replays_what_an_endpoint_logged_as_often_as_it_was_asked(climb: Climb) -> None:
    assert climb.result.verdict.outcome == "PASS", climb.result.verdict.reason
    assert set(climb.asked.values()) == {1} and len(climb.asked) == DISTINCT
    figures = climb.result.run.figures
    assert figures["cache.hit_rate"] == pytest.approx(1 - DISTINCT / REQUESTS), "at its own times: all within a day"
    assert situation_of(climb.work).repeat_share == pytest.approx(1 - DISTINCT / REQUESTS)
    assert len(climb.work.tables.need("traffic")) == REQUESTS, "each request once, without what the shadow was asked"


def test_what_the_champion_said_is_no_expected_answer(climb: Climb) -> None:
    """It says odd to all; were that expected, the model would be right in a half of the requests and fail."""
    examples = climb.result.run.every_example()
    of_traffic = examples[examples["set"] == "traffic"]
    assert of_traffic["expected"].isna().all() and set(of_traffic["answer"]) == {"odd", "even"}
    assert climb.result.evaluation.measurements["quality"].estimate == 1.0
    assert differences(climb.result.run.again(), use_case_above(climb.result.run)) == []


def test_a_log_that_grows_is_copied_once_a_climb_and_read_anew_by_the_next(
    climb: Climb, model: tuple[Parity, str]
) -> None:
    copies = list((climb.work.home / FOLDER).glob("log-traffic-*"))
    assert [str(each) for each in copies] == [climb.work.use_case.data.traffic]
    climb.work.run.close()
    following = opened(climb.path)
    assert following.run.id != climb.work.run.id
    assert len(following.tables.need("traffic")) == 2 * REQUESTS


def test_the_stage_fails_where_what_was_logged_repeats_too_little(
    log: Path, model: tuple[Parity, str], tmp_path: Path
) -> None:
    """Each text twice saves a half, and ten times nine tenths: it is the repetition that decides."""
    one = table_files.read_table(log)
    twice = pd.concat([one, one.head(100)]).reset_index(drop=True)
    twice["id"], twice["time"] = [f"twice-{at}" for at in twice.index], one["time"].min() + twice.index
    twice["text"] = [f"number {90_000 + at % 150}" for at in twice.index]
    table_files.write_table(twice, tmp_path / "log" / "date=2026-11-26" / "1.parquet")
    dear = {name: {"bound": bound, "margin": margin} for name, (bound, margin) in LIMITS.items()}
    dear["usd_per_1k_requests"] = {"bound": 0.012, "margin": 0.004}
    work = opened(case(tmp_path, model[1], tmp_path / "log", "twice", requirements=dear))
    evaluate_stage(work, "prompt", prompt_candidates(work)[:1])
    result = evaluate_stage(work, "cache", [cache_candidate(work)])
    assert result.verdict.named("FAIL") == ("usd_per_1k_requests",), result.verdict.reason
    assert result.run.figures["cache.hit_rate"] == 0.5


def test_a_log_that_repeats_nothing_is_a_reason_to_skip_the_stage(
    log: Path, model: tuple[Parity, str], tmp_path: Path
) -> None:
    once = table_files.read_table(log).drop_duplicates("text")
    table_files.write_table(once, tmp_path / "log" / "date=2026-11-26" / "1.parquet")
    assert situation_of(opened(case(tmp_path, model[1], tmp_path / "log", "once"))).repeat_share == 0


def test_drift_and_a_teacher_read_the_requests_of_a_log(log: Path, model: tuple[Parity, str], tmp_path: Path) -> None:
    use_case = load(case(tmp_path, model[1], log, unlabelled=str(log)))
    recent = pd.concat(read_window(use_case, str(log)))
    assert len(recent) == REQUESTS and recent["text"].nunique() == DISTINCT
    assert len(pd.concat(read_window(use_case, str(next(log.iterdir()))))) == REQUESTS, "a day of it"
    with pytest.raises(BadInput, match="asked in the shadow"):
        list(read_window(use_case, str(log.with_name("toy-shadow"))))
    work = opened(case(tmp_path, model[1], log, "taught", unlabelled=str(log)))
    assert len(work.tables.need("unlabelled")) == REQUESTS


def test_a_retraining_learns_from_a_log_only_what_people_said_of_it(
    log: Path, model: tuple[Parity, str], tmp_path: Path
) -> None:
    rows(range(50), "n").rename(columns={"label": "answer"}).to_parquet(tmp_path / "train.parquet")
    case(tmp_path, model[1], log, train="train.parquet")
    use_case = load(str(tmp_path / "case.yaml"))
    with pytest.raises(BadInput, match="what a model answered is no expected answer"):
        with_examples(use_case, None, str(log))
    asked = table_files.read_table(log).drop_duplicates("text")
    labelled = asked.assign(label=["odd" if int(text[-1]) % 2 else "even" for text in asked["text"]])
    table_files.write_table(labelled, tmp_path / "people.parquet")
    union = Tables(with_examples(use_case, None, str(tmp_path / "people.parquet"))).need("train")
    assert len(union) == 50 + DISTINCT
    right = dict(zip(union["text"], union["label"], strict=True))
    assert right["number 70002"] == "even", "the champion had said odd"
