"""A stage whose tries race: one that is left undecided is parked, and what it comes to does not depend on that.

Models behind one small server over HTTP, or a toy that answers from a column of its rows; looks, tests and MLflow are
the real ones. What racing saves, and that it errs no more often, is simulated in tests/unit/ladder/test_race.py.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.answering import answerers
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.audit import differences
from leastwise.evaluating.evaluation import Measuring, evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evaluating.stage import StageResult, evaluate_stage
from leastwise.evaluating.tries import Offer, Tries
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.record.judged_runs import use_case_above
from leastwise.record.run import PARKED
from leastwise.record.stage_run import StageRun
from leastwise.rows import gate_rows
from leastwise.rows.question import JudgedRows
from tasks.audit import audit_verdicts
from tasks.prompt import prompt_candidates
from tests.evaluating.test_evaluation import CANDIDATE, EVERYTHING
from tests.evaluating.toy_answerer import Toy
from tests.servers.web_server import chat_completion, served
from tests.toys import SEED, table, use_case
from tests.workspaces import case_file, opened

ROWS = 400
SHARES = {
    "middling": 80,
    "good": 97,
    "poor": 40,
    "nearly": 81,
    "better": 82,
}  # of 100 rows, how many are answered rightly


# -- what is measured does not depend on where it was left -------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    leaves=st.lists(st.integers(0, 8), max_size=12),
    share=st.sampled_from([0.6, 0.72, 0.85, 0.97]),
    lost=st.integers(0, 3),
    has_units=st.booleans(),
    population=st.sampled_from(["future_traffic", "this_set"]),
    seed=st.integers(0, 5),
)
def test_left_after_any_looks_and_gone_on_with_by_another_answerer_it_is_measured_as_in_one_go(
    leaves: list[int], share: float, lost: int, has_units: bool, population: str, seed: int
):
    rng = np.random.default_rng(seed)
    more = {"unit_by": "conversation"} if has_units else {}
    wanted = use_case(EVERYTHING, population=population, **more)
    rows = table((rng.random(300) < share).astype(int), per_unit=2 if has_units else 1)
    rows["usd"] = 0.001 + rng.random(len(rows)) / 500
    beyond = {name: table((rng.random(120) < share).astype(int), named=name) for name in ("out", "shift")}
    beyond["out"]["right"] = np.where(beyond["out"]["right"] == 1, -1, 0)
    inputs = Inputs(JudgedRows(gate_rows.seeded(rows, SEED), SEED), beyond["out"], beyond["shift"])
    losing = frozenset(rows["id"].iloc[:: max(1, len(rows) // max(lost, 1))].head(lost))
    asked: list[list[str]] = []
    toy = partial(Toy, lost=losing, looks=asked)
    begin = (wanted, CANDIDATE, toy(), inputs, Alphas(0.05, 0.05))
    whole = evaluate(*begin, ExactScorer(wanted.task))
    in_one_go, asked[:] = list(asked), []

    measuring = Measuring(*begin, ExactScorer(wanted.task))
    for looks in leaves:
        left = iter(range(looks))
        measuring.go_on(toy(), lambda left=left: next(left, None) is None)  # type: ignore[misc]  # bound for this turn
        measuring.measured("parked")  # asking what there is changes nothing
    measuring.go_on(toy())
    assert measuring.is_over and asked == in_one_go
    assert measuring.measured() == whole


# -- a stage -----------------------------------------------------------------------------------------------------------


@dataclass
class Models:
    """A model answers rightly the share of rows that its name stands for; `dies_after` so many calls."""

    asked: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        model, text = asked["model"], asked["messages"][-1]["content"]
        number = int(text.split()[-1])
        self.asked[model] += 1
        self.order.append(model)
        is_right = (number * 37) % 100 < SHARES[model]
        answer = "none" if "outside" in text else ["no", "yes"][(number + (not is_right)) % 2]
        return chat_completion(model, answer, 20, 1)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Models, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = Models()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def case(folder: Path, base_url: str, *names: str, **changes: Any) -> str:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(ROWS).tolist()
    rows = {"id": [f"r{n}" for n in numbers], "text": [f"text {n}" for n in numbers]}
    labels = [["no", "yes"][n % 2] for n in numbers]
    pd.DataFrame(rows | {"label": labels}).to_parquet(folder / "gate.parquet")
    outside = {"id": [f"o{n}" for n in range(60)], "text": [f"outside {n}" for n in range(60)]}
    pd.DataFrame(outside).to_parquet(folder / "out_of_scope.parquet")
    price = {"input": 1.0, "cached": 1.0, "output": 1.0, "illustrative": True}
    fields: dict[str, Any] = {
        "name": "raced",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.85, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [
                {"uri": f"openai:{name}", "base_url": base_url, "context_tokens": 256, "price": price} for name in names
            ]
        },
        "allow_no_test": True,
        "last_stage": "prompt",
    }
    return case_file(folder, fields | changes)


def plain(work: Workspace) -> list[Candidate | Offer]:
    return [each for each in prompt_candidates(work) if each.prompt and not each.prompt.constrained]


def raced(path: str) -> tuple[StageResult, dict[str, StageRun]]:
    work = opened(path)
    result = evaluate_stage(work, "prompt", plain(work))
    tries = [StageRun(work.run.client, each) for each in result.run.children()]
    return result, {each.candidate().model.removeprefix("openai:"): each for each in tries}


def test_one_that_is_undecided_is_parked_the_next_passes_and_the_record_says_so(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    result, tries = raced(case(tmp_path, base_url, "middling", "good"))
    assert result.verdict.outcome == "PASS" and result.run.candidate().model == "openai:good"
    parked, asked = tries["middling"], server.asked["middling"]
    assert 50 <= asked < ROWS / 2, "it is left long before its rows are at an end"
    assert parked.verdict == "UNDECIDED" and parked.is_finished and parked.figures["quality.n"] == asked
    words = f"parked after {asked} examples: another try passed"
    assert parked.tag(PARKED) == words and parked.reason.startswith(words) and parked.name.endswith(", parked")
    assert parked.resolution is None, "nothing is made of what was not measured to its end"
    assert PARKED not in tries["good"].tags("") and PARKED not in result.run.tags("")
    for run in (result.run, *tries.values()):
        assert differences(run.again(), use_case_above(run)) == []
    assert audit_verdicts.fn("raced").outcome == "agrees"


def test_what_a_stage_spent_is_what_all_its_tries_were_asked_and_a_rerun_asks_nothing(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    path = case(tmp_path, base_url, "middling", "good")
    result, tries = raced(path)
    calls = server.asked.total()
    assert sum(each.figures["calls.paid"] for each in tries.values()) == calls
    assert result.run.figures["usd.spent"] == pytest.approx(sum(each.figures["usd.spent"] for each in tries.values()))
    work = opened(path)
    again = evaluate_stage(work, "prompt", plain(work))
    assert server.asked.total() == calls and again.how in ("there", "linked") and again.verdict == result.verdict


def test_where_none_passes_each_is_gone_on_with_to_its_end_and_none_is_called_parked(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    path = case(tmp_path, base_url, "nearly", "poor", "better", alpha=0.002)
    result, tries = raced(path)
    assert result.verdict.outcome == "UNDECIDED" and result.run.candidate().model == "openai:better"
    assert server.asked["nearly"] == server.asked["better"] == ROWS and server.asked["poor"] < ROWS
    assert {name: each.verdict for name, each in tries.items()} == {
        "nearly": "UNDECIDED",
        "poor": "FAIL",
        "better": "UNDECIDED",
    }
    assert not any(each.tag(PARKED) for each in tries.values())
    switches = sum(one != other for one, other in pairwise(server.order))
    assert switches > 2, "it was left and gone on with in between"


def test_a_parked_try_whose_later_requirements_were_not_measured_is_undecided_and_no_error(
    home: Path, tmp_path: Path, models: Any
):
    task = {"instruction": "Yes or no?", "labels": ["yes", "no"], "decline_label": "none"}
    required = {"quality": {"bound": 0.85, "margin": 0.1}, "ood_decline": {"bound": 0.7, "margin": 0.3}}
    data = {"gate": "gate.parquet", "out_of_scope": "out_of_scope.parquet"}
    path = case(tmp_path, models[1], "middling", "good", task=task, data=data, requirements=required)
    _, tries = raced(path)
    left = tries["middling"]
    assert left.verdict == "UNDECIDED" and left.tag("ood_decline.verdict") == "UNDECIDED"
    assert "ood_decline" not in left.figures, "it was parked before"
    assert differences(left, use_case_above(left)) == []


def test_a_parked_try_holds_nothing_open(home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch):
    now, most, opened_for = Counter[str](), [0], list[str]()

    @contextmanager
    def counted(work: Workspace, candidate: Candidate, *more: Any, **named: Any) -> Iterator[Any]:
        now[candidate.model] += 1
        opened_for.append(candidate.model)
        most[0] = max(most[0], now.total())
        with answerers.open_answerer(work, candidate, *more, **named) as answerer:
            yield answerer
        now[candidate.model] -= 1

    monkeypatch.setattr("leastwise.evaluating.stage.open_answerer", counted)
    raced(case(tmp_path, models[1], "nearly", "poor", "better", alpha=0.002))
    assert most[0] == 1 and len(set(opened_for)) == 3
    assert len(opened_for) > 3 and all(one != other for one, other in pairwise(opened_for)), "opened for a change alone"


@pytest.mark.parametrize("killed_at", [1, 30, 75, 140])
def test_killed_at_any_call_it_goes_on_and_asks_nothing_twice(
    home: Path, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch, killed_at: int
):
    class Killed(BaseException):
        pass

    server, base_url = models
    path = case(tmp_path, base_url, "middling", "good")

    def dying(progress: Any) -> None:
        if server.asked.total() >= killed_at:
            raise Killed

    work = opened(path)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(type(work.display), "show_evaluation", lambda self, progress: dying(progress))
        evaluate_stage(work, "prompt", plain(work))
    result, tries = raced(path)
    assert result.verdict.outcome == "PASS" and tries["middling"].tag(PARKED)
    assert server.asked["middling"] == tries["middling"].figures["quality.n"], "none was bought again"
    assert server.asked["good"] == tries["good"].figures["quality.n"]


@dataclass
class Watching:
    """An offer that notes what had become of the tries before it when its turn came."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    stage: str = "prompt"
    key: str = "watching"

    def take_up(self, work: Workspace, run: StageRun, tries: Tries) -> Candidate | None:
        self.seen += [(each.candidate.model, each.measured.evaluation.parked) for each in tries.tried]
        return None


def test_an_offer_is_taken_up_once_all_before_it_is_at_its_end_and_what_comes_after_it_is_not_begun_before(
    home: Path, tmp_path: Path, models: Any
):
    server, base_url = models
    work, offer = opened(case(tmp_path, base_url, "middling", "poor", "good")), Watching()
    middling, poor, good = plain(work)
    listed: list[Any] = [middling, poor, offer, good]
    assert evaluate_stage(work, "prompt", listed).verdict.outcome == "PASS"
    assert offer.seen == [("openai:poor", ""), ("openai:middling", "")]
    first_good = server.order.index("good")
    assert set(server.order[first_good:]) == {"good"}
