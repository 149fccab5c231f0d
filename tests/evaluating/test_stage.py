"""A stage whose candidates could not all be measured: an outage never buys the next stage, a refusal leaves one out.

Two models behind one small server over HTTP; what a provider cannot take is raised by a toy in front of it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering import answerers
from leastwise.answering.answerer import Outage
from leastwise.answering.workspace import Workspace
from leastwise.errors import CannotBeAsked
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.evaluating.tries import Offer, Tries
from leastwise.ladder import next_step
from leastwise.ladder.candidate import Candidate
from leastwise.record.stage_run import StageRun
from tasks.prompt import prompt_candidates
from tests.servers.web_server import chat_completion, served
from tests.unit.metrics.test_any_shape import SHAPES
from tests.workspaces import case_file, opened

PRICES = {"small": 0.1, "large": 5.0}


@dataclass
class Models:
    """`small` is wrong and `large` is right, unless it is among those that are `down`."""

    down: set[str] = field(default_factory=set)
    says: Sequence[str] = ()
    asked: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        model, right = asked["model"], ["no", "yes"][int(asked["messages"][-1]["content"].split()[-1]) % 2]
        self.asked[model] += 1
        if model in self.down:
            return web.Response(status=503, text="{}")
        if self.says:
            return chat_completion(model, self.says[self.asked[model] % len(self.says)], 20, 1)
        return chat_completion(model, right if model == "large" else "neither", 20, 1)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Models, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
    server = Models()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str) -> str:
    for name, (first, last) in {"gate": (0, 200), "dev": (200, 250)}.items():
        rows = {"id": [f"r{n}" for n in range(first, last)], "text": [f"text {n}" for n in range(first, last)]}
        labels = [["no", "yes"][n % 2] for n in range(first, last)]
        pd.DataFrame(rows | {"label": labels}).to_parquet(folder / f"{name}.parquet")
    candidates = [
        {
            "uri": f"openai:{name}",
            "base_url": base_url,
            "context_tokens": 256,
            "price": {"input": usd, "cached": usd, "output": usd, "illustrative": True},
        }
        for name, usd in PRICES.items()
    ]
    fields: dict[str, Any] = {
        "name": "outage",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet", "dev": "dev.parquet"},
        "requirements": {"quality": {"bound": 0.9, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": candidates},
        "allow_no_test": True,
    }
    return case_file(folder, fields)


def plain(work: Workspace) -> list[Candidate | Offer]:
    return [each for each in prompt_candidates(work) if each.prompt and not each.prompt.constrained]


def prompt_stage(path: str) -> StageResult:
    work = opened(path)
    return evaluate_stage(work, "prompt", plain(work))


def step_after(path: str) -> str:
    work = opened(path)
    last = work.run.latest("prompt")
    step = next_step(work.use_case, work.run.history(work.use_case.gate_requirements, last.id))
    return f"{step.action} {step.outcome or step.stage}"


def test_an_outage_of_the_dearer_model_is_an_error_and_a_rerun_asks_only_what_was_lost(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    path = case(tmp_path, base_url)
    server.down = {"large"}
    result = prompt_stage(path)
    assert result.verdict.outcome == "ERROR" and "were lost to the infrastructure" in result.verdict.reason
    assert not result.run.is_finished, "it can be taken up again"
    assert step_after(path) == "end error", "an outage must never buy the next stage"
    small = server.asked["small"]
    server.down = set()
    again = prompt_stage(path)
    assert again.verdict.outcome == "PASS" and again.run.candidate().model == "openai:large"
    assert server.asked["small"] == small, "what was answered is not bought again"


def test_after_an_outage_of_the_cheap_model_a_dearer_one_is_tried_and_its_pass_is_one(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    server.down = {"small"}
    result = prompt_stage(case(tmp_path, base_url))
    assert result.verdict.outcome == "PASS" and result.run.candidate().model == "openai:large"
    verdicts = [StageRun(result.run.client, each).verdict for each in result.run.children()]
    assert verdicts == ["ERROR", "PASS"]


def test_a_failure_logged_over_a_lost_try_by_an_earlier_version_is_measured_again(
    home: Path, tmp_path: Path, models: Any
):
    path = case(tmp_path, models[1])
    work = opened(path)
    result = evaluate_stage(work, "prompt", plain(work)[:1])
    assert result.verdict.outcome == "FAIL" and result.run.is_finished
    child = work.run.open_stage("prompt", "large", under=result.run.id)
    child.write(tags={"leastwise.verdict": "ERROR"})
    child.close("FAILED")
    assert opened(path).run.stage_runs() == []
    assert evaluate_stage(opened(path), "prompt", plain(work)[:1]).how == "measured"
    healed = work.run.open_stage("prompt", "large", under=result.run.id)
    healed.write(tags={"leastwise.verdict": "FAIL"})
    healed.close()
    assert result.run.again().is_whole, "of a try that was measured again the last one counts"


@contextmanager
def refusing(monkeypatch: pytest.MonkeyPatch, *uris: str) -> Iterator[None]:
    """These models cannot be asked: said when the first look is asked for."""

    class Refusing:
        usd_worst_case, fixed_usd_per_request = 0.01, 0.0

        def __init__(self, uri: str) -> None:
            self.uri = uri

        def answer(self, rows: pd.DataFrame) -> Any:
            raise CannotBeAsked(f"{self.uri}: takes no system role")

    @contextmanager
    def opening(work: Workspace, candidate: Candidate, *more: Any, **named: Any) -> Iterator[Any]:
        if candidate.model in uris:
            yield Refusing(candidate.model)
        else:
            with answerers.open_answerer(work, candidate, *more, **named) as answerer:
                yield answerer

    with monkeypatch.context() as patched:
        patched.setattr("leastwise.evaluating.stage.open_answerer", opening)
        yield


def test_a_model_that_cannot_be_asked_is_left_out_with_its_reason_and_the_next_is_asked(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
):
    path = case(tmp_path, models[1])
    with refusing(monkeypatch, "openai:small"):
        result = prompt_stage(path)
    assert result.verdict.outcome == "PASS" and result.run.candidate().model == "openai:large"
    left_out = StageRun(result.run.client, result.run.children()[0])
    assert (left_out.verdict, left_out.reason) == ("SKIPPED", "openai:small: takes no system role")
    assert "SKIPPED" in left_out.name


def test_a_stage_that_failed_beside_a_model_left_out_has_failed(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
):
    path = case(tmp_path, models[1])
    with refusing(monkeypatch, "openai:large"):
        assert prompt_stage(path).verdict.outcome == "FAIL"
    assert step_after(path).startswith("skip"), "it goes on up the ladder"


def test_a_stage_of_which_nothing_could_be_asked_is_an_error_that_says_why(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
):
    path = case(tmp_path, models[1])
    with refusing(monkeypatch, "openai:small", "openai:large"):
        result = prompt_stage(path)
    assert result.verdict.outcome == "ERROR" and not result.run.is_finished
    assert "no model could be asked in this stage: openai:small unconstrained: openai:small: takes no system role" in (
        result.verdict.reason
    )
    assert step_after(path) == "end error"
    assert prompt_stage(path).verdict.outcome == "PASS", "it is taken up again"


@dataclass
class LostOffer:
    """An offer that an outage keeps from being weighed."""

    stage: str = "prompt"
    key: str = "lost"

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        raise Outage("the cascade small → large could not be weighed: 50 of 50 dev rows were lost")


@pytest.mark.parametrize(("tried", "outcome"), [(1, "ERROR"), (2, "PASS")])
def test_an_offer_that_an_outage_keeps_from_being_weighed_is_an_error_unless_another_passes(
    home: Path, tmp_path: Path, models: Any, tried: int, outcome: str
):
    work = opened(case(tmp_path, models[1]))
    small, large = plain(work)
    listed: list[Any] = [small, LostOffer(), large][: tried + 1]
    result = evaluate_stage(work, "prompt", listed)
    assert result.verdict.outcome == outcome
    assert outcome == "PASS" or "dev rows were lost" in result.verdict.reason


def test_an_answer_of_any_shape_or_size_is_scored_stored_and_logged(home: Path, tmp_path: Path, models: Any):
    server, base_url = models
    path = case(tmp_path, base_url)
    server.says = (*SHAPES, "word " * 800_000)
    result = prompt_stage(path)
    assert result.verdict.outcome == "FAIL", result.verdict.reason
    asked = server.asked.total()
    work = opened(path)
    again = evaluate_stage(work, "prompt", plain(work)[:1])
    assert server.asked.total() == asked, "and no second time"
    small = StageRun(result.run.client, result.run.children()[0])
    assert again.evaluation.measurements == small.evaluation().measurements
